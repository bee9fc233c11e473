"""One circuit on one set of prompts: score every edge, choose the best, measure what they keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.jobs.edge_configuration import EdgeAttributionConfiguration
from ingest.jobs.fields import DEFAULT_SHARE
from ingest.jobs.progress import Progress, Report
from ingest.tasks.base import PromptSource
from ingest.tasks.prompts import KeptPrompts
from ingest.tasks.user_file import PromptFile
from registry.errors import BadInput
from registry.records import Model

if TYPE_CHECKING:
    from ingest.discovery import CircuitEvaluation, EdgeScores, PrunedCircuit
    from ingest.discovery.edge_attribution import BatchObserver
    from ingest.discovery.options import EvaluationOptions
    from ingest.jobs.answering import PromptTensors

__all__ = ["Found", "Prepared", "choose_edges", "measure", "n_edges", "options", "score", "search"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Input that was read and found right.

    Attributes:
        bridge: The model, a TransformerLens ``TransformerBridge``.
        opening: Special tokens that prompts begin with.
        n_edges: How many to choose; None where a threshold or faithfulness decides.
        universe_size: How many there are.
        reference: A file of prompts for the mean, and the prompts; None for their own mean.
    """

    configuration: EdgeAttributionConfiguration
    source: PromptSource
    bridge: Any
    model: Model
    opening: tuple[int, ...]
    n_edges: int | None
    universe_size: int
    reference: tuple[PromptFile, KeptPrompts] | None


@dataclass(frozen=True, eq=False)
class Found:
    """A circuit found on one set of prompts.

    Attributes:
        tried: Sizes that a search for faithfulness measured, with what each kept; else empty.
    """

    kept: KeptPrompts
    scores: EdgeScores
    chosen: PrunedCircuit
    measured: CircuitEvaluation
    tried: tuple[tuple[int, float], ...] = ()


def n_edges(configuration: EdgeAttributionConfiguration, universe_size: int) -> int | None:
    """How many edges are asked for; None where a threshold or faithfulness decides.

    Raises:
        BadInput: More than there are.
    """
    if configuration.threshold is not None or configuration.faithfulness is not None:
        return None
    if configuration.edges is None:
        share = DEFAULT_SHARE if configuration.share is None else configuration.share
        return max(1, round(share * universe_size))
    if configuration.edges > universe_size:
        raise BadInput(
            f"{configuration.edges} edges are asked for and the model has {universe_size}"
        )
    return configuration.edges


def search(prepared: Prepared, kept: KeptPrompts, progress: Progress, which: str = "") -> Found:
    """Score every edge on some prompts, choose the best and measure their faithfulness.

    Args:
        prepared: The model and what is asked for.
        kept: The prompts.
        progress: Who is told.
        which: Says in its stages which of several circuits this is.

    Raises:
        BadInput: The best edges join input and output nowhere, or none are good enough.
        UnsupportedModel, NonFiniteScores: From the algorithms.
    """
    from ingest.jobs.answering import as_tensors

    prompts, on = as_tensors(kept.pairs), f"{prepared.source.slug}{which}"
    scores = score(prepared, prompts, progress, f"scoring edges on {on}")
    if prepared.configuration.faithfulness is not None:
        return _search_faithful(prepared, kept, prompts, scores, progress, on)
    chosen = choose_edges(prepared, scores)
    if not chosen.edges:
        raise BadInput(
            f"none of the best {chosen.n_selected} edges lies on a path from the model's input "
            "to its output; ask for more edges"
        )
    stage = f"measuring faithfulness on {on}"
    return Found(kept, scores, chosen, measure(prepared, prompts, chosen, progress, stage))


def score(
    prepared: Prepared,
    prompts: PromptTensors,
    progress: Progress,
    stage: str,
    *,
    on_prompt: BatchObserver | None = None,
) -> EdgeScores:
    """Score every edge by the method asked for; with ``on_prompt``, prompt by prompt."""
    from ingest.discovery import attribute_edges

    configuration = prepared.configuration
    told = options(prepared, prompts, progress.stage(stage))
    if on_prompt is not None:
        told["batch_size"] = 1
    return attribute_edges(
        prepared.bridge,
        prompts.clean,
        prompts.corrupt,
        prompts.logit_difference,
        method=configuration.method,
        steps=configuration.n_steps,
        on_batch=on_prompt,
        **told,
    )


def choose_edges(prepared: Prepared, scores: EdgeScores, n: int | None = None) -> PrunedCircuit:
    """The best edges by the rule asked for; ``n`` overrides how many. May come out empty."""
    configuration = prepared.configuration
    size = prepared.n_edges if n is None else n
    if size is None:
        threshold = configuration.threshold
        if threshold is None:
            raise BadInput("how many edges a faithfulness takes is known only once it is measured")
        return scores.threshold(threshold, by=configuration.select)
    choose = scores.greedy if configuration.choose == "greedy" else scores.top
    return choose(size, by=configuration.select)


def measure(
    prepared: Prepared,
    prompts: PromptTensors,
    chosen: PrunedCircuit,
    progress: Progress,
    stage: str,
) -> CircuitEvaluation:
    """Measure a circuit with all other edges ablated."""
    from ingest.discovery import evaluate_circuit

    return evaluate_circuit(
        prepared.bridge,
        [edge.id for edge in chosen.edges],
        prompts.clean,
        prompts.corrupt,
        prompts.logit_difference,
        **options(prepared, prompts, progress.stage(stage)),
    )


def options(prepared: Prepared, prompts: PromptTensors, report: Report) -> EvaluationOptions:
    """What all algorithms are told alike on these prompts; ``report`` is told how far they are."""
    from ingest.jobs.answering import as_tensors

    configuration = prepared.configuration
    told: EvaluationOptions = {
        "ablation": configuration.ablation,
        "kv_heads": configuration.kv_heads,
        "batch_size": configuration.batch_size,
        "attention_mask": prompts.attention_mask,
        "progress": report,
    }
    if configuration.ablation == "mean":
        others = prepared.reference
        mean_of = prompts if others is None else as_tensors(others[1].pairs)
        told["reference"], told["reference_mask"] = mean_of.clean, mean_of.attention_mask
    return told


def _search_faithful(
    prepared: Prepared,
    kept: KeptPrompts,
    prompts: PromptTensors,
    scores: EdgeScores,
    progress: Progress,
    on: str,
) -> Found:
    from ingest.discovery.selecting import find_faithful

    def measured(chosen: PrunedCircuit) -> CircuitEvaluation:
        stage = f"measuring {len(chosen.edges)} edges on {on}"
        return measure(prepared, prompts, chosen, progress, stage)

    found = find_faithful(
        prepared.universe_size,
        prepared.configuration.faithfulness or 0.0,
        lambda n: choose_edges(prepared, scores, n),
        measured,
    )
    return Found(kept, scores, found.chosen, found.measured, found.tried)
