"""The commands reuse, stability, nearest, where and diff, as a user runs them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from queries.answers.usage import nearest_circuits, where_used
from registry import Registry
from registry.errors import BadIdentifier, BadInput, NotFound
from registry.records import Circuit, Edge, Level, Node
from tests import examples
from tests.queries import small_registry
from tests.queries.small_registry import (
    AIMED,
    CAPITALS_CIRCUIT,
    EDIT,
    GROUPED,
    IOI,
    IOI_AT_POSITIONS,
    MONTHS,
    NODES_ONLY,
    NUMERALS,
    RETRACTED,
)

pytestmark = pytest.mark.seconds

PROMPTS = [digit * 64 for digit in "123"]
SEEDS = [
    examples.circuit(seed, task="agreement").model_copy(
        update={"prompt_set": prompts, "parameters": {}, "selection": {"top": 20}}
    )
    for seed, prompts in enumerate(PROMPTS, start=47)
]
MERGED = Circuit(
    model="gpt2",
    task="agreement",
    method="merged",
    level=Level.EDGE,
    nodes=(Node(component="a0.h1"), Node(component="a9.h6"), Node(component="logits")),
    edges=(Edge(source="a0.h1", target="a9.h6"), Edge(source="a9.h6", target="logits")),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("usage") / "registry"
    with Registry.init(home) as registry:
        small_registry.fill(registry)
        registry.record(*(examples.prompt_set(id, "agreement") for id in PROMPTS), *SEEDS, MERGED)
    return home


def circuits(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry", "--home", home, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def answer(home: Path, *arguments: str | Path) -> Any:
    ran = circuits(home, *arguments, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def table(home: Path, *arguments: str) -> list[dict[str, str]]:
    ran = circuits(home, *arguments, "--format", "csv")
    assert ran.returncode == 0, ran.stderr
    return list(csv.DictReader(io.StringIO(ran.stdout)))


# -- reuse -----------------------------------------------------------------------------------------

THREE = ",".join(one.id[:9] for one in (IOI, NUMERALS, MONTHS))


def test_reuse_ranks_parts_by_tasks_beside_chance(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "reuse.svg"
    found = answer(home, "reuse", "--circuits", THREE, "--draws", "20", "--out", out)
    assert set(found) == {"circuits", "parts by number of tasks", "components", "connections"}
    assert {row["circuit"] for row in found["circuits"]} == {IOI.id, NUMERALS.id, MONTHS.id}
    first = found["components"][0]
    assert (first["n_tasks"], first["generality"]) == (3, 1)
    (head,) = (row for row in found["components"] if row["component"] == "gpt2/a9.h6")
    assert head["roles"] == ["name mover"]
    assert head["tasks"] == ["ioi", "sequence/numerals"]
    assert head["expected"] == pytest.approx(2 / 12)
    (own,) = (row for row in found["connections"] if row["n_tasks"] == 1 and row["p"] == 1)
    assert (own["connection"], own["only_task"]) == ("gpt2/a9.h6->m9", "ioi")
    assert "by chance" in out.read_text(encoding="utf-8")
    again = answer(home, "reuse", "--circuits", THREE, "--draws", "20")
    assert again == found


def test_reuse_shows_what_so_many_tasks_use_and_says_what_it_leaves_out(home: Path) -> None:
    rows = table(home, "reuse", "--circuits", THREE, "--min-tasks", "3")
    assert {row["component"] for row in rows} == {
        "gpt2/input", "gpt2/a0.h1", "gpt2/m9", "gpt2/logits"
    }  # fmt: skip
    ran = circuits(home, "reuse", "--circuits", THREE, "--limit", "2", "--draws", "0")
    assert "components: the first 2 of 5; --limit shows more" in ran.stderr
    assert "gpt2/a0.h1" in ran.stdout
    everything = circuits(home, "reuse", "--circuits", THREE, "--limit", "0", "--draws", "0")
    assert "--limit" not in everything.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reuse"], "circuits in 2 models (gpt2, smollm2-135m-instruct-q4_1); choose one with"),
        (["reuse", "--task", "ioi"], "reuse needs two or more tasks, got 1"),
        (
            ["reuse", "--circuits", THREE, "--min-tasks", "4"],
            "--min-tasks is 4, but only 3 tasks are compared",
        ),
        (["reuse", "--circuits", THREE, "--out", "a.gif"], "name a file that ends in .svg"),
        (["reuse", "--model", "gpt9"], "no model 'gpt9'; nearest: gpt2"),
        (["stability", "iou"], "no task 'iou'; nearest: ioi"),
        (["stability", "ioi", "--method", "edge-attribution"], "ioi has circuits in 2 models"),
        (["stability", "capitals"], "two or more; capitals has 1"),
        (["nearest", "beef"], "no circuit 'beef'"),
        (["nearest", RETRACTED.id[:9]], "is retracted and no longer in the graph"),
        (["nearest", NODES_ONLY.id[:9], "--over", "connections"], "has no edges; compare it over"),
        (["where", "a9.h6"], "a component with its model"),
        (["where", "gpt2/L9H6"], "did you mean 'a9.h6'?"),
        (["where", "gpt2/a9.h12"], "inside the model, which has 12 heads"),
        (["where", "gpt9/a9.h6"], "no model 'gpt9'; nearest: gpt2"),
        (["where", "gpt2/a9.h6->m10<k>"], "has one input and takes no port"),
        (["diff", IOI.id[:9], GROUPED.id[:9]], "circuits of different models cannot be compared"),
        (["diff", IOI.id[:9], "beef"], "no circuit 'beef'"),
    ],
)
def test_bad_input_is_one_line(home: Path, arguments: list[str], message: str) -> None:
    ran = circuits(home, *arguments)
    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


# -- stability -------------------------------------------------------------------------------------


def test_stability_by_seeds_tells_groups_overlaps_and_a_consensus(
    home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stability.png"
    found = answer(home, "stability", "agreement", "--out", out, "--limit", "0")
    group, other = found["groups"]
    assert (group["n_circuits"], other["n_circuits"]) == (3, 1)
    assert (found["agreement"]["pairs"], found["agreement"]["by"]) == (3, "seeds")
    assert group["smallest_overlap"] <= group["mean_overlap"] <= group["largest_overlap"]
    consensus = [row for row in found["connections"] if row["share"] >= 0.5]
    assert len(consensus) == found["agreement"]["connections of the consensus"] > 0
    assert [row["circuit"] for row in found["circuits"]] == [
        *sorted(one.id for one in SEEDS), MERGED.id
    ]  # fmt: skip
    assert out.read_bytes().startswith(b"\x89PNG")


def test_stability_by_methods_compares_groups_and_says_what_was_folded(home: Path) -> None:
    ran = circuits(home, "stability", "agreement", "--by", "methods", "--limit", "2")
    assert ran.returncode == 0, ran.stderr
    assert "note: some circuits merge the inputs of heads" in ran.stderr
    assert "connections: the first 2 of" in ran.stderr
    assert "between groups" in ran.stdout
    rows = table(home, "stability", "agreement", "--method", "edge-attribution", "--limit", "0")
    names = {f"gpt2/{edge.connection}" for one in SEEDS for edge in one.edges}
    assert {row["connection"] for row in rows} == names


# -- nearest ---------------------------------------------------------------------------------------


def test_nearest_compares_connections_and_says_who_has_none(home: Path) -> None:
    ran = circuits(home, "nearest", IOI.id[:9], "--format", "json", "--limit", "2")
    rows = json.loads(ran.stdout)
    assert [row["circuit"] for row in rows] == [NUMERALS.id, IOI_AT_POSITIONS.id]
    assert rows[0]["similarity"] == 0.8
    assert "circuits without edges, which are found only over components: 1" in ran.stderr


def test_nearest_compares_components_where_there_are_no_connections(home: Path) -> None:
    ran = circuits(home, "nearest", NODES_ONLY.id[:9], "--format", "json")
    rows = json.loads(ran.stdout)
    assert "note: the circuit has no edges; compared over components" in ran.stderr
    assert [row["circuit"] for row in rows[:2]] == [MERGED.id, IOI_AT_POSITIONS.id]
    assert [(row["n_shared"], row["similarity"]) for row in rows[:2]] == [(2, 0.5), (2, 0.4)]
    merged = circuits(home, "nearest", MERGED.id[:9])
    assert "merges the inputs of heads" in merged.stderr
    assert "n_components" in merged.stdout


def test_nearest_can_be_narrowed(home: Path) -> None:
    rows = table(home, "nearest", IOI.id[:9], "--method", "published", "--over", "components")
    assert {row["circuit"] for row in rows} == {IOI_AT_POSITIONS.id, NODES_ONLY.id}
    of_task = table(home, "nearest", IOI.id[:9], "--task", "capitals")
    assert [row["circuit"] for row in of_task] == [CAPITALS_CIRCUIT.id]
    nothing = circuits(home, "nearest", IOI.id[:9], "--method", "guessing")
    assert "no stored circuit shares a part with it" in nothing.stderr


# -- where -----------------------------------------------------------------------------------------


def test_where_tells_circuits_roles_and_edits_of_a_component(home: Path) -> None:
    found = answer(home, "where", "gpt2/a9.h6")
    part = found["part"]
    assert (part["model"], part["kind"], part["layer"]) == ("gpt2", "head", 9)
    users = (IOI, IOI_AT_POSITIONS, NUMERALS, NODES_ONLY, CAPITALS_CIRCUIT, MERGED)
    assert {row["circuit"] for row in found["circuits"]} == {one.id for one in users}
    assert part["circuits"] == len(users) < len(found["circuits"])  # one has it at two positions
    assert part["tasks"] == sorted({one.task for one in users})
    assert part["roles"] == ["name mover"]
    (edit,) = found["edits"]
    assert (edit["edit"], edit["editor"], edit["n_outcomes"]) == (EDIT.id, "ROME", 3)
    assert edit["tasks"] == ["capitals", "ioi"]


def test_roles_that_were_said_later_are_shown_beside_a_circuits_own(
    home: Path, tmp_path: Path
) -> None:
    own = tmp_path / ".circuits"
    shutil.copytree(home, own)
    with Registry.open(own) as registry:
        registry.annotate(IOI.id, "a9.h6", "copying head", by="Ada")
        registry.annotate(NUMERALS.id, "m9", "successor", by="Ada")
    found = answer(own, "where", "gpt2/a9.h6")
    assert found["part"]["roles"] == ["copying head", "name mover"]
    of_ioi = next(row for row in found["circuits"] if row["circuit"] == IOI.id)
    assert (of_ioi["role"], of_ioi["annotated"]) == ("name mover", ["copying head"])
    pair = f"{IOI.id[:9]},{NUMERALS.id[:9]}"
    for command in (["shared", "--circuits", pair], ["reuse", "--circuits", pair, "--draws", "0"]):
        roles = {row["component"]: row["roles"] for row in answer(own, *command)["components"]}
        assert roles["gpt2/a9.h6"] == ["name mover", "copying head"]
        assert roles["gpt2/m9"] == ["successor"]
    alone = f"{MONTHS.id[:9]},{IOI_AT_POSITIONS.id[:9]}"
    heads = answer(own, "reuse", "--circuits", alone, "--draws", "0")["components"]
    assert {role for row in heads for role in row["roles"]} == {"name mover", "duplicate token"}


def test_where_understands_aliases_and_parts_that_nobody_uses(home: Path) -> None:
    rows = table(home, "where", "smollm2/a4.kv2")
    assert [row["circuit"] for row in rows] == [GROUPED.id]
    unused = circuits(home, "where", "gpt2/m2")
    assert unused.returncode == 0
    assert "no active circuit uses gpt2/m2" in unused.stderr
    assert AIMED.id[:12] in unused.stdout  # though an edit modified it


def test_where_of_a_connection_takes_all_ports_unless_one_is_named(home: Path) -> None:
    either = answer(home, "where", "gpt2/a0.h1->a9.h6")
    assert either["part"]["kind"] == "connection"
    assert {row["circuit"] for row in either["circuits"]} == {
        IOI.id, IOI_AT_POSITIONS.id, NUMERALS.id, MERGED.id
    }  # fmt: skip
    assert [row["edit"] for row in either["edits"]] == [EDIT.id]  # it modified the target
    keys = answer(home, "where", "gpt2/a0.h1->a9.h6<k>")
    assert MERGED.id not in {row["circuit"] for row in keys["circuits"]}
    assert len(keys["circuits"]) == 3


# -- diff ------------------------------------------------------------------------------------------


def test_diff_shows_edges_of_either_with_what_they_do_in_each(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "diff.pdf"
    found = answer(home, "diff", IOI.id[:9], NUMERALS.id[:9], "--out", out)
    assert [row["id"] for row in found["circuits"]] == [IOI.id, NUMERALS.id]
    connections, components = found["summary"]
    assert (connections["both"], connections["only_a"], connections["sign_turned"]) == (4, 1, 2)
    assert (components["both"], components["only_b"]) == (5, 0)
    (row,) = (r for r in found["connections"] if r["connection"] == "gpt2/m9->logits")
    assert (row["effect_a"], row["effect_b"], row["change"]) == (-0.5, 2.0, 2.5)
    assert (row["where"], row["sign_turned"], row["rank_a"], row["rank_b"]) == ("both", True, 3, 1)
    assert out.read_bytes().startswith(b"%PDF")


def test_diff_can_show_one_side_alone_and_names_what_else_differs(home: Path) -> None:
    rows = table(home, "diff", IOI.id[:9], NUMERALS.id[:9], "--only", "a")
    assert [row["connection"] for row in rows] == ["gpt2/a9.h6->m9"]
    ran = circuits(home, "diff", IOI.id[:9], MERGED.id[:9], "--limit", "1")
    assert "the circuits differ in ports of heads: separate in a, merged in b" in ran.stderr
    assert "connections: the first 1 of 5; --limit shows more" in ran.stderr


# -- in Python -------------------------------------------------------------------------------------


def test_the_same_is_there_in_python(home: Path) -> None:
    with Registry.open(home) as registry:
        usage = where_used(registry, "gpt2/a9.h6")
        assert len(usage.to_frame()) == len(usage.circuits)
        near = nearest_circuits(registry, IOI.id[:9], over="components", limit=3)
        assert (near.over, near.to_frame()["circuit"].iloc[0]) == ("components", NUMERALS.id)
        with pytest.raises(NotFound):
            where_used(registry, "gpt9/a9.h6")
        with pytest.raises(BadIdentifier):
            where_used(registry, "gpt2/a9")
        with pytest.raises(BadInput, match="retracted"):
            nearest_circuits(registry, RETRACTED.id)
