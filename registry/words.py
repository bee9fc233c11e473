"""Measurements and lists in words, for people who read them in a line."""

from __future__ import annotations

import itertools
from collections.abc import Collection

__all__ = ["faithfulness_in_words", "listed"]

_MOST_LISTED = 8
_LONGEST_LISTED = 80


def listed(
    names: Collection[object], most: int = _MOST_LISTED, *, longest: int = _LONGEST_LISTED
) -> str:
    """Name some things in a line, and say how many more there are: ``a, b, c and 587 more``.

    Args:
        names: Anything.
        most: So many are named.
        longest: A name with more characters is cut; paths are told by their ends.
    """
    texts = [str(name) for name in itertools.islice(names, most)]
    cut = [text if len(text) <= longest else f"{text[:longest]}..." for text in texts]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(cut) + more


def faithfulness_in_words(value: float, metric: str | None) -> str:
    """Say how much of a model's behaviour a circuit keeps.

    Args:
        value: Its faithfulness, ``(m(circuit) - m(empty)) / (m(full) - m(empty))``.
        metric: Name of the metric; None where it has none.

    Returns:
        A sentence without its full stop.
    """
    percent = round(100 * value)
    of = f"{percent} % of the {(metric or 'metric').replace('_', ' ')} that the whole model has"
    scale = "(0 %: everything ablated)"
    if percent > 100:
        return f"the circuit has {of} {scale}: it leaves out parts that work against it"
    if percent < 0:
        return f"the circuit has {of} {scale}: it works against it"
    return f"the circuit keeps {of} {scale}"
