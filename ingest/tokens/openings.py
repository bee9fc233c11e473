"""Special tokens that a tokenizer puts before every text, and how prompts get them.

Gemma and Llama 3 prepend a BOS token, BERT's tokenizers ``[CLS]``, ChatGLM's two tokens; those of
GPT-2 and SmolLM2 prepend nothing. A prompt gets all of these tokens, once. Tokens that a tokenizer
appends *after* a text are omitted: the next token is predicted at the end of the prompt.

A tokenizer states this itself, by the tokens around a placeholder for any text. No fixed text works
for every tokenizer: a tokenizer of only digits returns nothing for a letter, and then only the
surrounding tokens would be left. A text that it can read must give the same tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from registry.errors import BadInput

__all__ = ["Around", "around_of", "opened", "opening_of"]

_MARK = 2**32 - 1
"""An id that represents a text: no vocabulary is this large."""
_PROBES = ("a", "0", "the", " ")
_MOST_WORDS = 200
"""Number of words of the vocabulary to try as texts if none of these can be read."""


@dataclass(frozen=True, slots=True)
class Around:
    """Ids of the tokens that a tokenizer puts around every text, in order."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def opening_of(tokenizer: Any) -> tuple[int, ...]:
    """Return ids of the tokens that a tokenizer puts before every text, in order; () for none."""
    return around_of(tokenizer).before


def around_of(tokenizer: Any) -> Around:
    """Return the tokens that a tokenizer puts around every text, for any tokenizer."""
    for way in (_by_processor, _by_building):
        found = way(tokenizer)
        if found is not None and _agrees(tokenizer, found):
            return found
    return _by_texts(tokenizer)


def opened(ids: Sequence[int], opening: Sequence[int]) -> tuple[int, ...]:
    """Return token ids with the opening prepended, unless they already begin with it.

    Raises:
        BadInput: They begin with only a part of it.
    """
    found, wanted = tuple(ids), tuple(opening)
    if not wanted or found[: len(wanted)] == wanted:
        return found
    if found[:1] == wanted[:1]:
        raise BadInput(
            f"a prompt begins with token {wanted[0]}, the first of the {len(wanted)} tokens "
            f"{list(wanted)} that the tokenizer puts before every text; give it all of them or none"
        )
    return (*wanted, *found)


def _by_processor(tokenizer: Any) -> Around | None:
    """Find them by the last step of a fast tokenizer, the only step that adds tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    if backend.post_processor is None:
        return Around()
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    stand_in = Tokenizer(WordLevel({"text": _MARK}, unk_token="text"))
    encoding = stand_in.encode("text", add_special_tokens=False)
    return _split(backend.post_processor.process(encoding, None, True).ids)


def _by_building(tokenizer: Any) -> Around | None:
    """Find them by the method of tokenizers that are written in Python."""
    with contextlib.suppress(Exception):  # some lack it, or a token that it would add
        return _split(tokenizer.build_inputs_with_special_tokens([_MARK]))
    return None


def _split(ids: Sequence[int]) -> Around | None:
    if list(ids).count(_MARK) != 1:
        return None
    at = list(ids).index(_MARK)
    return Around(tuple(ids[:at]), tuple(ids[at + 1 :]))


def _agrees(tokenizer: Any, found: Around) -> bool:
    """Return whether a text that the tokenizer reads gives these tokens; else the empty text."""
    for bare, full in _read(tokenizer):
        return full == [*found.before, *bare, *found.after]
    empty = _ids(tokenizer, "", special=True)
    return empty in (None, [], [*found.before, *found.after])


def _by_texts(tokenizer: Any) -> Around:
    """Find them by two texts: the tokens around both of them."""
    common: set[Around] | None = None
    for bare, full in islice(_read(tokenizer), 2):
        ends = [(at, at + len(bare)) for at in range(len(full))]
        fits = {
            Around(tuple(full[:at]), tuple(full[end:])) for at, end in ends if full[at:end] == bare
        }
        common = fits if common is None else common & fits
    return min(common or {Around()}, key=lambda each: len(each.before))


def _read(tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Yield texts that the tokenizer reads, each without and with the tokens around it."""
    for text in _texts(tokenizer):
        bare = _ids(tokenizer, text, special=False)
        full = _ids(tokenizer, text, special=True)
        if bare and full:
            yield bare, full


def _texts(tokenizer: Any) -> Iterator[str]:
    yield from _PROBES
    with contextlib.suppress(Exception):  # not every tokenizer lists its words
        special = set(tokenizer.all_special_tokens)
        words = [word for word in tokenizer.get_vocab() if word not in special]
        yield from sorted(words, key=len)[:_MOST_WORDS]


def _ids(tokenizer: Any, text: str, *, special: bool) -> list[int] | None:
    """Return ids of a text; None if the tokenizer fails."""
    with contextlib.suppress(Exception):  # those without a token for unknown words raise it
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])
    return None
