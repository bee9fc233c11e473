"""The only place where commands write: answers to standard output, notices to standard error.

An answer is a table for people, JSON or CSV for programs. Standard output carries the answer
alone, so that it can be piped. Tables shorten ids to the 12 digits that commands accept; JSON and
CSV keep them whole.

Much of it is other people's text: what would redraw a terminal is shown as an escape, JSON says it
with escapes of its own, and CSV keeps it, with an apostrophe before what a spreadsheet would take
for a formula.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from registry.cli.printable import escaped, escaped_json, one_line
from registry.csv_cells import guarded_cell
from registry.rows import Rows

__all__ = [
    "Format",
    "FormatOption",
    "Section",
    "notice",
    "one_line",
    "progress_line",
    "show_record",
    "show_rows",
    "show_sections",
    "write_text",
]

_ID = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b")
_SHOWN_DIGITS = 12
_SLICE = 32_768  # characters
_GAP = 2  # columns between two of a table
_FOLDED = 24  # a text longer than this may be folded on a terminal
_WIDE = 100_000  # columns; a table that is piped is never folded


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[
    Format, typer.Option("--format", help="Write a table, JSON or CSV.", show_default=True)
]
"""The option every reading command takes: ``format: FormatOption = Format.TABLE``."""


@dataclass(frozen=True, slots=True)
class Section:
    """Part of an answer: rows under a title, or one record as fields and values."""

    title: str
    content: Rows | Mapping[str, Any]


def show_rows(
    rows: Rows,
    format: Format,
    *,
    columns: Sequence[str] | None = None,
    empty: str = "nothing found",
    limit_option: str = "--max-rows",
) -> None:
    """Write rows; a notice says where a table has none, and where a limit cut them.

    Args:
        rows: What to write.
        format: How; JSON and CSV get all columns.
        columns: Those a table shows; all by default.
        empty: Notice for a table without rows.
        limit_option: Option that sets the limit, for the notice.
    """
    if format is Format.JSON:
        write_text(_json(rows.to_dicts()))
    elif format is Format.CSV:
        _write(_csv(rows))
    elif rows.values:
        write_text(_table(_narrowed(rows, columns)))
    else:
        notice(empty)
    if rows.truncated:
        notice(f"only the first {len(rows)} rows; {limit_option} sets the limit")


def show_record(record: Mapping[str, Any], format: Format) -> None:
    """Write one record: a line per field in a table and in CSV, one object in JSON."""
    if format is Format.JSON:
        write_text(_json(dict(record)))
    elif format is Format.CSV:
        _write(_csv(_fields(record)))
    else:
        write_text(_table(_fields(record), header=False))


def show_sections(sections: Sequence[Section], format: Format, *, csv: str) -> None:
    """Write several parts: under titles, or as one JSON object; CSV holds the part ``csv`` alone.

    A table leaves out parts that hold nothing.
    """
    if format is Format.JSON:
        write_text(_json({section.title: _plain_section(section) for section in sections}))
    elif format is Format.CSV:
        chosen = next(section for section in sections if section.title == csv)
        _write(_csv(_section_rows(chosen)))
    else:
        shown = [section for section in sections if len(section.content)]
        write_text("\n\n".join(f"{section.title}\n{_section_table(section)}" for section in shown))


def notice(text: str) -> None:
    """Tell the user something that is not the answer, on standard error."""
    sys.stderr.write(f"{one_line(text)}\n")


def progress_line(doing: str) -> Callable[[int, int], None]:
    """A function to call with done and total: redraws one line, on a terminal only."""
    from time import monotonic

    started = monotonic()

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() and total:
            left = (monotonic() - started) / max(done, 1) * (total - done)
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r{doing}: {done} of {total}, {left:.0f} s left \x1b[K{end}")
            sys.stderr.flush()

    return show


def write_text(text: str) -> None:
    """Write a line, or several, to standard output."""
    _write(f"{text}\n")


def _write(text: str) -> None:
    # In slices: where Python runs unbuffered, a reader that leaves during a single long write goes
    # unnoticed.
    for start in range(0, len(text), _SLICE):
        sys.stdout.write(text[start : start + _SLICE])
    sys.stdout.flush()


# -- tables ----------------------------------------------------------------------------------------


def _section_table(section: Section) -> str:
    if isinstance(section.content, Rows):
        return _table(section.content)
    return _table(_fields(section.content), header=False)


def _table(rows: Rows, *, header: bool = True) -> str:
    """Draw a table; on a terminal, texts are folded to its width, short values never are."""
    # Imported here: JSON and CSV, which scripts call in loops, do without.
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    interactive = sys.stdout.isatty()
    table = Table(box=None, show_header=header, pad_edge=False, padding=(0, _GAP, 0, 0))
    needed = 0
    for index, column in enumerate(rows.columns):
        values = [row[index] for row in rows.values]
        texts = [*(cell_text(value) for value in values), one_line(column) if header else ""]
        width = max(map(cell_len, texts))
        least = min(width, _FOLDED)
        needed += least + _GAP
        table.add_column(
            Text(one_line(column), style="bold"),
            justify="right" if _is_numeric(values) else "left",
            min_width=least,
            no_wrap=not interactive or width <= _FOLDED,
            overflow="fold",
        )
    for row in rows.values:
        table.add_row(*(Text(cell_text(value)) for value in row))
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=interactive, highlight=False, width=_WIDE)
    if interactive:
        # Where even this does not fit, the terminal wraps lines: better than words cut in two.
        console.width = max(get_terminal_size().columns, needed)
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip("\n").split("\n"))


def cell_text(value: Any) -> str:
    """A value as a table shows it: ids shortened, floats to four digits, lists with commas."""
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        # Maps have commas of their own.
        between = "; " if any(isinstance(item, dict) for item in value) else ", "
        return between.join(cell_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={cell_text(item)}" for key, item in value.items())
    return one_line(_ID.sub(lambda match: match[0][:_SHOWN_DIGITS], str(value)))


def _is_numeric(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )


def _narrowed(rows: Rows, columns: Sequence[str] | None) -> Rows:
    if columns is None:
        return rows
    places = [rows.columns.index(column) for column in columns]
    return Rows(tuple(columns), tuple(tuple(row[p] for p in places) for row in rows.values))


# -- JSON and CSV ----------------------------------------------------------------------------------


def _json(value: Any) -> str:
    return escaped_json(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _csv(rows: Rows) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([guarded_cell(column) for column in rows.columns])
    for row in rows.values:
        writer.writerow([_csv_cell(_plain(value)) for value in row])
    # A file gets the text as it is; a terminal would obey it.
    return escaped(buffer.getvalue(), keep="\n") if sys.stdout.isatty() else buffer.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return guarded_cell(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """A value in JSON's types; what JSON lacks, such as NaN and dates, becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, StrEnum | Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _plain_section(section: Section) -> Any:
    content = section.content
    return content.to_dicts() if isinstance(content, Rows) else dict(content)


def _section_rows(section: Section) -> Rows:
    content = section.content
    return content if isinstance(content, Rows) else _fields(content)


def _fields(record: Mapping[str, Any]) -> Rows:
    return Rows(("field", "value"), tuple(record.items()))
