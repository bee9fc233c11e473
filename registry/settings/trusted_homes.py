"""The homes that this user made or accepted, in a list outside all of them.

The list is ``trusted-homes.json`` in the user's configuration folder, or in the folder that
``CIRCUITS_CONFIG`` names. It holds, for each home folder, the accepted places outside it: if
somebody changes these places, the user must accept them again. Ownership of a folder proves
nothing, because everything that came with ``git clone`` also belongs to the user.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from registry.errors import BadInput, StorageError
from registry.settings.file_urls import expanded
from registry.settings.outside import Outside
from registry.settings.small_files import read_small
from registry.settings.table import CONFIG

__all__ = ["accept", "accepted", "forget", "list_file", "trusted_homes"]

_FORMAT = "circuit-registry-trusted-homes/1"
_LIMIT_BYTES = 50_000_000
_WAIT_SECONDS = 30.0

_Homes = dict[str, list[Outside]]


def list_file() -> Path:
    """The path of the list."""
    if named := os.environ.get(CONFIG.variable):
        return expanded(named).absolute() / "trusted-homes.json"
    # Imported here: a home whose stores are all in its own folder needs no list.
    from platformdirs import user_config_path

    return user_config_path("circuit-registry", appauthor=False) / "trusted-homes.json"


def accepted(home: Path) -> frozenset[Outside]:
    """The places outside a home that its user accepted.

    Raises:
        BadInput: The list is damaged, or others may write to it.
    """
    return frozenset(_read().get(_key(home), ()))


def trusted_homes() -> Mapping[Path, tuple[Outside, ...]]:
    """All homes with their accepted places, in order.

    Raises:
        BadInput: As :func:`accepted`.
    """
    return {Path(home): tuple(places) for home, places in sorted(_read().items())}


def accept(home: Path, places: Iterable[Outside], *, only: Collection[str] | None = None) -> None:
    """Write that these places, and no others, are accepted for a home.

    Args:
        home: The home.
        places: Places outside the home.
        only: Settings that are affected; acceptances of others stay. All by default.

    Raises:
        BadInput: As :func:`accepted`.
        StorageError: The list cannot be written.
    """
    places = list(places)
    if not places and only is None:
        forget(home)
        return
    with _changing() as homes:
        others = (
            []
            if only is None
            else [place for place in homes.get(_key(home), ()) if place.setting not in only]
        )
        homes[_key(home)] = [*others, *places]


def forget(home: Path) -> bool:
    """Remove a home from the list; return whether it was there. The folder itself may be gone.

    Raises:
        BadInput, StorageError: As :func:`accept`.
    """
    if _key(home) not in _read():
        return False
    with _changing() as homes:
        return homes.pop(_key(home), None) is not None


def _key(home: Path) -> str:
    return os.path.realpath(home)


def _read() -> _Homes:
    path = list_file()
    try:
        file = read_small(path, "the list of trusted registries", limit_bytes=_LIMIT_BYTES)
    except FileNotFoundError:
        return {}
    if file.mode & 0o022:
        raise BadInput(
            f"others may write to {path} (mode {file.mode:03o}), which lists whom you trust; check"
            f" it, then run 'chmod 600 {path}'"
        )
    try:
        return _parsed(json.loads(file.text))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is not a list of trusted registries; delete it, and accept them again with"
            " 'circuits trust'"
        ) from error


def _parsed(content: Any) -> _Homes:
    if content["format"] != _FORMAT:
        raise ValueError
    return {
        str(home): [Outside(str(setting), str(place)) for setting, place in places]
        for home, places in content["homes"].items()
    }


@contextlib.contextmanager
def _changing() -> Iterator[_Homes]:
    """The list, which is written after the block if it changed; one process at a time."""
    path = list_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=_WAIT_SECONDS, mode=0o600):
            homes = _read()
            before = json.dumps(homes)
            yield homes
            homes = {home: places for home, places in homes.items() if places}
            if json.dumps(homes) != before:
                _write(path, homes)
    except Timeout as error:
        raise StorageError(f"another process holds {error.lock_file}; try again") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; {CONFIG.variable} may name another"
            " folder"
        ) from error


def _write(path: Path, homes: _Homes) -> None:
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    text = json.dumps({"format": _FORMAT, "homes": homes}, indent=1)
    try:
        with open(temporary, "x", encoding="utf-8", opener=_for_owner_alone) as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _for_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
