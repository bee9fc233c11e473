"""Facts of a circuit in addition to nodes and edges, as formats write and read them.

The names are those of :class:`registry.records.Circuit`. A file of any tool may give some of them.
Facts that only make sense in our own files are read only if :data:`MARK` marks the file as ours.
Prompts and full scores, which are files of a registry, are not included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.formats.base import Said
from registry.records import Circuit

__all__ = ["JSON_FACTS", "MARK", "VERSION", "facts_of", "is_ours", "only_ours", "said_or_told"]

MARK, VERSION = "circuits_format", 1
"""Attribute that marks our own files, and its value in this version."""
_ANYBODYS = (
    "model", "task", "method", "metric", "higher_is_better", "ablation", "sign", "kv_heads",
)  # fmt: skip
_OURS = ("level", "parameters", "selection", "universe_size")
JSON_FACTS = frozenset({"parameters", "selection"})
"""Facts that are objects; formats without objects write them as JSON."""


def facts_of(circuit: Circuit) -> dict[str, Any]:
    """Return the facts of a circuit except nodes and edges, as plain values; our mark is first."""
    fields = circuit.model_dump(mode="json", exclude={"nodes", "edges"}, exclude_none=True)
    return {MARK: VERSION} | {name: fields[name] for name in _ANYBODYS + _OURS if name in fields}


def is_ours(facts: Mapping[str, Any]) -> bool:
    """Return whether one of our exporters wrote the file with these facts."""
    return facts.get(MARK) == VERSION and not isinstance(facts.get(MARK), bool)


def said_or_told(said: Said, facts: Mapping[str, Any]) -> Said:
    """Complete the user's statements with the facts of the file.

    Raises:
        ValidationError: The file's value is impossible.
    """
    in_file = {name: facts[name] for name in _ANYBODYS if facts.get(name) is not None}
    given = {name: getattr(said, name) for name in said.model_fields_set}
    known = {name: value for name, value in given.items() if value is not None}
    return Said.model_validate({**in_file, **known})


def only_ours(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the circuit's fields that only our own files give; none for any other file."""
    if not is_ours(facts):
        return {}
    return {name: facts[name] for name in _OURS if facts.get(name) is not None}
