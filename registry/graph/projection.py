"""Update the graph from the ledger.

A change names a record. :func:`project` reads the record's present state and writes the resulting
nodes and relationships. Therefore changes may be repeated and reordered, and a change between
reading and writing does no harm. A circuit enters the graph as a whole, in one transaction, with
all facts about it. It is removed as a whole, with all parts of the reference layer that no other
record uses. Thus the graph is the same function of the ledger for any order of changes. A circuit
that is too large for one transaction of a server is written and removed in several
(:mod:`registry.graph.large`).

Only one process projects at a time (:meth:`registry.ledger.base.Ledger.projecting`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from registry.errors import QueryFailed, QueryTooLarge, StorageError
from registry.graph import statements
from registry.graph.base import GraphStore
from registry.graph.large import add_in_parts, remove_most, unfinished
from registry.graph.looked_up import LookedUp
from registry.graph.rows import (
    CircuitRows,
    Row,
    annotation_row,
    circuit_row,
    circuit_rows,
    connection_row,
    edit_row,
    evaluation_row,
    made_rows,
    measured_rows,
    model_row,
    prompt_set_row,
    run_row,
    task_row,
)
from registry.graph.schema import PutAside
from registry.graph.writer import GraphWriter, Part, all_of, chunks, each, reference_parts
from registry.ledger.base import Change, ChangeKind, CircuitEntry, Ledger, OutcomeRow
from registry.progress import OnProgress
from registry.records import Circuit, CircuitState, Edit

__all__ = ["RecordSource", "project"]

log = logging.getLogger(__name__)

_RECORDS_PER_TRANSACTION = 1_000
_RETRACTIONS_PER_TRANSACTION = 20
_FIRST_BATCH_ROWS = 5_000
"""The first transaction is small, and each further one is twice as large, up to the best size for
the store: the engine must not wait until the first large one has been read."""
_SINGLE_LOOKUPS = 20
"""Up to this number, records are read one by one; a larger number is read together."""


class RecordSource(Protocol):
    """The present state of the records."""

    @property
    def ledger(self) -> Ledger:
        """Everything except nodes and edges of circuits."""
        ...

    def document(self, circuit: str) -> Circuit:
        """A circuit's content, by full id."""
        ...


