"""Records that the projection needs, read one by one or together, whichever is cheaper."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

from registry.errors import NotFound
from registry.ledger.base import CircuitEntry, Ledger
from registry.records import Annotation, Edit, Evaluation, Run

__all__ = ["LookedUp"]


class LookedUp:
    """Reads records one by one, or together if many are needed."""

    def __init__(self, ledger: Ledger, *, many: bool) -> None:
        self._ledger = ledger
        self._many = many
        self._entries: dict[str, CircuitEntry] | None = None
        self._by_circuit: dict[str, list[Evaluation]] | None = None
        self._annotations: dict[str, list[Annotation]] | None = None
        self._edits_by_circuit: dict[str, list[Edit]] | None = None

    def circuit(self, key: str) -> CircuitEntry | None:
        """A stored circuit by its full id; None if there is none."""
        if self._many and self._entries is None:
            self._entries = {entry.id: entry for entry in self._ledger.circuits()}
        if self._entries is not None:
            return self._entries.get(key)
        try:
            return self._ledger.circuit(key)
        except NotFound:
            return None

    def evaluations(self, circuit: str) -> Sequence[Evaluation]:
        """Evaluations of one circuit, in order of recording."""
        if not self._many:
            return self._ledger.evaluations(circuit)
        if self._by_circuit is None:
            self._by_circuit = defaultdict(list)
            for one in self._ledger.evaluations():
                self._by_circuit[one.circuit].append(one)
        return self._by_circuit.get(circuit, ())

    def annotations(self, circuit: str) -> Sequence[Annotation]:
        """Annotations of one circuit's nodes, in order of recording."""
        if not self._many:
            return self._ledger.annotations(circuit)
        if self._annotations is None:
            self._annotations = defaultdict(list)
            for one in self._ledger.annotations():
                self._annotations[one.circuit].append(one)
        return self._annotations.get(circuit, ())

    def all_evaluations(self) -> Iterable[Evaluation]:
        """Evaluations of every circuit."""
        if self._by_circuit is not None:
            return itertools.chain.from_iterable(self._by_circuit.values())
        return self._ledger.evaluations()

    def edits_of(self, circuit: str) -> Sequence[Edit]:
        """Edits that targeted a circuit."""
        if self._edits_by_circuit is None:
            self._edits_by_circuit = defaultdict(list)
            for edit in self._ledger.edits():
                for target in edit.circuits:
                    self._edits_by_circuit[target].append(edit)
        return self._edits_by_circuit.get(circuit, ())

    def runs(self, wanted: set[str]) -> list[Run]:
        """Runs with these ids."""
        return list(self._ledger.runs(wanted))
