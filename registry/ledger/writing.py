"""The writing transactions of a ledger: add a batch, replace labels, note the changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    RowMapping,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from registry.errors import BadInput, NotFound
from registry.files.attachments import Attachment
from registry.ledger import tables
from registry.ledger.annotating import write_annotations
from registry.ledger.base import Batch, ChangeKind, NewCircuit, Recorded
from registry.ledger.changes import append_changes
from registry.ledger.lives import settle
from registry.ledger.looking_up import OWNER_TABLES, chunks, circuit_entries
from registry.ledger.merging import fill_in, merge_models
from registry.ledger.record_rows import label_row, record_from_row, row_from_record
from registry.records import (
    CircuitLabels,
    Edit,
    Evaluation,
    Model,
    Outcome,
    PromptSet,
    Record,
    Run,
    SourceFile,
    Task,
)

__all__ = ["relabel", "write_batch"]

R = TypeVar("R", bound=Record)
E = TypeVar("E", Evaluation, Edit)


def write_batch(connection: Connection, batch: Batch) -> Recorded:
    """Add a batch's records and note the changes; see ``Ledger.record``."""
    now = datetime.now(UTC)
    described = _write_described(connection, batch)
    changes = [(kind, key) for kind, merged in described.items() for key in merged.changed]
    settle(connection, batch.processes)
    circuits, changed = _write_circuits(connection, batch.circuits, now)
    evaluations, measured_by = _write_evaluations(connection, batch.evaluations, now)
    edits, made_by = _write_edits(connection, batch.edits, now)
    _write_edit_files(connection, batch.edit_files, now)
    _write_imported(connection, batch.imported, now)
    outcomes = _write_outcomes(connection, batch.outcomes, now)
    attachments = _write_attachments(connection, batch.attachments, now)
    annotations, annotated = write_annotations(connection, batch.annotations, now, also=True)
    new = set(outcomes)
    measured = [outcome.edit for outcome in batch.outcomes if outcome.id in new]
    changes += [(ChangeKind.CIRCUIT, key) for key in (*changed, *annotated)]
    changes += [(ChangeKind.EVALUATION, key) for key in (*evaluations, *measured_by)]
    changes += [(ChangeKind.EDIT, key) for key in (*edits, *made_by, *measured)]
    append_changes(connection, changes)
    return Recorded(
        circuits,
        evaluations,
        edits,
        outcomes,
        attachments,
        tuple(annotations),
        models=described[ChangeKind.MODEL].added,
        tasks=described[ChangeKind.TASK].added,
        prompt_sets=described[ChangeKind.PROMPT_SET].added,
        runs=described[ChangeKind.RUN].added,
    )


def relabel(
    connection: Connection,
    circuit: str,
    labels: CircuitLabels,
    expected: CircuitLabels | None = None,
) -> bool:
    """Replace a circuit's labels; see ``Ledger.relabel``."""
    _require(connection, "circuit", tables.circuits, [circuit])
    if expected is not None:
        query = select(tables.circuits).where(tables.circuits.c.id == circuit)
        if circuit_entries(connection, query)[0].labels != expected:
            return False
    _check_labels(connection, circuit, labels, also=())
    connection.execute(
        update(tables.circuits)
        .where(tables.circuits.c.id == circuit)
        .values(label_row(tables.circuits, labels))
    )
    connection.execute(delete(tables.circuit_tags).where(tables.circuit_tags.c.circuit == circuit))
    _insert(connection, tables.circuit_tags, _tag_rows(circuit, labels))
    append_changes(connection, [(ChangeKind.CIRCUIT, circuit)])
    return True


@dataclass(frozen=True, slots=True)
class _Merged:
    """Keys of records that were added, and of all that were added or changed."""

    added: tuple[str, ...]
    changed: tuple[str, ...]


