"""Prompts of the job ``edge-attribution``: read, checked against the model, kept if answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from ingest.jobs.edge_configuration import EdgeAttributionConfiguration
from ingest.jobs.fields import DEFAULT_PROMPTS
from ingest.openings import opened, opening_of
from ingest.tasks.base import PromptSource, TokenPair
from ingest.tasks.catalogue import find_task
from ingest.tasks.prompts import KeptPrompts, keep_answered, with_opening
from ingest.tasks.user_file import PromptFile, read_prompt_file
from registry.errors import BadInput
from registry.records import Task

__all__ = [
    "PromptWishes",
    "check_prompts",
    "keep_prompts",
    "opening_tokens",
    "prompt_source",
    "read_reference",
    "task_record",
]


class PromptWishes(Protocol):
    """How many prompts are asked for."""

    @property
    def prompts(self) -> int | None:
        """Prompts to keep; None for the usual number."""

    @property
    def min_prompts(self) -> int:
        """Fewer are too few, unless fewer are asked for."""

    @property
    def batch_size(self) -> int | None:
        """Prompts the model is asked at once; None: as many as memory holds."""


def prompt_source(configuration: EdgeAttributionConfiguration) -> PromptSource:
    """The task or the file that prompts come from.

    Raises:
        NotFound: There is no such task.
        BadInput: The file is malformed.
    """
    if configuration.file is not None:
        return read_prompt_file(configuration.file, configuration.task)
    return find_task(configuration.task or "")


def task_record(source: PromptSource) -> Task:
    """What the ledger keeps of a task."""
    return Task(slug=source.slug, family=source.family, description=source.description)


def opening_tokens(bridge: Any, wanted: bool | None) -> tuple[int, ...]:
    """Special tokens that prompts begin with: what the tokenizer puts before every text.

    Args:
        bridge: The model.
        wanted: False for none; True for a BOS token even where the tokenizer puts nothing.

    Raises:
        BadInput: The model has no tokenizer, or no BOS token where one is wanted.
    """
    if bridge.tokenizer is None:
        raise BadInput("the model has no tokenizer, so prompts cannot be read; add its files")
    opening = () if wanted is False else opening_of(bridge.tokenizer)
    if opening or not wanted:
        return opening
    bos: int | None = bridge.tokenizer.bos_token_id
    if bos is None:
        raise BadInput("the model's tokenizer has no BOS token; leave it out with --no-bos")
    return (bos,)


def check_prompts(bridge: Any, source: PromptSource, seed: int, opening: Sequence[int]) -> None:
    """Read the first prompts: faults of a file, or words a tokenizer splits, show here.

    Raises:
        BadInput: A prompt of a file, or the task, does not fit the tokenizer; or one is too long.
    """
    longest = bridge.cfg.n_ctx
    drawn = source.stream(seed, _encoder(bridge))
    first = next(drawn, None)
    if first is None:
        raise BadInput(f"no prompt of {source.slug} fits the model's tokenizer")
    rest: Iterator[TokenPair] = drawn if isinstance(source, PromptFile) else iter(())
    for pair in chain([first], rest):
        n_tokens = len(opened(pair.clean, opening))
        if n_tokens > longest:
            raise BadInput(
                f"a prompt has {n_tokens} tokens and the model reads at most {longest}: "
                f"{pair.text.clean[:60]!r}..."
            )


def read_reference(
    bridge: Any, path: Path, task: str | None, *, model: str, opening: Sequence[int]
) -> tuple[PromptFile, KeptPrompts]:
    """A file of prompts whose clean ones are a reference, all of them, answered rightly or not.

    They are of ``task`` unless the file names another.

    Raises:
        BadInput: The file is malformed, or a prompt of it does not fit the tokenizer.
    """
    file = read_prompt_file(path, default_task=task)
    check_prompts(bridge, file, 0, opening)
    kept = tuple(with_opening(file.stream(0, _encoder(bridge)), opening))
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
    """Draw prompts with one seed and keep those that the model answers rightly.

    Raises:
        TooFewPrompts: It answers too few.
    """
    from ingest.jobs.answering import judge

    file = source if isinstance(source, PromptFile) else None
    asked = wishes.prompts or (DEFAULT_PROMPTS if file is None else None)
    available = [n for n in (asked, None if file is None else len(file)) if n]
    return keep_answered(
        source,
        judge(bridge, wishes.batch_size),
        encode=_encoder(bridge),
        model=model,
        opening=opening,
        seed=seed if file is None else None,
        n=asked,
        at_least=min([wishes.min_prompts, *available]),
    )


def _encoder(bridge: Any) -> Any:
    def encode(text: str) -> Sequence[int]:
        ids: list[int] = bridge.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return encode
