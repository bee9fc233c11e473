"""The job ``edge-attribution``: score every edge, keep the best, measure the circuit.

One model, one task. The prompts that the model answers correctly are kept. Every edge is scored on
them (:func:`ingest.discovery.attribute_edges`), and the best edges form the circuit. Its
faithfulness is measured on the same prompts with all other edges ablated. Effects are logit
differences, correct answer minus wrong answer; positive helps. Equal configurations give equal
circuits.

With several seeds this is repeated for each seed on new prompts, and with a bootstrap on resamples
of the prompts; :mod:`ingest.jobs.edge_attribution.consensus` describes the records. Seeds that drew
the same pairs of prompts count as one in the consensus. It is always one run, so a stopped run
leaves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.discovery.edges.origin import VERSION
from ingest.jobs.base import Finding
from ingest.jobs.edge_attribution.configuration import EdgeAttributionConfiguration
from ingest.jobs.edge_attribution.consensus import agree, resampled
from ingest.jobs.edge_attribution.findings import Findings
from ingest.jobs.edge_attribution.search import Found, Prepared, n_edges, search
from ingest.jobs.places import LoadModel, load_place
from ingest.jobs.progress import Progress
from ingest.jobs.prompts import (
    check_prompts,
    keep_prompts,
    opening_tokens,
    prompt_source,
    read_reference,
)
from ingest.jobs.shared_pairs import SharedPairs, shared_pairs
from ingest.models.names import locate
from ingest.tasks.prompts import KeptPrompts
from registry.records import Model

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["JOB", "EdgeAttribution", "EdgeAttributionConfiguration", "ReadModel", "read_model"]

log = logging.getLogger(__name__)


class EdgeAttribution:
    r"""Find a circuit by attribution patching of every edge.

    Keeps the prompts that the model answers correctly, scores every edge on them, keeps the best
    edges, and measures the circuit's faithfulness with all other edges ablated.

    \b
    circuits discover edge-attribution --model smollm2 --task ioi
    circuits discover edge-attribution --model smollm2 --task sequence/months --edges 500
    circuits discover edge-attribution --model smollm2 --task ioi --method eap-ig-inputs --share 1%
    circuits discover edge-attribution --model gpt2 --task ioi --faithfulness 0.85 --seeds 5
    circuits discover edge-attribution --model gpt2 --task ioi --curve --completeness --controls 50
    circuits discover edge-attribution --model gpt2 --file greetings.jsonl --tag draft
    """

    name = "edge-attribution"
    version = VERSION
    Configuration = EdgeAttributionConfiguration

    def __init__(self, load: LoadModel = load_place) -> None:
        self._load = load

    def prepare(
        self,
        configuration: EdgeAttributionConfiguration,
        registry: Registry,  # noqa: ARG002
        progress: Progress,
    ) -> Prepared:
        """Read the task or file and the model, and check that they fit together.

        Raises:
            BadInput, NotFound: The task, the file, the model or a number is wrong.
            MissingExtra: torch and the packages that load models are not installed.
        """
        source = prompt_source(configuration)
        read = read_model(configuration, self._load, progress)
        reference = None
        if configuration.reference is not None:
            reference = read_reference(
                read.bridge,
                configuration.reference,
                source.slug,
                model=read.model.slug,
                opening=read.opening,
            )
        check_prompts(read.bridge, source, configuration.seed, read.opening)
        return Prepared(
            configuration=configuration,
            source=source,
            bridge=read.bridge,
            model=read.model,
            opening=read.opening,
            n_edges=read.n_edges,
            universe_size=read.universe_size,
            reference=reference,
        )

    def device(self, prepared: Prepared) -> str:
        """Return the device of the model."""
        from ingest.jobs.answering import device_name

        return device_name(prepared.bridge)

    def compute(self, prepared: Prepared, progress: Progress) -> Finding:
        """Find the circuit, or several and their consensus, and measure them.

        Raises:
            TooFewPrompts: The model answers too few prompts correctly.
            BadInput: The best edges do not connect the model's input to its output, none reaches
                the threshold, or no circuit has the requested faithfulness.
            UnsupportedModel, NonFiniteScores: Raised by the algorithms.
        """
        configuration = prepared.configuration
        drawn = _draw_all(prepared, progress)
        texts = {seed: kept.texts for seed, kept in drawn.items()}
        shared = shared_pairs(prepared.source.slug, texts)
        findings = Findings(prepared, _warned(shared))
        found = _search_all(prepared, drawn, progress)
        for each in found:
            findings.add_circuit(each, progress)
        places = [list(drawn).index(seed) for seed in shared.different]
        if configuration.bootstrap is not None:
            several = resampled(prepared, found[0], progress)
        else:
            several = [(found[place].scores, found[place].chosen) for place in places]
        if len(several) > 1:
            agreement = agree(several, configuration.consensus_share)
            findings.add_consensus(agreement, places, progress)
        return findings.result()


JOB = EdgeAttribution()


@dataclass(frozen=True, eq=False)
class ReadModel:
    """A model that fits the configuration, for any task.

    Attributes:
        bridge: The model, a TransformerLens ``TransformerBridge``.
        opening: Special tokens at the beginning of prompts.
        n_edges: Number of edges to select; None if a threshold or faithfulness decides.
        universe_size: Number of all edges.
    """

    bridge: Any
    model: Model
    opening: tuple[int, ...]
    n_edges: int | None
    universe_size: int


def read_model(
    configuration: EdgeAttributionConfiguration, load: LoadModel, progress: Progress
) -> ReadModel:
    """Load the model, and check that it has the requested BOS token and number of edges.

    Raises:
        BadInput, NotFound, UnsupportedModel: The model or a number is wrong.
        MissingExtra: torch and the packages that load models are not installed.
    """
    place = configuration.place(configuration.model)
    locate(place.name, place.revision)  # before the slow import of torch
    from ingest.models.loading import describe  # reports if torch is not installed

    bridge = load(place, progress)
    from ingest.discovery.model.anatomy import read_anatomy

    universe_size = read_anatomy(bridge, configuration.kv_heads).space.n_edges
    return ReadModel(
        bridge=bridge,
        model=describe(bridge),
        opening=opening_tokens(bridge, configuration.bos),
        n_edges=n_edges(configuration, universe_size),
        universe_size=universe_size,
    )


def _draw_all(prepared: Prepared, progress: Progress) -> dict[int, KeptPrompts]:
    """Draw the prompts of every seed before any search, so that too few end the run early."""
    first, n_seeds = prepared.configuration.seed, prepared.configuration.seeds
    drawn = {}
    for seed in range(first, first + n_seeds):
        progress.stage(f"drawing prompts of {prepared.source.slug}{_which(seed, n_seeds)}")
        drawn[seed] = keep_prompts(
            prepared.bridge,
            prepared.source,
            prepared.configuration,
            model=prepared.model.slug,
            opening=prepared.opening,
            seed=seed,
        )
    return drawn


def _warned(shared: SharedPairs) -> tuple[str, ...]:
    """Warn if seeds drew pairs in common, and return this as a note."""
    said = shared.in_words
    if said is None:
        return ()
    note = said if len(shared.different) > 1 else f"{said}, so there is no consensus"
    log.warning("%s", note)
    return (note,)


def _search_all(
    prepared: Prepared, drawn: Mapping[int, KeptPrompts], progress: Progress
) -> list[Found]:
    """Find one circuit per seed."""
    return [
        search(prepared, kept, progress, _which(seed, len(drawn))) for seed, kept in drawn.items()
    ]


def _which(seed: int, n_seeds: int) -> str:
    return f" (seed {seed})" if n_seeds > 1 else ""
