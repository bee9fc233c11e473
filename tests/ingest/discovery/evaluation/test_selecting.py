"""The smallest faithful circuit is searched on a grid and refined at its first crossing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from ingest.discovery import (
    CircuitEvaluation,
    PrunedCircuit,
    attribute_edges,
    evaluate_circuit,
    prepare_setting,
)
from ingest.discovery.edges.scores import ScoredEdge
from ingest.discovery.evaluation.smallest import find_faithful, grid_of_sizes
from registry.errors import BadInput
from tests.ingest.discovery.decoders import bridge, clean_ids, corrupt_ids, metric

N_EDGES = 1000


def _choose(n: int) -> PrunedCircuit:
    edges = tuple(ScoredEdge(f"e{at}", "input", "logits", None, 1.0) for at in range(n))
    return PrunedCircuit(edges, (), "absolute", n, 0)


def _keeps(share: Callable[[int], float]) -> Callable[[PrunedCircuit], CircuitEvaluation]:
    def measure(circuit: PrunedCircuit) -> CircuitEvaluation:
        value = torch.tensor([share(len(circuit.edges))], dtype=torch.float64)
        return CircuitEvaluation(value, torch.zeros(1), torch.ones(1))

    return measure


@pytest.mark.parametrize("n_edges", [1, 2, 82, 1000, 70_651, 1_592_881])
def test_the_grid_rises_to_all_edges_without_large_gaps(n_edges: int) -> None:
    grid = grid_of_sizes(n_edges)
    assert list(grid) == sorted(set(grid))
    assert grid[0] == round(max(1, n_edges / 1000))
    assert grid[-1] == n_edges
    for before, after in itertools.pairwise(grid):
        assert after <= before * 2


@pytest.mark.parametrize("needed", [1, 2, 7, 100, 513, 999, 1000])
def test_where_faithfulness_rises_steadily_the_size_is_found_to_five_percent(needed: int) -> None:
    found = find_faithful(N_EDGES, 0.8, _choose, _keeps(lambda n: 0.8 if n >= needed else 0.1))
    assert needed <= len(found.chosen.edges) <= needed * 1.06
    assert found.measured.faithfulness == pytest.approx(0.8)


def test_the_first_crossing_is_taken_where_faithfulness_falls_again() -> None:
    def share(n: int) -> float:
        return 0.9 if 60 <= n < 200 or n >= 700 else 0.2

    found = find_faithful(N_EDGES, 0.85, _choose, _keeps(share))
    assert 60 <= len(found.chosen.edges) <= 63
    sizes = [size for size, _ in found.tried]
    assert sizes == sorted(sizes)
    assert max(sizes) < 200  # nothing beyond the crossing is measured
    assert dict(found.tried)[len(found.chosen.edges)] == pytest.approx(0.9)


def test_circuits_without_edges_are_not_measured_and_not_faithful() -> None:
    def choose(n: int) -> PrunedCircuit:
        return _choose(n) if n > 10 else PrunedCircuit((), (), "absolute", n, n)

    measured: list[int] = []

    def measure(circuit: PrunedCircuit) -> CircuitEvaluation:
        measured.append(len(circuit.edges))
        return _keeps(lambda _: 1.0)(circuit)

    assert len(find_faithful(N_EDGES, 0.5, choose, measure).chosen.edges) == 11
    assert min(measured) == 11


def test_a_target_that_no_size_reaches_ends_with_the_best_that_was_seen() -> None:
    with pytest.raises(BadInput, match=r"keeps 1\.5 of .* best of \d+ sizes keeps 1, with 1000"):
        find_faithful(N_EDGES, 1.5, _choose, _keeps(lambda n: n / N_EDGES))


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_that_is_none_is_refused(target: float) -> None:
    with pytest.raises(BadInput, match="must be above 0"):
        find_faithful(N_EDGES, target, _choose, _keeps(lambda _: 1.0))


def test_a_metric_that_ablation_leaves_alone_is_refused() -> None:
    def measure(circuit: PrunedCircuit) -> CircuitEvaluation:
        return CircuitEvaluation(torch.ones(1), torch.ones(1), torch.ones(1))

    with pytest.raises(BadInput, match="no circuit can be faithful"):
        find_faithful(N_EDGES, 0.8, _choose, measure)


def test_on_a_model_what_is_found_is_as_faithful_as_it_says() -> None:
    model = bridge("llama")
    scores = attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), metric()))

    def measure(circuit: PrunedCircuit) -> CircuitEvaluation:
        edges = [edge.id for edge in circuit.edges]
        return evaluate_circuit(prepare_setting(model, clean_ids(), corrupt_ids(), metric()), edges)

    found = find_faithful(scores.space.n_edges, 0.7, scores.top, measure)
    again = measure(found.chosen)
    assert again.faithfulness == found.measured.faithfulness
    assert again.faithfulness is not None
    assert again.faithfulness >= 0.7
    smaller = [value for size, value in found.tried if size < found.chosen.n_selected]
    assert all(value < 0.7 for value in smaller)
