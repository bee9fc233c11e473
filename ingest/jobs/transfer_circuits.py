"""Recorded circuits that can be measured together, on one set of prompts of another task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from ingest.jobs.stored_circuits import find_prompt_set, kept_prompts, measurable_ablation
from ingest.tasks.base import TokenPair
from ingest.tasks.catalogue import all_tasks
from registry.errors import BadInput
from registry.records import Circuit, Evaluation, PromptSet, content_hash

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["AlikeCircuits", "WantedPrompts", "alike_circuits", "measurement_key"]

T = TypeVar("T")

_ASKED = ("metric", "reference", "circuits", "seed")
"""Parameters of an evaluation that say what was measured; the others say what came of it."""


class WantedPrompts(Protocol):
    """Which prompts circuits are to be measured on: a recorded set, or those of a task."""

    @property
    def task(self) -> str | None:
        """Slug of the task."""

    @property
    def prompt_set(self) -> str | None:
        """Id of the set, in the task's place."""

    @property
    def seed(self) -> int:
        """What a task's prompts were drawn with."""

    @property
    def prompts(self) -> int | None:
        """How many; None for any number."""


@dataclass(frozen=True, eq=False)
class AlikeCircuits:
    """Circuits of one model that were ablated in one way.

    Attributes:
        circuits: At least one.
        reference: Id of the prompts of a file whose mean ablates; None for those measured on.
        reference_pairs: These prompts.
    """

    circuits: tuple[Circuit, ...]
    model: str
    ablation: Literal["resample", "mean", "zero"]
    kv_heads: str
    reference: str | None
    reference_pairs: tuple[TokenPair, ...]

    def bos(self, registry: Registry) -> bool | None:
        """Whether the prompts they were found on begin with a BOS token; None where unknown.

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
        """The recorded prompts that are asked for, the most numerous of several; None for none.

        Raises:
            NotFound, BadInput: The prompt set is not there, ambiguous or another model's.
        """
        if wanted.prompt_set is not None:
            found = find_prompt_set(registry, wanted.prompt_set)
            if found.model != self.model:
                raise BadInput(
                    f"prompt set {found.id[:12]} holds what {found.model or 'an unknown model'} "
                    f"answers; the circuits are of {self.model}"
                )
            return found
        # Prompts of a file were drawn with no seed. Those of a reference were never answered.
        seed = wanted.seed if wanted.task in all_tasks() else None
        fitting = [
            known
            for known in registry.ledger.prompt_sets(wanted.task)
            if (known.model, known.seed) == (self.model, seed)
            and known.artifact is not None
            and known.share_correct is not None
            and bos in (None, known.bos)
            and wanted.prompts in (None, known.n_prompts)
        ]
        return max(fitting, key=lambda known: (known.n_prompts, known.id), default=None)


def alike_circuits(registry: Registry, circuits: Sequence[Circuit]) -> AlikeCircuits:
    """Take circuits together.

    Raises:
        BadInput: One of them cannot be measured again, or they differ in what a run has one of;
            the text names two that do.
    """
    for circuit in circuits:
        if not circuit.edges:
            raise BadInput(
                f"circuit {circuit.id[:12]} has no edges; which of the others are to be ablated is "
                "known of circuits with edges only"
            )
    kept = {known.id for known in registry.ledger.prompt_sets()}

    def reference(circuit: Circuit) -> str | None:
        given = circuit.parameters.get("reference") if circuit.ablation == "mean" else None
        return given if given in kept and given != circuit.prompt_set else None

    shared = _common(circuits, "prompts of the ablation's mean", reference)
    return AlikeCircuits(
        circuits=tuple(circuits),
        model=_common(circuits, "model", lambda circuit: circuit.model),
        ablation=_common(circuits, "ablation", measurable_ablation),
        kv_heads=_common(circuits, "key/value heads", lambda c: c.kv_heads or "grouped"),
        reference=shared,
        reference_pairs=() if shared is None else kept_prompts(registry, shared),
    )


def measurement_key(evaluation: Evaluation) -> str:
    """Equal for evaluations that measure the same, whatever digit their last one is."""
    asked = {name: evaluation.parameters.get(name) for name in _ASKED}
    of = (evaluation.circuit, evaluation.task, evaluation.prompt_set, evaluation.measure)
    return content_hash([*of, evaluation.ablation, asked])


def _common(circuits: Sequence[Circuit], what: str, of: Callable[[Circuit], T]) -> T:
    """What ``of`` gives for all circuits alike."""
    first = circuits[0]
    for other in circuits[1:]:
        if of(other) != of(first):
            raise BadInput(
                f"circuits {first.id[:12]} and {other.id[:12]} differ in {what} "
                f"({_named(of(first))} and {_named(of(other))}); measure them in runs of their own"
            )
    return of(first)


def _named(value: object) -> str:
    return "unknown" if value is None else str(value)
