"""Optional measurements of a circuit in addition to its faithfulness.

The curve over sizes with its two areas, the model's behaviour without the circuit, and the
faithfulness of random circuits with its degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ingest.jobs.edge_attribution.records import evaluation, faithfulness
from ingest.jobs.edge_attribution.search import Found, Prepared
from ingest.jobs.progress import Progress
from registry.measures import CMD, COMPLETENESS, CPR, RANDOM_FAITHFULNESS
from registry.records import Circuit, Evaluation, PromptSet

if TYPE_CHECKING:
    from ingest.discovery.evaluation.controls import RandomComparison
    from ingest.discovery.evaluation.curve import FaithfulnessCurve

__all__ = ["further_measurements", "random_faithfulness"]


def further_measurements(
    prepared: Prepared, found: Found, circuit: Circuit, progress: Progress
) -> list[Evaluation]:
    """Return the requested measurements; none if ablation changes nothing."""
    asked = prepared.configuration
    if found.measured.faithfulness is None:
        return []
    evaluations: list[Evaluation] = []
    if asked.curve:
        evaluations += _curve(found, circuit, progress)
    if asked.completeness:
        evaluations += _completeness(found, circuit, progress)
    if asked.controls is not None:
        evaluations += _controls(found, circuit, asked.controls, asked.seed, progress)
    return evaluations


def random_faithfulness(
    circuit: Circuit,
    compared: RandomComparison,
    seed: int,
    parameters: Mapping[str, Any] | None = None,
    *,
    on: PromptSet | None = None,
) -> tuple[Evaluation, ...]:
    """Return the faithfulness of random circuits like a circuit; none if unknown.

    They have its degrees, or, without edges, the same number of parts of each kind.

    Args:
        circuit: The circuit of the evaluation.
        compared: The circuit compared with the random circuits.
        seed: Seed of their draw.
        parameters: Further parameters of the evaluation.
        on: The prompts; None for the circuit's own.
    """
    if compared.deciles is None:
        return ()
    n = len(compared.controls)
    drawn = "edges" if circuit.edges else "parts"
    about = {
        **(parameters or {}),
        "deciles": list(compared.deciles),
        "circuits": n,
        "seed": seed,
        f"mean_share_of_{drawn}_kept": sum(compared.shares_kept) / n,
    }
    median = compared.deciles[4]
    measure = RANDOM_FAITHFULNESS.name
    return (evaluation(circuit, compared.found, measure, median, about, on=on),)


def _curve(found: Found, circuit: Circuit, progress: Progress) -> list[Evaluation]:
    from ingest.discovery import faithfulness_curves

    report = progress.stage(f"measuring the best edges of {circuit.task} over a range of sizes")
    curves = faithfulness_curves(found.setting, found.scores, progress=report)
    areas = (
        (CPR.name, curves.signed, curves.signed.cpr),
        (CMD.name, curves.absolute, curves.absolute.cmd),
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


def _completeness(found: Found, circuit: Circuit, progress: Progress) -> tuple[Evaluation, ...]:
    from ingest.discovery import evaluate_complement

    report = progress.stage(f"measuring {circuit.task} without the circuit")
    measured = evaluate_complement(found.setting, _edges(found), progress=report)
    return faithfulness(circuit, measured, COMPLETENESS.name, {"edges": "all but the circuit's"})


def _controls(
    found: Found, circuit: Circuit, n: int, seed: int, progress: Progress
) -> tuple[Evaluation, ...]:
    from ingest.discovery import compare_with_random

    report = progress.stage(f"measuring {n} random circuits on {circuit.task}")
    compared = compare_with_random(found.setting, _edges(found), n=n, seed=seed, progress=report)
    return random_faithfulness(circuit, compared, seed)


def _edges(found: Found) -> list[str]:
    return [edge.id for edge in found.chosen.edges]
