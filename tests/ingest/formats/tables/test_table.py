"""Tables of hook points, as ACDC's records are written out: only links between parts are edges."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from registry.records import Circuit, Sign

SHARED = Path(__file__).parents[5] / "shared" / "fixtures" / "external" / "acdc" / "converted"
needs_files = pytest.mark.skipif(
    not SHARED.is_dir(), reason="other tools' files are not beside this checkout"
)
SAID = {"model": "attn-only-4l", "task": "docstring", "method": "acdc"}
HOOKS = """\
source,target,effect
blocks.1.attn.hook_result[2],blocks.1.hook_resid_post,0.5
blocks.1.attn.hook_q[2],blocks.1.attn.hook_result[2],0.1
blocks.1.hook_q_input[2],blocks.1.attn.hook_q[2],0.2
blocks.0.hook_mlp_in,blocks.0.hook_mlp_out,0.3
blocks.0.hook_mlp_out,blocks.1.hook_q_input[2],0.25
blocks.0.hook_resid_pre,blocks.0.hook_mlp_in,-0.75
"""


def imported(registry: Registry, path: Path) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], {**SAID, "sign": "helps-positive"})
    assert report.outcome is FileOutcome.STORED, report.notes
    return report, registry.circuit(report.circuits[0]).circuit


def refused(registry: Registry, path: Path) -> str:
    (report,) = import_files(registry, [path], SAID)
    assert report.outcome is FileOutcome.REFUSED
    return report.notes[0]


def written(folder: Path, text: str) -> Path:
    path = folder / "edges.csv"
    path.write_text(text, "utf-8")
    return path


def test_links_inside_a_head_or_an_mlp_are_left_out_and_said_so(
    registry: Registry, tmp_path: Path
) -> None:
    report, circuit = imported(registry, written(tmp_path, HOOKS))
    assert {edge.connection: (edge.effect, edge.rank) for edge in circuit.edges} == {
        "input->m0": (-0.75, 1), "a1.h2->logits": (0.5, 2), "m0->a1.h2<q>": (0.25, 3),
    }  # fmt: skip
    assert report.notes[0] == (
        "3 links that stay inside one head or MLP omitted, such as"
        " blocks.1.attn.hook_q[2] -> blocks.1.attn.hook_result[2]"
    )


def test_a_table_of_nothing_but_insides_is_no_circuit(registry: Registry, tmp_path: Path) -> None:
    text = "source,target\nblocks.1.hook_q_input[2],blocks.1.attn.hook_q[2]\n"
    assert "no edge between parts" in refused(registry, written(tmp_path, text))


def test_an_input_of_one_head_feeds_no_other(registry: Registry, tmp_path: Path) -> None:
    text = "source,target\nblocks.1.hook_q_input[2],blocks.1.attn.hook_q[3]\n"
    assert "which sends nothing" in refused(registry, written(tmp_path, text))


def test_both_embeddings_are_one_input_of_unknown_effect(
    registry: Registry, tmp_path: Path
) -> None:
    text = (
        "source,target,effect\nhook_embed,m0,1\nhook_pos_embed,m0,2\nhook_embed,logits,3\n"
        "m0,logits,4\n"
    )
    report, circuit = imported(registry, written(tmp_path, text))
    assert {edge.connection: (edge.effect, edge.rank) for edge in circuit.edges} == {
        "input->m0": (None, None), "input->logits": (3.0, 2), "m0->logits": (4.0, 1),
    }  # fmt: skip
    assert report.notes[0] == (
        "edges merged from several of the input (hook_embed, hook_pos_embed), effects unknown: 1"
    )


def test_an_edge_of_the_input_that_is_there_twice_by_one_name_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    text = "source,target\nhook_embed,m0\nhook_embed,m0\nhook_pos_embed,m0\n"
    assert "appears twice" in refused(registry, written(tmp_path, text))


def test_edges_into_heads_may_leave_the_port_open(registry: Registry, tmp_path: Path) -> None:
    report, circuit = imported(registry, written(tmp_path, "source,target\nm0,a1.h2\nm0,m1\n"))
    assert [edge.connection for edge in circuit.edges] == ["m0->a1.h2", "m0->m1"]
    assert report.notes == ("1 edge enters a head without giving the input (q, k or v)",)


FACTS = [
    (
        "docstring_another_final_edges.csv", 61, 29, 0.06725502014160156, 2.8278751373291016,
        ["a3.h0->logits", "input->a1.h4<v>", "input->a3.h0<v>", "input->a2.h0<k>", "a3.h6->logits"],
        [2.500382423400879, 2.2054290771484375, 1.6921939849853516, 1.6663742065429688,
         1.5644474029541016],
        "a0.h0 a0.h1 a0.h5 a1.h0 a1.h2 a1.h4 a2.h0 a2.h2 a2.h3 a2.h5 a3.h0 a3.h6 a3.h7",
    ),
    (
        "docstring_edges_v831.csv", 20, 14, 0.09543871879577637, 1.2477227449417114,
        ["input->a3.h0<v>", "a3.h0->logits", "input->a3.h6<v>", "a3.h6->logits", "input->a2.h0<q>"],
        [1.0225992798805237, 0.9641862660646439, 0.783518373966217, 0.6878048107028008,
         0.38286447525024414],
        "a0.h5 a1.h0 a1.h4 a2.h0 a3.h0 a3.h6",
    ),
]  # fmt: skip


@needs_files
@pytest.mark.parametrize(
    ("file", "edges", "inside", "least", "most", "strongest", "effects", "heads"), FACTS
)
def test_tables_of_acdc_have_the_facts_their_source_states(
    registry: Registry,
    file: str,
    edges: int,
    inside: int,
    least: float,
    most: float,
    strongest: list[str],
    effects: list[float],
    heads: str,
) -> None:
    path = SHARED / file
    report, circuit = imported(registry, path)
    assert (report.edges, circuit.sign) == (edges, Sign.HELPS_POSITIVE)
    assert report.notes[0].startswith(f"{inside} links that stay inside one head or MLP")
    ranked = sorted(circuit.edges, key=lambda edge: edge.rank or 0)
    assert [edge.connection for edge in ranked[:5]] == strongest
    assert [edge.effect for edge in ranked[:5]] == effects
    found = [node.component for node in circuit.nodes if node.component.startswith("a")]
    assert sorted(found, key=lambda name: [int(n) for n in name[1:].split(".h")]) == heads.split()
    # The source's range is over all records, also those inside a head.
    told = [float(line.rpartition(",")[2]) for line in path.read_text().splitlines()[1:]]
    assert (len(told), min(told), max(told)) == (edges + inside, least, most)
    assert all(least <= (edge.effect or 0) <= most for edge in circuit.edges)


@pytest.mark.parametrize(
    ("source", "target"),
    [("a5.h0", "a2.h1"), ("a5.h0", "a5.h1"), ("logits", "m0"), ("m0", "input"), ("m3.n1", "m3.n2")],
)
def test_an_edge_that_no_model_has_is_refused_by_its_row(
    registry: Registry, tmp_path: Path, source: str, target: str
) -> None:
    text = f"source,target\nm0,m1\n{source},{target}\n"
    note = refused(registry, written(tmp_path, text))
    assert f"edges.csv, line 3: the edge {source} -> {target} is in no model" in note


@pytest.mark.parametrize(
    ("first", "second", "back"),
    [
        *((*pair, True) for pair in (("5", "2"), ("-1", "-2"), ("10", "9"))),
        *((*pair, False) for pair in (("2", "5"), ("9", "10"), ("5", "5"), ("-2", "-1"))),
        *((*pair, False) for pair in (("5", "-1"), ("S2", "END"), ("7", ""))),
    ],
)
def test_an_edge_to_an_earlier_token_is_kept_with_a_note(
    registry: Registry, tmp_path: Path, first: str, second: str, back: bool
) -> None:
    head = "source,target,port,source_position,target_position\n"
    path = written(tmp_path, f"{head}a1.h0,a2.h1,k,{first},{second}\n")
    (report,) = import_files(registry, [path], SAID)
    assert (report.outcome, report.edges) == (FileOutcome.STORED, 1)
    note = f"1 edge leads from a later token to an earlier one, such as a1.h0@{first} -> a2.h1"
    assert [one.startswith(f"{note}@{second}:") for one in report.notes] == [True] * back


def test_attention_and_mlp_of_one_layer_may_feed_each_other_either_way(
    registry: Registry, tmp_path: Path
) -> None:
    text = "source,target\na1.h0,m1\nm2,a2.h0\n"
    assert len(imported(registry, written(tmp_path, text))[1].edges) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source,target,port\nm0,m1,\nm0,m2,q\n", "line 3: m2 has no input 'q'"),
        ('{"source": "m0", "target": "m1", "source_position": "\\ud800"}\n', "line 1: source: "),
        ('{"layer": 0, "head": 1, "role": "\\ud800"}\n', "line 1: role: "),
        ("node,density\nm0,1\nm1,1.5\n", "line 3: density '1.5' is no share from 0 to 1"),
        ("node,density\nm0,some\n", "line 2: density 'some' is no share from 0 to 1"),
        ('{"node": "m0", "density": -0.1}\n', "line 1: density -0.1 is no share from 0 to 1"),
    ],
)
def test_what_is_wrong_with_a_row_names_it(
    registry: Registry, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / ("edges.jsonl" if text.startswith("{") else "edges.csv")
    path.write_text(text, "utf-8")
    assert f"{path.name}, {says}" in refused(registry, path)
