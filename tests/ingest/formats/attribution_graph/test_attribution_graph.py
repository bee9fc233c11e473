"""Attribution graphs of circuit-tracer and Neuronpedia, small ones of our own and real ones."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.exchange.importing import FileOutcome, import_files
from ingest.formats.attribution_graph.format import FORMAT, dictionary_name
from ingest.formats.attribution_graph.nodes import cantor
from ingest.formats.attribution_graph.values import NodeValues, pack, unpack
from ingest.formats.base import Context, Imported, Limits, Said, recognised
from registry import Registry
from registry.errors import BadInput, CircuitsError
from registry.records import Circuit, Level, Sign
from tests.ingest.formats.attribution_graphs import (
    error,
    feature,
    graph,
    link,
    logit,
    token,
    written,
)

FILES = Path(__file__).parents[1] / "files" / "attribution-graph"
SAID = Said(model="gemma-2-2b", task="completion")


def read(folder: Path, content: Any, said: Said = SAID) -> Imported:
    return FORMAT.read(written(folder, content), Context(said))


def only(imported: Imported) -> Circuit:
    (circuit,) = imported.circuits
    return circuit


def effects(circuit: Circuit) -> dict[str, float | None]:
    return {f"{edge.source}->{edge.target}": edge.effect for edge in circuit.edges}


class TestReading:
    def test_a_graph_becomes_features_errors_tokens_and_logits_at_positions(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        (report,) = import_files(
            registry, [written(tmp_path, graph())], {"model": "gemma-2-2b", "task": "completion"}
        )
        assert (report.outcome, report.format) == (FileOutcome.STORED, "attribution-graph")
        circuit = registry.circuit(report.circuits[0]).circuit
        assert [node.key for node in circuit.nodes] == [
            "input@1", "m0.f3#mntss--small-set@1", "m1.error#mntss--small-set@1",
            "m2.f4#mntss--small-set@1", "logits[7]@1",
        ]  # fmt: skip
        assert effects(circuit) == {
            "input@1->m0.f3#mntss--small-set@1": 2.0,
            "m0.f3#mntss--small-set@1->m2.f4#mntss--small-set@1": -3.5,
            "m1.error#mntss--small-set@1->m2.f4#mntss--small-set@1": 0.5,
            "m2.f4#mntss--small-set@1->logits[7]@1": 18.0,
        }
        assert (circuit.level, circuit.sign, circuit.method) == (
            Level.FEATURE, Sign.UNKNOWN, "attribution-graph",
        )  # fmt: skip
        assert (circuit.metric, circuit.ablation, circuit.selection) == (None, None, None)

    def test_what_the_file_says_of_its_making_is_kept(self, tmp_path: Path) -> None:
        content = graph()
        parameters = only(read(tmp_path, content)).parameters
        assert parameters["metadata"] == content["metadata"]
        assert parameters["qParams"] == content["qParams"]
        assert parameters["probabilities"] == {"logits[7]@1": 0.75}
        assert parameters["targets"] == ["logits[7]@1"]

    def test_influence_and_activation_are_no_effects(self, tmp_path: Path) -> None:
        found = read(tmp_path, graph())
        circuit = only(found)
        assert {node.effect for node in circuit.nodes} == {None}
        assert {node.component: node.rank for node in circuit.nodes} == {
            "m0.f3#mntss--small-set": 1, "m2.f4#mntss--small-set": 2,
            "m1.error#mntss--small-set": 3, "input": 4, "logits[7]": None,
        }  # fmt: skip
        values = unpack(next(iter(found.artifacts)))
        assert values.activation == {"m0.f3#mntss--small-set@1": 2.5}
        assert values.influence["input@1"] == 0.9
        assert values.labels == {"m1.error#mntss--small-set@1": "Err: mlp"}
        assert values.tokens == {"input@1": 2}
        assert [node.role for node in circuit.nodes if node.role] == ["letters"]

    def test_feature_numbers_of_the_older_generation_are_told_apart(self, tmp_path: Path) -> None:
        content = graph()
        del content["metadata"]["schema_version"]
        for node, number in zip(content["nodes"], (3, 200_004), strict=False):
            node["feature"] = number
        found = read(tmp_path, content)
        newer = only(read(tmp_path, graph()))
        assert only(found).nodes == newer.nodes
        assert "2 features are numbered by layer x 100,000 + index" in found.notes[1]

    @pytest.mark.parametrize(
        ("version", "number", "index"), [(1, cantor(2, 51_234), 51_234), (None, 251_234, 51_234)]
    )
    def test_a_number_is_decoded_by_its_generation_where_the_id_tells_none(
        self, tmp_path: Path, version: int | None, number: int, index: int
    ) -> None:
        content = graph(links=[])
        content["metadata"]["schema_version"] = version
        content["nodes"] = [feature(2, 4, 1, node_id="mine", feature=number)]
        assert only(read(tmp_path, content)).nodes[0].component == f"m2.f{index}#mntss--small-set"

    def test_layers_may_be_numbers_and_weights_whole_or_missing(self, tmp_path: Path) -> None:
        content = graph()
        for node in content["nodes"]:
            node["layer"] = int(node["layer"]) if node["layer"].isdigit() else node["layer"]
        content["links"][0]["weight"] = None
        circuit = only(read(tmp_path, content))
        assert effects(circuit)["input@1->m0.f3#mntss--small-set@1"] is None
        assert effects(circuit)["m2.f4#mntss--small-set@1->logits[7]@1"] == 18.0
        ranks = {edge.rank for edge in circuit.edges}
        assert ranks == {None, 1, 2, 3}

    def test_ids_that_other_programs_make_up_are_read(self, tmp_path: Path) -> None:
        nodes = [
            feature(2, 4, 1), logit(7, 1, node_id="L_7_1", layer="L"),
            error(1, 1, node_id="err_1_1", feature=None), token(2, 1, node_id="E1"),
        ]  # fmt: skip
        links = [link("err_1_1", "2_4_1"), link("E1", "L_7_1"), link("2_4_1", "L_7_1")]
        circuit = only(read(tmp_path, graph(nodes=nodes, links=links)))
        assert [node.key for node in circuit.nodes] == [
            "input@1", "m1.error#mntss--small-set@1", "m2.f4#mntss--small-set@1", "logits[7]@1",
        ]  # fmt: skip
        assert len(circuit.edges) == 3

    @pytest.mark.parametrize(
        ("metadata", "said", "name"),
        [
            ({"scan": "gemma-2-2b"}, None, "gemma-2-2b"),
            ({"scan": "mntss/clt"}, None, "mntss--clt"),
            ({"scan": "m", "info": {"neuronpedia_source_set": "clt-hp"}}, None, "clt-hp"),
            ({"scan": "m", "feature_details": {"neuronpedia_source_set": "x"}}, None, "x"),
            ({"scan": "custom-1", "transcoder_list": ["a", "a"]}, None, "a"),
            ({"scan": "custom-1", "transcoder_list": ["a", "b"]}, None, "transcoders-7e18f737"),
            ({"scan": "custom-2", "transcoder_list": ["a", "b"]}, None, "transcoders-7e18f737"),
            ({"scan": "mntss/clt"}, "ours", "ours"),
            ({"scan": "a b"}, None, "a-b-c8687a08"),
        ],
    )
    def test_the_dictionary_is_named_as_the_file_or_the_user_says(
        self, metadata: dict[str, Any], said: str | None, name: str
    ) -> None:
        assert dictionary_name(metadata, Said(dictionary=said)) == name

    def test_dictionaries_of_odd_names_stay_apart(self) -> None:
        one, other = (dictionary_name({"scan": scan}, Said()) for scan in ("a b", "a:b"))
        assert one != other

    def test_a_file_that_names_no_dictionary_asks_for_it(self, tmp_path: Path) -> None:
        content = graph()
        content["metadata"] = {"prompt": "a"}
        with pytest.raises(BadInput, match="--dictionary"):
            read(tmp_path, content)

    @pytest.mark.parametrize("scan", ["mntss/clt", "custom-1", "gemma", "a-model-of-nobody", 7])
    def test_a_model_is_asked_for_where_scan_is_none_that_we_know(
        self, tmp_path: Path, scan: Any
    ) -> None:
        content = graph()
        content["metadata"]["scan"] = scan
        with pytest.raises(BadInput, match="--model"):
            read(tmp_path, content, Said(task="completion"))

    @pytest.mark.parametrize("scan", ["gemma-2-2b", "google/gemma-2-2b", "Gemma-2-2b"])
    def test_the_model_is_that_of_scan_where_nobody_says_another(
        self, tmp_path: Path, scan: str
    ) -> None:
        content = graph()
        content["metadata"]["scan"] = scan
        assert only(read(tmp_path, content, Said(task="completion"))).model == "gemma-2-2b"
        other = read(tmp_path, content, Said(model="gemma-2-2b-it", task="completion"))
        assert only(other).model == "gemma-2-2b-it"
        differs = "the file names the model gemma-2-2b; used is gemma-2-2b-it, as given by the user"
        assert differs in (other.notes)

    def test_the_task_is_asked_for(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="--task"):
            read(tmp_path, graph(), Said(model="gemma-2-2b"))


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "dictionary"),
    [("schema-1.json", 7, 5, "mntss--small-set"), ("older.json", 5, 4, "small-16k")],
)
def test_files_that_are_kept_are_read(name: str, nodes: int, edges: int, dictionary: str) -> None:
    found = FORMAT.read(FILES / name, Context(SAID))
    circuit = only(found)
    assert (len(circuit.nodes), len(circuit.edges)) == (nodes, edges)
    assert found.notes[0] == f"features and errors are named by the dictionary {dictionary}"
    ambiguous = circuit.parameters.get("ambiguous_links", [])
    shared = [["0_1_1", "2_4_1", 0.5], ["0_1_1", "7_9_1", -0.25]]
    assert ambiguous == (shared if nodes == 7 else [])


class TestSelecting:
    def test_the_strongest_links_may_be_asked_for(self, tmp_path: Path) -> None:
        circuit = only(read(tmp_path, graph(), SAID.model_copy(update={"top": 1})))
        assert list(effects(circuit).values()) == [18.0]
        assert (len(circuit.nodes), circuit.universe_size) == (2, None)
        circuit = only(read(tmp_path, graph(), SAID.model_copy(update={"threshold": 2.0})))
        assert sorted(map(abs, filter(None, effects(circuit).values()))) == [2.0, 3.5, 18.0]

    def test_two_rules_at_once_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="not both"):
            read(tmp_path, graph(), SAID.model_copy(update={"top": 1, "node_threshold": 0.5}))

    def test_a_pruned_graph_says_how(self, tmp_path: Path) -> None:
        said = SAID.model_copy(update={"node_threshold": 0.5, "edge_threshold": 0.5})
        found = read(tmp_path, graph(), said)
        circuit = only(found)
        assert circuit.selection == {
            "node_threshold": 0.5, "edge_threshold": 0.5, "by": "influence",
        }  # fmt: skip
        assert circuit.universe_size is None
        assert len(circuit.edges) < 4
        assert "links are kept" in " ".join(found.notes)

    def test_a_graph_without_probabilities_cannot_be_pruned(self, tmp_path: Path) -> None:
        content = graph()
        content["nodes"][-1]["token_prob"] = None
        with pytest.raises(BadInput, match="import whole"):
            read(tmp_path, content, SAID.model_copy(update={"node_threshold": 0.5}))

    @pytest.mark.parametrize("share", [None, 0.5])
    @pytest.mark.parametrize(
        "ends",
        [("2_4_1", "0_3_1"), ("2_4_1", "2_4_1"), ("2_4_1", "E_2_1"), ("9_7_1", "2_4_1"),
         ("0_3_1", "0_5_0")],
    )  # fmt: skip
    def test_a_link_that_no_model_has_is_refused(
        self, tmp_path: Path, share: float | None, ends: tuple[str, str]
    ) -> None:
        content = graph()
        content["nodes"].append(feature(0, 5, 0))
        content["links"].append(link(*ends))
        with pytest.raises(BadInput, match=f"the link '{ends[0]}' -> '{ends[1]}' is in no model"):
            read(tmp_path, content, SAID.model_copy(update={"node_threshold": share}))

    def test_a_link_to_an_earlier_token_is_kept_with_a_note(self, tmp_path: Path) -> None:
        content = graph()
        content["nodes"] += [feature(0, 5, 1), feature(1, 6, 0)]
        content["links"].append(link("0_5_1", "1_6_0"))
        (note,) = [one for one in read(tmp_path, content).notes if "earlier" in one]
        assert note.startswith("1 edge leads from a later token to an earlier one, such as m0.f5#")
        content["nodes"][-2:] = [feature(0, 5, 0), feature(1, 6, 1)]
        content["links"][-1] = link("0_5_0", "1_6_1")
        assert not [one for one in read(tmp_path, content).notes if "earlier" in one]


# -- malformed files -------------------------------------------------------------------------------


def changed(place: str, value: Any) -> dict[str, Any]:
    """The small graph with one field of a first node or link set."""
    content = graph()
    part, field = place.split(".")
    at = {"nodes": 0, "error": 2, "logit": 4, "links": 0}[part]
    content["links" if part == "links" else "nodes"][at][field] = value
    return content


MALFORMED = [
    ("{", "no JSON"),
    ([1], "no object"),
    (graph(nodes=None), "nodes is no list"),
    (graph(nodes=[]), "holds no node"),
    (graph(links={}), "links is no list"),
    (graph(metadata=3), "metadata is no object"),
    (graph(nodes=["a"]), "node 0 is no object"),
    (graph(links=["a"]), "link 0 is no object"),
    (changed("nodes.node_id", 3), "no object with a node_id"),
    (changed("nodes.feature_type", None), "feature_type is None"),
    (changed("nodes.ctx_idx", "1"), "ctx_idx is '1'"),
    (changed("nodes.ctx_idx", -1), "ctx_idx is -1"),
    (changed("nodes.ctx_idx", True), "ctx_idx is True"),
    (changed("nodes.layer", "E"), "layer is 'E'"),
    (changed("nodes.layer", -1), "layer is -1"),
    (changed("nodes.layer", 10**400), "layer is a very large number"),
    (changed("nodes.clerp", ["x"]), "clerp is"),
    (changed("nodes.influence", "much"), "influence is 'much'"),
    (changed("logit.token_prob", [1]), "token_prob is"),
    (changed("error.layer", None), "layer is None"),
    (changed("links.source", None), "source and target are None"),
    (changed("links.weight", "1"), "weight is '1'"),
    (changed("links.weight", True), "weight is True"),
    (graph(nodes=[feature(0, 3, 1), feature(0, 3, 1)], links=[]), "twice"),
    (graph(nodes=[feature(2, 4, 1, node_id="x", feature=5)], links=[]), "gives its number"),
    (graph(links=[*graph()["links"], link("E_2_1", "0_3_1", 7)]), "different weights"),
    ("[" * 100_000, "no object"),
    ('{"metadata": ' + "[" * 100_000, "nested too deeply"),
    (changed("nodes.clerp", "\ud800"), "unicode string"),
]


@pytest.mark.parametrize(("content", "says"), MALFORMED)
def test_a_malformed_graph_is_refused_with_the_reason(
    tmp_path: Path, content: Any, says: str
) -> None:
    with pytest.raises((BadInput, ValidationError), match=re.escape(says)):
        read(tmp_path, content)


def test_links_to_nothing_and_repeated_ones_are_told(tmp_path: Path) -> None:
    links = [*graph()["links"], graph()["links"][0], link("nowhere", "0_3_1")]
    found = read(tmp_path, graph(links=links))
    assert len(only(found).edges) == 4
    assert "1 links begin or end at no node" in found.notes[-2]
    assert "1 links are given twice" in found.notes[-1]


def test_too_many_links_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, graph())
    with pytest.raises(BadInput, match="--max-edges"):
        FORMAT.read(path, Context(SAID, Limits(max_edges=3)))


def test_a_list_of_graphs_beside_them_is_no_graph(tmp_path: Path) -> None:
    index = {"graphs": [{"slug": "a", "scan": "b", "prompt_tokens": [], "prompt": ""}]}
    path = written(tmp_path, index, "graph-metadata.json")
    assert FORMAT.sniff(path, path.read_bytes()) == 0
    schema = written(tmp_path, {"$schema": "x", "properties": {"qParams": {}}}, "schema.json")
    assert FORMAT.sniff(schema, schema.read_bytes()) == 0
    assert recognised(written(tmp_path, graph())) is FORMAT


@given(st.data())
def test_mutated_graphs_give_records_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mutated = bytearray(json.dumps(graph()).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=8))
        mutated = mutated or bytearray(b"x")
    path = tmp_path_factory.mktemp("mutated") / "graph.json"
    path.write_bytes(bytes(mutated))
    share = data.draw(st.sampled_from([None, 0.5, 1.0]))
    said = SAID.model_copy(update={"node_threshold": share, "edge_threshold": share})
    with contextlib.suppress(CircuitsError, ValidationError):
        assert FORMAT.read(path, Context(said)).circuits


def test_values_of_nodes_are_read_back() -> None:
    values = NodeValues({"a": 0.1}, {"b": -2.0}, {"a": "ä\n"}, {"b": 3})
    assert unpack(pack(["a", "b"], values)) == values
    assert pack(["a", "b"], values) == pack(["a", "b"], values)
    assert unpack(None) == unpack(b"{}") == NodeValues()