def _write_described(connection: Connection, batch: Batch) -> dict[ChangeKind, _Merged]:
    """Add models, tasks, prompt sets and runs, or what is new about stored ones.

    Empty fields of a stored record are filled in; a stored run is replaced.
    """
    models = _merge(connection, tables.models, Model, batch.models, merge_models)
    tasks = _merge(connection, tables.tasks, Task, batch.tasks, fill_in)
    prompts = batch.prompt_sets
    _require(connection, "task", tables.tasks, [p.task for p in prompts])
    _require(connection, "model", tables.models, [p.model for p in prompts])
    prompt_sets = _merge(connection, tables.prompt_sets, PromptSet, prompts, fill_in)
    runs = _merge(connection, tables.runs, Run, batch.runs, lambda _stored, given: given)
    return {
        ChangeKind.MODEL: models,
        ChangeKind.TASK: tasks,
        ChangeKind.PROMPT_SET: prompt_sets,
        ChangeKind.RUN: runs,
    }


def _merge(
    connection: Connection,
    table: Table,
    kind: type[R],
    given: Sequence[R],
    merge: Callable[[R, R], R],
) -> _Merged:
    """Add records, or their new facts to the stored records."""
    key = next(iter(table.primary_key))
    keys = [str(getattr(record, key.name)) for record in given]
    stored = {
        row[key.name]: record_from_row(kind, row) for row in _rows(connection, table, key, keys)
    }
    merged: dict[str, R] = {}
    for name, record in zip(keys, given, strict=True):
        before = merged.get(name, stored.get(name))
        merged[name] = record if before is None else merge(before, record)
    changed = {name: r for name, r in merged.items() if r != stored.get(name)}
    rows = {name: _described_row(table, record) for name, record in changed.items()}
    _insert(connection, table, [row for name, row in rows.items() if name not in stored])
    _update(connection, table, key, [row for name, row in rows.items() if name in stored])
    return _Merged(tuple(name for name in changed if name not in stored), tuple(changed))


def _described_row(table: Table, record: Record) -> dict[str, Any]:
    if isinstance(record, Run):
        return row_from_record(table, record, configuration_sha256=record.configuration_sha256)
    return row_from_record(table, record)


def _write_circuits(
    connection: Connection, given: Sequence[NewCircuit], now: datetime
) -> tuple[tuple[str, ...], list[str]]:
    """Add circuits and provenance; return the ids of new and of changed circuits."""
    circuits = [new.circuit for new in given]
    _require(connection, "model", tables.models, [c.model for c in circuits])
    _require(connection, "task", tables.tasks, [c.task for c in circuits])
    _require(connection, "prompt set", tables.prompt_sets, [c.prompt_set for c in circuits])
    _require(connection, "run", tables.runs, [new.run for new in given])
    ids = [circuit.id for circuit in circuits]
    known = _existing(connection, tables.circuits, ids)
    first = dict(reversed(list(zip(ids, given, strict=True))))
    added = [key for key in dict.fromkeys(ids) if key not in known]
    for key in added:
        _check_labels(connection, key, first[key].labels, also=added)
    _insert(connection, tables.circuits, [_circuit_row(key, first[key], now) for key in added])
    tags = [row for key in added for row in _tag_rows(key, first[key].labels)]
    _insert(connection, tables.circuit_tags, tags)
    again = _write_provenance(connection, list(zip(ids, given, strict=True)), now)
    changed = set(added) | again
    return tuple(added), [key for key in dict.fromkeys(ids) if key in changed]


def _circuit_row(key: str, new: NewCircuit, now: datetime) -> dict[str, Any]:
    circuit = new.circuit
    return {
        **row_from_record(
            tables.circuits,
            circuit,
            id=key,
            n_nodes=len(circuit.nodes),
            n_edges=len(circuit.edges),
            recorded_at=now,
        ),
        **label_row(tables.circuits, new.labels),
    }


def _tag_rows(circuit: str, labels: CircuitLabels) -> list[dict[str, Any]]:
    for tag in labels.tags:
        if "\x00" in tag:
            raise BadInput(f"a tag contains a NUL character: {tag!r}")
    return [
        {"circuit": circuit, "position": position, "tag": tag}
        for position, tag in enumerate(labels.tags)
    ]


