"""Additions of packages through entry points, and how broken ones are skipped.

Our additions are announced in the same way as those of other packages. An addition of another
package may fail: when it is imported, if it is not of the kind that its group requires, if its name
is in use, or when it is asked about a file. It is then reported in one warning and skipped, and
everything else continues. Only a request for it by name raises an error, with the reason.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from types import MappingProxyType
from typing import Any, NamedTuple

from registry.errors import NotFound, PluginBroken
from registry.texts.nouns import with_article

__all__ = [
    "GROUPS",
    "Plugin",
    "blamed",
    "faults",
    "find",
    "leave_out",
    "plugins",
    "usable",
    "usable_by_name",
    "with_names_of",
]

log = logging.getLogger(__name__)

_OURS = ("registry", "ingest", "queries")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the entries of a group are.

    Attributes:
        name: Their name for people.
        attributes: Attributes that their objects must have.
        may_be_several: Whether an entry may be a list or tuple of objects.
        named_by: Attribute with the name of an object, if the entry's name has no meaning.
    """

    name: str
    attributes: tuple[str, ...] = ()
    may_be_several: bool = False
    named_by: str = ""


GROUPS: Mapping[str, _Kind] = MappingProxyType(
    {
        "circuits.checks": _Kind("check", ("__call__",)),
        "circuits.commands": _Kind("command", ("__call__",)),
        "circuits.exporters": _Kind("exporter", ("name", "summary", "suffix", "write")),
        "circuits.formats": _Kind("format", ("name", "summary", "sniff", "read")),
        "circuits.jobs": _Kind("job", ("name", "Configuration")),
        "circuits.measures": _Kind(
            "measure",
            ("name", "of", "definition", "direction", "range", "holds"),
            may_be_several=True,
            named_by="name",
        ),
        "circuits.queries": _Kind("query folder"),
        "circuits.tasks": _Kind(
            "task",
            ("slug", "family", "description", "make"),
            may_be_several=True,
            named_by="slug",
        ),
    }
)
_LABELS_ALONE = frozenset({"circuits.measures", "circuits.queries", "circuits.tasks"})
"""Groups in which an entry's name has no meaning: its object has the names."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry of one of our groups.

    Attributes:
        value: ``module:object``, or a package's name.
        package: The distribution that it belongs to.
    """

    group: str
    name: str
    value: str
    package: str

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this project."""
        return self.value.partition(":")[0].partition(".")[0] in _OURS

    def broken(self, reason: BaseException | str) -> PluginBroken:
        """The error for a plug-in that cannot be used."""
        text = reason if isinstance(reason, str) else _in_a_line(reason)
        if isinstance(reason, ModuleNotFoundError) and reason.name in _MOVED:
            text += f" ({_MOVED[reason.name]})"
        return PluginBroken(GROUPS[self.group].name, self.name, self.package, text)

    def load(self) -> Any:
        """Import its object.

        Raises:
            PluginBroken: The import fails, or the object is not what its group requires.
        """
        if self in _broken:
            raise _broken[self]
        if self in _loaded:
            return _loaded[self]
        try:
            found = EntryPoint(self.name, self.value, self.group).load()
            _check_kind(found, GROUPS[self.group])
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _broken[self] = self.broken(error)
            raise _broken[self] from error
        _loaded[self] = found
        return found


_ROOMS = {
    "circuits": "annotations attributions copies findings networks ranking stored",
    "files": "artifacts attachments documents file_systems prompt_files score_files",
    "models": "aliases edge_space known_models shapes",
    "settings": "file_urls homes outside small_files store_urls trusted_homes",
    "texts": "csv_cells markup problems words",
    "upkeep": "backup damage syncing",
}
"""Modules of registry that were next to its packages, by the package that they are in now."""
_MOVED = {
    "ingest.exporters": "ingest.exporters.base is now ingest.formats.exporting",
    "ingest.importing": "it is now ingest.exchange.importing",
    "ingest.known_models": "it is now registry.models.known_models",
    "ingest.score_files": "it is now registry.files.score_files",
    "ingest.discovery.edge_space": "it is now registry.models.edge_space",
    "registry.settings_table": "it is now registry.settings.table",
    **{
        f"registry.{name}": f"it is now registry.{room}.{name}"
        for room, names in _ROOMS.items()
        for name in names.split()
    },
}
"""Modules that other packages may import by their old names, and the hint for each."""
_loaded: dict[Plugin, Any] = {}
_broken: dict[Plugin, PluginBroken] = {}
_told: set[Plugin] = set()


def plugins(group: str) -> list[Plugin]:
    """The entries of a group: ours by name, then those of other packages by name."""
    found = (one for one in _installed(tuple(sys.path)).plugins if one.group == group)
    return sorted(found, key=lambda one: (not one.is_ours, one.name, one.package))


def usable(group: str) -> dict[Plugin, Any]:
    """The objects of a group; broken ones are reported in a warning, once."""
    found: dict[Plugin, Any] = {}
    taken: dict[str, Plugin] = {}
    for one in plugins(group):
        try:
            _check_name(one, taken)
            found[one] = one.load()
        except PluginBroken as error:
            leave_out(one, error)
    return found


def usable_by_name(group: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The objects of a group by their own names, after those that are known.

    A plug-in with a name that is in use is skipped with a warning, like other broken ones.
    """
    found = dict(known)
    for plugin, loaded in usable(group).items():
        try:
            found = with_names_of(plugin, loaded, found)
        except PluginBroken as error:
            leave_out(plugin, error)
    return found


