"""Circuits as they are read back from their artifacts: canonical JSON, a piece at a time.

:attr:`registry.records.Circuit.document` writes it. Pydantic, given a document whole, holds a tree
of all of it beside the records it makes, twice as large as these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pydantic import TypeAdapter

from registry.limits import STORED
from registry.records import Circuit, Edge

__all__ = ["read_circuit"]

_PIECE_BYTES = 1 << 20
_EDGES = TypeAdapter(list[Edge])
_START = re.compile(rb'\{(?:"ablation":"[a-z]+",)?"edges":\[(?=\{)')
# In compact JSON a quote within a text is escaped, and one that ends it is followed by a mark; so
# neither of these can stand in a text, nor begin in one.
_BETWEEN = re.compile(rb'(?<=\}),(?=\{"[a-z])')
_END = re.compile(rb'(?<=\})\](?=,"[a-z])')


def read_circuit(
    document: bytes, *, stored: bool = False, piece_bytes: int = _PIECE_BYTES
) -> Circuit:
    """The circuit that a document is of.

    Args:
        document: Canonical JSON; other JSON of a circuit is read whole.
        stored: It comes from this registry's own artifacts, so that no limit of today holds.
        piece_bytes: How much is parsed at a time.

    Raises:
        ValidationError: It is none.
    """
    context = STORED if stored else None
    start = _START.match(document) if len(document) > piece_bytes else None
    end = _END.search(document, start.end()) if start else None
    if start is None or end is None:
        return Circuit.model_validate_json(document, context=context)
    edges: list[Edge] = []
    for piece in _pieces(document, start.end(), end.start(), piece_bytes):
        edges += _EDGES.validate_json(b"[" + piece + b"]")
    try:
        rest = json.loads(document[: start.end()] + document[end.start() :])
    except (ValueError, RecursionError):
        return Circuit.model_validate_json(document, context=context)  # which says what is wrong
    return Circuit.model_validate({**rest, "edges": edges}, context=context)


def _pieces(document: bytes, start: int, end: int, piece_bytes: int) -> Iterator[bytes]:
    """Parts of a list's inside, cut between its objects."""
    while start < end:
        cut = _BETWEEN.search(document, min(start + piece_bytes, end), end)
        stop = cut.start() if cut else end
        yield document[start:stop]
        start = stop + 1
