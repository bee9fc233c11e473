"""Edge attribution against circuits that are known because they were compiled."""

from __future__ import annotations

import pytest
import torch

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.discovery.ablation.replacement import Ablation
from tests.ingest.discovery.tracr_models import (
    ABLATIONS,
    PROGRAMS,
    TRACE,
    answer,
    auroc,
    closeness,
    compiled,
    last_logits,
)

pytest.importorskip("tracr", reason="needs the extra tracr, which brings jax")
pytestmark = pytest.mark.seconds

BOTH = pytest.mark.parametrize("name", sorted(PROGRAMS))
UNDER_EACH = pytest.mark.parametrize("ablation", ABLATIONS)
EITHER_WAY = pytest.mark.parametrize("positions_in_input", [False, True])


@BOTH
@EITHER_WAY
def test_the_bridge_gives_the_logits_of_tracr(name: str, positions_in_input: bool) -> None:
    source = compiled(name)
    prompts = source.prompts(positions_in_input=positions_in_input)
    bridge = source.bridge(positions_in_input=positions_in_input)
    for row in range(0, len(prompts.texts), 17):
        text = prompts.texts[row]
        found = bridge(prompts.clean[row : row + 1, : len(text) + 1])[0]
        torch.testing.assert_close(found, source.output(text), atol=1e-4, rtol=0)


def test_reverse_answers_backwards() -> None:
    source = compiled("reverse")
    prompts = source.prompts()
    logits = last_logits(source.bridge(), prompts.clean, prompts.attention_mask)
    words = [source.program.letters[word] for word in logits.argmax(-1).tolist()]
    assert words == [text[0] for text in prompts.texts]
    assert source.decoded("abbc") == list("cbba")


def test_xproportion_answers_with_the_share_of_x() -> None:
    source = compiled("xproportion")
    prompts = source.prompts()
    logits = last_logits(source.bridge(), prompts.clean, prompts.attention_mask)
    shares = [text.count("x") / len(text) for text in prompts.texts]
    assert logits[:, 0].tolist() == pytest.approx(shares, abs=1e-4)
    assert source.decoded("xwx") == pytest.approx([1.0, 1 / 2, 2 / 3], abs=1e-4)


def effects(name: str, ablation: Ablation, *, positions_in_input: bool) -> dict[str, float]:
    """How far ablating each edge moves the output, mean over all prompts."""
    source = compiled(name)
    prompts = source.prompts(positions_in_input=positions_in_input)
    bridge = source.bridge(positions_in_input=positions_in_input)
    return attribute_edges(
        prepare_setting(
            bridge,
            prompts.clean,
            prompts.corrupt if ablation == "resample" else None,
            closeness(bridge, prompts),
            ablation=ablation,
            attention_mask=prompts.attention_mask,
        ),
        method="exact",
    ).to_dict()


def felt(found: dict[str, float]) -> set[str]:
    return {edge for edge, score in found.items() if abs(score) > TRACE}


@BOTH
@UNDER_EACH
def test_exact_finds_the_true_edges_and_no_other(name: str, ablation: Ablation) -> None:
    found, truth = effects(name, ablation, positions_in_input=True), PROGRAMS[name].truth(ablation)
    assert felt(found) == truth
    assert min(found[edge] for edge in truth) > 1e3 * TRACE
    assert auroc(found, truth) == 1.0


@BOTH
def test_another_prompt_of_the_same_length_keeps_positions_wherever_they_are(name: str) -> None:
    apart = effects(name, "resample", positions_in_input=False)
    assert apart == pytest.approx(effects(name, "resample", positions_in_input=True), abs=1e-6)


@BOTH
def test_edges_that_carry_only_positions_go_unfelt_where_positions_stay(name: str) -> None:
    program = PROGRAMS[name]
    found = effects(name, "zero", positions_in_input=False)
    assert felt(found) == program.truth("zero") - program.only_positions


def gradient_scores(name: str) -> dict[str, float]:
    source = compiled(name)
    prompts, bridge = source.prompts(), source.bridge()
    metric = answer(bridge, prompts, "resample")
    mask = prompts.attention_mask
    return attribute_edges(
        prepare_setting(bridge, prompts.clean, prompts.corrupt, metric, attention_mask=mask)
    ).to_dict()


def test_where_tokens_flow_linearly_a_first_order_estimate_finds_the_circuit() -> None:
    found, truth = gradient_scores("reverse"), PROGRAMS["reverse"].truth("resample")
    # The whole way from the corrupt to the clean output, which are different one-hot words.
    assert {edge: found[edge] for edge in truth} == pytest.approx(
        dict.fromkeys(truth, 2.0), abs=1e-4
    )
    assert max(abs(found[edge]) for edge in found.keys() - truth) < 1e-5
    assert auroc(found, truth) == 1.0


def test_kinks_in_the_way_hide_no_edge_from_a_first_order_estimate() -> None:
    found, truth = gradient_scores("xproportion"), PROGRAMS["xproportion"].truth("resample")
    assert auroc(found, truth) == 1.0


def faithfulness(name: str, ablation: Ablation, edges: frozenset[str]) -> float:
    source = compiled(name)
    prompts = source.prompts(positions_in_input=True)
    bridge = source.bridge(positions_in_input=True)
    found = evaluate_circuit(
        prepare_setting(
            bridge,
            prompts.clean,
            prompts.corrupt if ablation == "resample" else None,
            closeness(bridge, prompts),
            ablation=ablation,
            attention_mask=prompts.attention_mask,
        ),
        edges,
    ).faithfulness
    assert found is not None
    return found


@BOTH
@UNDER_EACH
def test_the_true_edges_do_together_what_the_model_does(name: str, ablation: Ablation) -> None:
    truth = PROGRAMS[name].truth(ablation)
    assert faithfulness(name, ablation, truth) == pytest.approx(1.0, abs=TRACE)
    for edge in truth:
        assert faithfulness(name, ablation, truth - {edge}) < 0.95, edge


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": -2.0, "b": 1.0, "c": 0.0}, 1.0),
        ({"a": 0.0, "b": 1.0, "c": 0.0}, 0.25),
        ({"a": 0.0, "b": 0.0, "c": 0.0}, 0.5),
    ],
)
def test_auroc_ranks_by_size_and_halves_ties(scores: dict[str, float], expected: float) -> None:
    assert auroc(scores, {"a"}) == expected
