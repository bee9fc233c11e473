"""circuitkit's scores and artifacts into a real registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from registry.records import Circuit, Level, Sign

FILES = Path(__file__).parent / "files" / "circuitkit"


def content(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / name).read_text("utf-8"))
    return found


def written(folder: Path, what: Any) -> Path:
    path = folder / "result.json"
    path.write_text(what if isinstance(what, str) else json.dumps(what), "utf-8")
    return path


def imported(registry: Registry, path: Path, **said: Any) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], said)
    assert report.outcome is FileOutcome.STORED, report.notes
    assert report.format == "circuitkit"
    return report, registry.circuit(report.circuits[0]).circuit


def refused(registry: Registry, path: Path, **said: Any) -> str:
    (report,) = import_files(registry, [path], said)
    assert report.outcome is FileOutcome.REFUSED
    assert registry.circuits() == []
    return report.notes[0]


class TestScores:
    def test_the_file_names_model_task_and_method_and_its_scores_have_no_sign(
        self, registry: Registry
    ) -> None:
        report, circuit = imported(registry, FILES / "ioi_scores.json", top=3)
        assert (circuit.model, circuit.task, circuit.method) == ("gpt2", "ioi", "eap-ig")
        assert (circuit.sign, circuit.level, circuit.edges) == (Sign.UNSIGNED, Level.NODE, ())
        assert {n.component: (n.effect, n.rank) for n in circuit.nodes} == {
            "m0": (2.0, 1), "a10.h7": (0.75, 2), "a9.h6": (0.75, 3),
        }  # fmt: skip
        assert circuit.universe_size is None
        assert circuit.selection == {"top": 3, "by": "absolute"}
        assert circuit.parameters["discovery_cfg"] == {"batch_size": 4}
        assert "MLP 0 read as m0" in report.notes

    def test_a_threshold_takes_all_of_at_least_that_score(self, registry: Registry) -> None:
        _, circuit = imported(registry, FILES / "ioi_scores.json", threshold=0.75)
        assert {node.component for node in circuit.nodes} == {"m0", "a9.h6", "a10.h7"}

    def test_scores_without_a_choice_ask_how_many(self, registry: Registry) -> None:
        assert "--top N" in refused(registry, FILES / "ioi_scores.json")

    def test_what_the_user_says_wins_and_the_difference_is_told(self, registry: Registry) -> None:
        said = {"model": "gpt2-xl", "task": "sva", "method": "mine", "top": 1}
        report, circuit = imported(registry, FILES / "ioi_scores.json", **said)
        assert (circuit.model, circuit.task, circuit.method) == ("gpt2-xl", "sva", "mine")
        told = "\n".join(report.notes)
        for name, theirs, ours in (
            ("model", "gpt2", "gpt2-xl"), ("task", "ioi", "sva"), ("method", "eap-ig", "mine"),
        ):  # fmt: skip
            assert f"the file names the {name} {theirs}; used is {ours}" in told

    def test_neurons_are_neurons_of_mlps(self, registry: Registry) -> None:
        _, circuit = imported(registry, FILES / "neuron_scores.json", top=2)
        assert circuit.level is Level.NEURON
        assert {node.component for node in circuit.nodes} == {"m3.n42", "m3.n7"}

    def test_coordinates_of_an_mlps_output_are_no_neurons(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        data = content("neuron_scores.json") | {"discovery_cfg": {"eap": {"mlp_hook": "mlp_out"}}}
        assert "not a neuron" in refused(registry, written(tmp_path, data), top=2)

    def test_a_file_with_nothing_but_scores_needs_model_and_task(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = written(tmp_path, {"node_scores": {"A0.1": 1, "MLP 3": None}})
        assert "--model" in refused(registry, path, task="ioi", top=1)
        report, circuit = imported(registry, path, model="gpt2", task="ioi", top=1)
        assert circuit.method == "unknown"
        assert "MLP 3 has no score and is omitted" in report.notes

    @pytest.mark.parametrize(
        ("scores", "says"),
        [
            ({"A0.1": "much"}, "no number"),
            ({"A0.1": True}, "no number"),
            ({"B0.1": 1}, "in a known spelling"),
            ({"A0.1.q": 1}, "an input of a head"),
            ({"A0.1": 1, "L0H1": 1}, "is scored already"),
            ([1], "neither node_scores nor nodes"),
        ],
    )
    def test_malformed_scores_are_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, scores: Any, says: str
    ) -> None:
        path = written(tmp_path, content("ioi_scores.json") | {"node_scores": scores})
        assert says in refused(registry, path, top=1)


class TestArtifacts:
    def test_edges_keep_their_weights_and_heads_are_read_without_ports(
        self, registry: Registry
    ) -> None:
        report, circuit = imported(registry, FILES / "artifact.json")
        assert (circuit.model, circuit.task, circuit.method) == ("gpt2", "greater_than", "acdc")
        assert (circuit.sign, circuit.level) == (Sign.UNSIGNED, Level.EDGE)
        assert {n.component: (n.effect, n.rank) for n in circuit.nodes} == {
            "m0": (0.25, 3), "a2.h5": (1.0, 1), "a3.h1": (0.5, 2),
        }  # fmt: skip
        assert {e.connection: (e.effect, e.rank) for e in circuit.edges} == {
            "m0->a2.h5": (0.25, 2), "a2.h5->a3.h1": (0.5, 1),
        }  # fmt: skip
        assert (circuit.parameters["threshold"], circuit.parameters["dataset"]) == (0.1, "years")
        assert "L2H5 read as a2.h5" in report.notes

    def test_without_edges_it_is_a_circuit_of_nodes(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        _, circuit = imported(registry, written(tmp_path, content("artifact.json") | {"edges": {}}))
        assert (circuit.level, len(circuit.nodes)) == (Level.NODE, 3)

    def test_nodes_without_a_type_go_by_their_names(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        nodes = {"L2H5": {"importance": 0.5}, "L3M8": {"importance": 1}, "x": {"name": "MLP 1"}}
        data = content("artifact.json") | {"nodes": nodes, "edges": {}}
        _, circuit = imported(registry, written(tmp_path, data))
        assert {node.component for node in circuit.nodes} == {"a2.h5", "m3.n8", "m1"}
        assert circuit.level is Level.NEURON

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"nodes": {"a": 1}}, "no object with layer_idx"),
            ({"nodes": {"a": {"node_type": "residual", "layer_idx": 1}}}, "residual"),
            ({"nodes": {"a": {"node_type": "attn_layer", "layer_idx": 1}}}, "a whole layer"),
            ({"nodes": {"a": {"node_type": ["x"], "layer_idx": 1}}}, "node_type"),
            ({"nodes": {"a": {"node_type": "attn_head", "layer_idx": -1}}}, "no whole number"),
            ({"edges": [1]}, "are objects"),
            ({"metadata": 3}, "are objects"),
            ({"edges": {"e": 1}}, "no object with src_id"),
            ({"edges": {"e": {"src_id": "L9H9", "dst_id": "L2H5"}}}, "none of its nodes"),
            ({"edges": {"e": {"src_id": "L3H1", "dst_id": "L2H5"}}}, "runs back"),
            ({"edges": {"e": {"src_id": "L0M0", "dst_id": "L2H5", "weight": []}}}, "no number"),
        ],
    )
    def test_a_malformed_artifact_is_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, changed: dict[str, Any], says: str
    ) -> None:
        path = written(tmp_path, content("artifact.json") | changed)
        assert says in refused(registry, path)

    def test_one_part_or_edge_twice_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        data = content("artifact.json")
        data["nodes"]["again"] = data["nodes"]["L2H5"]
        assert "the same part" in refused(registry, written(tmp_path, data))
        data = content("artifact.json")
        data["edges"]["again"] = data["edges"]["e0"]
        assert "two edges" in refused(registry, written(tmp_path, data))


def test_larger_files_than_allowed_are_refused(registry: Registry) -> None:
    from ingest.formats.base import Limits

    for name, what in (("ioi_scores.json", "nodes"), ("artifact.json", "nodes")):
        (report,) = import_files(registry, [FILES / name], {"top": 1}, limits=Limits(max_edges=1))
        assert report.outcome is FileOutcome.REFUSED
        assert f"{what} and 1 are allowed; --max-edges" in report.notes[0]
