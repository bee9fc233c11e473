"""The interface of a task: a source of prompt pairs with equal numbers of tokens.

A pair is a clean prompt, a corrupt prompt with the same number of tokens, and answers to the clean
prompt: the correct one and one or several wrong ones. Pairs are written as texts and checked as
tokens: :func:`align` accepts a pair only if every answer is one token after both prompts. This
module does not depend on a model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from registry.errors import BadInput

__all__ = [
    "Draw",
    "Encode",
    "Label",
    "PromptPair",
    "PromptSource",
    "TaskSpec",
    "TokenPair",
    "align",
    "single_tokens",
]

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, without special tokens at either end. It may have attributes
``unknown``, the id of words that the tokenizer does not know, and ``unknown_text``, its text."""

Label = str | int | float | bool
"""The possible types of a prompt's label."""

_MAX_MISSES = 2_000


@dataclass(frozen=True, slots=True)
class PromptPair:
    """A clean and a corrupt prompt, and answers to the clean prompt.

    Answers are written as they follow the prompt, so most begin with a space.

    Attributes:
        wrong: A wrong answer.
        more_wrong: Further wrong answers; a metric uses the mean of all.
        labels: Known facts about the prompt, by name: ``{"template": "ABBA", "length": 15}``.
    """

    clean: str
    corrupt: str
    correct: str
    wrong: str
    more_wrong: tuple[str, ...] = ()
    labels: Mapping[str, Label] = field(default_factory=dict, hash=False)

    @property
    def all_wrong(self) -> tuple[str, ...]:
        """Every wrong answer, at least one."""
        return (self.wrong, *self.more_wrong)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as one tokenizer reads it, without a BOS token.

    A tokenizer may split an answer, for example ``" 5"`` into a space and a digit. Then the common
    beginning of all answers is moved to the end of both prompts, and the answers differ in one
    token.

    Attributes:
        text: The pair as written.
        clean: Token ids of the clean prompt.
        corrupt: Token ids of the corrupt prompt, the same number.
        correct: Token id of the correct answer.
        wrong: Token id of the first wrong answer.
        more_wrong: Token ids of the other wrong answers.
    """

    text: PromptPair
    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    correct: int
    wrong: int
    more_wrong: tuple[int, ...] = ()

    @property
    def all_wrong(self) -> tuple[int, ...]:
        """Token ids of every wrong answer, at least one."""
        return (self.wrong, *self.more_wrong)


Draw = Callable[[random.Random, Encode], Iterator[PromptPair]]
"""Yields pairs without end; equal states of the generator give equal pairs."""


class PromptSource(Protocol):
    """A task with prompts: one of ours, or a user's file."""

    @property
    def slug(self) -> str:
        """Name under which the task is stored: ``sequence/months``."""

    @property
    def family(self) -> str:
        """Name of its group of tasks: ``sequence``."""

    @property
    def description(self) -> str:
        """The question to the model, in a sentence."""

    def stream(self, seed: int, encode: Encode) -> Iterator[TokenPair]:
        """Yield pairs without repetition, until the task has no more."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task whose prompts are generated here.

    Attributes:
        slug: Name under which the task is stored.
        family: Name of its group of tasks.
        description: The question to the model, in a sentence.
        draw: The generator of its pairs.
    """

    slug: str
    family: str
    description: str
    draw: Draw

    def stream(self, seed: int, encode: Encode) -> Iterator[TokenPair]:
        """Yield pairs with equal numbers of tokens, without repeated clean prompts, to the end.

        Args:
            seed: Determines the pairs and their order.
            encode: The tokenizer.

        Raises:
            BadInput: The tokenizer splits too many of the words that the task needs.
        """
        seen: set[str] = set()
        misses = 0
        # A text seeds the generator in the same way in every process and version of Python.
        for pair in self.draw(random.Random(f"{self.slug}:{seed}"), encode):
            tokens = None if pair.clean in seen else _align_or_none(pair, encode)
            seen.add(pair.clean)
            misses = 0 if tokens else misses + 1
            if tokens:
                yield tokens
            elif misses == _MAX_MISSES:
                return

    def make(self, seed: int, n: int, encode: Encode) -> tuple[TokenPair, ...]:
        """Return the first ``n`` pairs of that seed; fewer if the task has no more."""
        return tuple(islice(self.stream(seed, encode), n))


