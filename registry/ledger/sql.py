"""The ledger in SQLite or PostgreSQL, behind the contract of ``registry.ledger.base``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Engine, select
from typing_extensions import override

from registry.errors import LedgerError
from registry.ledger import tables
from registry.ledger.base import (
    Batch,
    CircuitEntry,
    CircuitFilter,
    Delta,
    Ledger,
    Recorded,
    Revision,
)
from registry.ledger.changes import (
    append_everything,
    changes_since,
    count_since,
    has_revision,
    newest_revision,
    note_projected,
    projected,
)
from registry.ledger.engine import (
    connect,
    database_path,
    parse_url,
    reading,
    require_sound,
    shown,
    writing,
)
from registry.ledger.locks import holding_projection
from registry.ledger.looking_up import (
    artifact_addresses,
    circuit_entries,
    find_circuits,
    records,
    records_among,
    resolve,
    source_file_hashes,
)
from registry.ledger.migrate import is_set_up, migrate_ledger, require_current
from registry.ledger.transfer import dump_rows, is_empty, load_rows
from registry.ledger.writing import relabel, write_batch
from registry.records import (
    CircuitLabels,
    Edit,
    Evaluation,
    Model,
    Outcome,
    PromptSet,
    Run,
    SourceFile,
    Task,
)

__all__ = ["SqlLedger", "is_set_up", "migrate_ledger", "open_ledger"]


def open_ledger(url: str) -> Ledger:
    """Open the ledger at ``sqlite:///PATH`` or ``postgresql://...``.

    Raises:
        BadInput: The URL is neither.
        MissingExtra: The driver for PostgreSQL is not installed.
        LedgerOutdated: Its schema is not this program's; the text says what to run.
        LedgerError: It is not there, does not answer, or is no ledger.
    """
    where = parse_url(url)
    if where.get_backend_name() == "sqlite" and not database_path(where).is_file():
        raise LedgerError(
            f"{shown(where)} does not exist: 'circuits init' makes a registry, 'circuits restore'"
            " fills one from a backup"
        )
    engine = connect(where)
    try:
        return SqlLedger(engine)
    except BaseException:
        engine.dispose()
        raise


class SqlLedger(Ledger):
    """A ledger on an engine of :func:`registry.ledger.engine.connect`; closes it in the end."""

    def __init__(self, engine: Engine) -> None:
        self._opened, self._is_closed = engine, False
        with reading(engine) as connection:
            require_current(connection)
            self._identity = connection.execute(select(tables.registry)).one()

    def __repr__(self) -> str:
        return f"SqlLedger({shown(self._opened.url)!r})"

    @property
    def _engine(self) -> Engine:
        # An engine of SQLAlchemy that was disposed of connects again when it is used.
        if self._is_closed:
            raise LedgerError("the registry is closed; open it again")
        return self._opened

    @property
    @override
    def registry_id(self) -> str:
        return str(self._identity.id)

    @property
    @override
    def instance(self) -> str:
        return str(self._identity.instance)

    @property
    @override
    def restored_from(self) -> str | None:
        found: str | None = self._identity.restored_from
        return found

    @override
    def record(self, batch: Batch) -> Recorded:
        with writing(self._engine) as connection:
            return write_batch(connection, batch)

    @override
    def relabel(
        self, circuit: str, labels: CircuitLabels, *, expected: CircuitLabels | None = None
    ) -> bool:
        with writing(self._engine) as connection:
            return relabel(connection, circuit, labels, expected)

    @override
    def models(self) -> tuple[Model, ...]:
        with reading(self._engine) as connection:
            found = records(connection, Model, select(tables.models))
        # Sorted here, as databases order text each by its own locale.
        return tuple(sorted(found, key=lambda model: model.slug))

    @override
    def tasks(self) -> tuple[Task, ...]:
        with reading(self._engine) as connection:
            found = records(connection, Task, select(tables.tasks))
        return tuple(sorted(found, key=lambda task: task.slug))

    @override
    def prompt_sets(self, task: str | None = None) -> tuple[PromptSet, ...]:
        query = select(tables.prompt_sets)
        if task is not None:
            query = query.where(tables.prompt_sets.c.task == task)
        with reading(self._engine) as connection:
            found = records(connection, PromptSet, query)
        return tuple(sorted(found, key=lambda prompts: (prompts.task, prompts.id)))

    @override
    def runs(self, *, limit: int | None = None) -> tuple[Run, ...]:
        newest_first = (tables.runs.c.started_at.desc(), tables.runs.c.id)
        query = select(tables.runs).order_by(*newest_first).limit(limit)
        with reading(self._engine) as connection:
            return records(connection, Run, query)

    @override
    def circuits(self, which: CircuitFilter = CircuitFilter()) -> tuple[CircuitEntry, ...]:
        with reading(self._engine) as connection:
            return circuit_entries(connection, find_circuits(which))

    @override
    def circuit(self, prefix: str) -> CircuitEntry:
        with reading(self._engine) as connection:
            key = resolve(connection, "circuit", tables.circuits, prefix)
            query = select(tables.circuits).where(tables.circuits.c.id == key)
            return circuit_entries(connection, query)[0]

    @override
    def circuit_id(self, prefix: str) -> str:
        with reading(self._engine) as connection:
            return resolve(connection, "circuit", tables.circuits, prefix)

    @override
    def evaluations(self, circuit: str | None = None) -> tuple[Evaluation, ...]:
        columns = tables.evaluations.c
        query = select(tables.evaluations).order_by(
            columns.recorded_at, columns.position, columns.id
        )
        if circuit is not None:
            query = query.where(columns.circuit == circuit)
        with reading(self._engine) as connection:
            return records(connection, Evaluation, query)

    @override
    def edits(self, ids: Iterable[str] | None = None) -> tuple[Edit, ...]:
        columns = tables.edits.c
        query = select(tables.edits).order_by(columns.recorded_at, columns.position, columns.id)
        with reading(self._engine) as connection:
            if ids is None:
                return records(connection, Edit, query)
            return tuple(records_among(connection, Edit, query, columns.id, ids))

    @override
    def edit(self, prefix: str) -> Edit:
        with reading(self._engine) as connection:
            key = resolve(connection, "edit", tables.edits, prefix)
            (found,) = records(
                connection, Edit, select(tables.edits).where(tables.edits.c.id == key)
            )
            return found

    @override
    def edit_files(self, edit: str) -> tuple[SourceFile, ...]:
        columns = tables.edit_files.c
        query = (
            select(tables.edit_files)
            .where(columns.edit == edit)
            .order_by(columns.recorded_at, columns.position, columns.sha256)
        )
        with reading(self._engine) as connection:
            return records(connection, SourceFile, query)

    @override
    def outcomes(self, edit: str) -> tuple[Outcome, ...]:
        return self.outcomes_of([edit]).get(edit, ())

    @override
    def outcomes_of(self, edits: Iterable[str]) -> dict[str, tuple[Outcome, ...]]:
        columns = tables.outcomes.c
        query = select(tables.outcomes).order_by(columns.recorded_at, columns.position, columns.id)
        found: dict[str, list[Outcome]] = {}
        with reading(self._engine) as connection:
            for one in records_among(connection, Outcome, query, columns.edit, edits):
                found.setdefault(one.edit, []).append(one)
        return {edit: tuple(outcomes) for edit, outcomes in found.items()}

    @override
    def artifacts(self) -> frozenset[str]:
        with reading(self._engine) as connection:
            return artifact_addresses(connection)

    @override
    def imported_files(self) -> tuple[SourceFile, ...]:
        columns = tables.imported_files.c
        query = select(tables.imported_files).order_by(
            columns.recorded_at, columns.position, columns.sha256
        )
        with reading(self._engine) as connection:
            return records(connection, SourceFile, query)

    @override
    def source_files(self) -> frozenset[str]:
        with reading(self._engine) as connection:
            return source_file_hashes(connection)

    @override
    def revision(self) -> Revision:
        with reading(self._engine) as connection:
            return newest_revision(connection)

    @override
    def has_revision(self, revision: Revision) -> bool:
        with reading(self._engine) as connection:
            return has_revision(connection, revision)

    @override
    def changes_since(self, number: int) -> Delta:
        with reading(self._engine) as connection:
            return changes_since(connection, number)

    @override
    def count_since(self, number: int) -> int:
        with reading(self._engine) as connection:
            return count_since(connection, number)

    @override
    def note_projected(self, graph: str, number: int) -> None:
        with writing(self._engine) as connection:
            note_projected(connection, graph, number)

    @override
    def projected(self, graph: str) -> int:
        with reading(self._engine) as connection:
            return projected(connection, graph)

    @override
    def projecting(
        self, *, timeout_seconds: float, unless: Callable[[], bool] | None = None
    ) -> AbstractContextManager[Callable[[], None] | None]:
        return holding_projection(self._engine, self.registry_id, timeout_seconds, unless)

    @override
    def require_sound(self) -> None:
        with reading(self._engine) as connection:
            require_sound(connection)

    @override
    def dump(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with reading(self._engine) as connection:
            yield from dump_rows(connection)

    @override
    def load(
        self, rows: Iterable[tuple[str, Mapping[str, Any]]], *, digest: str | None = None
    ) -> None:
        with writing(self._engine) as connection:
            if not is_empty(connection):
                where = shown(self._engine.url)
                raise LedgerError(f"{where} holds records already; restore into a new ledger")
            load_rows(connection, rows, instance=self.instance, digest=digest)
            append_everything(connection)
            identity = connection.execute(select(tables.registry)).one()
        self._identity = identity

    @override
    def close(self) -> None:
        self._is_closed = True
        self._opened.dispose()
