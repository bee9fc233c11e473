"""Checks the index of a model with several weight files: it must name only files of the model.

transformers opens every file that an index names, also files of another folder. Such a model would
have weights that are not in its folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from registry.errors import BadInput

__all__ = ["require_own_files"]

_WHOLE = ("model.safetensors", "pytorch_model.bin")
"""Single files of weights, in the order in which transformers looks for them; each is read instead
of the index of the same name."""


def require_own_files(name: str, folder: Path, named: Any = None) -> None:
    """Refuse a model whose index is malformed or names files outside its folder.

    Args:
        name: Name of the model.
        folder: Its folder, which may have no index.
        named: The file of weights, or the index, that its config.json names
            (``transformers_weights``).

    Raises:
        BadInput: The index that transformers would read has such a fault. The text names the index.
    """
    index = _index(folder, named)
    fault = None if index is None else _fault(index)
    if index is not None and fault is not None:
        raise BadInput(f"the model {name} cannot be read: its {index.name} {fault}")


def _index(folder: Path, named: Any) -> Path | None:
    """Return the index that transformers would read; None if it reads no index."""
    if isinstance(named, str):  # transformers itself refuses one outside the folder
        index = folder / named
        return index if named.endswith(".index.json") and index.is_file() else None
    for file in _WHOLE:
        if (folder / file).is_file():
            return None
        index = folder / f"{file}.index.json"
        if index.is_file():
            return index
    return None


def _fault(index: Path) -> str | None:
    """Return the fault of an index; None if it has no fault."""
    try:
        found = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"is not JSON ({type(error).__name__})"
    weights = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not weights:
        return "has no weight_map from the names of weights to files"
    if not isinstance(found.get("metadata"), dict):
        return 'has no metadata, which transformers needs; add "metadata": {}'
    return _fault_of_files(weights)


def _fault_of_files(weights: Mapping[str, Any]) -> str | None:
    for weight, file in weights.items():
        if not isinstance(file, str) or not file:
            return f"says weight_map.{weight}: {file!r:.80}, which must be the name of a file"
        if _leads_outside(file):
            return (
                f"takes {weight!r} from {file!r:.200}, outside the model's folder; put that file "
                "in the folder and its name in the index"
            )
    return None


def _leads_outside(file: str) -> bool:
    """Return whether a name leads to another folder, on any operating system."""
    return any(
        path.is_absolute() or path.drive or path.root or ".." in path.parts
        for path in (PurePosixPath(file), PureWindowsPath(file))
    )
