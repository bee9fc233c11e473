"""Which of a file's edges or nodes are the circuit: one rule for all formats.

Where nothing is asked for, what the file marks as its circuit is taken, or all of a file that marks
nothing. ``--top`` and ``--threshold`` choose by size from all that the file scores, whatever it
marks; where it marks a circuit of its own, that is replaced and a note says by how much they agree.
What has no score cannot be chosen by size and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.formats.base import Said
from registry.errors import BadInput

__all__ = ["MARKED", "Choice", "choose", "is_asked", "marks_replaced", "selection_of"]

MARKED = {"rule": "in_circuit"}
"""How a circuit was selected whose edges its file marks."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        places: Of what was chosen, in the file's order.
        selection: By what rule; None where the whole file is the circuit.
        notes: What a user should know of it.
    """

    places: Sequence[int]
    selection: dict[str, Any] | None = None
    notes: Sequence[str] = ()


def is_asked(said: Said) -> bool:
    """Whether the user asks for a choice by size."""
    return said.top is not None or said.threshold is not None


def selection_of(said: Said) -> dict[str, Any]:
    """The rule that the user asks for, as it is recorded."""
    if said.top is not None:
        return {"top": said.top, "by": "absolute"}
    return {"threshold": said.threshold, "by": "absolute"}


def choose(
    scores: Sequence[float | None],
    marks: Sequence[bool] | None,
    said: Said,
    name: str,
    what: str = "edge",
) -> Choice:
    """Choose from a file's edges or nodes.

    Args:
        scores: Of each; None where it has none.
        marks: Whether each is in the file's own circuit; None where the file marks nothing.
        said: What the user says.
        name: The file's.
        what: What they are called.

    Raises:
        BadInput: A choice by size is asked for and there are no scores to choose by; or none is
            asked for and the file marks nothing as its circuit.
    """
    if not is_asked(said):
        if marks is None:
            return Choice(range(len(scores)))
        places = [at for at, mark in enumerate(marks) if mark]
        if not places:
            raise BadInput(
                f"{name} marks no {what} as in the circuit; say how many to take with --top N or"
                " from which size on with --threshold X"
            )
        return Choice(places, dict(MARKED), _notes_on_unmarked(len(scores), len(places), what))
    sizes = {at: abs(score) for at, score in enumerate(scores) if score is not None}
    _check_sizes(sizes, said, name, what)
    chosen = sorted(_strongest(sizes, said))
    notes = list(_notes(len(scores) - len(sizes), len(chosen), said, what))
    if marks is not None and any(marks):
        both = sum(marks[at] for at in chosen)
        notes.append(marks_replaced(sum(map(bool, marks)), both, len(chosen), said, what))
    return Choice(chosen, selection_of(said), notes)


def marks_replaced(n_marked: int, n_both: int, n_chosen: int, said: Said, what: str) -> str:
    """What to say where a choice by size stands in place of the file's own.

    Args:
        n_marked: How many the file marks.
        n_both: How many of those that were chosen it marks.
        n_chosen: How many were chosen.
        said: What the user says.
        what: What they are called.
    """
    asked = f"--top {said.top}" if said.top is not None else f"--threshold {said.threshold:g}"
    return (
        f"{asked} replaces the file's own marks: it marks {n_marked:,} {what}s as its circuit,"
        f" {n_both:,} of the {n_chosen:,} that are taken are among them"
    )


def _notes_on_unmarked(n_all: int, n_marked: int, what: str) -> list[str]:
    if n_marked == n_all:
        return []
    return [f"{n_all - n_marked:,} {what}s that the file marks as not in the circuit left out"]


def _check_sizes(sizes: dict[int, float], said: Said, name: str, what: str) -> None:
    found = set(sizes.values())
    if found and (len(found) > 1 or len(sizes) == 1 or said.top is None):
        return
    why = "has the same score" if found else "is without a score"
    raise BadInput(
        f"{name}: every {what} {why}, so that none can be chosen by size; leave out --top and"
        " --threshold"
    )


def _strongest(sizes: dict[int, float], said: Said) -> list[int]:
    if said.top is not None:
        return sorted(sizes, key=lambda at: -sizes[at])[: said.top]
    least = said.threshold or 0.0
    return [at for at, size in sizes.items() if size >= least]


def _notes(n_unscored: int, n_chosen: int, said: Said, what: str) -> list[str]:
    notes = []
    if n_unscored:
        notes.append(f"{n_unscored:,} {what}s without a score left out: size cannot choose them")
    if said.top is not None and n_chosen < said.top:
        notes.append(f"{n_chosen:,} {what}s could be chosen, fewer than the {said.top:,} asked for")
    if not n_chosen:
        notes.append(f"no {what} is of that size: the circuit is empty")
    return notes
