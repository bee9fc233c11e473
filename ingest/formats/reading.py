"""Files as text, JSON and numbers, within limits; what is malformed is one clear error."""

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
    "OddScores",
    "as_number",
    "check_count",
    "check_lines",
    "check_size",
    "count_in_file",
    "finite",
    "outer_keys",
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
"""A file of JSON may hold so many values for each edge that is allowed, and these in any case: what
is read of a value takes many times its bytes, and is there before an edge can be counted."""
_SHOWN_ODD = 3


def check_size(path: Path, limits: Limits) -> None:
    """Refuse a file that is too large before it is read, and what is no file: a pipe never ends.

    Raises:
        BadInput: It is too large, no file, or not there.
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
    """Refuse more edges, or whatever else a file is made of, than are allowed.

    Args:
        n: How many there are.
        what: What they are called: ``edges``.
        name: The file's.
        limits: Says how many are allowed.

    Raises:
        BadInput: There are too many.
    """
    if n > limits.max_edges:
        raise BadInput(
            f"{name} has {n:,} {what} and {limits.max_edges:,} are allowed; --max-edges raises that"
        )


def read_text(path: Path, limits: Limits) -> str:
    """A file's text.

    Raises:
        BadInput: It is too large, no UTF-8, or cannot be read.
    """
    try:
        check_size(path, limits)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name} is no text in UTF-8: {error.reason}") from error


def count_in_file(path: Path, mark: bytes) -> int:
    """How often a text stands in a file, which is read piece by piece.

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
    """Refuse a table of more rows than edges are allowed, before any of them is read.

    Args:
        text: The table's, with a line for each row; empty lines do not count.
        name: The file's.
        limits: Says how many are allowed.
        header: The first line is none of the rows.

    Raises:
        BadInput: There are too many.
    """
    if text.count("\n") >= limits.max_edges:
        n_lines = 1 + sum(1 for _ in _NEXT_LINE.finditer(text))
        check_count(n_lines - header, "rows", name, limits)


def read_json(
    path: Path,
    limits: Limits,
    *,
    once: bool = False,
    each_edge: Sequence[str] = (),
    odd: bool = False,
) -> Any:
    """A file's JSON; NaN and infinities, which JSON does not have, are read as missing.

    Args:
        path: Which file.
        limits: How large it may be.
        once: Refuse objects that have a name twice, of which otherwise the last counts.
        each_edge: Texts that stand in the file once for each edge, so that too many are refused
            before any is read.
        odd: Give NaN and infinities as they are, for who reads scores and says which are none
            (:class:`OddScores`); what is kept as it stands goes through :func:`finite`.

    Raises:
        BadInput: It is malformed, nested too deeply, holds too many values or edges, or as
            :func:`read_text`.
    """
    text = read_text(path, limits)
    if each_edge:
        check_count(min(map(text.count, each_edge)), "edges", path.name, limits)
    return _parsed(text, path.name, limits, once=once, odd=odd)


@lru_cache(maxsize=4)
def outer_keys(head: bytes) -> frozenset[str]:
    """The names in the outermost object of JSON, as far as its beginning shows them.

    A name further in belongs to something else: what wraps a file of another tool is not of that
    tool's format.

    Args:
        head: A file's first bytes. What does not begin with an object has no such names.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith(b"{"):
        return frozenset()
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


def read_json_or_lines(path: Path, limits: Limits) -> Any:
    """A file's JSON, or the list of what the lines of a file of JSON Lines hold.

    Objects that follow each other without a comma are no JSON, so that no file is both.

    Raises:
        BadInput: As :func:`read_json`.
    """
    text = read_text(path, limits)
    lines = [(at, line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    several = len(lines) > 1 and lines[0][1].rstrip().endswith("}")
    if not (several and lines[1][1].lstrip().startswith("{")):
        return _parsed(text, path.name, limits)
    check_count(len(lines), "lines", path.name, limits)
    return [_parsed(line, f"{path.name}, line {at},", limits) for at, line in lines]


def _parsed(text: str, name: str, limits: Limits, *, once: bool = False, odd: bool = False) -> Any:
    most = max(_FEW_VALUES, _VALUES_PER_EDGE * limits.max_edges)
    # Each value is the first of its list or object, or stands behind a comma.
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
            object_pairs_hook=_each_once if once else None,
        )
    except _TwiceNamed as error:
        raise BadInput(f"{name} has {error.args[0]!r:.80} twice in one object") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"{name} is no JSON: {error}") from error
    except RecursionError as error:
        raise BadInput(f"{name} is nested too deeply") from error
    except ValueError as error:  # whole numbers of thousands of digits
        raise BadInput(f"{name} holds a number that cannot be read: {error}") from error


def as_number(value: Any, where: str) -> float | None:
    """A value of JSON as a number; None where it is missing.

    Args:
        value: As :func:`read_json` gives it.
        where: What it is in which file, for the error.

    Raises:
        BadInput: It is no number, or none that a float holds.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{where} is {str(value)[:80]!r}, no number")
    try:
        return float(value)
    except OverflowError as error:
        raise BadInput(f"{where} is too large for a number") from error


def _finite(text: str) -> float | None:
    value = float(text)
    return value if abs(value) != float("inf") else None


DECODER = json.JSONDecoder(parse_constant=float)
"""Gives NaN and infinities, which JSON does not have, as they are, for :class:`OddScores`."""


class OddScores:
    """Scores that are no finite number, which every format reads as missing, by name.

    NaN is how torch, numpy and pandas write what was never taken; an infinity is the start value
    of a search or an overflow. Neither is an effect that a circuit can hold, and the edge it stands
    at is there all the same.
    """

    def __init__(self) -> None:
        self._found: list[str] = []
        self._n = 0

    def taken(self, score: float | None, where: str) -> float | None:
        """A score, or None where it is no finite number.

        Args:
            score: As the file has it.
            where: Which line, edge or node it stands at.
        """
        if score is None or math.isfinite(score):
            return score
        self.add(score, where)
        return None

    def add(self, score: float, where: str) -> None:
        """Keep one in mind."""
        self._n += 1
        if len(self._found) < _SHOWN_ODD:
            self._found.append(f"{where} ({score:g})")

    def notes(self) -> list[str]:
        """What to say of them; nothing where there were none."""
        if not self._n:
            return []
        more = f" and {self._n - len(self._found):,} more" if self._n > len(self._found) else ""
        what = "1 score that is" if self._n == 1 else f"{self._n:,} scores that are"
        return [f"{what} no finite number read as missing: {', '.join(self._found)}{more}"]


def finite(value: Any) -> Any:
    """A value of JSON with NaN and infinities read as missing, however deep they lie.

    Raises:
        BadInput: They lie too deep.
    """
    try:
        return _finite_within(value)
    except RecursionError as error:
        raise BadInput("what is kept of the file as it stands is nested too deeply") from error


def _finite_within(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite_within(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite_within(inner) for inner in value]
    return value


class _TwiceNamed(Exception):
    """An object of JSON has a name twice; the name."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise _TwiceNamed(next(name for name, n in times.items() if n > 1))
    return found
