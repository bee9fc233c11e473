"""Circuits measured in one setting: those of edges, those of nodes, and those of finer parts.

Each kind of circuit is run in its own way, all circuits of a kind together. Circuits of nodes and
of edges are measured between the same two runs, so that their figures compare; the others between
the clean run and the one with everything ablated that they could name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ingest.jobs.progress import Progress
from ingest.jobs.transfer.circuits import AlikeCircuits, kept_parts
from registry.identifiers import Kind
from registry.records import Circuit, Level

if TYPE_CHECKING:
    from ingest.discovery import CircuitEvaluation, Setting
    from ingest.discovery.evaluation.controls import RandomComparison

__all__ = ["Controls", "Measured", "measure_circuits"]


@dataclass(frozen=True)
class Controls:
    """Random circuits that are asked for.

    Attributes:
        n: How many for each circuit; None for none.
        seed: Decides which.
    """

    n: int | None
    seed: int


@dataclass(frozen=True, eq=False)
class Measured:
    """A circuit on the prompts of a setting, beside random ones if any were asked for.

    Attributes:
        circuit: What was measured.
        compared: The same beside random circuits; None where none were asked for.
        about: What is to be known of it: what was ablated, and out of how many parts of each kind.
    """

    circuit: CircuitEvaluation
    compared: RandomComparison | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def measure_circuits(
    setting: Setting,
    alike: AlikeCircuits,
    controls: Controls,
    task: str,
    progress: Progress,
) -> list[Measured]:
    """Measure circuits, each in the way of its level.

    Args:
        setting: The circuits' model on the prompts, and their ablation.
        alike: Circuits that can be measured together.
        controls: Random circuits for each.
        task: Of the prompts; progress names it.
        progress: Who is told.

    Raises:
        BadInput: A circuit names what the model does not have.
        UnsupportedModel, NonFiniteScores: From the algorithms.
    """
    found: dict[str, Measured] = {}
    for of, (shown, measure) in _WAYS.items():
        chosen = [circuit for circuit in alike.circuits if _way(circuit) == of]
        if chosen:
            told = f"{_count(len(chosen))}{shown}" + _and_random(controls)
            report = progress.stage(f"measuring {told} on {task}")
            measured = measure(setting, replace(alike, circuits=tuple(chosen)), controls, report)
            found |= {one.id: each for one, each in zip(chosen, measured, strict=True)}
    return [found[circuit.id] for circuit in alike.circuits]


_Measure = Callable[["Setting", AlikeCircuits, Controls, Any], list[Measured]]


def _of_edges(
    setting: Setting, alike: AlikeCircuits, controls: Controls, report: Any
) -> list[Measured]:
    from ingest.discovery import evaluate_circuits
    from ingest.discovery.evaluation.controls import compare_each_with_random

    edges = [[edge.connection for edge in circuit.edges] for circuit in alike.circuits]
    if controls.n is None:
        return [Measured(one) for one in evaluate_circuits(setting, edges, progress=report)]
    compared = compare_each_with_random(
        setting, edges, n=controls.n, seed=controls.seed, progress=report
    )
    return [Measured(one.found, one) for one in compared]


def _of_parts(
    setting: Setting, alike: AlikeCircuits, controls: Controls, report: Any
) -> list[Measured]:
    from ingest.discovery.evaluation.parts import (
        compare_parts_with_random,
        evaluate_parts,
        part_circuit,
    )

    of_nodes = alike.circuits[0].level is Level.NODE
    kinds = (Kind.HEAD, Kind.MLP) if of_nodes else ()
    parts = [part_circuit(setting, kept_parts(circuit), kinds=kinds) for circuit in alike.circuits]
    ends = setting.ends if of_nodes else None
    if controls.n is None:
        return _told(alike, parts, evaluate_parts(setting, parts, ends=ends, progress=report))
    compared = compare_parts_with_random(
        setting, parts, n=controls.n, seed=controls.seed, ends=ends, progress=report
    )
    return _told(alike, parts, [one.found for one in compared], compared)


def _of_subspaces(
    setting: Setting, alike: AlikeCircuits, controls: Controls, report: Any
) -> list[Measured]:
    from ingest.discovery.evaluation.parts import evaluate_parts
    from ingest.discovery.evaluation.subspaces import (
        compare_subspaces_with_random,
        subspace_circuit,
    )

    spaces = [subspace_circuit(setting, alike.bases[circuit.id]) for circuit in alike.circuits]
    if controls.n is None:
        return _told(alike, spaces, evaluate_parts(setting, spaces, progress=report))
    compared = compare_subspaces_with_random(
        setting, spaces, n=controls.n, seed=controls.seed, progress=report
    )
    return _told(alike, spaces, [one.found for one in compared], compared)


class _Counted(Protocol):
    @property
    def counts(self) -> Mapping[str, int]: ...


def _told(
    alike: AlikeCircuits,
    circuits: Sequence[_Counted],
    measured: Sequence[CircuitEvaluation],
    compared: Sequence[RandomComparison] | None = None,
) -> list[Measured]:
    """What was measured of circuits without edges, with what was ablated."""
    beside = compared if compared is not None else [None] * len(measured)
    return [
        Measured(one, random, {"ablated": f"{record.level}s", "universe": dict(circuit.counts)})
        for record, circuit, one, random in zip(
            alike.circuits, circuits, measured, beside, strict=True
        )
    ]


_WAYS: dict[str, tuple[str, _Measure]] = {
    "edges": ("", _of_edges),
    "nodes": (" of nodes", _of_parts),
    "finer": (" of finer parts", _of_parts),
    "subspaces": (" of subspaces", _of_subspaces),
}
"""What circuits are called, and how they are measured."""


def _way(circuit: Circuit) -> str:
    if circuit.edges:
        return "edges"
    return {Level.NODE: "nodes", Level.SUBSPACE: "subspaces"}.get(circuit.level, "finer")


def _and_random(controls: Controls) -> str:
    return "" if controls.n is None else f", {controls.n} random circuits for each,"


def _count(n: int) -> str:
    return f"{n} circuits" if n > 1 else "one circuit"
