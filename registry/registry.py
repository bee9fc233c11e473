"""The registry itself: one record, its artifacts, and the graph made from both.

:class:`Registry` alone writes to more than one store, always in this order: artifacts, then one
ledger transaction that also fills the outbox, then the projection of the outbox into the graph.
A crash at any point leaves nothing visible, or an outbox that the next :meth:`Registry.sync`
works off. The graph is opened for writing only while projecting, and whatever is wrong with it
never stops recording.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import backup as backups
from registry.artifacts import ArtifactStore
from registry.catalogue import bind, load_catalogue
from registry.closing import Closing
from registry.documents import read_circuit
from registry.errors import BadInput, CircuitsError, NotFound
from registry.ledger.base import (
    Batch,
    CircuitEntry,
    CircuitFilter,
    Ledger,
    NewCircuit,
    Recorded,
)
from registry.ledger.merging import merge_models
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.limits import STORED
from registry.names import known_model, known_task, resolvers
from registry.networks import to_networkx
from registry.records import (
    Circuit,
    CircuitLabels,
    CircuitState,
    Edit,
    Evaluation,
    Model,
    Outcome,
    Record,
    Task,
)
from registry.rows import Rows
from registry.settings import Settings, create_home, load_settings
from registry.shapes import check_components
from registry.syncing import GraphAccess, Progress

if TYPE_CHECKING:
    import networkx

__all__ = ["Registry", "Status", "StoredCircuit"]

log = logging.getLogger(__name__)

_QUERY_TIMEOUT_SECONDS = 60.0
_LONGEST_TIMEOUT_SECONDS = 86_400
_MAX_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class StoredCircuit:
    """A circuit as the registry keeps it: content, labels with provenance, measurements."""

    entry: CircuitEntry
    circuit: Circuit
    evaluations: tuple[Evaluation, ...]

    def to_networkx(self) -> networkx.MultiDiGraph[str]:
        """The circuit as a graph; see :func:`registry.networks.to_networkx`."""
        return to_networkx(self.circuit)


@dataclass(frozen=True, slots=True)
class Status:
    """How a registry stands.

    Attributes:
        stores: What each store is and where, without secrets.
        counts: Records of each kind.
        pending: Changes that are not yet in the graph.
        graph: ``ready``, or why the graph cannot be read.
        runs: Runs by status.
    """

    registry_id: str
    home: Path
    stores: Mapping[str, str]
    counts: Mapping[str, int]
    pending: int
    graph: str
    runs: Mapping[str, int]


class Registry(Closing):
    """An open registry; use it in a ``with`` statement.

    Not safe for several threads; any number of processes may have the same registry open.
    """

    def __init__(self, settings: Settings, ledger: Ledger, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._ledger = ledger
        self._artifacts = artifacts
        self._graph = GraphAccess(settings, ledger, self)
        self._projects = True
        self._waits = False

    # -- opening -------------------------------------------------------------------------------

    @classmethod
    def init(cls, home: Path | str | None = None, *, settings: Settings | None = None) -> Registry:
        """Create a registry in ``home`` (default: ``.circuits`` in this folder) and open it.

        A registry that is there already is opened, and brought up to date.
        """
        settings = settings or load_settings(create_home(home))
        migrate_ledger(settings.ledger)
        registry = cls.open(settings=settings)
        registry._sync_or_warn()
        return registry

    @classmethod
    def open(cls, home: Path | str | None = None, *, settings: Settings | None = None) -> Registry:
        """Open the registry in ``home``, or the nearest one above the current folder.

        Raises:
            RegistryNotFound: There is none; ``circuits init`` makes one.
            LedgerOutdated: Its ledger needs ``circuits migrate``.
        """
        settings = settings or load_settings(home)
        return cls(settings, open_ledger(settings.ledger), ArtifactStore(settings.artifacts))

    def close(self) -> None:
        """Release all stores; safe to repeat."""
        self._graph.close()
        self._ledger.close()

    # -- recording -----------------------------------------------------------------------------

    def record(self, *what: Batch | Record | NewCircuit) -> Recorded:
        """Record results, all or none, and project them into the graph.

        Give records one by one or a :class:`~registry.ledger.base.Batch`. A model or task that a
        circuit names and nobody described is added with its name alone. What is already there is
        not added again; a known circuit gains the new run as provenance.

        Returns:
            What was new.

        Raises:
            BadIdentifier: A part lies outside the model's shape.
            IncompatibleModel: The model's name belongs to other weights or another shape.
            NotFound: A record refers to a circuit, run, prompt set or edit that does not exist.
            BadInput: An edit is aimed at a circuit of another model.
        """
        batch = _merge(what)
        batch = self._with_models_and_tasks(batch)
        self._check_shapes(batch)
        self._check_targets(batch)
        for new in batch.circuits:
            self._artifacts.put(new.circuit.document)
        recorded = self._ledger.record(batch)
        self._sync_or_warn()
        return recorded

    def store_artifact(self, data: bytes) -> str:
        """Keep a file's content and return its address, the SHA-256 of ``data``."""
        return self._artifacts.put(data)

    def store_file(self, path: Path) -> str:
        """Keep a file's content without holding it in memory, and return its address."""
        return self._artifacts.put_file(path)

    def artifact(self, address: str) -> bytes:
        """Return an artifact's content, verified against its address."""
        return self._artifacts.get(address)

    def has_artifact(self, address: str) -> bool:
        """Whether an artifact of that address is kept."""
        return self._artifacts.exists(address)

    def attach_edit(self, edit: Edit, outcomes: Iterable[Outcome] = ()) -> str:
        """Record an edit with what was measured after it, and return the edit's id.

        ``Outcome.edit`` may be any id; it is set to this edit's.
        """
        attached = tuple(outcome.model_copy(update={"edit": edit.id}) for outcome in outcomes)
        self.record(edit, *attached)
        return edit.id

    # -- labels --------------------------------------------------------------------------------

    def tag(self, prefix: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Add and remove tags of a circuit; both are harmless to repeat."""
        added, removed = set(add), set(remove)
        CircuitLabels(tags=tuple(added))  # refuses what cannot be tags
        self._relabel(
            self._ledger.circuit(prefix),
            lambda old: {"tags": tuple(sorted((set(old.tags) | added) - removed))},
        )

    def note(self, prefix: str, text: str) -> None:
        """Append a note to a circuit."""
        CircuitLabels(notes=(text,))
        entry = self._ledger.circuit(prefix)
        self._relabel(entry, lambda old: {"notes": (*old.notes, text)})

    def retract(self, prefix: str, *, reason: str, superseded_by: str | None = None) -> None:
        """Mark a circuit as no longer held true; it leaves the graph, not the ledger.

        With ``superseded_by`` it counts as superseded by a newer circuit of the same task.

        Raises:
            BadInput: No reason is given, or a circuit would supersede itself.
        """
        if not reason.strip():
            raise BadInput("a retraction needs a reason: what was wrong with the circuit")
        CircuitLabels(reason=reason)
        entry = self._ledger.circuit(prefix)
        newer = self._ledger.circuit(superseded_by).id if superseded_by else None
        if newer == entry.id:
            raise BadInput("a circuit cannot supersede itself; name the newer one")
        state = CircuitState.SUPERSEDED if newer else CircuitState.RETRACTED
        changes: dict[str, Any] = {"state": state, "reason": reason, "superseded_by": newer}
        self._relabel(entry, lambda _: changes)

    def _relabel(
        self, entry: CircuitEntry, change: Callable[[CircuitLabels], dict[str, Any]]
    ) -> None:
        while True:
            old = entry.labels
            labels = CircuitLabels.model_validate(old.model_dump() | change(old), context=STORED)
            if labels == old:
                return
            if self._ledger.relabel(entry.id, labels, expected=old):
                break
            entry = self._ledger.circuit(entry.id)  # somebody else was quicker
        self._sync_or_warn()

    # -- reading the record --------------------------------------------------------------------

    def circuits(self, which: CircuitFilter | None = None, **filters: Any) -> list[CircuitEntry]:
        """List stored circuits, newest first: ``circuits(task="ioi", tag="final")``."""
        which = replace(which or CircuitFilter(), **filters)
        if which.model is not None:
            which = replace(which, model=known_model(self._ledger, which.model))
        if which.task is not None:
            which = replace(which, task=known_task(self._ledger, which.task, or_family=True))
        return list(self._ledger.circuits(which))

    def circuit(self, prefix: str) -> StoredCircuit:
        """Return the circuit whose id starts with ``prefix``."""
        entry = self._ledger.circuit(prefix)
        return StoredCircuit(entry, self.document(entry.id), self._ledger.evaluations(entry.id))

    def document(self, circuit: str) -> Circuit:
        """Read a circuit's content from its artifact, by full id."""
        return read_circuit(self._artifacts.get(circuit), stored=True)

    def edits(self) -> list[Edit]:
        """All edits, oldest first."""
        return list(self._ledger.edits())

    def edit(self, prefix: str) -> Edit:
        """The edit whose id starts with ``prefix``."""
        return self._ledger.edit(prefix)

    def outcomes(self, edit: str) -> list[Outcome]:
        """What was measured after an edit, by its full id."""
        return list(self._ledger.outcomes(edit))

    @property
    def ledger(self) -> Ledger:
        """The record; for reading. Writing goes through this class."""
        return self._ledger

    @property
    def settings(self) -> Settings:
        """Where the stores are."""
        return self._settings

    # -- reading the graph ---------------------------------------------------------------------

    def query(self, name: str, /, **parameters: Any) -> Rows:
        """Answer a named query; ``circuits query`` lists them.

        Raises:
            NotFound: No query, model, task, circuit or edit goes by that name.
            BadInput: A parameter is missing, unknown or of another type; it is named.
            GraphError: The graph cannot be read.
        """
        catalogue = load_catalogue()
        if name not in catalogue:
            raise NotFound("query", name, "known: " + ", ".join(sorted(catalogue)))
        query = catalogue[name]
        bound = bind(query, parameters, resolve=resolvers(self._ledger))
        return self._graph.read(
            query.text, bound, timeout_seconds=_QUERY_TIMEOUT_SECONDS, max_rows=_MAX_ROWS
        )

    def cypher(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float = _QUERY_TIMEOUT_SECONDS,
        max_rows: int = _MAX_ROWS,
    ) -> Rows:
        """Answer a Cypher statement of the user's own, which can read the graph and nothing else.

        Raises:
            BadInput: ``timeout_seconds`` or ``max_rows`` is no limit.
            QueryFailed: It is not accepted: syntax, an attempt to write or to load a file.
            QueryTimeout: It ran longer than ``timeout_seconds`` and was stopped.
        """
        if not 0 < timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise BadInput(
                f"a query's time limit lies between 0 and {_LONGEST_TIMEOUT_SECONDS:,} seconds,"
                f" not at {timeout_seconds}"
            )
        if max_rows < 1:
            raise BadInput(f"a query's limit of rows is at least 1, not {max_rows}")
        return self._graph.read(
            text, parameters, timeout_seconds=timeout_seconds, max_rows=max_rows
        )

    # -- projecting ----------------------------------------------------------------------------

    def sync(self, *, progress: Progress | None = None) -> int:
        """Project what is pending into the graph and return how many changes that were.

        Raises:
            GraphError: The graph cannot be written; everything stays pending.
        """
        return self._graph.sync(progress)

    def rebuild(self, *, progress: Progress | None = None) -> int:
        """Empty the graph and make it again from the ledger; returns how many changes that were.

        Killed at any point, the next :meth:`sync` finishes it.
        """
        return self._graph.rebuild(progress)

    @contextmanager
    def projecting_later(self) -> Iterator[None]:
        """Project what is recorded within at the end, all at once; for hundreds of records.

        Killed before that, the next :meth:`sync` finishes it. Where nothing was recorded, nothing
        is projected; one within another leaves it to the outer one.
        """
        before, self._projects = self._projects, False
        try:
            yield
        finally:
            self._projects = before
            if self._waits:
                self._sync_or_warn()

    def _sync_or_warn(self) -> None:
        self._waits = not self._projects
        if self._projects:
            self._project_or_warn(self.sync)

    def _project_or_warn(self, work: Callable[[], int]) -> None:
        try:
            work()
        except CircuitsError as error:  # the record is committed, and nothing here undoes it
            log.warning("recorded; projection into the graph is pending: %s", error)

    # -- upkeep --------------------------------------------------------------------------------

    @classmethod
    def migrate(cls, settings: Settings, *, check_only: bool = False) -> tuple[str, ...]:
        """Bring the ledger's schema up to date, or only say which revisions are pending."""
        return migrate_ledger(settings.ledger, check=check_only)

    def status(self) -> Status:
        """Say what the registry holds and how its stores are."""
        ledger = self._ledger
        entries = ledger.circuits()
        runs: dict[str, int] = {}
        for run in ledger.runs():
            runs[str(run.status)] = runs.get(str(run.status), 0) + 1
        return Status(
            registry_id=ledger.registry_id,
            home=self._settings.home,
            stores=self._settings.describe(),
            counts={
                "models": len(ledger.models()),
                "tasks": len(ledger.tasks()),
                "prompt sets": len(ledger.prompt_sets()),
                "circuits": len(entries),
                "evaluations": len(ledger.evaluations()),
                "edits": len(ledger.edits()),
            },
            pending=ledger.pending_count(),
            graph=self._graph.state(),
            runs=runs,
        )

    def backup(self, path: Path | str) -> backups.BackupReport:
        """Write ledger and artifacts into one file; other processes may record meanwhile."""
        return backups.write(Path(path), self._ledger, self._artifacts)

    @classmethod
    def restore(
        cls,
        path: Path | str,
        home: Path | str | None = None,
        *,
        settings: Settings | None = None,
    ) -> Registry:
        """Fill a new registry from a backup, project it and return it open.

        Raises:
            BadInput: The file is no backup, or damaged.
            LedgerError: The registry there already holds records.
        """
        with backups.opened(Path(path)) as backup:
            settings = settings or load_settings(create_home(home))
            migrate_ledger(settings.ledger)
            registry = cls.open(settings=settings)
            try:
                backups.load(backup, registry._ledger, registry._artifacts)
            except BaseException:
                registry.close()
                raise
        # The graph may be there already, with what was recorded after the backup.
        registry._project_or_warn(registry.rebuild)
        return registry

    def gc(self, *, apply: bool = False, grace_seconds: float = 3600.0) -> backups.Garbage:
        """Find artifacts that no record refers to, and delete them if ``apply``.

        Files younger than ``grace_seconds`` are left alone: another process may be about to
        record what refers to them.
        """
        return backups.collect_garbage(
            self._ledger, self._artifacts, apply=apply, grace_seconds=grace_seconds
        )

    # -- completing and checking what is recorded ----------------------------------------------

    def _with_models_and_tasks(self, batch: Batch) -> Batch:
        named = [new.circuit for new in batch.circuits]
        models = {model.slug for model in (*self._ledger.models(), *batch.models)}
        tasks = {task.slug for task in (*self._ledger.tasks(), *batch.tasks)}
        new_models = {c.model for c in named} | {edit.model for edit in batch.edits}
        new_tasks = {c.task for c in named} | {e.task for e in batch.evaluations}
        new_tasks |= {outcome.task for outcome in batch.outcomes if outcome.task}
        return replace(
            batch,
            models=(*batch.models, *(Model(slug=slug) for slug in sorted(new_models - models))),
            tasks=(*batch.tasks, *(_bare_task(slug) for slug in sorted(new_tasks - tasks))),
        )

    def _check_shapes(self, batch: Batch) -> None:
        models: dict[str, Model] = {}
        for model in (*self._ledger.models(), *batch.models):
            known = models.get(model.slug)
            models[model.slug] = merge_models(known, model) if known else model
        for new in batch.circuits:
            names = (node.component for node in new.circuit.nodes)
            check_components(models[new.circuit.model], names)
        for edit in batch.edits:
            check_components(models[edit.model], edit.components)

    def _check_targets(self, batch: Batch) -> None:
        models = (
            {new.circuit.id: new.circuit.model for new in batch.circuits} if batch.edits else {}
        )
        for edit in batch.edits:
            for target in edit.circuits:
                model = models.get(target) or self._ledger.circuit(target).model
                if model != edit.model:
                    raise BadInput(
                        f"the edit changes {edit.model}, but circuit {target[:12]} was found in"
                        f" {model}; an edit touches circuits of its own model"
                    )


def _merge(what: Iterable[Batch | Record | NewCircuit]) -> Batch:
    batches = [item for item in what if isinstance(item, Batch)]
    loose = Batch.of(*(item for item in what if not isinstance(item, Batch)))
    merged = loose
    for batch in batches:
        merged = Batch(
            **{
                name: _joined(getattr(merged, name), getattr(batch, name))
                for name in Batch.__dataclass_fields__
            }
        )
    return merged


def _joined(first: Any, second: Any) -> Any:
    return {**first, **second} if isinstance(first, Mapping) else (*first, *second)


def _bare_task(slug: str) -> Task:
    return Task(slug=slug, family=slug.partition("/")[0])
