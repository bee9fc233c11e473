"""Files as text, JSON and numbers, within limits; malformed content gives one clear error."""

from __future__ import annotations

import json
import math
import re
import stat
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ingest.formats.base import Limits
from registry.errors import BadInput

__all__ = [
    "DECODER",
    "ONCE_DECODER",
    "NamedTwice",
    "OddScores",
    "as_float",
    "as_number",
    "check_count",
    "check_lines",
    "check_size",
    "count_in_file",
    "each_once",
    "finite",
    "outer_keys",
    "parse_json",
    "read_json",
    "read_json_or_lines",
    "read_text",
]

_PIECE_BYTES = 1 << 20
_NEXT_LINE = re.compile(r"\n(?=[^\n])")
_STRING = rb'"(?:[^"\\]|\\.)*+'
_TOKEN = re.compile(
    rb"(?P<key>" + _STRING + rb'")\s*:|(?P<text>' + _STRING + rb'"?)|[\[{}\]]', re.DOTALL
)
_VALUES_PER_EDGE = 8
_FEW_VALUES = 1_000_000
"""The number of values in a file of JSON per allowed edge, and the minimum: a value takes many
times its bytes in memory, and is read before an edge can be counted."""
_SHOWN_ODD = 3


def check_size(path: Path, limits: Limits) -> None:
    """Refuse a file that is too large before it is read, and what is not a file, such as a pipe.

    Raises:
        BadInput: It is too large, not a file, or does not exist.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # NUL in a name
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is no plain file")
    size = status.st_size
    if size > limits.max_bytes:
        raise BadInput(
            f"{path.name} has {size:,} bytes and {limits.max_bytes:,} are allowed;"
            " --max-bytes raises that"
        )


def check_count(n: int, what: str, name: str, limits: Limits) -> None:
    """Refuse more edges, or other items of a file, than are allowed.

    Args:
        n: Number of items.
        what: The term for the items: ``edges``.
        name: The file's name.
        limits: Gives the allowed number.

    Raises:
        BadInput: There are too many.
    """
    if n > limits.max_edges:
        raise BadInput(
            f"{name} has {n:,} {what} and {limits.max_edges:,} are allowed; --max-edges raises that"
        )


def read_text(path: Path, limits: Limits) -> str:
    """Return a file's text.

    Raises:
        BadInput: It is too large, not UTF-8, or cannot be read.
    """
    try:
        check_size(path, limits)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name} is no text in UTF-8: {error.reason}") from error


def count_in_file(path: Path, mark: bytes) -> int:
    """Return how often a text occurs in a file, which is read in pieces.

    Raises:
        BadInput: The file cannot be read.
    """
    found, rest = 0, b""
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                found += (rest + piece).count(mark)
                rest = piece[-len(mark) + 1 :]
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    return found


def check_lines(text: str, name: str, limits: Limits, *, header: bool) -> None:
    """Refuse a table with more rows than allowed edges, before any of them is read.

    Args:
        text: The text of the table, one line per row; empty lines do not count.
        name: The file's name.
        limits: Gives the allowed number.
        header: Whether the first line is a header.

    Raises:
        BadInput: There are too many rows.
    """
    if text.count("\n") >= limits.max_edges:
        n_lines = 1 + sum(1 for _ in _NEXT_LINE.finditer(text))
        check_count(n_lines - header, "rows", name, limits)


def read_json(
    path: Path,
    limits: Limits,
    *,
    each_edge: Sequence[str] = (),
    odd: bool = False,
) -> Any:
    """Return a file's JSON; NaN and infinities, which JSON does not have, are read as missing.

    Args:
        path: The file.
        limits: Its allowed size.
        each_edge: Texts that occur in the file once per edge, so that too many edges are refused
            before any is read.
        odd: Return NaN and infinities unchanged, for callers that read scores and list such values
            (:class:`OddScores`); for content that is kept unchanged, use :func:`finite`.

    Raises:
        BadInput: It is malformed, has a repeated name in one object, is nested too deeply, or has
            too many values or edges; or see :func:`read_text`.
    """
    text = read_text(path, limits)
    if each_edge:
        check_count(min(map(text.count, each_edge)), "edges", path.name, limits)
    return parse_json(text, path.name, limits, odd=odd)


@lru_cache(maxsize=4)
def outer_keys(head: bytes) -> frozenset[str]:
    """Return the names in the outermost object of JSON, as far as its beginning shows them.

    A name at a deeper level belongs to something else: an object around another tool's file does
    not have that tool's format.

    Args:
        head: A file's first bytes. If they do not begin with an object, there are no names.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith(b"{"):
        return frozenset()
    try:  # the whole text of a small file is read nine times as fast
        return frozenset(json.loads(text.decode()))
    except (ValueError, RecursionError):
        return _outer_keys_of_a_part(text)


def _outer_keys_of_a_part(text: bytes) -> frozenset[str]:
    depth, found = 0, set()
    for token in _TOKEN.finditer(text):
        if token["key"] is not None:
            if depth == 1:
                found.add(token["key"][1:-1].decode("utf-8", "replace"))
        elif token["text"] is None:
            depth += 1 if token[0] in b"[{" else -1
            if depth <= 0:
                break
    return frozenset(found)


