"""The index of a model's several weight files: which files it names, and that they are its own.

transformers opens whatever file an index names, also one of another folder: a model would then have
weights that neither its folder nor its name tells of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from registry.errors import BadInput

__all__ = ["require_own_files"]

_WHOLE = ("model.safetensors", "pytorch_model.bin")
"""What transformers reads first, each before its index of several files."""


def require_own_files(name: str, folder: Path, named: Any = None) -> None:
    """Refuse a model whose index is malformed or names files outside its folder.

    Args:
        name: Of the model.
        folder: Its folder, which may have no index.
        named: The file of weights, or index, that its config.json names (``transformers_weights``).

    Raises:
        BadInput: The index that transformers would read is such; the text names the index.
    """
    index = _index(folder, named)
    fault = None if index is None else _fault(index)
    if index is not None and fault is not None:
        raise BadInput(f"the model {name} cannot be read: its {index.name} {fault}")


def _index(folder: Path, named: Any) -> Path | None:
    """The index that transformers would read; None where it reads none."""
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
    """What is wrong with an index; None where nothing is."""
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
    """Whether a name leads out of its folder, on any system."""
    return any(
        path.is_absolute() or path.drive or path.root or ".." in path.parts
        for path in (PurePosixPath(file), PureWindowsPath(file))
    )
