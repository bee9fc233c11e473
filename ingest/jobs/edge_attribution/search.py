"""One circuit on one set of prompts: score every edge, select the best, measure the circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.jobs.edge_attribution.configuration import EdgeAttributionConfiguration
from ingest.jobs.fields import DEFAULT_SHARE
from ingest.jobs.progress import Progress, Report
from ingest.jobs.setting import setting_of
from ingest.tasks.base import PromptSource
from ingest.tasks.prompts import KeptPrompts
from ingest.tasks.user_file import PromptFile
from registry.errors import BadInput
from registry.records import Model

if TYPE_CHECKING:
    from ingest.discovery import CircuitEvaluation, EdgeScores, PrunedCircuit, Setting
    from ingest.discovery.edges.attribution import BatchObserver

__all__ = ["Found", "Prepared", "choose_edges", "n_edges", "score", "search"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Input that was read and checked.

    Attributes:
        bridge: The model, a TransformerLens ``TransformerBridge``.
        opening: Special tokens at the beginning of prompts.
        n_edges: Number of edges to select; None if a threshold or faithfulness decides.
        universe_size: Number of all edges.
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
        setting: These prompts on the model, for all further measurements on them.
        tried: Sizes that a search for faithfulness measured, with the result of each; else empty.
    """

    setting: Setting
    kept: KeptPrompts
    scores: EdgeScores
    chosen: PrunedCircuit
    measured: CircuitEvaluation
    tried: tuple[tuple[int, float], ...] = ()


def n_edges(configuration: EdgeAttributionConfiguration, universe_size: int) -> int | None:
    """Return the requested number of edges; None if a threshold or faithfulness decides.

    Raises:
        BadInput: There are fewer edges.
    """
    if configuration.threshold is not None or configuration.faithfulness is not None:
        return None
    if configuration.edges is None:
        share = DEFAULT_SHARE if configuration.share is None else configuration.share
        return max(1, round(share * universe_size))
    if configuration.edges > universe_size:
        raise BadInput(
            f"{configuration.edges} edges are requested, but the model has {universe_size}"
        )
    return configuration.edges


def search(prepared: Prepared, kept: KeptPrompts, progress: Progress, which: str = "") -> Found:
    """Score every edge on some prompts, select the best and measure their faithfulness.

    Args:
        prepared: The model and the configuration.
        kept: The prompts.
        progress: Receives the progress.
        which: Text for its stages that identifies one of several circuits.

    Raises:
        BadInput: The best edges do not connect input and output, or none is good enough.
        UnsupportedModel, NonFiniteScores: Raised by the algorithms.
    """
    from ingest.discovery import evaluate_circuit

    asked, on = prepared.configuration, f"{prepared.source.slug}{which}"
    report = progress.stage(f"scoring edges on {on}")
    others = prepared.reference
    setting = setting_of(
        prepared.bridge,
        kept.pairs,
        ablation=asked.ablation,
        reference=None if others is None else others[1].pairs,
        kv_heads=asked.kv_heads,
        batch_size=asked.batch_size,
    )
    scores = score(prepared, setting, report)
    if asked.faithfulness is not None:
        return _search_faithful(prepared, setting, kept, scores, progress, on)
    chosen = choose_edges(prepared, scores)
    if not chosen.edges:
        raise BadInput(
            f"none of the best {chosen.n_selected} edges is on a path from the model's input "
            "to its output; choose a larger number of edges"
        )
    report = progress.stage(f"measuring faithfulness on {on}")
    measured = evaluate_circuit(setting, [edge.id for edge in chosen.edges], progress=report)
    return Found(setting, kept, scores, chosen, measured)


def score(
    prepared: Prepared, setting: Setting, report: Report, *, on_batch: BatchObserver | None = None
) -> EdgeScores:
    """Score every edge by the configured method; ``report`` receives the progress."""
    from ingest.discovery import attribute_edges

    asked = prepared.configuration
    return attribute_edges(
        setting, method=asked.method, steps=asked.n_steps, progress=report, on_batch=on_batch
    )


def choose_edges(prepared: Prepared, scores: EdgeScores, n: int | None = None) -> PrunedCircuit:
    """Select the best edges by the configured rule, or the best ``n``. May return no edge."""
    configuration = prepared.configuration
    size = prepared.n_edges if n is None else n
    if size is None:
        threshold = configuration.threshold
        if threshold is None:
            raise BadInput(
                "the number of edges for a faithfulness is known only after measuring it"
            )
        return scores.threshold(threshold, by=configuration.select)
    choose = scores.greedy if configuration.choose == "greedy" else scores.top
    return choose(size, by=configuration.select)


def _search_faithful(
    prepared: Prepared,
    setting: Setting,
    kept: KeptPrompts,
    scores: EdgeScores,
    progress: Progress,
    on: str,
) -> Found:
    from ingest.discovery import evaluate_circuit
    from ingest.discovery.evaluation.smallest import find_faithful

    def measured(chosen: PrunedCircuit) -> CircuitEvaluation:
        report = progress.stage(f"measuring {len(chosen.edges)} edges on {on}")
        return evaluate_circuit(setting, [edge.id for edge in chosen.edges], progress=report)

    found = find_faithful(
        prepared.universe_size,
        prepared.configuration.faithfulness or 0.0,
        lambda n: choose_edges(prepared, scores, n),
        measured,
    )
    return Found(setting, kept, scores, found.chosen, found.measured, found.tried)
