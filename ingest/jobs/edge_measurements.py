"""What a circuit is measured by besides its faithfulness, where that is asked for.

The curve over sizes with its two areas, what the model still does without the circuit, and how
faithful random circuits with its degrees are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest.jobs.answering import PromptTensors, as_tensors
from ingest.jobs.edge_records import evaluation, faithfulness
from ingest.jobs.edge_search import Found, Prepared, options
from ingest.jobs.progress import Progress
from registry.records import Circuit, Evaluation, PromptSet

if TYPE_CHECKING:
    from ingest.discovery.controls import RandomComparison
    from ingest.discovery.curve import FaithfulnessCurve

__all__ = ["further_measurements", "random_faithfulness"]


def further_measurements(
    prepared: Prepared, found: Found, circuit: Circuit, progress: Progress
) -> list[Evaluation]:
    """Measure what the configuration asks for; nothing where ablation changes nothing."""
    asked, prompts = prepared.configuration, as_tensors(found.kept.pairs)
    if found.measured.faithfulness is None:
        return []
    evaluations: list[Evaluation] = []
    if asked.curve:
        evaluations += _curve(prepared, found, circuit, prompts, progress)
    if asked.completeness:
        evaluations += _completeness(prepared, found, circuit, prompts, progress)
    if asked.controls is not None:
        evaluations += _controls(prepared, found, circuit, prompts, progress)
    return evaluations


def random_faithfulness(
    circuit: Circuit, compared: RandomComparison, seed: int, *, on: PromptSet | None = None
) -> tuple[Evaluation, ...]:
    """How faithful random circuits with a circuit's degrees are; nothing where that is unknown.

    Args:
        circuit: Whose evaluation it is.
        compared: The circuit beside the random ones.
        seed: What these were drawn with.
        on: The prompts; None for the circuit's own.
    """
    if compared.deciles is None:
        return ()
    n = len(compared.controls)
    about = {
        "deciles": list(compared.deciles),
        "circuits": n,
        "seed": seed,
        "mean_share_of_edges_kept": sum(compared.shares_kept) / n,
    }
    median = compared.deciles[4]
    return (evaluation(circuit, compared.found, "random_faithfulness", median, about, on=on),)


def _curve(
    prepared: Prepared, found: Found, circuit: Circuit, prompts: PromptTensors, progress: Progress
) -> list[Evaluation]:
    from ingest.discovery.curve import faithfulness_curves

    stage = progress.stage(f"measuring the best edges of {circuit.task} over a range of sizes")
    curves = faithfulness_curves(
        prepared.bridge,
        found.scores,
        prompts.clean,
        prompts.corrupt,
        prompts.logit_difference,
        **options(prepared, prompts, stage),
    )
    areas = (
        ("cpr", curves.signed, curves.signed.cpr),
        ("cmd", curves.absolute, curves.absolute.cmd),
    )
    return [
        evaluation(circuit, found.measured, measure, area, _points(curve))
        for measure, curve, area in areas
        if area is not None
    ]


def _points(curve: FaithfulnessCurve) -> dict[str, Any]:
    return {
        "by": curve.by,
        "shares": [point.share for point in curve.points],
        "faithfulness": [point.faithfulness for point in curve.points],
    }


def _completeness(
    prepared: Prepared, found: Found, circuit: Circuit, prompts: PromptTensors, progress: Progress
) -> tuple[Evaluation, ...]:
    from ingest.discovery.curve import evaluate_complement

    stage = progress.stage(f"measuring {circuit.task} without the circuit")
    measured = evaluate_complement(
        prepared.bridge,
        [edge.id for edge in found.chosen.edges],
        prompts.clean,
        prompts.corrupt,
        prompts.logit_difference,
        **options(prepared, prompts, stage),
    )
    return faithfulness(circuit, measured, "completeness", {"edges": "all but the circuit's"})


def _controls(
    prepared: Prepared, found: Found, circuit: Circuit, prompts: PromptTensors, progress: Progress
) -> tuple[Evaluation, ...]:
    from ingest.discovery import compare_with_random

    n, seed = prepared.configuration.controls or 1, prepared.configuration.seed
    stage = progress.stage(f"measuring {n} random circuits on {circuit.task}")
    compared = compare_with_random(
        prepared.bridge,
        [edge.id for edge in found.chosen.edges],
        prompts.clean,
        prompts.corrupt,
        prompts.logit_difference,
        n=n,
        seed=seed,
        **options(prepared, prompts, stage),
    )
    return random_faithfulness(circuit, compared, seed)
