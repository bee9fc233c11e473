"""The registry itself: one record, its artifacts, and the graph made from both.

:class:`Registry` alone writes to more than one store, always in this order: artifacts, then one
ledger transaction that makes a revision, then the projection of what it changed into the graph.
A crash at any point leaves nothing visible, or a graph that says it is behind, which the next
:meth:`Registry.sync` brings up to date. The graph is opened for writing only while projecting, and
whatever is wrong with it never stops recording.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from registry import backup as backups
from registry.artifacts import ArtifactStore
from registry.attributions import LogitAttribution, PatchAttribution
from registry.catalogue import bind, load_catalogue
from registry.closing import Closing
from registry.damage import Damage, damaged, mend
from registry.documents import read_circuit
from registry.errors import (
    BadInput,
    CircuitsError,
    GraphError,
    LedgerError,
    NotFound,
    StoreRefused,
)
from registry.file_urls import url_path
from registry.findings import Description, FoundCircuit, as_records
from registry.graph.schema import PutAside
from registry.ledger.base import (
    Batch,
    CircuitEntry,
    CircuitFilter,
    Ledger,
    NewCircuit,
    Recorded,
    Revision,
)
from registry.ledger.merging import merge_models
from registry.ledger.sql import is_set_up, migrate_ledger, open_ledger
from registry.limits import STORED
from registry.names import known_model, known_task, resolvers
from registry.records import (
    Circuit,
    CircuitLabels,
    CircuitState,
    Edit,
    Model,
    Outcome,
    Record,
    Task,
)
from registry.rows import Rows
from registry.settings import Settings, create_home, load_settings
from registry.shapes import check_components
from registry.stored import StoredCircuit
from registry.syncing import GraphAccess, Progress, refuse_graph_in_use

__all__ = ["Registry", "Status", "StoredCircuit"]

log = logging.getLogger(__name__)

_QUERY_TIMEOUT_SECONDS = 60.0
_LONGEST_TIMEOUT_SECONDS = 86_400
_MAX_ROWS = 100_000
_QUERY_MEMORY_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Status:
    """How a registry stands.

    Attributes:
        stores: What each store is and where, without secrets.
        counts: Records of each kind.
        pending: Changes that are not yet in the graph.
        graph: ``ready``, or why the graph cannot be read.
        put_aside: Records that the graph could not take, with the reasons.
        sync_helps: Whether ``circuits sync`` can mend a graph that cannot be read.
        runs: Runs by status.
    """

    registry_id: str
    home: Path
    stores: Mapping[str, str]
    counts: Mapping[str, int]
    pending: int
    graph: str
    put_aside: tuple[PutAside, ...]
    sync_helps: bool
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
        cls.migrate(settings)
        registry = cls.open(settings=settings)
        try:
            registry._artifacts.mark()
        except BaseException:
            registry.close()
            raise
        registry._sync_or_warn()
        return registry

    @classmethod
    def open(cls, home: Path | str | None = None, *, settings: Settings | None = None) -> Registry:
        """Open the registry in ``home``, or the nearest one above the current folder.

        Raises:
            RegistryNotFound: There is none; ``circuits init`` makes one.
            LedgerOutdated: Its ledger needs ``circuits migrate``.
            LedgerError: It cannot be opened; the text says if it was lost and its artifacts are
                still there.
        """
        settings = settings or load_settings(home)
        artifacts = ArtifactStore(settings.artifacts)
        try:
            ledger = open_ledger(settings.ledger)
        except LedgerError:
            _refuse_lost_ledger(settings)
            raise
        artifacts.claim(ledger.registry_id, ledger.instance, settings.ledger_in_mark())
        return cls(settings, ledger, artifacts)

    def close(self) -> None:
        """Release all stores; safe to repeat."""
        self._graph.close()
        self._ledger.close()

    # -- recording -----------------------------------------------------------------------------

    def record(
        self,
        *what: Batch | Record | NewCircuit | FoundCircuit | LogitAttribution | PatchAttribution,
        **description: Unpack[Description],
    ) -> Recorded:
        """Record results, all or none, and project them into the graph.

        Give records one by one or a :class:`~registry.ledger.base.Batch`; or what discovery found,
        with its task: ``record(scores.top(500), task="ioi", title="Name movers")``; or what
        TransformerLens' ``direct_logit_attribution`` or ``attribution_patch`` returned, with its
        task and model (:mod:`registry.attributions`). A model or task
        that a circuit names and nobody described is added with its name alone. What is already
        there is not added again; a known circuit gains the new run as provenance.

        Args:
            what: Records, batches, circuits of ``ingest.discovery``, attributions.
            description: Of these circuits; see :class:`~registry.findings.Description`.

        Returns:
            What was new.

        Raises:
            BadIdentifier: A part lies outside the model's shape.
            IncompatibleModel: The model's name belongs to other weights or another shape.
            NotFound: A record refers to a circuit, run, prompt set or edit that does not exist.
            BadInput: An edit is aimed at a circuit of another model, or a circuit that was found is
                not described as it has to be.
        """
        described = as_records(what, description)
        batch = _merge(described.records)
        known = self._ledger.models()
        batch = self._with_models_and_tasks(batch, known)
        _check_shapes(batch, known)
        self._check_targets(batch)
        for data in (*described.artifacts, *(new.circuit.document for new in batch.circuits)):
            self._artifacts.put(data)
        recorded = self._ledger.record(batch)
        self._sync_or_warn(verify=not recorded.anything)
        return recorded

    def store_artifact(self, data: bytes) -> str:
        """Keep a file's content and return its address, the SHA-256 of ``data``."""
        return self._artifacts.put(data)

    def store_file(self, path: Path) -> str:
        """Keep a file's content without holding it in memory, and return its address."""
        return self._artifacts.put_file(path)

    def store_files(self, paths: Sequence[Path]) -> list[str]:
        """Keep the contents of many files, several at a time, and return their addresses."""
        return self._artifacts.put_files(paths)

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
        added, removed = tuple(add), set(remove)
        CircuitLabels(tags=added)  # refuses what cannot be tags
        self._relabel(
            self._ledger.circuit(prefix),
            lambda old: {"tags": tuple(sorted({*old.tags, *added} - removed))},
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
        self._sync_or_warn(verify=False)

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
        return query.checked(self.cypher(query.text, bound))

    def cypher(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float = _QUERY_TIMEOUT_SECONDS,
        max_rows: int = _MAX_ROWS,
        memory_bytes: int = _QUERY_MEMORY_BYTES,
    ) -> Rows:
        """Answer a Cypher statement of the user's own, which can read the graph and nothing else.

        Args:
            text: The statement.
            parameters: Values for its ``$names``.
            timeout_seconds: It ends after that, the server's answer included; it is not repeated.
            max_rows: Further rows are left out, and ``Rows.truncated`` is set.
            memory_bytes: What it and its answer may take on this machine, beside the graph.

        Raises:
            BadInput: A limit is none.
            QueryFailed: It is not accepted: syntax, an attempt to write or to load a file.
            QueryTimeout: It ran longer than ``timeout_seconds`` and was stopped.
            QueryTooLarge: It took more memory than it may, here or on the server.
        """
        if not 0 < timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise BadInput(
                f"a query's time limit lies between 0 and {_LONGEST_TIMEOUT_SECONDS:,} seconds,"
                f" not at {timeout_seconds}"
            )
        if max_rows < 1:
            raise BadInput(f"a query's limit of rows is at least 1, not {max_rows}")
        if memory_bytes < 1:
            raise BadInput(f"a query's limit of memory is at least a byte, not {memory_bytes}")
        return self._graph.read(
            text,
            parameters,
            timeout_seconds=timeout_seconds,
            max_rows=max_rows,
            memory_bytes=memory_bytes,
        )

    def graph_limits(self) -> Mapping[str, str]:
        """Settings by which the graph's server limits what a statement may take of it.

        By the server's names; empty for an embedded graph, and where the server keeps them secret.

        Raises:
            GraphError: The graph cannot be read.
        """
        return self._graph.limits()

    # -- projecting ----------------------------------------------------------------------------

    def sync(self, *, progress: Progress | None = None) -> int:
        """Project what is pending into the graph and return how many changes that were.

        Raises:
            GraphError: The graph cannot be written; everything stays pending.
        """
        return self._graph.sync(progress)

    def rebuild(self, *, progress: Progress | None = None, overwrite: bool = False) -> int:
        """Empty the graph and make it again from the ledger; returns how many changes that were.

        Killed at any point, an embedded graph is what it was before, and that of a server is
        finished by the next :meth:`sync`; readers are told meanwhile.

        Args:
            progress: Told how far it is.
            overwrite: Also a graph that was made from another copy of this registry.

        Raises:
            GraphRefused: The graph is another registry's, or another copy's without ``overwrite``.
        """
        return self._graph.rebuild(progress, overwrite=overwrite)

    def put_aside(self) -> tuple[PutAside, ...]:
        """Records that the graph could not take, with the reasons; none if it cannot be read."""
        return self._graph.standing().put_aside

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

    def _sync_or_warn(self, *, verify: bool = True) -> None:
        """Project; without ``verify``, another process's word that it did so is enough."""
        self._waits = not self._projects
        if self._projects:
            self._project_or_warn(lambda: self._graph.sync(verify=verify))

    def _project_or_warn(self, work: Callable[[], int]) -> None:
        try:
            work()
        except CircuitsError as error:  # the record is committed, and nothing here undoes it
            log.warning("recorded; projection into the graph is pending: %s", error)

    # -- upkeep --------------------------------------------------------------------------------

    @classmethod
    def migrate(cls, settings: Settings, *, check_only: bool = False) -> tuple[str, ...]:
        """Bring the ledger's schema up to date, or only say which revisions are pending.

        Artifacts of a registry that was made before stores were marked get their mark.

        Raises:
            LedgerError: There is no ledger, but artifacts are there: it was lost.
        """
        if not is_set_up(settings.ledger):
            _refuse_lost_ledger(settings)
        applied = migrate_ledger(settings.ledger, check=check_only)
        if not check_only:
            with cls.open(settings=settings) as registry:
                registry._artifacts.adopt(registry._ledger.artifacts)
        return applied

    def status(self) -> Status:
        """Say what the registry holds and how its stores are."""
        ledger, graph = self._ledger, self._graph.standing()
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
            pending=graph.pending,
            graph=graph.state,
            put_aside=graph.put_aside,
            sync_helps=graph.sync_helps,
            runs=runs,
        )

    def backup(self, path: Path | str, *, skip_damaged: bool = False) -> backups.BackupReport:
        """Write ledger and artifacts into one file; other processes may record meanwhile.

        Raises:
            BadInput: The file exists already.
            LedgerError: The ledger's database is damaged.
            StorageError: It cannot be written; or an artifact is missing or damaged, unless
                ``skip_damaged`` leaves such out, which the report names.
        """
        return backups.write(Path(path), self._ledger, self._artifacts, skip_damaged=skip_damaged)

    @classmethod
    def restore(
        cls,
        path: Path | str,
        home: Path | str | None = None,
        *,
        settings: Settings | None = None,
        overwrite_graph: bool = False,
    ) -> Registry:
        """Fill a new registry from a backup, project it and return it open.

        A restore that was killed after its records were in goes on where it was; repeated, it puts
        back artifacts that were lost since.

        Args:
            path: The backup.
            home: Folder of the new registry.
            settings: Its settings, instead of ``home``.
            overwrite_graph: Empty the graph, if it is one of this registry.

        Raises:
            BadInput: The file is no backup, or damaged.
            GraphRefused: The graph is not empty.
            StoreRefused: The artifact store is another registry's.
            LedgerError: The registry there already holds other records.
        """
        with backups.opened(Path(path)) as backup:
            settings = settings or load_settings(create_home(home))
            registry = cls._restored_before(settings, backup)
            if registry is None:
                if not overwrite_graph:
                    refuse_graph_in_use(settings)
                registry = cls._filled(settings, backup)
            else:
                backups.load_artifacts(backup, registry._artifacts)
        if overwrite_graph:
            # The graph may be there already, with what was recorded after the backup.
            registry._project_or_warn(lambda: registry.rebuild(overwrite=True))
        else:
            registry._project_or_warn(registry.sync)
        return registry

    @classmethod
    def _restored_before(cls, settings: Settings, backup: backups.Backup) -> Registry | None:
        """The registry that this very backup was restored into, if there is one."""
        if not is_set_up(settings.ledger):
            return None
        migrate_ledger(settings.ledger)
        registry = cls.open(settings=settings)
        if registry._ledger.restored_from == backup.digest:
            return registry
        is_empty = registry._ledger.revision() == Revision()
        if is_empty:  # as a restore that was broken off leaves it
            registry._graph.set_aside_if_empty()
        registry.close()
        if not is_empty:
            raise LedgerError(
                f"{settings.describe()['ledger']} holds records already; restore into a new folder,"
                " or name a new ledger by --ledger"
            )
        return None

    @classmethod
    def _filled(cls, settings: Settings, backup: backups.Backup) -> Registry:
        artifacts = ArtifactStore(settings.artifacts)
        artifacts.claim(backup.registry, "")
        artifacts.verify(backup.artifacts)  # before anything is made
        cls._require_loadable(backup)
        migrate_ledger(settings.ledger)
        registry = cls.open(settings=settings)
        try:
            ledger = registry._ledger
            where = settings.ledger_in_mark()
            registry._artifacts.claim(backup.registry, ledger.instance, where)
            registry._artifacts.adopt(backup.artifacts)
            backups.load_artifacts(backup, registry._artifacts)
            backups.load_ledger(backup, registry._ledger)
        except BaseException:
            registry.close()
            raise
        return registry

    @staticmethod
    def _require_loadable(backup: backups.Backup) -> None:
        """Load a backup's rows where it does no harm, and refuse one that lacks what they need."""
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{url_path(Path(folder) / 'ledger.sqlite')}"
            migrate_ledger(url)
            with open_ledger(url) as ledger:
                backups.load_ledger(backup, ledger)
                lacking = ledger.artifacts() - backup.artifacts() - {*backup.left_out}
        if lacking:
            raise BadInput(
                f"the backup is not whole: it lacks {len(lacking)} artifacts that its records name,"
                f" such as {min(lacking)[:12]}"
            )

    def gc(
        self, *, apply: bool = False, grace_seconds: float = 3600.0, sole_copy: bool = False
    ) -> backups.Garbage:
        """Find artifacts that no record refers to, and delete them if ``apply``.

        Files younger than ``grace_seconds`` are left alone: another process may be about to
        record what refers to them.

        Raises:
            StoreRefused: The artifacts are another registry's; or another copy of this one keeps
                files among them, unless ``sole_copy`` says that it is gone.
            GraphError: With ``apply``: the graph, which tells whether the ledger was put back to an
                older state, cannot be read; unless ``sole_copy``.
        """
        if apply and not sole_copy:
            self._refuse_older_state()
        return backups.collect_garbage(
            self._ledger,
            self._artifacts,
            apply=apply,
            grace_seconds=grace_seconds,
            sole_copy=sole_copy,
        )

    def _refuse_older_state(self) -> None:
        """Refuse to delete what a ledger that was put back to an older state knows nothing of."""
        try:
            is_ahead = self._graph.is_ahead()
        except GraphError as error:
            raise GraphError(
                f"{error}. Nothing was deleted, as the graph tells whether the ledger was put back"
                " to an older state; --sole-copy says that it was not"
            ) from error
        if is_ahead:
            raise StoreRefused(
                "the graph holds revisions that the ledger does not have: it was put back to an"
                " older state, and what was recorded since would be deleted. 'circuits sync' makes"
                " the graph again if that is meant to be; nothing was deleted"
            )

    def damage(self, *, sample: int | None = None) -> list[Damage]:
        """Check artifacts that records refer to, and say what is missing or damaged.

        Args:
            sample: Read so many, chosen at random, and only look whether the others are there;
                None reads all.
        """
        return list(damaged(self._ledger, self._artifacts, sample=sample))

    def mend(self, *sources: Path | str) -> tuple[tuple[Damage, ...], tuple[Damage, ...]]:
        """Put back missing and damaged artifacts from backups, bundles, originals or folders.

        Returns:
            What was mended, and what still is damaged.

        Raises:
            BadInput: A source does not exist; one that cannot be read is told in the log.
        """
        mended = mend(self._ledger, self._artifacts, [Path(source) for source in sources])
        self._sync_or_warn()
        return mended

    # -- completing and checking what is recorded ----------------------------------------------

    def _with_models_and_tasks(self, batch: Batch, known: Sequence[Model]) -> Batch:
        named = [new.circuit for new in batch.circuits]
        models = {model.slug for model in (*known, *batch.models)}
        tasks = {task.slug for task in (*self._ledger.tasks(), *batch.tasks)}
        new_models = {c.model for c in named} | {edit.model for edit in batch.edits}
        new_tasks = {c.task for c in named} | {e.task for e in batch.evaluations}
        new_tasks |= {outcome.task for outcome in batch.outcomes if outcome.task}
        return replace(
            batch,
            models=(*batch.models, *(Model(slug=slug) for slug in sorted(new_models - models))),
            tasks=(*batch.tasks, *(_bare_task(slug) for slug in sorted(new_tasks - tasks))),
        )

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


def _refuse_lost_ledger(settings: Settings) -> None:
    """Tell a registry whose ledger was lost from one that was never made.

    Raises:
        LedgerError: There is no ledger, but artifacts of one.
    """
    if is_set_up(settings.ledger):
        return
    artifacts = ArtifactStore(settings.artifacts)
    if artifacts.holds_anything():
        owner = artifacts.owner()
        whose = f" of registry {owner.registry[:12]}" if owner is not None else ""
        where = settings.describe()
        raise LedgerError(
            f"there is no ledger at {where['ledger']}, but artifacts{whose} are in"
            f" {where['artifacts']}: put the ledger back, or restore a backup with 'circuits"
            " restore FILE'; a new registry needs artifacts of its own, see --artifacts"
        )


def _check_shapes(batch: Batch, known: Sequence[Model]) -> None:
    models: dict[str, Model] = {}
    for model in (*known, *batch.models):
        before = models.get(model.slug)
        models[model.slug] = merge_models(before, model) if before else model
    for new in batch.circuits:
        names = (node.component for node in new.circuit.nodes)
        check_components(models[new.circuit.model], names)
    for edit in batch.edits:
        check_components(models[edit.model], edit.components)


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
