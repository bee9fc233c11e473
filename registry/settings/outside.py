"""The places outside its folder that a home leads to.

They come from its ``circuits.toml``: a server, a bucket, a path elsewhere. They also come from
symbolic links, which a cloned repository may contain: ``artifacts`` or ``ledger.sqlite.lock`` may
lead anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from registry.settings.file_urls import read_path
from registry.settings.store_urls import (
    MEANINGS,
    Given,
    artifacts_url,
    graph_url,
    ledger_url,
    password_path,
)
from registry.settings.table import SETTINGS

__all__ = ["Outside", "places_outside"]

_SERVER_ONLY = ("graph_password_file", "graph_user", "graph_database")
_ROOT = Path("/")


class Outside(NamedTuple):
    """A place outside the home.

    Attributes:
        setting: The setting of the store or value.
        place: Address, path without links, or ``LINK -> PATH`` for a link next to a store.
    """

    setting: str
    place: str

    def __str__(self) -> str:
        return f"{self.setting} = {self.place!r}"


def places_outside(
    home: Path, said: Mapping[str, str], *, leave: Collection[str] = (), with_server: bool = True
) -> tuple[Outside, ...]:
    """All places outside ``home`` that its own files lead to.

    Args:
        home: The folder.
        said: Values of its ``circuits.toml``.
        leave: Settings that the user gave; their values in the file are not used.
        with_server: Whether the graph may be on a server. If not, its user and password are
            ignored.

    Raises:
        BadInput: A value is malformed.
    """
    given = {name: Given(value, name, home) for name, value in said.items()}
    finding = _Finding(home)
    found: list[Outside] = []
    for setting in SETTINGS:
        name = setting.name
        if name in leave or (name in _SERVER_ONLY and not with_server):
            continue
        if name in MEANINGS:
            found += finding.of(name, given.get(name))
        elif name in _SERVER_ONLY and name in said:
            # The user may have named the server: then the user must also choose the user name.
            found.append(Outside(name, said[name]))
    return tuple(found)


class _Finding:
    """The search for places in one home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._real = os.path.realpath(home)

    def of(self, name: str, given: Given | None) -> Iterator[Outside]:
        match name:
            case "ledger":
                return self._url(name, ledger_url(given, self._home), "sqlite:///")
            case "graph":
                return self._url(name, graph_url(given, self._home), "kglite:///")
            case "artifacts":
                return self._artifacts(artifacts_url(given, self._home))
            case _:
                return self._file(name, Path(password_path(given, self._home)))

    def _url(self, name: str, url: str, prefix: str) -> Iterator[Outside]:
        if url.startswith(prefix):
            yield from self._file(name, read_path(url.removeprefix(prefix), _ROOT))
        else:
            yield Outside(name, url)

    def _artifacts(self, url: str) -> Iterator[Outside]:
        if "://" in url:
            yield Outside("artifacts", url)
        elif self._is_outside(url):
            yield Outside("artifacts", os.path.realpath(url))
        else:
            yield from self._links("artifacts", Path(url), "")

    def _file(self, name: str, path: Path) -> Iterator[Outside]:
        if self._is_outside(path):
            yield Outside(name, os.path.realpath(path))
            return
        # Journals and locks are next to a database, and their names begin with its name.
        yield from self._links(name, path.parent, path.name)
        real = Path(os.path.realpath(path))
        if real != path:
            yield from self._links(name, real.parent, real.name)

    def _links(self, name: str, folder: Path, start: str) -> Iterator[Outside]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        for entry in entries:
            if entry.name.startswith(start) and entry.is_symlink() and self._is_outside(entry.path):
                yield Outside(name, f"{entry.path} -> {os.path.realpath(entry.path)}")

    def _is_outside(self, path: Path | str) -> bool:
        try:
            return os.path.commonpath([self._real, os.path.realpath(path)]) != self._real
        except ValueError:  # on another drive of Windows
            return True
