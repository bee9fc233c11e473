"""Recorded circuits that can be measured together, on one set of prompts of another task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from ingest.jobs.prompts import wanted_split
from ingest.jobs.recorded import find_prompt_set, kept_prompts, measurable_ablation
from ingest.jobs.transfer.rotations import Bases, kept_bases
from ingest.tasks.base import TokenPair
from ingest.tasks.catalogue import all_tasks
from ingest.tasks.prompts import split_of_kept
from ingest.tasks.splits import Split
from registry.canonical import content_hash
from registry.errors import BadInput
from registry.identifiers import Kind, parse_local
from registry.records import Circuit, Evaluation, Level, PromptSet

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["AlikeCircuits", "WantedPrompts", "alike_circuits", "measurement_key"]

T = TypeVar("T")

_LEVELS = (Level.EDGE, Level.NODE, Level.NEURON, Level.SUBSPACE, Level.PARAMETER)
"""Levels of circuits that can be measured as a whole."""
_SENDERS = frozenset({Kind.HEAD, Kind.MLP})
_KEPT = {
    Level.NODE: _SENDERS | {Kind.KV_HEAD},
    Level.NEURON: _SENDERS | {Kind.KV_HEAD, Kind.NEURON},
    Level.SUBSPACE: frozenset({Kind.SUBSPACE}),
    Level.PARAMETER: frozenset({Kind.NORM}),
}
"""Of circuits without edges, by level, what can be kept or ablated as a whole."""
_SHOWN = {
    Level.NODE: "heads, MLPs and key/value heads",
    Level.NEURON: "neurons, heads, MLPs and key/value heads",
    Level.SUBSPACE: "subspaces",
    Level.PARAMETER: "norms",
}
_NEEDED = {
    Level.NODE: (_SENDERS, "head or MLP"),
    Level.NEURON: (frozenset({Kind.NEURON}), "neuron"),
    Level.SUBSPACE: (frozenset({Kind.SUBSPACE}), "subspace"),
    Level.PARAMETER: (frozenset({Kind.NORM}), "norm"),
}
"""Of which kinds one part at least must be named, or everything of the level would be ablated."""
_ENDS = frozenset({Kind.INPUT, Kind.EMBED, Kind.POS_EMBED, Kind.UNEMBED, Kind.LOGITS})
"""What is never ablated in a circuit without edges, named or not."""
_ASKED = ("metric", "reference", "circuits", "seed")
"""Parameters of an evaluation that identify the measurement; the others describe the result."""


class WantedPrompts(Protocol):
    """The requested prompts for measuring circuits: a recorded set, or those of a task."""

    @property
    def task(self) -> str | None:
        """Slug of the task."""

    @property
    def prompt_set(self) -> str | None:
        """Id of the set, instead of a task."""

    @property
    def seed(self) -> int:
        """Seed of the draw of a task's prompts."""

    @property
    def prompts(self) -> int | None:
        """Their number; None for any number."""

    @property
    def split(self) -> str | None:
        """The part of the task's prompts; None for all."""

    @property
    def split_seed(self) -> int | None:
        """Seed of the division; None for 0."""


@dataclass(frozen=True, eq=False)
class AlikeCircuits:
    """Circuits of one model with the same ablation.

    Attributes:
        circuits: At least one.
        reference: Id of the prompts of a file for the mean; None for the measured prompts.
        reference_pairs: These prompts.
        bases: By id of a circuit of subspaces, their directions.
    """

    circuits: tuple[Circuit, ...]
    model: str
    ablation: Literal["resample", "mean", "zero"]
    kv_heads: str
    reference: str | None
    reference_pairs: tuple[TokenPair, ...]
    bases: Mapping[str, Bases]

    def bos(self, registry: Registry) -> bool | None:
        """Return whether the prompts of their discovery begin with BOS; None if unknown.

        Raises:
            BadInput: Some do and some do not.
        """
        kept = {known.id: known.bos for known in registry.ledger.prompt_sets()}
        return _common(
            self.circuits, "BOS policy", lambda circuit: kept.get(circuit.prompt_set or "")
        )

    def kept_prompts(
        self, registry: Registry, wanted: WantedPrompts, bos: bool | None
    ) -> PromptSet | None:
        """Return the requested recorded prompts, the largest set of several; None if missing.

        Raises:
            NotFound, BadInput: The prompt set does not exist, is ambiguous or of another model.
        """
        if wanted.prompt_set is not None:
            found = find_prompt_set(registry, wanted.prompt_set)
            if found.model != self.model:
                raise BadInput(
                    f"prompt set {found.id[:12]} is of {found.model or 'an unknown model'},"
                    f" but the circuits are of {self.model}"
                )
            return found
        # Prompts of a file were drawn with no seed. Without its package, a task's prompts cannot be
        # distinguished from a file's. Those of a reference were never answered.
        seeds = {wanted.seed} if wanted.task in all_tasks() else {wanted.seed, None}
        fitting = [
            known
            for known in registry.ledger.prompt_sets(wanted.task)
            if known.model == self.model
            and known.seed in seeds
            and known.artifact is not None
            and known.share_correct is not None
            and bos in (None, known.bos)
            and wanted.prompts in (None, known.n_prompts)
        ]
        split = wanted_split(wanted)
        ordered = sorted(fitting, key=lambda known: (known.n_prompts, known.id), reverse=True)
        return next((one for one in ordered if _alike_divided(registry, one, split)), None)


