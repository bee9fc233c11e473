"""The ledger in SQLite or PostgreSQL, as defined by ``registry.ledger.base``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, select
from typing_extensions import override

from registry.errors import LedgerError, NotFound
from registry.files.attachments import Attachment, AttachmentOwner
from registry.ledger import tables
from registry.ledger.annotating import all_annotations, take_back, write_annotations
from registry.ledger.base import (
    Batch,
    ChangeKind,
    CircuitEntry,
    CircuitFilter,
    Delta,
    EditFilter,
    Ledger,
    Life,
    Made,
    OutcomeRow,
    Page,
    PromptSetFilter,
    Recorded,
    Revision,
    RunFilter,
    Stage,
)
from registry.ledger.changes import (
    append_changes,
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
from registry.ledger.lives import beat, interrupt, keep_stages, lives, note_silence
from registry.ledger.locks import holding_projection
from registry.ledger.looking_up import (
    artifact_addresses,
    chunks,
    circuit_entries,
    find_circuits,
    find_edits,
    find_prompt_sets,
    records,
    records_among,
    resolve,
    resolve_owner,
    resolved,
    source_file_hashes,
)
from registry.ledger.migrate import is_set_up, migrate_ledger, require_current
from registry.ledger.paging import (
    CIRCUITS,
    EDITS,
    EVALUATIONS,
    OUTCOMES,
    PROMPT_SETS,
    RUNS,
    page_of,
    records_page,
    rows_after,
)
from registry.ledger.runs import find_runs, made_by
from registry.ledger.transfer import dump_rows, is_empty, load_rows
from registry.ledger.writing import relabel, write_batch
from registry.records import (
    Annotation,
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
from registry.texts.words import nearest_names

__all__ = ["SqlLedger", "is_set_up", "migrate_ledger", "open_ledger"]


def open_ledger(url: str) -> Ledger:
    """Open the ledger at ``sqlite:///PATH`` or ``postgresql://...``.

    Raises:
        BadInput: The URL is neither.
        MissingExtra: The driver for PostgreSQL is not installed.
        LedgerOutdated: Its schema is not this program's; the message gives the command to run.
        LedgerError: It does not exist, does not answer, or is not a ledger.
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
    """A ledger on an engine of :func:`registry.ledger.engine.connect`, which it closes."""

    def __init__(self, engine: Engine) -> None:
        self._opened, self._is_closed = engine, False
        with reading(engine) as connection:
            require_current(connection)
            self._identity = connection.execute(select(tables.registry)).one()

    def __repr__(self) -> str:
        return f"SqlLedger({shown(self._opened.url)!r})"

    @property
    def _engine(self) -> Engine:
        # A SQLAlchemy engine connects again if it is used after dispose.
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
    def record_at(self, revision: Revision, batch: Batch) -> Recorded | None:
        with writing(self._engine) as connection:
            if newest_revision(connection) != revision:
                return None
            return write_batch(connection, batch)

    @override
    def relabel(
        self, circuit: str, labels: CircuitLabels, *, expected: CircuitLabels | None = None
    ) -> bool:
        with writing(self._engine) as connection:
            return relabel(connection, circuit, labels, expected)

    @override
    def annotate(self, annotations: Sequence[Annotation], *, also: bool = False) -> bool:
        with writing(self._engine) as connection:
            _, changed = write_annotations(connection, annotations, datetime.now(UTC), also=also)
            append_changes(connection, [(ChangeKind.CIRCUIT, key) for key in changed])
            return bool(changed)

    @override
    def take_back(self, circuit: str, node: str, *, said_by: str, role: str | None = None) -> int:
        with writing(self._engine) as connection:
            n_removed = take_back(connection, circuit, node, said_by, role)
            append_changes(connection, [(ChangeKind.CIRCUIT, circuit)] if n_removed else [])
            return n_removed

    @override
    def models(self) -> tuple[Model, ...]:
        with reading(self._engine) as connection:
            found = records(connection, Model, select(tables.models))
        # Sorted here, because databases order text by their own locales.
        return tuple(sorted(found, key=lambda model: model.slug))

    @override
    def model(self, slug: str) -> Model:
        columns = tables.models.c
        with reading(self._engine) as connection:
            found = records(connection, Model, select(tables.models).where(columns.slug == slug))
            if not found:
                slugs = connection.execute(select(columns.slug)).scalars()
                raise NotFound("model", slug, nearest_names(slug, slugs))
        return found[0]

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
    def prompt_sets_page(
        self,
        which: PromptSetFilter = PromptSetFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[PromptSet]:
        with reading(self._engine) as connection:
            query = find_prompt_sets(which)
            return records_page(connection, PromptSet, query, PROMPT_SETS, limit=limit, after=after)

    @override
    def prompt_set(self, prefix: str) -> PromptSet:
        with reading(self._engine) as connection:
            return resolved(connection, "prompt set", PromptSet, tables.prompt_sets, prefix)

    @override
    def runs(
        self, ids: Iterable[str] | None = None, *, limit: int | None = None
    ) -> tuple[Run, ...]:
        columns = tables.runs.c
        query = select(tables.runs).order_by(columns.started_at.desc(), columns.id)
        with reading(self._engine) as connection:
            if ids is None:
                return records(connection, Run, query.limit(limit))
            found = list(records_among(connection, Run, query, columns.id, ids))
        found.sort(key=lambda run: run.id)
        found.sort(key=lambda run: run.started_at, reverse=True)
        return tuple(found[:limit])

    @override
    def run(self, prefix: str) -> Run:
        with reading(self._engine) as connection:
            return resolved(connection, "run", Run, tables.runs, prefix)

    @override
    def runs_page(
        self,
        which: RunFilter = RunFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Run]:
        with reading(self._engine) as connection:
            query = find_runs(which)
            return records_page(connection, Run, query, RUNS, limit=limit, after=after)

    @override
    def made_by(self, run: str) -> Made:
        with reading(self._engine) as connection:
            return made_by(connection, run)

    @override
    def circuits(self, which: CircuitFilter = CircuitFilter()) -> tuple[CircuitEntry, ...]:
        with reading(self._engine) as connection:
            return circuit_entries(connection, find_circuits(which))

    @override
    def circuits_page(
        self,
        which: CircuitFilter = CircuitFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[CircuitEntry]:
        query = rows_after(find_circuits(which), CIRCUITS, after, limit)
        with reading(self._engine) as connection:
            return page_of(circuit_entries(connection, query), CIRCUITS, limit)

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
    def annotations(self, circuit: str | None = None) -> tuple[Annotation, ...]:
        with reading(self._engine) as connection:
            return records(connection, Annotation, all_annotations(circuit))

    @override
    def evaluations_on(self, prompt_set: str) -> tuple[Evaluation, ...]:
        columns = tables.evaluations.c
        query = select(tables.evaluations).where(columns.prompt_set == prompt_set)
        query = query.order_by(columns.recorded_at, columns.position, columns.id)
        with reading(self._engine) as connection:
            return records(connection, Evaluation, query)

    @override
    def evaluations_page(
        self, circuit: str | None = None, *, limit: int | None = None, after: str | None = None
    ) -> Page[Evaluation]:
        query = select(tables.evaluations)
        if circuit is not None:
            query = query.where(tables.evaluations.c.circuit == circuit)
        with reading(self._engine) as connection:
            return records_page(
                connection, Evaluation, query, EVALUATIONS, limit=limit, after=after
            )

    @override
    def edits(self, ids: Iterable[str] | None = None) -> tuple[Edit, ...]:
        columns = tables.edits.c
        query = select(tables.edits).order_by(columns.recorded_at, columns.position, columns.id)
        with reading(self._engine) as connection:
            if ids is None:
                return records(connection, Edit, query)
            return tuple(records_among(connection, Edit, query, columns.id, ids))

    @override
    def edits_page(
        self,
        which: EditFilter = EditFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Edit]:
        with reading(self._engine) as connection:
            query = find_edits(which)
            return records_page(connection, Edit, query, EDITS, limit=limit, after=after)

    @override
    def edit(self, prefix: str) -> Edit:
        with reading(self._engine) as connection:
            return resolved(connection, "edit", Edit, tables.edits, prefix)

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
    def outcomes_page(
        self, edit: str | None = None, *, limit: int | None = None, after: str | None = None
    ) -> Page[Outcome]:
        query = select(tables.outcomes)
        if edit is not None:
            query = query.where(tables.outcomes.c.edit == edit)
        with reading(self._engine) as connection:
            return records_page(connection, Outcome, query, OUTCOMES, limit=limit, after=after)

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
    def outcome_rows(self, edits: Iterable[str]) -> Iterator[OutcomeRow]:
        columns = tables.outcomes.c
        query = select(*(columns[name] for name in OutcomeRow._fields)).order_by(
            columns.recorded_at, columns.position, columns.id
        )
        with reading(self._engine) as connection:
            for some in chunks(edits):
                rows = connection.execute(query.where(columns.edit.in_(some)))
                yield from map(OutcomeRow._make, rows)

    @override
    def owner(self, prefix: str) -> tuple[AttachmentOwner, str]:
        with reading(self._engine) as connection:
            return resolve_owner(connection, prefix)

    @override
    def attachments(self, owner: str | None = None) -> tuple[Attachment, ...]:
        columns = tables.attachments.c
        order = (columns.recorded_at, columns.position, columns.owner, columns.name)
        query = select(tables.attachments).order_by(*order)
        if owner is not None:
            query = query.where(columns.owner == owner)
        with reading(self._engine) as connection:
            return records(connection, Attachment, query)

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
    def beat(self, run: str, stages: Sequence[Stage] = ()) -> None:
        with writing(self._engine) as connection:
            beat(connection, run, stages)

    @override
    def keep_stages(self, run: str, stages: Sequence[Stage]) -> None:
        with writing(self._engine) as connection:
            keep_stages(connection, run, stages)

    @override
    def lives(self, runs: Iterable[str] | None = None) -> dict[str, Life]:
        with reading(self._engine) as connection:
            return lives(connection, runs)

    @override
    def note_silence(self, run: str, beats: int) -> None:
        with writing(self._engine) as connection:
            note_silence(connection, run, beats)

    @override
    def interrupt(self, run: str, *, beats: int, error: str) -> bool:
        with writing(self._engine) as connection:
            return interrupt(connection, run, beats, error)

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
                raise LedgerError(f"{where} already holds records; restore into a new ledger")
            load_rows(connection, rows, instance=self.instance, digest=digest)
            append_everything(connection)
            identity = connection.execute(select(tables.registry)).one()
        self._identity = identity

    @override
    def close(self) -> None:
        self._is_closed = True
        self._opened.dispose()
