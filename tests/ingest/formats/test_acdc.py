"""ACDC's saved subgraphs into a real registry."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import Limits
from registry import Registry
from registry.records import Circuit

SAID = {"model": "tiny", "task": "docstring"}
ALL, HEAD = (None,), (None, None, 0)
Link = tuple[str, Any, str, Any]
SUBGRAPH: dict[Link, bool] = {
    ("blocks.1.hook_resid_post", ALL, "blocks.1.attn.hook_result", HEAD): True,
    ("blocks.1.hook_resid_post", ALL, "blocks.0.hook_mlp_out", ALL): False,
    ("blocks.1.hook_resid_post", ALL, "blocks.0.hook_resid_pre", ALL): False,
    ("blocks.1.hook_v_input", HEAD, "blocks.0.hook_mlp_out", ALL): False,
    ("blocks.1.hook_q_input", HEAD, "blocks.0.hook_resid_pre", ALL): False,
    ("blocks.1.hook_k_input", HEAD, "blocks.0.hook_resid_pre", ALL): False,
    ("blocks.1.hook_v_input", HEAD, "blocks.0.hook_resid_pre", ALL): False,
    ("blocks.1.attn.hook_result", HEAD, "blocks.1.attn.hook_q", HEAD): True,
    ("blocks.1.attn.hook_q", HEAD, "blocks.1.hook_q_input", HEAD): True,
    ("blocks.1.hook_q_input", HEAD, "blocks.0.hook_mlp_out", ALL): True,
    ("blocks.1.hook_k_input", HEAD, "blocks.0.hook_mlp_out", ALL): False,
    ("blocks.0.hook_mlp_out", ALL, "blocks.0.hook_mlp_in", ALL): True,
    ("blocks.0.hook_mlp_in", ALL, "blocks.0.hook_resid_pre", ALL): True,
}


def saved(folder: Path, content: Any) -> Path:
    path = folder / "subgraph.pth"
    torch.save(content, path)
    return path


def imported(registry: Registry, path: Path) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], SAID)
    assert report.outcome is FileOutcome.STORED, report.notes
    return report, registry.circuit(report.circuits[0]).circuit


def connections(circuit: Circuit) -> list[str]:
    return [edge.connection for edge in circuit.edges]


def test_what_is_present_between_parts_is_the_circuit(registry: Registry, tmp_path: Path) -> None:
    report, circuit = imported(registry, saved(tmp_path, OrderedDict(SUBGRAPH)))
    assert connections(circuit) == ["input->m0", "m0->a1.h0<q>", "a1.h0->logits"]
    assert {edge.effect for edge in circuit.edges} == {None}
    assert (circuit.universe_size, circuit.selection) == (10, {"rule": "present"})
    assert report.format == "acdc-subgraph"
    assert report.notes[0].startswith("3 links that stay inside one head or MLP omitted")


def test_a_file_of_present_edges_alone_does_not_say_of_how_many(
    registry: Registry, tmp_path: Path
) -> None:
    content = OrderedDict((key, True) for key, present in SUBGRAPH.items() if present)
    assert imported(registry, saved(tmp_path, content))[1].universe_size is None


def test_a_file_of_some_edges_does_not_say_of_how_many_though_it_marks_them(
    registry: Registry, tmp_path: Path
) -> None:
    some = list(SUBGRAPH.items())[:3]
    circuit = imported(registry, saved(tmp_path, OrderedDict(some)))[1]
    assert (len(circuit.edges), circuit.universe_size) == (1, None)


def test_older_names_and_two_embeddings_are_read(registry: Registry, tmp_path: Path) -> None:
    content = OrderedDict(
        {
            ("blocks.0.hook_resid_mid", ALL, "hook_embed", ALL): True,
            ("blocks.0.hook_resid_mid", ALL, "hook_pos_embed", ALL): True,
            ("blocks.0.hook_mlp_out", ALL, "blocks.0.hook_resid_mid", ALL): True,
            ("blocks.0.hook_resid_post", ALL, "blocks.0.hook_mlp_out", ALL): True,
        }
    )
    report, circuit = imported(registry, saved(tmp_path, content))
    assert connections(circuit) == ["input->m0", "m0->logits"]
    assert any("hook_embed, hook_pos_embed" in note for note in report.notes)


def test_a_subgraph_of_which_nothing_is_left_is_an_empty_circuit(
    registry: Registry, tmp_path: Path
) -> None:
    content = OrderedDict(dict.fromkeys(SUBGRAPH, False))
    circuit = imported(registry, saved(tmp_path, content))[1]
    assert (circuit.edges, circuit.universe_size) == ((), 10)


def changed(key: Any, present: Any = True) -> OrderedDict[Any, Any]:
    return OrderedDict({**SUBGRAPH, key: present})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (["OrderedDict", "blocks.1.hook_resid_post"], "no dictionary of edges"),
        (changed(("blocks.1.hook_resid_post", ALL)), "edge 14: ('blocks.1.hook_resid_post'"),
        (changed("OrderedDict"), "edge 14"),
        (changed(("m0", ALL, "m1", ALL), "yes"), "edge 14"),
        (changed(("m0", 3, "m1", ALL)), "edge 14"),
        (changed(("m0", ALL, "blocks.1.attn.hook_result", (None, None, True))), "edge 14"),
        (changed(("m0", ALL, "blocks.1.attn.hook_result", (0, None, 1))), "edge 14"),
        (changed(("blocks.2.hook_mlp_in", ALL, "blocks.1.attn.hook_result", ALL)), "edge 14"),
        (changed(("blocks.2.hook_mlp_in", ALL, "blocks.1.hook_q_input", HEAD)), "sends nothing"),
        (changed(("blocks.2.hook_mlp_in", ALL, "elsewhere", ALL), False), "'elsewhere' is not"),
    ],
)
def test_a_malformed_subgraph_is_refused_with_the_reason(
    registry: Registry, tmp_path: Path, content: Any, says: str
) -> None:
    (report,) = import_files(registry, [saved(tmp_path, content)], SAID)
    assert report.outcome is FileOutcome.REFUSED
    assert says in report.notes[0]


def test_too_many_edges_are_refused(registry: Registry, tmp_path: Path) -> None:
    path = saved(tmp_path, OrderedDict(SUBGRAPH))
    (report,) = import_files(registry, [path], SAID, limits=Limits(max_edges=12))
    assert "--max-edges" in report.notes[0]