def _check_labels(
    connection: Connection, circuit: str, labels: CircuitLabels, also: Sequence[str]
) -> None:
    if labels.superseded_by == circuit:
        raise BadInput(f"circuit {circuit[:12]} cannot supersede itself; name the newer one")
    if labels.superseded_by not in also:
        _require(connection, "circuit", tables.circuits, [labels.superseded_by])


def _write_provenance(
    connection: Connection, given: Sequence[tuple[str, NewCircuit]], now: datetime
) -> set[str]:
    """Note runs and files that circuits came from; return the circuits that gained one."""
    runs = {(key, new.run): new for key, new in given if new.run is not None}
    files = {
        (key, new.source_file.sha256): new.source_file
        for key, new in given
        if new.source_file is not None
    }
    ids = [key for key, _ in given]
    for known in _rows(connection, tables.circuit_runs, tables.circuit_runs.c.circuit, ids):
        runs.pop((known["circuit"], known["run"]), None)
    for known in _rows(connection, tables.circuit_files, tables.circuit_files.c.circuit, ids):
        files.pop((known["circuit"], known["sha256"]), None)
    when = {"recorded_at": now}
    _insert(
        connection,
        tables.circuit_runs,
        [
            {"circuit": key, "run": run, "position": position, **when}
            for position, (key, run) in enumerate(runs)
        ],
    )
    _insert(
        connection,
        tables.circuit_files,
        [
            row_from_record(tables.circuit_files, file, circuit=key, position=position, **when)
            for position, ((key, _), file) in enumerate(files.items())
        ],
    )
    return {key for key, _ in (*runs, *files)}


def _write_evaluations(
    connection: Connection, given: Sequence[Evaluation], now: datetime
) -> tuple[tuple[str, ...], list[str]]:
    """Add evaluations; return the new ids, and the ids of others that gained a run."""
    _require(connection, "circuit", tables.circuits, [e.circuit for e in given])
    _require(connection, "task", tables.tasks, [e.task for e in given])
    _require(connection, "prompt set", tables.prompt_sets, [e.prompt_set for e in given])
    _require(connection, "run", tables.runs, [e.run for e in given])
    added = _add_new(connection, tables.evaluations, _with_first_runs(given), now)
    return added, _fill_in_runs(connection, tables.evaluations, given)


def _write_edits(
    connection: Connection, given: Sequence[Edit], now: datetime
) -> tuple[tuple[str, ...], list[str]]:
    """Like :func:`_write_evaluations`."""
    _require(connection, "model", tables.models, [e.model for e in given])
    _require(connection, "circuit", tables.circuits, [key for e in given for key in e.circuits])
    _require(connection, "run", tables.runs, [e.run for e in given])
    added = _add_new(connection, tables.edits, _with_first_runs(given), now)
    return added, _fill_in_runs(connection, tables.edits, given)


def _with_first_runs(given: Sequence[E]) -> list[E]:
    """Each record once, with the first run that it is given with."""
    if all(record.run is None for record in given):  # a large import, whose ids are slow to hash
        return list(given)
    first: dict[str, E] = {}
    for record in given:
        key = record.id
        if key not in first or (first[key].run is None and record.run is not None):
            first[key] = record
    return list(first.values())


def _fill_in_runs(connection: Connection, table: Table, given: Sequence[E]) -> list[str]:
    """Set the runs of stored records without a run; return the ids of these records."""
    runs: dict[str, str] = {}
    for record in given:
        if record.run is not None:
            runs.setdefault(record.id, record.run)
    stored = _rows(connection, table, table.c.id, runs)
    lacking = [row["id"] for row in stored if row["run"] is None]
    _update(connection, table, table.c.id, [{"id": key, "run": runs[key]} for key in lacking])
    return lacking


def _write_edit_files(
    connection: Connection,
    given: Mapping[str, SourceFile | Sequence[SourceFile]],
    now: datetime,
) -> None:
    """Note the files that edits came from; the graph does not show them."""
    table = tables.edit_files
    _require(connection, "edit", tables.edits, given)
    known = {(row["edit"], row["sha256"]) for row in _rows(connection, table, table.c.edit, given)}
    new = {
        (key, file.sha256): file
        for key, files in given.items()
        for file in ([files] if isinstance(files, SourceFile) else files)
        if (key, file.sha256) not in known
    }
    rows = [
        row_from_record(table, file, edit=key, recorded_at=now, position=position)
        for position, ((key, _), file) in enumerate(new.items())
    ]
    _insert(connection, table, rows)


