"""Texts as token ids that a model knows.

A tokenizer may belong to another model, or have added tokens without rows in the embedding: an id
after the last row is not a word of the model.
"""

from __future__ import annotations

from typing import Any

from registry.errors import BadInput

__all__ = ["require_known", "token_ids"]

_SHOWN = 60


def token_ids(model: Any, text: str) -> list[int]:
    """Read a text with the model's own tokenizer, without special tokens.

    Args:
        model: A TransformerLens ``TransformerBridge`` with a tokenizer.
        text: A prompt or an answer.

    Raises:
        BadInput: The tokenizer cannot read it, or gives an id that the model does not know.
    """
    try:
        ids: list[int] = list(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:  # tokenizers raise it directly
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"the model's tokenizer cannot read {text[:_SHOWN]!r}: {said}; use words that it knows"
        ) from error
    require_known(model, ids, repr(text[:_SHOWN]))
    return ids


def require_known(model: Any, ids: list[int] | tuple[int, ...], what: str) -> None:
    """Refuse token ids that the model does not have.

    Args:
        model: The bridge.
        ids: Token ids.
        what: Their text, for the error.

    Raises:
        BadInput: An id is beyond the vocabulary.
    """
    n_words = int(model.cfg.d_vocab)
    unknown = next((each for each in ids if each >= n_words), None)
    if unknown is not None:
        raise BadInput(
            f"the tokenizer gives token {unknown} ({_word(model, unknown)}) for {what}, but the "
            f"model knows only 0 to {n_words - 1}; give the tokenizer that belongs to the model, "
            "or texts without that token"
        )


def _word(model: Any, token: int) -> str:
    return repr(model.tokenizer.convert_ids_to_tokens(token))
