"""Circuits of several tasks, each beside each."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ingest.catalog import load
from queries.answers.compare import compare_circuits
from queries.answers.matrix import CircuitMatrix, circuit_matrix
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.records import Circuit
from tests.queries import measured_tasks
from tests.queries.measured_tasks import FOUR_TASKS, NOT_MEASURED

pytestmark = pytest.mark.seconds

SEQUENCES = ("sequence/numerals", "sequence/number-words", "sequence/months")
F_OF_SEQUENCES = [[81.01, 48.41, 113.53], [87.35, 81.11, 103.64], [43.74, 32.36, 80.30]]
DRAWS = 200


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("matrix") / "registry"
    with Registry.init(home) as registry:
        measured_tasks.fill(registry)
    return home


@pytest.fixture(scope="module")
def registry(home: Path) -> Iterator[Registry]:
    with Registry.open(home) as registry:
        yield registry


@pytest.fixture(scope="module")
def published_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("published") / "registry"
    with Registry.init(home) as registry:
        load(registry)
    return home


@pytest.fixture(scope="module")
def matrix(registry: Registry) -> CircuitMatrix:
    return circuit_matrix(registry, FOUR_TASKS, draws=DRAWS, seed=3)


@pytest.fixture(scope="module")
def published(published_home: Path) -> CircuitMatrix:
    with Registry.open(published_home) as registry:
        return circuit_matrix(registry, SEQUENCES)


def circuits_on_disk(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry", "--home", home, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def documents(registry: Registry, found: CircuitMatrix) -> dict[str, Circuit]:
    return {id: registry.document(id) for id in found.circuits}


# -- what published circuits of three sequences say ------------------------------------------------


def test_published_sequence_circuits_overlap_as_their_paper_says(published: CircuitMatrix) -> None:
    heads = [(row["n_shared_heads"], round(row["iou_heads"], 2)) for row in published.rows()]
    assert heads == [(13, 0.65), (8, 0.42), (9, 0.39)]
    assert published.of == "components"
    assert {row["of"] for row in published.rows()} == {"components"}


def test_heads_of_all_three_sequences_come_out_of_the_pairs(published: CircuitMatrix) -> None:
    shared = frozenset.intersection(
        *(pair.comparison.shared_components for pair in published.pairs)
    )
    assert {name for name in shared if ".h" in name} == {
        "a0.h1", "a4.h4", "a6.h1", "a6.h6", "a6.h10", "a7.h11", "a8.h8", "a9.h1"
    }  # fmt: skip


def test_published_transfer_is_in_percent_of_the_metric(published: CircuitMatrix) -> None:
    assert published.measure == "F"
    values = published.transferred().to_numpy().tolist()
    assert [[round(value, 2) for value in row] for row in values] == F_OF_SEQUENCES
    titles = [text.get_text() for text in published.plot().texts]
    assert any("percent" in title for title in titles)
    assert published.transferred(random=True).isna().to_numpy().all()


# -- one circuit a task ----------------------------------------------------------------------------


def test_every_two_circuits_are_a_pair(registry: Registry, matrix: CircuitMatrix) -> None:
    assert matrix.tasks == FOUR_TASKS
    rows = matrix.rows().to_dicts()
    assert [(row["task_a"], row["task_b"]) for row in rows] == [*combinations(FOUR_TASKS, 2)]
    found = documents(registry, matrix)
    for row in rows:
        a, b = (
            {edge.connection for edge in found[row[c]].edges} for c in ("circuit_a", "circuit_b")
        )
        assert row["of"] == "connections"
        assert row["n_shared"] == len(a & b)
        assert row["iou"] == pytest.approx(len(a & b) / len(a | b))


def test_a_pair_of_the_matrix_is_the_same_as_compared_alone(
    registry: Registry, matrix: CircuitMatrix
) -> None:
    for pair in matrix.pairs:
        alone = compare_circuits(
            registry, pair.circuit_a.id, pair.circuit_b.id, draws=DRAWS, seed=3
        )
        assert (alone.by_degrees, alone.by_layers) == (pair.by_degrees, pair.by_layers)
        assert pair.p is not None
        assert pair.q is not None
        assert pair.q >= pair.p


def test_z_is_that_of_the_null_which_leaves_least_and_p_the_largest(matrix: CircuitMatrix) -> None:
    for pair, row in zip(matrix.pairs, matrix.rows(), strict=True):
        nulls = [pair.by_degrees, pair.by_hubs, pair.by_layers]
        known = [one for one in nulls if one is not None]
        assert len(known) == 3
        assert row["z"] == min(one.z for one in known if one.z is not None)
        assert row["expected"] in [one.expected for one in known if one.z == row["z"]]
        assert row["p"] == max(one.p for one in known)


def test_transfer_is_what_was_measured_beside_random_circuits(
    registry: Registry, matrix: CircuitMatrix
) -> None:
    by_task = {task: ids[0] for task, ids in matrix.chosen.by_task.items()}
    measured = {
        (one.circuit, one.task): one.value
        for one in registry.ledger.evaluations()
        if one.measure == "faithfulness"
    }
    for row in matrix.rows():
        for way, circuit, task in (
            ("ab", row["circuit_a"], row["task_b"]), ("ba", row["circuit_b"], row["task_a"])
        ):  # fmt: skip
            assert row[f"transfer_{way}"] == measured.get((circuit, task))
            assert row[f"random_{way}"] == (0.05 if (circuit, task) in measured else None)
    values = matrix.transferred()
    assert values.loc[by_task["ioi"], "ioi"] == measured[by_task["ioi"], "ioi"]
    assert matrix.measure == "faithfulness"


def test_what_was_not_measured_is_missing_and_no_zero(matrix: CircuitMatrix) -> None:
    found_on, task = NOT_MEASURED
    (circuit,) = matrix.chosen.by_task[found_on]
    assert matrix.transfer(circuit, task) is None
    assert bool(matrix.transferred().isna().loc[circuit, task])
    (row,) = (row for row in matrix.rows() if (row["circuit_a"], row["task_b"]) == (circuit, task))
    assert row["transfer_ab"] is None


def test_the_diagonal_is_what_circuits_of_other_prompts_share(
    registry: Registry, matrix: CircuitMatrix
) -> None:
    overlap = matrix.overlap()
    for task, (id,) in matrix.chosen.by_task.items():
        first, second = (
            {edge.connection for edge in registry.document(entry.id).edges}
            for entry in registry.circuits(task=task)
            if entry.task == task
        )
        assert overlap.loc[id, id] == pytest.approx(len(first & second) / len(first | second))
    assert matrix.overlap("heads").isna().to_numpy().diagonal().all()
    assert matrix.beyond_chance().isna().to_numpy().diagonal().all()


def test_tables_read_the_same_from_either_side(matrix: CircuitMatrix) -> None:
    for frame in (matrix.overlap(), matrix.overlap("components"), matrix.beyond_chance()):
        assert frame.equals(frame.T)


def test_tasks_of_a_family_share_more_than_chance_and_lie_side_by_side(
    matrix: CircuitMatrix,
) -> None:
    rows = {(row["task_a"], row["task_b"]): row for row in matrix.rows()}
    akin = rows["sequence/numerals", "sequence/number-words"]
    strange = rows["ioi", "capitals"]
    assert akin["q"] < 0.05 < strange["q"]
    assert akin["z"] > 5
    order = [matrix.labels[id] for id in matrix.order()]
    assert abs(order.index("sequence/numerals") - order.index("sequence/number-words")) == 1
    assert sorted(order) == sorted(FOUR_TASKS)


def test_equal_seeds_give_equal_numbers_and_pictures(
    registry: Registry, matrix: CircuitMatrix
) -> None:
    again = circuit_matrix(registry, FOUR_TASKS, draws=DRAWS, seed=3)
    assert again.rows() == matrix.rows()
    assert again.linkage() == matrix.linkage()
    other = circuit_matrix(registry, FOUR_TASKS, draws=DRAWS, seed=4)
    assert [row["expected"] for row in other.rows()] != [row["expected"] for row in matrix.rows()]


def test_without_draws_there_is_no_chance(registry: Registry) -> None:
    found = circuit_matrix(registry, FOUR_TASKS, draws=0)
    assert all(row["z"] is None and row["q"] is None for row in found.rows())
    assert found.beyond_chance().isna().to_numpy().all()
    assert len(found.plot().axes) == 4


def test_the_frame_holds_the_rows(matrix: CircuitMatrix) -> None:
    frame = matrix.to_frame()
    assert tuple(frame.columns) == matrix.rows().columns
    assert len(frame) == 6


# -- several circuits a task, and what cannot be ---------------------------------------------------


def test_all_circuits_are_rows_of_their_own(registry: Registry) -> None:
    found = circuit_matrix(registry, ["ioi", "capitals"], circuits="all", draws=0)
    assert len(found.circuits) == 4
    assert len(found.pairs) == 6
    assert len(set(found.labels.values())) == 4
    assert all(found.labels[id].startswith(("ioi ", "capitals ")) for id in found.circuits)
    assert found.transferred().shape == (4, 2)
    own = [pair for pair in found.pairs if pair.circuit_a.task == pair.circuit_b.task]
    assert len(own) == 2
    assert all(
        found.overlap().loc[pair.circuit_a.id, pair.circuit_a.id] == pair.comparison.connections.iou
        for pair in own
    )


def test_named_circuits_need_no_tasks(registry: Registry, matrix: CircuitMatrix) -> None:
    named = [id[:10] for id in matrix.circuits[:2]]
    found = circuit_matrix(registry, [], circuits=named, draws=0)
    assert found.circuits == matrix.circuits[:2]
    assert found.linkage()[0][2] == pytest.approx(1 - (found.rows().to_dicts()[0]["iou"]))


def test_progress_counts_pairs(registry: Registry) -> None:
    seen: list[tuple[int, int]] = []
    circuit_matrix(
        registry, FOUR_TASKS, draws=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_single_circuit_is_no_matrix(registry: Registry, matrix: CircuitMatrix) -> None:
    with pytest.raises(BadInput, match="a matrix compares from 2 to 100 circuits, got 1"):
        circuit_matrix(registry, [], circuits=[matrix.circuits[0]])
    with pytest.raises(NotFound, match="no task 'nope'"):
        circuit_matrix(registry, ["ioi", "nope"])


# -- the picture -----------------------------------------------------------------------------------


def test_the_picture_names_tasks_and_marks_what_is_not_known(matrix: CircuitMatrix) -> None:
    figure = matrix.plot()
    overlap, beyond, transfer, tree = figure.axes
    labels = [label.get_text() for label in overlap.get_yticklabels()]
    assert labels == [matrix.labels[id] for id in matrix.order()]
    assert [label.get_text() for label in transfer.get_xticklabels()] == labels
    hatched = [patch for patch in transfer.patches if patch.get_hatch()]
    assert len(hatched) == int(matrix.transferred().isna().to_numpy().sum())
    assert not [patch for patch in beyond.patches if patch.get_hatch()]
    assert len(tree.lines) == len(matrix.circuits) - 1
    written = [text.get_text() for text in transfer.texts]
    assert all("\n0.05" in text for text in written if text)
    assert sum(bool(text) for text in written) == 16 - len(hatched)


# -- the command -----------------------------------------------------------------------------------


def asked(*more: str) -> tuple[str, ...]:
    return ("matrix", "--task", ",".join(FOUR_TASKS), "--draws", "20", *more)


def test_the_command_shows_circuits_pairs_transfer_and_ceiling(home: Path) -> None:
    ran = circuits_on_disk(home, *asked("--format", "json"))
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, list[dict[str, Any]]] = json.loads(ran.stdout)
    assert list(answer) == ["circuits", "pairs", "transfer", "ceiling"]
    assert [row["task"] for row in answer["circuits"]] == list(FOUR_TASKS)
    assert len(answer["pairs"]) == 6
    assert {row["n_circuits"] for row in answer["ceiling"]} == {2}
    table = circuits_on_disk(home, *asked())
    assert "transfer_ab" in table.stdout
    rows = list(
        csv.DictReader(io.StringIO(circuits_on_disk(home, *asked("--format", "csv")).stdout))
    )
    assert rows[0].keys() == answer["pairs"][0].keys()


@pytest.mark.parametrize(
    ("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_the_command_draws_the_same_file_twice(
    home: Path, tmp_path: Path, suffix: str, start: bytes
) -> None:
    files = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
    for file in files:
        ran = circuits_on_disk(home, *asked("--out", str(file)))
        assert ran.returncode == 0, ran.stderr
        assert f"drawn to {file}" in ran.stderr
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(start)
    assert first == second


def test_the_command_says_what_makes_a_comparison_less_than_sound(published_home: Path) -> None:
    ran = circuits_on_disk(published_home, "matrix", "--task", ",".join(SEQUENCES))
    assert ran.returncode == 0
    assert "note: there is no size at which" in ran.stderr
    assert "warning: sign: unknown in both" in ran.stderr
    assert "(all pairs)" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "ioi"], "matrix needs two or more tasks, got 1"),
        ([], "matrix needs two or more tasks, got 0"),
        (["--task", "ioi,nope"], "no task 'nope'"),
        (["--task", "ioi,capitals", "--circuits", ""], "--circuits must be best, all, or ids"),
        (["--task", "ioi,capitals", "--out", "a.gif"], "name a file that ends in .svg"),
    ],
)
def test_bad_input_to_the_command_is_one_line(
    home: Path, arguments: list[str], message: str
) -> None:
    ran = circuits_on_disk(home, "matrix", *arguments)
    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
