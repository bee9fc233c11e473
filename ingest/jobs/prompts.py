"""Prompts of jobs: read, checked against the model, kept if answered correctly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ingest.jobs.fields import DEFAULT_PROMPTS
from ingest.tasks.base import PromptSource, TokenPair
from ingest.tasks.catalogue import find_task
from ingest.tasks.prompts import KeptPrompts, keep_answered, with_opening
from ingest.tasks.splits import Part, Split, split_source
from ingest.tasks.user_file import PromptFile, read_prompt_file
from ingest.tokens.openings import opening_of
from ingest.tokens.token_ids import require_known, token_ids
from registry.errors import BadInput
from registry.records import Task

__all__ = [
    "Encoder",
    "PromptWishes",
    "SourceWishes",
    "SplitWishes",
    "check_prompts",
    "encoder",
    "keep_prompts",
    "opening_tokens",
    "prompt_source",
    "read_reference",
    "task_record",
    "wanted_split",
]


class SplitWishes(Protocol):
    """The requested part of the prompts."""

    @property
    def split(self) -> str | None:
        """``train``, ``validation`` or ``test``; None for all."""

    @property
    def split_seed(self) -> int | None:
        """Determines the part of each prompt; None for 0."""


class SourceWishes(SplitWishes, Protocol):
    """The source of prompts: a task, or a file instead."""

    @property
    def task(self) -> str | None:
        """The task, or the name of a file's task."""

    @property
    def file(self) -> Path | None:
        """A file of prompts; None to use the task's prompts."""

    @property
    def split_by(self) -> str | None:
        """Label of a file; each part gets the same mix of its values."""


class PromptWishes(Protocol):
    """The requested number of prompts."""

    @property
    def prompts(self) -> int | None:
        """Prompts to keep; None for the default number."""

    @property
    def min_prompts(self) -> int:
        """The minimum number of kept prompts, unless fewer are requested."""

    @property
    def batch_size(self) -> int | None:
        """Prompts per batch; None: as many as memory allows."""


def prompt_source(wishes: SourceWishes) -> PromptSource:
    """Return the task or the file of the prompts.

    Raises:
        NotFound: No such task exists.
        BadInput: The file is malformed, or its requested part has no prompts.
    """
    source: PromptSource
    if wishes.file is not None:
        source = read_prompt_file(wishes.file, wishes.task)
    else:
        source = find_task(wishes.task or "")
    split = wanted_split(wishes, wishes.split_by)
    return source if split is None else split_source(source, split)


def wanted_split(wishes: SplitWishes, by: str | None = None) -> Split | None:
    """Return the requested part of the prompts; None for all of them."""
    if wishes.split is None:
        return None
    return Split(Part(wishes.split), wishes.split_seed or 0, by)


def task_record(source: PromptSource) -> Task:
    """Return the ledger's record of a task."""
    return Task(slug=source.slug, family=source.family, description=source.description)


def opening_tokens(bridge: Any, wanted: bool | None) -> tuple[int, ...]:
    """Return special tokens before prompts: those that the tokenizer puts before every text.

    Args:
        bridge: The model.
        wanted: False for none; True for a BOS token even if the tokenizer prepends nothing.

    Raises:
        BadInput: The model has no tokenizer, its tokenizer has no BOS token although one is
            requested, or the model does not know the token.
    """
    if bridge.tokenizer is None:
        raise BadInput("the model has no tokenizer, so prompts cannot be read; add its files")
    opening = () if wanted is False else opening_of(bridge.tokenizer)
    if wanted and not opening:
        bos: int | None = bridge.tokenizer.bos_token_id
        if bos is None:
            raise BadInput("the model's tokenizer has no BOS token; turn it off with --no-bos")
        opening = (bos,)
    require_known(bridge, opening, "the beginning of every text")
    return opening


def check_prompts(bridge: Any, source: PromptSource, seed: int, opening: Sequence[int]) -> None:
    """Read all prompts of a file, or the first prompt of a task, to find faults.

    Raises:
        BadInput: A prompt of a file, or the task, does not fit the tokenizer; or a prompt is too
            long for the model.
    """
    longest = bridge.cfg.n_ctx
    drawn = source.stream(seed, with_opening(encoder(bridge), opening))
    file = source if isinstance(source, PromptFile) else None
    lines = [""] if file is None else [f"{file.name}, line {line}: " for line, _ in file.pairs]
    if not (read := list(zip(lines, drawn, strict=False))):
        raise BadInput(f"no prompt of {source.slug} fits the model's tokenizer")
    for where, pair in read:
        if len(pair.clean) > longest:
            raise BadInput(
                f"{where}a prompt has {len(pair.clean)} tokens, but the model reads at most "
                f"{longest}: {pair.text.clean[:60]!r}..."
            )


def read_reference(
    bridge: Any, path: Path, task: str | None, *, model: str, opening: Sequence[int]
) -> tuple[PromptFile, KeptPrompts]:
    """Read a file whose clean prompts are a reference; the model's answers do not matter.

    The prompts belong to ``task`` unless the file names another task.

    Raises:
        BadInput: The file is malformed, or a prompt of it does not fit the tokenizer.
    """
    file = read_prompt_file(path, default_task=task)
    check_prompts(bridge, file, 0, opening)
    kept = tuple(file.stream(0, with_opening(encoder(bridge), opening)))
    return file, KeptPrompts(
        task=file.slug,
        model=model,
        bos=bool(opening),
        seed=None,
        pairs=kept,
        share_correct=None,
        share_top1=None,
        n_drawn=len(kept),
    )


def keep_prompts(
    bridge: Any,
    source: PromptSource,
    wishes: PromptWishes,
    *,
    model: str,
    opening: Sequence[int],
    seed: int,
) -> KeptPrompts:
    """Draw prompts with one seed and keep those that the model answers correctly.

    Raises:
        TooFewPrompts: It answers too few correctly.
    """
    from ingest.jobs.answering import judge

    file = source if isinstance(source, PromptFile) else None
    asked = wishes.prompts or (DEFAULT_PROMPTS if file is None else None)
    available = [n for n in (asked, None if file is None else len(file)) if n]
    return keep_answered(
        source,
        judge(bridge, wishes.batch_size),
        encode=encoder(bridge),
        model=model,
        opening=opening,
        seed=seed if file is None else None,
        n=asked,
        at_least=min([wishes.min_prompts, *available]),
    )


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model's tokenizer as tasks use it: text to token ids, without additional tokens.

    Attributes:
        bridge: The model.
        unknown: Id of the tokenizer's token for unknown words; None if it has no such token.
        unknown_text: The text of this token, such as ``<unk>``.
    """

    bridge: Any
    unknown: int | None
    unknown_text: str

    def __call__(self, text: str) -> Sequence[int]:
        """Return the token ids of a text."""
        return token_ids(self.bridge, text)

    def misses(self, pair: TokenPair) -> bool:
        """Return whether a word of a pair's prompts is read as the unknown token."""
        return any(
            self.unknown in ids and self.unknown_text not in text
            for ids, text in ((pair.clean, pair.text.clean), (pair.corrupt, pair.text.corrupt))
        )


def encoder(bridge: Any) -> Encoder:
    """Return the encoder of a model that has a tokenizer."""
    tokenizer = bridge.tokenizer
    unknown = getattr(tokenizer, "unk_token_id", None)
    # A tokenizer of bytes knows every word. Its unknown token is the one that ends texts (GPT-2).
    if unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        unknown = None
    return Encoder(bridge, unknown, str(getattr(tokenizer, "unk_token", "")))
