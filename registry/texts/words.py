"""Measurements and lists in words, for one line of text."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable

from registry.known_measures import title_of

__all__ = ["faithfulness_in_words", "listed", "nearest_names"]

_MOST_LISTED = 8
_LONGEST_LISTED = 80


def listed(
    names: Collection[object], most: int = _MOST_LISTED, *, longest: int = _LONGEST_LISTED
) -> str:
    """List names in one line, with the number of further names: ``a, b, c and 587 more``.

    Args:
        names: Any values.
        most: Maximum number of listed names.
        longest: Names with more characters are cut; of paths, the end is kept.
    """
    texts = [str(name) for name in itertools.islice(names, most)]
    cut = [text if len(text) <= longest else f"{text[:longest]}..." for text in texts]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(cut) + more


def nearest_names(name: str, known: Iterable[str]) -> str:
    """List the recorded names that are most similar to a name that is not recorded."""
    names = sorted(set(known))
    if not names:
        return "nothing is recorded yet"
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"nearest: {', '.join(nearest)}" if nearest else f"recorded are: {listed(names, 5)}"


def faithfulness_in_words(value: float, metric: str | None) -> str:
    """Describe how much of a model's behaviour a circuit keeps.

    Args:
        value: Its faithfulness, ``(m(circuit) - m(empty)) / (m(full) - m(empty))``.
        metric: Name of the metric; None if it has none.

    Returns:
        A sentence without its full stop.
    """
    percent = round(100 * value)
    of = f"{percent} % of the {title_of(metric) if metric else 'metric'} that the whole model has"
    scale = "(0 %: everything ablated)"
    if percent > 100:
        return f"the circuit has {of} {scale}: it omits parts that work against it"
    if percent < 0:
        return f"the circuit has {of} {scale}: it works against it"
    return f"the circuit keeps {of} {scale}"
