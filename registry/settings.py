"""Settings of one registry: where its stores are and how to reach them.

Each setting of :data:`registry.settings_table.SETTINGS` comes from the command line option or
argument of its name, else from its environment variable, else from ``circuits.toml`` in the home
folder, else from its default. Relative paths in ``circuits.toml`` start at the home folder, all
others at the current one. The password of a Neo4j graph comes from the environment or from a file
that its owner alone can read, and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from registry.errors import BadInput, RegistryNotFound
from registry.settings_table import PASSWORD, SETTINGS, has_password, redacted

__all__ = [
    "FILE_NAME",
    "HOME_NAME",
    "Settings",
    "create_home",
    "discard_home",
    "find_home",
    "keep_settings",
    "load_settings",
    "not_kept",
]

HOME_NAME = ".circuits"
FILE_NAME = "circuits.toml"
_PASSWORD_FILE_NAME = "graph-password"
_GRAPH_SCHEMES = ("kglite", "bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
_IN_FILE = tuple(setting.name for setting in SETTINGS if setting.name != "home")


class Settings(BaseModel):
    """Where a registry's stores are. Frozen; shows no password.

    Attributes:
        home: Folder of the registry, absolute.
        ledger: SQLAlchemy URL, which may carry a password.
        graph: ``kglite:///PATH``, or a Neo4j address.
        graph_user: User of a Neo4j graph.
        graph_database: Database of a Neo4j graph; None for the server's default.
        graph_password: Password of a Neo4j graph.
        artifacts: Absolute folder or fsspec URL.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    ledger: str = Field(repr=False)
    graph: str
    graph_user: str = "neo4j"
    graph_database: str | None = None
    graph_password: SecretStr | None = None
    artifacts: str = Field(repr=False)

    @property
    def graph_is_embedded(self) -> bool:
        """Whether the graph is a file of the embedded engine."""
        return self.graph.startswith("kglite:")

    def describe(self) -> dict[str, str]:
        """Where each store is, without passwords."""
        stores = {"ledger": self.ledger, "artifacts": self.artifacts, "graph": self.graph}
        return {store: redacted(where) for store, where in stores.items()}


class _Given(NamedTuple):
    """A value with where it was given, for error texts, and where relative paths start."""

    value: str
    origin: str
    base: Path


def find_home(start: Path | str | None = None) -> Path:
    """Return the ``.circuits`` folder in ``start`` or the nearest folder above it.

    Raises:
        RegistryNotFound: There is none up to the root.
    """
    here = Path(start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / HOME_NAME).is_dir():
            return folder / HOME_NAME
    raise RegistryNotFound(
        f"no registry in {here} or any folder above it; run 'circuits init' to make one here"
    )


def home_path(path: Path | str | None = None) -> Path:
    """Where :func:`create_home` makes one: ``path``, ``CIRCUITS_HOME``, or ``.circuits`` here."""
    return Path(path or os.environ.get("CIRCUITS_HOME") or HOME_NAME).expanduser().absolute()


