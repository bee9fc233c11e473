"""Graphs of networkx and of programs that draw, as GraphML and node-link JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx
import pytest
from pydantic import ValidationError

from ingest.formats.base import Context, Imported, Limits, Said, recognised
from registry.errors import BadInput
from registry.records import Circuit, Level, Sign

FILES = Path(__file__).parents[1] / "files"
GPT2 = Said(model="gpt2", task="ioi")
EDGES = {
    "input->m0": (0.25, 4), "m0->a9.h6<q>": (-0.5, 3), "a9.h6->a10.h7<k>": (1.5, 2),
    "a9.h6->a10.h7<v>": (0.125, 5), "a10.h7->logits": (-2.0, 1),
}  # fmt: skip


def read(path: Path, said: Said = GPT2, limits: Limits | None = None) -> Imported:
    return recognised(path).read(path, Context(said, limits or Limits()))


def one(path: Path, said: Said = GPT2) -> Circuit:
    (circuit,) = read(path, said).circuits
    return circuit


def edges_of(circuit: Circuit) -> dict[str, tuple[float | None, int | None]]:
    return {edge.connection: (edge.effect, edge.rank) for edge in circuit.edges}


def node_link(**changes: Any) -> dict[str, Any]:
    return {
        "directed": True,
        "multigraph": False,
        "graph": {},
        "nodes": [{"id": "m0"}, {"id": "m1"}],
        "links": [{"source": "m0", "target": "m1", "effect": 1.0}],
        **changes,
    }


def graphml(
    inside: str = "", edgedefault: str = "directed", before: str = "", keys: str = ""
) -> str:
    namespace = "http://graphml.graphdrawing.org/xmlns"
    return (
        f'<?xml version="1.0"?>{before}<graphml xmlns="{namespace}">{keys}'
        f'<graph edgedefault="{edgedefault}"><node id="m0"/><node id="m1"/>{inside}</graph>'
        "</graphml>"
    )


def written(folder: Path, content: Any, name: str | None = None) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path = folder / (name or ("graph.graphml" if "<graphml" in text else "graph.json"))
    path.write_text(text, "utf-8")
    return path


class TestBoth:
    @pytest.mark.parametrize(
        "file", ["graphml/networkx.graphml", "node-link/links.json", "node-link/edges.json"]
    )
    def test_what_networkx_writes_is_read_with_what_the_graph_says(self, file: str) -> None:
        circuit = one(FILES / file, Said())
        assert edges_of(circuit) == EDGES
        assert (circuit.model, circuit.task, circuit.sign) == ("gpt2", "ioi", Sign.UNKNOWN)
        assert {node.component for node in circuit.nodes} == {
            "input", "m0", "a9.h6", "a10.h7", "logits",
        }  # fmt: skip

    def test_what_the_user_says_wins_and_signs_are_turned(self) -> None:
        said = Said(model="gpt2-medium", sign="hurts-positive")
        circuit = one(FILES / "node-link/links.json", said)
        assert (circuit.model, circuit.task) == ("gpt2-medium", "ioi")
        assert edges_of(circuit)["a10.h7->logits"] == (2.0, 1)

    def test_notes_tell_what_was_read_as_what(self) -> None:
        notes = read(FILES / "graphml/networkx.graphml").notes
        assert "weight read as effect" in notes
        assert any("A9.6" in note and "a9.h6" in note for note in notes)

    def test_a_graph_of_nodes_alone_is_a_circuit_of_nodes(self, tmp_path: Path) -> None:
        nodes = [{"id": 1, "label": "L9H6", "role": "name mover", "effect": -2, "rank": 1}]
        path = written(tmp_path, node_link(nodes=nodes, links=[]))
        circuit = one(path, Said(model="gpt2", task="ioi", sign="hurts-positive"))
        (node,) = circuit.nodes
        assert (node.key, node.role, node.effect, node.rank) == ("a9.h6", "name mover", 2.0, 1)
        assert circuit.level is Level.NODE

    def test_densities_of_nodes_are_read_and_are_shares(self, tmp_path: Path) -> None:
        def graph(density: float) -> dict[str, Any]:
            return node_link(nodes=[{"id": 1, "name": "m3", "density": density}], links=[])

        (node,) = one(written(tmp_path, graph(0.5)), Said(model="gpt2", task="ioi")).nodes
        assert node.density == 0.5
        with pytest.raises(BadInput, match="node 1: density 7 is no share from 0 to 1"):
            one(written(tmp_path, graph(7)), Said(model="gpt2", task="ioi"))

    def test_positions_stand_in_an_attribute_or_behind_the_name(self, tmp_path: Path) -> None:
        nodes = [{"id": 0, "name": "L9H6", "position": 7}, {"id": 1, "name": "m10@END"}]
        links = [{"source": 0, "target": 1}]
        circuit = one(written(tmp_path, node_link(nodes=nodes, links=links)))
        assert [node.key for node in circuit.nodes] == ["a9.h6@7", "m10@END"]
        assert [(edge.source, edge.target) for edge in circuit.edges] == [("a9.h6@7", "m10@END")]

    def test_an_input_of_a_head_may_be_a_node(self, tmp_path: Path) -> None:
        nodes = [{"id": "m0"}, {"id": "<a9.6_q>"}]
        links = [{"source": "m0", "target": "<a9.6_q>"}]
        circuit = one(written(tmp_path, node_link(nodes=nodes, links=links)))
        assert edges_of(circuit) == {"m0->a9.h6<q>": (None, None)}
        assert [node.key for node in circuit.nodes] == ["m0", "a9.h6"]

    def test_columns_are_mapped(self, tmp_path: Path) -> None:
        content = node_link(
            nodes=[{"id": 0, "label": "m3", "what": "m0"}, {"id": 1, "what": "m1"}],
            links=[{"from": 0, "to": 1, "w": 3, "effect": 9}],
        )
        columns = {"name": "what", "source": "from", "target": "to", "effect": "w"}
        circuit = one(written(tmp_path, content), Said(model="gpt2", task="ioi", columns=columns))
        assert edges_of(circuit) == {"m0->m1": (3.0, 1)}

    def test_a_large_graph_is_refused_until_allowed(self) -> None:
        for file in ("graphml/networkx.graphml", "node-link/links.json"):
            for limits, says in (
                (Limits(max_bytes=99), "--max-bytes"),
                (Limits(max_edges=4), "--max-edges"),
            ):
                with pytest.raises(BadInput, match=says):
                    read(FILES / file, limits=limits)


class TestNodeLink:
    def test_missing_numbers_are_unknown(self, tmp_path: Path) -> None:
        text = json.dumps(node_link()).replace("1.0", "NaN")
        assert edges_of(one(written(tmp_path, text))) == {"m0->m1": (None, None)}

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"directed": False}, "is undirected"),
            ({"directed": None}, "does not state that it is directed"),
            ({"nodes": {}}, "no list 'nodes'"),
            ({"links": {}}, "none of 'links' and 'edges'"),
            ({"nodes": [], "links": []}, "holds no node"),
            ({"nodes": [{"id": "m0"}, {"id": "m0"}]}, "node 2 has no id of its own"),
            ({"nodes": [{"id": ["m0"]}]}, "node 1 has no id"),
            ({"nodes": [{"id": "m0"}, {"id": "wrong"}]}, "names no part of a model"),
            ({"nodes": [{"id": "m0", "label": "m1"}]}, "is called 'm1' and 'm0'"),
            ({"nodes": [{"id": "m0"}, {"id": "a1.h0", "label": "a1.h0.q"}]}, "is called"),
            (
                {"nodes": [{"id": "m0"}, {"id": "M0", "role": "x"}], "links": []},
                "m0 appears twice",
            ),
            ({"nodes": [{"id": "m0", "effect": "big"}], "links": []}, "'big' is no number"),
            ({"nodes": [{"id": "m0", "rank": 0}], "links": []}, "rank 0 is no whole number"),
            ({"links": [{"source": "m0"}]}, "no 'source' and 'target'"),
            ({"links": [7]}, "edge 1 has no"),
            (
                {"links": [{"source": "m0", "target": "m7"}]},
                "graph.json: edge 1 joins 'm7', which is no node",
            ),
            ({"links": [{"source": "m0", "target": "m1", "port": "q"}]}, "m1 has no input 'q'"),
            ({"links": [{"source": "m0", "target": "m1", "port": "z"}]}, "port 'z'"),
            ({"links": [{"source": "m0", "target": "m1", "effect": []}]}, r"effect \[\]"),
            (
                {"links": [{"source": "m0", "target": "m1"}] * 2},
                "edge 2: the edge m0 -> m1 app",
            ),
            ({"graph": {"sign": "backwards"}}, "sign"),
            ({"graph": {"task": 7}}, "task"),
        ],
    )
    def test_a_malformed_graph_is_refused_with_the_reason(
        self, tmp_path: Path, changes: dict[str, Any], says: str
    ) -> None:
        said = Said(model="gpt2") if "graph" in changes else GPT2
        with pytest.raises((BadInput, ValidationError), match=says):
            read(written(tmp_path, node_link(**changes)), said)

    def test_a_column_that_we_have_not_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="unknown attribute 'colour'"):
            one(written(tmp_path, node_link()), Said(model="m", task="t", columns={"colour": "c"}))


class TestGraphMl:
    def test_labels_of_yed_and_defaults_are_read(self) -> None:
        circuit = one(FILES / "graphml/drawn.graphml")
        assert edges_of(circuit) == {"a9.h6->a10.h7<q>": (0.5, 2), "a9.h6->a10.h7<v>": (-1.25, 1)}

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
    def test_xml_of_any_encoding_is_read(self, tmp_path: Path, encoding: str) -> None:
        text = graphml('<edge source="m0" target="m1"/>').replace(
            '"1.0"?', f'"1.0" encoding="{encoding.removesuffix("-sig")}"?'
        )
        path = tmp_path / "graph.graphml"
        path.write_bytes(text.encode(encoding))
        assert edges_of(one(path)) == {"m0->m1": (None, None)}

    @pytest.mark.parametrize(
        "doctype",
        [
            "<!DOCTYPE graphml>",
            '<!DOCTYPE graphml SYSTEM "file:///etc/passwd">',
            '<!DOCTYPE graphml [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE graphml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">]>',
            '<!DOCTYPE graphml [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]>',
        ],
    )
    def test_a_doctype_is_refused_before_what_it_declares(
        self, tmp_path: Path, doctype: str
    ) -> None:
        with pytest.raises(BadInput, match=r"line 1: a DOCTYPE"):
            one(written(tmp_path, graphml(before=doctype)))

    def test_an_entity_that_nobody_declared_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="undefined entity"):
            one(written(tmp_path, graphml("<node id='m2'>&passwd;</node>")))

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (graphml(edgedefault="undirected"), "is undirected"),
            (graphml(edgedefault=""), "does not state that it is directed"),
            (graphml('<edge source="m0" target="m1" directed="false"/>'), "undirected"),
            (graphml('<edge source="m0"/>'), "no source or no target"),
            (graphml('<edge source="m0" target="m9"/>'), "'m9', which is no node"),
            (graphml('<node id="m0"/>'), "a repeated id"),
            (graphml("<hyperedge/>"), "more than two nodes"),
            (
                graphml('<node id="m2"><graph edgedefault="directed"/></node>'),
                "a second or nested graph",
            ),
            (graphml('<data key="k">1</data>'), "no key 'k' was declared"),
            (graphml("<a>" * 200), "100 deep"),
            (graphml("</graph>"), "no XML"),
            ('<xml version="<graphml"/>', "no XML"),
            ("<svg><graphml/></svg>", "outermost element is svg"),
            ('<?xml version="1.0" encoding="rot13"?><graphml/>', "no XML"),
            ('<graphml><node id="m0"/></graphml>', "outside the graph"),
            ("<graphml/>", "there is no graph"),
            (
                graphml(
                    '<data key="k">much</data>',
                    keys='<key id="k" for="graph" attr.name="n" attr.type="double"/>',
                ),
                "n is 'much', no double",
            ),
        ],
    )
    def test_a_malformed_graph_is_refused_with_the_reason(
        self, tmp_path: Path, content: str, says: str
    ) -> None:
        with pytest.raises(BadInput, match=says):
            one(written(tmp_path, content))


def test_a_graph_of_networkx_with_ports_as_keys_needs_only_a_column(tmp_path: Path) -> None:
    graph: networkx.MultiDiGraph[str] = networkx.MultiDiGraph()
    graph.add_edge("m0", "a1.h0", key="q", effect=1.0)
    graph.add_edge("m0", "a1.h0", key="k", effect=2.0)
    path = written(tmp_path, networkx.node_link_data(graph, edges="edges"))
    circuit = one(path, Said(model="gpt2", task="ioi", columns={"port": "key"}))
    assert edges_of(circuit) == {"m0->a1.h0<q>": (1.0, 2), "m0->a1.h0<k>": (2.0, 1)}


def test_edges_in_two_lists_are_refused_and_an_empty_list_is_none(tmp_path: Path) -> None:
    other = [{"source": "m1", "target": "logits", "effect": 1.0}]
    nodes = [{"id": "m0"}, {"id": "m1"}, {"id": "logits"}]
    with pytest.raises(BadInput, match="edges under 'links' and under 'edges'"):
        read(written(tmp_path, node_link(nodes=nodes, edges=other)))
    circuit = one(written(tmp_path, node_link(nodes=nodes, links=[], edges=other)))
    assert [edge.connection for edge in circuit.edges] == ["m1->logits"]


def test_weights_beside_effects_of_other_edges_are_told_of(tmp_path: Path) -> None:
    nodes = [{"id": "m0"}, {"id": "m1"}, {"id": "m2"}]
    links = [{"source": "m0", "target": "m1", "effect": 1.0, "weight": 3},
             {"source": "m0", "target": "m2", "weight": 2.0}]  # fmt: skip
    path = written(tmp_path, node_link(nodes=nodes, links=links))
    (note,) = read(path).notes
    assert "1 edge has a weight and no effect, as others have" in note
    said = GPT2.model_copy(update={"columns": {"effect": "weight"}})
    assert [edge.effect for edge in one(path, said).edges] == [3.0, 2.0]
