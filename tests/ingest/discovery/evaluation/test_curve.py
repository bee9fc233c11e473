from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingest.discovery import (
    NOMINAL_SIZES,
    CircuitEvaluation,
    CurvePoint,
    EdgeScores,
    FaithfulnessCurve,
    PrunedCircuit,
    attribute_edges,
    complement,
    evaluate_circuit,
    evaluate_complement,
    faithfulness_curve,
    faithfulness_curves,
    prepare_setting,
)
from ingest.discovery.edges.scores import By
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from tests.ingest.discovery.decoders import N_PROMPTS, bridge, clean_ids, corrupt_ids, metric

CHOICES: tuple[By, By] = ("signed", "absolute")
SHAPES = st.builds(
    lambda layers, groups, size, parallel: EdgeSpace(layers, groups * size, groups, parallel),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 2),
    st.booleans(),
)


def evaluation(faithfulness: float, full: float = 1.0) -> CircuitEvaluation:
    circuit, empty, whole = torch.tensor([[faithfulness], [0.0], [full]], dtype=torch.float64)
    return CircuitEvaluation(circuit, empty, whole)


def curve(
    by: By, values: Sequence[float], sizes: Sequence[float] = NOMINAL_SIZES
) -> FaithfulnessCurve:
    circuit = PrunedCircuit((), (), by, 0, 0)
    points = [
        CurvePoint(x, circuit, evaluation(y)) for x, y in zip(sizes, values, strict=True)
    ]  # fmt: skip
    return FaithfulnessCurve(by, tuple(points))


def ids(circuit: PrunedCircuit) -> list[str]:
    return [edge.id for edge in circuit.edges]


def values(found: FaithfulnessCurve) -> list[float | None]:
    return [point.faithfulness for point in found.points]


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return bridge("gpt2")


@pytest.fixture(scope="module")
def scores(gpt2: Any) -> EdgeScores:
    return attribute_edges(
        prepare_setting(gpt2, clean_ids(), corrupt_ids(), metric()), method="eap"
    )


# -- the two areas ---------------------------------------------------------------------------------


def test_areas_begin_at_the_smallest_size_and_not_at_zero() -> None:
    assert curve("signed", [1.0] * 10).cpr == pytest.approx(0.999)
    assert curve("absolute", [1.0] * 10).cmd == pytest.approx(0)
    assert curve("signed", [0.0] * 10).cpr == pytest.approx(0)
    assert curve("absolute", [0.0] * 10).cmd == pytest.approx(0.999)


def test_areas_are_those_of_trapezoids_on_a_linear_axis() -> None:
    sizes = [0.1, 0.2, 1.0]
    assert curve("signed", [0.5, 1.5, 1.0], sizes).cpr == pytest.approx(0.1 * 1 + 0.8 * 1.25)
    assert curve("absolute", [0.5, 1.5, 1.0], sizes).cmd == pytest.approx(0.1 * 0.5 + 0.8 * 0.25)


@given(st.lists(st.floats(-3, 5), min_size=10, max_size=10))
def test_areas_agree_with_numpy(faithfulness: list[float]) -> None:
    x, y = np.array(NOMINAL_SIZES), np.array(faithfulness)
    assert curve("signed", faithfulness).cpr == pytest.approx(np.trapezoid(y, x))
    assert curve("absolute", faithfulness).cmd == pytest.approx(np.trapezoid(abs(1 - y), x))


def test_each_area_is_given_for_its_own_choice_of_edges_alone() -> None:
    assert curve("absolute", [1.0] * 10).cpr is None
    assert curve("signed", [1.0] * 10).cmd is None


def test_areas_are_unknown_where_faithfulness_is() -> None:
    circuit = PrunedCircuit((), (), "signed", 0, 0)
    points = [CurvePoint(x, circuit, evaluation(1, full=0)) for x in (0.5, 1.0)]
    assert FaithfulnessCurve("signed", tuple(points)).cpr is None
    assert FaithfulnessCurve("absolute", tuple(points)).cmd is None


