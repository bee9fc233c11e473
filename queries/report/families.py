"""Whether tasks of one family are more similar to each other than to other tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from queries.answers.matrix import CircuitMatrix

__all__ = ["Likeness", "Resemblance", "resemblances"]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How similar circuits of some pairs of tasks are, as means over pairs; None if unknown.

    Attributes:
        n_pairs: Pairs of circuits.
        iou: Intersection over union of the parts that the matrix counts.
        z: Standard deviations beyond chance, under the null with the smallest z.
        transfer: Faithfulness of each circuit on the other's task.
        gain: Transfer minus that of random circuits with the same degrees, if these were measured.
    """

    n_pairs: int
    iou: float | None
    z: float | None
    transfer: float | None
    gain: float | None


@dataclass(frozen=True, slots=True)
class Resemblance:
    """A family of tasks, compared with each task outside it.

    Attributes:
        family: Its name.
        tasks: Its tasks among those compared; two or more.
        within: Similarity over pairs of different tasks of the family.
        beside: For each other task, similarity over its pairs with tasks of the family.
    """

    family: str
    tasks: tuple[str, ...]
    within: Likeness
    beside: Mapping[str, Likeness]


def resemblances(matrix: CircuitMatrix, families: Mapping[str, str]) -> tuple[Resemblance, ...]:
    """Summarize the pairs of a matrix by family.

    Args:
        matrix: The pairs.
        families: Family of each task.

    Returns:
        One for each family with two or more of the compared tasks, if there are other tasks.
    """
    members: dict[str, list[str]] = {}
    for task in matrix.tasks:
        members.setdefault(families.get(task, task), []).append(task)
    return tuple(
        _resemblance(matrix, family, tasks)
        for family, tasks in members.items()
        if 1 < len(tasks) < len(matrix.tasks)
    )


def _resemblance(matrix: CircuitMatrix, family: str, tasks: list[str]) -> Resemblance:
    others = [task for task in matrix.tasks if task not in tasks]
    inside = [(a, b) for place, a in enumerate(tasks) for b in tasks[place + 1 :]]
    return Resemblance(
        family=family,
        tasks=tuple(tasks),
        within=_likeness(matrix, inside),
        beside={other: _likeness(matrix, [(task, other) for task in tasks]) for other in others},
    )


def _likeness(matrix: CircuitMatrix, tasks: Iterable[tuple[str, str]]) -> Likeness:
    wanted = {frozenset(two) for two in tasks}
    rows = [row for row in matrix.rows() if frozenset((row["task_a"], row["task_b"])) in wanted]
    overlaps = (row["iou" if matrix.of == "connections" else "iou_components"] for row in rows)
    ways = [(row[f"transfer_{way}"], row[f"random_{way}"]) for row in rows for way in ("ab", "ba")]
    beside_random = [(value, random) for value, random in ways if None not in (value, random)]
    return Likeness(
        n_pairs=len(rows),
        iou=_mean(overlaps),
        z=_mean(row["z"] for row in rows),
        transfer=_mean(value for value, _ in ways),
        gain=_mean(value - random for value, random in beside_random),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
