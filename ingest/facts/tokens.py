"""Facts as token ids of a model, with the place of the last token of the subject.

The place is found by the characters that each token stands for, if the tokenizer tells them. Else
the text is cut after the subject, and the tokens of the cut text must begin those of the whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.facts.base import Fact, as_answer
from ingest.tokens.openings import opened, opening_of
from ingest.tokens.token_ids import require_known, token_ids
from registry.errors import BadInput

__all__ = ["FactTokens", "tokenised"]

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class FactTokens:
    """A fact as token ids; prompts begin with what the tokenizer puts before every text.

    Attributes:
        prompt: The prompt with its subject.
        subject_last: Index in ``prompt`` of the last token of the subject.
        target_new: The answer after the edit, as it follows the prompt.
        target_true: The answer now, as it follows the prompt; None if it is not known.
        paraphrases: The other prompts with the same meaning.
        neighbours: The prompts about similar subjects.
    """

    prompt: tuple[int, ...]
    subject_last: int
    target_new: tuple[int, ...]
    target_true: tuple[int, ...] | None
    paraphrases: tuple[tuple[int, ...], ...]
    neighbours: tuple[tuple[int, ...], ...]


def tokenised(model: Any, fact: Fact) -> FactTokens:
    """Read a fact with the model's own tokenizer.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        fact: The fact.

    Raises:
        BadInput: The model has no tokenizer, a text has no tokens or tokens that the model does not
            know, or the last token of the subject cannot be told.
    """
    if getattr(model, "tokenizer", None) is None:
        raise BadInput("the model has no tokenizer to read facts with; give a model with one")
    opening = opening_of(model.tokenizer)
    require_known(model, opening, "the beginning of every text")
    ids = _ids(model, fact.text, "the prompt")
    prompt = opened(ids, opening)
    true = fact.target_true
    return FactTokens(
        prompt=prompt,
        subject_last=len(prompt) - len(ids) + _subject_last(model, fact, ids),
        target_new=_answer(model, fact.text, ids, fact.target_new, "target_new"),
        target_true=None if true is None else _answer(model, fact.text, ids, true, "target_true"),
        paraphrases=_prompts(model, fact.paraphrases, opening, "a paraphrase"),
        neighbours=_prompts(model, fact.neighbours, opening, "a neighbour"),
    )


def _ids(model: Any, text: str, what: str) -> list[int]:
    ids = token_ids(model, text)
    if not ids:
        raise BadInput(
            f"{what} {text[:_SHOWN]!r} has no tokens; use words that the tokenizer knows"
        )
    return ids


def _prompts(
    model: Any, texts: Sequence[str], opening: Sequence[int], what: str
) -> tuple[tuple[int, ...], ...]:
    return tuple(opened(_ids(model, text, what), opening) for text in texts)


def _answer(
    model: Any, prompt: str, before: Sequence[int], target: str, what: str
) -> tuple[int, ...]:
    """Return the tokens of a target as they follow the prompt.

    Some tokenizers put a space before every text, and would read the target alone as with two. So
    it is read after the prompt, unless it changes the prompt's own tokens.
    """
    alone = _ids(model, as_answer(target), what)
    both = token_ids(model, prompt + as_answer(target))
    return tuple(both[len(before) :] if _begins(both, before) else alone) or tuple(alone)


def _begins(ids: Sequence[int], first: Sequence[int]) -> bool:
    return list(ids[: len(first)]) == list(first)


def _subject_last(model: Any, fact: Fact, ids: Sequence[int]) -> int:
    """Return the index of the subject's last token among the tokens of the prompt's text."""
    spans = _spans(model.tokenizer, fact.text, ids)
    return _by_cutting(model, fact, ids) if spans is None else _by_spans(model, fact, ids, spans)


def _spans(tokenizer: Any, text: str, ids: Sequence[int]) -> Sequence[tuple[int, int]] | None:
    """Return the first and the last character of each token; None if they are not told."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans: list[tuple[int, int]] = [tuple(span) for span in read["offset_mapping"]]
    told = list(read["input_ids"]) == list(ids) and any(end > start for start, end in spans)
    return spans if told else None


def _by_spans(model: Any, fact: Fact, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> int:
    start, end = fact.subject_end - len(fact.subject), fact.subject_end
    within = [at for at, (first, last) in enumerate(spans) if first < end and last > start]
    if not within:
        raise _untold(fact, "no token stands for it")
    if spans[within[-1]][1] > end:
        raise _straddling(model, fact, ids[within[-1]])
    return within[-1]


def _by_cutting(model: Any, fact: Fact, ids: Sequence[int]) -> int:
    cut = token_ids(model, fact.text[: fact.subject_end])
    before = token_ids(model, fact.text[: fact.subject_end - len(fact.subject)])
    n_common = _n_common(cut, ids)
    if n_common < len(cut):
        raise _straddling(model, fact, ids[min(n_common, len(ids) - 1)])
    if n_common <= _n_common(before, ids):
        raise _untold(fact, "no token stands for it")
    return n_common - 1


def _n_common(some: Sequence[int], others: Sequence[int]) -> int:
    """Return with how many equal tokens two texts begin."""
    pairs = enumerate(zip(some, others, strict=False))
    differs = (at for at, (one, other) in pairs if one != other)
    return next(differs, min(len(some), len(others)))


def _straddling(model: Any, fact: Fact, token: int) -> BadInput:
    word = model.tokenizer.convert_ids_to_tokens(token)
    return _untold(fact, f"the token {word!r} holds its end and what follows")


def _untold(fact: Fact, why: str) -> BadInput:
    return BadInput(
        f"the last token of the subject {fact.subject[:_SHOWN]!r} in {fact.text[:_SHOWN]!r} "
        f"cannot be told: {why}; give a prompt with a space after the subject, and none at its end"
    )
