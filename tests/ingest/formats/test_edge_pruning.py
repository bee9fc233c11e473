"""Circuits of Edge Pruning and of its wrapper around ACDC into a real registry."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import recognised
from registry import Registry
from registry.identifiers import Kind, parse_local
from registry.records import Circuit

FILES = Path(__file__).parent / "files" / "edge-pruning"
SHARED = Path(__file__).parents[4] / "shared" / "fixtures" / "external" / "edge-pruning-acdc"
needs_files = pytest.mark.skipif(
    not SHARED.is_dir(), reason="other tools' files are not beside this checkout"
)
SAID = {"model": "gpt2", "task": "ioi"}


def imported(registry: Registry, path: Path, **said: Any) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], {**SAID, **said})
    assert report.outcome is FileOutcome.STORED, report.notes
    return report, registry.circuit(report.circuits[0]).circuit


def connections(circuit: Circuit) -> list[str]:
    return [edge.connection for edge in circuit.edges]


def written(folder: Path, content: Any) -> Path:
    path = folder / "edges.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_pairs_are_edges_and_both_embeddings_one_input(registry: Registry) -> None:
    report, circuit = imported(registry, FILES / "edges.json")
    assert connections(circuit) == [
        "input->m0", "m0->a1.h0<k>", "m0->a1.h1<q>", "a1.h1->logits",
    ]  # fmt: skip
    assert {edge.effect for edge in circuit.edges} == {None}
    assert report.format == "edge-pruning"
    assert any("pos_embeds, tok_embeds" in note for note in report.notes)


@pytest.mark.parametrize("key", ["edges", "circuit", "anything"])
def test_the_list_may_be_the_value_of_an_object(
    registry: Registry, tmp_path: Path, key: str
) -> None:
    listed = json.loads((FILES / "edges.json").read_text("utf-8"))
    alone = imported(registry, FILES / "edges.json")[1]
    report, circuit = imported_or_known(registry, written(tmp_path, {key: listed}))
    assert (report.format, circuit.id) == ("edge-pruning", alone.id)
    more = {"model": "gpt2", key: listed, "threshold": 0.5}
    report, circuit = imported_or_known(registry, written(tmp_path, more))
    assert circuit.id == alone.id
    assert f"not read, next to {key!r}: 'model', 'threshold'" in report.notes


def imported_or_known(registry: Registry, path: Path) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], SAID)
    assert report.outcome in {FileOutcome.STORED, FileOutcome.KNOWN}, report.notes
    return report, registry.circuit(report.circuits[0]).circuit


def test_an_object_with_no_edges_in_it_is_an_empty_circuit(
    registry: Registry, tmp_path: Path
) -> None:
    assert imported(registry, written(tmp_path, {"edges": []}))[1].edges == ()


def test_an_object_of_two_lists_of_edges_is_refused(registry: Registry, tmp_path: Path) -> None:
    pairs = [["m0", "m1"]]
    (report,) = import_files(registry, [written(tmp_path, {"kept": pairs, "cut": pairs})], SAID)
    assert report.outcome is FileOutcome.REFUSED
    assert "holds lists 'kept', 'cut'; expected one list of edges" in report.notes[0]


def test_keys_and_values_are_the_groups_where_the_user_says_so(registry: Registry) -> None:
    circuit = imported(registry, FILES / "edges.json", kv_heads="grouped")[1]
    assert "m0->a1.kv0<k>" in connections(circuit)
    assert "m0->a1.h1<q>" in connections(circuit)
    assert circuit.kv_heads == "grouped"


def test_a_file_for_llama_asks_whose_number_a_key_carries(
    registry: Registry, tmp_path: Path
) -> None:
    path = written(tmp_path, [["embeds", "a0.h1.k"]])
    report, circuit = imported(registry, path)
    assert "--kv-heads grouped" in report.notes[0]
    assert (connections(circuit), circuit.kv_heads) == (["input->a0.h1<k>"], None)
    told = imported(registry, path, kv_heads="per-query-head")[0]
    assert not any("--kv-heads" in note for note in told.notes)


def test_the_wrappers_extra_edges_of_the_input_belong_to_the_circuit(registry: Registry) -> None:
    report, circuit = imported(registry, FILES / "wrapper-graph.json")
    assert connections(circuit) == ["input->m0", "m0->a1.h1<q>", "a1.h1->logits"]
    assert report.notes[0] == (
        "3 links that stay inside one head or MLP omitted, such as"
        " blocks.1.hook_q_input -> blocks.1.attn.hook_q"
    )


def test_an_edge_given_twice_is_one(registry: Registry, tmp_path: Path) -> None:
    edges = [{"from": "mlp.0", "to": "mlp.1"}]
    circuit = imported(registry, written(tmp_path, {"original": edges * 2, "extra": edges}))[1]
    assert connections(circuit) == ["m0->m1"]


@pytest.mark.parametrize("content", [[], {"original": [], "extra": []}])
def test_an_empty_circuit_is_a_circuit(registry: Registry, tmp_path: Path, content: Any) -> None:
    report, circuit = imported(registry, written(tmp_path, content))
    assert (report.format, report.nodes, report.edges) == ("edge-pruning", 0, 0)
    assert circuit.edges == ()


def test_a_list_of_something_else_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "nothing.json"
    path.write_text("[]", "utf-8")
    with pytest.raises(Exception, match="no format recognises"):
        recognised(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[["m0", "m1"]', "no JSON"),
        ([["m0", "m1"], ["m1"]], "edge 2: no pair of names"),
        ([["m0", "m1"], ["m1", 2]], "edge 2: no pair of names"),
        ([["m0", "m1"], "m1->m2"], "edge 2: no pair of names"),
        ([["m0", "m1"], ["m1", "a9"]], "edge 2: 'a9' is not"),
        ([["a0.h1.q", "m1"]], "which sends nothing"),
        ([["m0", "a1.h2<q"]], "'a1.h2<q' is not"),
        ({"original": [], "extra": None}, "no list 'extra'"),
        ({"original": [{"from": "m0"}], "extra": []}, "original 1: no pair of names"),
        ({"original": [], "extra": [{"from": "blocks.1.hook_q_input", "to": "mlp.1"}]}, "extra 1"),
        (
            {
                "original": [],
                "extra": [{"from": "blocks.1.hook_q_input", "to": "blocks.2.attn.hook_q"}],
            },
            "extra 1",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_the_reason(
    registry: Registry, tmp_path: Path, content: Any, says: str
) -> None:
    (report,) = import_files(registry, [written(tmp_path, content)], SAID)
    assert report.outcome is FileOutcome.REFUSED
    assert says in report.notes[0]
    assert registry.circuits() == []


def test_too_many_edges_are_refused(registry: Registry, tmp_path: Path) -> None:
    from ingest.formats.base import Limits

    path = written(tmp_path, [["m0", "m1"], ["m0", "m2"]])
    (report,) = import_files(registry, [path], SAID, limits=Limits(max_edges=1))
    assert "--max-edges" in report.notes[0]


FACTS: list[tuple[str, int, int, int, str, list[int], dict[str, int]]] = [
    (
        "gp-t0.005179474679231213-graph.json", 24, 13, 27, "a4.h3 a6.h0 a9.h7 a10.h9 a11.h8",
        [0, 3, 5, 7, 10, 11], {"logits": 5, "mlp": 6, "v": 13},
    ),
    (
        "gt-t0.018957356524063752-graph.json", 36, 15, 30,
        "a0.h1 a0.h5 a7.h10 a8.h11 a9.h1", [0, 1, 2, 7, 8, 9, 10, 11],
        {"k": 1, "logits": 5, "mlp": 17, "q": 1, "v": 12},
    ),
    ("gt-t0.464158883361278-graph.json", 0, 0, 0, "", [], {}),
    (
        "ioi-t0.02682695795279726-graph.json", 158, 53, 79,
        "a0.h1 a0.h5 a0.h6 a0.h8 a0.h9 a1.h0 a1.h11 a2.h8 a3.h0 a3.h9 a4.h0 a4.h11 a5.h5 a5.h10"
        " a6.h0 a6.h8 a6.h9 a7.h3 a7.h8 a7.h9 a8.h3 a8.h6 a9.h2 a9.h6 a9.h7 a9.h8 a9.h9 a10.h0"
        " a10.h1 a10.h2 a10.h6 a10.h7 a10.h10 a11.h0 a11.h2 a11.h3 a11.h4 a11.h6 a11.h10",
        list(range(12)), {"k": 13, "logits": 22, "mlp": 77, "q": 16, "v": 30},
    ),
]  # fmt: skip


@needs_files
@pytest.mark.parametrize(
    ("file", "edges", "components", "inside", "heads", "mlps", "receivers"), FACTS
)
def test_real_files_have_the_facts_their_source_states(
    registry: Registry,
    file: str,
    edges: int,
    components: int,
    inside: int,
    heads: str,
    mlps: list[int],
    receivers: dict[str, int],
) -> None:
    report, circuit = imported(registry, SHARED / file)
    locals_ = [parse_local(node.component) for node in circuit.nodes]
    # The source counts heads and MLPs as components, and input and logits where edges join them.
    assert (len(circuit.edges), len(circuit.nodes)) == (edges, components)
    assert [str(local) for local in locals_ if local.kind is Kind.HEAD] == heads.split()
    assert [local.layer for local in locals_ if local.kind is Kind.MLP] == mlps
    into = (edge.port or str(parse_local(edge.target).kind) for edge in circuit.edges)
    assert Counter(into) == receivers
    left_out = [note for note in report.notes if "inside one head" in note]
    assert [int(note.split()[0]) for note in left_out] == ([inside] if inside else [])


@needs_files
def test_a_table_of_figures_is_refused_for_having_no_edges(registry: Registry) -> None:
    (report,) = import_files(registry, [SHARED / "acdc_results.csv"], SAID)
    assert report.outcome is FileOutcome.REFUSED
    assert "no column 'source'; it has 'task', 'filename'" in report.notes[0]
