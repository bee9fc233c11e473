"""Settings of one registry: where its stores are and how to reach them.

The value of each setting of :data:`registry.settings.table.SETTINGS` comes from the first of these
that gives it: the command line option or argument of its name, its environment variable,
``circuits.toml`` in the home folder, its default. Relative paths in ``circuits.toml`` start at the
home folder, all others at the current one. The password of a Neo4j graph comes only from the
environment or from a file that only its owner can read.

Options and variables belong to the user. A home folder may come from anybody: from a repository, or
from a folder in which others write. Therefore only the stores in a home's own folder are used,
unless its user made the home (:func:`create_home`) or accepted its other places (:func:`trust`).
"""

from __future__ import annotations

import logging
import os
import shlex
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from registry.credentials import shown_url
from registry.errors import BadInput, CircuitsError, HomeNotTrusted
from registry.settings import trusted_homes
from registry.settings.file_urls import read_path, url_path
from registry.settings.homes import (
    FILE_NAME,
    HOME_NAME,
    IN_FILE,
    check_values,
    discard_folder,
    existing_home,
    find_home,
    home_path,
    make_folder,
    read_values,
    refuse_unknown,
    write_values,
)
from registry.settings.outside import Outside, places_outside
from registry.settings.small_files import read_small
from registry.settings.store_urls import (
    MEANINGS,
    Given,
    artifacts_url,
    graph_url,
    ledger_url,
    password_path,
)
from registry.settings.table import PASSWORD, SETTINGS

__all__ = [
    "FILE_NAME",
    "HOME_NAME",
    "LocalSettings",
    "Outside",
    "Settings",
    "create_home",
    "discard_home",
    "find_home",
    "home_path",
    "keep_settings",
    "load_settings",
    "local_settings",
    "not_kept",
    "trust",
    "untrust",
]

log = logging.getLogger(__name__)

_PASSWORD_LIMIT_BYTES = 4096


class Settings(BaseModel):
    """Where a registry's stores are. Frozen; shows no password.

    Attributes:
        home: Folder of the registry, absolute.
        ledger: SQLAlchemy URL, which may contain a password.
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
        """The place of each store, without passwords."""
        stores = {"ledger": self.ledger, "artifacts": self.artifacts, "graph": self.graph}
        return {store: shown_url(where) for store, where in stores.items()}

    def ledger_in_mark(self) -> str:
        """The ledger's address in the mark of the artifacts, without passwords.

        Relative if the home holds both: if a home is copied or moved as a whole, its artifacts are
        copied with it, and the copy refers to none of the original.
        """
        in_home = f"sqlite:///{url_path(self.home)}/"
        if "://" in self.artifacts or not self.ledger.startswith(in_home):
            return self.describe()["ledger"]
        ledger = self.ledger.removeprefix(in_home)
        home = self.home.resolve()
        # A link, or "..", may lead to a place that another copy of the home shares.
        kept = (Path(self.artifacts).resolve(), read_path(ledger, self.home).resolve())
        return ledger if all(home in path.parents for path in kept) else self.describe()["ledger"]


class LocalSettings(NamedTuple):
    """The part of a home's settings that can be used without acceptance.

    Attributes:
        settings: Each refused store is replaced by a store that does not exist.
        refused: The places that nobody accepted; empty for a trusted home.
    """

    settings: Settings
    refused: tuple[Outside, ...]

    @property
    def refused_stores(self) -> frozenset[str]:
        """Those of ``ledger``, ``artifacts`` and ``graph`` that cannot be used."""
        return frozenset(place.setting.partition("_")[0] for place in self.refused)

    def describe(self) -> dict[str, str]:
        """The place of each store, without passwords; for a refused store, the reason."""
        shown = self.settings.describe()
        for store in self.refused_stores:
            leads = [place for place in self.refused if place.setting.startswith(store)]
            shown[store] = "not accepted: " + ", ".join(map(str, leads))
        return shown

    def refusal(self) -> str:
        """The refused places, and how to accept them."""
        home = self.settings.home
        before = {place.setting: place.place for place in trusted_homes.accepted(home)}
        leads = ", ".join(
            f"{place} (accepted was {before[place.setting]!r})"
            if place.setting in before
            else str(place)
            for place in self.refused
        )
        return (
            f"you neither made nor accepted the places to which the registry in {home} leads:"
            f" {leads}; if you know them, 'circuits trust {shlex.quote(str(home))}' accepts them"
        )


def create_home(path: Path | str | None = None, **settings: str | None) -> Path:
    """Make the home folder and its ``circuits.toml``; existing files are not changed.

    Args:
        path: The folder; default: ``CIRCUITS_HOME``, else ``.circuits`` here.
        settings: Values to keep in a new ``circuits.toml``, with paths made absolute. They belong
            to the user, and are trusted.

    Raises:
        BadInput: The folder cannot be made, or a setting is malformed or not allowed in the file.
    """
    home = home_path(path)
    kept = _kept(settings, home)
    if make_folder(home, kept) and kept:
        _trust_or_warn(home, kept)
    return home


def keep_settings(home: Path, given: Mapping[str, str | None]) -> None:
    """Write settings into a home's ``circuits.toml``; its other lines are not changed.

    They belong to the user, and are trusted.

    Raises:
        BadInput: A setting is malformed or not allowed in the file, or it cannot be written.
    """
    kept = _kept(given, home)
    if kept:
        write_values(home, kept)
        _trust_or_warn(home, kept)


def not_kept(home: Path, given: Mapping[str, str | None]) -> dict[str, str]:
    """The settings that differ from the home's ``circuits.toml``, in the syntax of the file."""
    there = read_values(home)
    kept = _kept(given, home)
    return {name: value for name, value in kept.items() if there.get(name) != value}


