"""Export of records to files: the content of a circuit's file, its name, and writing it.

Nothing is printed here. Warnings are passed to a function that the caller gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from registry import plugins
from registry.errors import (
    ArtifactCorrupt,
    ArtifactNotFound,
    BadInput,
    CircuitsError,
    StorageError,
)
from registry.files.whole_files import whole_file
from registry.rows import Rows

if TYPE_CHECKING:
    from ingest.formats.exporting import Exporter
    from registry.files.attachments import AttachmentOwner
    from registry.ledger.base import CircuitEntry
    from registry.registry import Registry

__all__ = [
    "STANDARD_OUTPUT",
    "Owner",
    "attachments_to_folder",
    "bundle_path",
    "circuits_to_files",
    "content",
    "refuse_existing",
    "short",
    "write_file",
]

STANDARD_OUTPUT = "-"
Owner = tuple["AttachmentOwner", str]
"""The owner of attached files: its kind and full id."""
_DIGITS = 12
_LONGEST_NAME = 200  # file systems allow 255 bytes


def circuits_to_files(
    registry: Registry,
    entries: Sequence[CircuitEntry],
    exporter: Exporter,
    out: str | None,
    *,
    force: bool,
    heads: bool,
    tell: Callable[[str], None],
) -> Rows:
    """Write each circuit into a separate file.

    Args:
        registry: The registry of the circuits.
        entries: The circuits.
        exporter: Writes the format.
        out: A file, or a folder; None is the current folder.
        force: Overwrite existing files.
        heads: Write only the heads, without edges and other parts.
        tell: Is called with each warning.

    Returns:
        Columns ``circuit file size_bytes refused``; ``refused`` is None, or the reason why a
        circuit does not fit the format.

    Raises:
        CircuitsError: The only circuit does not fit the format.
        BadInput, StorageError: A file exists already, or cannot be written.
    """
    paths = _paths(entries, exporter.suffix, out)
    refuse_existing(paths, force=force)
    rows: list[tuple[str, str | None, int | None, str | None]] = []
    for entry, path in zip(entries, paths, strict=True):
        try:
            data = content(registry, entry, exporter, heads=heads, tell=tell)
        except CircuitsError as error:
            if len(entries) == 1:
                raise
            rows.append((entry.id, None, None, str(error)))
        else:
            write_file(path, lambda file, data=data: file.write(data))  # type: ignore[misc]
            rows.append((entry.id, str(path), len(data), None))
    return Rows(("circuit", "file", "size_bytes", "refused"), tuple(rows))


def content(
    registry: Registry,
    entry: CircuitEntry,
    exporter: Exporter,
    *,
    heads: bool,
    tell: Callable[[str], None],
) -> bytes:
    """Return the content of a circuit's file; ``tell`` receives a warning if scores are lost.

    Raises:
        CircuitsError: The circuit does not fit the format.
        PluginBroken: The exporter of another package fails.
    """
    from ingest.formats.exporting import EXPORTERS_GROUP, Exporting, heads_alone

    circuit = registry.document(entry.id)
    if heads:
        circuit = heads_alone(circuit)
    model = registry.ledger.model(entry.model)
    scores = None
    if circuit.scores is not None:
        try:
            scores = registry.artifact(circuit.scores)
        except ArtifactNotFound:
            tell(f"warning: the scores of {short(entry.id)} are lost; exporting without them")
    with plugins.blamed(EXPORTERS_GROUP, exporter):
        written = exporter.write(circuit, Exporting(model, scores))
        if not isinstance(written, bytes):
            raise TypeError(f"write returns {type(written).__name__} instead of bytes")
    return written


def _paths(entries: Sequence[CircuitEntry], suffix: str, out: str | None) -> list[Path]:
    """Return each circuit's path; a folder exists already, or its path ends as a folder's does."""
    target = Path(out or ".")
    is_folder = target.is_dir() or (out or "").endswith(("/", os.sep))
    if not is_folder and len(entries) == 1:
        return [target]
    if target.is_file():
        raise BadInput(f"{target} is a file; name a folder for {len(entries)} circuits")
    return [target / f"{_name(entry)}{suffix}" for entry in entries]


def _name(entry: CircuitEntry) -> str:
    """Return the name of a circuit's file: ``gpt2-sequence-numerals-3f9a02c41d7b``."""
    names = "-".join([entry.model, *entry.task.split("/")])
    return f"{names[:_LONGEST_NAME]}-{short(entry.id)}"


def attachments_to_folder(
    registry: Registry, owners: Sequence[Owner], folder: Path, *, force: bool
) -> Rows:
    """Write attached files into a folder; with several owners, into a subfolder for each.

    Args:
        registry: The registry of the files.
        owners: Circuits, runs, edits and prompt sets, each once, by full ids.
        folder: Is made if it does not exist.
        force: Overwrite existing files.

    Returns:
        Columns ``owner_kind owner file size_bytes refused``; ``refused`` is None, or the reason why
        an attached file cannot be written: its content is damaged or lost.

    Raises:
        ArtifactCorrupt, ArtifactNotFound: The content of the only file is damaged or lost.
        BadInput, StorageError: A file exists already, or cannot be written.
    """
    of_each = [
        (owner, folder if len(owners) == 1 else folder / _folder_name(registry, owner), one)
        for owner in owners
        for one in registry.attachments(owner[1])
    ]
    paths = [place / one.name for _, place, one in of_each]
    refuse_existing(paths, force=force, instead="name another folder")
    rows: list[tuple[str, str, str | None, int | None, str | None]] = []
    for (kind, key), place, one in of_each:
        try:
            path = one.save(place, overwrite=force)
        except (ArtifactCorrupt, ArtifactNotFound) as error:
            if len(of_each) == 1:
                raise
            rows.append((kind.value, key, None, None, f"{one.name}: {error}"))
        else:
            rows.append((kind.value, key, str(path), one.size_bytes, None))
    return Rows(("owner_kind", "owner", "file", "size_bytes", "refused"), tuple(rows))


def _folder_name(registry: Registry, owner: Owner) -> str:
    """Return the name of an owner's folder: like a circuit's file, or ``run-4be1a9d0c377``."""
    kind, key = owner
    if kind.value == "circuit":
        return _name(registry.ledger.circuit(key))
    return f"{kind.value.replace('_', '-')}-{short(key)}"


def bundle_path(entries: Sequence[CircuitEntry], out: str | None) -> Path | None:
    """Return the path of a bundle; None for standard output."""
    if out == STANDARD_OUTPUT:
        return None
    if out is not None and not Path(out).is_dir() and not out.endswith(("/", os.sep)):
        return Path(out)
    name = _name(entries[0]) if len(entries) == 1 else "circuits"
    return Path(out or ".") / f"{name}.zip"


def refuse_existing(
    paths: Sequence[Path], *, force: bool, instead: str = "name another with -o"
) -> None:
    """Check before anything is written, so that either all files are written or none.

    Raises:
        BadInput: A file exists already, or a folder has the name of the file.
    """
    for path in paths:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name a file")
        if os.path.lexists(path) and not force:  # also a link to nothing
            raise BadInput(f"{path} exists already; {instead}, or give --force")


def write_file(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Write a file via a temporary file in the same folder, so it is never incomplete.

    Args:
        path: Path of the file; missing folders are made.
        fill: Is called with the open file.

    Raises:
        BadInput, StorageError: It cannot be written there.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: {path.parent} is a file, not a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            fill(file)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def short(id: str) -> str:
    """Return the first digits of an id or address, enough to identify it in messages and names."""
    return id[:_DIGITS]
