"""Subgraphs of ACDC, as its ``save_subgraph`` writes them.

``torch.save`` of ``{(receiver, index, sender, index): present}``, receivers first, with names of
hook points and indices such as ``(None, None, 6)`` for head 6 or ``(None,)``. Links inside one head
or MLP, ACDC's direct computations and placeholders, are contracted; there are no effects. ACDC's
``save_edges`` writes pickles of its own classes, which are refused
(:mod:`ingest.formats.pickles`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported
from ingest.formats.contraction import is_inside
from ingest.formats.reading import check_count
from ingest.formats.spelling import read_name
from ingest.formats.tables.table import read_edges, table_circuit
from ingest.formats.torch_files import load_tensors
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import PORTS, Kind, Port, can_feed, parse_local

__all__ = ["FORMAT", "AcdcSubgraph", "read_hook_point"]

_HOOKS = (b"hook_resid_post", b"hook_result", b"hook_mlp_out")
_MLP_INPUT = re.compile(r"blocks\.(\d{1,9})\.hook_resid_mid")
_EXPECTED = (
    "expected (receiver, index, sender, index) such as ('blocks.1.hook_q_input', (None, None, 6),"
    " 'blocks.0.hook_mlp_out', (None,)) and whether the edge is present"
)


class AcdcSubgraph:
    """The format."""

    name = "acdc-subgraph"
    summary = "ACDC's save_subgraph .pth (needs torch)"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:  # noqa: ARG002 - any suffix will do
        """Sure if an archive of torch begins with an ordered dictionary of hook points."""
        archive = head.startswith(b"PK\x03\x04") and b"data.pkl" in head
        ordered = b"OrderedDict" in head and b"_rebuild" not in head
        return 0.9 if archive and ordered and any(hook in head for hook in _HOOKS) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a subgraph; the present edges are the circuit, even if there are none."""
        links = _links(load_tensors(path, context.limits), path.name, context)
        rows = (
            (f"edge {number}", {"source": source, "target": target})
            for number, (source, target, present) in enumerate(links, 1)
            if present
        )
        found = read_edges(rows, path.name, context, read_hook_point, may_be_empty=True)
        complete = not all(present for _, _, present in links)
        circuit = table_circuit(
            found.edges,
            context.said,
            selection={"rule": "present"},
            # ACDC omits removed edges from the file, or marks them as not present.
            universe_size=_universe(links, path.name) if complete else None,
        )
        return Imported([circuit], notes=found.notes)


FORMAT = AcdcSubgraph()


@lru_cache(maxsize=65_536)
def read_hook_point(text: str) -> tuple[str, Port | None]:
    """Read a name as :func:`read_name` does; also ACDC's older name for an MLP's input.

    Raises:
        BadIdentifier: No part has this name.
    """
    found = _MLP_INPUT.fullmatch(text)
    return (f"m{int(found[1])}", None) if found else read_name(text)


def _links(data: Any, name: str, context: Context) -> list[tuple[str, str, bool]]:
    """Return source, target and presence of each link, hook points with the head in brackets."""
    if not isinstance(data, Mapping):
        raise BadInput(f"{name} is no dictionary of edges: {_EXPECTED}")
    check_count(len(data), "edges", name, context.limits)
    return list(_each_link(data, name))


def _each_link(data: Mapping[Any, Any], name: str) -> Iterator[tuple[str, str, bool]]:
    for number, (key, present) in enumerate(data.items(), 1):
        shaped = isinstance(key, tuple) and len(key) == 4 and isinstance(present, bool)
        target = _hook_point(key[0], key[1]) if shaped else None
        source = _hook_point(key[2], key[3]) if shaped else None
        if source is None or target is None:
            raise BadInput(f"{name}, edge {number}: {_shown(key)}: {_shown(present)} is none;"
                           f" {_EXPECTED}")  # fmt: skip
        yield source, target, present


def _hook_point(hook: Any, index: Any) -> str | None:
    """Return name and index as one text; None if they are malformed."""
    if not isinstance(hook, str) or not isinstance(index, tuple):
        return None
    if any(at is not None and (isinstance(at, bool) or not isinstance(at, int)) for at in index):
        return None
    given = [at for at in index if at is not None]
    if not given:
        return hook
    return f"{hook}[{given[0]}]" if len(given) == 1 and index[-1] == given[0] else None


def _universe(links: list[tuple[str, str, bool]], name: str) -> int | None:
    """Return the number of edges between parts; None if the file does not list all of them.

    Every part in the file must receive, at each of its inputs, an edge from every earlier part in
    the file. A file that lists only some edges, with any marks, does not give the number.
    """
    found: set[tuple[str, str, Port | None]] = set()
    for source, target, _ in links:
        try:
            (tail, _), (head, port) = read_hook_point(source), read_hook_point(target)
        except BadIdentifier as error:
            raise BadInput(f"{name}: {error}") from error
        if not is_inside(tail, head):
            found.add((tail, head, port))
    parts = {parse_local(name) for tail, head, _ in found for name in (tail, head)}
    heads = {part for part in parts if part.kind is Kind.HEAD}
    grid = {(part.layer, part.head) for part in heads}
    whole = all(
        (str(source), str(target), port) in found
        for target in parts
        for port in (PORTS if target.kind is Kind.HEAD else (None,))
        for source in parts
        if can_feed(source, target, port)
    )
    square = len(grid) == len({layer for layer, _ in grid}) * len({head for _, head in grid})
    return len(found) if whole and square else None


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "something nested deeply"
    return text if len(text) <= 120 else text[:120] + "..."