def project(
    store: GraphStore,
    changes: Sequence[Change],
    source: RecordSource,
    *,
    progress: OnProgress | None = None,
) -> list[PutAside]:
    """Update the graph for each of ``changes``.

    Args:
        store: Open for writing, with the schema prepared.
        changes: In any order; repetitions have no effect.
        source: The records.
        progress: Called after each transaction.

    Returns:
        The records put aside: circuits whose document cannot be read, with the reasons.

    Raises:
        QueryFailed: The engine refuses the rows of one of the records. Otherwise as for GraphError.
        GraphError: The graph cannot be written. Some transactions may have been committed;
            projecting the same changes again completes them.
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
    """Circuits of one transaction."""

    new: list[tuple[CircuitEntry, CircuitRows]] = field(default_factory=list)
    known: list[CircuitEntry] = field(default_factory=list)
    said: list[tuple[str, list[Row]]] = field(default_factory=list)
    size: int = 0

    def __len__(self) -> int:
        return len(self.new) + len(self.known)

    @property
    def entries(self) -> list[CircuitEntry]:
        return [*(entry for entry, _ in self.new), *self.known]


@dataclass
class _Edits:
    """Rows of edits of one transaction, with their outcomes.

    Attributes:
        parts: Models and local names of the components that they modify, by id.
        added: Outcomes of edits that the graph lacks; searching for each would double the time.
        merged: Outcomes of the other edits.
    """

    edits: list[Row] = field(default_factory=list)
    made: list[Row] = field(default_factory=list)
    modifies: list[Row] = field(default_factory=list)
    targets: list[Row] = field(default_factory=list)
    parts: dict[str, tuple[str, str]] = field(default_factory=dict)
    added: list[OutcomeRow] = field(default_factory=list)
    merged: list[OutcomeRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.edits)

    @property
    def size(self) -> int:
        return len(self.edits) + len(self.modifies) + len(self.added) + len(self.merged)

    def add(self, edit: Edit, outcomes: Iterable[OutcomeRow], *, is_new: bool) -> None:
        key = edit.id
        self.edits.append(edit_row(edit))
        self.made.extend(made_rows([edit]))
        for local in edit.components:
            component = f"{edit.model}/{local}"
            self.parts[component] = edit.model, local
            self.modifies.append({"edit": key, "component": component})
        self.targets.extend({"edit": key, "circuit": circuit} for circuit in edit.circuits)
        (self.added if is_new else self.merged).extend(outcomes)


_B = TypeVar("_B", _Batch, _Edits)


class _Projection:
    """One call of :func:`project`, with cached facts about the graph."""

    def __init__(self, store: GraphStore, source: RecordSource, *, circuits: int) -> None:
        self._store = GraphWriter(store)
        self._source = source
        self._records = LookedUp(source.ledger, many=circuits > _SINGLE_LOOKUPS)
        self.put_aside: list[PutAside] = []
        self._seen_evaluations: set[str] = set()

    def steps(self, keys: dict[ChangeKind, list[str]]) -> Iterator[int]:
        """Yield the number of finished changes after each transaction."""
        yield from self._single_records(keys)
        yield from self._circuits(keys[ChangeKind.CIRCUIT])
        yield from self._edits(keys[ChangeKind.EDIT])
        yield from self._evaluations(keys[ChangeKind.EVALUATION])

    # -- single records ------------------------------------------------------------------------

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
        yield from _while_the_engine_works(self._batches(present), self._add)

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
                    log.warning("not in the graph: %s", aside)
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
            self._remove([id for id, _ in circuits])  # it may be put aside, then no part may stay
            raise

    def _with_what_is_said(self, batch: _Batch) -> _Batch:
        batch.said.extend(self._said_about(batch.entries, batch.known))
        return batch

    def _said_about(
        self, entries: Sequence[CircuitEntry], known: Sequence[CircuitEntry]
    ) -> Iterator[tuple[str, list[Row]]]:
        """Facts from other records about circuits; their changes may have been processed before.

        Args:
            entries: The circuits.
            known: Circuits that the graph already has, whose annotations may have been removed.
        """
        found_on = [{"circuit": e.id, "prompt_set": e.prompt_set} for e in entries if e.prompt_set]
        produced = [{"circuit": e.id, "run": run} for e in entries for run in e.runs]
        evaluations = [one for e in entries for one in self._records.evaluations(e.id)]
        targets = [
            {"circuit": e.id, "edit": edit.id}
            for e in entries
            for edit in self._records.edits_of(e.id)
        ]
        annotations = [
            annotation_row(one, entry.model)
            for entry in entries
            for one in self._records.annotations(entry.id)
        ]
        self._seen_evaluations.update(evaluation.id for evaluation in evaluations)
        yield statements.FOUND_ON, found_on
        yield statements.PRODUCED, produced
        yield statements.MERGE_EVALUATIONS, [evaluation_row(one) for one in evaluations]
        yield statements.MEASURED, measured_rows(evaluations)
        yield statements.TARGETS, targets
        yield statements.DELETE_OTHER_ANNOTATIONS, _said_of_each(known, annotations)
        yield statements.MERGE_ANNOTATIONS, annotations
        yield statements.ANNOTATES, annotations
        yield statements.ANNOTATED_BY_RUN, [row for row in annotations if row["run"]]

    def _remove(self, ids: Sequence[str]) -> None:
        remove_most(self._store, ids)
        # Their parts are queried first: after the removal, nothing leads from them to the parts.
        connections = self._store.present(statements.CONNECTIONS_OF_CIRCUITS, ids)
        components = self._store.present(statements.COMPONENTS_OF_CIRCUITS, ids)
        self._store.forget(components, connections)
        marked = ids if self._store.largest_transaction is not None else ()
        self._store.write_ids(
            (statements.DELETE_NODES, ids),
            (statements.DELETE_EVALUATIONS, ids),
            (statements.DELETE_ANNOTATIONS, ids),
            (statements.DELETE_CIRCUITS, ids),
            (statements.DELETE_UNUSED_CONNECTIONS, sorted(connections)),
            (statements.DELETE_UNUSED_COMPONENTS, sorted(components)),
            (statements.UNMARK_UNFINISHED, marked),
        )

    # -- facts about circuits ------------------------------------------------------------------

    def _evaluations(self, ids: Sequence[str]) -> Iterator[int]:
        rest = set(ids) - self._seen_evaluations
        found = [one for one in self._records.all_evaluations() if one.id in rest] if rest else []
        for part in chunks(found, _RECORDS_PER_TRANSACTION):
            # An evaluation may change the faithfulness of its circuit's node.
            circuits = [self._records.circuit(key) for key in {one.circuit for one in part}]
            self._store.write(
                (statements.MERGE_EVALUATIONS, [evaluation_row(one) for one in part]),
                (statements.MEASURED, measured_rows(part)),
                (
                    statements.UPDATE_CIRCUITS,
                    [circuit_row(e) for e in circuits if e is not None and not _is_retracted(e)],
                ),
            )
        if ids:
            yield len(ids)

    def _edits(self, ids: Sequence[str]) -> Iterator[int]:
        yield from _while_the_engine_works(self._edit_batches(ids), self._add_edits)

    def _edit_batches(self, ids: Sequence[str]) -> Iterator[_Edits]:
        ledger, most = self._source.ledger, self._store.rows_per_transaction
        known = self._store.present(statements.KNOWN_EDITS, ids)
        for part in chunks(ids, _RECORDS_PER_TRANSACTION):
            outcomes = defaultdict[str, list[OutcomeRow]](list)
            for row in ledger.outcome_rows(part):
                outcomes[row.edit].append(row)
            batch = _Edits()
            for edit in ledger.edits(part):
                batch.add(edit, outcomes[edit.id], is_new=edit.id not in known)
                if batch.size >= most:
                    yield batch
                    batch = _Edits()
            if len(batch):
                yield batch

    def _add_edits(self, batch: _Edits) -> None:
        components = self._store.missing_components(batch.parts)
        measured = (*batch.added, *batch.merged)
        self._store.write(
            *reference_parts(components),
            (statements.MERGE_EDITS, batch.edits),
            (statements.MADE, batch.made),
            (statements.MODIFIES, batch.modifies),
            (statements.TARGETS, batch.targets),
            (statements.ADD_OUTCOMES, batch.added),
            (statements.MERGE_OUTCOMES, batch.merged),
            (statements.OUTCOMES_ON_TASK, [row for row in measured if row.task]),
        )
        self._store.know(components)


def _while_the_engine_works(batches: Iterable[_B], add: Callable[[_B], None]) -> Iterator[int]:
    """Write batches, and read the next one meanwhile; yields the size of each written batch."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="projection") as writer:
        ahead: tuple[Future[None], int] | None = None
        for batch in batches:
            if ahead is not None:
                ahead[0].result()
                yield ahead[1]
            ahead = writer.submit(add, batch), len(batch)
        if ahead is not None:
            ahead[0].result()
            yield ahead[1]


def _said_of_each(entries: Sequence[CircuitEntry], annotations: Iterable[Row]) -> list[Row]:
    """The ids of each circuit's annotations; others in the graph have been removed."""
    said: dict[str, list[str]] = {entry.id: [] for entry in entries}
    for row in annotations:
        if row["circuit"] in said:
            said[row["circuit"]].append(row["id"])
    return [{"circuit": circuit, "said": ids} for circuit, ids in said.items()]


def _is_retracted(entry: CircuitEntry) -> bool:
    return entry.labels.state is CircuitState.RETRACTED
