"""Make the graph agree with the ledger.

A change names a record; :func:`project` reads the record's present state and writes what follows
from it, so changes may be repeated, reordered and dropped between the reading and the writing
without harm. A circuit enters the graph whole, in one transaction, with what is said about it, or
leaves it whole, with whatever of the reference layer no other record uses: the graph is the same
function of the ledger however it was reached. A circuit that no transaction of a server can hold
comes and goes in several (:mod:`registry.graph.large`).

Only one process projects at a time (:meth:`registry.ledger.base.Ledger.projecting`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from registry.errors import QueryFailed, QueryTooLarge, StorageError
from registry.graph import statements
from registry.graph.base import GraphStore
from registry.graph.large import add_in_parts, remove_most, unfinished
from registry.graph.looked_up import LookedUp
from registry.graph.rows import (
    CircuitRows,
    Row,
    circuit_row,
    circuit_rows,
    connection_row,
    edit_row,
    evaluation_row,
    model_row,
    outcome_row,
    prompt_set_row,
    run_row,
    task_row,
)
from registry.graph.schema import PutAside
from registry.graph.writer import GraphWriter, Part, all_of, chunks, each, reference_parts
from registry.ledger.base import Change, ChangeKind, CircuitEntry, Ledger
from registry.records import Circuit, CircuitState, Edit, Outcome

__all__ = ["Progress", "RecordSource", "project"]

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with how many changes are done and how many there are."""

_RECORDS_PER_TRANSACTION = 1_000
_RETRACTIONS_PER_TRANSACTION = 20
_FIRST_BATCH_ROWS = 5_000
"""The first transaction is small and each next one twice as large, up to what the store does best:
the engine is not to wait until the first large one has been read."""
_SINGLE_LOOKUPS = 20
"""Up to so many records are looked up one by one; more are cheaper read together."""


class RecordSource(Protocol):
    """The present state of the records."""

    @property
    def ledger(self) -> Ledger:
        """Everything but circuits' nodes and edges."""
        ...

    def document(self, circuit: str) -> Circuit:
        """A circuit's content, by full id."""
        ...


def project(
    store: GraphStore,
    changes: Sequence[Change],
    source: RecordSource,
    *,
    progress: Progress | None = None,
) -> list[PutAside]:
    """Make the graph agree with the ledger for each of ``changes``.

    Args:
        store: Open for writing, with the schema prepared.
        changes: In any order; repetitions are harmless.
        source: Where the records are.
        progress: Told after each transaction.

    Returns:
        What was put aside: circuits whose document cannot be read, and why.

    Raises:
        QueryFailed: The engine refuses what one of the records would write. Otherwise as below.
        GraphError: The graph cannot be written. Some transactions may have taken effect; projecting
            the same changes again completes them.
    """
    keys: dict[ChangeKind, list[str]] = defaultdict(list)
    for kind, key in dict.fromkeys((change.kind, change.key) for change in changes):
        keys[kind].append(key)
    total = sum(map(len, keys.values()))
    projection = _Projection(store, source, circuits=len(keys[ChangeKind.CIRCUIT]))
    done = 0
    for count in projection.steps(keys):
        done += count
        if progress is not None:
            progress(done, total)
    return projection.put_aside


@dataclass
class _Batch:
    """Circuits that go into one transaction."""

    new: list[tuple[CircuitEntry, CircuitRows]] = field(default_factory=list)
    known: list[CircuitEntry] = field(default_factory=list)
    said: list[tuple[str, list[Row]]] = field(default_factory=list)
    size: int = 0

    def __len__(self) -> int:
        return len(self.new) + len(self.known)

    @property
    def entries(self) -> list[CircuitEntry]:
        return [*(entry for entry, _ in self.new), *self.known]


