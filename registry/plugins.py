"""What packages add through entry points, and how one that is broken is left out.

Ours are announced as those of other packages are. Of these any may fail: when it is imported, by
being of another kind than its group asks for, by taking a name that is taken, or when it is asked
about a file. It is then named in one warning and left out, and everything else goes on; only
whoever asks for it by name gets an error, which says why it is broken.
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

__all__ = ["GROUPS", "Plugin", "blamed", "faults", "find", "leave_out", "plugins", "usable"]

log = logging.getLogger(__name__)

_OURS = ("registry", "ingest", "queries")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the entries of a group are called, and which attributes their objects have."""

    name: str
    attributes: tuple[str, ...] = ()
    may_be_several: bool = False


GROUPS: Mapping[str, _Kind] = MappingProxyType(
    {
        "circuits.checks": _Kind("check", ("__call__",)),
        "circuits.commands": _Kind("command", ("__call__",)),
        "circuits.exporters": _Kind("exporter", ("name", "summary", "suffix", "write")),
        "circuits.formats": _Kind("format", ("name", "summary", "sniff", "read")),
        "circuits.jobs": _Kind("job", ("name", "Configuration")),
        "circuits.queries": _Kind("query folder"),
        "circuits.tasks": _Kind(
            "task", ("slug", "family", "description", "make"), may_be_several=True
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry of one of our groups.

    Attributes:
        value: ``module:object``, or a package's name.
        package: The distribution it belongs to.
    """

    group: str
    name: str
    value: str
    package: str

    @property
    def is_ours(self) -> bool:
        """Whether it is one of this project's own."""
        return self.value.partition(":")[0].partition(".")[0] in _OURS

    def broken(self, reason: BaseException | str) -> PluginBroken:
        """The error that says it cannot be used."""
        text = reason if isinstance(reason, str) else _in_a_line(reason)
        return PluginBroken(GROUPS[self.group].name, self.name, self.package, text)

    def load(self) -> Any:
        """Import its object.

        Raises:
            PluginBroken: That fails, or it is not what its group asks for.
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


_loaded: dict[Plugin, Any] = {}
_broken: dict[Plugin, PluginBroken] = {}
_told: set[Plugin] = set()


def plugins(group: str) -> list[Plugin]:
    """The entries of a group: ours by name, then those of other packages by name."""
    found = (one for one in _installed(tuple(sys.path)).plugins if one.group == group)
    return sorted(found, key=lambda one: (not one.is_ours, one.name, one.package))


def usable(group: str) -> dict[Plugin, Any]:
    """The objects of a group; those that are broken are named in a warning, once."""
    found: dict[Plugin, Any] = {}
    taken: dict[str, Plugin] = {}
    for one in plugins(group):
        try:
            _check_name(one, taken)
            found[one] = one.load()
        except PluginBroken as error:
            leave_out(one, error)
    return found


def find(group: str, name: str) -> Any:
    """The object of that name in a group.

    Raises:
        NotFound: There is none; the text names all there are.
        PluginBroken: It is broken.
    """
    known = {one.name: one for one in reversed(plugins(group))}  # of two, the first counts
    if name not in known:
        near = get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise NotFound(GROUPS[group].name, name, f"{guess}there are {', '.join(sorted(known))}")
    return known[name].load()


def leave_out(plugin: Plugin, why: BaseException) -> None:
    """Name a broken one in a warning, the first time, and use it no more.

    Raises:
        BaseException: ``why``, if the plug-in is one of ours: that is a fault of this program.
    """
    if plugin.is_ours:
        raise why
    error = _broken.setdefault(plugin, why if isinstance(why, PluginBroken) else plugin.broken(why))
    if plugin not in _told:
        _told.add(plugin)
        log.warning("left out: %s", error)


@contextmanager
def blamed(group: str, found: object) -> Iterator[None]:
    """Let what another package's object raises say whose it is; our own errors stay as they are.

    Args:
        group: The object's group.
        found: The object, as :func:`find` or :func:`usable` gave it.

    Raises:
        PluginBroken: The code within failed with an error that is none of ours.
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
    """What is wrong with the plug-ins of other packages, all of which are tried for that.

    Args:
        probes: By group, what tries one, where loading it is not all.
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
    """All entries of our groups on a path; of two packages of one name, the first counts."""
    found: dict[str, list[Plugin]] = {}
    damaged: list[PluginBroken] = []
    for distribution in distributions(path=list(path)):
        try:
            entries = [entry for entry in distribution.entry_points if entry.group in GROUPS]
        except Exception as error:  # noqa: BLE001 - damaged files of a package make it raise anything
            name = _name(distribution, "a package without a name")
            damaged.append(PluginBroken("file", "entry_points.txt", name, _in_a_line(error)))
            continue
        if entries:
            name = _name(distribution, entries[0].value.partition(":")[0].partition(".")[0])
            here = [Plugin(one.group, one.name, one.value, name) for one in entries]
            found.setdefault(name, here)
    return _Installed(tuple(one for some in found.values() for one in some), tuple(damaged))


def _name(distribution: Distribution, otherwise: str) -> str:
    """The distribution's name, where it says it."""
    try:
        name = distribution.metadata["Name"]
    except Exception:  # noqa: BLE001 - its metadata may be missing or damaged
        name = None
    return str(name or otherwise)


def _check_name(plugin: Plugin, taken: dict[str, Plugin]) -> None:
    """Take a name, unless it is taken; names of tasks and query folders are only labels.

    Raises:
        PluginBroken: It is.
    """
    first = taken.setdefault(plugin.name, plugin)
    if first is not plugin and plugin.group not in {"circuits.tasks", "circuits.queries"}:
        raise plugin.broken(f"{first.package!r} has a {GROUPS[plugin.group].name} of that name")


def _check_kind(found: Any, kind: _Kind) -> None:
    """Refuse an object that lacks what others of its kind have.

    Raises:
        TypeError: It does.
    """
    several = kind.may_be_several and isinstance(found, list | tuple)
    for one in found if several else (found,):
        missing = [name for name in kind.attributes if not hasattr(one, name)]
        if missing:
            shown = f"an object of type {type(one).__name__}"
            raise TypeError(f"it is no {kind.name} but {shown}, without {' and '.join(missing)}")


def _in_a_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