def create_home(path: Path | str | None = None, **settings: str | None) -> Path:
    """Make the home folder and its ``circuits.toml``; what is already there stays as it is.

    Args:
        path: The folder; by default what ``CIRCUITS_HOME`` says, else ``.circuits`` here.
        settings: Values to keep in a new ``circuits.toml``, with paths made absolute.

    Raises:
        BadInput: The folder cannot be made, a setting is malformed or may not stand in the file.
    """
    home = home_path(path)
    kept = _kept(settings, home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        _write_new(home / ".gitignore", "*\n")
        _write_new(home / FILE_NAME, _file_text(kept))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise BadInput(f"cannot make a registry in {home}: {error.strerror}") from error
    return home


def keep_settings(home: Path, given: Mapping[str, str | None]) -> None:
    """Write settings into a home's ``circuits.toml``; its other lines stay as they are.

    Raises:
        BadInput: A setting is malformed or may not stand in the file, or it cannot be written.
    """
    path = home / FILE_NAME
    kept = _kept(given, home)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for name, value in kept.items():
            pattern = re.compile(rf"#?\s*{name}\s*=")
            places = [place for place, line in enumerate(lines) if pattern.match(line)]
            lines[places[0] : places[0] + 1] = [_toml_line(name, value)] if places else []
            if not places:
                lines.append(_toml_line(name, value))
        temporary = path.with_name(f".{FILE_NAME}.{os.getpid()}")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from error


def not_kept(home: Path, given: Mapping[str, str | None]) -> list[str]:
    """Those settings, as ``name = value``, that the home's ``circuits.toml`` does not say."""
    there = _read_file(home / FILE_NAME)
    return [
        _toml_line(name, value)
        for name, value in _kept(given, home).items()
        if there.get(name) != value
    ]


def discard_home(home: Path) -> None:
    """Undo :func:`create_home` where nothing else was put into the folder."""
    for path in (home / FILE_NAME, home / ".gitignore"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        home.rmdir()


def load_settings(home: Path | str | None = None, **overrides: str | None) -> Settings:
    """Collect the settings of one registry.

    Args:
        home: Its home folder, or a folder that holds ``.circuits``; by default ``CIRCUITS_HOME``,
            else the nearest ``.circuits``.
        overrides: Settings by name that go before environment and file; None says nothing.

    Raises:
        RegistryNotFound: There is no such home folder.
        BadInput: A setting is unknown or malformed, a password stands in ``circuits.toml``, or the
            password file can be read by others. The text names the place.
    """
    _refuse_unknown(overrides, _IN_FILE, "settings")
    folder = _existing_home(home or os.environ.get("CIRCUITS_HOME"))
    from_file = _read_file(folder / FILE_NAME)
    given = dict(_collect(overrides, from_file, folder))
    graph = _graph_url(given.get("graph"), folder)
    return Settings(
        home=folder,
        ledger=_ledger_url(given.get("ledger"), folder),
        graph=graph,
        graph_user=given["graph_user"].value if "graph_user" in given else "neo4j",
        graph_database=given["graph_database"].value if "graph_database" in given else None,
        graph_password=(
            None
            if graph.startswith("kglite:")
            else _graph_password(given.get("graph_password_file"), folder)
        ),
        artifacts=_artifacts_url(given.get("artifacts"), folder),
    )


# -- where values come from ------------------------------------------------------------------------


def _existing_home(path: Path | str | None) -> Path:
    if path is None or path == "":
        return find_home()
    folder = Path(path).expanduser().absolute()
    for candidate in (folder / HOME_NAME, folder):
        if candidate.name == HOME_NAME and candidate.is_dir():
            return candidate
        if (candidate / FILE_NAME).is_file():
            return candidate
    raise RegistryNotFound(f"no registry in {folder}; 'circuits --home {folder} init' makes one")


def _collect(
    overrides: Mapping[str, str | None], from_file: Mapping[str, str], home: Path
) -> Iterator[tuple[str, _Given]]:
    for setting in SETTINGS:
        override, variable = overrides.get(setting.name), os.environ.get(setting.variable)
        if override:
            yield setting.name, _Given(str(override), setting.option, Path.cwd())
        elif variable:
            yield setting.name, _Given(variable, setting.variable, Path.cwd())
        elif setting.name in from_file:
            origin = f"{setting.name} in {home / FILE_NAME}"
            yield setting.name, _Given(from_file[setting.name], origin, home)


def _read_file(path: Path) -> dict[str, str]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not TOML: {error}") from error
    _check_file(values, path)
    return values


def _check_file(values: Mapping[str, object], path: Path) -> None:
    if PASSWORD.name in values:
        raise BadInput(
            f"{path}: a password does not belong there; set {PASSWORD.variable}, or put it into "
            f"{path.parent / _PASSWORD_FILE_NAME} (mode 600)"
        )
    _refuse_unknown(values, _IN_FILE, str(path))
    for name, value in values.items():
        if not isinstance(value, str):
            raise BadInput(f"{path}: {name} is {value!r}; it must be text in quotes")
        if has_password(value):
            raise BadInput(
                f"{path}: {name} carries a password, which does not belong there; give the whole "
                f"URL as CIRCUITS_{name.upper()}"
            )


def _kept(given: Mapping[str, str | None], home: Path) -> dict[str, str]:
    """Settings as ``circuits.toml`` says them, with paths made absolute."""
    kept = {name: value for name, value in given.items() if value is not None}
    _check_file(kept, home / FILE_NAME)
    for name in _READ.keys() & kept.keys():
        kept[name] = _READ[name](_Given(kept[name], "--" + name, Path.cwd()), home)
    return kept


def _toml_line(name: str, value: str) -> str:
    # A JSON string is a TOML basic string.
    return f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _refuse_unknown(values: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for name in values:
        if name not in known:
            raise BadInput(f"{where}: no setting {name!r}; there are {', '.join(known)}")


def _write_new(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text, encoding="utf-8")


def _file_text(kept: Mapping[str, str]) -> str:
    lines = ["# Settings of this registry; options and environment variables go before them.", ""]
    for setting in SETTINGS:
        if setting.name == "home":
            continue
        lines.append(f"# {setting.help} Default: {setting.default}")
        if setting.name in kept:
            lines.append(_toml_line(setting.name, kept[setting.name]))
        else:
            lines.append(f'# {setting.name} = ""')
        lines.append("")
    return "\n".join(lines)


# -- what values mean ------------------------------------------------------------------------------


def _ledger_url(given: _Given | None, home: Path) -> str:
    if given is None:
        return f"sqlite:///{(home / 'ledger.sqlite').as_posix()}"
    scheme = given.value.partition("://")[0].partition("+")[0]
    if "://" not in given.value or scheme not in ("sqlite", "postgresql"):
        raise BadInput(
            f"{given.origin} is {redacted(given.value)!r}; it must be sqlite:///PATH or "
            "postgresql://USER@HOST/DATABASE"
        )
    return _absolute(given, "sqlite:///") if scheme == "sqlite" else given.value


def _graph_url(given: _Given | None, home: Path) -> str:
    if given is None:
        return f"kglite:///{(home / 'graph.kgl').as_posix()}"
    scheme, separator, rest = given.value.partition("://")
    if not separator or scheme not in _GRAPH_SCHEMES or not rest.strip("/"):
        raise BadInput(
            f"{given.origin} is {redacted(given.value)!r}; it must be kglite:///PATH, "
            "bolt://HOST:PORT, neo4j://HOST:PORT or neo4j+s://HOST:PORT"
        )
    if "@" in rest.partition("/")[0]:
        raise BadInput(
            f"{given.origin} names a user in its URL; give CIRCUITS_GRAPH_USER and "
            f"{PASSWORD.variable} instead"
        )
    return _absolute(given, "kglite:///") if scheme == "kglite" else given.value


def _artifacts_url(given: _Given | None, home: Path) -> str:
    if given is None:
        return str(home / "artifacts")
    return given.value if "://" in given.value else str(_path(given))


def _password_path(given: _Given | None, home: Path) -> str:
    return str(_path(given) if given else home / _PASSWORD_FILE_NAME)


def _absolute(given: _Given, prefix: str) -> str:
    if not given.value.startswith(prefix) or given.value == prefix:
        raise BadInput(f"{given.origin} is {given.value!r}; it must be {prefix}PATH")
    return prefix + _path(given._replace(value=given.value.removeprefix(prefix))).as_posix()


def _path(given: _Given) -> Path:
    return given.base / Path(given.value).expanduser()


def _graph_password(file: _Given | None, home: Path) -> SecretStr | None:
    if password := os.environ.get(PASSWORD.variable):
        return SecretStr(password)
    path = Path(_password_path(file, home))
    try:
        with path.open(encoding="utf-8") as stream:
            _refuse_readable_by_others(path, stream.fileno())
            return SecretStr(stream.read().rstrip("\r\n"))
    except FileNotFoundError:
        if file is None:
            return None
        raise BadInput(f"{file.origin} names {path}, which does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the password file {path} cannot be read: {error}") from error


def _refuse_readable_by_others(path: Path, descriptor: int) -> None:
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    # Windows has no such modes: what os.fstat reports there says nothing.
    if os.name == "posix" and mode & 0o077:
        raise BadInput(
            f"the password file {path} is open to others (mode {mode:03o}); run 'chmod 600 {path}'"
        )


_READ: dict[str, Callable[[_Given | None, Path], str]] = {
    "ledger": _ledger_url,
    "graph": _graph_url,
    "artifacts": _artifacts_url,
    "graph_password_file": _password_path,
}