def alike_circuits(registry: Registry, circuits: Sequence[Circuit]) -> AlikeCircuits:
    """Combine circuits for one run.

    Raises:
        BadInput: A circuit cannot be measured again, or two differ in a setting that a run has
            once; the text names two such circuits.
    """
    for circuit in circuits:
        _require_measurable(circuit)
    kept = {known.id for known in registry.ledger.prompt_sets()}

    def reference(circuit: Circuit) -> str | None:
        given = circuit.parameters.get("reference") if circuit.ablation == "mean" else None
        return given if given in kept and given != circuit.prompt_set else None

    shared = _common(circuits, "prompts of the ablation's mean", reference)
    return AlikeCircuits(
        circuits=tuple(circuits),
        model=_common(circuits, "model", lambda circuit: circuit.model),
        ablation=_common(circuits, "ablation", lambda c: measurable_ablation(c, _LEVELS)),
        kv_heads=_common(circuits, "key/value heads", lambda c: c.kv_heads or "grouped"),
        reference=shared,
        reference_pairs=() if shared is None else kept_prompts(registry, shared),
        bases={
            circuit.id: kept_bases(registry, circuit)
            for circuit in circuits
            if circuit.level is Level.SUBSPACE
        },
    )


def kept_parts(circuit: Circuit) -> list[str]:
    """Return the parts of a circuit without edges that keep their output; its ends always do."""
    kinds = _KEPT[circuit.level]
    named = {node.component for node in circuit.nodes}
    return sorted(name for name in named if parse_local(name).kind in kinds)


def _require_measurable(circuit: Circuit) -> None:
    """Refuse a circuit if the parts to ablate are unknown.

    Raises:
        BadInput: See :func:`alike_circuits`.
    """
    measurable_ablation(circuit, _LEVELS)
    name, level = circuit.id[:12], circuit.level
    if circuit.edges:
        if level not in (Level.EDGE, Level.NODE):
            raise BadInput(
                f"circuit {name} has edges between {level}s; edges are ablated between heads and "
                f"MLPs, and circuits of {level}s are measured where they have none"
            )
        return
    kinds = {parse_local(node.component).kind: node.component for node in circuit.nodes}
    needed, shown = _NEEDED.get(level, _NEEDED[Level.NODE])
    if level not in _KEPT or not needed & kinds.keys():
        raise BadInput(
            f"circuit {name} has no edges, and names no {shown} to keep; the parts to ablate are"
            " known only for circuits with edges, heads, MLPs, neurons, subspaces or norms"
        )
    if others := kinds.keys() - _KEPT[level] - _ENDS:
        raise BadInput(
            f"circuit {name} has no edges and names {kinds[min(others)]}; in circuits of {level}s,"
            f" only {_SHOWN[level]} can be kept"
        )
    _require_whole(circuit)


def _require_whole(circuit: Circuit) -> None:
    """Refuse parameters of which a circuit keeps some and does not say which.

    Raises:
        BadInput: That.
    """
    if circuit.level is not Level.PARAMETER:
        return
    for node in circuit.nodes:
        if node.density is not None and node.density < 1:
            raise BadInput(
                f"circuit {circuit.id[:12]} keeps {100 * node.density:g} % of the weights of "
                f"{node.component}, and which is not recorded; what is kept or ablated as a whole "
                "can be measured"
            )


def measurement_key(evaluation: Evaluation) -> str:
    """Return a key that is equal for equal measurements, independent of the last digits."""
    asked = {name: evaluation.parameters.get(name) for name in _ASKED}
    of = (evaluation.circuit, evaluation.task, evaluation.prompt_set, evaluation.measure)
    return content_hash([*of, evaluation.ablation, asked])


def _alike_divided(registry: Registry, known: PromptSet, wanted: Split | None) -> bool:
    """Return whether recorded prompts are the requested part of a task's, for any division."""
    found = split_of_kept(registry.artifact(known.artifact or ""))
    if found is None or wanted is None:
        return found is wanted
    return (found.part, found.seed) == (wanted.part, wanted.seed)


def _common(circuits: Sequence[Circuit], what: str, of: Callable[[Circuit], T]) -> T:
    """Return the common result of ``of`` for all circuits."""
    first = circuits[0]
    for other in circuits[1:]:
        if of(other) != of(first):
            raise BadInput(
                f"circuits {first.id[:12]} and {other.id[:12]} differ in {what} "
                f"({_named(of(first))} and {_named(of(other))}); measure them in separate runs"
            )
    return of(first)


def _named(value: object) -> str:
    return "unknown" if value is None else str(value)
