"""Prompt sets: the prompts of a task on which a model is studied, and their file.

Only prompts that the model answers correctly are kept (the correct answer has a larger logit than
the wrong one). The file is canonical JSON Lines, a header and one line per pair, and its SHA-256 is
the prompt set's id: equal prompts, model and BOS policy always give the same file. Further wrong
answers, labels and the split are written only if there are any, so sets without them keep their
ids. Sets with several wrong answers have a separate format, because a reader that uses only the
first would measure something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from ingest.tasks.base import Encode, PromptPair, PromptSource, TokenPair
from ingest.tasks.splits import Split, read_split
from ingest.tokens.openings import opened
from registry.canonical import canonical_json
from registry.errors import BadInput, TooFewPrompts
from registry.files.prompt_files import Pairs
from registry.records import PromptSet

__all__ = [
    "Judge",
    "KeptPrompts",
    "Verdict",
    "keep_answered",
    "read_kept",
    "split_of_kept",
    "with_opening",
]

_FORMAT = "circuits-prompts/1"
_SEVERAL_WRONG = "circuits-prompts/2"
_TEXTS = ("clean", "corrupt", "correct", "wrong")
_FEWEST_AT_ONCE, _MOST_AT_ONCE = 8, 32
_DRAWN_PER_KEPT = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """A model's answer to a clean prompt.

    Attributes:
        correct: Whether the correct answer has a larger logit than every wrong one.
        top1: Whether the correct answer has a larger logit than every other token.
    """

    correct: bool
    top1: bool


Judge = Callable[[Sequence[TokenPair]], Sequence[Verdict]]
"""Runs a model; one verdict per pair, in their order."""


@dataclass(frozen=True)
class KeptPrompts:
    """The prompts that a model answers correctly, as the model receives them.

    Attributes:
        task: Slug of the task.
        model: Slug of the model that answered.
        bos: Whether special tokens, such as BOS, were prepended; they are among the pairs' ids.
        seed: Seed of the draw; None if they come from a file.
        pairs: The kept pairs, in the order of drawing.
        share_correct: Share of the drawn prompts, 0 to 1; None if the model was not run.
        share_top1: Share of the drawn prompts, 0 to 1; None if the model was not run.
        n_drawn: Number of drawn prompts.
        split: The part of all prompts that it is; None for all prompts.
    """

    task: str
    model: str
    bos: bool
    seed: int | None
    pairs: tuple[TokenPair, ...]
    share_correct: float | None
    share_top1: float | None
    n_drawn: int
    split: Split | None = None

    @cached_property
    def texts(self) -> Pairs:
        """Return the clean and corrupt texts, independent of their order."""
        return frozenset((pair.text.clean, pair.text.corrupt) for pair in self.pairs)

    @cached_property
    def artifact(self) -> bytes:
        """Return the file of the prompts."""
        several = any(pair.more_wrong for pair in self.pairs)
        header: dict[str, object] = {
            "format": _SEVERAL_WRONG if several else _FORMAT,
            "task": self.task,
            "model": self.model,
            "bos": self.bos,
        }
        if self.split is not None:
            header["split"] = self.split.document
        lines = [header, *(_line(pair) for pair in self.pairs)]
        return "".join(f"{canonical_json(line)}\n" for line in lines).encode()

    @cached_property
    def record(self) -> PromptSet:
        """Return the record that the ledger keeps."""
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


def with_opening(encode: Encode, opening: Sequence[int]) -> Encode:
    """Return a tokenizer that prepends special tokens, unless a text begins with them.

    Prompts are compared with these tokens, because one prompt of a pair may already have them. A
    text without tokens stays empty.
    """

    def encode_opened(text: str) -> Sequence[int]:
        ids = encode(text)
        return opened(ids, opening) if ids else ids

    for name in ("unknown", "unknown_text"):
        if hasattr(encode, name):
            setattr(encode_opened, name, getattr(encode, name))
    return encode_opened


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
    """Draw prompts until ``n`` are kept, eight times as many are drawn, or there are no more.

    Args:
        source: The task.
        judge: The model.
        encode: The model's tokenizer.
        model: The model's slug.
        opening: Special tokens prepended to every prompt, such as BOS; () for none.
        seed: Determines the drawn prompts; None for a file, which is used in its order.
        n: Number of prompts to keep; None for all.
        at_least: Minimum number of kept prompts.

    Raises:
        TooFewPrompts: Fewer than ``at_least`` are kept; the text gives the number.
        BadInput: A prompt cannot be used with this tokenizer, or the task has no prompts for it.
    """
    drawn = source.stream(seed or 0, with_opening(encode, opening))
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
        raise BadInput(f"no prompts of the task {source.slug} fit this model's tokenizer")
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
        split=getattr(source, "split", None),
    )


def read_kept(artifact: bytes) -> tuple[TokenPair, ...]:
    """Return the pairs of a file that :attr:`KeptPrompts.artifact` wrote.

    Raises:
        BadInput: It is not such a file.
    """
    try:
        header, *lines = [json.loads(line) for line in artifact.decode().splitlines()]
        pairs = tuple(_pair(line) for line in lines)
        several = any(pair.more_wrong for pair in pairs)
        if header.get("format") == (_SEVERAL_WRONG if several else _FORMAT):
            return pairs
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BadInput(
        f"the prompts are not kept as {_FORMAT} or {_SEVERAL_WRONG}, so they cannot be read again"
    )


def split_of_kept(artifact: bytes) -> Split | None:
    """Return the part of a task's prompts in a file of :attr:`KeptPrompts.artifact`; None: all.

    Raises:
        BadInput: It is not such a file.
    """
    try:
        return read_split(json.loads(artifact.partition(b"\n")[0]).get("split"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"the prompts have no header of {_FORMAT} or {_SEVERAL_WRONG}") from error


def _how_many(n: int | None, n_kept: int) -> int:
    """Return how many prompts to draw next: the missing number, within bounds."""
    missing = _MOST_AT_ONCE if n is None else n - n_kept
    return max(_FEWEST_AT_ONCE, min(missing, _MOST_AT_ONCE))


def _require_enough(task: str, model: str, n_kept: int, n_asked: int, at_least: int) -> None:
    if n_kept < at_least:
        # Without a single prompt there is nothing to explain, for any requested number.
        fewer = f", or --min-prompts {n_kept}" if n_kept else ""
        raise TooFewPrompts(
            f"{model} puts the correct answer above the wrong one in {n_kept} of {n_asked} prompts "
            f"of {task}; at least {at_least} {'is' if at_least == 1 else 'are'} needed. Try other "
            f"prompts, another task or model, or another BOS policy{fewer}"
        )


def _line(pair: TokenPair) -> dict[str, object]:
    text = pair.text
    line: dict[str, object] = {name: getattr(text, name) for name in _TEXTS}
    line |= {
        "clean_ids": list(pair.clean),
        "corrupt_ids": list(pair.corrupt),
        "correct_id": pair.correct,
        "wrong_id": pair.wrong,
    }
    if text.more_wrong:
        line |= {"more_wrong": list(text.more_wrong), "more_wrong_ids": list(pair.more_wrong)}
    if text.labels:
        line["labels"] = dict(text.labels)
    return line


def _pair(line: dict[str, Any]) -> TokenPair:
    return TokenPair(
        text=PromptPair(
            **{name: line[name] for name in _TEXTS},
            more_wrong=tuple(line.get("more_wrong", ())),
            labels=line.get("labels", {}),
        ),
        clean=tuple(line["clean_ids"]),
        corrupt=tuple(line["corrupt_ids"]),
        correct=line["correct_id"],
        wrong=line["wrong_id"],
        more_wrong=tuple(line.get("more_wrong_ids", ())),
    )
