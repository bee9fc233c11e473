"""The registered measures, ours and those of other packages, and their legal values.

An entry point of the group ``circuits.measures`` names a :class:`registry.measures.Measure` or a
tuple of measures. Records may use names that nobody registered: they come from other tools, and
nothing is known about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from registry import plugins
from registry.errors import MeasureOutOfRange
from registry.measures import MEASURES, Measure

if TYPE_CHECKING:
    from registry.records import Evaluation, Outcome

__all__ = [
    "MEASURES_GROUP",
    "NOT_REGISTERED",
    "all_measures",
    "direction_of",
    "find_measure",
    "notes_on_values",
    "refuse_values",
    "title_of",
    "unit_of",
]

MEASURES_GROUP = "circuits.measures"
NOT_REGISTERED = "not registered"
"""Shown in tables as the unit and direction of a name that nobody registered."""

_OURS = {measure.name: measure for measure in MEASURES}
_OUR_PATTERNS = tuple(measure for measure in MEASURES if "*" in measure.name)


Find = Callable[[str], Measure | None]
"""Finds the measure of a name, as :func:`find_measure`."""


def all_measures() -> dict[str, Measure]:
    """Every measure by its name, ours first; measures of broken packages are skipped."""
    return plugins.usable_by_name(MEASURES_GROUP, _OURS)


def find_measure(name: str) -> Measure | None:
    """The measure of a record's name; None if nobody registered it.

    An exact name has priority over a pattern, and our names over those of other packages.
    """
    ours = _ours(name)
    if ours is not None:
        return ours
    known = all_measures()
    return known.get(name) or _by_pattern(name, known.values())


def title_of(name: str) -> str:
    """A measure's name for people: ``logit difference``, even if it is not registered."""
    found = find_measure(name)
    return (found and found.title) or name.replace("_", " ")


def unit_of(name: str) -> str | None:
    """The unit, for a table; None for a plain number."""
    found = find_measure(name)
    return NOT_REGISTERED if found is None else found.unit


def direction_of(name: str) -> str | None:
    """The better values, for a table: ``higher``, ``lower``; None if neither is better."""
    found = find_measure(name)
    if found is None:
        return NOT_REGISTERED
    return None if found.higher_is_better is None else str(found.direction)


def refuse_values(evaluations: Iterable[Evaluation], outcomes: Iterable[Outcome] = ()) -> None:
    """Refuse values that were computed here and are not legal.

    Raises:
        MeasureOutOfRange: A value is outside its measure's range.
    """
    for measure, value in _outside(evaluations, outcomes):
        raise MeasureOutOfRange(measure.name, value, measure.range)


def notes_on_values(
    evaluations: Iterable[Evaluation],
    outcomes: Iterable[Outcome] = (),
    find: Find = find_measure,
) -> list[str]:
    """A note for each measure with values outside its range, such as percentages.

    Args:
        evaluations: Values of circuits.
        outcomes: Values of edits.
        find: :func:`find_measure`, or one that remembers what it found.
    """
    found: dict[str, tuple[Measure, list[float]]] = {}
    for measure, value in _outside(evaluations, outcomes, find):
        found.setdefault(measure.name, (measure, []))[1].append(value)
    return [
        f"{name} of {values[0]:g}{_and_more(len(values))} is outside its range, {measure.range}"
        for name, (measure, values) in found.items()
    ]


def _and_more(n_values: int) -> str:
    return f" and of {n_values - 1:,} more records" if n_values > 1 else ""


def _outside(
    evaluations: Iterable[Evaluation], outcomes: Iterable[Outcome], find: Find = find_measure
) -> Iterator[tuple[Measure, float]]:
    known: dict[str, Measure | None] = {}
    named = [(one.measure, one.value) for one in evaluations]
    named += [
        (one.metric, value)
        for one in outcomes
        for value in (one.before, one.after)
        if value is not None
    ]
    for name, value in named:
        if name not in known:
            known[name] = find(name)
        measure = known[name]
        if measure is not None and not measure.holds(value):
            yield measure, value


@lru_cache(maxsize=1024)
def _ours(name: str) -> Measure | None:
    """Our measure of a name; results of thousands of files have the same names."""
    return _OURS.get(name) or _by_pattern(name, _OUR_PATTERNS)


def _by_pattern(name: str, among: Iterable[Measure]) -> Measure | None:
    return next((one for one in among if _fits(name, one.name)), None)


def _fits(name: str, pattern: str) -> bool:
    before, star, after = pattern.partition("*")
    long_enough = len(name) > len(before) + len(after)
    return bool(star) and long_enough and name.startswith(before) and name.endswith(after)
