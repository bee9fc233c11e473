"""Edges as a plain table: how results of a tool we do not know get in.

CSV with a header line, or JSON Lines, with the columns ``source``, ``target`` and, where known,
``port`` and ``effect``. Other names of columns are given as a map from ours to the file's. Parts
may be spelled as any tool does (:mod:`ingest.formats.spelling`); a port may stand in its own column
or behind the target. Where circuits are bound to token positions, ``source_position`` and
``target_position`` name them; without a column ``rank``, edges are ranked by the size of their
effects. Rows of ACDC's hook points are read as well, with the head in brackets
(``blocks.9.attn.hook_result[6]``); those inside one head or MLP are left out. Other formats that
hold edges one by one use :func:`read_edges` and :func:`table_circuit`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Said, UnknownFormat
from ingest.formats.building import edge_circuit, with_sign
from ingest.formats.contraction import (
    fold_embeddings,
    is_inside,
    notes_on_inside,
    notes_on_ports,
)
from ingest.formats.reading import check_lines, read_text
from ingest.formats.spelling import notes_on_names, read_name
from registry.csv_cells import unguarded_cell
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import Port, node_key
from registry.limits import check_length
from registry.records import Circuit, Edge, Node
from registry.words import listed

__all__ = [
    "COLUMNS",
    "FORMAT",
    "EdgeTable",
    "Read",
    "column_names",
    "no_column",
    "read_edges",
    "read_effect",
    "read_position",
    "read_rank",
    "table_circuit",
]

_NEEDED = ("source", "target")
COLUMNS = (*_NEEDED, "port", "effect", "rank", "source_position", "target_position")
"""Columns of a table of edges; all but the first two may be absent."""
_MAX_COLUMNS = 1_000
_LONGEST_VALUE, _LONGEST_NUMBER = 100, 2_000
_NONE = frozenset({"", "nan", "none", "null", "na"})
Read = Callable[[str], tuple[str, Port | None]]
"""What reads the name of a part, and the port it names."""


class EdgeTable:
    """The format."""

    name = "table"
    summary = "edges as CSV or JSON Lines: source, target, port, effect"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Likely where the first line names both ends."""
        first = head.split(b"\n", 1)[0].lower()
        if path.suffix.lower() in {".jsonl", ".ndjson"}:
            return 0.5 if first.lstrip().startswith(b"{") else 0.0
        if path.suffix.lower() in {".csv", ".tsv"}:
            return 0.6 if b"source" in first and b"target" in first else 0.2
        return 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a table; every row is an edge of the circuit."""
        edges, notes = read_edges(_rows(path, context), path.name, context)
        return Imported([table_circuit(edges, context.said)], notes=notes)


FORMAT = EdgeTable()


def read_edges(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    name: str,
    context: Context,
    read: Read = read_name,
    *,
    may_be_empty: bool = False,
) -> tuple[list[Edge], list[str]]:
    """Edges of rows, with notes on what was read as what and what was left out.

    Rows of hook points that stay inside one head or MLP (:mod:`ingest.formats.contraction`) are
    no edges.

    Args:
        rows: Where each stands in the file (``line 3``), and its values by our names of columns.
        name: The file's.
        context: With the sign of the file's effects, and how many edges are allowed.
        read: What reads the names of parts.
        may_be_empty: A file of this format without an edge is one of an empty circuit.

    Raises:
        BadInput: A row is no edge, there are too many, or there is none.
    """
    said, read_as = context.said, dict[str, str]()
    edges: list[Edge] = []
    inside: list[str] = []
    for where, row in rows:
        if len(edges) + len(inside) == context.limits.max_edges:
            raise BadInput(
                f"{name} has more than {context.limits.max_edges:,} edges; --max-edges allows more"
            )
        try:
            edge = _edge(row, said, read_as, read)
        except (BadIdentifier, BadInput) as error:
            raise BadInput(f"{name}, {where}: {error}") from error
        if edge is None:
            inside.append(f"{row['source']} -> {row['target']}")
        else:
            edges.append(edge)
    if not edges and not may_be_empty:
        raise BadInput(f"{name} holds no edge" + (" between parts" if inside else ""))
    spelled = [theirs for theirs, ours in read_as.items() if ours == "input"]
    folded, notes = fold_embeddings(edges, spelled)
    notes += notes_on_inside(inside) + notes_on_ports(folded) + notes_on_names(read_as)
    return list(folded), notes


def column_names(said: Said) -> dict[str, str]:
    """Our names of the columns to the file's.

    Raises:
        BadInput: A column was mapped that we have not.
    """
    names = {ours: said.columns.get(ours, ours) for ours in COLUMNS}
    unknown = set(said.columns) - set(names)
    if unknown:
        raise BadInput(f"no column {min(unknown)!r} of ours; there are {', '.join(names)}")
    return names


def no_column(ours: str, there: Iterable[str], said: Said, where: str) -> BadInput:
    """What is wrong with a table that lacks a column.

    Args:
        ours: Our name of the column.
        there: The columns that the table has.
        said: What the user says; where that maps no column, the table may be one of anything, so
            that it is no malformed one but of no format that is known.
        where: Which file, and where in it.
    """
    kind = BadInput if said.columns else UnknownFormat
    return kind(
        f"{where}: no column {said.columns.get(ours, ours)!r}; it has"
        f" {listed([*map(repr, there)]) or 'none'}. Map yours with --column {ours}=NAME"
    )


def _rows(path: Path, context: Context) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = read_text(path, context.limits)
    is_json = path.suffix.lower() in {".jsonl", ".ndjson"}
    check_lines(text, path.name, context.limits, header=not is_json)
    if is_json:
        yield from _json_rows(text, path.name, context.said)
    else:
        yield from _csv_rows(text, path, context.said)


def _check_needed(there: Collection[str], names: Mapping[str, str], said: Said, where: str) -> None:
    for ours in _NEEDED:
        if names[ours] not in there:
            raise no_column(ours, there, said, where)


def _json_rows(text: str, name: str, said: Said) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = column_names(said)
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{name}, {where}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadInput(f"{name}, {where}: no object with source and target")
        _check_needed(row, names, said, f"{name}, {where}")
        yield where, {ours: row[theirs] for ours, theirs in names.items() if theirs in row}


def _csv_rows(text: str, path: Path, said: Said) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = column_names(said)
    reader = csv.reader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    # Our own tables guard against spreadsheets so; most hold nothing to take back.
    guarded = "'" in text
    try:
        header = next(reader, [])
        if len(header) > _MAX_COLUMNS:
            raise BadInput(
                f"{path.name} has {len(header):,} columns and {_MAX_COLUMNS:,} are allowed"
            )
        places = {theirs: place for place, theirs in enumerate(header)}
        known = {ours: places[theirs] for ours, theirs in names.items() if theirs in places}
        for row in filter(None, reader):
            where = f"line {reader.line_num}"
            if len(row) > len(header):
                raise BadInput(f"{path.name}, {where}: more values than columns")
            _check_needed(places, names, said, f"{path.name}, {where}")
            # A line may be shorter than the header, and only what it has is looked at.
            cells = [unguarded_cell(cell) for cell in row] if guarded else row
            yield where, {o: cells[at] if at < len(row) else None for o, at in known.items()}
    except csv.Error as error:
        raise BadInput(f"{path.name}, line {reader.line_num}: {error}") from error


def _edge(row: Mapping[str, Any], said: Said, read_as: dict[str, str], read: Read) -> Edge | None:
    """The edge of a row; None for one that stays inside a head or an MLP."""
    source, of_source = _name(row["source"], read_as, read)
    target, port = _name(row["target"], read_as, read)
    if is_inside(source, target):
        return None
    if of_source is not None:
        raise BadInput(f"{row['source']!r} is an input of a head, which sends nothing")
    given = row.get("port")
    if not _is_empty(given):
        stated = str(given)[:_LONGEST_VALUE].strip().lower()
        if stated not in ("q", "k", "v") or port not in (None, stated):
            raise BadInput(f"port {given!r:.80} is none of q, k, v, or not the target's")
        port = stated
    return Edge(
        source=node_key(source, read_position(row.get("source_position"))),
        target=node_key(target, read_position(row.get("target_position"))),
        port=port,
        effect=with_sign(read_effect(row.get("effect")), said),
        rank=read_rank(row.get("rank")),
    )


def _name(text: Any, read_as: dict[str, str], read: Read) -> tuple[str, Any]:
    if not isinstance(text, str):
        raise BadInput(f"{text!r:.80} is no name of a part")
    local, port = read(text)
    read_as.setdefault(text, local + (f"<{port}>" if port else ""))
    return local, port


def _is_empty(value: Any) -> bool:
    """Whether a value says nothing. A long text is no such word, and may stand in every row."""
    if not isinstance(value, str):
        return value is None
    return len(value) <= _LONGEST_VALUE and value.strip().lower() in _NONE


def read_position(value: Any) -> str | None:
    """A token position, or None for what is empty.

    Raises:
        BadInput: It is neither text nor a whole number.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{value!r:.80} is no position, such as END or 7")
    text = str(value)
    check_length("position", text)  # before every row of a table makes a node's name of it
    return text


