"""A circuit as a table, for spreadsheets, pandas and our own importers of tables.

A circuit with edges has one row an edge, in the circuit's order, with the columns ``source``,
``target``, ``port``, ``effect`` and ``rank``, and ``source_position`` and ``target_position`` where
any edge has one. Nodes without edges, and what is known of single nodes, are not in it.

A circuit without edges has one row a node: ``layer`` and ``head`` where all of them are heads, and
``node`` otherwise, with ``effect`` and ``rank``, and ``position`` and ``role`` where any node has
one. ``circuits export --heads`` writes the heads of any circuit so.

Parts are named as :mod:`registry.identifiers` has them. In CSV, a text that a spreadsheet would
take for a formula has an apostrophe in front, which our importer takes back. Parquet also says what
the circuit is about, in the file's metadata; CSV has no place for it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingest.circuit_facts import facts_of
from ingest.exporters.base import Exporting
from ingest.formats.parquet import METADATA
from ingest.formats.table import COLUMNS
from registry.csv_cells import guarded_cell
from registry.errors import BadInput, MissingExtra
from registry.identifiers import Kind, parse_local, parse_node_key
from registry.records import Circuit, canonical_json

__all__ = ["CSV", "PARQUET", "CsvTable", "ParquetTable"]

_POSITIONS = ("source_position", "target_position")
_OF_NODES = ("position", "role")
_FREE = _POSITIONS + _OF_NODES


class CsvTable:
    """Writes CSV."""

    name = "csv"
    summary = (
        "edges as CSV, or nodes such as heads where there are no edges; without what the circuit is"
        " about"
    )
    suffix = ".csv"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:  # noqa: ARG002
        """The table, lines ended by a line feed; an unknown value is empty.

        Raises:
            BadInput: The circuit is empty, or has a position or role that CSV cannot hold.
        """
        rows = _rows(circuit)
        for name, text in {(name, row[name]) for row in rows for name in _texts(row)}:
            if "\r" in text or "\0" in text:
                what = name.rpartition("_")[2]
                raise BadInput(f"CSV cannot hold the {what} {text!r}; use graphml or parquet")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: guarded_cell(row[name]) for name in _texts(row)})
        return text.getvalue().encode()


class ParquetTable:
    """Writes Parquet."""

    name = "parquet"
    summary = "edges as Parquet, or nodes where there are no edges; needs the extra 'parquet'"
    suffix = ".parquet"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:  # noqa: ARG002
        """The table, compressed; what the circuit is about stands in its metadata.

        Raises:
            BadInput: The circuit is empty.
            MissingExtra: pyarrow is not installed.
        """
        rows = _rows(circuit)
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtra("writing Parquet", "parquet") from error
        kinds = {"effect": pyarrow.float64()}
        kinds |= dict.fromkeys(("rank", "layer", "head"), pyarrow.int64())
        schema = pyarrow.schema(
            [(name, kinds.get(name, pyarrow.string())) for name in rows[0]],
            metadata={METADATA: canonical_json(facts_of(circuit)).encode()},
        )
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), sink, compression="zstd")
        content: bytes = sink.getvalue().to_pybytes()
        return content


CSV = CsvTable()
PARQUET = ParquetTable()


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    """Columns that hold other people's text; names of parts cannot begin as a formula does."""
    return (name for name in _FREE if row.get(name) is not None)


def _rows(circuit: Circuit) -> list[dict[str, Any]]:
    if not circuit.edges:
        return _node_rows(circuit)
    rows = []
    for edge in circuit.edges:
        source, source_position = parse_node_key(edge.source)
        target, target_position = parse_node_key(edge.target)
        values = (
            str(source), str(target), edge.port, edge.effect, edge.rank,
            source_position, target_position,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    if all(row[name] is None for row in rows for name in _POSITIONS):
        return [_without(row, _POSITIONS) for row in rows]
    return rows


def _node_rows(circuit: Circuit) -> list[dict[str, Any]]:
    if not circuit.nodes:
        raise BadInput("the circuit has neither edges nor nodes; a table of it would be empty")
    named = [(node, parse_local(node.component)) for node in circuit.nodes]
    heads = all(local.kind is Kind.HEAD for _, local in named)
    rows = [
        {
            **({"layer": local.layer, "head": local.head} if heads else {"node": node.component}),
            **{name: getattr(node, name) for name in ("effect", "rank", *_OF_NODES)},
        }
        for node, local in named
    ]
    unused = [name for name in _OF_NODES if all(row[name] is None for row in rows)]
    return [_without(row, unused) for row in rows]


def _without(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
