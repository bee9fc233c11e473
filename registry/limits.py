"""How long texts of records may be, in bytes of UTF-8.

Every record is to fit every store. Neo4j's index takes an id of some 8,000 bytes, PostgreSQL's a
key of 2,704. Ids of the graph are put together from names: that of a connection of a model's slug
and two parts, that of a node of a circuit's hash, a part and a position. With these limits the
longest is below 1,300 bytes.

Limits hold for what is made, imported or changed. What a ledger keeps already is read whatever its
length (:data:`STORED`): earlier versions had none.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import AfterValidator, ValidationInfo

from registry.errors import BadInput

__all__ = ["LIMITS", "MOST_TAGS", "STORED", "check_length", "is_stored", "limited"]

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "model's name": 200,
        "task's name": 200,
        "part's name": 500,
        "position": 500,
        "tag": 200,
        "name": 1_000,
        "title": 1_000,
        "role": 10_000,
        "text": 100_000,
        "request or set of hyperparameters": 2**20,
        "set of parameters": 2**24,
    }
)
"""Most bytes by what it is.

A part is named without its model, with its basis or dictionary. A name is that of a metric,
measure, method, protocol, editor, author, file, job, tokenizer, revision and the like; a text is a
note, a description, a reason. The last two are JSON; an edit's is in the graph.
"""

MOST_TAGS = 1_000
"""Of a circuit; they are one property of it in the graph."""

STORED: Mapping[str, bool] = MappingProxyType({"stored": True})
"""Context of validation for what is read back from a ledger or its artifacts: no limit holds."""


def check_length(what: str, text: str) -> None:
    """Refuse a text that is longer than its kind may be.

    Args:
        what: One of :data:`LIMITS`.
        text: The text.

    Raises:
        BadInput: It is; the text of the error says how long it is and may be.
    """
    most = LIMITS[what]
    if 4 * len(text) <= most:  # no character has more bytes
        return
    n_bytes = len(text.encode())
    if n_bytes > most:
        raise BadInput(f"a {what} of {n_bytes:,} bytes is too long; {most:,} are allowed")


def is_stored(info: ValidationInfo) -> bool:
    """Whether what is validated is read back from a store."""
    return bool((info.context or {}).get("stored"))


def limited(what: str) -> AfterValidator:
    """The limit of a text field, to stand in its ``Annotated[str, ...]``."""

    def check(text: str, info: ValidationInfo) -> str:
        if not is_stored(info):
            check_length(what, text)
        return text

    return AfterValidator(check)
