"""Which cases of a large grid are tested at every change; ``make slow`` tests the others.

A grid is a list of cases of one test. What stays in ``make test`` holds every value at least once;
what is left out is marked ``slow``, so that each case runs in one of the two.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

__all__ = ["each_once", "every_nth", "left_to_make_slow", "n_examples"]

TIMES = int(os.environ.get("CIRCUITS_TEST_TIMES", "1"))
"""How many times as many random examples are tried as at every change."""


def every_nth(cases: Iterable[Any], n: int, kept: str, *, first: int = 0) -> list[Any]:
    """Keep one of ``n`` cases, and leave the others.

    Args:
        cases: All of them, in an order that does not change.
        n: How many stand for one.
        kept: What those that stay are, in words.
        first: The place of the first that stays; tests of the same grid keep different ones.
    """
    return [
        case if place % n == first else left_to_make_slow(case, kept=kept)
        for place, case in enumerate(cases)
    ]


def each_once(first: Sequence[Any], second: Sequence[Any], kept: str) -> list[Any]:
    """Keep as few pairs of two lists as hold every value of both, and leave the others.

    A value of ``first`` may be a tuple, whose parts the pair then begins with.
    """
    pairs = itertools.product(range(len(first)), range(len(second)))
    return [
        pair
        if _stays(place, other, len(first), len(second))
        else left_to_make_slow(*pair, kept=kept)
        for place, other in pairs
        for pair in [(*_parts(first[place]), second[other])]
    ]


def left_to_make_slow(*values: Any, kept: str) -> Any:
    """A case that ``make slow`` alone tests; ``kept`` says what ``make test`` tests instead."""
    return pytest.param(*values, marks=pytest.mark.slow(kept))


def n_examples(n: int) -> int:
    """So many random examples at every change, and as many more as ``make slow`` asks for."""
    return n * TIMES


def _stays(place: int, other: int, n_first: int, n_second: int) -> bool:
    return place % n_second == other if n_first >= n_second else other % n_first == place


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