def discard_home(home: Path) -> None:
    """Undo :func:`create_home` if nothing else was put into the folder."""
    discard_folder(home)
    trusted_homes.forget(home)


def load_settings(home: Path | str | None = None, **overrides: str | None) -> Settings:
    """Collect the settings of one registry.

    Args:
        home: Its home folder, or a folder that holds ``.circuits``; by default ``CIRCUITS_HOME``,
            else the nearest ``.circuits``.
        overrides: Settings by name that override environment and file; None has no effect.

    Raises:
        RegistryNotFound: There is no such home folder.
        HomeNotTrusted: It leads outside its folder, and its user did not accept that.
        BadInput: A setting is unknown or malformed, ``circuits.toml`` contains a password, or
            others can read the password file. The message names the place.
    """
    local = local_settings(home, **overrides)
    if local.refused:
        raise HomeNotTrusted(local.refusal())
    return local.settings


def local_settings(home: Path | str | None = None, **overrides: str | None) -> LocalSettings:
    """Collect the settings of one registry, without the places that nobody accepted.

    Raises:
        RegistryNotFound, BadInput: As :func:`load_settings`.
    """
    refuse_unknown(overrides, IN_FILE, "settings")
    folder = existing_home(home)
    said = read_values(folder)
    own = dict(_own(overrides))
    file = folder / FILE_NAME
    given = {name: Given(text, f"{name} in {file}", folder) for name, text in said.items()} | own
    graph = graph_url(given.get("graph"), folder)
    with_server = not graph.startswith("kglite:")
    places = places_outside(folder, said, leave=own, with_server=with_server)
    refused = _not_accepted(folder, places)
    for place in refused:
        # A user name has no effect without its server, and the server none without a user.
        store = place.setting.partition("_")[0]
        given[store] = Given(_STAND_INS[store].format(uuid.uuid4().hex), store, folder)
    return LocalSettings(_settings(folder, given), refused)


