"""Continuing a sequence: numerals, number words or months, one after the other.

After "Van done in 1. Hat done in 2. Ring done in 3. Desk done in 4. Sun done in" the correct answer
is " 5"; the wrong answer is the last shown member. The corrupt prompt has the same names with
random members: no two consecutive ones are in order, and the last one differs. After Lan, Torr and
Barez 2023 (arXiv 2311.04131); the words are our own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

from ingest.tasks.base import Encode, PromptPair, TaskSpec, single_tokens
from registry.errors import BadInput

__all__ = ["SEQUENCES"]

_NUMERALS = tuple(str(number) for number in range(1, 13))
_NUMBER_WORDS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_NAMES = (
    "Van", "Hat", "Ring", "Desk", "Sun", "Book", "Lamp", "Chair", "Door", "Key", "Boat", "Clock",
    "Tree", "Bell", "Box", "Cup", "Coat", "Rock", "Bird", "Fish", "Car", "Train", "Bread", "Flag",
    "Glass", "Horse", "Moon", "Star", "Phone", "Road", "Table", "Wall", "Wheel", "Wood",
)  # fmt: skip
_VERBS = ("done", "lost", "found", "seen", "sold", "made")
_N_SHOWN = 4


def _draw(members: Sequence[str], choose: random.Random, encode: Encode) -> Iterator[PromptPair]:
    names = single_tokens(_NAMES, encode, at_least=_N_SHOWN + 1)
    runs = _runs(_alike(members, encode))
    if not runs:
        raise BadInput(
            f"the model's tokenizer splits words such as {members[0]!r}: there are not "
            f"{_N_SHOWN + 1} successive ones of one length; give a file of prompts made for it"
        )
    allowed = sorted({member for run in runs for member in run}, key=members.index)
    while True:
        *shown, answer = choose.choice(runs)
        chosen = choose.sample(names, _N_SHOWN + 1)
        verb = choose.choice(_VERBS)
        yield PromptPair(
            clean=_prompt(chosen, verb, shown),
            corrupt=_prompt(chosen, verb, _disordered(choose, allowed, shown[-1])),
            correct=f" {answer}",
            wrong=f" {shown[-1]}",
        )


def _prompt(names: Sequence[str], verb: str, members: Sequence[str]) -> str:
    events = [f"{name} {verb} in {member}." for name, member in zip(names, members, strict=False)]
    return " ".join([*events, f"{names[-1]} {verb} in"])


def _disordered(choose: random.Random, members: Sequence[str], last: str) -> list[str]:
    """Draw members so that none follows its predecessor, with another last one than ``last``."""
    while True:
        places = choose.sample(range(len(members)), _N_SHOWN)
        drawn = [members[place] for place in places]
        in_order = any(after == before + 1 for before, after in pairwise(places))
        # Only the successor of the last member would reveal the clean prompt's answer.
        if not in_order and drawn[-1] != last:
            return drawn


def _alike(members: Sequence[str], encode: Encode) -> list[str | None]:
    """Keep the members with the commonest number of tokens; the smaller number if two tie."""
    lengths = [len(encode(f"in {member}")) for member in members]
    counts = Counter(lengths)
    wanted = min(counts, key=lambda length: (-counts[length], length))
    pairs = zip(members, lengths, strict=True)
    return [member if length == wanted else None for member, length in pairs]


def _runs(members: Sequence[str | None]) -> list[list[str]]:
    """Return all sequences of successive members that form one prompt and its answer."""
    size = _N_SHOWN + 1
    windows = (members[start : start + size] for start in range(len(members) - size + 1))
    whole = ([member for member in window if member is not None] for window in windows)
    return [window for window in whole if len(window) == size]


def _sequence(kind: str, members: Sequence[str], what: str) -> TaskSpec:
    return TaskSpec(
        slug=f"sequence/{kind}",
        family="sequence",
        description=f"Sequence continuation: four {what} in order; which one comes next?",
        draw=partial(_draw, members),
    )


SEQUENCES = (
    _sequence("numerals", _NUMERALS, "numerals"),
    _sequence("number-words", _NUMBER_WORDS, "number words"),
    _sequence("months", _MONTHS, "months"),
)
