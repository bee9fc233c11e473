"""Test the plug-ins of other packages, to list broken ones before somebody needs them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from registry.catalogue import QUERIES_GROUP, load_catalogue, with_queries_of
from registry.errors import PluginBroken
from registry.known_measures import MEASURES_GROUP
from registry.measures import MEASURES
from registry.plugins import GROUPS, Plugin, faults, plugins, with_names_of

__all__ = ["check_plugins"]

_TASKS_GROUP = "circuits.tasks"
_SAMPLE = b"circuits\n"
"""File that formats are asked about; it is of no format."""


def check_plugins() -> tuple[int, list[PluginBroken]]:
    """The number of plug-ins of other packages, and their faults.

    All plug-ins are imported, formats are asked about a file, queries are read, and the names of
    measures and tasks are compared with those in use.
    """
    n_others = sum(not one.is_ours for group in GROUPS for one in plugins(group))
    probes = {
        "circuits.formats": _ask_about_a_file,
        MEASURES_GROUP: _reserving(MEASURES_GROUP, {one.name: one for one in MEASURES}),
        QUERIES_GROUP: _read_queries,
        _TASKS_GROUP: _reserving(_TASKS_GROUP, {}),
    }
    return n_others, list(faults(probes))


def _ask_about_a_file(plugin: Plugin) -> None:
    format = plugin.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuits.txt"
        path.write_bytes(_SAMPLE)
        found = format.sniff(path, _SAMPLE)
    if not 0 <= found <= 1:
        raise ValueError(f"sniff gives {found!r:.40}, which is not from 0 to 1")


def _reserving(group: str, known: Mapping[str, Any]) -> Callable[[Plugin], None]:
    """A test that reserves the names of a plug-in's objects, after the known ones and ours."""
    taken = dict(known)

    def reserve(plugin: Plugin) -> None:
        taken.update(with_names_of(plugin, plugin.load(), taken))

    for one in plugins(group):
        if one.is_ours:
            reserve(one)
    return reserve


def _read_queries(plugin: Plugin) -> None:
    others = load_catalogue()
    prefix = f"{plugin.value}/"
    with_queries_of(plugin, {n: q for n, q in others.items() if not q.source.startswith(prefix)})
