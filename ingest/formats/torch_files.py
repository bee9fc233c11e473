"""Files of ``torch.save``, limited to tensors and plain containers.

A ``.pt`` file is a pickle in a zip, together with the tensors. ``weights_only=True`` excludes code.
These checks exclude files that are small on disk but large, slow or irregular in memory: members
that expand, a second directory that another zip reader would use, tar archives that torch reads in
another way, and containers that contain themselves repeatedly. For example, a pickle in which each
of sixty tuples contains the previous one twice has a hundred bytes, but its hash never ends.
"""

from __future__ import annotations

import pickletools
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, Final

from ingest.formats.base import Limits
from ingest.formats.reading import check_size
from registry.errors import BadInput, MissingExtra

__all__ = ["check_directory", "load_tensors"]

_BEGIN: Final = b"PK\x03\x04"
_END: Final = struct.Struct("<4s4H2LH")
"""The end of a zip: signature, four counts, size and offset of its directory, a comment's size."""
_LARGE_PLACE: Final = struct.Struct("<4sLQL")
"""The structure before that end in large zips: the offset of the next structure."""
_LARGE_END: Final = struct.Struct("<4sQ2H2L4Q")
"""The structure before both: the last two values are size and offset of the directory."""
_MAX_DIRECTORY_BYTES: Final = 2**24
_UNFOLDS_TO: Final = 16
"""Allowed number of values per byte of a file: a reference to a value takes two bytes."""
_CONTAINERS: Final = (dict, OrderedDict, list, tuple, set)


def load_tensors(path: Path, limits: Limits) -> Any:
    """Return the content of a ``torch.save`` file, if it is tensors and plain containers.

    Raises:
        BadInput: The file is too large, has other content, or is not such an archive.
        MissingExtra: torch is not installed.
    """
    size = _check_archive(path, limits)
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("reading .pt files", "discover") from error
    try:
        with warnings.catch_warnings(action="ignore"):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle's bytes can make torch raise any error
        raise BadInput(f"{path.name} cannot be read: {_reason(error)}") from error
    _check_plain(found, _UNFOLDS_TO * size, path.name)
    return found


def check_directory(file: IO[bytes], size: int, name: str) -> None:
    """Refuse a zip whose directory is large, or not at the offset where all zip readers expect it.

    Raises:
        BadInput: It is such a zip, or the file does not end as a zip does.
    """
    file.seek(max(0, size - _LARGE_END.size - _LARGE_PLACE.size - _END.size))
    tail = file.read()
    end, before = tail[-_END.size :], tail[: -_END.size]
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise BadInput(
            f"{name} is no archive as torch.save writes it, or incomplete: it does not end as a zip"
        )
    n_bytes, place, _ = _END.unpack(end)[5:]
    ends_at = size - _END.size
    if before[-_LARGE_PLACE.size :].startswith(b"PK\x06\x07"):
        ends_at -= _LARGE_PLACE.size + _LARGE_END.size
        large = before[: -_LARGE_PLACE.size]
        stated = _LARGE_PLACE.unpack(before[-_LARGE_PLACE.size :])[2]
        if stated != ends_at or not large.startswith(b"PK\x06\x06"):
            raise BadInput(f"{name} is a damaged archive: its end is not at the stated offset")
        n_bytes, place = _LARGE_END.unpack(large)[-2:]
    if place + n_bytes != ends_at:
        raise BadInput(f"{name} is a damaged archive: its directory is not at the stated offset")
    if n_bytes > _MAX_DIRECTORY_BYTES:
        raise BadInput(f"{name} is an archive of more files than any that we read")


def _check_archive(path: Path, limits: Limits) -> int:
    """Check the archive of a file of torch; return its size."""
    check_size(path, limits)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            # torch reads files with another beginning as another kind of file.
            if file.read(len(_BEGIN)) != _BEGIN:
                raise BadInput(
                    f"{path.name} is no archive as torch.save writes it: bare pickles are not read"
                )
            check_directory(file, size, path.name)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_members(members, size, path.name)
                for member in members:
                    if member.filename.lower().endswith(
                        "data.pkl"
                    ):  # torch searches it in this way
                        _check_tuples(archive.read(member), path.name)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path.name} is no archive as torch.save writes it: {error}") from error
    return size


def _check_members(members: list[zipfile.ZipInfo], size: int, name: str) -> None:
    stored = all(one.compress_type == zipfile.ZIP_STORED for one in members)
    if not stored or sum(one.file_size for one in members) > size:
        raise BadInput(f"{name} is no archive as torch.save writes it: it expands to more")


def _reason(error: Exception) -> str:
    text = str(error)
    if "weights_only" in text or "Unsupported" in text:
        named = re.search(r"GLOBAL ([\w.]+)", text)
        what = f"requires {named[1]}" if named else "holds more than that"
        return f"only tensors and plain containers are unpickled, and it {what}"
    return next(iter(text.splitlines()), type(error).__name__)


# -- content that expands --------------------------------------------------------------------------


def _check_tuples(data: bytes, name: str) -> None:
    """Refuse a pickle whose tuples contain each other repeatedly, before any of them is hashed.

    This walks over its instructions and counts the values of each item on the stack.
    """
    left = _UNFOLDS_TO * len(data)
    stack: list[int | None] = []  # None: a mark
    memo: dict[int, int] = {}
    try:
        for code, argument, _ in pickletools.genops(data):
            left -= _step(code, argument, stack, memo)
            if left < 0:
                raise BadInput(f"{name} expands to far more than its bytes")
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{name} is damaged: its pickle ends early or is malformed") from error


def _step(code: Any, argument: Any, stack: list[int | None], memo: dict[int, int]) -> int:
    """Apply an instruction to the stack; return the number of values it refers to."""
    name = code.name
    if name == "MARK":
        stack.append(None)
        return 0
    if "GET" in name:
        stack.append(memo.get(int(argument), 1))
        return stack[-1] or 0
    if "PUT" in name or name == "MEMOIZE":
        memo[len(memo) if argument is None else int(argument)] = stack[-1] or 0
        return 0
    held = 1
    for kind in reversed(code.stack_before):
        if kind is pickletools.stackslice:
            while stack and stack[-1] is not None:
                held += stack.pop() or 0
        else:
            held += stack.pop() or 0
    is_tuple = "TUPLE" in name
    stack.extend(held if is_tuple else 1 for _ in code.stack_after)
    return held if is_tuple else 1


def _check_plain(data: Any, left: int, name: str) -> None:
    """Refuse content with too many values for its bytes, or with replaced attributes.

    An ordered dictionary or a tensor may have attributes that replace its methods.
    """
    import torch

    waiting = [data]
    while waiting:
        value = waiting.pop()
        left -= 1
        if left < 0:
            raise BadInput(f"{name} expands to far more than its bytes")
        if isinstance(value, str | int | float | None):
            continue
        if isinstance(value, torch.Tensor):
            sound = type(value) in {torch.Tensor, torch.nn.Parameter} and not vars(value)
        elif isinstance(value, dict | list | tuple | set):
            sound = type(value) in _CONTAINERS or type(value) is torch.Size
            sound = sound and not getattr(value, "__dict__", None)
            waiting += [*value, *value.values()] if isinstance(value, dict) else value
        else:
            sound = True
            waiting += getattr(value, "__dict__", {}).values()
        if not sound:
            raise BadInput(f"{name} holds something other than plain tensors and containers")
