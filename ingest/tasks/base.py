"""What a task is: a source of prompt pairs whose tokens match.

A pair is a clean prompt, a corrupt one of as many tokens, and two answers to the clean prompt, the
correct one and a wrong one. Texts come first, tokens decide: :func:`align` accepts a pair only if
both answers come out as one token in both prompts. Nothing here knows a model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from registry.errors import BadInput

__all__ = [
    "Draw",
    "Encode",
    "PromptPair",
    "PromptSource",
    "TaskSpec",
    "TokenPair",
    "align",
    "single_tokens",
]

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, without special tokens at either end."""

_MAX_MISSES = 2_000


@dataclass(frozen=True, slots=True)
class PromptPair:
    """A clean and a corrupt prompt, and two answers to the clean one.

    Answers are written as they follow the prompt, so most begin with a space.
    """

    clean: str
    corrupt: str
    correct: str
    wrong: str


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as one tokenizer reads it, without a BOS token.

    A tokenizer may split an answer, as ``" 5"`` into a space and a digit. What both answers begin
    with then stands at the end of both prompts, and the answers differ in one token.

    Attributes:
        text: The pair as written.
        clean: Token ids of the clean prompt.
        corrupt: Token ids of the corrupt prompt, as many.
        correct: Token id of the correct answer.
        wrong: Token id of the wrong answer.
    """

    text: PromptPair
    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    correct: int
    wrong: int


Draw = Callable[[random.Random, Encode], Iterator[PromptPair]]
"""Yields pairs without end; the same ones for the same state of the generator."""


class PromptSource(Protocol):
    """A task that prompts can be had of: one of ours, or a user's file."""

    @property
    def slug(self) -> str:
        """Name the task is stored under: ``sequence/months``."""

    @property
    def family(self) -> str:
        """Name of the tasks it belongs with: ``sequence``."""

    @property
    def description(self) -> str:
        """What is asked of a model, in a sentence."""

    def stream(self, seed: int, encode: Encode) -> Iterator[TokenPair]:
        """Yield pairs, none twice, until the task has no more."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task whose prompts are made here.

    Attributes:
        slug: Name the task is stored under.
        family: Name of the tasks it belongs with.
        description: What is asked of a model, in a sentence.
        draw: The maker of its pairs.
    """

    slug: str
    family: str
    description: str
    draw: Draw

    def stream(self, seed: int, encode: Encode) -> Iterator[TokenPair]:
        """Yield pairs whose tokens match, no clean prompt twice, until there are no new ones.

        Args:
            seed: Decides which pairs come and in which order.
            encode: The tokenizer.

        Raises:
            BadInput: The tokenizer splits too many of the words the task needs.
        """
        seen: set[str] = set()
        misses = 0
        # A string seeds the generator the same way in every process and version of Python.
        for pair in self.draw(random.Random(f"{self.slug}:{seed}"), encode):
            tokens = None if pair.clean in seen else _align_or_none(pair, encode)
            seen.add(pair.clean)
            misses = 0 if tokens else misses + 1
            if tokens:
                yield tokens
            elif misses == _MAX_MISSES:
                return

    def make(self, seed: int, n: int, encode: Encode) -> tuple[TokenPair, ...]:
        """Return the first ``n`` pairs of that seed, fewer if the task has no more."""
        return tuple(islice(self.stream(seed, encode), n))


def align(pair: PromptPair, encode: Encode) -> TokenPair:
    """Read a pair's tokens.

    Raises:
        BadInput: An answer is no single token, changes how the prompt before it is read, or the
            prompts differ in length.
    """
    clean, correct, wrong = _ends(pair.clean, pair, encode)
    corrupt, same_correct, same_wrong = _ends(pair.corrupt, pair, encode)
    if (correct, wrong) != (same_correct, same_wrong):
        raise BadInput(
            f"the answers {pair.correct!r} and {pair.wrong!r} are other tokens after the clean "
            "prompt than after the corrupt one"
        )
    if len(clean) != len(corrupt):
        raise BadInput(
            f"the clean prompt has {len(clean)} tokens, the corrupt one {len(corrupt)}; they must "
            f"be of equal length: {pair.clean!r}"
        )
    return TokenPair(pair, clean, corrupt, correct, wrong)


def single_tokens(
    words: Sequence[str], encode: Encode, *, at_least: int, before: str = "The"
) -> list[str]:
    """Return those words that are one token after a space, in the order given.

    Args:
        words: Candidates without the space.
        encode: The tokenizer.
        at_least: How many the task needs.
        before: A text that the words follow, for tokenizers that treat the beginning otherwise.

    Raises:
        BadInput: Fewer are left.
    """
    n_before = len(encode(before))
    kept = [word for word in words if len(encode(f"{before} {word}")) == n_before + 1]
    if len(kept) < at_least:
        raise BadInput(
            f"the model's tokenizer keeps {len(kept)} of {len(words)} words such as {words[0]!r} "
            f"whole and the task needs {at_least}; give a file of prompts made for this model"
        )
    return kept


def _align_or_none(pair: PromptPair, encode: Encode) -> TokenPair | None:
    try:
        return align(pair, encode)
    except BadInput:
        return None


def _ends(prompt: str, pair: PromptPair, encode: Encode) -> tuple[tuple[int, ...], int, int]:
    """Read a prompt with either answer: the tokens both share, and the one each ends with."""
    alone = tuple(encode(prompt))
    correct, wrong = (tuple(encode(prompt + answer)) for answer in (pair.correct, pair.wrong))
    if not alone:
        raise BadInput("a prompt is empty")
    for answer, tokens in ((pair.correct, correct), (pair.wrong, wrong)):
        if tokens[: len(alone)] != alone or len(tokens) == len(alone):
            raise BadInput(
                f"the answer {answer!r} is not read as tokens of its own after {prompt!r}; write "
                "the space between them at the beginning of the answer"
            )
    if correct == wrong:
        raise BadInput(f"the correct and the wrong answer are the same: {pair.correct!r}")
    if correct[:-1] != wrong[:-1]:
        longer = pair.correct if len(correct) >= len(wrong) else pair.wrong
        raise BadInput(
            f"the answers {pair.correct!r} and {pair.wrong!r} do not differ in one last token "
            f"({longer!r} is several); prompt: {prompt!r}"
        )
    return correct[:-1], correct[-1], wrong[-1]
