"""Prompt sets: which prompts of a task a model is studied on, and the file that keeps them.

Only prompts that the model answers rightly (the correct answer above the wrong one) are kept.
The file is canonical JSON Lines, a header and one line per pair, and its SHA-256 is the prompt
set's id: the same prompts, model and BOS policy always make the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Any

from ingest.openings import opened
from ingest.tasks.base import Encode, PromptPair, PromptSource, TokenPair
from registry.errors import BadInput, TooFewPrompts
from registry.records import PromptSet, canonical_json

__all__ = ["Judge", "KeptPrompts", "Verdict", "keep_answered", "read_kept", "with_opening"]

_FORMAT = "circuits-prompts/1"
_FEWEST_AT_ONCE, _MOST_AT_ONCE = 8, 32
_DRAWN_PER_KEPT = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a model answers a clean prompt.

    Attributes:
        correct: The correct answer stands above the wrong one.
        top1: The correct answer stands above every other token.
    """

    correct: bool
    top1: bool


Judge = Callable[[Sequence[TokenPair]], Sequence[Verdict]]
"""Asks a model; one verdict per pair, in their order."""


@dataclass(frozen=True)
class KeptPrompts:
    """The prompts a model answers, as they go into it.

    Attributes:
        task: Slug of the task.
        model: Slug of the model that answered.
        bos: Whether special tokens, such as BOS, were put in front; they are among the pairs' ids.
        seed: What they were drawn with; None where they come from a file.
        pairs: Those kept, in the order drawn.
        share_correct: Of the drawn prompts, 0 to 1; None where the model was not asked.
        share_top1: Of the drawn prompts, 0 to 1; None where the model was not asked.
        n_drawn: How many were drawn.
    """

    task: str
    model: str
    bos: bool
    seed: int | None
    pairs: tuple[TokenPair, ...]
    share_correct: float | None
    share_top1: float | None
    n_drawn: int

    @cached_property
    def artifact(self) -> bytes:
        """The file that keeps them."""
        header = {"format": _FORMAT, "task": self.task, "model": self.model, "bos": self.bos}
        lines = [header, *(_line(pair) for pair in self.pairs)]
        return "".join(f"{canonical_json(line)}\n" for line in lines).encode()

    @cached_property
    def record(self) -> PromptSet:
        """What the ledger keeps of them."""
        address = hashlib.sha256(self.artifact).hexdigest()
        return PromptSet(
            id=address,
            task=self.task,
            seed=self.seed,
            n_prompts=len(self.pairs),
            bos=self.bos,
            tokenizer=self.model,
            model=self.model,
            share_correct=self.share_correct,
            share_top1=self.share_top1,
            artifact=address,
        )


def with_opening(pairs: Iterator[TokenPair], opening: Sequence[int]) -> Iterator[TokenPair]:
    """Put special tokens before both prompts of every pair, unless they are there."""
    for pair in pairs:
        clean, corrupt = (opened(ids, opening) for ids in (pair.clean, pair.corrupt))
        yield TokenPair(pair.text, clean, corrupt, pair.correct, pair.wrong)


def keep_answered(
    source: PromptSource,
    judge: Judge,
    *,
    encode: Encode,
    model: str,
    opening: Sequence[int],
    seed: int | None,
    n: int | None,
    at_least: int,
) -> KeptPrompts:
    """Draw prompts until ``n`` are kept, or eight times as many were drawn, or there are no more.

    Args:
        source: The task.
        judge: The model.
        encode: The model's tokenizer.
        model: The model's slug.
        opening: Special tokens put before every prompt, such as BOS; () for none.
        seed: Decides which prompts are drawn; None for a file, which is taken in its order.
        n: How many to keep; None for all there are.
        at_least: Fewer are too few.

    Raises:
        TooFewPrompts: Fewer than ``at_least`` are kept; the text says how many.
        BadInput: A prompt cannot be used with this tokenizer, or the task has none for it.
    """
    drawn = with_opening(source.stream(seed or 0, encode), opening)
    asked: list[TokenPair] = []
    verdicts: list[Verdict] = []
    kept: list[TokenPair] = []
    limit = None if n is None else _DRAWN_PER_KEPT * max(n, _MOST_AT_ONCE)
    remaining = islice(drawn, limit)
    while chunk := list(islice(remaining, _how_many(n, len(kept)))):
        answers = judge(chunk)
        asked += chunk
        verdicts += answers
        kept += [pair for pair, said in zip(chunk, answers, strict=True) if said.correct]
        if n is not None and len(kept) >= n:
            break
    if not asked:
        raise BadInput(f"the task {source.slug} has no prompts that this model's tokenizer fits")
    _require_enough(source.slug, model, len(kept), len(asked), at_least)
    return KeptPrompts(
        task=source.slug,
        model=model,
        bos=bool(opening),
        seed=seed,
        pairs=tuple(kept[:n]),
        share_correct=sum(said.correct for said in verdicts) / len(verdicts),
        share_top1=sum(said.top1 for said in verdicts) / len(verdicts),
        n_drawn=len(asked),
    )


def read_kept(artifact: bytes) -> tuple[TokenPair, ...]:
    """The pairs of a file that :attr:`KeptPrompts.artifact` wrote.

    Raises:
        BadInput: It is no such file.
    """
    try:
        header, *lines = [json.loads(line) for line in artifact.decode().splitlines()]
        if header.get("format") == _FORMAT:
            return tuple(_pair(line) for line in lines)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BadInput(f"the prompts are not kept as {_FORMAT}, so that they cannot be read again")


def _how_many(n: int | None, n_kept: int) -> int:
    """How many prompts to draw next: as many as are missing, within bounds."""
    missing = _MOST_AT_ONCE if n is None else n - n_kept
    return max(_FEWEST_AT_ONCE, min(missing, _MOST_AT_ONCE))


def _require_enough(task: str, model: str, n_kept: int, n_asked: int, at_least: int) -> None:
    if n_kept < at_least:
        raise TooFewPrompts(
            f"{model} puts the correct answer above the wrong one in {n_kept} of {n_asked} prompts "
            f"of {task}; at least {at_least} are needed. Try another task or model, another BOS "
            "policy, or ask for fewer"
        )


def _line(pair: TokenPair) -> dict[str, object]:
    ids = {
        "clean_ids": list(pair.clean),
        "corrupt_ids": list(pair.corrupt),
        "correct_id": pair.correct,
        "wrong_id": pair.wrong,
    }
    return asdict(pair.text) | ids


def _pair(line: dict[str, Any]) -> TokenPair:
    return TokenPair(
        text=PromptPair(**{field.name: line[field.name] for field in fields(PromptPair)}),
        clean=tuple(line["clean_ids"]),
        corrupt=tuple(line["corrupt_ids"]),
        correct=line["correct_id"],
        wrong=line["wrong_id"],
    )
