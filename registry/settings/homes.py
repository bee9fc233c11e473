"""The home folder of a registry: where it is, and the content of its ``circuits.toml``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path

from registry.credentials import has_password
from registry.errors import BadInput, RegistryNotFound
from registry.settings.file_urls import expanded, require_text
from registry.settings.small_files import read_small
from registry.settings.table import PASSWORD, SETTINGS

__all__ = [
    "FILE_NAME",
    "HOME_NAME",
    "IN_FILE",
    "PASSWORD_FILE_NAME",
    "check_values",
    "discard_folder",
    "existing_home",
    "find_home",
    "home_path",
    "make_folder",
    "read_values",
    "refuse_unknown",
    "write_values",
]

HOME_NAME = ".circuits"
FILE_NAME = "circuits.toml"
PASSWORD_FILE_NAME = "graph-password"
IN_FILE = tuple(setting.name for setting in SETTINGS if setting.name != "home")
"""Names of the settings that ``circuits.toml`` may contain."""

_FILE_LIMIT_BYTES = 1_000_000


def find_home(start: Path | str | None = None) -> Path:
    """Return the ``.circuits`` folder in ``start`` or the nearest folder above it.

    Raises:
        RegistryNotFound: There is none up to the root.
    """
    here = Path(start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / HOME_NAME).is_dir():
            return _usable(folder / HOME_NAME)
    raise RegistryNotFound(
        f"no registry in {here} or any folder above it; run 'circuits init' to make one here"
    )


def existing_home(path: Path | str | None = None) -> Path:
    """Return the home that ``path`` is or holds; default: ``CIRCUITS_HOME``, or the nearest home.

    Raises:
        RegistryNotFound: There is none.
    """
    path = path or os.environ.get("CIRCUITS_HOME")
    if not path:
        return find_home()
    folder = expanded(path).absolute()
    for candidate in (folder / HOME_NAME, folder):
        if candidate.name == HOME_NAME and candidate.is_dir():
            return _usable(candidate)
        if (candidate / FILE_NAME).is_file():
            return _usable(candidate)
    raise RegistryNotFound(f"no registry in {folder}; 'circuits --home {folder} init' makes one")


def home_path(path: Path | str | None = None) -> Path:
    """The folder for :func:`make_folder`: ``path``, ``CIRCUITS_HOME``, or ``.circuits`` here."""
    return _usable(expanded(path or os.environ.get("CIRCUITS_HOME") or HOME_NAME).absolute())


def make_folder(home: Path, kept: Mapping[str, str]) -> bool:
    """Make the folder and its ``circuits.toml``; existing files are not changed.

    Args:
        home: The folder.
        kept: Values to keep in a new file.

    Returns:
        Whether the file is new.

    Raises:
        BadInput: The folder or the file cannot be made.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        _write_new(home / ".gitignore", "*\n")
        return _write_new(home / FILE_NAME, _file_text(kept))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise BadInput(f"cannot make a registry in {home}: {error.strerror}") from error


def write_values(home: Path, kept: Mapping[str, str]) -> None:
    """Write settings into ``circuits.toml``, each in its place; other lines are not changed.

    Raises:
        BadInput: The file cannot be written.
    """
    path = home / FILE_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for name, value in kept.items():
            # A value is written before the comment that shows its syntax.
            set_ = [n for n, line in enumerate(lines) if re.match(rf"\s*{name}\s*=", line)]
            shown = [n for n, line in enumerate(lines) if re.match(rf"#\s*{name}\s*=", line)]
            place = next(iter([*set_, *shown]), len(lines))
            lines[place : place + 1] = [f"{name} = {_toml_string(value)}"]
        # Not through a link, which may lead anywhere: the new file replaces the link.
        temporary = path.with_name(f".{FILE_NAME}.{uuid.uuid4().hex}")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error


def discard_folder(home: Path) -> None:
    """Undo :func:`make_folder` if nothing else was put into the folder."""
    for path in (home / FILE_NAME, home / ".gitignore"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        home.rmdir()


def read_values(home: Path) -> dict[str, str]:
    """The values in ``circuits.toml``, as written there; empty if there is no file.

    Raises:
        BadInput: It is not TOML, or contains something that is not allowed there.
    """
    path = home / FILE_NAME
    try:
        file = read_small(path, "the file of settings", limit_bytes=_FILE_LIMIT_BYTES)
        values = tomllib.loads(file.text)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{path} is not TOML: {error}") from error
    check_values(values, path)
    return values


def check_values(values: Mapping[str, object], path: Path) -> None:
    """Check that values may be written into a ``circuits.toml``.

    Raises:
        BadInput: A value is unknown, not text, or contains a password.
    """
    if PASSWORD.name in values:
        raise BadInput(
            f"{path}: a password does not belong there; set {PASSWORD.variable}, or put it into "
            f"{path.parent / PASSWORD_FILE_NAME} (mode 600)"
        )
    refuse_unknown(values, IN_FILE, str(path))
    for name, value in values.items():
        if not isinstance(value, str):
            raise BadInput(f"{path}: {name} is {value!r}; it must be text in quotes")
        if has_password(value):
            raise BadInput(
                f"{path}: {name} contains a password, which does not belong there; give the whole "
                f"URL as CIRCUITS_{name.upper()}"
            )


def refuse_unknown(values: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    """Refuse names that are not settings.

    Raises:
        BadInput: A name is not among ``known``.
    """
    for name in values:
        if name not in known:
            raise BadInput(f"{where}: no setting {name!r}; there are {', '.join(known)}")


def _usable(home: Path) -> Path:
    require_text(home, "the registry's folder")
    return home


def _write_new(path: Path, text: str) -> bool:
    """Write a file unless it exists; never through a link, which may lead anywhere."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _file_text(kept: Mapping[str, str]) -> str:
    lines = ["# Settings of this registry; options and environment variables override them.", ""]
    for setting in SETTINGS:
        if setting.name == "home":
            continue
        lines.append(f"# {setting.help} Default: {setting.default}")
        value = _toml_string(kept[setting.name]) if setting.name in kept else '""'
        lines.append(("" if setting.name in kept else "# ") + f"{setting.name} = {value}")
        lines.append("")
    return "\n".join(lines)


def _toml_string(text: str) -> str:
    # A JSON string is a TOML basic string, except for one control character that JSON allows.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
