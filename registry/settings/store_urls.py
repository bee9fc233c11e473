"""Turn the given values of settings into addresses and paths."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from registry.credentials import has_stray_password, remember_secrets, shown_url
from registry.errors import BadInput
from registry.settings.file_urls import expanded, read_path, require_text, url_path
from registry.settings.homes import PASSWORD_FILE_NAME
from registry.settings.table import PASSWORD

__all__ = [
    "MEANINGS",
    "Given",
    "artifacts_url",
    "graph_url",
    "ledger_url",
    "password_path",
    "path_of",
]

_GRAPH_SCHEMES = ("kglite", "bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
_LEDGER, _GRAPH = "sqlite:///", "kglite:///"
_FOLDER_URL = re.compile(r"(?:file|local)://")


class Given(NamedTuple):
    """A value with its source, for error messages, and the start of relative paths."""

    value: str
    origin: str
    base: Path


def ledger_url(given: Given | None, home: Path) -> str:
    """``sqlite:///ABSOLUTE/PATH`` or ``postgresql://...``.

    Raises:
        BadInput: It is neither.
    """
    if given is None:
        return _LEDGER + url_path(home / "ledger.sqlite")
    remember_secrets(given.value)
    scheme = given.value.partition("://")[0].partition("+")[0]
    if "://" not in given.value or scheme not in ("sqlite", "postgresql"):
        raise BadInput(
            f"{_shown(given)}; it must be sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        )
    if scheme == "postgresql":
        return given.value
    if "?" in given.value:
        raise BadInput(
            f"{_shown(given)}; SQLite takes no options there; write a question mark in a file name"
            " as %3F"
        )
    return _absolute(given, _LEDGER)


def graph_url(given: Given | None, home: Path) -> str:
    """``kglite:///ABSOLUTE/PATH``, or the address of a Neo4j server.

    Raises:
        BadInput: It is neither, or contains a user or password.
    """
    if given is None:
        return _GRAPH + url_path(home / "graph.kgl")
    remember_secrets(given.value)
    scheme, separator, rest = given.value.partition("://")
    if not separator or scheme not in _GRAPH_SCHEMES or not rest.strip("/"):
        raise BadInput(
            f"{_shown(given)}; it must be kglite:///PATH, bolt://HOST:PORT, neo4j://HOST:PORT or"
            " neo4j+s://HOST:PORT"
        )
    if scheme == "kglite":
        return _absolute(given, _GRAPH)
    if "@" in rest or has_stray_password(given.value):
        raise BadInput(
            f"{given.origin} names a user or password in its URL; give {scheme}://HOST:PORT, "
            f"CIRCUITS_GRAPH_USER and {PASSWORD.variable} instead"
        )
    return given.value


def artifacts_url(given: Given | None, home: Path) -> str:
    """An absolute folder, or an fsspec URL of anything but a local folder.

    Raises:
        BadInput: It is not a path, or a URL in which the end of the password is ambiguous.
    """
    if given is None:
        return str(home / "artifacts")
    if match := _FOLDER_URL.match(given.value):
        return str(path_of(given._replace(value=given.value[match.end() :]), decode=True))
    if "://" not in given.value:
        return str(path_of(given))
    remember_secrets(given.value)
    if has_stray_password(given.value):
        raise BadInput(
            f"{given.origin} is not a URL with a number as its port, or its password contains a"
            " character that must be written as %XX: / is %2F, ? is %3F, # is %23, : is %3A"
        )
    return given.value


def password_path(given: Given | None, home: Path) -> str:
    """Absolute path of the file with the graph's password."""
    return str(path_of(given) if given else home / PASSWORD_FILE_NAME)


def path_of(given: Given, *, decode: bool = False) -> Path:
    """The given path, either as it is or (``decode``) from a URL.

    Raises:
        BadInput: It is not a path.
    """
    value = given.value
    if decode:
        if os.name == "nt":
            value = re.sub("^/(?=[A-Za-z]:)", "", value)
        path = read_path(value, given.base)
    else:
        path = given.base / expanded(value)
    require_text(path, given.origin)
    return path


def _absolute(given: Given, prefix: str) -> str:
    if not given.value.startswith(prefix) or given.value == prefix:
        raise BadInput(f"{_shown(given)}; it must be {prefix}PATH")
    path = path_of(given._replace(value=given.value.removeprefix(prefix)), decode=True)
    return prefix + url_path(path)


def _shown(given: Given) -> str:
    return f"{given.origin} is {shown_url(given.value)!r}"


MEANINGS: dict[str, Callable[[Given | None, Path], str]] = {
    "ledger": ledger_url,
    "graph": graph_url,
    "artifacts": artifacts_url,
    "graph_password_file": password_path,
}
"""The reader of each setting that names a place."""