# -- measuring -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", CHOICES)
def test_each_point_is_the_best_edges_measured_alone(gpt2: Any, scores: EdgeScores, by: By) -> None:
    prompts = (clean_ids(), corrupt_ids(), metric())
    found = faithfulness_curve(prepare_setting(gpt2, *prompts), scores, by=by)
    assert [point.share for point in found.points] == list(NOMINAL_SIZES)
    for point in found.points[5:]:
        best = scores.top(int(point.share * scores.space.n_edges), by=by)
        assert point.circuit == best
        alone = evaluate_circuit(prepare_setting(gpt2, *prompts), ids(best))
        torch.testing.assert_close(point.evaluation.circuit, alone.circuit, atol=1e-5, rtol=0)
    assert values(found)[-1] == pytest.approx(1, abs=1e-5)
    assert len({round(value or 0, 3) for value in values(found)}) > 3


def test_sizes_without_an_edge_or_a_path_count_as_the_ablated_run(
    gpt2: Any, scores: EdgeScores
) -> None:
    n_edges = scores.space.n_edges
    sizes = (0.5 / n_edges, 1 / n_edges, 1)
    matrix = scores.matrix.clone()
    matrix[scores.space.locate("m0->m1")] = 1e6
    dangling = EdgeScores(matrix, scores.space, scores.clean_metric, scores.corrupt_metric)
    prompts = (clean_ids(), corrupt_ids(), metric())
    found = faithfulness_curve(prepare_setting(gpt2, *prompts), dangling, by="signed", sizes=sizes)
    assert [point.circuit.n_selected for point in found.points] == [0, 1, n_edges]
    assert [point.circuit.n_pruned for point in found.points] == [0, 1, 0]
    assert values(found) == pytest.approx([0, 0, 1], abs=1e-5)


def test_both_choices_in_one_go_are_those_measured_apart(gpt2: Any, scores: EdgeScores) -> None:
    prompts = (clean_ids(), corrupt_ids(), metric())
    both = faithfulness_curves(prepare_setting(gpt2, *prompts), scores)
    for by, together in zip(CHOICES, (both.signed, both.absolute), strict=True):
        apart = faithfulness_curve(prepare_setting(gpt2, *prompts), scores, by=by)
        assert together.by == by
        assert values(together) == pytest.approx(values(apart), abs=1e-6)
    assert both.signed.cpr is not None
    assert both.absolute.cmd is not None


def test_a_circuit_that_several_sizes_give_is_measured_once(gpt2: Any, scores: EdgeScores) -> None:
    seen: list[tuple[int, int]] = []
    both = faithfulness_curves(
        prepare_setting(gpt2, clean_ids(), corrupt_ids(), metric()),
        scores,
        progress=lambda done, total: seen.append((done, total)),
    )
    points = [*both.signed.points, *both.absolute.points]
    n_distinct = len({frozenset(ids(point.circuit)) for point in points})
    assert n_distinct < len(points)
    assert seen[-1] == (n_distinct * N_PROMPTS, n_distinct * N_PROMPTS)


def test_ablation_is_passed_on(gpt2: Any, scores: EdgeScores) -> None:
    found = faithfulness_curve(
        prepare_setting(gpt2, clean_ids(), None, metric(), ablation="zero"),
        scores,
        by="absolute",
        sizes=(0.3, 1),
    )
    edges = ids(scores.top(int(0.3 * scores.space.n_edges)))
    alone = evaluate_circuit(
        prepare_setting(gpt2, clean_ids(), None, metric(), ablation="zero"), edges
    )
    assert values(found)[0] == pytest.approx(alone.faithfulness, abs=1e-5)


