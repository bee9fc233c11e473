"""Figures in EasyEdit's results: found by their place, with the protocol they were taken by.

Used by :mod:`ingest.formats.easyedit`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.errors import BadInput

__all__ = ["Figure", "Figures", "LeftOut", "figures", "matches", "member", "protocols"]

_OUTPUT, _GENERATED = "_output", "_gen_content"

Figure = tuple[float, int | None]
"""A mean, and how many numbers it is of; None for a scalar, which does not say."""
Figures = dict[str, Figure]

_BOOKKEEPING = re.compile(
    r"(?:.*_)?(?:ids?|idx|index|indices|time|timestamp|date|seed|epoch|step|version)"
    r"|(?:num|n)_(?!gram).*|case|layers?|lr|learning_rate|batch(?:_size)?",
    re.IGNORECASE,
)
"""Names of numbers that say which record it is, or how it was made, and measure nothing."""


@dataclass(slots=True)
class LeftOut:
    """What was seen and is no figure.

    Attributes:
        bookkeeping: Numbers that measure nothing: ``num_edits``, ``pararel_idx``.
        objects: Lists of objects that nobody knows the meaning of.
    """

    bookkeeping: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)


def member(record: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    """An object within a record; an empty one where it is missing.

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
    """By a metric's name the protocol that ``metric_meta`` gives it."""
    found = {}
    for section, meta in member(holder, "metric_meta", place).items():
        if not isinstance(meta, dict):
            raise BadInput(f"{place}: metric_meta of {section} is no object with a protocol")
        key = meta.get("result_key")
        name = key if isinstance(key, str) else f"{section}_acc"
        protocol = meta.get("protocol") or meta.get("comparable_group")
        if isinstance(protocol, str):
            # The section is all that a dot can stand behind; keys themselves may hold dots.
            found[name.replace(".", "/", 1)] = protocol
    return found


def figures(
    holder: Mapping[str, Any], place: str, left_out: LeftOut | None = None, under: str = ""
) -> Figures:
    """All numbers in ``holder`` by their place: ``locality/KEY_acc``. Texts and token ids are none.

    Args:
        holder: A record, or a part of one.
        place: Which record of which file, for errors.
        left_out: Told what is none.
        under: What stands before the names.

    Raises:
        BadInput: One is larger than a number can be.
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
            found |= figures(value, place, left_out, f"{name}/")
            continue
        if _holds_objects(value):
            left_out.objects.add(name)
            continue
        try:
            numbers = list(_numbers(value))
            total = math.fsum(numbers)
        except OverflowError:
            raise BadInput(f"{place}: {name} is larger than a number can be") from None
        if numbers:
            found[name] = total / len(numbers), len(numbers) if isinstance(value, list) else None
    return found


def _holds_objects(value: Any) -> bool:
    """Whether a list holds objects, whose numbers are of different things."""
    return isinstance(value, list) and any(
        isinstance(one, dict) or _holds_objects(one) for one in value
    )


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in a value, lists within lists too; None and texts are missing."""
    if isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield float(value)


def matches(pre: Mapping[str, Any], post: Mapping[str, Any]) -> dict[str, Figure | None]:
    """Share of equal outputs where locality is given as outputs alone; None where they do not pair.

    Of lists of token ids the share of places that hold the same token, else whether texts are the
    same; mean over prompts. EasyEdit calls that ``pre_post_argmax_token_match``.
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
    """Of each prompt the share of outputs that stayed; empty where they do not pair."""
    if not isinstance(before, list) or not isinstance(after, list) or not before:
        return []
    if all(isinstance(one, int) for one in (*before, *after)):  # of one prompt, without its list
        before, after = [before], [after]
    if len(before) != len(after):
        return []
    return [_share(one, other) for one, other in zip(before, after, strict=True)]


def _share(before: Any, after: Any) -> float:
    if not isinstance(before, list) or not isinstance(after, list):
        return float(before == after)
    length = max(len(before), len(after))
    # A token that has no counterpart has changed.
    return sum(map(_same, before, after)) / length if length else 1.0


def _same(one: Any, other: Any) -> bool:
    return bool(one == other)
