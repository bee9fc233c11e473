"""Circuits that may be copies: equal in all data that an exported file can hold.

Files of other tools cannot hold a circuit's prompts and full scores, and tables of edges cannot
hold roles of nodes. A circuit that was written to such a file and read again is another record,
with unknown prompts. Two runs on different prompts never give the same effects for all edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.canonical import content_hash

__all__ = ["copies_among", "fingerprint"]

_LOST = frozenset({"prompt_set", "scores", "nodes", "edges"})
_OF_NODES = ("component", "position", "effect")
_OF_EDGES = ("source", "target", "port", "effect")


def fingerprint(content: Mapping[str, Any]) -> str:
    """A hash of the data that files hold: equal for a circuit and its copies.

    Args:
        content: A circuit's content, as in its document.
    """
    kept = {name: value for name, value in content.items() if name not in _LOST}
    parts, names = ("edges", _OF_EDGES) if content["edges"] else ("nodes", _OF_NODES)
    kept["parts"] = [[part.get(name) for name in names] for part in content[parts]]
    return content_hash(kept)


def copies_among(contents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Circuits with unknown prompts that equal another circuit, with the id of that circuit.

    Args:
        contents: Contents of circuits by id; the first of equal ones without prompts is no copy.
    """
    unknown = [id for id, content in contents.items() if content.get("prompt_set") is None]
    if not unknown:
        return {}
    originals: dict[str, str] = {}
    prints = {id: fingerprint(content) for id, content in contents.items()}
    for id in sorted(prints, key=lambda id: contents[id].get("prompt_set") is None):
        originals.setdefault(prints[id], id)
    return {id: originals[prints[id]] for id in unknown if originals[prints[id]] != id}
