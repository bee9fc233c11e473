"""A user's own prompts: a JSON Lines or CSV file under a YAML header that names the task.

::

    ---
    task: greetings            # needed, unless the caller names the task
    description: Which greeting belongs to the hour?
    ---
    {"clean": "At dawn we say good", "corrupt": "At dusk we say good",
     "correct": " morning", "wrong": " evening"}       (one object a line)

The part below the header is CSV if its first line names the columns ``clean``, ``corrupt``,
``correct`` and ``wrong``, in any order; otherwise JSON Lines. An answer is written as it follows
the prompt, so most begin with a space. Every prompt is used in the order of the file; a prompt that
cannot be used is an error that names its line, and is never silently omitted.

In JSON Lines ``wrong`` may be a list of several wrong answers, and ``labels`` an object of known
facts about the prompt, by name: a text, a number, true or false. In CSV further wrong answers are
in columns ``wrong:2``, ``wrong:3``, ..., and a column ``label:NAME`` has a label as text; if such a
column is empty, the prompt has no answer there, or no label of that name.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from ingest.formats.plain_yaml import parse_yaml
from ingest.formats.reading import each_once
from ingest.tasks.base import Encode, Label, PromptPair, TokenPair, align
from registry.errors import BadInput
from registry.limits import check_length
from registry.records import Slug

if TYPE_CHECKING:
    from ingest.tasks.splits import Split

__all__ = ["PromptFile", "read_prompt_file"]

_FIELDS = ("clean", "corrupt", "correct", "wrong")
_LABELS, _LABEL_COLUMN = "labels", "label:"
_MORE_WRONG = re.compile(r"wrong:([2-9]|[1-9]\d{1,5})", re.ASCII)
_MOST_LABELS = 100
_HEADER_FIELDS = ("task", "family", "description")
_FENCE = "---"
_SLUG: TypeAdapter[str] = TypeAdapter(Slug)


@dataclass(frozen=True, slots=True)
class PromptFile:
    """The prompts of a file, by line.

    Attributes:
        name: Name of the file, for error texts.
        slug: Name of the task.
        family: Name of its group of tasks; by default the first part of the slug.
        description: The question to the model, in a sentence; may be empty.
        pairs: Line number and pair, in the order of the file.
        split: The part of the file's prompts that these are; None for all of them.
    """

    name: str
    slug: str
    family: str
    description: str
    pairs: tuple[tuple[int, PromptPair], ...]
    split: Split | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def stream(self, seed: int, encode: Encode) -> Iterator[TokenPair]:  # noqa: ARG002
        """Yield all pairs in the order of the file, for any seed.

        All are read before the first is returned, so that an error in the last line stops the work
        before it begins.

        Raises:
            BadInput: An answer is several tokens, or prompts differ in length; the text names the
                line.
        """
        return iter([self._align(line, pair, encode) for line, pair in self.pairs])

    def _align(self, line: int, pair: PromptPair, encode: Encode) -> TokenPair:
        try:
            return align(pair, encode)
        except BadInput as error:
            raise BadInput(f"{self.name}, line {line}: {error}") from error


def read_prompt_file(
    path: Path, task: str | None = None, *, default_task: str | None = None
) -> PromptFile:
    """Read a file of prompts.

    Args:
        path: The file, in UTF-8.
        task: Name of the task, if the header names none.
        default_task: Like ``task``, but the header's name is preferred.

    Raises:
        BadInput: The file cannot be read, holds no prompts, or a line is malformed; the text
            names the line.
    """
    lines = _read(path)
    header, first = _header(path.name, lines)
    slug = _slug(path.name, header.get("task") or default_task, task)
    numbered = [(at, text) for at, text in enumerate(lines[first:], first + 1) if text.strip()]
    if not numbered:
        raise BadInput(f"{path.name} holds no prompts; {_expected()}")
    read = _read_csv if _is_csv(numbered[0][1]) else _read_json_lines
    pairs = tuple(read(path.name, lines, numbered))
    _refuse_repeated(path.name, pairs)
    return PromptFile(
        name=path.name,
        slug=slug,
        family=header.get("family") or slug.partition("/")[0],
        description=header.get("description") or "",
        pairs=pairs,
    )


def _read(path: Path) -> list[str]:
    try:
        # Not splitlines(), which would also end a line at separators that texts may hold.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def _header(name: str, lines: list[str]) -> tuple[Mapping[str, str], int]:
    """Return the header's fields, and its number of lines."""
    if not lines or lines[0].strip() != _FENCE:
        return {}, 0
    ends = [at for at, text in enumerate(lines) if at and text.strip() == _FENCE]
    if not ends:
        raise BadInput(f"{name}: the header begins with '---' on line 1 but has no end line '---'")
    # An empty line replaces the first one, so that line numbers are those of the file.
    found = parse_yaml("\n".join(["", *lines[1 : ends[0]]]), f"{name}: the header") or {}
    if not isinstance(found, dict):
        raise BadInput(f"{name}, line 2: the header must be YAML fields such as 'task: greetings'")
    for field, value in found.items():
        if field not in _HEADER_FIELDS:
            known = ", ".join(_HEADER_FIELDS)
            raise BadInput(f"{name}: the header's field {field!r} is unknown; known are {known}")
        if not isinstance(value, str) or not _is_text(value):
            raise BadInput(f"{name}: the header's {field} must be text; got {value!r:.80}")
    return found, ends[0] + 1


