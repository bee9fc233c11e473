"""Special tokens that a tokenizer puts before every text, and how prompts get them.

Gemma and Llama 3 put a BOS token there, BERT's tokenizers ``[CLS]``, ChatGLM's two tokens; those of
GPT-2 and SmolLM2 put nothing. A prompt gets all of them, once. What a tokenizer puts *after* a text
is left out: a prompt ends where the next token is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry.errors import BadInput

__all__ = ["opened", "opening_of"]

_PROBE = "a"


def opening_of(tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens that a tokenizer puts before every text, in order; () for none."""
    bare = list(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    full = list(tokenizer(_PROBE)["input_ids"])
    places = (at for at in range(len(full)) if full[at : at + len(bare)] == bare)
    return tuple(full[: next(places, 0)])


def opened(ids: Sequence[int], opening: Sequence[int]) -> tuple[int, ...]:
    """Token ids with the opening in front, unless they begin with it already.

    Raises:
        BadInput: They begin with a part of it.
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
