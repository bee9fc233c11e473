"""Stored circuits with the same content as imported ones, except for what files cannot hold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from registry.circuits.copies import fingerprint
from registry.errors import CircuitsError
from registry.ledger.base import CircuitFilter
from registry.records import Circuit, CircuitState

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["StoredCopies"]

_Kind = tuple[str, str, str]
_WHOLE = {"prompt_set": "their prompts", "scores": "their full scores"}
_Prints = dict[str, dict[str, None]]
"""Ids by fingerprint, in the order of reading."""


class StoredCopies:
    """Finds stored circuits that are equal to imported ones; each is read at most once.

    Args:
        registry: The registry of the stored circuits.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._ids: dict[_Kind, dict[int, list[str]]] = {}
        self._prints: dict[tuple[_Kind, int], _Prints] = {}

    def notes(self, circuits: Iterable[Circuit]) -> Iterator[str]:
        """Yield notes about circuits that will be recorded."""
        for circuit in circuits:
            # A circuit with known prompts is complete: if it equals another, it is not a copy.
            if circuit.prompt_set is not None or not circuit.nodes:
                continue
            if not self._ids_like(circuit):  # hashing a large circuit takes long
                continue
            equal = self._known(circuit)[fingerprint(json.loads(circuit.document))]
            other = next((id for id in equal if id != circuit.id), None)
            if other is not None:
                yield (
                    f"circuit {other[:12]} is stored and has the same parts, edges and effects as "
                    f"{circuit.id[:12]}; they differ only in {self._differing(circuit, other)}"
                )

    def recorded(self, circuits: Iterable[Circuit]) -> None:
        """Note circuits that are now stored."""
        for circuit in circuits:
            ids = self._ids_like(circuit)
            if circuit.id not in ids:
                ids.append(circuit.id)
                self._prints.pop((_kind(circuit), len(circuit.edges)), None)

    def _differing(self, circuit: Circuit, other: str) -> str:
        """What differs between a circuit and its stored equal, in words."""
        one = json.loads(circuit.document)
        two = json.loads(self._registry.artifact(other))
        found = [words for name, words in _WHOLE.items() if one.get(name) != two.get(name)]
        found += [
            f"{name}s of {of}"
            for of in ("nodes", "edges")
            for name in ("role", "effect", "rank")
            if [part.get(name) for part in one[of]] != [part.get(name) for part in two[of]]
        ]
        return ", ".join(found) or "the order of their parts"

    def _ids_like(self, circuit: Circuit) -> list[str]:
        """Return the ids of stored circuits of its kind with the same number of edges."""
        kind = _kind(circuit)
        if kind not in self._ids:
            self._ids[kind] = self._listed(kind)
        return self._ids[kind].setdefault(len(circuit.edges), [])

    def _known(self, circuit: Circuit) -> _Prints:
        place = _kind(circuit), len(circuit.edges)
        if place not in self._prints:
            found: _Prints = defaultdict(dict)
            for id in self._ids_like(circuit):
                with suppress(CircuitsError):  # a damaged circuit must not stop the import
                    found[fingerprint(json.loads(self._registry.artifact(id)))].setdefault(id)
            self._prints[place] = found
        return self._prints[place]

    def _listed(self, kind: _Kind) -> dict[int, list[str]]:
        """Return ids of circuits of a kind by number of edges, those with known prompts first."""
        model, task, method = kind
        entries = self._registry.ledger.circuits(
            CircuitFilter(task=task, model=model, method=method)
        )
        ids: dict[int, list[str]] = {}
        for entry in sorted(entries, key=lambda one: one.prompt_set is None):
            # The name of a task also finds the tasks of its family.
            if entry.task == task and entry.labels.state is not CircuitState.RETRACTED:
                ids.setdefault(entry.n_edges, []).append(entry.id)
        return ids


def _kind(circuit: Circuit) -> _Kind:
    return circuit.model, circuit.task, circuit.method
