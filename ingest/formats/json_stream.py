"""One object of JSON that is larger than memory: its lists by batches of items, the rest whole.

Pieces of the text are decoded by :mod:`json` itself, so that numbers and texts are what
:func:`ingest.formats.reading.read_json` makes of them with ``odd``. A piece of a list is cut behind
its last brace or bracket, or before its last comma: where what stands before decodes as a list,
these are items, since JSON is read from the left alone; where it does not, the cut was inside an
item or a text, and items are decoded one by one. That is faster than to ask a parser for one item
after the other: 55 MB of links a second, where ijson with yajl gives 39 and all of the file at once
31.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ingest.formats.reading import DECODER
from registry.errors import BadInput

__all__ = ["Tell", "read_object"]

Tell = Callable[[int, int], None]
"""Told how many bytes are read, and of how many."""

_PIECE = 1 << 20  # characters that are read, and of a list decoded, at a time
_LARGEST = 1 << 26  # characters of one value that is decoded whole: an item, or what is no list
_MOST_VALUES = 4_000_000  # inside it: what is read of a value takes many times its bytes
_AHEAD = 3  # characters by which a number cut off behind its digits may have gone on: 1e+
_SPACE = re.compile(r"[ \t\n\r]*")


def read_object(
    path: Path,
    whole: Mapping[str, Callable[[Any], None]],
    items: Mapping[str, Callable[[list[Any]], None]],
    tell: Tell | None = None,
    piece: int = _PIECE,
) -> set[str]:
    """Read a file that is one object; other fields of it are passed over.

    Args:
        path: Which file.
        whole: By field, what takes its value.
        items: By field that is a list, what takes its items, some at a time and in order.
        tell: Told of the bytes.
        piece: Characters to read at a time.

    Returns:
        Those of the fields that there are.

    Raises:
        BadInput: It is no such object, a wanted field stands there twice, one of ``items`` is no
            list, one value is too large or nested too deeply, or the file cannot be read.
    """
    found: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = _Text(file, path, tell, piece)
            for field in text.fields():
                if field in found:
                    raise BadInput(f"{path.name} has {field!r:.80} twice in one object")
                if field in items:
                    _hand_over(text, field, items[field], path.name)
                elif field in whole:
                    whole[field](text.value())
                else:
                    text.pass_over()
                    continue
                found.add(field)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path.name} is no text in UTF-8: {error.reason}") from error
    return found


def _hand_over(text: _Text, field: str, take: Callable[[list[Any]], None], name: str) -> None:
    if text.next() != "[":
        raise BadInput(f"{name}: {field} is no list")
    for batch in text.batches():
        take(batch)


class _Text:
    """A file's text, from where reading has come to."""

    def __init__(self, file: TextIO, path: Path, tell: Tell | None, piece: int) -> None:
        self._file, self._name, self._tell, self._piece = file, path.name, tell, piece
        self._size_bytes = path.stat().st_size
        self._text, self._at, self._before, self._ended = "", 0, 0, False

    def fields(self) -> Iterator[str]:
        """Names of the object's fields; the value of each is to be taken before the next."""
        if self.next() != "{":
            raise BadInput(f"{self._name} is no object of JSON")
        self._at += 1
        if self.next() != "}":
            while True:
                if self.next() != '"':
                    raise self._malformed("a name in double quotes is missing")
                name: str = self.value()
                self._expect(":")
                yield name
                if self._expect(",}") == "}":
                    break
        else:
            self._at += 1
        if self.next():
            raise self._malformed("something stands behind its end")

    def batches(self) -> Iterator[list[Any]]:
        """Items of the list that begins here, some at a time."""
        self._at += 1
        if self.next() == "]":
            self._at += 1
            return
        while True:
            yield self._batch()
            if self._expect(",]") == "]":
                return

    def value(self) -> Any:
        """The value that begins here."""
        self.next()
        while True:
            try:
                found, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:  # malformed, or not all of it is here
                place = self._before + error.pos
                if not self._read_on(len(self._text) - self._at):
                    raise self._malformed(error.msg, place) from error
                self._check_size()
                continue
            except RecursionError as error:
                raise BadInput(f"{self._name} is nested too deeply") from error
            except ValueError as error:  # whole numbers of thousands of digits
                raise BadInput(
                    f"{self._name} holds a number that cannot be read: {error}"
                ) from error
            length = end - self._at
            if end + _AHEAD < len(self._text) or not self._read_on(self._piece):
                self._at += length
                return found

    def pass_over(self) -> None:
        """Go behind the value that begins here; a list may be of any length."""
        if self.next() != "[":
            self.value()
            return
        for _ in self.batches():
            pass

    def next(self) -> str:
        """The next character that is no space, where reading then stands; empty at the end."""
        while True:
            self._at = _space_end(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on(self._piece):
                return ""

    def _expect(self, those: str) -> str:
        found = self.next()
        if not found or found not in those:
            raise self._malformed(f"{' or '.join(those)} is missing")
        self._at += 1
        return found

    def _batch(self) -> list[Any]:
        while len(self._text) - self._at < self._piece and self._read_on(self._piece):
            pass
        end = self._at + self._piece
        # What closes an item is tried before a comma, which may stand in one.
        for mark in "}],":
            cut = self._text.rfind(mark, self._at, end) + (mark != ",")
            if cut <= self._at:
                continue
            try:
                found: list[Any] = DECODER.decode(f"[{self._text[self._at : cut]}]")
            except (ValueError, RecursionError):
                continue
            self._at = cut
            return found
        return self._one_by_one()

    def _one_by_one(self) -> list[Any]:
        """The items that begin in what is here of the text, but for the comma behind the last."""
        end = self._before + len(self._text)
        found = [self.value()]
        while self.next() == "," and self._before + self._at < end:
            self._at += 1
            found.append(self.value())
        return found

    def _read_on(self, least: int) -> bool:
        """Read more, as much as there is room for; whether there was any."""
        if self._ended:
            return False
        more = self._file.read(max(least, self._piece))
        self._text = self._text[self._at :] + more
        self._before, self._at = self._before + self._at, 0
        self._ended = not more
        if self._tell is not None:
            self._tell(self._size_bytes if self._ended else self._bytes_read(), self._size_bytes)
        return not self._ended

    def _bytes_read(self) -> int:
        buffer = getattr(self._file, "buffer", None)
        return self._before if buffer is None else int(buffer.tell())

    def _check_size(self) -> None:
        size = len(self._text) - self._at
        n_values = sum(self._text.count(mark, self._at) for mark in ",[{")
        if size > 2 * _LARGEST or n_values > _MOST_VALUES:
            raise BadInput(
                f"{self._name} holds one value of over {_LARGEST:,} characters or {_MOST_VALUES:,}"
                " parts"
            )

    def _malformed(self, reason: str, place: int | None = None) -> BadInput:
        place = self._before + self._at if place is None else place
        return BadInput(f"{self._name} is no JSON: {reason}: character {place:,}")


def _space_end(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
