"""A circuit's edges as a table, for spreadsheets, pandas and our own importers of tables.

One row an edge, in the circuit's order, with the columns ``source``, ``target``, ``port``,
``effect`` and ``rank``, and ``source_position`` and ``target_position`` where any edge has one.
Parts are named as :mod:`registry.identifiers` has them. In CSV, a position that a spreadsheet would
take for a formula has an apostrophe in front, which our importer takes back. Parquet also says what
the circuit is about, in the file's metadata; CSV has no place for it. Neither holds nodes without
edges nor what is known of single nodes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.circuit_facts import facts_of
from ingest.exporters.base import Exporting
from ingest.formats.parquet import METADATA
from ingest.formats.table import COLUMNS
from registry.csv_cells import guarded_cell
from registry.errors import BadInput, MissingExtra
from registry.identifiers import parse_node_key
from registry.records import Circuit, canonical_json

__all__ = ["CSV", "PARQUET", "CsvTable", "ParquetTable"]

_POSITIONS = ("source_position", "target_position")


class CsvTable:
    """Writes CSV."""

    name = "csv"
    summary = "edges as CSV; without single nodes and what the circuit is about"
    suffix = ".csv"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:  # noqa: ARG002
        """The table, lines ended by a line feed; an unknown value is empty.

        Raises:
            BadInput: The circuit has no edges, or a position that CSV cannot hold.
        """
        rows = _rows(circuit)
        for position in {row[name] for row in rows for name in _POSITIONS if name in row}:
            if position is not None and ("\r" in position or "\0" in position):
                raise BadInput(f"CSV cannot hold the position {position!r}; use graphml or parquet")
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {name: guarded_cell(row[name]) for name in _texts(row)})
        return text.getvalue().encode()


class ParquetTable:
    """Writes Parquet."""

    name = "parquet"
    summary = "edges as Parquet, without single nodes; needs the extra 'parquet'"
    suffix = ".parquet"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:  # noqa: ARG002
        """The table, compressed; what the circuit is about stands in its metadata.

        Raises:
            BadInput: The circuit has no edges.
            MissingExtra: pyarrow is not installed.
        """
        rows = _rows(circuit)
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtra("writing Parquet", "parquet") from error
        kinds = {"effect": pyarrow.float64(), "rank": pyarrow.int64()}
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
    return (name for name in _POSITIONS if row.get(name) is not None)


def _rows(circuit: Circuit) -> list[dict[str, Any]]:
    if not circuit.edges:
        raise BadInput("the circuit has no edges, and a table holds edges alone; use graphml")
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
        for row in rows:
            del row[_POSITIONS[0]], row[_POSITIONS[1]]
    return rows