def _slug(name: str, in_header: str | None, given: str | None) -> str:
    if in_header and given and in_header != given:
        raise BadInput(f"{name} names the task {in_header!r}, not {given!r}; give one of them")
    slug = in_header or given
    if not slug:
        raise BadInput(
            f"{name} does not name its task: begin it with the lines '---', 'task: NAME', '---', "
            "or name the task when running the job"
        )
    try:
        return _SLUG.validate_python(slug)
    except ValidationError as error:
        raise BadInput(
            f"{slug!r} is no task's name: lower-case letters, digits, '.', '_' and '-', with '/' "
            "between a family and its task"
        ) from error


def _is_csv(first: str) -> bool:
    try:
        return set(_FIELDS) <= {column.strip() for column in next(csv.reader([first]))}
    except csv.Error:  # a text of 100,000 characters, as JSON may have it
        return False


def _read_json_lines(
    name: str,
    lines: list[str],  # noqa: ARG001
    numbered: list[tuple[int, str]],
) -> Iterator[tuple[int, PromptPair]]:
    for at, text in numbered:
        try:
            found = json.loads(text, object_pairs_hook=each_once)
        except json.JSONDecodeError as error:
            raise BadInput(f"{name}, line {at}: {error.msg}; {_expected()}") from error
        except RecursionError as error:
            raise BadInput(f"{name}, line {at}: nested too deeply; {_expected()}") from error
        except ValueError as error:  # a repeated field, a number of thousands of digits
            raise BadInput(f"{name}, line {at}: {error}") from error
        if not isinstance(found, dict):
            raise BadInput(f"{name}, line {at}: not a JSON object; {_expected()}")
        yield at, _pair(name, at, found)


def _read_csv(
    name: str, lines: list[str], numbered: list[tuple[int, str]]
) -> Iterator[tuple[int, PromptPair]]:
    first = numbered[0][0]
    # A quoted field may contain line breaks, so the reader gets all lines and counts them.
    rows = csv.reader(io.StringIO("\n".join(lines[first - 1 :]), newline=""), strict=True)
    columns = [column.strip() for column in next(rows)]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise BadInput(f"{name}, line {first}: the column {twice!r:.80} appears twice")
    if len(numbered) == 1:
        raise BadInput(f"{name} holds no prompts below its columns' names")
    at = first + 1
    try:
        for row in rows:
            if row and len(row) != len(columns):
                raise BadInput(
                    f"{name}, line {at}: {len(row)} columns, but the first line names "
                    f"{len(columns)}; put a text that contains a comma in double quotes"
                )
            if any(row):
                yield at, _pair(name, at, _gathered(dict(zip(columns, row, strict=True))))
            at = first + rows.line_num
    except csv.Error as error:
        raise BadInput(f"{name}, line {at}: {error}") from error


