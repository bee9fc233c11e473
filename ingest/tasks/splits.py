"""Train, validation and test: prompts divided by a seed, independent of their source.

A hash of a prompt's clean text with the seed determines its part. So it depends neither on the
other prompts nor on their order, and prompts with the same clean text are in the same part. A file
of labelled prompts may be divided by a label instead: then the prompts of each value are sorted by
that hash and cut into the shares, so every part has the same proportion of every value. This
depends on the other prompts, but not on their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from typing import Any

from ingest.tasks.base import Encode, PromptPair, PromptSource, TokenPair
from ingest.tasks.user_file import PromptFile
from registry.canonical import canonical_json
from registry.errors import BadInput
from registry.texts.words import listed

__all__ = ["SHARES", "Part", "Split", "SplitTask", "part_of", "read_split", "split_source"]


class Part(StrEnum):
    """A part of all prompts."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


SHARES: Mapping[Part, float] = {Part.TRAIN: 0.6, Part.VALIDATION: 0.2, Part.TEST: 0.2}
"""Share of the prompts that is in each part."""
_BYTES = 8


@dataclass(frozen=True, slots=True)
class Split:
    """One part of divided prompts.

    Attributes:
        part: The part.
        seed: Determines the part of each prompt.
        by: Label whose values are divided in equal proportions; None for all prompts together.
    """

    part: Part
    seed: int = 0
    by: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """Return its description in the file of the prompts."""
        shares = {str(part): share for part, share in SHARES.items()}
        by = {} if self.by is None else {"by": self.by}
        return {"part": str(self.part), "seed": self.seed, "shares": shares, **by}


def read_split(document: Mapping[str, Any] | None) -> Split | None:
    """Return the split of a :attr:`Split.document`; None for None.

    Raises:
        KeyError, ValueError: It is not such a document.
    """
    if document is None:
        return None
    return Split(Part(document["part"]), int(document["seed"]), document.get("by"))


@dataclass(frozen=True, slots=True)
class SplitTask:
    """A part of a task's prompts, which are drawn without end."""

    task: PromptSource
    split: Split

    @property
    def slug(self) -> str:
        """The task's."""
        return self.task.slug

    @property
    def family(self) -> str:
        """The task's."""
        return self.task.family

    @property
    def description(self) -> str:
        """The task's."""
        return self.task.description

    def stream(self, seed: int, encode: Encode) -> Iterator[TokenPair]:
        """Yield the pairs of the task's stream that are in the part, in its order."""
        for pair in self.task.stream(seed, encode):
            if part_of(pair.text.clean, self.split.seed) is self.split.part:
                yield pair


def part_of(clean: str, seed: int) -> Part:
    """Return the part of a prompt, by only its clean text."""
    return _part(_draw(clean, seed))


def split_source(source: PromptSource, split: Split) -> PromptSource:
    """Return one part of a task's or a file's prompts.

    Raises:
        BadInput: The part has no prompts; or a label should divide them, but the prompts are drawn
            or none has it.
    """
    if not isinstance(source, PromptFile):
        if split.by is not None:
            raise BadInput(
                f"prompts of {source.slug} are drawn one by one and cannot be divided by the label "
                f"{split.by!r}; use a file of prompts for this"
            )
        return SplitTask(source, split)
    parts = _parts(source, split)
    kept = tuple(line for line, part in zip(source.pairs, parts, strict=True) if part is split.part)
    if not kept:
        raise BadInput(
            f"none of the {len(source.pairs)} prompts of {source.name} is in the part "
            f"{split.part}; give more prompts or another split seed"
        )
    return replace(source, pairs=kept, split=split)


def _parts(file: PromptFile, split: Split) -> Sequence[Part]:
    pairs = [pair for _, pair in file.pairs]
    if split.by is None:
        return [part_of(pair.clean, split.seed) for pair in pairs]
    _require_label(file.name, pairs, split.by)
    strata: dict[str, set[str]] = {}
    for pair in pairs:
        strata.setdefault(_value(pair, split.by), set()).add(pair.clean)
    found: dict[tuple[str, str], Part] = {}
    for value, texts in strata.items():
        ordered = sorted(texts, key=lambda text: (_draw(text, split.seed), text))
        for place, text in enumerate(ordered):
            # The middle of its interval, so that the cut is at the nearest whole number.
            found[value, text] = _part((place + 0.5) / len(ordered))
    return [found[_value(pair, split.by), pair.clean] for pair in pairs]


def _part(place: float) -> Part:
    """Return the part at a fraction from 0 to 1."""
    ends = zip(SHARES, accumulate(SHARES.values()), strict=True)
    return next((part for part, end in ends if place < end), Part.TEST)


def _draw(clean: str, seed: int) -> float:
    """Return a number from 0 to 1 that depends on text and seed."""
    digest = hashlib.sha256(f"split:{seed}:{clean}".encode()).digest()
    return int.from_bytes(digest[:_BYTES]) / float(256**_BYTES)


def _value(pair: PromptPair, label: str) -> str:
    """Return a label's value as text that distinguishes 1 and true; equal without the label."""
    return canonical_json(pair.labels.get(label))


def _require_label(name: str, pairs: Sequence[PromptPair], label: str) -> None:
    labels = sorted({known for pair in pairs for known in pair.labels})
    if label not in labels:
        has = f"its labels are {listed(labels)}" if labels else "it has no labels"
        raise BadInput(f"no prompt of {name} has the label {label!r}; {has}")