class _Projection:
    """One call of :func:`project`, and what it learns of the graph on the way."""

    def __init__(self, store: GraphStore, source: RecordSource, *, circuits: int) -> None:
        self._store = GraphWriter(store)
        self._source = source
        self._records = LookedUp(source.ledger, many=circuits > _SINGLE_LOOKUPS)
        self.put_aside: list[PutAside] = []
        self._seen_evaluations: set[str] = set()

    def steps(self, keys: dict[ChangeKind, list[str]]) -> Iterator[int]:
        """Yield, after each transaction, how many changes it has settled."""
        yield from self._single_records(keys)
        yield from self._circuits(keys[ChangeKind.CIRCUIT])
        yield from self._edits(keys[ChangeKind.EDIT])
        yield from self._evaluations(keys[ChangeKind.EVALUATION])

    # -- records on their own ------------------------------------------------------------------

    def _single_records(self, keys: dict[ChangeKind, list[str]]) -> Iterator[int]:
        ledger = self._source.ledger
        plans: tuple[tuple[ChangeKind, str, Callable[[set[str]], list[Row]]], ...] = (
            (
                ChangeKind.MODEL,
                statements.MERGE_MODELS,
                lambda wanted: [model_row(m) for m in ledger.models() if m.slug in wanted],
            ),
            (
                ChangeKind.TASK,
                statements.MERGE_TASKS,
                lambda wanted: [task_row(t) for t in ledger.tasks() if t.slug in wanted],
            ),
            (
                ChangeKind.PROMPT_SET,
                statements.MERGE_PROMPT_SETS,
                lambda wanted: [prompt_set_row(p) for p in ledger.prompt_sets() if p.id in wanted],
            ),
            (
                ChangeKind.RUN,
                statements.MERGE_RUNS,
                lambda wanted: [run_row(run) for run in self._records.runs(wanted)],
            ),
        )
        for kind, text, rows_of in plans:
            if keys[kind]:
                rows = rows_of(set(keys[kind]))
                for part in chunks(rows, _RECORDS_PER_TRANSACTION):
                    self._store.write((text, part))
                yield len(keys[kind])

    # -- circuits ------------------------------------------------------------------------------

    def _circuits(self, ids: Sequence[str]) -> Iterator[int]:
        if ids and (left := unfinished(self._store)):
            self._remove(left)
            ids = list(dict.fromkeys([*ids, *left]))
        entries = {key: self._records.circuit(key) for key in ids}
        gone = [key for key, entry in entries.items() if entry is None or _is_retracted(entry)]
        for part in chunks(gone, _RETRACTIONS_PER_TRANSACTION):
            self._remove(part)
            yield len(part)
        present = [e for e in entries.values() if e is not None and not _is_retracted(e)]
        # Reading and taking apart the next circuits goes on while the engine works on these.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="projection") as writer:
            ahead: tuple[Future[None], int] | None = None
            for batch in self._batches(present):
                if ahead is not None:
                    ahead[0].result()
                    yield ahead[1]
                ahead = writer.submit(self._add, batch), len(batch)
            if ahead is not None:
                ahead[0].result()
                yield ahead[1]

    def _batches(self, entries: Sequence[CircuitEntry]) -> Iterator[_Batch]:
        known = self._store.present(statements.KNOWN_CIRCUITS, [entry.id for entry in entries])
        batch, limit = _Batch(), min(_FIRST_BATCH_ROWS, self._store.rows_per_transaction)
        for entry in entries:
            if entry.id in known:
                batch.known.append(entry)
                batch.size += 1
            else:
                try:
                    document = self._source.document(entry.id)
                except StorageError as error:
                    aside = PutAside(Change(ChangeKind.CIRCUIT, entry.id), str(error))
                    log.warning("left out of the graph: %s", aside)
                    self.put_aside.append(aside)
                    continue
                rows = circuit_rows(entry.id, document)
                batch.new.append((entry, rows))
                batch.size += 1 + len(rows.nodes) + len(rows.edges)
            if batch.size >= limit:
                yield self._with_what_is_said(batch)
                batch, limit = _Batch(), min(2 * limit, self._store.rows_per_transaction)
        if batch:
            yield self._with_what_is_said(batch)

    def _add(self, batch: _Batch) -> None:
        first: list[Part] = [
            (statements.ADD_CIRCUITS, [circuit_row(*new) for new in batch.new]),
            (statements.UPDATE_CIRCUITS, [circuit_row(entry) for entry in batch.known]),
        ]
        largest = self._store.largest_transaction
        if largest is not None and batch.size > largest:
            self._add_large(batch, first)
            return
        components = self._store.missing_components(
            {
                f"{rows.model}/{local}": (rows.model, local)
                for _, rows in batch.new
                for local in rows.locals
            }
        )
        connections = self._store.missing_connections(
            {name for _, rows in batch.new for name in rows.connections}
        )
        parts = [rows for _, rows in batch.new]
        self._store.write(
            *reference_parts(components),
            (statements.ADD_CONNECTIONS, each(connection_row, connections)),
            *first,
            (statements.ADD_NODES, all_of(rows.nodes for rows in parts)),
            (statements.ADD_EDGES, all_of(rows.edges for rows in parts)),
            (statements.ADD_USES, all_of(rows.uses for rows in parts)),
            *batch.said,
        )
        self._store.know(components, connections)

    def _add_large(self, batch: _Batch, first: Sequence[Part]) -> None:
        circuits = [(entry.id, rows) for entry, rows in batch.new]
        try:
            add_in_parts(self._store, circuits, first, batch.said)
        except (QueryFailed, QueryTooLarge):
            self._remove([id for id, _ in circuits])  # it may be put aside, and then be no part
            raise

    def _with_what_is_said(self, batch: _Batch) -> _Batch:
        batch.said.extend(self._said_about(batch.entries))
        return batch

    def _said_about(self, entries: Sequence[CircuitEntry]) -> Iterator[tuple[str, list[Row]]]:
        """What other records say of circuits; their own changes may have come before them."""
        found_on = [{"circuit": e.id, "prompt_set": e.prompt_set} for e in entries if e.prompt_set]
        produced = [{"circuit": e.id, "run": run} for e in entries for run in e.runs]
        evaluations = [one for e in entries for one in self._records.evaluations(e.id)]
        targets = [
            {"circuit": e.id, "edit": edit.id}
            for e in entries
            for edit in self._records.edits_of(e.id)
        ]
        self._seen_evaluations.update(evaluation.id for evaluation in evaluations)
        yield statements.FOUND_ON, found_on
        yield statements.PRODUCED, produced
        yield statements.MERGE_EVALUATIONS, [evaluation_row(one) for one in evaluations]
        yield statements.TARGETS, targets

    def _remove(self, ids: Sequence[str]) -> None:
        remove_most(self._store, ids)
        # What they use is asked first: once they are gone, nothing leads from them to it.
        connections = self._store.present(statements.CONNECTIONS_OF_CIRCUITS, ids)
        components = self._store.present(statements.COMPONENTS_OF_CIRCUITS, ids)
        self._store.forget(components, connections)
        marked = ids if self._store.largest_transaction is not None else ()
        self._store.write_ids(
            (statements.DELETE_NODES, ids),
            (statements.DELETE_EVALUATIONS, ids),
            (statements.DELETE_CIRCUITS, ids),
            (statements.DELETE_UNUSED_CONNECTIONS, sorted(connections)),
            (statements.DELETE_UNUSED_COMPONENTS, sorted(components)),
            (statements.UNMARK_UNFINISHED, marked),
        )

    # -- what is said about circuits -----------------------------------------------------------

    def _evaluations(self, ids: Sequence[str]) -> Iterator[int]:
        rest = set(ids) - self._seen_evaluations
        found = [one for one in self._records.all_evaluations() if one.id in rest] if rest else []
        for part in chunks(found, _RECORDS_PER_TRANSACTION):
            # An evaluation may change what its circuit's node says of faithfulness.
            circuits = [self._records.circuit(key) for key in {one.circuit for one in part}]
            self._store.write(
                (statements.MERGE_EVALUATIONS, [evaluation_row(one) for one in part]),
                (
                    statements.UPDATE_CIRCUITS,
                    [circuit_row(e) for e in circuits if e is not None and not _is_retracted(e)],
                ),
            )
        if ids:
            yield len(ids)

    def _edits(self, ids: Sequence[str]) -> Iterator[int]:
        ledger, most = self._source.ledger, self._store.rows_per_transaction
        for part in chunks(ids, _RECORDS_PER_TRANSACTION):
            outcomes = ledger.outcomes_of(part)
            some: list[Edit] = []
            size = 0
            for edit in ledger.edits(part):
                some.append(edit)
                size += 1 + len(edit.components) + len(outcomes.get(edit.id, ()))
                if size >= most:
                    self._add_edits(some, outcomes)
                    some, size = [], 0
            self._add_edits(some, outcomes)
            yield len(part)

    def _add_edits(self, edits: Sequence[Edit], outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        rows = {edit.id: edit_row(edit) for edit in edits}
        measured = [outcome_row(one) for key in rows for one in outcomes.get(key, ())]
        parts = {f"{e.model}/{local}": (e.model, local) for e in edits for local in e.components}
        modifies = [
            {"edit": key, "component": f"{edit.model}/{local}"}
            for key, edit in zip(rows, edits, strict=True)
            for local in edit.components
        ]
        targets = [
            {"edit": key, "circuit": circuit}
            for key, edit in zip(rows, edits, strict=True)
            for circuit in edit.circuits
        ]
        components = self._store.missing_components(parts)
        self._store.write(
            *reference_parts(components),
            (statements.MERGE_EDITS, list(rows.values())),
            (statements.MODIFIES, modifies),
            (statements.TARGETS, targets),
            (statements.MERGE_OUTCOMES, measured),
            (statements.OUTCOMES_ON_TASK, [row for row in measured if row["task"]]),
        )
        self._store.know(components)


def _is_retracted(entry: CircuitEntry) -> bool:
    return entry.labels.state is CircuitState.RETRACTED