def read_json_or_lines(path: Path, limits: Limits, *, odd: bool = False) -> Any:
    """Return a file's JSON, or the list of the values in the lines of a JSON Lines file.

    Consecutive objects without a comma are not JSON, so no file is both.

    Raises:
        BadInput: See :func:`read_json`.
    """
    text = read_text(path, limits)
    lines = [(at, line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    several = len(lines) > 1 and lines[0][1].rstrip().endswith("}")
    if not (several and lines[1][1].lstrip().startswith("{")):
        return parse_json(text, path.name, limits, odd=odd)
    check_count(len(lines), "lines", path.name, limits)
    return [parse_json(line, f"{path.name}, line {at},", limits, odd=odd) for at, line in lines]


def parse_json(text: str, name: str, limits: Limits, *, odd: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The whole text.
        name: Its name, for errors.
        limits: Give the allowed number of values.
        odd: See :func:`read_json`.

    Raises:
        BadInput: See :func:`read_json`.
    """
    most = max(_FEW_VALUES, _VALUES_PER_EDGE * limits.max_edges)
    # Each value is the first of its list or object, or follows a comma.
    n_values = text.count(",") + text.count("[") + text.count("{")
    if n_values > most:
        raise BadInput(
            f"{name} holds some {n_values:,} values and {most:,} are allowed; --max-edges raises"
            " that"
        )
    try:
        return json.loads(
            text,
            parse_constant=float if odd else lambda _: None,
            parse_float=float if odd else _finite,
            object_pairs_hook=each_once,
        )
    except NamedTwice as error:
        raise BadInput(f"{name} {error}") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"{name} is no JSON: {error}") from error
    except RecursionError as error:
        raise BadInput(f"{name} is nested too deeply") from error
    except ValueError as error:  # whole numbers of thousands of digits
        raise BadInput(f"{name} holds a number that cannot be read: {error}") from error


def as_number(value: Any, where: str) -> float | None:
    """Return a value of JSON as a number, finite or not; None if it is missing.

    Args:
        value: As :func:`read_json` returns it.
        where: Its name and file, for the error.

    Raises:
        BadInput: It is not a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{where} is {str(value)[:80]!r}, no number")
    return as_float(value)


def as_float(value: float) -> float:
    """Return a number as a float: whole numbers beyond all floats are infinite, like ``1e999``."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _finite(text: str) -> float | None:
    value = float(text)
    return value if abs(value) != float("inf") else None


class NamedTwice(ValueError):
    """An object of JSON has a repeated name, for which a parser silently keeps the last value."""


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON from its names and values; a hook for parsers.

    Raises:
        NamedTwice: Two of the names are equal.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name, n in times.items() if n > 1)
        raise NamedTwice(f"has {twice!r:.80} twice in one object")
    return found


DECODER = json.JSONDecoder(parse_constant=float)
"""Returns NaN and infinities, which JSON does not have, unchanged, for :class:`OddScores`; for a
repeated name in one object the last value counts."""
ONCE_DECODER = json.JSONDecoder(parse_constant=float, object_pairs_hook=each_once)
"""Like the decoder above, but refuses a repeated name, which takes half as long again."""


class OddScores:
    """Scores that are not finite, by name; every format reads them as missing.

    torch, numpy and pandas write NaN for values that were not computed. An infinity is the initial
    value of a search, or an overflow. A circuit can hold neither as an effect, but the edge with
    such a score still exists.
    """

    def __init__(self) -> None:
        self._found: list[str] = []
        self._n = 0

    def taken(self, score: float | None, where: str) -> float | None:
        """Return a score, or None if it is not finite.

        Args:
            score: The score in the file.
            where: The line, edge or node of the score.
        """
        if score is None or math.isfinite(score):
            return score
        self.add(score, where)
        return None

    def add(self, score: float, where: str) -> None:
        """Add a score that is not finite."""
        self._n += 1
        if len(self._found) < _SHOWN_ODD:
            self._found.append(f"{where} ({score:g})")

    def notes(self) -> list[str]:
        """Return a note on these scores; empty if there were none."""
        if not self._n:
            return []
        more = f" and {self._n - len(self._found):,} more" if self._n > len(self._found) else ""
        what = "1 score that is" if self._n == 1 else f"{self._n:,} scores that are"
        return [f"{what} not finite, read as missing: {', '.join(self._found)}{more}"]


def finite(value: Any, name: str = "what is kept of the file as it stands") -> Any:
    """Return a value of JSON with NaN and infinities replaced by None, at any depth.

    Args:
        value: As :func:`read_json` returns it with ``odd``.
        name: Its name, for errors.

    Raises:
        BadInput: It is nested too deeply.
    """
    try:
        return _finite_within(value)
    except RecursionError as error:
        raise BadInput(f"{name} is nested too deeply") from error


def _finite_within(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite_within(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite_within(inner) for inner in value]
    return value