def trust(home: Path | str | None = None, *, only: Collection[str] | None = None) -> list[Outside]:
    """Accept the current places of a home, for this user, until they change.

    Args:
        home: As in :func:`load_settings`.
        only: Settings that are accepted; all by default.

    Returns:
        The places outside its folder that it may use from now on; empty if it uses none, which
        needs no acceptance.

    Raises:
        RegistryNotFound: There is no such home folder.
        BadInput: Its ``circuits.toml`` is malformed.
        StorageError: The list of trusted homes cannot be written.
    """
    folder = existing_home(home)
    places = _concerning(only, places_outside(folder, read_values(folder)))
    trusted_homes.accept(folder, places, only=only)
    return places


def untrust(home: Path | str) -> bool:
    """Withdraw the acceptance of a home; return whether there was one. The folder may be gone.

    Raises:
        StorageError: The list of trusted homes cannot be written.
    """
    folder = home_path(home)
    return any([trusted_homes.forget(folder), trusted_homes.forget(folder / HOME_NAME)])


# -- where values come from ------------------------------------------------------------------------


def _kept(given: Mapping[str, str | None], home: Path) -> dict[str, str]:
    """Settings in the syntax of ``circuits.toml``, with paths made absolute."""
    kept = {name: value for name, value in given.items() if value is not None}
    check_values(kept, home / FILE_NAME)
    for name in MEANINGS.keys() & kept.keys():
        kept[name] = MEANINGS[name](Given(kept[name], "--" + name, Path.cwd()), home)
    return kept


def _own(overrides: Mapping[str, str | None]) -> Iterator[tuple[str, Given]]:
    """The user's own settings: from options, else from environment variables."""
    for setting in SETTINGS:
        override, variable = overrides.get(setting.name), os.environ.get(setting.variable)
        if override:
            yield setting.name, Given(str(override), setting.option, Path.cwd())
        elif variable:
            yield setting.name, Given(variable, setting.variable, Path.cwd())


def _settings(home: Path, given: Mapping[str, Given]) -> Settings:
    graph = graph_url(given.get("graph"), home)
    is_server = not graph.startswith("kglite:")
    return Settings(
        home=home,
        ledger=ledger_url(given.get("ledger"), home),
        graph=graph,
        graph_user=given["graph_user"].value if "graph_user" in given else "neo4j",
        graph_database=given["graph_database"].value if "graph_database" in given else None,
        graph_password=(
            _graph_password(given.get("graph_password_file"), home) if is_server else None
        ),
        artifacts=artifacts_url(given.get("artifacts"), home),
    )


def _graph_password(file: Given | None, home: Path) -> SecretStr | None:
    if password := os.environ.get(PASSWORD.variable):
        return SecretStr(password)
    path = Path(password_path(file, home))
    try:
        found = read_small(path, "the password file", limit_bytes=_PASSWORD_LIMIT_BYTES)
    except FileNotFoundError:
        if file is None:
            return None
        raise BadInput(f"{file.origin} names {path}, which does not exist") from None
    if found.mode & 0o077:
        raise BadInput(
            f"the password file {path} is open to others (mode {found.mode:03o}); run 'chmod 600 "
            f"{path}'"
        )
    return SecretStr(found.text.rstrip("\r\n"))


# -- the places of a home --------------------------------------------------------------------------

_STAND_INS = {
    "ledger": "sqlite:///not-accepted-{}",
    "graph": "kglite:///not-accepted-{}",
    "artifacts": "not-accepted-{}",
}
"""Stores that do not exist, in place of refused ones; with a name that nobody could foresee."""


def _not_accepted(home: Path, places: Collection[Outside]) -> tuple[Outside, ...]:
    if not places:  # then no acceptance is needed, and the list need not be read
        return ()
    known = trusted_homes.accepted(home)
    return tuple(place for place in places if place not in known)


def _concerning(only: Collection[str] | None, places: Collection[Outside]) -> list[Outside]:
    return [place for place in places if only is None or place.setting in only]


def _trust_or_warn(home: Path, kept: Mapping[str, str]) -> None:
    try:
        places = _concerning(kept, places_outside(home, kept))
        trusted_homes.accept(home, places)
    except CircuitsError as error:  # the home exists, and works with the same options
        log.warning("the settings in %s are not trusted yet: %s", home / FILE_NAME, error)
