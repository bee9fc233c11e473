"""Circuits of Edge Pruning: its own ``edges.json``, and the JSON of its wrapper around ACDC.

``edges.json`` is ``[["writer", "reader"], ...]``: writers ``tok_embeds``, ``pos_embeds``
(``embeds`` for Llama), ``a3.h1``, ``m3``; readers ``a5.h2.q``, ``m5``, ``resid_post``. For Llama,
keys and values have the number of the key/value head, which only the user knows (``--kv-heads
grouped``). The wrapper's object has lists ``original`` and ``extra`` of ``{"from", "to"}``.
``extra`` has the links that it could not name: links inside one component, without the head's
number, and edges from the input. Neither file has scores, and both may have no edge. The list may
also be the value of an object, ``{"edges": [["writer", "reader"], ...]}``, as people keep it
together with their configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Said
from ingest.formats.contraction import notes_on_inside
from ingest.formats.reading import outer_keys, read_json
from ingest.formats.spelling import Read, read_name
from ingest.formats.tables.table import read_edges, table_circuit
from registry.errors import BadInput
from registry.identifiers import Port
from registry.texts.words import listed

__all__ = ["FORMAT", "EdgePruning"]

_PAIR = re.compile(rb'\s*\[\s*\[\s*"[^"]*"\s*,\s*"[^"]*"\s*\]')
_PAIR_IN_OBJECT = re.compile(rb'"[^"]{1,80}"\s*:\s*' + _PAIR.pattern)
_NOTHING_IN_OBJECT = re.compile(rb'\s*\{\s*"[^"]{1,80}"\s*:\s*\[\s*\]\s*\}\s*$')
_NOTHING = re.compile(rb"\s*\[\s*\]\s*$")
_IN_ATTENTION = re.compile(r"blocks\.(\d{1,9})\.(?:hook_[qkv]_input|attn\.hook_(?:[qkvz]|result))")
_IN_MLP = re.compile(r"blocks\.(\d{1,9})\.hook_mlp_(?:in|out)")
_HEAD = re.compile(r"a(\d+)\.h(\d+)")
_LISTS = ("original", "extra")
_Link = tuple[str, str, str]


class EdgePruning:
    """The format."""

    name = "edge-pruning"
    summary = "Edge Pruning's edges.json, and the JSON of its wrapper around ACDC"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure by pairs of names or the wrapper's two lists; an empty list needs the usual name."""
        if path.suffix.lower() != ".json":
            return 0.0
        head = head.removeprefix(b"\xef\xbb\xbf")
        outer = outer_keys(head)
        if _PAIR.match(head) or {"original", "extra"} <= outer:
            return 0.9
        if head.lstrip().startswith(b"{") and _PAIR_IN_OBJECT.search(head):
            return 0.85
        # In a long file the second list may be beyond the bytes that are examined.
        wrapper = "original" in outer and b'"from"' in head and b'"to"' in head
        nothing = _NOTHING.match(head) or _NOTHING_IN_OBJECT.match(head)
        return 0.8 if wrapper or (nothing and "edges" in path.stem.lower()) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read either kind; every edge between components belongs to the circuit."""
        data, notes = _listed(read_json(path, context.limits), path.name)
        links = list(_links(data, path.name))
        within = [f"{source} -> {target}" for _, source, target in links if _inside(source, target)]
        inside = list(dict.fromkeys(within))  # they repeat, as they lack the head's number
        once: dict[tuple[str, str], str] = {}
        for where, source, target in links:
            if not _inside(source, target):
                once.setdefault((source, target), where)
        rows = ((where, {"source": s, "target": t}) for (s, t), where in once.items())
        read = _reader(context.said)
        found = read_edges(rows, path.name, context, read, may_be_empty=True)
        notes += [*notes_on_inside(inside), *_notes_on_heads(links, context.said), *found.notes]
        return Imported([table_circuit(found.edges, context.said)], notes=notes)


FORMAT = EdgePruning()


def _listed(data: Any, name: str) -> tuple[Any, list[str]]:
    """Return the list of edges in an object, with notes; the wrapper's object or a list is kept.

    Raises:
        BadInput: Several of its values may be the list, or none may be.
    """
    if not isinstance(data, dict) or any(key in data for key in _LISTS):
        return data, []
    lists = [key for key, value in data.items() if isinstance(value, list)]
    pairs = [key for key in lists if data[key] and isinstance(data[key][0], list)]
    found = [key for key in ("edges",) if key in lists] or pairs or lists
    if len(found) != 1:
        lists_there = f"lists {listed([*map(repr, found)], 5)}" if found else "no list"
        raise BadInput(
            f"{name} holds {lists_there}; expected one list of edges, such as"
            ' {"edges": [["a3.h1", "a5.h2.q"]]}, or lists original and extra'
        )
    others = [f"{key!r:.40}" for key in data if key != found[0]]
    notes = [f"not read, next to {found[0]!r}: {listed(others, 5)}"] if others else []
    return data[found[0]], notes


def _links(data: Any, name: str) -> Iterator[_Link]:
    """Yield a link's place in the file, its source and its target."""
    if isinstance(data, dict):
        for key in _LISTS:
            if not isinstance(data.get(key), list):
                raise BadInput(f"{name} has no list {key!r}: expected lists original and extra")
            for number, link in enumerate(data[key], 1):
                ends = [link.get("from"), link.get("to")] if isinstance(link, dict) else link
                yield _link(ends, f"{key} {number}", name)
    elif isinstance(data, list):
        for number, link in enumerate(data, 1):
            yield _link(link, f"edge {number}", name)
    else:
        raise BadInput(f"{name} is neither a list of pairs nor an object of original and extra")


def _link(ends: Any, where: str, name: str) -> _Link:
    if isinstance(ends, list) and len(ends) == 2:
        source, target = ends
        if isinstance(source, str) and isinstance(target, str):
            return where, source, target
    raise BadInput(f"{name}, {where}: no pair of names such as a3.h1 and a5.h2.q")


def _inside(source: str, target: str) -> bool:
    """Return whether hook points without a head's number are in one block's attention or MLP."""
    for pattern in (_IN_ATTENTION, _IN_MLP):
        one, other = pattern.fullmatch(source), pattern.fullmatch(target)
        if one and other:
            return one[1] == other[1]
    return False


def _reader(said: Said) -> Read:
    if said.kv_heads != "grouped":
        return read_name

    def grouped(text: str) -> tuple[str, Port | None]:
        local, port = read_name(text)
        head = _HEAD.fullmatch(local) if port in ("k", "v") else None
        return (f"a{head[1]}.kv{head[2]}" if head else local), port

    return grouped


def _notes_on_heads(links: list[_Link], said: Said) -> list[str]:
    if said.kv_heads is not None or not any(source == "embeds" for _, source, _ in links):
        return []
    return [
        "a file for Llama: if its heads share keys and values, the number at <k> and <v> is the"
        " key/value head's number; state this with --kv-heads grouped"
    ]
