"""A circuit as a table, for spreadsheets, pandas and our own importers of tables.

A circuit with edges has one row per edge, in the circuit's order, with the columns ``source``,
``target``, ``port``, ``effect`` and ``rank``, and with ``source_position`` and ``target_position``
if any edge has them. The table omits nodes without edges, and facts about single nodes.

A circuit without edges has one row per node: ``layer`` and ``head`` if all nodes are heads, and
``node`` otherwise, with ``effect`` and ``rank``, and with ``position``, ``role`` and ``density`` if
any node has them. ``circuits export --heads`` writes the heads of any circuit in this form.

Parts have the names of :mod:`registry.identifiers`. In CSV, a text that a spreadsheet would read as
a formula gets a leading apostrophe, which our importer removes. Parquet also has the circuit's
facts, in the file's metadata; CSV cannot hold them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ingest.formats.exporting import Exporting
from ingest.formats.facts import facts_of
from ingest.formats.tables.parquet import METADATA
from ingest.formats.tables.table import COLUMNS
from registry.canonical import canonical_json
from registry.errors import BadInput, MissingExtra
from registry.identifiers import Kind, parse_local, parse_node_key
from registry.records import Circuit
from registry.texts.csv_cells import guarded_cell

__all__ = ["CSV", "PARQUET", "CsvTable", "ParquetTable"]

_POSITIONS = ("source_position", "target_position")
_OF_NODES = ("position", "role", "density")
_FREE = (*_POSITIONS, "position", "role")


class CsvTable:
    """Writes CSV."""

    name = "csv"
    summary = (
        "edges as CSV, or nodes such as heads where there are no edges; without what the circuit is"
        " about"
    )
    suffix = ".csv"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:  # noqa: ARG002
        """Return the table, with line feeds as line ends; unknown values are empty.

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
        """Return the table, compressed; the circuit's facts are in its metadata.

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
        kinds = dict.fromkeys(("effect", "density"), pyarrow.float64())
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
    """Yield values from users' text; names of parts cannot begin like a formula."""
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
