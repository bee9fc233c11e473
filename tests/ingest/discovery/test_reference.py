"""Ours against the reference (EAP-IG) on four tiny models."""

from __future__ import annotations

import pytest
import torch

from ingest.discovery import EdgeScores, attribute_edges, evaluate_circuit
from tests.ingest.discovery import fixtures
from tests.ingest.discovery.fixtures import needs_reference

pytestmark = needs_reference

# The reference takes a head's output before Gemma's norm after attention, but its gradient after
# it, so edges out of heads compare with finite differences through that norm instead.
SCORES = [
    ("gpt2_tiny", "fixed", "scores_eap.json"),
    ("gpt2_tiny", "padded", "scores_padded_eap.json"),
    ("llama_gqa_tiny", "fixed", "scores_eap.json"),
    ("llama_gqa_tiny", "padded", "scores_padded_eap.json"),
    ("neox_tiny", "fixed", "scores_eap.json"),
    ("neox_tiny", "padded", "scores_padded_eap.json"),
    ("gemma2_tiny", "fixed", "scores_eap_through_post_norm_not_from_eapig.json"),
]


def scored(model: str, which: str, batch_size: int | None = None) -> EdgeScores:
    prompts = fixtures.prompts(model, which)
    return attribute_edges(
        fixtures.bridge(model),
        prompts.clean,
        prompts.corrupt,
        prompts.metric,
        attention_mask=prompts.attention_mask,
        batch_size=batch_size,
    )


def assert_agree(ours: dict[str, float], reference: dict[str, float]) -> None:
    assert ours.keys() == reference.keys()
    pair = torch.tensor([[ours[edge], reference[edge]] for edge in reference]).double().T
    assert float(torch.corrcoef(pair)[0, 1]) >= 0.9999
    assert float((pair[0] - pair[1]).abs().max() / pair[1].abs().max()) < 1e-5


@pytest.mark.parametrize(("model", "which", "file"), SCORES)
def test_scores_equal_the_reference(model: str, which: str, file: str) -> None:
    found = scored(model, which)
    assert_agree(found.to_dict(), fixtures.scores(model, file, found.space))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_scores_equal_the_reference_for_any_batch_size(batch_size: int) -> None:
    found = scored("llama_gqa_tiny", "padded", batch_size)
    reference = fixtures.scores("llama_gqa_tiny", "scores_padded_eap.json", found.space)
    assert_agree(found.to_dict(), reference)


@pytest.mark.parametrize("which", ["fixed", "padded"])
def test_edges_not_out_of_heads_equal_the_reference_under_post_norms(which: str) -> None:
    found = scored("gemma2_tiny", which)
    file = "scores_eap.json" if which == "fixed" else "scores_padded_eap.json"
    reference = fixtures.scores("gemma2_tiny", file, found.space)
    ours = found.to_dict()
    assert_agree(*({e: s for e, s in of.items() if e[0] != "a"} for of in (ours, reference)))


@pytest.mark.parametrize("model", fixtures.MODELS)
def test_circuits_keep_what_they_keep_in_the_reference(model: str) -> None:
    bridge = fixtures.multi_head_bridge(model)
    prompts = fixtures.prompts(model, "fixed")
    stored = fixtures.read(model, "circuits.json")
    for circuit in stored["circuits"]:
        found = evaluate_circuit(
            bridge, circuit["edges"], prompts.clean, prompts.corrupt, prompts.metric
        )
        expected = torch.tensor(circuit["metric_per_prompt"], dtype=torch.float64)
        torch.testing.assert_close(found.circuit, expected, atol=1e-4, rtol=0)
        assert found.faithfulness == pytest.approx(circuit["faithfulness"], abs=1e-4)
    for ours, theirs in ((found.full, "baseline_clean"), (found.empty, "baseline_corrupted")):
        expected = torch.tensor(stored[theirs]["metric_per_prompt"], dtype=torch.float64)
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("model", ["gpt2_tiny", "neox_tiny"])
def test_pruning_takes_the_edges_the_reference_takes(model: str) -> None:
    reference = fixtures.read(model, "scores_eap_ig_inputs_5.json")
    space = scored(model, "fixed").space
    matrix = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
    for edge, score in reference.items():
        matrix[space.locate(edge)] = score
    none = torch.zeros(0)
    scores = EdgeScores(matrix, space, none, none)
    for circuit in fixtures.read(model, "circuits.json")["circuits"]:
        if circuit["scores"] != "eap_ig_inputs_5" or circuit["selection"] != "topn":
            continue
        if not circuit["same_edges_with_noise_of_1e-5_of_the_largest_score"]:
            continue
        found = scores.top(circuit["n_selected"], "absolute" if circuit["absolute"] else "signed")
        assert {edge.id for edge in found.edges} == set(circuit["edges"])
        assert {node.id for node in found.nodes} == set(circuit["nodes"])
        assert found.n_pruned == len(circuit["edges_removed_by_pruning"])
