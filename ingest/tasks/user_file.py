"""A user's own prompts: a JSON Lines or CSV file under a YAML header that names the task.

::

    ---
    task: greetings            # needed, unless the caller names the task
    description: Which greeting belongs to the hour?
    ---
    {"clean": "At dawn we say good", "corrupt": "At dusk we say good",
     "correct": " morning", "wrong": " evening"}       (one object a line)

The part below the header is CSV where its first line names the columns ``clean``, ``corrupt``,
``correct`` and ``wrong``, in any order; otherwise JSON Lines. An answer is written as it follows
the prompt, so most begin with a space. Every prompt is used in the order of the file; one that
cannot be used is an error that names its line, never left out in silence.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ingest.tasks.base import Encode, PromptPair, TokenPair, align
from registry.errors import BadInput
from registry.records import Slug

__all__ = ["PromptFile", "read_prompt_file"]

_FIELDS = tuple(field.name for field in fields(PromptPair))
_HEADER_FIELDS = ("task", "family", "description")
_FENCE = "---"
_SLUG: TypeAdapter[str] = TypeAdapter(Slug)


@dataclass(frozen=True, slots=True)
class PromptFile:
    """The prompts of a file, by line.

    Attributes:
        name: Name of the file, for error texts.
        slug: Name of the task.
        family: Name of the tasks it belongs with; by default the first part of the slug.
        description: What is asked of a model, in a sentence; may be empty.
        pairs: Line number and pair, in the order of the file.
    """

    name: str
    slug: str
    family: str
    description: str
    pairs: tuple[tuple[int, PromptPair], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def stream(self, seed: int, encode: Encode) -> Iterator[TokenPair]:  # noqa: ARG002
        """Yield all pairs in the order of the file, whatever the seed.

        All are read before the first is given, so that a fault on the last line stops the work
        before it begins.

        Raises:
            BadInput: An answer is several tokens, or prompts differ in length; the line is named.
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
        task: Name of the task, where the header names none.
        default_task: The same, and where the header names another, that one counts.

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
    """The header's fields, and how many lines it takes."""
    if not lines or lines[0].strip() != _FENCE:
        return {}, 0
    ends = [at for at, text in enumerate(lines) if at and text.strip() == _FENCE]
    if not ends:
        raise BadInput(f"{name}: the header begins with '---' on line 1 and never ends with one")
    try:
        found = yaml.safe_load("\n".join(lines[1 : ends[0]])) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 2
        problem = getattr(error, "problem", None) or "cannot be read"
        raise BadInput(f"{name}, line {line}: the header is no YAML: {problem}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{name}, line 2: the header must be YAML fields such as 'task: greetings'")
    for field, value in found.items():
        if field not in _HEADER_FIELDS:
            known = ", ".join(_HEADER_FIELDS)
            raise BadInput(f"{name}: the header's field {field!r} is unknown; known are {known}")
        if not isinstance(value, str):
            raise BadInput(f"{name}: the header's {field} must be text; got {value!r}")
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
    return set(_FIELDS) <= {column.strip() for column in next(csv.reader([first]))}


def _read_json_lines(
    name: str,
    lines: list[str],  # noqa: ARG001
    numbered: list[tuple[int, str]],
) -> Iterator[tuple[int, PromptPair]]:
    for at, text in numbered:
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(f"{name}, line {at}: {error.msg}; {_expected()}") from error
        if not isinstance(found, dict):
            raise BadInput(f"{name}, line {at}: not a JSON object; {_expected()}")
        yield at, _pair(name, at, found)


def _read_csv(
    name: str, lines: list[str], numbered: list[tuple[int, str]]
) -> Iterator[tuple[int, PromptPair]]:
    first = numbered[0][0]
    # A quoted field may hold line breaks, so the reader gets all lines and counts for itself.
    rows = csv.reader(io.StringIO("\n".join(lines[first - 1 :]), newline=""), strict=True)
    columns = [column.strip() for column in next(rows)]
    if len(numbered) == 1:
        raise BadInput(f"{name} holds no prompts below its columns' names")
    at = first + 1
    try:
        for row in rows:
            if row and len(row) != len(columns):
                raise BadInput(
                    f"{name}, line {at}: {len(row)} columns where the first line names "
                    f"{len(columns)}; put a text that holds a comma in double quotes"
                )
            if any(row):
                yield at, _pair(name, at, dict(zip(columns, row, strict=True)))
            at = first + rows.line_num
    except csv.Error as error:
        raise BadInput(f"{name}, line {at}: {error}") from error


def _pair(name: str, at: int, found: Mapping[str, Any]) -> PromptPair:
    for field in found:
        if field not in _FIELDS:
            raise BadInput(f"{name}, line {at}: unknown field {field!r}; {_expected()}")
    for field in _FIELDS:
        if field not in found:
            raise BadInput(f"{name}, line {at}: the field {field!r} is missing; {_expected()}")
        if not isinstance(found[field], str) or not found[field]:
            raise BadInput(f"{name}, line {at}: {field!r} must be a text that is not empty")
    return PromptPair(**found)


def _refuse_repeated(name: str, pairs: tuple[tuple[int, PromptPair], ...]) -> None:
    first_line: dict[PromptPair, int] = {}
    for at, pair in pairs:
        if pair in first_line:
            raise BadInput(
                f"{name}, line {at}: the same prompt as on line {first_line[pair]}; it would "
                "count twice"
            )
        first_line[pair] = at


def _expected() -> str:
    return f"expected a line with {', '.join(_FIELDS)}, as a JSON object or as columns of a CSV"
