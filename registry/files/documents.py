"""Circuits read from their artifacts: canonical JSON, parsed in pieces.

:attr:`registry.records.Circuit.document` writes the JSON. If pydantic parses a whole document, it
keeps a tree of the document in memory in addition to the records, twice as large as the records.
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
# In compact JSON, a quote within a text is escaped, and a closing quote is followed by punctuation.
# Therefore neither of these patterns can match in a text, or begin in a text.
_BETWEEN = re.compile(rb'(?<=\}),(?=\{"[a-z])')
_END = re.compile(rb'(?<=\})\](?=,"[a-z])')


def read_circuit(
    document: bytes, *, stored: bool = False, piece_bytes: int = _PIECE_BYTES
) -> Circuit:
    """The circuit of a document.

    Args:
        document: Canonical JSON. Other JSON of a circuit is read at once, not in pieces.
        stored: The document comes from this registry's artifacts, so present limits do not apply.
        piece_bytes: Size of the parsed pieces.

    Raises:
        ValidationError: It is not a circuit.
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
        return Circuit.model_validate_json(document, context=context)  # which reports the problem
    return Circuit.model_validate({**rest, "edges": edges}, context=context)


def _pieces(document: bytes, start: int, end: int, piece_bytes: int) -> Iterator[bytes]:
    """Parts of a list's inside, cut between its objects."""
    while start < end:
        cut = _BETWEEN.search(document, min(start + piece_bytes, end), end)
        stop = cut.start() if cut else end
        yield document[start:stop]
        start = stop + 1
