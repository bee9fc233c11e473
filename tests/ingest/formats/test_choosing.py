"""Which edges are the circuit: what a file marks, or what is asked for by size, and said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from registry.records import Circuit
from tests.ingest.formats.test_importing import graph

GPT2 = {"model": "gpt2", "task": "ioi"}
ROWS = {
    "source": ["m0", "m0", "m1", "input"],
    "target": ["m1", "m2", "m2", "m0"],
    "effect": [0.5, -3.0, 2.0, None],
    "in_circuit": [True, False, True, False],
}
MARKED = {"m0->m1", "m1->m2"}


def csv(folder: Path) -> Path:
    lines = [",".join(ROWS)]
    rows = list(zip(*ROWS.values(), strict=True))
    lines += [",".join("" if one is None else str(one) for one in row) for row in rows]
    path = folder / "edges.csv"
    path.write_text("\n".join(lines))
    return path


def jsonl(folder: Path) -> Path:
    rows = (dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True))
    path = folder / "edges.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet_(folder: Path) -> Path:
    path = folder / "edges.parquet"
    parquet.write_table(pyarrow.table(ROWS), path)
    return path


def node_link(folder: Path) -> Path:
    names = ["in_graph" if name == "in_circuit" else name for name in ROWS]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    nodes = [{"id": name} for name in ("input", "m0", "m1", "m2")]
    about = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "links": rows}
    path = folder / "graph.json"
    path.write_text(json.dumps(about))
    return path


FILES = {"csv": csv, "jsonl": jsonl, "parquet": parquet_, "node-link": node_link}
every_kind = pytest.mark.parametrize("kind", FILES)


def one(registry: Registry, path: Path, **said: Any) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], {**GPT2, **said})
    assert report.outcome is FileOutcome.STORED, report.notes
    return report, registry.circuit(report.circuits[0]).circuit


def refused(registry: Registry, path: Path, **said: Any) -> str:
    (report,) = import_files(registry, [path], {**GPT2, **said})
    assert report.outcome is FileOutcome.REFUSED
    return report.notes[0]


def connections(circuit: Circuit) -> set[str]:
    return {edge.connection for edge in circuit.edges}


@every_kind
def test_edges_that_a_file_marks_are_the_circuit(
    registry: Registry, tmp_path: Path, kind: str
) -> None:
    report, circuit = one(registry, FILES[kind](tmp_path))
    assert connections(circuit) == MARKED
    assert {node.component for node in circuit.nodes} == {"m0", "m1", "m2"}
    assert circuit.selection == {"rule": "in_circuit"}
    assert "2 edges that the file marks as not in the circuit omitted" in report.notes


@every_kind
@pytest.mark.parametrize("asked", [{"top": 2}, {"threshold": 1.5}])
def test_a_choice_by_size_replaces_the_marks_and_says_so(
    registry: Registry, tmp_path: Path, kind: str, asked: dict[str, Any]
) -> None:
    report, circuit = one(registry, FILES[kind](tmp_path), **asked)
    assert connections(circuit) == {"m0->m2", "m1->m2"}
    assert circuit.selection == {**asked, "by": "absolute"}
    option = "--top 2" if "top" in asked else "--threshold 1.5"
    assert (
        f"{option} replaces the file's own marks: it marks 2 edges as its circuit, 1 of the 2 "
        "selected are among them"
    ) in report.notes
    assert "1 edges without a score omitted: no size to select by" in report.notes


@pytest.mark.parametrize(
    ("said", "chosen"), [({}, {"m0", "m2"}), ({"top": 1}, {"m1"}), ({"threshold": 2}, {"m1", "m2"})]
)
def test_nodes_of_a_graph_without_edges_are_chosen_alike(
    registry: Registry, tmp_path: Path, said: dict[str, Any], chosen: set[str]
) -> None:
    rows = [("m0", 1.0, True), ("m1", -3.0, False), ("m2", 2.0, True)]
    nodes = [{"id": name, "effect": effect, "in_graph": mark} for name, effect, mark in rows]
    path = tmp_path / "graph.json"
    about = {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "links": []}
    path.write_text(json.dumps(about))
    assert {node.component for node in one(registry, path, **said)[1].nodes} == chosen
    del nodes[1]["in_graph"]
    path.write_text(json.dumps(about))
    assert "some nodes say whether they are in the circuit" in refused(registry, path)


def test_marks_of_an_eap_ig_graph_are_replaced_and_said_so(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph()))
    report, circuit = one(registry, path, top=3, model="toy")
    assert connections(circuit) == {"a0.h0->logits", "input->m0", "input->logits"}
    assert report.notes[-1] == (
        "--top 3 replaces the file's own marks: it marks 4 edges as its circuit, 2 of the 3 "
        "selected are among them"
    )
    assert not any("replaces" in note for note in one(registry, path, model="toy")[0].notes)


def test_heads_that_a_tool_chose_are_replaced_and_its_figures_left_out(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "analysis.json"
    content = {
        "circuit": [[0, 1]], "attributions": {"(0, 1)": 1.0, "(1, 0)": -2.0, "(1, 1)": 0.5},
        "faithfulness": {"sufficiency": 0.5},
    }  # fmt: skip
    path.write_text(json.dumps(content))
    report, circuit = one(registry, path, top=1)
    assert [node.component for node in circuit.nodes] == ["a1.h0"]
    assert report.evaluations == 0
    assert "the results for the file's own heads omitted" in report.notes
    assert any(note.startswith("--top 1 replaces the file's own marks: it marks 1 heads")
               for note in report.notes)  # fmt: skip
    assert one(registry, path)[0].evaluations == 1


def test_edges_of_an_artifact_are_chosen_by_weight(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "artifact.json"
    nodes = {f"MLP{at}": {"layer_idx": at, "node_type": "mlp_layer"} for at in range(3)}
    ends = {"a": ("MLP0", "MLP1", 0.25), "b": ("MLP0", "MLP2", 0.75)}
    edges = {key: {"src_id": s, "dst_id": t, "weight": w} for key, (s, t, w) in ends.items()}
    path.write_text(json.dumps({"metadata": {"discovery_method": "x"}, "nodes": nodes,
                                "edges": edges}))  # fmt: skip
    _, circuit = one(registry, path, top=1)
    assert connections(circuit) == {"m0->m2"}
    assert {node.component for node in circuit.nodes} == {"m0", "m2"}


def test_dropped_edges_are_chosen_from_too(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "edges.json"
    content = {
        "task": "numerals", "keep_rule": "x",
        "edges": [{"source": "m0", "target": "m1", "ratio": 0.9}],
        "dropped": [{"source": "m0", "target": "m2", "ratio": 0.5}],
    }  # fmt: skip
    path.write_text(json.dumps(content))
    report, circuit = one(registry, path, top=1)
    assert connections(circuit) == {"m0->m2"}
    assert circuit.universe_size == 2
    assert any("0 of the 1 selected" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("edges.json", [["m0", "m1"], ["m1", "m2"]]),
        ("numerals_circuit_thres_0.8.json", {"heads": [[0, 1]], "mlps": [2]}),
    ],
)
def test_a_choice_by_size_of_what_has_no_sizes_is_refused(
    registry: Registry, tmp_path: Path, name: str, content: Any
) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(content))
    assert "omit --top and --threshold" in refused(registry, path, top=1)
    one(registry, path)


def test_the_strongest_rows_of_a_table_without_marks_are_taken(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "edges.csv"
    path.write_text("source,target,effect\nm0,m1,1\nm0,m2,-3\nm1,m2,2\n")
    report, circuit = one(registry, path, top=2)
    assert connections(circuit) == {"m0->m2", "m1->m2"}
    assert report.notes == ()


@pytest.mark.parametrize(
    ("text", "said", "says"),
    [
        ("source,target,in_circuit\nm0,m1,maybe\n", {}, "line 2: in_circuit is 'maybe'"),
        ("source,target,in_circuit\nm0,m1,\n", {}, "line 2: in_circuit is ''"),
        ("source,target,in_graph\nm0,m1,0\n", {}, "marks no edge as in the circuit"),
        ("source,target\nm0,m1\n", {"top": 1}, "every edge has no score"),
        ("source,target,effect\nm0,m1,1\nm0,m2,-1\n", {"top": 1}, "every edge has the same score"),
        ("source,target,effect\nm0,m1,1\nm0,m1,2\n", {"top": 1}, "m0 -> m1 appears twice"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_the_reason(
    registry: Registry, tmp_path: Path, text: str, said: dict[str, Any], says: str
) -> None:
    path = tmp_path / "edges.csv"
    path.write_text(text)
    assert says in refused(registry, path, **said)


@pytest.mark.parametrize("said", [{"top": 1, "threshold": 0.5}, {"top": True}, {"threshold": True}])
def test_two_choices_at_once_and_truths_for_numbers_are_refused(
    registry: Registry, tmp_path: Path, said: dict[str, Any]
) -> None:
    (report,) = import_files(registry, [csv(tmp_path)], {**GPT2, **said})
    assert report.outcome is FileOutcome.REFUSED
    (note,) = report.notes
    assert "give only one of them" in note or "is true, no number" in note


def test_scores_of_circuitkit_are_chosen_by_the_same_rule(
    registry: Registry, tmp_path: Path
) -> None:
    def imported(scores: dict[str, float], **said: Any) -> FileReport:
        path = tmp_path / "scores.json"
        path.write_text(json.dumps({"node_scores": scores}))
        return next(import_files(registry, [path], {**GPT2, **said}))

    alike = {"A0.1": 0.5, "A0.0": 0.5}
    assert "every node has the same score" in imported(alike, top=1).notes[0]
    few = imported({"A0.1": 0.5, "A0.0": 0.25}, top=3)
    assert "2 nodes could be selected, fewer than the 3 requested" in few.notes
    none = imported(alike, threshold=2.0)
    assert (none.outcome, none.nodes) == (FileOutcome.STORED, 0)
    assert "no node has this size: the circuit is empty" in none.notes


def test_an_empty_circuit_of_other_formats_is_told_too(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph()))
    (report,) = import_files(registry, [path], {**GPT2, "model": "toy", "threshold": 1e9})
    assert "no edge has this size: the circuit is empty" in report.notes
