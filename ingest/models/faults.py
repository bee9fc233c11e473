"""The error of a model that cannot be read, in one line that names the file.

The errors of the libraries below are for their callers: they mention options that do not exist
here, a report that was printed earlier, or only a value that a table lacks.
"""

from __future__ import annotations

import json
import pickle
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.discovery.model.faults import first_line
from ingest.models.families import read_config
from ingest.models.fit import misshapen
from registry.errors import BadInput, CircuitsError, MissingExtra, NotFound

__all__ = ["unreadable"]

_SLIPS = (
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    TypeError,
    ZeroDivisionError,
)
"""Errors of code that does not check a value."""
_OURS = frozenset({"accelerate", "gguf", "protobuf", "sentencepiece"})
"""Packages that transformers needs and the extra ``discover`` installs."""
_INSTALL = re.compile(r"pip install (?:-U |--upgrade )?[\"'`]?([A-Za-z0-9_.\-]+)")
_LFS = b"version https://git-lfs"
_WEIGHTS = frozenset({".safetensors", ".bin"})
_NOT_TENSORS = "weights only load failed"


def unreadable(
    what: str,
    error: Exception,
    hint: str = "",
    folder: Path | None = None,
    files: Sequence[str] = (),
) -> CircuitsError:
    """Return the error that replaces any library's error about a broken model.

    Args:
        what: The model, and that it cannot be read.
        error: The error of the library.
        hint: What to do, with its leading punctuation.
        folder: The model's folder, because a wrong value in its config.json may be the reason.
        files: JSON files in that folder that may be the reason, instead of its config.json.
    """
    if isinstance(error, ImportError):
        return _missing_package(error)
    if folder is not None and files and (reason := _fault_of_files(error, folder, files)):
        return BadInput(f"{what}: {reason}{hint}")
    if isinstance(error, pickle.UnpicklingError) or _NOT_TENSORS in str(error).lower():
        return BadInput(
            f"{what}: its weights are a pickle that is broken or contains more than tensors, and "
            "nothing else in a pickle is run here; if you trust it, load it elsewhere and "
            "write it with save_pretrained, which makes model.safetensors"
        )
    pointer = None if folder is None else _pointer(folder)
    if pointer is not None:
        return BadInput(
            f"{what}: {pointer.name} is a pointer of Git LFS, not the weights themselves; run "
            "'git lfs pull' in that folder"
        )
    if "no file named" in str(error):
        return BadInput(
            f"{what}: its folder has no weights, such as model.safetensors; copy them there, or "
            "write the model by save_pretrained"
        )
    shapes = _in_report(error, "mismatched_keys")
    if shapes:
        return misshapen(what, {name: (tuple(a), tuple(b)) for name, a, b in shapes})
    unconverted = sorted(_in_report(error, "conversion_errors"))
    if unconverted:
        return BadInput(
            f"{what}: {len(unconverted)} of its weights, such as {unconverted[0]!r}, cannot be "
            f"converted to the types in its config.json{hint}"
        )
    if isinstance(error, _SLIPS):
        about = "a value in it cannot be used"
        slip = f"{about} ({_with_kind(error)})" if folder is None else _slip(error, folder)
        of = "" if folder is None else "its config.json is wrong: "
        return BadInput(f"{what}: {of}{slip}{hint}")
    return BadInput(f"{what}: {_said(error)}{hint}")


def _pointer(folder: Path) -> Path | None:
    """A file of weights that Git LFS has not fetched: a text of three lines in its place."""
    for path in sorted(folder.glob("*")):
        if path.suffix in _WEIGHTS and path.is_file():
            with path.open("rb") as file:
                if file.read(len(_LFS)) == _LFS:
                    return path
    return None


def _missing_package(error: ImportError) -> CircuitsError:
    named = _INSTALL.search(str(error))
    package = named[1] if named else (error.name or "")
    if not package or package in _OURS:
        return MissingExtra(f"reading this model ({first_line(error)})", "discover")
    return NotFound(
        "package", package, f"reading this model needs it, and no extra brings it: pip install "
        f"{package}",
    )  # fmt: skip


def _in_report(error: Exception, name: str) -> Any:
    """Return a part of the report that transformers made about the weights before it failed."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = getattr(frame.f_locals.get("loading_info"), name, None)
        if found:
            return found
    return ()


def _slip(error: Exception, folder: Path) -> str:
    """Return the wrong value, if the error is about a value that no table has."""
    value = error.args[0] if isinstance(error, KeyError) and error.args else None
    for key in _keys_of(read_config(folder) or {}, value):
        return f"it has {key}: {value!r}, which transformers does not know"
    return f"a value in it cannot be used ({_with_kind(error)})"


def _fault_of_files(error: Exception, folder: Path, files: Sequence[str]) -> str | None:
    """Return the fault in JSON files that a library was reading; None if they seem correct."""
    there = [name for name in files if (folder / name).is_file()]
    for name in there:
        try:
            found = json.loads((folder / name).read_bytes())
        except (OSError, ValueError, RecursionError) as cause:
            return f"{name} is not JSON ({first_line(cause)})"
        if not isinstance(found, dict):
            return f"{name} is not a JSON object"
    if not there or not isinstance(error, _SLIPS):
        return None
    if isinstance(error, KeyError) and error.args:
        return f"{' or '.join(there)} lacks {error.args[0]!r}"
    return f"a value in {' or '.join(there)} cannot be used ({_with_kind(error)})"


def _with_kind(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _keys_of(config: Mapping[str, Any], value: object) -> Iterator[str]:
    """Yield keys that have a value, such as ``rope_parameters.rope_type``."""
    for key, found in config.items():
        if isinstance(found, dict):
            yield from (f"{key}.{inner}" for inner in _keys_of(found, value))
        elif value is not None and found == value:
            yield key


def _said(error: Exception) -> str:
    """Return its first line, and the second if the first only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"[:300].rstrip(" .:")
    return first_line(error)
