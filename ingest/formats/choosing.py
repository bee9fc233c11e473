"""Selection of the edges or nodes of a file that form the circuit: one rule for all formats.

By default the circuit that the file marks is used, or the whole file if it marks nothing. ``--top``
and ``--threshold`` select by size from everything that the file scores, independent of its marks;
if the file marks a circuit, that is replaced, and a note gives their agreement. Items without a
score cannot be selected by size and are omitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.formats.base import Said
from registry.errors import BadInput

__all__ = [
    "MARKED",
    "Choice",
    "choose",
    "is_asked",
    "marks_replaced",
    "notes_on_count",
    "selection_of",
]

MARKED = {"rule": "in_circuit"}
"""The selection of a circuit whose edges the file marks."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The result of a selection.

    Attributes:
        places: Indices of the selected items, in the file's order.
        selection: The rule; None if the whole file is the circuit.
        notes: Notes for the user.
    """

    places: Sequence[int]
    selection: dict[str, Any] | None = None
    notes: Sequence[str] = ()


def is_asked(said: Said) -> bool:
    """Return whether the user requests a selection by size."""
    return said.top is not None or said.threshold is not None


def selection_of(said: Said) -> dict[str, Any]:
    """Return the rule that the user requests, as it is recorded."""
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
    """Select from a file's edges or nodes.

    Args:
        scores: Score of each; None if it has none.
        marks: Whether each is in the file's circuit; None if the file marks nothing.
        said: The user's statements.
        name: The file's name.
        what: The term for the items.

    Raises:
        BadInput: A selection by size is requested but there are no scores to select by; or none is
            requested and the file marks nothing as its circuit.
    """
    if not is_asked(said):
        if marks is None:
            return Choice(range(len(scores)))
        places = [at for at, mark in enumerate(marks) if mark]
        if not places:
            raise BadInput(
                f"{name} marks no {what} as in the circuit; give a number with --top N or"
                " a smallest size with --threshold X"
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
    """Return the note if a selection by size replaces the file's marks.

    Args:
        n_marked: Number of items that the file marks.
        n_both: Number of selected items that the file marks.
        n_chosen: Number of selected items.
        said: The user's statements.
        what: The term for the items.
    """
    asked = f"--top {said.top}" if said.top is not None else f"--threshold {said.threshold:g}"
    return (
        f"{asked} replaces the file's own marks: it marks {n_marked:,} {what}s as its circuit,"
        f" {n_both:,} of the {n_chosen:,} selected are among them"
    )


def _notes_on_unmarked(n_all: int, n_marked: int, what: str) -> list[str]:
    if n_marked == n_all:
        return []
    return [f"{n_all - n_marked:,} {what}s that the file marks as not in the circuit omitted"]


def _check_sizes(sizes: dict[int, float], said: Said, name: str, what: str) -> None:
    found = set(sizes.values())
    if found and (len(found) > 1 or len(sizes) == 1 or said.top is None):
        return
    why = "has the same score" if found else "has no score"
    raise BadInput(
        f"{name}: every {what} {why}, so selection by size is impossible; omit --top and"
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
        notes.append(f"{n_unscored:,} {what}s without a score omitted: no size to select by")
    return [*notes, *notes_on_count(n_chosen, said.top, what)]


def notes_on_count(n_chosen: int, top: int | None, what: str) -> list[str]:
    """Return notes if a selection by size finds fewer than requested, or nothing.

    Args:
        n_chosen: Number of selected items.
        top: Requested number; None if a size was requested.
        what: The term for the items.
    """
    notes = []
    if top is not None and n_chosen < top:
        notes.append(f"{n_chosen:,} {what}s could be selected, fewer than the {top:,} requested")
    if not n_chosen:
        notes.append(f"no {what} has this size: the circuit is empty")
    return notes
