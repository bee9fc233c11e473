"""Edge scores and evaluations against patching one edge at a time, in float64.

Here too what no reference file covers: every method with Gemma's norms after attention, norms of
queries and keys, active sliding windows, parallel blocks, and ablation by a mean or by zero.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from tests.few import each_once
from tests.ingest.discovery.decoders import ALL, MORE, bridge, clean_ids, corrupt_ids, metric
from tests.ingest.discovery.patcher import Patcher, edges_of, places

pytestmark = pytest.mark.seconds

MODELS = sorted(ALL)
# The bridge computes softmax and RMSNorm of rotary models in float32 even in a float64 model.
STEP = dict.fromkeys([*ALL, *MORE], 3e-3) | {"gpt2": 1e-4, "neox": 1e-4}
TOLERANCE = dict.fromkeys([*ALL, *MORE], 2e-3) | {"gpt2": 1e-7, "neox": 1e-7}
STEPS = 2
ABLATIONS = ["resample", "mean", "zero"]
REFERENCE = torch.arange(2, 22).reshape(4, 5)
"""Prompts whose mean is taken; not of the clean prompts' number and length."""


def written_when(ablation: str, model: Any) -> dict[str, Tensor] | None:
    """What senders write when ablated; None for the corrupt run, which is the patcher's own."""
    if ablation == "resample":
        return None
    found = Patcher(model).written(REFERENCE)
    factor = 1.0 if ablation == "mean" else 0.0
    return {name: factor * value.mean((0, 1), keepdim=True) if value.ndim == 3 else value
            for name, value in found.items()}  # fmt: skip


def patched_runs(method: str, model: Any, ablation: str) -> list[Patcher]:
    """The runs over which a method takes the mean of slopes."""
    ablated = written_when(ablation, model)
    plain = Patcher(model, ablated)
    shares = range(STEPS) if method == "eap-ig-inputs" else range(1, STEPS + 1)
    between = [list(places(model, plain.clean, plain.ablated, k / STEPS)) for k in shares]
    if method == "eap-ig-inputs":
        return [Patcher(model, plain.ablated, at[0]) for at in between]
    if method == "eap-ig-activations":
        return [Patcher(model, plain.ablated, one) for at in between for one in at]
    if method == "clean-corrupted":
        corrupt = plain.written(corrupt_ids())
        at_input = corrupt["input"] + corrupt["positions"]
        return [plain, Patcher(model, None, {"blocks.0.hook_in": at_input})]
    return [plain]


def scored(method: Any, model: Any, ablation: Any, **options: Any) -> Any:
    return attribute_edges(
        prepare_setting(
            model,
            clean_ids(),
            corrupt_ids() if ablation == "resample" else None,
            metric(),
            ablation=ablation,
            reference=REFERENCE if ablation == "mean" else None,
            **options,
        ),
        method=method,
        steps=STEPS,
    )


CASES = [("eap", ablation) for ablation in ABLATIONS]
CASES += [("eap-ig-inputs", "resample"), ("eap-ig-inputs", "mean")]
CASES += [("eap-ig-activations", "resample"), ("eap-ig-activations", "mean")]
CASES += [("clean-corrupted", "resample")]


@pytest.mark.parametrize(
    ("method", "ablation", "name"),
    each_once(CASES, MODELS, "every method with every ablation, every model twice"),
)
def test_scores_are_the_mean_slope_of_patching_each_edge(
    name: str, method: str, ablation: str
) -> None:
    assert_scores_are_slopes(name, method, ablation)


def test_scores_between_zero_and_the_embedding_are_the_mean_slope() -> None:
    # Only where learned positions keep the first norm's input away from 0 in the run that begins
    # with nothing: at 0 a norm is so steep that no finite step finds its slope.
    assert_scores_are_slopes("gpt2", "eap-ig-inputs", "zero")


def assert_scores_are_slopes(name: str, method: str, ablation: str) -> None:
    model = bridge(name, torch.float64)
    scores = scored(method, model, ablation)
    found, step, runs = scores.to_dict(), STEP[name], patched_runs(method, model, ablation)
    every = list(edges_of(scores.space))
    few = every if len(runs) == 1 else every[::4]
    slopes = {
        edge: sum(run.slope(sender, receiver, step) for run in runs) / len(runs)
        for edge, sender, receiver in few
    }
    largest = max(abs(slope) for slope in slopes.values())
    assert largest > 0.003
    for edge, slope in slopes.items():
        assert found[edge] == pytest.approx(slope, abs=TOLERANCE[name] * largest), edge


@pytest.mark.parametrize(
    ("name", "method"), each_once(sorted(MORE), ["eap", "eap-ig-inputs"], "every decoder")
)
def test_scores_of_further_decoders_are_the_mean_slope(name: str, method: str) -> None:
    assert_scores_are_slopes(name, method, "resample")


@pytest.mark.parametrize("name", sorted(MORE))
def test_scores_per_query_head_are_slopes_of_patching_each_copy(name: str) -> None:
    model = bridge(name, torch.float64)
    apart = scored("eap", model, "resample", kv_heads="per-query-head")
    patched = scored("exact", model, "resample", kv_heads="per-query-head")
    every = set(apart.to_dict())
    for edge in sorted(every)[::11]:
        found = evaluate_circuit(
            prepare_setting(model, clean_ids(), corrupt_ids(), metric(), kv_heads="per-query-head"),
            every - {edge},
        )
        taken = float((found.full - found.circuit).mean())
        assert patched.to_dict()[edge] == pytest.approx(taken, abs=2e-6), edge


@pytest.mark.parametrize(
    ("name", "ablation"), each_once(MODELS, ABLATIONS, "every model and every ablation")
)
def test_exact_scores_are_what_patching_an_edge_takes(name: str, ablation: str) -> None:
    model = bridge(name, torch.float64)
    scores = scored("exact", model, ablation)
    found, patcher = scores.to_dict(), Patcher(model, written_when(ablation, model))
    for edge, sender, receiver in list(edges_of(scores.space))[::3]:
        patched = patcher.metric(receiver, patcher.effect(sender, 1.0))
        expected = float((scores.clean_metric - patched).mean())
        assert found[edge] == pytest.approx(expected, abs=2e-6), edge


@pytest.mark.parametrize(
    ("name", "ablation"), each_once(MODELS, ABLATIONS, "every model and every ablation")
)
def test_leaving_one_edge_out_is_patching_that_edge(name: str, ablation: Any) -> None:
    model = bridge(name, torch.float64)
    patcher = Patcher(model, written_when(ablation, model))
    space = scored("eap", model, ablation).space
    every = {edge for edge, _, _ in edges_of(space)}
    for edge, sender, receiver in list(edges_of(space))[::9]:
        found = evaluate_circuit(
            prepare_setting(
                model,
                clean_ids(),
                corrupt_ids() if ablation == "resample" else None,
                metric(),
                ablation=ablation,
                reference=REFERENCE if ablation == "mean" else None,
            ),
            every - {edge},
        )
        expected = patcher.metric(receiver, patcher.effect(sender, 1.0))
        torch.testing.assert_close(found.circuit, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_float64_and_a_float32_model_score_alike(name: str) -> None:
    wide, narrow = (
        scored("eap-ig-inputs", bridge(name, dtype), "resample").matrix
        for dtype in (torch.float64, torch.float32)
    )
    largest = float(wide.abs().max())
    torch.testing.assert_close(narrow, wide, atol=2e-5 * largest, rtol=0)
