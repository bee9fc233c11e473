"""Edges or heads as a Parquet table, with the columns of :mod:`ingest.formats.tables.table`.

Parquet has missing values and NaN; both are read as missing, and so are infinities. The file's
metadata may give facts about the circuit (:mod:`ingest.formats.facts`), as our exporter writes
them. Only known columns are read, batch by batch, and repeated texts are held once, so a small file
cannot expand to more memory than its rows need.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingest.formats.base import Context, Imported, Limits, Said
from ingest.formats.choosing import is_asked
from ingest.formats.facts import is_ours, only_ours, said_or_told
from ingest.formats.reading import check_count, check_size, each_once
from ingest.formats.spelling import read_exactly, read_name
from ingest.formats.tables.columns import Columns, find_columns
from ingest.formats.tables.node_table import read_nodes
from ingest.formats.tables.rows import Row
from ingest.formats.tables.table import plausible, read_edges, table_circuit
from registry.errors import BadInput, MissingExtra

__all__ = ["FORMAT", "METADATA", "ParquetTable"]

METADATA = b"circuits"
"""Key of the file's metadata that has a circuit's facts, as JSON."""
_BATCH_ROWS = 65_536
_LIMITS = {"thrift_string_size_limit": 2**24, "thrift_container_size_limit": 2**20}


class ParquetTable:
    """The format."""

    name = "parquet"
    summary = "edges or heads as Parquet, as table has them; needs the extra 'parquet'"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:  # noqa: ARG002 - the content tells
        """Sure if the file begins as Parquet does."""
        return 0.95 if head.startswith(b"PAR1") else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a table; every row is an edge of the circuit."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtra("reading Parquet", "parquet") from error
        check_size(path, context.limits)
        try:
            return _read(partial(parquet.ParquetFile, path, **_LIMITS), path.name, context)
        except (BadInput, ValidationError):  # they are ValueErrors too
            raise
        # Arrow has many classes of errors; errors of damaged texts and dates are Python's own.
        except (pyarrow.ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(f"{path.name} cannot be read as Parquet: {line}") from error


FORMAT = ParquetTable()


def _read(opened: Callable[..., Any], name: str, context: Context) -> Imported:
    with opened() as file:
        _check_counts(file.metadata, name, context.limits)
        schema = file.schema_arrow
    facts = _facts(schema.metadata or {}, name)
    said = said_or_told(context.said, facts)
    columns = _columns(schema, said, name)
    ours = is_ours(facts)
    with opened(read_dictionary=_texts(schema, columns.names)) as file:
        rows = plausible(_rows(file, columns.names), columns, name, said)
        found = _records(rows, columns, name, Context(said, context.limits), facts)
    return replace(found, notes=[*([] if ours else columns.notes()), *found.notes])


def _records(
    rows: Iterator[Row], columns: Columns, name: str, context: Context, facts: Mapping[str, Any]
) -> Imported:
    said, ours = context.said, is_ours(facts)
    told = only_ours(facts)
    if is_asked(said):  # other facts of our file are about another circuit
        told = {key: told[key] for key in told.keys() & {"level", "parameters"}}
    read = read_exactly if ours else read_name
    if not columns.of_edges:
        return read_nodes(rows, name, context, read, **told)
    found = read_edges(rows, name, context, read)
    more = {"selection": found.selection, **told}
    return Imported([table_circuit(found.edges, said, ranked=ours, **more)], notes=found.notes)


def _check_counts(metadata: Any, name: str, limits: Limits) -> None:
    check_count(metadata.num_rows, "edges", name, limits)
    groups = (metadata.row_group(at) for at in range(metadata.num_row_groups))
    unfolded = sum(group.total_byte_size for group in groups)
    if unfolded > limits.max_bytes:
        raise BadInput(
            f"{name} expands to {unfolded:,} bytes and {limits.max_bytes:,} are allowed;"
            " --max-bytes raises that"
        )


def _facts(metadata: Mapping[bytes, bytes], name: str) -> dict[str, Any]:
    said = metadata.get(METADATA)
    if said is None:
        return {}
    try:
        facts = json.loads(said, parse_constant=lambda _: None, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name}: its facts about the circuit are no JSON: {error}") from error
    return facts if isinstance(facts, dict) else {}


def _columns(schema: Any, said: Said, name: str) -> Columns:
    """Find our columns among the file's columns."""
    found = find_columns(schema.names, said, name)
    for ours, theirs in found.names.items():
        if not _plain(schema.field(theirs).type, marks=ours == "in_circuit"):
            raise BadInput(
                f"{name}: column {theirs!r} holds {schema.field(theirs).type}, neither text nor"
                " numbers"
            )
    return found


def _plain(type_: Any, *, marks: bool) -> bool:
    from pyarrow import types

    if types.is_boolean(type_):
        return marks
    if types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(
        _is_text(type_) or types.is_integer(type_) or types.is_floating(type_) or type_ == "null"
    )


def _is_text(type_: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)
    )


def _texts(schema: Any, columns: Mapping[str, str]) -> list[str]:
    return [theirs for theirs in columns.values() if _is_text(schema.field(theirs).type)]


def _rows(file: Any, columns: Mapping[str, str]) -> Iterator[Row]:
    line = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns.values()), use_threads=False):
        values = [_values(batch.column(theirs)) for theirs in columns.values()]
        for row in zip(*values, strict=True):
            line += 1
            yield f"row {line}", dict(zip(columns, row, strict=True))


def _values(column: Any) -> list[Any]:
    """Return a batch of a column; a text that many rows share is one object."""
    if hasattr(column, "dictionary"):
        texts = column.dictionary.to_pylist()
        return [None if at is None else texts[at] for at in column.indices.to_pylist()]
    found: list[Any] = column.to_pylist()
    return found
