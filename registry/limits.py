"""Maximum lengths of texts in records, in bytes of UTF-8.

Every record must fit into every store. Neo4j's index accepts an id of about 8,000 bytes,
PostgreSQL's a key of 2,704 bytes. Ids of the graph are built from names: the id of a connection
from a model's slug and two parts, the id of a node from a circuit's hash, a part and a position.
With these limits the longest id has less than 1,300 bytes.

Limits apply to records that are made, imported or changed. Records that are already in a ledger are
read at any length (:data:`STORED`), because earlier versions had no limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import AfterValidator, ValidationInfo

from registry.errors import BadInput
from registry.texts.nouns import with_article

__all__ = ["LIMITS", "MOST_SCORES", "MOST_TAGS", "STORED", "check_length", "is_stored", "limited"]

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "model's name": 200,
        "task's name": 200,
        "part's name": 500,
        "position": 500,
        "tag": 200,
        "name": 1_000,
        "attachment's name": 200,
        "media type": 200,
        "line": 1_000,
        "title": 1_000,
        "role": 10_000,
        "text": 100_000,
        "request or set of hyperparameters": 2**20,
        "set of parameters": 2**24,
    }
)
"""Maximum number of bytes by kind of text.

A part's name includes its basis or dictionary, but not its model. A name is that of a metric,
measure, method, protocol, editor, author, file, job, tokenizer, revision and similar. A text is a
note, a description or a reason. A line describes an attachment. The last two are JSON; those of an
edit are in the graph.
"""

MOST_TAGS = 1_000
"""Limit of a circuit; in the graph, they are one property of the circuit."""

MOST_SCORES = 1_000
"""Limit of an annotation, for the same reason."""

STORED: Mapping[str, bool] = MappingProxyType({"stored": True})
"""Validation context for data that is read from a ledger or its artifacts: without limits."""


def check_length(what: str, text: str) -> None:
    """Refuse a text that is longer than the limit of its kind.

    Args:
        what: One of :data:`LIMITS`.
        text: The text.

    Raises:
        BadInput: The text is too long; the message gives its length and the limit.
    """
    most = LIMITS[what]
    if 4 * len(text) <= most:  # no character has more bytes
        return
    n_bytes = len(text.encode())
    if n_bytes > most:
        shown = f"{with_article(what)} of {n_bytes:,} bytes"
        raise BadInput(f"{shown} is too long; {most:,} are allowed")


def is_stored(info: ValidationInfo) -> bool:
    """Whether the validated data was read from a store."""
    return bool((info.context or {}).get("stored"))


def limited(what: str) -> AfterValidator:
    """The limit of a text field, for its ``Annotated[str, ...]``."""

    def check(text: str, info: ValidationInfo) -> str:
        if not is_stored(info):
            check_length(what, text)
        return text

    return AfterValidator(check)