def with_names_of(plugin: Plugin, loaded: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """The known objects of a group and those of a plug-in, by their own names.

    Args:
        plugin: An entry of a group whose objects have names.
        loaded: Its object, or several.
        known: Objects of this group.

    Raises:
        PluginBroken: A name is in use.
    """
    kind = GROUPS[plugin.group]
    each = (loaded,) if hasattr(loaded, kind.named_by) else tuple(loaded)
    theirs = {getattr(one, kind.named_by): one for one in each}
    if taken := sorted(known.keys() & theirs.keys()):
        raise plugin.broken(f"there is another {kind.name} {taken[0]!r}")
    return {**known, **theirs}


def find(group: str, name: str) -> Any:
    """The object of that name in a group.

    Raises:
        NotFound: There is none; the message lists all names.
        PluginBroken: It is broken.
    """
    known = {one.name: one for one in reversed(plugins(group))}  # of equal names, the first wins
    if name not in known:
        near = get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise NotFound(GROUPS[group].name, name, f"{guess}there are {', '.join(sorted(known))}")
    return known[name].load()


def leave_out(plugin: Plugin, why: BaseException) -> None:
    """Report a broken plug-in in a warning, once, and stop using it.

    Raises:
        BaseException: ``why``, if the plug-in is ours: that is an error in this program.
    """
    if plugin.is_ours:
        raise why
    error = _broken.setdefault(plugin, why if isinstance(why, PluginBroken) else plugin.broken(why))
    if plugin not in _told:
        _told.add(plugin)
        log.warning("skipped: %s", error)


@contextmanager
def blamed(group: str, found: object) -> Iterator[None]:
    """Attribute errors of another package's object to that package; our own errors stay.

    Args:
        group: The object's group.
        found: The object, from :func:`find` or :func:`usable`.

    Raises:
        PluginBroken: The code within raised an error that is not ours.
    """
    from pydantic import ValidationError

    from registry.errors import CircuitsError

    try:
        yield
    except (CircuitsError, ValidationError, KeyboardInterrupt):
        raise
    except BaseException as error:
        plugin = next((one for one in plugins(group) if _loaded.get(one) is found), None)
        if plugin is None or plugin.is_ours:
            raise
        raise plugin.broken(error) from error


def faults(probes: Mapping[str, Callable[[Plugin], object]]) -> Iterator[PluginBroken]:
    """The faults of the plug-ins of other packages; all are tested for this.

    Args:
        probes: A test by group, for groups in which loading is not enough.
    """
    yield from _installed(tuple(sys.path)).damaged
    for group in GROUPS:
        taken: dict[str, Plugin] = {}
        for one in plugins(group):
            try:
                _check_name(one, taken)
                if not one.is_ours:
                    probe: Callable[[Plugin], object] = probes.get(group, Plugin.load)
                    probe(one)
            except KeyboardInterrupt:
                raise
            except PluginBroken as error:
                yield error
            except BaseException as error:  # noqa: BLE001 - as in load
                yield one.broken(error)


class _Installed(NamedTuple):
    plugins: tuple[Plugin, ...]
    damaged: tuple[PluginBroken, ...]


@lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> _Installed:
    """All entries of our groups on a path; of packages with equal names, the first wins."""
    found: dict[str, list[Plugin]] = {}
    damaged: list[PluginBroken] = []
    for distribution in distributions(path=list(path)):
        try:
            entries = [entry for entry in distribution.entry_points if entry.group in GROUPS]
        except Exception as error:  # noqa: BLE001 - damaged files of a package may raise anything
            name = _name(distribution, "a package without a name")
            damaged.append(PluginBroken("file", "entry_points.txt", name, _in_a_line(error)))
            continue
        if entries:
            name = _name(distribution, entries[0].value.partition(":")[0].partition(".")[0])
            here = [Plugin(one.group, one.name, one.value, name) for one in entries]
            found.setdefault(name, here)
    return _Installed(tuple(one for some in found.values() for one in some), tuple(damaged))


def _name(distribution: Distribution, otherwise: str) -> str:
    """The distribution's name, if it has one."""
    try:
        name = distribution.metadata["Name"]
    except Exception:  # noqa: BLE001 - its metadata may be missing or damaged
        name = None
    return str(name or otherwise)


def _check_name(plugin: Plugin, taken: dict[str, Plugin]) -> None:
    """Reserve a name, unless it is in use; in some groups names are only labels.

    Raises:
        PluginBroken: It is in use.
    """
    first = taken.setdefault(plugin.name, plugin)
    if first is not plugin and plugin.group not in _LABELS_ALONE:
        kind = with_article(GROUPS[plugin.group].name)
        raise plugin.broken(f"{first.package!r} has {kind} of that name")


def _check_kind(found: Any, kind: _Kind) -> None:
    """Refuse an object that lacks attributes of its kind.

    Raises:
        TypeError: Attributes are missing.
    """
    several = kind.may_be_several and isinstance(found, list | tuple)
    for one in found if several else (found,):
        missing = [name for name in kind.attributes if not hasattr(one, name)]
        if missing:
            shown = f"an object of type {type(one).__name__}"
            wanted = with_article(kind.name)
            raise TypeError(f"it is not {wanted} but {shown}, without {' and '.join(missing)}")


def _in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