def _write_imported(connection: Connection, given: Sequence[SourceFile], now: datetime) -> None:
    """Note further files that are stored; a content keeps its first name."""
    table = tables.imported_files
    first: dict[str, SourceFile] = {}
    for file in given:
        first.setdefault(file.sha256, file)
    known = _existing(connection, table, first)
    new = [file for key, file in first.items() if key not in known]
    rows = [
        row_from_record(table, file, recorded_at=now, position=position)
        for position, file in enumerate(new)
    ]
    _insert(connection, table, rows)


def _write_outcomes(
    connection: Connection, given: Sequence[Outcome], now: datetime
) -> tuple[str, ...]:
    _require(connection, "edit", tables.edits, [o.edit for o in given])
    _require(connection, "task", tables.tasks, [o.task for o in given])
    return _add_new(connection, tables.outcomes, given, now)


def _write_attachments(
    connection: Connection, given: Sequence[Attachment], now: datetime
) -> tuple[Attachment, ...]:
    """Add attachments whose owner has no file of that name; the first description stays.

    Raises:
        BadInput: The owner has a file of that name with another content.
    """
    table = tables.attachments
    for kind, owners in OWNER_TABLES.items():
        ids = [one.owner for one in given if one.owner_kind is kind]
        _require(connection, kind.words, owners, ids)
    stored = _rows(connection, table, table.c.owner, [one.owner for one in given])
    known: dict[tuple[str, str, str], str] = {
        (row["owner_kind"], row["owner"], row["name"]): row["sha256"] for row in stored
    }
    added: list[Attachment] = []
    for one in given:
        if one.key not in known:
            known[one.key] = one.sha256
            added.append(one)
        elif known[one.key] != one.sha256:
            raise BadInput(
                f"{one.owner_kind.words} {one.owner[:12]} has another file {one.name!r} attached;"
                " give this one another name"
            )
    new = [
        row_from_record(table, one, recorded_at=now, position=position)
        for position, one in enumerate(added)
    ]
    _insert(connection, table, new)
    return tuple(added)


def _add_new(
    connection: Connection,
    table: Table,
    given: Sequence[Evaluation] | Sequence[Edit] | Sequence[Outcome],
    now: datetime,
) -> tuple[str, ...]:
    """Add the records whose id is new, and return those ids."""
    records = {record.id: record for record in given}
    known = _existing(connection, table, records)
    added = [key for key in records if key not in known]
    rows = [
        row_from_record(table, records[key], id=key, recorded_at=now, position=position)
        for position, key in enumerate(added)
    ]
    _insert(connection, table, rows)
    return tuple(added)


def _require(connection: Connection, kind: str, table: Table, keys: Iterable[str | None]) -> None:
    """Check that records that others refer to are stored.

    Raises:
        NotFound: One is not; the caller writes the records of a batch in the order of reference.
    """
    wanted = {key for key in keys if key is not None}
    missing = wanted - _existing(connection, table, wanted)
    if missing:
        raise NotFound(kind, min(missing), "what a record refers to is recorded with it or before")


def _existing(connection: Connection, table: Table, keys: Iterable[str]) -> set[str]:
    key = next(iter(table.primary_key))
    found: set[str] = set()
    for some in chunks(keys):
        found.update(connection.execute(select(key).where(key.in_(some))).scalars())
    return found


def _rows(
    connection: Connection, table: Table, column: Column[Any], keys: Iterable[str]
) -> Iterator[RowMapping]:
    for some in chunks(keys):
        yield from connection.execute(select(table).where(column.in_(some))).mappings().all()


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), list(rows))


def _update(
    connection: Connection, table: Table, key: Column[Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    if rows:
        # The key's parameter must not have the column's own name.
        named = [{**row, "this_key": row[key.name]} for row in rows]
        connection.execute(update(table).where(key == bindparam("this_key")), named)