def _gathered(row: dict[str, str]) -> dict[str, Any]:
    """Merge a CSV row's columns of labels, and of wrong answers, into one field each."""
    columns = sorted(filter(_MORE_WRONG.fullmatch, row), key=lambda one: int(one.partition(":")[2]))
    more = [answer for answer in map(row.pop, columns) if answer]
    labels = {
        column.removeprefix(_LABEL_COLUMN): row.pop(column)
        for column in tuple(row)
        if column.startswith(_LABEL_COLUMN)
    }
    given = {label: value for label, value in labels.items() if value}
    wrong = {"wrong": [row["wrong"], *more]} if more else {}
    return {**row, **wrong, **({_LABELS: given} if given else {})}


def _pair(name: str, at: int, found: Mapping[str, Any]) -> PromptPair:
    for field in found:
        if field not in (*_FIELDS, _LABELS):
            raise BadInput(f"{name}, line {at}: unknown field {field!r}; {_expected()}")
    for field in _FIELDS:
        if field not in found:
            raise BadInput(f"{name}, line {at}: the field {field!r} is missing; {_expected()}")
    wrong = found["wrong"]
    if isinstance(wrong, list) and not wrong:
        raise BadInput(f"{name}, line {at}: 'wrong' is an empty list; give at least one answer")
    several = wrong if isinstance(wrong, list) else [wrong]
    texts = [(field, found[field]) for field in _FIELDS[:-1]]
    for field, text in (*texts, *(("wrong", answer) for answer in several)):
        if not isinstance(text, str) or not text:
            raise BadInput(f"{name}, line {at}: {field!r} must be a text that is not empty")
        if not _is_text(text):
            raise BadInput(f"{name}, line {at}: {field!r} holds half a character, such as \\ud800")
    labels = _labels(f"{name}, line {at}", found.get(_LABELS, {}))
    return PromptPair(**dict(texts), wrong=several[0], more_wrong=tuple(several[1:]), labels=labels)


def _labels(where: str, found: Any) -> dict[str, Label]:
    """Return a prompt's labels.

    Raises:
        BadInput: They are not an object of texts, finite numbers, true and false, or are too many
            or too long.
    """
    if not isinstance(found, dict) or len(found) > _MOST_LABELS:
        raise BadInput(
            f"{where}: {_LABELS!r} must be an object of at most {_MOST_LABELS} names with values"
        )
    for name, value in found.items():
        finite = isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
        if not name or not finite:
            raise BadInput(
                f"{where}: the label {name!r:.80} must have a name, and a text, a number, true or "
                f"false as its value; got {value!r:.80}"
            )
        texts = [name, *([value] if isinstance(value, str) else [])]
        for text in texts:
            if not _is_text(text):
                raise BadInput(f"{where}: the label {name!r:.80} holds half a character")
            check_length("name", text)
    return dict(found)


def _is_text(value: str) -> bool:
    """Return whether a text can be written: JSON may escape one half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _refuse_repeated(name: str, pairs: tuple[tuple[int, PromptPair], ...]) -> None:
    first_line: dict[PromptPair, int] = {}
    for at, labelled in pairs:
        pair = replace(labelled, labels={})
        if pair in first_line:
            raise BadInput(
                f"{name}, line {at}: the same prompt as on line {first_line[pair]}; it would "
                "count twice"
            )
        first_line[pair] = at


def _expected() -> str:
    return f"expected a line with {', '.join(_FIELDS)}, as a JSON object or as columns of a CSV"
