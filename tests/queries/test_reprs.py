"""Results of comparisons, and rows, show themselves in one short line, however large they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from queries.answers.compare import compare_circuits
from queries.answers.diff import differences
from queries.answers.matrix import circuit_matrix
from queries.answers.reuse import reuse
from queries.answers.shared.subgraph import shared_subgraph
from queries.answers.stability import stability
from queries.answers.usage import nearest_circuits, where_used
from queries.circuits.choosing import choose_circuits
from queries.report.gathering import gather_report
from registry import Registry
from tests import examples

pytestmark = pytest.mark.seconds

TASKS = [task.slug for task in examples.TASKS[:2]]
CIRCUITS = [examples.circuit(seed, task=TASKS[seed % 2]) for seed in range(6)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("reprs") / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *CIRCUITS)
        registry.record(examples.faithfulness(CIRCUITS[0], 0.71))
        yield registry


def test_every_result_is_shown_in_a_line(registry: Registry) -> None:
    a, b = CIRCUITS[0].id, CIRCUITS[1].id
    shared = shared_subgraph(registry, TASKS, circuits="all")
    assert shared.unique is not None
    pair = compare_circuits(registry, a, b, draws=5)
    results: list[Any] = [
        choose_circuits(registry, TASKS, circuits="all"),
        pair,
        pair.comparison,
        pair.comparison.folded_a,
        differences(registry, a, b),
        circuit_matrix(registry, TASKS, draws=0),
        gather_report(registry, TASKS, draws=0),
        reuse(registry, TASKS, draws=0),
        shared,
        shared.unique[TASKS[0]],
        *shared.parts[:1],
        stability(registry, TASKS[0]),
        nearest_circuits(registry, a),
        where_used(registry, "gpt2/input"),
        registry.query("where-used", component="gpt2/input"),
        registry.circuit(a),
    ]
    for one in results:
        text = repr(one)
        assert type(one).__name__ in text
        assert "\n" not in text
        assert len(text) < 200, text


def test_a_line_says_what_there_is_to_know(registry: Registry) -> None:
    first = CIRCUITS[0]
    assert repr(registry.circuit(first.id)) == (
        f"<StoredCircuit {first.id[:12]}: ioi in gpt2, {len(first.edges)} edges and"
        f" {len(first.nodes)} nodes, faithfulness 0.71>"
    )
    rows = registry.query("circuits-of-task", task="ioi", model="gpt2")
    assert repr(rows).startswith("<Rows: 3 of circuit, title, model, method, ")
    cut = registry.cypher("MATCH (c:Circuit) RETURN c.id AS id", max_rows=2)
    assert repr(cut) == "<Rows: 2 of id, cut off>"
