"""Features of attention in attribution graphs, as Neuronpedia and as Llamascopium write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.attribution_graph.exporter import EXPORTER
from ingest.formats.attribution_graph.format import FORMAT
from ingest.formats.attribution_graph.nodes import cantor
from ingest.formats.base import Context, Imported, Said
from ingest.formats.exporting import Exporting
from registry.errors import BadInput
from registry.identifiers import can_feed, parse_node_key
from registry.records import Circuit, Model
from tests.ingest.formats.attribution_graphs import feature, graph, link, logit, token, written

SAID = Said(model="gemma-2-2b", task="completion")
MODEL = Model(slug="gemma-2-2b", n_layers=26)
TYPES = {
    ("feature", True): "lorsa", ("feature", False): "cross layer transcoder",
    ("error", True): "lorsa error", ("error", False): "mlp reconstruction error",
}  # fmt: skip
Part = tuple[str, bool, int, int, int]  # kind, of attention, layer, index, position


def read(folder: Path, content: Any, **said: Any) -> Imported:
    return FORMAT.read(
        written(folder, content), Context(SAID.model_copy(update={"sign": "unknown", **said}))
    )


def only(imported: Imported) -> Circuit:
    (circuit,) = imported.circuits
    return circuit


def once(part: Part) -> dict[str, Any]:
    """A node as Neuronpedia writes it."""
    kind, attention, layer, index, at = part
    which = ("lor" if attention else "cro") if kind == "feature" else "error"
    number: Any = index if kind == "feature" else "attn" if attention else "mlp"
    id = f"{layer}_{which}_{number}_{at}"
    return {
        "node_id": id, "jsNodeId": id, "layer": layer, "ctx_idx": at,
        "feature_type": TYPES[kind, attention], "clerp": f"F{index}",
        "feature": cantor(layer, index) if kind == "feature" else None,
        "activation": 1.5 if kind == "feature" else None, "influence": 0.25,
    }  # fmt: skip


def twice(part: Part) -> dict[str, Any]:
    """A node as Llamascopium writes it."""
    kind, attention, layer, index, at = part
    layer, name = 2 * layer + (not attention), index if kind == "feature" else "error"
    return {
        **once(part), "layer": layer, "node_id": f"{layer}_{name}_{at}",
        "feature": index if kind == "feature" else None,
    }  # fmt: skip


def key(part: Part) -> str:
    kind, attention, layer, index, at = part
    site = f"l{layer}.attn_out" if attention else f"m{layer}"
    name = "lorsa-set" if attention else "clt-set"
    return f"{site}.{f'f{index}' if kind == 'feature' else 'error'}#{name}@{at}"


def content(
    nodes: list[dict[str, Any]], links: list[dict[str, Any]], **metadata: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "slug": "s", "prompt": "ab", "prompt_tokens": ["a", "b"], "schema_version": 1,
            **metadata,
        },
        "qParams": {"pinnedIds": []},
        "nodes": nodes,
        "links": links,
    }  # fmt: skip


NEURONPEDIA = {
    "scan": "gemma-2-2b",
    "feature_details": {
        "neuronpedia_source_set": "clt-set", "neuronpedia_lorsa_source_set": "lorsa-set",
    },
}  # fmt: skip
LLAMASCOPIUM = {"tc_analysis_name": "clt-set", "lorsa_analysis_name": "lorsa-set"}
ENDS = {
    "neuronpedia": (token(4, 0), {**logit(9, 1), "node_id": "26_9_1", "layer": 26}),
    "llamascopium": (
        token(4, 0, layer=-1), {**logit(9, 1), "node_id": "52_9_1", "layer": 52}
    ),
}  # fmt: skip

parts = st.sets(
    st.tuples(
        st.sampled_from(["feature", "error"]), st.booleans(), st.integers(0, 25),
        st.integers(0, 5), st.integers(0, 1),
    ).map(lambda part: part if part[0] == "feature" else (*part[:3], 0, part[4])),
    min_size=1, max_size=8,
)  # fmt: skip


@given(parts, st.sampled_from(sorted(ENDS)))
def test_both_ways_of_writing_are_read_as_the_same_parts(
    tmp_path_factory: pytest.TempPathFactory, found: set[Part], tool: str
) -> None:
    if not any(attention for _, attention, *_ in found):
        found = {*found, ("error", True, 3, 0, 1)}
    write, metadata = (once, NEURONPEDIA) if tool == "neuronpedia" else (twice, LLAMASCOPIUM)
    ordered = sorted(found)
    first, last = ENDS[tool]
    nodes = [write(part) for part in ordered]
    links = [link(node["node_id"], last["node_id"], 0.5 + at) for at, node in enumerate(nodes)]
    imported = read(
        tmp_path_factory.mktemp("graph"), content([*nodes, first, last], links, **metadata)
    )
    circuit = only(imported)
    assert {node.key for node in circuit.nodes} == {*map(key, ordered), "input@0", "logits[9]@1"}
    assert {edge.source: edge.effect for edge in circuit.edges} == {
        key(part): 0.5 + at for at, part in enumerate(ordered)
    }
    assert circuit.parameters["logit_layer"] == 26
    assert "left_out" not in circuit.parameters
    twice_told = [note for note in imported.notes if "counts each layer twice" in note]
    assert len(twice_told) == (tool == "llamascopium")
    assert "features of attention are named by lorsa-set" in imported.notes


@given(parts)
def test_attention_that_goes_out_comes_in_the_same(
    tmp_path_factory: pytest.TempPathFactory, found: set[Part]
) -> None:
    folder = tmp_path_factory.mktemp("graph")
    first, last = ENDS["neuronpedia"]
    nodes = [once(part) for part in sorted(found)]
    links = [link(node["node_id"], last["node_id"], 0.5 + at) for at, node in enumerate(nodes)]
    imported = read(folder, content([*nodes, first, last], links, **NEURONPEDIA))
    (artifact,) = imported.artifacts
    out = EXPORTER.write(only(imported), Exporting(MODEL, artifact))
    again = read(folder, out.decode())
    assert only(again) == only(imported)
    assert list(again.artifacts) == [artifact]
    if any(attention for _, attention, *_ in found):
        theirs = {node["node_id"]: node for node in nodes}
        ours = {node["node_id"]: node for node in json.loads(out)["nodes"]}
        assert set(theirs) < set(ours)
        for id, node in theirs.items():
            for field in ("feature_type", "ctx_idx", "activation", "influence", "jsNodeId"):
                assert ours[id][field] == node[field]
            assert ours[id]["layer"] == str(node["layer"])
            assert node["feature"] in (None, ours[id]["feature"])


def test_what_was_counted_twice_goes_out_counted_once(tmp_path: Path) -> None:
    first, last = ENDS["llamascopium"]
    part: Part = ("feature", True, 5, 3, 1)
    found = content([twice(part), first, last], [link("10_3_1", "52_9_1")], **LLAMASCOPIUM)
    imported = read(tmp_path, found)
    graph = json.loads(EXPORTER.write(only(imported), Exporting(MODEL)))
    assert [node["node_id"] for node in graph["nodes"]] == ["5_lor_3_1", "E_0", "26_9_1"]
    assert only(read(tmp_path, graph)).edges == only(imported).edges


def test_transcoders_alone_are_counted_once_where_only_llamascopium_counts_twice(
    tmp_path: Path,
) -> None:
    first, last = ENDS["llamascopium"]
    nodes = [twice(("feature", False, 3, 8, 1)), twice(("error", False, 2, 0, 1))]
    circuit = only(read(tmp_path, content([*nodes, first, last], [], **LLAMASCOPIUM)))
    assert {"m3.f8#clt-set@1", "m2.error#clt-set@1"} < {node.key for node in circuit.nodes}


@pytest.mark.parametrize(
    "nodes",
    [
        [feature(3, 8, 1), feature(5, 8, 1), token(4, 0), logit(9, 1)],
        [feature(3, 8, 1), feature(5, 8, 1), token(4, 0, layer=-1), logit(9, 1)],
        [feature(3, 8, 1), once(("error", False, 5, 0, 1)), token(4, 0, layer=-1), logit(9, 1)],
        [feature(3, 8, 1), twice(("error", False, 2, 0, 1)), token(4, 0), logit(9, 1)],
    ],
    ids=["tokens in no layer", "no node of theirs", "errors counted once", "tokens in no layer"],
)
def test_odd_layers_alone_are_not_halved(tmp_path: Path, nodes: list[dict[str, Any]]) -> None:
    circuit = only(read(tmp_path, graph(nodes=nodes, links=[])))
    assert {"m3", "m5"} == {
        node.component.partition(".")[0] for node in circuit.nodes if node.component[0] == "m"
    }


def test_attention_feeds_the_mlp_of_its_layer_and_not_the_other_way() -> None:
    attention, _ = parse_node_key("l5.attn_out.f3#lorsa@1")
    mlp, _ = parse_node_key("m5.f3#clt@1")
    assert can_feed(attention, mlp)
    assert not can_feed(mlp, attention)


def test_a_link_of_a_shared_id_may_lead_from_attention_to_the_mlp_of_its_layer(
    tmp_path: Path,
) -> None:
    nodes = [
        {**once(("feature", True, 5, 3, 1)), "node_id": "x"},
        {**once(("feature", False, 7, 4, 1)), "node_id": "x"},
        once(("feature", False, 5, 8, 1)),
    ]
    circuit = only(read(tmp_path, content(nodes, [link("x", "5_cro_8_1")], **NEURONPEDIA)))
    (edge,) = circuit.edges
    assert (edge.source, edge.target) == ("l5.attn_out.f3#lorsa-set@1", "m5.f8#clt-set@1")


def test_a_dictionary_that_is_said_names_both(tmp_path: Path) -> None:
    nodes = [once(("feature", attention, 5, 3, 1)) for attention in (True, False)]
    circuit = only(read(tmp_path, content(nodes, [], **NEURONPEDIA), dictionary="mine"))
    assert {node.key for node in circuit.nodes} == {"l5.attn_out.f3#mine@1", "m5.f3#mine@1"}


def test_attention_without_a_name_of_its_own_goes_by_that_of_the_transcoders(
    tmp_path: Path,
) -> None:
    circuit = only(
        read(tmp_path, content([once(("feature", True, 5, 3, 1))], [], scan="owner/set"))
    )
    assert [node.key for node in circuit.nodes] == ["l5.attn_out.f3#owner--set@1"]


class TestUnknownTypes:
    """A bias, and what is not known yet: 0_1_1 -> bias -> 2_4_1, beside the small graph."""

    @staticmethod
    def content() -> dict[str, Any]:
        found = graph()
        found["nodes"] += [
            {"node_id": "1_bias_x_1", "feature_type": "bias", "layer": 1, "ctx_idx": 1},
            {"node_id": "new", "feature_type": "new", "layer": "?", "ctx_idx": 1, "feature": None},
        ]
        found["links"] += [link("1_bias_x_1", "2_4_1", 40.0), link("new", "9_7_1", -50.0)]
        return found

    def test_they_are_left_out_with_their_links_and_the_circuit_says_so(
        self, tmp_path: Path
    ) -> None:
        imported, known = read(tmp_path, self.content()), only(read(tmp_path, graph()))
        circuit = only(imported)
        assert (circuit.nodes, circuit.edges) == (known.nodes, known.edges)
        left_out = {"nodes": {"bias": 1, "new": 1}, "links": 2}
        assert circuit.parameters == {**known.parameters, "left_out": left_out}
        assert circuit.id != known.id
        assert (
            "nodes of unknown types are omitted, with 2 links: 1 of 'bias', 1 of 'new'"
            in imported.notes
        )

    def test_the_strongest_links_are_those_that_can_be_kept(self, tmp_path: Path) -> None:
        circuit = only(read(tmp_path, self.content(), top=2))
        assert sorted(abs(edge.effect or 0) for edge in circuit.edges) == [3.5, 18.0]
        circuit = only(read(tmp_path, self.content(), threshold=2.0))
        assert sorted(abs(edge.effect or 0) for edge in circuit.edges) == [2.0, 3.5, 18.0]
        assert circuit.parameters["left_out"]["links"] == 2

    def test_they_take_part_in_influence(self, tmp_path: Path) -> None:
        # Of what 2_4_1 receives the bias gives 40 of 44, so the rest holds little.
        shares = {"node_threshold": 0.9}
        assert len(only(read(tmp_path, graph(), **shares)).nodes) == 4
        kept = only(read(tmp_path, self.content(), **shares))
        assert {node.component for node in kept.nodes} == {
            "input", "logits[7]", "m2.f4#mntss--small-set",
        }  # fmt: skip

    def test_a_file_of_nothing_else_is_refused_with_the_types(self, tmp_path: Path) -> None:
        nodes = [
            {"node_id": f"b{at}", "feature_type": f"t{at % 7}", "layer": 0, "ctx_idx": 0}
            for at in range(8)
        ]
        says = "no node of a known type: 2 of 't0', 1 of 't1'.* and 2 more"
        with pytest.raises(BadInput, match=says):
            read(tmp_path, graph(nodes=nodes, links=[]))
