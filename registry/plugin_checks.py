"""Test the plug-ins of other packages, to list broken ones before somebody needs them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from registry.catalogue import QUERIES_GROUP, load_catalogue, with_queries_of
from registry.errors import PluginBroken
from registry.plugins import GROUPS, Plugin, faults, plugins

__all__ = ["check_plugins"]

_SAMPLE = b"circuits\n"
"""File that formats are asked about; it is of no format."""


def check_plugins() -> tuple[int, list[PluginBroken]]:
    """The number of plug-ins of other packages, and their faults.

    All plug-ins are imported, formats are asked about a file, and queries are read.
    """
    n_others = sum(not one.is_ours for group in GROUPS for one in plugins(group))
    probes = {"circuits.formats": _ask_about_a_file, QUERIES_GROUP: _read_queries}
    return n_others, list(faults(probes))


def _ask_about_a_file(plugin: Plugin) -> None:
    format = plugin.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuits.txt"
        path.write_bytes(_SAMPLE)
        found = format.sniff(path, _SAMPLE)
    if not 0 <= found <= 1:
        raise ValueError(f"sniff gives {found!r:.40}, which is not from 0 to 1")


def _read_queries(plugin: Plugin) -> None:
    others = load_catalogue()
    prefix = f"{plugin.value}/"
    with_queries_of(plugin, {n: q for n, q in others.items() if not q.source.startswith(prefix)})
