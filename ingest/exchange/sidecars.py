"""What a ``circuits-import.yaml`` states about the files in its folder and below.

It is a list of entries. Each has ``files``, one or several globs relative to it
(:mod:`ingest.exchange.globs`), and fields of :class:`ingest.formats.base.Said`. If several entries
match, later entries win over earlier ones, entries in subfolders over entries in folders above, and
the caller's fields over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingest.exchange.globs import matches
from ingest.formats.base import Said
from ingest.formats.plain_yaml import read_yaml
from ingest.models.names import model_slug
from registry.errors import BadInput
from registry.texts.problems import first_problem
from registry.texts.words import listed

__all__ = [
    "SIDECAR",
    "Entry",
    "check_sidecar",
    "read_sidecar",
    "said_of",
    "sidecar_reader",
    "with_slug",
]

SIDECAR = "circuits-import.yaml"
_FIELDS = ("files", *Said.model_fields)
_EVERY_FILE = "*"
_CHOICES = ("top", "threshold")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a sidecar.

    Attributes:
        globs: The files it is about.
        fields: What it states about them.
    """

    globs: tuple[str, ...]
    fields: Mapping[str, Any]

    def is_about(self, path: Path) -> bool:
        """Whether one of its globs matches a file, given relative to the sidecar's folder."""
        return any(matches(glob, path) for glob in self.globs)


Reader = Callable[[Path], Sequence[Entry]]
"""Reads a sidecar, which may not exist."""


def said_of(path: Path, folder: Path | None, given: Mapping[str, Any], entries: Reader) -> Said:
    """Return what the sidecars and the caller state about one file.

    Args:
        path: The file.
        folder: The folder in which it was found; None if the user named the file itself.
        given: Fields of :class:`Said` by the caller; None states nothing.
        entries: Reads a sidecar.

    Raises:
        BadInput: A sidecar is malformed, or names a file outside the imported folder.
        ValidationError: A field of the caller is unknown, or its value is malformed.
    """
    fields: dict[str, Any] = {}
    top = folder or path.parent
    for place in _places(path.parent, top):
        for entry in entries(place / SIDECAR):
            if entry.is_about(path.relative_to(place)):
                fields = _over(fields, {**entry.fields, **_beside(entry, place, top)})
    fields = _over(fields, {key: value for key, value in given.items() if value is not None})
    return Said.model_validate(fields)


def _over(fields: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Replace fields by later fields; ``top`` and ``threshold`` replace each other."""
    chosen = any(later.get(name) is not None for name in _CHOICES)
    kept = {key: value for key, value in fields.items() if not (chosen and key in _CHOICES)}
    return {**kept, **later}


@lru_cache
def _places(folder: Path, top: Path) -> tuple[Path, ...]:
    """Return the folders whose sidecars apply to files in ``folder``, the outermost first."""
    return tuple(
        place for place in (*reversed(folder.parents), folder) if place.is_relative_to(top)
    )


def with_slug(said: Said) -> tuple[Said, list[str]]:
    """Replace a model's name by its slug, and note this."""
    slug = model_slug(said.model or "")
    if not slug or slug == said.model:
        return said, []
    return said.model_copy(update={"model": slug}), [f"model {said.model} read as {slug}"]


def _beside(entry: Entry, place: Path, top: Path) -> dict[str, Path]:
    """Return the file that a sidecar names; it must be in the imported folder.

    Raises:
        BadInput: It is outside: a folder from somebody else may not name any file on this machine.
    """
    named = entry.fields.get("hyperparameters")
    if not isinstance(named, str):
        return {}
    path = place / named
    try:
        inside = path.resolve().is_relative_to(top.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, NUL in a name
        inside = False
    if not inside:
        raise BadInput(
            f"{place / SIDECAR} names {named}, which is not under {top}; give it with"
            " --hyperparameters"
        )
    return {"hyperparameters": path}


def read_sidecar(sidecar: Path) -> tuple[Entry, ...]:
    """Return a sidecar's entries; none if it does not exist, or is a link.

    Raises:
        BadInput: It is not a list of entries, or an entry has an unknown field or an impossible
            value; the text names the sidecar, the entry and the field.
    """
    if sidecar.is_symlink() or not sidecar.is_file():
        return ()
    try:
        found = read_yaml(sidecar)
    except BadInput as error:
        raise BadInput(f"in {sidecar.parent}: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise BadInput(f"{sidecar} is not a list of entries with files, model, task, ...")
    return tuple(_entry(one, f"{sidecar}, entry {at}") for at, one in enumerate(found, 1))


def _entry(found: Mapping[Any, Any], place: str) -> Entry:
    for key in found:
        if key not in _FIELDS:
            near = get_close_matches(str(key)[:80], _FIELDS, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise BadInput(
                f"{place}: {str(key)[:80]!r} is no field{meant}; fields: {', '.join(_FIELDS)}"
            )
    fields = {key: value for key, value in found.items() if key != "files"}
    try:
        Said.model_validate(fields)
    except ValidationError as error:
        raise BadInput(f"{place}: {first_problem(error)}") from error
    return Entry(_globs(found.get("files", _EVERY_FILE), place), fields)


def _globs(value: Any, place: str) -> tuple[str, ...]:
    globs = value if isinstance(value, list) else [value]
    if not globs or not all(isinstance(glob, str) and glob for glob in globs):
        raise BadInput(
            f'{place}: files is {str(value)[:80]!r}, not a glob such as "mib/*.json", nor a list of'
            " globs"
        )
    return tuple(globs)


def check_sidecar(sidecar: Path, top: Path, files: Iterable[Path], entries: Reader) -> list[str]:
    """Find globs of a sidecar that match no file, so that spelling mistakes are noticed.

    Args:
        sidecar: The sidecar.
        top: The folder that is imported.
        files: All files under that folder.
        entries: Reads a sidecar.

    Returns:
        Notes for the user.

    Raises:
        BadInput: It is malformed, or names a file outside the imported folder.
    """
    place = sidecar.parent
    found = entries(sidecar)
    for entry in found:
        _beside(entry, place, top)
    below = [path.relative_to(place) for path in files if path.is_relative_to(place)]
    unmatched = dict.fromkeys(_unmatched(found, below))
    return [f"no file matches {listed([repr(glob) for glob in unmatched])}"] if unmatched else []


def _unmatched(entries: Iterable[Entry], below: Sequence[Path]) -> Iterator[str]:
    for entry in entries:
        for glob in entry.globs:
            if not any(matches(glob, path) for path in below):
                yield glob


def sidecar_reader() -> Reader:
    """Make a function that reads each sidecar once: it may apply to hundreds of files.

    A malformed sidecar is refused again for each of them.
    """
    known: dict[Path, Sequence[Entry] | BadInput] = {}

    def read(sidecar: Path) -> Sequence[Entry]:
        if sidecar not in known:
            try:
                known[sidecar] = read_sidecar(sidecar)
            except BadInput as error:
                known[sidecar] = error
        found = known[sidecar]
        if isinstance(found, BadInput):
            raise found
        return found

    return read