def align(pair: PromptPair, encode: Encode) -> TokenPair:
    """Read a pair's tokens.

    Raises:
        BadInput: An answer is not a single token, changes the tokens of the prompt, or is a word
            that the tokenizer does not know; or the prompts differ in length.
    """
    clean, correct, wrong = _ends(pair.clean, pair, encode)
    corrupt, same_correct, same_wrong = _ends(pair.corrupt, pair, encode)
    if (correct, wrong) != (same_correct, same_wrong):
        raise BadInput(
            f"the answers {pair.correct!r} and {' and '.join(map(repr, pair.all_wrong))} become "
            "other tokens after the clean prompt than after the corrupt prompt"
        )
    if len(clean) != len(corrupt):
        raise BadInput(
            f"the clean prompt has {len(clean)} tokens, the corrupt one {len(corrupt)}; they must "
            f"be of equal length: {pair.clean!r}"
        )
    return TokenPair(pair, clean, corrupt, correct, wrong[0], wrong[1:])


def single_tokens(
    words: Sequence[str], encode: Encode, *, at_least: int, before: str = "The"
) -> list[str]:
    """Return the words that are one token after a space, in the given order.

    Args:
        words: Candidates without the space.
        encode: The tokenizer.
        at_least: Number of words that the task needs.
        before: A text before the words, for tokenizers that treat the beginning differently.

    Raises:
        BadInput: Fewer words are left.
    """
    n_before = len(encode(before))
    kept = [word for word in words if len(encode(f"{before} {word}")) == n_before + 1]
    if len(kept) < at_least:
        raise BadInput(
            f"the model's tokenizer keeps {len(kept)} of {len(words)} words such as {words[0]!r} "
            f"whole, but the task needs {at_least}; give a file of prompts made for this model"
        )
    return kept


def _align_or_none(pair: PromptPair, encode: Encode) -> TokenPair | None:
    try:
        return align(pair, encode)
    except BadInput:
        return None


def _ends(
    prompt: str, pair: PromptPair, encode: Encode
) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Read a prompt with each answer: the common tokens, and each answer's last token."""
    alone, answers = tuple(encode(prompt)), (pair.correct, *pair.all_wrong)
    if not alone:
        raise BadInput("a prompt is empty")
    unknown, as_text = getattr(encode, "unknown", None), getattr(encode, "unknown_text", "")
    read = [tuple(encode(prompt + answer)) for answer in answers]
    for answer, tokens in zip(answers, read, strict=True):
        if tokens[: len(alone)] != alone or len(tokens) == len(alone):
            raise BadInput(
                f"the answer {answer!r} has no separate tokens after {prompt!r}; write "
                "the space between them at the beginning of the answer"
            )
        if unknown is not None and unknown in tokens[len(alone) :] and as_text not in answer:
            raise BadInput(
                f"the model's tokenizer does not know the answer {answer!r} and reads it as "
                f"{as_text!r}, which any unknown word is; give an answer that it knows"
            )
    correct, *wrong = read
    for answer, tokens in zip(pair.all_wrong, wrong, strict=True):
        _check_wrong(answer, tokens, pair, correct, prompt)
    if len(set(wrong)) < len(wrong):
        twice = next(one for place, one in enumerate(wrong) if one in wrong[:place])
        answer = pair.all_wrong[wrong.index(twice)]
        raise BadInput(f"the wrong answer {answer!r} is given twice, and would count twice")
    return correct[:-1], correct[-1], tuple(tokens[-1] for tokens in wrong)


def _check_wrong(
    answer: str, tokens: tuple[int, ...], pair: PromptPair, correct: tuple[int, ...], prompt: str
) -> None:
    """Refuse a wrong answer that differs from the correct one in more than its last token."""
    if correct == tokens:
        raise BadInput(f"the correct and the wrong answer are the same: {pair.correct!r}")
    if correct[:-1] != tokens[:-1]:
        longer = pair.correct if len(correct) >= len(tokens) else answer
        raise BadInput(
            f"the answers {pair.correct!r} and {answer!r} must differ in exactly one last token "
            f"({longer!r} is several tokens); prompt: {prompt!r}"
        )