def test_key_value_heads_are_counted_as_they_were_scored() -> None:
    llama = bridge("llama")
    prompts = (clean_ids(), corrupt_ids(), metric())
    for kv_heads in ("grouped", "per-query-head"):
        setting = prepare_setting(llama, *prompts, kv_heads=kv_heads)
        scores = attribute_edges(setting, method="eap")
        found = faithfulness_curve(setting, scores, by="signed", sizes=(0.2, 1))
        edges = ids(scores.top(int(0.2 * scores.space.n_edges), by="signed"))
        alone = evaluate_circuit(prepare_setting(llama, *prompts, kv_heads=kv_heads), edges)
        assert values(found) == pytest.approx([alone.faithfulness, 1], abs=1e-5)


def test_key_value_heads_counted_otherwise_than_scored_are_refused() -> None:
    llama = bridge("llama")
    prompts = (clean_ids(), corrupt_ids(), metric())
    scores = attribute_edges(prepare_setting(llama, *prompts), method="eap")
    with pytest.raises(
        BadInput, match="kv_heads='per-query-head'; give the model and the kv_heads"
    ):
        faithfulness_curve(
            prepare_setting(llama, *prompts, kv_heads="per-query-head"), scores, by="signed"
        )


def test_scores_of_another_model_are_refused(scores: EdgeScores) -> None:
    with pytest.raises(BadInput, match=f"the scores are of {scores.space.n_edges} edges"):
        faithfulness_curves(
            prepare_setting(bridge("neox"), clean_ids(), corrupt_ids(), metric()), scores
        )


@pytest.mark.parametrize(
    "sizes", [(), (1,), (0.5, 0.1), (0.1, 0.1), (0, 1), (0.1, 1.5), (0.1, float("nan"), 1)]
)
def test_sizes_that_give_no_area_are_refused(
    gpt2: Any, scores: EdgeScores, sizes: tuple[float, ...]
) -> None:
    with pytest.raises(BadInput, match="two or more shares of all edges in ascending order"):
        faithfulness_curves(
            prepare_setting(gpt2, clean_ids(), corrupt_ids(), metric()), scores, sizes=sizes
        )


# -- without the circuit ---------------------------------------------------------------------------


@given(SHAPES, st.data())
def test_a_circuit_and_its_complement_are_all_edges(space: EdgeSpace, data: st.DataObject) -> None:
    every = [space.edge_id(*cell) for cell in space.edges()]
    circuit = data.draw(st.lists(st.sampled_from(every)))
    rest = complement(circuit, space)
    assert len(set(rest)) == len(rest)
    assert not set(rest) & set(circuit)
    assert set(rest) | set(circuit) == set(every)


def test_the_complement_of_what_is_no_edge_is_refused() -> None:
    with pytest.raises(BadInput, match="is not an edge"):
        complement(["m1->m0"], EdgeSpace(2, 2, 2))


@pytest.mark.parametrize(("name", "kv_heads"), [("gpt2", "grouped"), ("llama", "per-query-head")])
def test_without_a_circuit_its_edges_alone_are_ablated(name: str, kv_heads: str) -> None:
    model = bridge(name)
    prompts = (clean_ids(), corrupt_ids(), metric())
    scores = attribute_edges(prepare_setting(model, *prompts, kv_heads=kv_heads), method="eap")
    circuit = ids(scores.top(30))
    others = [edge for edge in scores.to_dict() if edge not in circuit]
    found = evaluate_complement(prepare_setting(model, *prompts, kv_heads=kv_heads), circuit)
    expected = evaluate_circuit(prepare_setting(model, *prompts, kv_heads=kv_heads), others)
    torch.testing.assert_close(found.circuit, expected.circuit, atol=1e-5, rtol=0)
    assert found.faithfulness != pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("whole", "expected"), [(True, 0), (False, 1)])
def test_without_all_edges_nothing_is_left_and_without_none_everything(
    gpt2: Any, scores: EdgeScores, whole: bool, expected: float
) -> None:
    circuit = scores.to_dict() if whole else {}
    found = evaluate_complement(
        prepare_setting(gpt2, clean_ids(), corrupt_ids(), metric()), circuit
    )
    assert found.faithfulness == pytest.approx(expected, abs=1e-5)
