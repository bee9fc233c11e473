"""Pickles that no format reads, and the reason: reading a pickle can run any code.

Only formats of plain containers and tensors are unpickled, each by its own module. For any other
pickle, the required classes are found by a walk over its instructions, without loading it. The
refusal names them and explains how to get the content in another form: for ACDC's ``save_edges``,
MIB's result files, AutoCircuit's caches, graphs of networkx. A pickle that requires only tensors
and plain containers would not run code: the refusal says that it has plain tensors and no known
kind of circuit.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ingest.formats.base import Context, Imported, NoRecords
from ingest.formats.reading import check_size
from ingest.formats.torch_files import check_directory
from registry.errors import BadInput
from registry.texts.words import listed

__all__ = ["FORMAT", "Pickle", "classes_and_texts"]

_SCANNED_BYTES: Final = 4 * 2**20
_PROTOCOLS = tuple(bytes((0x80, version)) for version in range(2, 6))
_UNKNOWN = "a pickle of an unknown format"
_PLAIN = re.compile(
    r"collections\.OrderedDict|torch\.Size|torch\.device|_codecs\.encode"
    r"|torch\._utils\._rebuild_(?:tensor(?:_v[23])?|parameter|sparse_tensor)"
    r"|torch\.(?:\w+Storage|storage\.(?:Typed|Untyped)Storage)|torch\.serialization\._get_layout"
    r"|torch\.(?:float|bfloat|int|uint|complex)\d+|torch\.bool"
)
"""Functions that torch writes into an archive of tensors; ``weights_only`` calls nothing else."""
_SHOWN = 6
_MOST_PICKLES = 8
_AS_TABLE = (
    "write its records as a table (CSV or JSON Lines: source, target, effect), which is imported"
)
_ADVICE: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("acdc.", "transformer_lens.acdc."),
        "edges that ACDC's save_edges wrote",
        "its save_subgraph writes a .pth that is imported, or "
        + _AS_TABLE.replace("source, target, effect", "source, target, effect; hook points with"
                            " the head in brackets: blocks.9.attn.hook_result[6]"),
    ),
    (
        ("weighted_edge_counts", "area_under", "area_from_1"),
        "a result file of the MIB circuit track",
        "import the circuit it measured from its importances.json or .pt",
    ),
    (
        ("auto_circuit.",),
        "a cache of AutoCircuit",
        _AS_TABLE,
    ),
    (
        ("networkx.",),
        "a graph of networkx",
        "write it with networkx.node_link_data as JSON or with networkx.write_graphml, which are"
        " imported",
    ),
)  # fmt: skip


class Pickle:
    """The last format that is tried for pickles: it refuses all of them."""

    name = "pickle"
    summary = "any other pickle: refused, with the classes it requires and a way to convert it"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Barely sure, so that every format that reads some pickles is tried before."""
        bare = head.startswith(_PROTOCOLS) or path.suffix.lower() in {".pkl", ".pickle"}
        archive = head.startswith(b"PK\x03\x04") and b"data.pkl" in head[:4096]
        return 0.02 if bare or archive else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Raise the refusal.

        Raises:
            NoRecords: It holds tensors and plain containers, and nothing that a format reads.
            BadInput: In all other cases.
        """
        check_size(path, context.limits)
        data = _instructions(path)
        classes, texts = classes_and_texts(data)
        what, instead = _advice(classes, texts)
        if _is_plain(data, classes):
            held = "plain tensors" if classes else "plain values"
            kind = "not a known kind of circuit" if what == _UNKNOWN else what
            raise NoRecords(f"{path.name} holds {held}, {kind}; to import its content, {instead}")
        raise BadInput(
            f"{path.name} is {what}; reading it could run any code{_asks_for(classes)}."
            f" Instead, {instead}"
        )


FORMAT = Pickle()


def _advice(classes: list[str], texts: set[str]) -> tuple[str, str]:
    """Return the kind of a pickle, and what to do instead of reading it."""
    for marks, what, instead in _ADVICE:
        if any(_has(mark, classes, texts) for mark in marks):
            return what, instead
    return _UNKNOWN, _AS_TABLE


def _is_plain(data: bytes, classes: list[str]) -> bool:
    """Return whether a pickle was read to its end and requires only tensors and containers."""
    return len(data) < _SCANNED_BYTES and all(map(_PLAIN.fullmatch, classes)) and _ends(data)


def _ends(data: bytes) -> bool:
    """Return whether the walk over a pickle reaches its end, with nothing after it."""
    stream = io.BytesIO(data)
    try:
        for _ in pickletools.genops(stream):
            pass
    except (ValueError, IndexError, OverflowError):
        return False
    return stream.tell() == len(data)


def classes_and_texts(data: bytes) -> tuple[list[str], set[str]]:
    """Return the required classes and functions in order, and texts; nothing is run.

    A pickle that ends early or is malformed is read up to that point.
    """
    classes: dict[str, None] = {}
    texts: set[str] = set()
    stream = io.BytesIO(data)
    for _ in range(_MOST_PICKLES):  # older torch writes several, one after the other
        for found, is_class in _walk(stream):
            if is_class:
                classes[found] = None
            else:
                texts.add(found)
    return list(classes), texts


def _walk(stream: io.BytesIO) -> Iterator[tuple[str, bool]]:
    """Yield texts (False) and classes (True) of one pickle; the stream is then at its end."""
    memo: dict[int, str] = {}
    n_kept = 0
    last: list[str | None] = [None, None]
    try:
        for code, argument, _ in pickletools.genops(stream):
            if code.name in {"GLOBAL", "INST"}:
                last.append(None)
                yield str(argument).replace(" ", "."), True
            elif code.name == "STACK_GLOBAL":
                named = last[-1] is not None and last[-2] is not None
                yield f"{last[-2]}.{last[-1]}" if named else "a class without a plain name", True
                last.append(None)
            elif code.name.startswith("EXT"):
                last.append(None)
                yield "a class by its number", True
            elif code.name in {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}:
                place = n_kept if code.name == "MEMOIZE" else int(argument or 0)
                n_kept += 1
                if last[-1] is not None:
                    memo[place] = last[-1]
            elif code.name in {"GET", "BINGET", "LONG_BINGET"}:
                last.append(memo.get(int(argument or 0)))
            elif isinstance(argument, str) and "UNICODE" in code.name:
                last.append(argument)
                yield argument, False
            else:
                last.append(None)
            del last[:-2]
    except (ValueError, IndexError, OverflowError):
        stream.seek(0, io.SEEK_END)


def _instructions(path: Path) -> bytes:
    """Return the beginning of a pickle, if necessary from an archive of torch."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return file.read(_SCANNED_BYTES)
            check_directory(file, path.stat().st_size, path.name)
            with zipfile.ZipFile(file) as archive:
                inner = next(n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
                with archive.open(inner) as member:
                    return member.read(_SCANNED_BYTES)
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except (
        zipfile.BadZipFile, StopIteration, ValueError, NotImplementedError, RuntimeError, EOFError
    ) as error:  # fmt: skip
        raise BadInput(f"{path.name} is a damaged archive of a pickle: {error}") from error


def _has(mark: str, classes: list[str], texts: set[str]) -> bool:
    if mark.endswith("."):
        return any(one.startswith(mark) for one in classes)
    return mark in texts


def _asks_for(classes: list[str]) -> str:
    if not classes:
        return ""
    return f" (it requires {listed(classes, _SHOWN)})"