def read_rank(value: Any) -> int | None:
    """A rank, or None for what is empty.

    Raises:
        BadInput: It is no whole number from 1.
    """
    if _is_empty(value):
        return None
    try:
        rank = 0 if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        rank = 0
    if rank < 1 or (isinstance(value, float) and rank != value):
        raise BadInput(f"rank {value!r:.80} is no whole number from 1")
    return rank


def read_effect(value: Any) -> float | None:
    """A number, or None for what is empty.

    Raises:
        BadInput: It is no finite number.
    """
    if _is_empty(value):
        return None
    try:
        # A long text may be a number, and stand in every row.
        plain = not isinstance(value, bool) and not (
            isinstance(value, str) and len(value) > _LONGEST_NUMBER
        )
        number = float(value) if plain else math.nan
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"effect {value!r:.80} is no number") from None
    if not math.isfinite(number):
        raise BadInput(f"effect {value!r:.80} is no finite number; leave it empty where unknown")
    return number


def table_circuit(
    edges: Sequence[Edge], said: Said, *, ranked: bool = False, **more: Any
) -> Circuit:
    """A circuit of such edges; where none has a rank, they are ranked by the size of their effects.

    Args:
        edges: As :func:`read_edges` gives them.
        said: What the user says of the file.
        ranked: The file tells all ranks there are, even if there is none.
        more: Fields of the circuit that the file says.

    Raises:
        BadInput: Neither file nor user says model or task.
    """
    if not ranked and all(edge.rank is None for edge in edges):
        edges = _ranked(edges)
    return edge_circuit(said, edges, **{"nodes": tuple(map(_node, _ends(edges))), **more})


def _ranked(edges: Sequence[Edge]) -> list[Edge]:
    scored = [edge for edge in edges if edge.effect is not None]
    by_size = sorted(scored, key=lambda edge: -abs(edge.effect or 0.0))
    ranks = {id(edge): rank for rank, edge in enumerate(by_size, 1)}
    return [Edge(**dict(edge) | {"rank": ranks.get(id(edge))}) for edge in edges]


def _ends(edges: Sequence[Edge]) -> set[str]:
    return {end for edge in edges for end in (edge.source, edge.target)}


def _node(key: str) -> Node:
    component, at, position = key.partition("@")
    return Node(component=component, position=position if at else None)
