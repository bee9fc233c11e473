"""Graphviz drawings of ACDC and KnowledgeCircuits into a real registry."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from registry.identifiers import parse_local
from registry.records import Circuit, Sign

FILES = Path(__file__).parents[1] / "files" / "graphviz"
SHARED = Path(__file__).parents[5] / "shared" / "fixtures" / "external"
needs_files = pytest.mark.skipif(
    not SHARED.is_dir(), reason="other tools' files are not beside this checkout"
)
SAID = {"model": "gpt2-medium", "task": "capitals"}


def imported(registry: Registry, path: Path, **said: Any) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], {**SAID, **said})
    assert report.outcome is FileOutcome.STORED, report.notes
    return report, registry.circuit(report.circuits[0]).circuit


def effects(circuit: Circuit) -> dict[str, tuple[float | None, int | None]]:
    return {edge.connection: (edge.effect, edge.rank) for edge in circuit.edges}


def drawn(folder: Path, body: str, start: str = "digraph") -> Path:
    path = folder / "graph.gv"
    path.write_text(start + " {\n" + body + "\n}\n", "utf-8")
    return path


def test_what_is_visible_is_the_circuit_and_the_least_width_says_no_effect(
    registry: Registry,
) -> None:
    report, circuit = imported(registry, FILES / "graph.gv")
    assert effects(circuit) == {
        "input->m0": (2.5, 1), "a1.h0->logits": (1.75, 2),
        "input->a1.h0": (None, None), "m0->a1.h0": (None, None),
    }  # fmt: skip
    assert circuit.sign is Sign.UNSIGNED
    assert "invisible edges, which only serve the layout, omitted: 1" in report.notes
    assert "2 of 4 edges are drawn at the least width, 0.6: present, effect unknown" in report.notes
    assert "2 edges enter heads without giving the input (q, k or v)" in report.notes
    assert "<a1.0> read as a1.h0" in report.notes


def test_prompt_answer_and_special_parts_are_read_beside_it(registry: Registry) -> None:
    report, circuit = imported(registry, FILES / "graph.gv")
    assert circuit.parameters == {
        "prompt": "The key of the chest is", "answer": "under the mat",
        "special": ["a0.h1", "a1.h0"], "effect": "pen width", "floor": 0.6,
    }  # fmt: skip
    roles = {node.component: node.role for node in circuit.nodes}
    assert roles == {"input": None, "m0": None, "a1.h0": "special", "logits": None}
    assert "the authors highlight a1.h0 (role special)" in report.notes
    assert "not in the graph: a0.h1 of specialNode.txt" in report.notes
    assert "specialNode.txt names 'chest', which is no part" in report.notes


def test_a_folder_is_one_circuit_with_its_companions_kept(
    registry: Registry, tmp_path: Path
) -> None:
    folder = shutil.copytree(FILES, tmp_path / "capital")
    reports = {r.path.name: r for r in import_files(registry, [folder], SAID)}
    assert {name: report.outcome for name, report in reports.items()} == {
        "graph.gv": FileOutcome.STORED,
        "io.txt": FileOutcome.SKIPPED,
        "specialNode.txt": FileOutcome.SKIPPED,
    }
    assert reports["io.txt"].notes == ("read with graph.gv",)


def test_a_companion_that_is_no_text_is_left_out_and_said_so(
    registry: Registry, tmp_path: Path
) -> None:
    path = drawn(tmp_path, "m0 -> m1")
    (tmp_path / "io.txt").write_bytes(b"a\x00b\nc")
    (tmp_path / "specialNode.txt").write_bytes(b"\xff\xfe")
    report, circuit = imported(registry, path)
    assert circuit.parameters == {}
    assert [note.partition(":")[0] for note in report.notes[:2]] == ["omitted", "omitted"]


def test_a_link_beside_a_graph_is_not_followed(registry: Registry, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("private\nmatters", "utf-8")
    (tmp_path / "io.txt").symlink_to(secret)
    assert imported(registry, drawn(tmp_path, "m0 -> m1"))[1].parameters == {}


def test_the_user_may_say_the_sign_of_widths(registry: Registry) -> None:
    helps = imported(registry, FILES / "graph.gv", sign="helps-positive")[1]
    hurts = imported(registry, FILES / "graph.gv", sign="hurts-positive")[1]
    assert (helps.sign, effects(helps)["input->m0"]) == (Sign.HELPS_POSITIVE, (2.5, 1))
    assert (hurts.sign, effects(hurts)["input->m0"]) == (Sign.HELPS_POSITIVE, (-2.5, 1))


def test_ports_and_indices_of_hook_points_are_read(registry: Registry, tmp_path: Path) -> None:
    path = drawn(
        tmp_path,
        '"<token_embeds_[:]>" -> "<a1.0_q_[:, :, 0]>" [penwidth=2];\n'
        '"<m0_[:]>" -> "<a1.0_k_[COLON, COLON, 0]>" [penwidth=1];\n'
        '"<a1.0_q_[:, :, 0]>" -> "<a1.0_[:, :, 0]>"; "<a1.0_[:, :, 0]>" -> "<resid_post_[:]>"',
    )
    report, circuit = imported(registry, path)
    assert effects(circuit) == {
        "input->a1.h0<q>": (2.0, 1), "m0->a1.h0<k>": (None, None), "a1.h0->logits": (None, None),
    }  # fmt: skip
    assert any(note.startswith("1 link that stays inside one head") for note in report.notes)


def test_an_attribute_effect_counts_before_the_pen(registry: Registry, tmp_path: Path) -> None:
    path = drawn(tmp_path, "m0 -> m1 [effect=-0.5, penwidth=3]; m1 -> logits [penwidth=1]")
    circuit = imported(registry, path)[1]
    assert effects(circuit) == {"m0->m1": (-0.5, 1), "m1->logits": (None, None)}
    assert (circuit.sign, circuit.parameters) == (Sign.UNKNOWN, {})


def test_a_column_says_which_attribute_is_the_effect(registry: Registry, tmp_path: Path) -> None:
    path = drawn(tmp_path, "m0 -> m1 [w=2]; m1 -> logits [w=1]")
    circuit = imported(registry, path, columns={"effect": "w"})[1]
    assert effects(circuit) == {"m0->m1": (2.0, 1), "m1->logits": (1.0, 2)}


def test_parallel_edges_are_one_whose_effect_is_known_where_they_agree(
    registry: Registry, tmp_path: Path
) -> None:
    body = "m0->m1 [penwidth=2]; m0->m1 [penwidth=3]; m0->m2 [penwidth=2]; m0->m2 [penwidth=2];"
    report, circuit = imported(registry, drawn(tmp_path, body + "m0->m3 [penwidth=1]"))
    assert effects(circuit) == {
        "m0->m1": (None, None), "m0->m2": (2.0, 1), "m0->m3": (None, None),
    }  # fmt: skip
    assert "edges parallel to another edge omitted: 2" in report.notes


def test_a_drawing_without_widths_has_no_effects(registry: Registry, tmp_path: Path) -> None:
    report, circuit = imported(registry, drawn(tmp_path, 'm0 -> m1; "stray"'))
    assert effects(circuit) == {"m0->m1": (None, None)}
    assert (circuit.sign, circuit.parameters) == (Sign.UNKNOWN, {})
    assert report.notes == ("nodes without a visible edge omitted: 1",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("digraph { m0 -> m1 [style=invis] }", "none of its 1 edges is visible (style invis)"),
        (
            "digraph { edge [style=invis]; m0 -> m1 }",
            "none of its 1 edges is visible (style invis)",
        ),
        ("digraph { m0; m1 }", "graph.gv has no edge"),
        ("graph { m0 -- m1 }", "undirected"),
        ("digraph { m0 -> whatever }", "'whatever' names no part"),
        ("digraph { m0 -> m1 [penwidth=wide] }", "penwidth 'wide' is no width"),
        ('digraph { m0 -> m1 [penwidth="-1"] }', "penwidth '-1' is no width"),
        ("digraph { m0 -> m1 [effect=much] }", "effect 'much' is no number"),
        ('digraph { "<a1.0_q>" -> m1 }', "which sends nothing"),
        ("digraph { m0 -> m1", "line 1"),
        ('digraph { m0 -> "' + "_[" * 200_000 + '" }', "names no part"),
        ("not a graph", "expected a graph or digraph"),
        ("digraph { circuits_format=1; circuit_level=cake }", "level: must be 'node', "),
        ("digraph { circuits_format=1; circuit_parameters=x }", "circuit_parameters is no JSON"),
    ],
)
def test_what_is_no_circuit_is_refused_with_the_reason(
    registry: Registry, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "graph.gv"
    path.write_text(text, "utf-8")
    (report,) = import_files(registry, [path], SAID)
    assert report.outcome is FileOutcome.REFUSED
    assert says in report.notes[0]


def _kind(name: str) -> str:
    return str(parse_local(name).kind)


KNOWLEDGE: list[tuple[str, dict[str, Any]]] = [
    (
        "Factual Knowledge",
        {
            "edges": 452,
            "nodes": {"head": 73, "input": 1, "logits": 1, "mlp": 20},
            "links": {
                "head->head": 58, "head->logits": 8, "head->mlp": 191, "input->head": 10,
                "input->mlp": 3, "mlp->head": 98, "mlp->logits": 5, "mlp->mlp": 79,
            },
            "widest": 4.403536319732666,
            "at_floor": 423,
            "layer": 23,
            "prompt": "The capital city of China is",
            "answer": "Beijing",
            "special": [],
        },
    ),
    (
        "Hallucination",
        {
            "edges": 167,
            "nodes": {"head": 38, "input": 1, "logits": 1, "mlp": 15},
            "links": {
                "head->head": 11, "head->logits": 4, "head->mlp": 62, "input->head": 10,
                "input->mlp": 1, "mlp->head": 44, "mlp->logits": 2, "mlp->mlp": 33,
            },
            "widest": 2.098353326320648,
            "at_floor": 149,
            "layer": 21,
            "prompt": "The official currency of Malaysia is called",
            "answer": "Ringgit",
            "special": ["a15.h0"],
        },
    ),
]  # fmt: skip


@needs_files
@pytest.mark.parametrize(("folder", "facts"), KNOWLEDGE)
def test_knowledge_circuits_have_the_facts_their_source_states(
    registry: Registry, folder: str, facts: dict[str, Any]
) -> None:
    path = SHARED / "knowledge-circuits" / "gpt2-medium" / folder / "graph.gv"
    circuit = imported(registry, path)[1]
    locals_ = [parse_local(node.component) for node in circuit.nodes]
    assert len(circuit.edges) == facts["edges"]
    assert Counter(str(local.kind) for local in locals_) == facts["nodes"]
    links = (f"{_kind(edge.source)}->{_kind(edge.target)}" for edge in circuit.edges)
    assert Counter(links) == facts["links"]
    known = [edge.effect for edge in circuit.edges if edge.effect is not None]
    assert (max(known), len(circuit.edges) - len(known)) == (facts["widest"], facts["at_floor"])
    assert circuit.parameters["floor"] == 0.6 < min(known)
    assert max(local.layer or 0 for local in locals_) == facts["layer"]
    assert max(local.head or 0 for local in locals_) == 15
    assert circuit.parameters["prompt"] == facts["prompt"]
    assert circuit.parameters["answer"] == facts["answer"]
    roles = [node.component for node in circuit.nodes if node.role == "special"]
    assert roles == circuit.parameters.get("special", []) == facts["special"]


@needs_files
def test_a_layout_template_is_refused_for_what_it_is(registry: Registry) -> None:
    path = SHARED / "acdc" / "layouts" / "greaterthan" / "layout.gv"
    (report,) = import_files(registry, [path], SAID)
    assert report.outcome is FileOutcome.REFUSED
    assert (
        "a layout, not a circuit: none of its 328 edges is visible (style invis)" in report.notes[0]
    )


def test_drawings_of_edge_pruning_are_read(registry: Registry, tmp_path: Path) -> None:
    path = drawn(
        tmp_path,
        "graph [nodesep=0.02]\nnode [shape=box]\nEmbeddings [color=black]\n"
        'Embeddings -> "Head 1.0.Q" [color=grey]; "Head 1.0.Q" -> "Head 1.0.O"\n'
        '"Head 1.0.O" -> "MLP 1"; "MLP 1" -> Output',
    )
    assert sorted(effects(imported(registry, path)[1])) == [
        "a1.h0->m1", "input->a1.h0<q>", "m1->logits",
    ]  # fmt: skip
