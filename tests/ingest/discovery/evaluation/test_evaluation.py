from __future__ import annotations

import pytest
import torch

from ingest.discovery import CircuitEvaluation, attribute_edges, evaluate_circuit, prepare_setting
from registry.errors import BadInput, NonFiniteScores
from tests.ingest.discovery.decoders import ALL, N_PROMPTS, bridge, clean_ids, corrupt_ids, metric

MODELS = sorted(ALL)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_no_edges_give_the_corrupt_run_and_all_edges_the_clean_one(name: str) -> None:
    model = bridge(name)
    scores = attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), metric()))
    nothing = evaluate_circuit(prepare_setting(model, clean_ids(), corrupt_ids(), metric()), [])
    every = evaluate_circuit(
        prepare_setting(model, clean_ids(), corrupt_ids(), metric()), scores.to_dict()
    )
    assert scores.corrupt_metric is not None
    close(nothing.circuit, scores.corrupt_metric)
    close(every.circuit, scores.clean_metric)
    for found in (nothing, every):
        close(found.empty, scores.corrupt_metric)
        close(found.full, scores.clean_metric)
    assert nothing.faithfulness == pytest.approx(0, abs=1e-4)
    assert every.faithfulness == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_pruned_edges_change_nothing(name: str) -> None:
    model = bridge(name)
    scores = attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), metric()))
    circuits = [scores.top(n) for n in range(2, scores.space.n_edges)]
    pruned = max((c for c in circuits if c.edges), key=lambda circuit: circuit.n_pruned)
    by_size = sorted(scores.to_dict().items(), key=lambda item: -abs(item[1]))
    ranked = [edge for edge, _ in by_size[: pruned.n_selected]]
    kept = [edge.id for edge in pruned.edges]
    assert set(kept) < set(ranked)
    whole = evaluate_circuit(prepare_setting(model, clean_ids(), corrupt_ids(), metric()), ranked)
    close(
        evaluate_circuit(
            prepare_setting(model, clean_ids(), corrupt_ids(), metric()), kept
        ).circuit,
        whole.circuit,
    )


def test_padding_order_and_batch_size_change_nothing() -> None:
    model = bridge("llama")
    scores = attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), metric()))
    edges = [edge.id for edge in scores.top(40).edges]
    plain = evaluate_circuit(prepare_setting(model, clean_ids(), corrupt_ids(), metric()), edges)
    pad = torch.ones(N_PROMPTS, 2, dtype=torch.long)
    mask = torch.cat([0 * pad, torch.ones_like(clean_ids()), 0 * pad], 1)
    padded = evaluate_circuit(
        prepare_setting(
            model,
            torch.cat([pad, clean_ids(), pad], 1),
            torch.cat([pad, corrupt_ids(), pad], 1),
            metric(),
            attention_mask=mask,
            batch_size=1,
        ),
        reversed(edges),
    )
    close(padded.circuit, plain.circuit)
    assert float((plain.circuit - plain.full).abs().max()) > 0.01


def test_progress_counts_prompts() -> None:
    seen: list[tuple[int, int]] = []
    evaluate_circuit(
        prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), metric(), batch_size=2),
        [],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, N_PROMPTS), (N_PROMPTS, N_PROMPTS)]


def test_an_edge_of_another_model_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"'input->a7\.h0<q>' is not an edge of a model with 2 layers"
    ):
        evaluate_circuit(
            prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), metric()),
            ["input->a7.h0<q>"],
        )


def test_a_prompt_whose_metric_is_not_finite_is_named() -> None:
    factors = torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(NonFiniteScores, match="prompt 1"):
        evaluate_circuit(
            prepare_setting(
                bridge("gpt2"),
                clean_ids(),
                corrupt_ids(),
                lambda logits, index: logits[:, 0] * factors[index],
            ),
            [],
        )


def test_faithfulness_is_the_share_of_the_gap_between_the_means() -> None:
    found = CircuitEvaluation(
        circuit=torch.tensor([1.0, 2.0]),
        empty=torch.tensor([0.0, 0.0]),
        full=torch.tensor([4, 2.0]),
    )
    assert found.faithfulness == pytest.approx(0.5)


def test_faithfulness_is_unknown_where_corruption_costs_nothing() -> None:
    same = torch.tensor([1.0, 2.0])
    assert CircuitEvaluation(circuit=same * 3, empty=same, full=same).faithfulness is None
