"""Measured numbers in EasyEdit's results: found by their path, with the protocol of each.

Used by :mod:`ingest.formats.easyedit.results`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.formats.reading import OddScores, as_float
from registry.errors import BadInput

__all__ = ["Figure", "Figures", "LeftOut", "figures", "matches", "member", "protocols"]

_OUTPUT, _GENERATED = "_output", "_gen_content"

Figure = tuple[float, int | None]
"""A mean, and the number of values averaged; None for a scalar, whose number is unknown."""
Figures = dict[str, Figure]

_BOOKKEEPING = re.compile(
    r"(?:.*_)?(?:ids?|idx|index|indices|time|timestamp|date|seed|epoch|step|version)"
    r"|(?:num|n)_(?!gram)(?!(?:.*_)?acc$).*|case|layers?|lr|learning_rate|batch(?:_size)?",
    re.IGNORECASE,
)
"""Names of numbers that identify a record or its settings, and measure nothing."""
_FIGURE = re.compile(
    r"(?:.*_)?(?:acc|accuracy|ppl|entropy|score|success|diff|f1|em)", re.IGNORECASE
)
"""Names that always belong to a measured number."""
_LONGEST_NUMBER = 40


@dataclass(slots=True)
class LeftOut:
    """Values that were found but are not measurements.

    Attributes:
        bookkeeping: Numbers that measure nothing: ``num_edits``, ``pararel_idx``.
        objects: Lists of objects with unknown meaning.
        texts: Values without a number whose name requires one, or texts that look like numbers.
        odd: Numbers that are not finite.
    """

    bookkeeping: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    odd: OddScores = field(default_factory=OddScores)


def member(record: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    """Return an object within a record; an empty one if it is missing.

    Raises:
        BadInput: It is something else.
    """
    value = record.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{place}: {name} is {type(value).__name__}, no object")
    return value


def protocols(holder: Mapping[str, Any], place: str) -> dict[str, str]:
    """Return the protocol that ``metric_meta`` gives, by a metric's name."""
    found = {}
    for section, meta in member(holder, "metric_meta", place).items():
        if not isinstance(meta, dict):
            raise BadInput(f"{place}: metric_meta of {section} is no object with a protocol")
        key = meta.get("result_key")
        name = key if isinstance(key, str) else f"{section}_acc"
        protocol = meta.get("protocol") or meta.get("comparable_group")
        if isinstance(protocol, str):
            # Only a section can precede a dot here; keys themselves may contain dots.
            found[name.replace(".", "/", 1)] = protocol
    return found


def figures(
    holder: Mapping[str, Any], place: str, left_out: LeftOut | None = None, under: str = ""
) -> Figures:
    """Return all numbers in ``holder`` by path: ``locality/KEY_acc``; no texts or token ids.

    Args:
        holder: A record, or a part of one.
        place: The record and its file, for errors.
        left_out: Receives what is not a measurement.
        under: Prefix of the names.

    Raises:
        BadInput: Their sum is larger than a float can be, or one appears twice.
    """
    found: Figures = {}
    left_out = LeftOut() if left_out is None else left_out
    for key, value in holder.items():
        name = f"{under}{key}"
        if key == "metric_meta" or key.endswith((_OUTPUT, _GENERATED)):
            continue
        if _BOOKKEEPING.fullmatch(key):
            left_out.bookkeeping.add(name)
            continue
        if isinstance(value, dict):
            _add(found, figures(value, place, left_out, f"{name}/"), place)
            continue
        if _holds_objects(value):
            left_out.objects.add(name)
            continue
        each = list(_numbers(value))
        numbers = [one for one in each if left_out.odd.taken(one, f"{place}: {name}") is not None]
        try:
            total = math.fsum(numbers)
        except OverflowError:
            raise BadInput(f"{place}: {name} is larger than a number can be") from None
        if numbers:
            figure = total / len(numbers), len(numbers) if isinstance(value, list) else None
            _add(found, {name: figure}, place)
        elif not each and _lacks_a_number(key, value):
            left_out.texts.add(name)
    return found


def _add(found: Figures, more: Figures, place: str) -> None:
    """Add numbers; a key with a slash may have the same name as another one in a section."""
    twice = found.keys() & more.keys()
    if twice:
        raise BadInput(f"{place}: {min(twice)} appears twice")
    found |= more


def _lacks_a_number(key: str, value: Any) -> bool:
    """Return whether a value without a number should have one, by its name or its text."""
    if value is None:
        return False
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            float(value)
        except ValueError:
            pass
        else:
            return True
    return _FIGURE.fullmatch(key) is not None


def _holds_objects(value: Any) -> bool:
    """Return whether a list has objects, whose numbers have different meanings."""
    return isinstance(value, list) and any(
        isinstance(one, dict) or _holds_objects(one) for one in value
    )


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers in a value, with nested lists; None and texts are skipped."""
    if isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield as_float(value)


def matches(pre: Mapping[str, Any], post: Mapping[str, Any]) -> dict[str, Figure | None]:
    """Return shares of equal outputs if locality has only outputs; None if they do not pair.

    For lists of token ids this is the share of positions with the same token, otherwise whether the
    texts are equal; mean over prompts. EasyEdit calls it ``pre_post_argmax_token_match``.
    """
    found: dict[str, Figure | None] = {}
    for key, after in post.items():
        ending = next((end for end in (_OUTPUT, _GENERATED) if key.endswith(end)), None)
        if ending is None or f"{key.removesuffix(ending)}_acc" in post:
            continue
        shares = _shares(pre.get(key), after)
        figure = (math.fsum(shares) / len(shares), len(shares)) if shares else None
        found[f"locality/{key.removesuffix(ending)}"] = figure
    return found


def _shares(before: Any, after: Any) -> list[float]:
    """Return the share of unchanged outputs for each prompt; empty if they do not pair."""
    if not isinstance(before, list) or not isinstance(after, list) or not before:
        return []
    if all(isinstance(one, int) for one in (*before, *after)):  # one prompt, without outer list
        before, after = [before], [after]
    if len(before) != len(after):
        return []
    return [_share(one, other) for one, other in zip(before, after, strict=True)]


def _share(before: Any, after: Any) -> float:
    if not isinstance(before, list) or not isinstance(after, list):
        return float(before == after)
    length = max(len(before), len(after))
    # A token without a counterpart has changed.
    return sum(map(_same, before, after)) / length if length else 1.0


def _same(one: Any, other: Any) -> bool:
    return bool(one == other)
