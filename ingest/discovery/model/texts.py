"""Prompts and answers as texts, read by the model's own tokenizer.

The tokens that the tokenizer puts before every text are prepended (:mod:`ingest.tokens.openings`):
a BOS token for Gemma and Llama 3, nothing for GPT-2 and SmolLM2. They are prepended once, and
nothing is appended. For any other form, give token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ingest.tokens.openings import opened, opening_of
from ingest.tokens.token_ids import token_ids
from registry.errors import BadInput

__all__ = ["Prompts", "answer_ids", "as_tokens"]

Prompts = Tensor | Sequence[str]
"""Prompts: texts, or token ids ``[prompt, position]``."""

_SHOWN = 60


def as_tokens(
    model: Any,
    prompts: Prompts,
    counterparts: Prompts | None,
    attention_mask: Tensor | None,
    *,
    names: tuple[str, str, str] = ("clean", "corrupt", "attention_mask"),
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return prompts, counterparts and the mask of both as tensors; tensors stay unchanged.

    Args:
        model: A TransformerLens ``TransformerBridge``, whose tokenizer reads texts.
        prompts: Texts of any lengths, or token ids.
        counterparts: For each prompt one with the same number of tokens, or None.
        attention_mask: Mask of token ids; texts need none.
        names: Names of these three in errors.

    Raises:
        BadInput: Texts and token ids are mixed, a text is empty, a pair differs in its number of
            tokens, or the model has no tokenizer.
    """
    both = (prompts,) if counterparts is None else (prompts, counterparts)
    listed = [isinstance(one, Sequence) for one in both]
    if not any(listed):
        return prompts, counterparts, attention_mask  # type: ignore[return-value]
    if not all(listed):
        raise BadInput(
            f"{names[0]} and {names[1]} must both be texts, or both token ids; use one kind"
        )
    if attention_mask is not None:
        raise BadInput(f"{names[2]} belongs to token ids; omit it if prompts are texts")
    ids = [
        _read_all(model, one, name)  # type: ignore[arg-type]
        for one, name in zip(both, names[:2], strict=False)
    ]
    if len(ids) == 2:
        _check_pairs(both, ids, names)  # type: ignore[arg-type]
    lengths = torch.tensor([len(row) for row in ids[0]])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    tensors = [_padded(rows) for rows in ids]
    return tensors[0], tensors[1] if len(tensors) == 2 else None, mask


def answer_ids(model: Any, answers: Sequence[str], name: str) -> Tensor:
    """Return token ids of answers, ``[prompt]``; written as they follow a prompt: ``" Mary"``.

    Raises:
        BadInput: An answer is not one token, or the model has no tokenizer.
    """
    _check_texts(answers, name)
    _tokenizer(model)
    found = []
    for place, answer in enumerate(answers):
        ids = token_ids(model, answer)
        if len(ids) != 1:
            raise BadInput(
                f"{name} {place} (counted from 0) is {len(ids)} tokens, {answer!r}; an answer is "
                "one token, written as it follows the prompt, mostly with a space in front"
            )
        found.append(ids[0])
    return torch.tensor(found)


def _tokenizer(model: Any) -> Any:
    found = getattr(model, "tokenizer", None)
    if found is None:
        raise BadInput("the model has no tokenizer to read texts with; give token ids")
    return found


def _check_texts(texts: Sequence[str], name: str) -> None:
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadInput(
            f"{name} must be a list of texts, one for each prompt, or token ids as a tensor; got "
            f"{texts!r:.60}"
        )


def _read_all(model: Any, texts: Sequence[str], name: str) -> list[list[int]]:
    """Return token ids of each text."""
    _check_texts(texts, name)
    opening = opening_of(_tokenizer(model))
    found = []
    for place, text in enumerate(texts):
        ids = token_ids(model, text)
        if not ids:
            raise BadInput(f"{name} {place} (counted from 0) is an empty text")
        found.append(list(opened(ids, opening)))
    return found


def _check_pairs(
    texts: tuple[Sequence[str], Sequence[str]],
    ids: Sequence[Sequence[Sequence[int]]],
    names: tuple[str, str, str],
) -> None:
    first, second = ids
    if len(first) != len(second):
        raise BadInput(
            f"{names[0]} has {len(first)} prompts and {names[1]} {len(second)}; each needs its "
            "counterpart"
        )
    for place, pair in enumerate(zip(first, second, strict=True)):
        n_tokens = [len(row) for row in pair]
        if n_tokens[0] != n_tokens[1]:
            raise BadInput(
                f"prompt {place} (counted from 0) has {n_tokens[0]} tokens in {names[0]} and "
                f"{n_tokens[1]} in {names[1]}, which must pair up token by token: "
                f"{texts[0][place][:_SHOWN]!r}, {texts[1][place][:_SHOWN]!r}"
            )


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows as one tensor; the padding is masked, so any token can be used for it."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
