"""Graph JSON of EAP-IG and MIB: our own small files, malformed ones, and real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange.importing import FileOutcome, import_files
from ingest.formats.base import Context, Imported, Limits, Said, recognised
from ingest.formats.eap_ig.json_file import FORMAT
from registry import Registry
from registry.errors import BadInput
from registry.files.score_files import read_score_file
from registry.identifiers import parse_local
from registry.models.edge_space import EdgeSpace
from registry.records import Circuit, Level, Model, Sign
from tests.ingest.formats.eap_ig_facts import Facts, by_receiver, facts_of, real_scores, strongest
from tests.ingest.formats.test_importing import SHARED, graph, needs_files, written

FILES = Path(__file__).parents[1] / "files" / "eap-ig-json"
MIB = SHARED / "mib-circuit-track"
IOI, UGS = MIB / "ioi-eap-ig.json", MIB / "ugs_ioi_interp-bench_0.01.json"
UGS_MARKED = MIB / "derived" / "ugs_ioi_interp-bench_0.01_top100_old-dialect.json"
CANONICAL = SHARED / "query-circuit-discovery" / "ioi_gpt2_canonical_circuit.json"


def read(path: Path, limits: Limits | None = None, **said: Any) -> Imported:
    about = Said(**{"model": "gpt2", "task": "ioi", **said})
    return FORMAT.read(path, Context(about, limits or Limits()))


def circuit_of(path: Path, **said: Any) -> Circuit:
    (circuit,) = read(path, **said).circuits
    return circuit


def effects(circuit: Circuit) -> dict[str, tuple[float | None, int | None]]:
    return {edge.connection: (edge.effect, edge.rank) for edge in circuit.edges}


def own_effects(circuit: Circuit) -> dict[str, tuple[float | None, int | None]]:
    return {node.component: (node.effect, node.rank) for node in circuit.nodes}


class TestEdges:
    def test_marked_edges_are_the_circuit_with_their_signs_turned(self, tmp_path: Path) -> None:
        circuit = circuit_of(written(tmp_path, graph()), sign="hurts-positive")
        assert effects(circuit) == {
            "a0.h0->logits": (3.0, 1), "input->m0": (2.0, 2),
            "m0->logits": (-0.75, 3), "input->a0.h0<q>": (-0.5, 4),
        }  # fmt: skip
        assert (circuit.sign, circuit.universe_size) == (Sign.HELPS_POSITIVE, 8)
        assert (circuit.level, circuit.kv_heads) == (Level.EDGE, "per-query-head")

    def test_all_scores_are_kept_with_the_same_signs(self, tmp_path: Path) -> None:
        found = read(written(tmp_path, graph()), sign="hurts-positive", metric="prob_diff")
        kept = read_score_file(found.artifacts[0])  # type: ignore[index]
        assert kept.sign is Sign.HELPS_POSITIVE
        at = kept.senders.index("input"), kept.receivers.index("a0.h0<k>")
        assert kept.matrix[at] == 0.25

    def test_the_older_dialect_is_read_alike(self, tmp_path: Path) -> None:
        old = graph(nodes={"input": True, "a0.h0": True, "m0": True, "logits": True})
        old["cfg"].pop("d_model")
        new = circuit_of(written(tmp_path, graph()))
        assert circuit_of(written(tmp_path, old, "old.json")) == new

    def test_the_order_of_a_file_does_not_matter(self, tmp_path: Path) -> None:
        turned = graph()
        turned["edges"] = dict(reversed(turned["edges"].items()))
        assert circuit_of(written(tmp_path, turned)) == circuit_of(written(tmp_path, graph()))

    def test_a_byte_order_mark_does_not_matter(self, tmp_path: Path) -> None:
        path = written(tmp_path, "\ufeff" + json.dumps(graph()))
        assert recognised(path).name == "eap-ig-json"
        assert len(circuit_of(path).edges) == 4

    def test_names_may_be_spelled_as_other_tools_do(self, tmp_path: Path) -> None:
        text = json.dumps(graph()).replace("a0.h0<q>", "<a0.0_q>").replace('"m0"', '"MLP 0"')
        found = read(written(tmp_path, text))
        assert effects(found.circuits[0]) == effects(circuit_of(written(tmp_path, graph())))
        assert set(found.notes) >= {"<a0.0_q> read as a0.h0<q>", "MLP 0 read as m0"}

    def test_what_cfg_says_besides_is_kept(self, tmp_path: Path) -> None:
        cfg = {**graph()["cfg"], "model_name": "gpt2-small", "layers": [1]}
        circuit = circuit_of(written(tmp_path, graph(cfg=cfg)))
        assert circuit.parameters == {"cfg": {"model_name": "gpt2-small"}}

    def test_a_parallel_model_has_no_edge_from_a_head_to_the_mlp_beside_it(
        self, tmp_path: Path
    ) -> None:
        found = read(written(tmp_path, graph(cfg={**graph()["cfg"], "parallel_attn_mlp": True})))
        assert found.models[0].parallel_attn_mlp
        assert "1 edges omitted, such as a0.h0->m0" in found.notes[0]
        assert found.circuits[0].universe_size == 7

    def test_a_width_that_heads_do_not_divide_is_left_out(self, tmp_path: Path) -> None:
        cfg = {"n_layers": 1, "n_heads": 3, "d_model": 1600}
        found = read(written(tmp_path, graph(cfg=cfg)))
        assert found.models[0].d_model is None
        assert "cfg.d_model is 1600" in found.notes[0]

    @pytest.mark.parametrize("parallel", [False, True])
    def test_a_model_may_have_as_many_edges_as_are_allowed(
        self, tmp_path: Path, parallel: bool
    ) -> None:
        cfg = {"n_layers": 3, "n_heads": 4, "parallel_attn_mlp": parallel}
        n_edges = EdgeSpace(3, 4, 4, parallel).n_edges
        path = written(tmp_path, graph(cfg=cfg))
        assert read(path, Limits(max_edges=n_edges)).circuits
        with pytest.raises(BadInput, match=f"has {n_edges} edges"):
            read(path, Limits(max_edges=n_edges - 1))


class TestScores:
    def test_scores_that_are_all_zero_are_unknown(self, tmp_path: Path) -> None:
        content = graph()
        for edge in content["edges"].values():
            edge["score"] = 0.0
        found = read(written(tmp_path, content))
        assert {edge.effect for edge in found.circuits[0].edges} == {None}
        assert (found.circuits[0].scores, list(found.artifacts)) == (None, [])
        assert found.notes == ["no edge is scored (all are 0): effects are unknown"]

    def test_zeros_are_unknown_where_most_scores_are_zero(self, tmp_path: Path) -> None:
        content = graph()
        for edge in content["edges"].values():
            edge |= {"score": 0.0, "in_graph": True}
        content["edges"]["input->m0"]["score"] = 0.5
        found = read(written(tmp_path, content))
        known = effects(found.circuits[0])
        assert known.pop("input->m0") == (0.5, 1)
        assert set(known.values()) == {(None, None)}
        assert "7 of 8 scores are exactly 0" in found.notes[0]
        assert len(circuit_of(written(tmp_path, content), top=3).edges) == 1

    @pytest.mark.parametrize("token", ["NaN", "null", "Infinity", "1e999", "1" + "0" * 400])
    def test_a_score_that_is_no_number_is_missing(self, tmp_path: Path, token: str) -> None:
        path = written(tmp_path, json.dumps(graph()).replace("-2.0", token))
        found = read(path)
        assert effects(found.circuits[0])["input->m0"] == (None, None)
        odd = [] if token in ("NaN", "null") else [
            "1 score that is not finite, read as missing: input->m0 (inf)"
        ]  # fmt: skip
        assert found.notes == [*odd, "1 of 8 edges have no score, 1 of them selected"]

    def test_what_was_never_scored_stays_in_the_circuit(self, tmp_path: Path) -> None:
        path = written(tmp_path, json.dumps(graph()).replace("-2.0", "NaN"))
        assert set(effects(circuit_of(path, top=1))) == {"input->m0", "a0.h0->logits"}
        assert set(effects(circuit_of(path, threshold=2.5))) == {"input->m0", "a0.h0->logits"}

    def test_the_strongest_may_be_asked_for(self, tmp_path: Path) -> None:
        path = written(tmp_path, graph())
        first, large = circuit_of(path, top=2), circuit_of(path, threshold=0.5)
        assert effects(first) == {"a0.h0->logits": (-3.0, 1), "input->m0": (-2.0, 2)}
        assert (first.selection, large.selection) == (
            {"top": 2, "by": "absolute"},
            {"threshold": 0.5, "by": "absolute"},
        )
        assert len(large.edges) == 5
        assert {node.component for node in first.nodes} == {"input", "a0.h0", "m0", "logits"}

    def test_more_than_there_are_may_be_asked_for(self, tmp_path: Path) -> None:
        found = read(written(tmp_path, graph()), top=100)
        assert len(found.circuits[0].edges) == 8
        assert found.notes[0] == "8 edges could be selected, fewer than the 100 requested"

    def test_scores_of_double_precision_are_kept_as_they_are(self, tmp_path: Path) -> None:
        found = read(written(tmp_path, json.dumps(graph()).replace("-2.0", "0.1")))
        assert 0.1 in real_scores(found)

    def test_a_graph_that_marks_nothing_asks_how_many(self, tmp_path: Path) -> None:
        content = graph()
        for edge in content["edges"].values():
            edge["in_graph"] = False
        with pytest.raises(BadInput, match="--top N"):
            read(written(tmp_path, content))

    def test_nothing_is_chosen_by_scores_that_are_all_alike(self, tmp_path: Path) -> None:
        content = graph()
        for edge in content["edges"].values():
            edge["score"] = 1.0
        path = written(tmp_path, content)
        with pytest.raises(BadInput, match="every edge has the same score"):
            read(path, top=2)
        found = read(path)
        assert set(effects(found.circuits[0]).values()) == {(1.0, None)}
        assert found.notes == ["all 8 edges have the same score"]


class TestNodes:
    def test_nodes_bring_their_own_effects(self, tmp_path: Path) -> None:
        nodes = {
            "input": {"in_graph": True, "score": 0.5}, "m0": {"in_graph": True, "score": None},
            "a0.h0": {"in_graph": True, "score": -2.0}, "logits": {"in_graph": True},
        }  # fmt: skip
        circuit = circuit_of(written(tmp_path, graph(nodes=nodes)), sign="hurts-positive")
        assert own_effects(circuit) == {
            "input": (-0.5, 2), "a0.h0": (2.0, 1), "m0": (None, None), "logits": (None, None),
        }  # fmt: skip
        assert circuit.level is Level.EDGE

    def test_a_marked_node_without_edges_is_in_the_circuit(self, tmp_path: Path) -> None:
        content = graph()
        for name in ("input->m0", "m0->logits"):
            content["edges"][name]["in_graph"] = False
        found = read(written(tmp_path, content))
        assert "m0" in own_effects(found.circuits[0])
        assert found.notes == ["1 nodes of the circuit have no edge in it, such as m0"]

    def test_a_node_that_edges_join_need_not_be_marked(self, tmp_path: Path) -> None:
        nodes = {name: {"in_graph": False} for name in graph()["nodes"]}
        found = read(written(tmp_path, graph(nodes=nodes)))
        assert set(own_effects(found.circuits[0])) == set(nodes)
        assert found.notes == [
            "4 of the edges that the file marks as in the circuit join nodes that it marks as not "
            "in it, such as input->a0.h0<q>: kept, where EAP-IG's prune takes them out"
        ]
        assert read(written(tmp_path, graph(nodes={}))).notes == []  # says nothing of its nodes

    @pytest.mark.parametrize("score", [1.0, 0.0, None])
    def test_nodes_make_the_circuit_only_of_a_graph_without_scored_edges(
        self, tmp_path: Path, score: float | None
    ) -> None:
        content = graph()
        content["edges"] = {n: {"score": score, "in_graph": False} for n in content["edges"]}
        path = written(tmp_path, content)
        if score:
            with pytest.raises(BadInput, match="marks no edge"):
                read(path)
            return
        found = read(path)
        assert (found.circuits[0].level, found.circuits[0].edges) == (Level.NODE, ())
        assert found.notes[1] == (
            "no edge is marked as in the circuit: it is the nodes that the file marks"
        )

    def test_scored_nodes_without_scored_edges_are_a_circuit_of_nodes(self) -> None:
        circuit = circuit_of(FILES / "nodes.json")
        assert own_effects(circuit) == {
            "input": (None, None), "a0.h1": (-0.5, 2), "m1": (2.0, 1), "logits": (None, None),
        }  # fmt: skip
        assert (circuit.level, circuit.universe_size, circuit.edges) == (Level.NODE, 8, ())

    def test_the_strongest_nodes_may_be_asked_for_and_the_unscored_stay(self) -> None:
        assert set(own_effects(circuit_of(FILES / "nodes.json", top=2))) == {
            "input", "a0.h1", "m1", "logits",
        }  # fmt: skip
        assert set(own_effects(circuit_of(FILES / "nodes.json", threshold=0.2))) == {
            "input", "a0.h1", "a1.h0", "m1", "logits",
        }  # fmt: skip

    def test_nodes_alone_may_be_marked(self, tmp_path: Path) -> None:
        nodes = {"input": True, "a0.h0": False, "m0": True, "logits": True}
        circuit = circuit_of(written(tmp_path, graph(nodes=nodes, edges={})))
        assert (circuit.level, set(own_effects(circuit))) == (
            Level.NODE, {"input", "m0", "logits"},
        )  # fmt: skip

    def test_logits_alone_are_no_circuit(self, tmp_path: Path) -> None:
        nodes = {name: {"in_graph": name == "logits"} for name in graph()["nodes"]}
        with pytest.raises(BadInput, match="marks no edge"):
            read(written(tmp_path, graph(nodes=nodes, edges={})))


class TestNeurons:
    def test_neurons_are_coordinates_of_what_an_mlp_writes(self) -> None:
        found = read(FILES / "neurons-of-nodes.json")
        (circuit,) = found.circuits
        assert circuit.level is Level.SUBSPACE
        assert {k: v for k, v in own_effects(circuit).items() if "#" in k} == {
            "m0#coordinate[0]": (1.5, 1), "m1#coordinate[0]": (1.5, 2),
            "m1#coordinate[3]": (-0.75, 3),
        }  # fmt: skip
        assert parse_local("m1#coordinate[3]").layer == 1
        assert "20 neurons of 5 nodes omitted, such as those of input" in found.notes[0]

    def test_neurons_may_stand_apart_from_nodes(self) -> None:
        circuit = circuit_of(FILES / "neurons-apart.json")
        assert own_effects(circuit) == {
            "input": (None, None), "a0.h0.z#coordinate[0]": (0.75, 2), "m0": (None, None),
            "m0#coordinate[0]": (0.5, 3), "m0#coordinate[3]": (0.25, 4), "m1": (None, None),
            "m1#coordinate[1]": (-2.0, 1), "logits": (None, None),
        }  # fmt: skip
        assert effects(circuit) == {"m0->m1": (1.0, None)}
        assert circuit.universe_size is None  # two of the four heads are not listed

    def test_the_strongest_neurons_may_be_asked_for(self) -> None:
        circuit = circuit_of(FILES / "neurons-apart.json", top=2)
        assert own_effects(circuit) == {
            "a0.h0.z#coordinate[0]": (0.75, 2), "m1#coordinate[1]": (-2.0, 1),
        }  # fmt: skip

    def test_nodes_may_be_named_after_neurons(self) -> None:
        circuit = circuit_of(FILES / "neurons-as-nodes.json")
        assert set(own_effects(circuit)) == {
            "input", "m0", "m1", "logits", "m0#coordinate[0]", "m0#coordinate[3]",
            "m1#coordinate[2]",
        }  # fmt: skip
        assert circuit.universe_size == 8

    def test_one_score_for_all_neurons_of_a_node_is_the_nodes(self, tmp_path: Path) -> None:
        content = graph(neuron_scores={"m0": 0.5, "a0.h0": -1.0})
        found = own_effects(circuit_of(written(tmp_path, content)))
        assert (found["m0"], found["a0.h0"]) == ((0.5, 2), (-1.0, 1))

    def test_neurons_of_a_node_that_is_marked_as_outside_are_named(self, tmp_path: Path) -> None:
        content = json.loads((FILES / "neurons-of-nodes.json").read_bytes())
        content["nodes"]["m1"]["in_graph"] = False
        found = read(written(tmp_path, content))
        assert found.circuits[0].level is Level.SUBSPACE
        (note,) = [one for one in found.notes if "neurons that the file marks" in one]
        assert "such as m1#coordinate[" in note

    def test_neurons_that_none_is_marked_of_are_left_out_with_a_note(self, tmp_path: Path) -> None:
        found = read(written(tmp_path, graph(neurons={"m0": [False] * 8})))
        assert found.circuits[0].level is Level.EDGE
        assert found.notes == ["8 neurons omitted: none of them is in the circuit"]


MALFORMED = [
    ("{", "no JSON"),
    (json.dumps(graph()).replace("m0->logits", "input->logits"), "has 'input->logits' twice"),
    ("[1]", "has no edges"),
    ("[" * 100_000, "nested too deeply"),
    ({"cfg": graph()["cfg"], "nodes": {}}, "has no edges"),
    (graph(cfg=None), "no cfg"),
    (graph(cfg={"n_heads": 1}), "cfg.n_layers is None"),
    (graph(cfg={"n_layers": 0, "n_heads": 1}), "cfg.n_layers is 0"),
    (graph(cfg={"n_layers": True, "n_heads": 1}), "cfg.n_layers is True"),
    (graph(cfg={"n_layers": 1, "n_heads": 1.5}), "cfg.n_heads is 1.5"),
    (graph(cfg={"n_layers": 10**9, "n_heads": 10**9}), "--max-edges"),
    (graph(cfg={"n_layers": 1, "n_heads": 500_000}), "cells; .* allowed; --max-edges"),
    (graph(cfg={"n_layers": 10**400, "n_heads": 1}), "cfg.n_layers is"),
    (graph(cfg={"n_layers": 1, "n_heads": 1, "d_model": -1}), "cfg.d_model is -1"),
    (graph(cfg={"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": "no"}), "parallel_attn_mlp"),
    (graph(edges={"input->x": {}}), "'x'"),
    (graph(edges={"input->a0.h0": {}}), "no edge such as"),
    (graph(edges={"input->m0<q>": {}}), "no edge such as"),
    (graph(edges={"a0.h0<q>->m0": {}}), "no edge such as"),
    (graph(edges={"input": {}}), "no edge such as"),
    (graph(edges={"input->m0->logits": {}}), "no edge such as"),
    (graph(edges={"input->m0\x00": {}}), "no edge such as"),
    (graph(edges={"input->\ud800": {}}), "no edge such as"),
    (graph(edges={"input->a5.h0<q>": {"in_graph": True, "score": 1}}), "1 layers with 1 heads"),
    (graph(edges={"input->a0.h7<q>": {"in_graph": True, "score": 1}}), "1 layers with 1 heads"),
    (graph(edges={"input->m0": 5}), "'input->m0' is 5"),
    (graph(edges={"input->m0": {"score": "1"}}), "no number"),
    (graph(edges={"input->m0": {"score": True}}), "no number"),
    (graph(edges={"input->m0": {"score": [1]}}), "no number"),
    (graph(edges={"input->m0": {"in_graph": "yes"}}), "neither true nor false"),
    (graph(edges={"input->m0": {"score": 1}, "input->MLP 0": {"score": 1}}), "appears twice"),
    (graph(nodes=[1]), "nodes is no object"),
    (graph(nodes={"x": True}), "'x'"),
    (graph(nodes={"m7": True}), "no node of a model of 1 layers"),
    (graph(nodes={"m0": True, "MLP 0": True}), "a node appears twice"),
    (graph(nodes={"m0": "yes"}), "neither true nor false"),
    (graph(nodes={"m0": {"in_graph": True, "score": "x"}}), "no number"),
    (graph(nodes={"m0.8": True}), "cfg.d_model is 8"),
    (graph(nodes={"m0": {"in_graph": True, "neurons": 5}}), "no list"),
    (graph(neurons={"m0": [True] * 8}, neuron_scores={"m0": [1.0]}), "8 neurons and 1 scores"),
    (graph(neurons={"m0": ["x"] * 8}), "neither true nor false"),
    (graph(neurons={"m0": [True] * 8}, neuron_scores={"m0": ["x"] * 8}), "no number"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "says"), MALFORMED)
def test_a_malformed_graph_is_refused_with_the_reason(
    tmp_path: Path, content: Any, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        read(written(tmp_path, content))


def test_a_refused_graph_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    path = written(tmp_path, graph(edges={"input->x": {}}))
    (report,) = import_files(registry, [path], {"model": "gpt2", "task": "ioi"})
    assert report.outcome is FileOutcome.REFUSED
    assert registry.circuits() == []


@pytest.mark.parametrize("limits", [Limits(max_bytes=9), Limits(max_edges=7)])
def test_large_graphs_are_refused_until_allowed(tmp_path: Path, limits: Limits) -> None:
    with pytest.raises(BadInput, match="allowed; --max-"):
        read(written(tmp_path, graph()), limits)


@pytest.mark.parametrize(
    ("name", "content", "known"),
    [
        ("g.json", json.dumps(graph()), True),
        ("g.txt", json.dumps(graph()), False),
        ("g.json", "[" + json.dumps(graph()) + "]", False),
        ("g.json", '{"nodes": [], "links": []}', False),
    ],
)
def test_graphs_are_known_by_their_content(
    tmp_path: Path, name: str, content: str, known: bool
) -> None:
    path = written(tmp_path, content, name)
    assert (FORMAT.sniff(path, content.encode()) > 0) is known


class TestRealFiles:
    """The figures are those that the files' SOURCE.md states."""

    @needs_files
    def test_the_sample_of_mib(self) -> None:
        found = read(IOI)
        assert facts_of(found) == Facts(
            (12, 12, False, 768), 32_491, 0, -0.28153809905052185, 0.19638407230377197,
            15_898, 14, 32_469,
        )  # fmt: skip
        (circuit,) = found.circuits
        assert (len(circuit.edges), len(circuit.nodes)) == (756, 81)
        assert sum((edge.effect or 0) < 0 for edge in circuit.edges) == 415
        assert by_receiver(found) == {"k": 73, "logits": 43, "mlp": 133, "q": 284, "v": 223}
        assert len({end for e in circuit.edges for end in (e.source, e.target)}) == 81
        assert strongest(found) == [
            ("a9.h9->logits", -0.28153809905052185, "in"),
            ("input->m0", -0.2084551602602005, "in"),
            ("a10.h7->logits", 0.19638407230377197, "in"),
            ("a9.h6->logits", -0.13002149760723114, "in"),
            ("a11.h10->logits", 0.09148063510656357, "in"),
        ]
        assert found.notes == []

    @needs_files
    def test_learned_masks_that_mark_nothing(self) -> None:
        with pytest.raises(BadInput, match="marks no edge"):
            read(UGS)
        found = read(UGS, top=100, sign="unsigned")
        assert facts_of(found) == Facts(
            (6, 4, False, 64), 1108, 0, 0.0010961451334878802, 0.9906551241874695, 0, 0, 1107
        )
        assert found.circuits[0].sign is Sign.UNSIGNED
        assert strongest(found) == [
            ("a5.h2->logits", 0.9906551241874695, "in"),
            ("a5.h1->logits", 0.9884661436080933, "in"),
            ("m5->logits", 0.9857485890388489, "in"),
            ("a0.h2->m0", 0.9852194786071777, "in"),
            ("input->a0.h2<v>", 0.9848952293395996, "in"),
        ]

    @needs_files
    def test_the_older_dialect(self) -> None:
        found, newer = read(UGS_MARKED), read(UGS, top=100)
        (circuit,) = found.circuits
        assert facts_of(found) == facts_of(newer)
        assert (len(circuit.edges), len(circuit.nodes)) == (100, 27)
        assert by_receiver(found) == {"k": 22, "logits": 16, "mlp": 31, "q": 8, "v": 23}
        # The edges it marks are those of largest score.
        assert circuit.edges == newer.circuits[0].edges
        assert circuit.scores == newer.circuits[0].scores

    @needs_files
    def test_a_circuit_that_was_never_scored(self) -> None:
        found = read(CANONICAL)
        (circuit,) = found.circuits
        assert (len(circuit.edges), len(circuit.nodes), circuit.universe_size) == (963, 40, 32_491)
        assert by_receiver(found) == {"k": 243, "logits": 26, "mlp": 201, "q": 250, "v": 243}
        assert {edge.effect for edge in circuit.edges} == {None}
        assert found.notes == ["no edge is scored (all are 0): effects are unknown"]
        with pytest.raises(BadInput, match="every edge has the same score"):
            read(CANONICAL, top=100)

    @needs_files
    @pytest.mark.parametrize(
        ("path", "model", "digits", "size_bytes", "nodes", "edges"),
        [
            (IOI, "gpt2", "2665ef9e7609f4ab", 2_377_538, 81, 756),
            (UGS_MARKED, "interpbench", "99e26ab37b9f55c3", 77_856, 27, 100),
            (CANONICAL, "gpt2", "b975de75217c664d", 2_482_860, 40, 963),
        ],
        ids=["ioi", "ugs", "canonical"],
    )
    def test_they_are_stored_whole(
        self,
        registry: Registry,
        path: Path,
        model: str,
        digits: str,
        size_bytes: int,
        nodes: int,
        edges: int,
    ) -> None:
        said = {"model": model, "task": "ioi", "sign": "hurts-positive"}
        (report,) = import_files(registry, [path], said)
        assert (report.outcome, report.nodes, report.edges) == (FileOutcome.STORED, nodes, edges)
        detail = registry.circuit(report.circuits[0])
        (source,) = detail.entry.source_files
        assert source.sha256.startswith(digits)
        assert len(registry.artifact(source.sha256)) == size_bytes
        assert detail.circuit.sign is Sign.HELPS_POSITIVE
        (again,) = import_files(registry, [path], said)
        assert again.outcome is FileOutcome.KNOWN


def test_a_model_that_is_known_to_be_wider_is_told_apart(
    registry: Registry, tmp_path: Path
) -> None:
    registry.record(Model(slug="gpt2", n_layers=1, n_heads=1, d_model=16))
    path = written(tmp_path, graph())
    (report,) = import_files(registry, [path], {"model": "gpt2", "task": "ioi"})
    assert report.outcome is FileOutcome.REFUSED
    assert "d_model" in report.notes[0]
