"""The only place where commands write: answers to standard output, notices to standard error.

An answer is a table for people, JSON or CSV for programs. Standard output carries only the answer,
so it can be piped. Tables shorten ids to the 12 digits that commands accept; JSON and CSV keep the
whole ids.

Answers contain texts of other people. Characters that would redraw a terminal are shown as escapes.
JSON has its own escapes. CSV keeps the characters, with an apostrophe before a text that a
spreadsheet would treat as a formula.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from shutil import get_terminal_size
from typing import Annotated, Any, NamedTuple

import typer

from registry.cli.printable import escaped, escaped_json, one_line
from registry.rows import Rows, plain, plain_parts
from registry.texts.csv_cells import guarded_cell

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
_GAP = 2  # characters between two columns of a table
_FOLDED = 24  # a text longer than this may be folded on a terminal
_WIDE = 100_000  # characters; a table that is piped is never folded


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[
    Format, typer.Option("--format", help="Write a table, JSON or CSV.", show_default=True)
]
"""The option of every command that reads: ``format: FormatOption = Format.TABLE``."""


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
    """Write rows; notices report an empty table and rows that a limit omitted.

    Args:
        rows: What to write.
        format: Output format; JSON and CSV get all columns.
        columns: Columns of a table; all by default.
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
    """Write sections, under titles or as one JSON object; CSV holds only the section ``csv``.

    A table omits empty sections.
    """
    if format is Format.JSON:
        write_text(_json(plain_parts({one.title: one.content for one in sections})))
    elif format is Format.CSV:
        chosen = next(section for section in sections if section.title == csv)
        _write(_csv(_section_rows(chosen)))
    else:
        shown = [section for section in sections if len(section.content)]
        write_text("\n\n".join(f"{section.title}\n{_section_table(section)}" for section in shown))


def notice(text: str) -> None:
    """Print a message that is not part of the answer, on standard error."""
    sys.stderr.write(f"{one_line(text)}\n")


def progress_line(doing: str) -> Callable[[int, int], None]:
    """A function of done and total that redraws one line, only on a terminal."""
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
    # In slices: if Python is unbuffered and the reader closes the pipe during one long write,
    # Python does not notice it.
    for start in range(0, len(text), _SLICE):
        sys.stdout.write(text[start : start + _SLICE])
    sys.stdout.flush()


# -- tables ----------------------------------------------------------------------------------------


def _section_table(section: Section) -> str:
    if isinstance(section.content, Rows):
        return _table(section.content)
    return _table(_fields(section.content), header=False)


def _table(rows: Rows, *, header: bool = True) -> str:
    """Draw a table; on a terminal, long texts are folded to its width, short values are not."""
    # Imported here: JSON and CSV, which scripts request in loops, do not need it.
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
        # If even this does not fit, the terminal wraps lines, which is better than split words.
        console.width = max(get_terminal_size().columns, needed)
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip("\n").split("\n"))


def cell_text(value: Any) -> str:
    """A value as a table shows it: ids shortened, floats to four digits, lists with commas."""
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        # Maps contain commas.
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
    return escaped_json(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _csv(rows: Rows) -> str:
    # Python quotes a lone carriage return only if the line end contains one.
    lines: list[str] = []
    writer = csv.writer(_Lines(lines.append), lineterminator="\n\r")
    writer.writerow([guarded_cell(column) for column in rows.columns])
    for row in rows.values:
        writer.writerow([_csv_cell(plain(value)) for value in row])
    # A file gets the text unchanged; a terminal would act on its control characters.
    text = "".join(line.removesuffix("\r") for line in lines)
    return escaped(text, keep="\n") if sys.stdout.isatty() else text


class _Lines(NamedTuple):
    """A file-like object for the csv module, which receives one row at a time."""

    write: Callable[[str], None]


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return guarded_cell(value) if isinstance(value, str) else value


def _section_rows(section: Section) -> Rows:
    content = section.content
    return content if isinstance(content, Rows) else _fields(content)


def _fields(record: Mapping[str, Any]) -> Rows:
    return Rows(("field", "value"), tuple(record.items()))
