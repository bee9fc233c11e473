"""The registry itself: one record, its artifacts, and the graph made from both.

Only :class:`Registry` writes to more than one store, always in this order: artifacts, then one
ledger transaction that makes a revision, then the projection of its changes into the graph. A crash
at any point leaves nothing visible, or a graph that reports that it is out of date; the next
:meth:`Registry.sync` updates it. The graph is opened for writing only while projecting, and its
problems never stop recording.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Unpack

from registry.catalogue import bind, find_query
from registry.circuits.annotations import check_nodes, full_run_id, node_of
from registry.circuits.attributions import LogitAttribution, PatchAttribution, is_attribution
from registry.circuits.findings import Description, FoundCircuit, as_records
from registry.circuits.stored import StoredCircuit
from registry.closing import Closing
from registry.errors import (
    BadInput,
    CircuitsError,
    GraphError,
    LedgerError,
    NotFound,
    StoreRefused,
)
from registry.files.artifacts import ArtifactStore, FilesBeingPut
from registry.files.attachments import StoredAttachment, described, stored_source
from registry.files.documents import read_circuit
from registry.graph.schema import PutAside
from registry.ledger.base import (
    Batch,
    CircuitEntry,
    CircuitFilter,
    Ledger,
    NewCircuit,
    Page,
    Recorded,
    Revision,
)
from registry.ledger.merging import merge_models
from registry.ledger.sql import is_set_up, migrate_ledger, open_ledger
from registry.limits import STORED
from registry.lives import interrupt_dead_runs
from registry.models.known_models import common_model
from registry.models.shapes import check_components
from registry.names import known_model, known_task, resolvers
from registry.progress import OnProgress
from registry.records import (
    Annotation,
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
from registry.settings.file_urls import url_path
from registry.settings.local import Settings, create_home, load_settings
from registry.texts.nouns import counted
from registry.upkeep.syncing import GraphAccess, refuse_graph_in_use

if TYPE_CHECKING:
    from registry.upkeep import backup as backups
    from registry.upkeep.damage import Damage

__all__ = ["Registry", "Status", "StoredCircuit"]

log = logging.getLogger(__name__)

_QUERY_TIMEOUT_SECONDS = 60.0
_LONGEST_TIMEOUT_SECONDS = 86_400
_MAX_ROWS = 100_000
_QUERY_MEMORY_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a registry.

    Attributes:
        stores: Kind and place of each store, without secrets.
        counts: Records of each kind.
        pending: Changes that are not yet in the graph.
        graph: ``ready``, or the reason why the graph cannot be read.
        put_aside: Records that the graph could not accept, with the reasons.
        sync_helps: Whether ``circuits sync`` can repair a graph that cannot be read.
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

        An existing registry is opened and brought up to date.
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
        """Open the registry in ``home``, or the nearest registry above the current folder.

        Raises:
            RegistryNotFound: There is none; ``circuits init`` makes one.
            LedgerOutdated: Its ledger needs ``circuits migrate``.
            LedgerError: It cannot be opened; the message states if the ledger was lost and its
                artifacts still exist.
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

        ``what`` can be single records or a :class:`~registry.ledger.base.Batch`. It can be a result
        of discovery with its task: ``record(scores.top(500), task="ioi", title="Name movers")``. Or
        it can be a result of TransformerLens' ``direct_logit_attribution`` or
        ``attribution_patch``, with its task and model (:mod:`registry.circuits.attributions`). If a
        circuit names a model or task without a description, only its name is added. Existing
        records are not added again; an existing circuit gains the new run as provenance.

        Args:
            what: Records, batches, circuits of ``ingest.discovery``, attributions.
            description: Facts about these circuits; see
                :class:`~registry.circuits.findings.Description`.

        Returns:
            The new records.

        Raises:
            BadIdentifier: A part is outside the model's shape.
            IncompatibleModel: The model's name belongs to other weights or another shape.
            NotFound: A record refers to a circuit, run, prompt set or edit that does not exist, or
                an attachment to an artifact that is not stored.
            BadInput: An edit targets a circuit of another model, or the description of a found
                circuit is not valid.
        """
        described = as_records(what, description)
        common = any(map(is_attribution, what))
        batch = self._completed(_merge(described.records), common=common)
        for data in described.artifacts:
            self._artifacts.put(data)
        recorded = self._ledger.record(batch)
        self._sync_or_warn(verify=not recorded.anything)
        return recorded

    def record_at(self, revision: Revision, batch: Batch) -> Recorded | None:
        """Record a batch that depends on the state of the ledger at a revision.

        Args:
            revision: From :meth:`Ledger.revision <registry.ledger.base.Ledger.revision>`, read
                before any look-up.
            batch: Records; errors are those of :meth:`record`.

        Returns:
            The new records. None if something else was recorded meanwhile: then nothing was
            recorded, and the batch must be made again.
        """
        recorded = self._ledger.record_at(revision, self._completed(batch))
        if recorded is not None:
            self._sync_or_warn(verify=not recorded.anything)
        return recorded

    def _completed(self, batch: Batch, *, common: bool = False) -> Batch:
        """A checked batch with all models and tasks that it names; its documents are stored."""
        known = self._ledger.models()
        batch = self._with_models_and_tasks(batch, known)
        _check_shapes(batch, known, common=common)
        self._check_targets(batch)
        for one in batch.attachments:
            if not self._artifacts.exists(one.sha256):
                hint = f"store the content of {one.name!r} first, or use 'attach'"
                raise NotFound("artifact", one.sha256, hint)
        self._check_annotated(batch)
        for new in batch.circuits:
            self._artifacts.put(new.circuit.document)
        return batch

    def store_artifact(self, data: bytes) -> str:
        """Store a file's content and return its address, the SHA-256 of ``data``."""
        return self._artifacts.put(data)

    def store_file(self, path: Path) -> str:
        """Store a file's content without holding it in memory, and return its address."""
        return self._artifacts.put_file(path)

    def store_pieces(self, address: str, pieces: Iterable[bytes]) -> None:
        """Store a content that arrives in pieces, under the address that it must have."""
        self._artifacts.put_pieces(address, pieces)

    def storing_files(self) -> FilesBeingPut:
        """Store the contents of many files in the background, several at a time."""
        return self._artifacts.putting_files()

    def artifact(self, address: str) -> bytes:
        """Return an artifact's content, verified against its address."""
        return self._artifacts.get(address)

    def open_artifact(self, address: str) -> AbstractContextManager[IO[bytes]]:
        """Check an artifact piece by piece, then open it for reading; for large artifacts."""
        return self._artifacts.open(address)

    def has_artifact(self, address: str) -> bool:
        """Whether an artifact of that address is stored."""
        return self._artifacts.exists(address)

    def attach_edit(self, edit: Edit, outcomes: Iterable[Outcome] = ()) -> str:
        """Record an edit with its outcomes, and return the edit's id.

        ``Outcome.edit`` may be any id; it is set to this edit's.
        """
        attached = tuple(outcome.model_copy(update={"edit": edit.id}) for outcome in outcomes)
        self.record(edit, *attached)
        return edit.id

    def attach(
        self,
        owner: str,
        source: Path | str | IO[bytes],
        *,
        name: str | None = None,
        media_type: str | None = None,
        says: str = "",
    ) -> StoredAttachment:
        """Store a named file of a circuit, run, edit or prompt set; repeating changes nothing.

        Args:
            owner: Id of the circuit, run, edit or prompt set, or its first digits.
            source: Path of a file, or a file open for reading bytes; it is copied piece by piece.
            name: A plain file name, unique within the owner; by default the file's own.
            media_type: ``image/png``, ...; by default from the ending of the name.
            says: Description in one line.

        Returns:
            The attachment. If it already existed, it has its first description.

        Raises:
            NotFound: No circuit, run, edit or prompt set has that id.
            BadInput: The name is not a plain file name, or the owner has another file of that name;
                the source is not a file, or the description is too long.
            StorageError: The content cannot be read or stored.
        """
        found = self._ledger.owner(owner)
        said = described(found, source, name=name, media_type=media_type, says=says)
        address, size = stored_source(self._artifacts, source)
        new = said.model_copy(update={"sha256": address, "size_bytes": size})
        self._ledger.record(Batch(attachments=[new]))  # no graph shows attachments
        return next(one for one in self.attachments(found[1]) if one.name == new.name)

    # -- labels --------------------------------------------------------------------------------

    def tag(self, prefix: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Add and remove tags of a circuit; repeating either changes nothing."""
        added, removed = tuple(add), set(remove)
        CircuitLabels(tags=added)  # refuses invalid tags
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
        """Mark a circuit as no longer valid; it is removed from the graph, not from the ledger.

        With ``superseded_by`` the circuit is superseded by a newer circuit of the same task.

        Raises:
            BadInput: No reason is given, or a circuit would supersede itself.
        """
        if not reason.strip():
            raise BadInput("a retraction needs a reason: what was wrong with the circuit")
        CircuitLabels(reason=reason)
        entry = self._ledger.circuit(prefix)
        newer = self._ledger.circuit(superseded_by).id if superseded_by else None
        if newer == entry.id:
            raise BadInput("a circuit cannot supersede itself; name the newer circuit")
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
            entry = self._ledger.circuit(entry.id)  # another process changed the labels first
        self._sync_or_warn(verify=False)

    # -- annotations ---------------------------------------------------------------------------

    def annotate(
        self,
        prefix: str,
        component: str,
        role: str,
        *,
        by: str,
        run: str | None = None,
        scores: Mapping[str, float] | None = None,
        also: bool = False,
    ) -> Annotation:
        """State the role of a component of a circuit, as a later study found it.

        It replaces earlier roles from the same source; roles from other sources stay. The circuit
        keeps its id, and the role in its content.

        Args:
            prefix: Id of the circuit, or its first digits.
            component: Local name (``a9.h6``), for all of its nodes, or a node (``a9.h6@END``).
            role: ``name mover``, ...
            by: Source: a person, a tool, a paper.
            run: Id of the run that found it, or its first digits.
            scores: Numbers that support it, by name.
            also: Keep earlier roles from the same source.

        Raises:
            NotFound: There is no such circuit or run, or the circuit has no such node.
            ValidationError: The role or source is empty, or a score is not a finite number.
        """
        stored = self.circuit(prefix)
        said = Annotation(
            circuit=stored.id,
            node=node_of(stored.circuit, component),
            role=role,
            said_by=by,
            run=None if run is None else full_run_id(self._ledger, run),
            scores=dict(scores or {}),
        )
        if self._ledger.annotate([said], also=also):
            self._sync_or_warn(verify=False)
        return said

    def take_back(self, prefix: str, component: str, *, by: str, role: str | None = None) -> int:
        """Remove roles that a source gave to a component: one role, or all of them.

        Returns:
            Number of removed annotations; 0 if the source gave no such role.

        Raises:
            NotFound: There is no such circuit, or it has no such node.
        """
        stored = self.circuit(prefix)
        node = node_of(stored.circuit, component)
        n_removed = self._ledger.take_back(stored.id, node, said_by=by, role=role)
        if n_removed:
            self._sync_or_warn(verify=False)
        return n_removed

    def annotations(self, prefix: str) -> list[Annotation]:
        """Annotations of a circuit's nodes, in the order in which they were recorded."""
        return list(self._ledger.annotations(self._ledger.circuit_id(prefix)))

    # -- reading the record --------------------------------------------------------------------

    def circuits(self, which: CircuitFilter | None = None, **filters: Any) -> list[CircuitEntry]:
        """List stored circuits, newest first: ``circuits(task="ioi", tag="final")``."""
        return list(self._ledger.circuits(self._named(which, filters)))

    def circuits_page(
        self,
        which: CircuitFilter | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
        **filters: Any,
    ) -> Page[CircuitEntry]:
        """Like :meth:`circuits`, in pages: pass a page's ``after`` to get the next page.

        Raises:
            BadInput: ``after`` is not a position in this list, or the limit is below 1.
        """
        which = self._named(which, filters)
        return self._ledger.circuits_page(which, limit=limit, after=after)

    def _named(self, which: CircuitFilter | None, filters: Mapping[str, Any]) -> CircuitFilter:
        """A filter with the stored names of its model and task."""
        which = replace(which or CircuitFilter(), **filters)
        if which.model is not None:
            which = replace(which, model=known_model(self._ledger, which.model))
        if which.task is not None:
            which = replace(which, task=known_task(self._ledger, which.task, or_family=True))
        return which

    def circuit(self, prefix: str) -> StoredCircuit:
        """Return the circuit whose id starts with ``prefix``."""
        entry = self._ledger.circuit(prefix)
        return StoredCircuit(entry, self.document(entry.id), self._ledger.evaluations(entry.id))

    def document(self, circuit: str) -> Circuit:
        """Read a circuit's content from its artifact, by full id."""
        return read_circuit(self._artifacts.get(circuit), stored=True)

    def attachments(self, owner: str) -> tuple[StoredAttachment, ...]:
        """Files of a circuit, run, edit or prompt set, oldest first, to open or save.

        Args:
            owner: Its id, or the first digits.

        Raises:
            NotFound: No circuit, run, edit or prompt set has that id.
        """
        _, id = self._ledger.owner(owner)
        return tuple(StoredAttachment(one, self._artifacts) for one in self._ledger.attachments(id))

    def edits(self) -> list[Edit]:
        """All edits, oldest first."""
        return list(self._ledger.edits())

    def edit(self, prefix: str) -> Edit:
        """The edit whose id starts with ``prefix``."""
        return self._ledger.edit(prefix)

    def outcomes(self, edit: str) -> list[Outcome]:
        """The outcomes of an edit, by its full id."""
        return list(self._ledger.outcomes(edit))

    @property
    def ledger(self) -> Ledger:
        """The record, for reading. Write through this class."""
        return self._ledger

    @property
    def settings(self) -> Settings:
        """Where the stores are."""
        return self._settings

    # -- reading the graph ---------------------------------------------------------------------

    def query(self, name: str, /, **parameters: Any) -> Rows:
        """Answer a named query; ``circuits query`` lists them.

        Raises:
            NotFound: No query, model, task, circuit or edit has that name.
            BadInput: A parameter is missing, unknown or of another type; the message names it.
            GraphError: The graph cannot be read.
        """
        query = find_query(name)
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
        """Answer the user's own Cypher statement, which can only read the graph.

        Args:
            text: The statement.
            parameters: Values for its ``$names``.
            timeout_seconds: Time limit, including the server's answer; there is no second attempt.
            max_rows: Further rows are omitted, and ``Rows.truncated`` is set.
            memory_bytes: Memory limit of the query and its answer here, in addition to the graph.

        Raises:
            BadInput: A limit is not valid.
            QueryFailed: The engine does not accept it: syntax, an attempt to write or load a file.
            QueryTimeout: It ran longer than ``timeout_seconds`` and was stopped.
            QueryTooLarge: It exceeded a memory limit, here or on the server.
        """
        if not 0 < timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise BadInput(
                f"a query's time limit must be between 0 and {_LONGEST_TIMEOUT_SECONDS:,} seconds,"
                f" not {timeout_seconds}"
            )
        if max_rows < 1:
            raise BadInput(f"a query's limit of rows must be at least 1, not {max_rows}")
        if memory_bytes < 1:
            raise BadInput(f"a query's limit of memory must be at least 1 byte, not {memory_bytes}")
        return self._graph.read(
            text,
            parameters,
            timeout_seconds=timeout_seconds,
            max_rows=max_rows,
            memory_bytes=memory_bytes,
        )

    def graph_limits(self) -> Mapping[str, str]:
        """Settings of the graph's server that limit the resources of a statement.

        With the server's names; empty for an embedded graph, or if the server does not show them.

        Raises:
            GraphError: The graph cannot be read.
        """
        return self._graph.limits()

    # -- projecting ----------------------------------------------------------------------------

    def sync(self, *, progress: OnProgress | None = None) -> int:
        """Project pending changes into the graph and return their number.

        Raises:
            GraphError: The graph cannot be written; everything stays pending.
        """
        return self._graph.sync(progress)

    def rebuild(self, *, progress: OnProgress | None = None, overwrite: bool = False) -> int:
        """Empty the graph and rebuild it from the ledger; returns the number of changes.

        If this is killed, an embedded graph stays as it was before. The next :meth:`sync` finishes
        the graph of a server; until then, readers get an error or a warning.

        Args:
            progress: Receives the progress.
            overwrite: Also rebuild a graph that was made from another copy of this registry.

        Raises:
            GraphRefused: The graph is another registry's, or another copy's without ``overwrite``.
        """
        return self._graph.rebuild(progress, overwrite=overwrite)

    def put_aside(self) -> tuple[PutAside, ...]:
        """Records that the graph could not accept, with reasons; empty if it cannot be read."""
        return self._graph.standing().put_aside

    @contextmanager
    def projecting_later(self) -> Iterator[None]:
        """Project all records of this context at its end, in one step; for hundreds of records.

        If it is killed before that, the next :meth:`sync` projects them. If nothing was recorded,
        nothing is projected. A nested context leaves the projection to the outer one.
        """
        before, self._projects = self._projects, False
        try:
            yield
        finally:
            self._projects = before
            if self._waits:
                self._sync_or_warn()

    def _sync_or_warn(self, *, verify: bool = True) -> None:
        """Project; without ``verify``, it is enough if another process reports it has done so."""
        self._waits = not self._projects
        if self._projects:
            self._project_or_warn(lambda: self._graph.sync(verify=verify))

    def _project_or_warn(self, work: Callable[[], int]) -> None:
        try:
            work()
        except CircuitsError as error:  # the record is committed and stays
            log.warning("recorded; projection into the graph is pending: %s", error)

    # -- upkeep --------------------------------------------------------------------------------

    @classmethod
    def migrate(cls, settings: Settings, *, check_only: bool = False) -> tuple[str, ...]:
        """Bring the ledger's schema up to date, or only return the pending revisions.

        Artifacts of a registry from before stores had marks get their mark.

        Raises:
            LedgerError: There are artifacts but no ledger: it was lost.
        """
        if not is_set_up(settings.ledger):
            _refuse_lost_ledger(settings)
        applied = migrate_ledger(settings.ledger, check=check_only)
        if not check_only:
            with cls.open(settings=settings) as registry:
                registry._artifacts.adopt(registry._ledger.artifacts)
        return applied

    def status(self) -> Status:
        """Report contents and the state of the stores; dead runs are recorded as interrupted."""
        self.interrupt_dead_runs()
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
                "attachments": len(ledger.attachments()),
            },
            pending=graph.pending,
            graph=graph.state,
            put_aside=graph.put_aside,
            sync_helps=graph.sync_helps,
            runs=runs,
        )

    def interrupt_dead_runs(self) -> tuple[str, ...]:
        """Record dead runs as interrupted; return their ids.

        :mod:`registry.lives` defines when a run is dead. Nothing is recorded if the ledger cannot
        be written.
        """
        try:
            ended = interrupt_dead_runs(self._ledger)
        except LedgerError as error:
            log.info("dead runs cannot be recorded as interrupted: %s", error)
            return ()
        if ended:
            self._sync_or_warn(verify=False)
        return ended

    def backup(self, path: Path | str, *, skip_damaged: bool = False) -> backups.BackupReport:
        """Write ledger and artifacts into one file; other processes may record at the same time.

        Raises:
            BadInput: The file exists already.
            LedgerError: The ledger's database is damaged.
            StorageError: The file cannot be written. Or an artifact is missing or damaged; with
                ``skip_damaged`` it is skipped, and the report names it. An original that is not
                stored is always skipped and named.
        """
        from registry.upkeep import backup as backups  # no query needs it

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

        If a restore was killed after its records were written, it continues from there. If it is
        repeated, it restores artifacts that were lost since.

        Args:
            path: The backup.
            home: Folder of the new registry.
            settings: Its settings, instead of ``home``.
            overwrite_graph: Empty the graph, if it belongs to this registry.

        Raises:
            BadInput: The file is not a backup, or is damaged.
            GraphRefused: The graph is not empty.
            StoreRefused: The artifact store is another registry's.
            LedgerError: The existing registry already holds other records.
        """
        from registry.upkeep import backup as backups

        with backups.opened(Path(path)) as backup:
            settings = settings or load_settings(create_home(home))
            registry = cls._restored_before(settings, backup)
            if registry is None:
                if not overwrite_graph:
                    refuse_graph_in_use(settings)
                registry = cls._filled(settings, backup)
            else:
                backup.load_artifacts(registry._artifacts)
        if overwrite_graph:
            # The graph may exist already, with changes recorded after the backup.
            registry._project_or_warn(lambda: registry.rebuild(overwrite=True))
        else:
            registry._project_or_warn(registry.sync)
        return registry

    @classmethod
    def _restored_before(cls, settings: Settings, backup: backups.Backup) -> Registry | None:
        """The registry that this backup was restored into before, if there is one."""
        if not is_set_up(settings.ledger):
            return None
        migrate_ledger(settings.ledger)
        registry = cls.open(settings=settings)
        if registry._ledger.restored_from == backup.digest:
            return registry
        is_empty = registry._ledger.revision() == Revision()
        if is_empty:  # the state after an interrupted restore
            registry._graph.set_aside_if_empty()
        registry.close()
        if not is_empty:
            raise LedgerError(
                f"{settings.describe()['ledger']} already holds records; restore into a new folder,"
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
            backup.load_artifacts(registry._artifacts)
            backup.load_ledger(registry._ledger)
        except BaseException:
            registry.close()
            raise
        return registry

    @staticmethod
    def _require_loadable(backup: backups.Backup) -> None:
        """Load a backup's rows into a temporary ledger; refuse a backup that lacks artifacts."""
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{url_path(Path(folder) / 'ledger.sqlite')}"
            migrate_ledger(url)
            with open_ledger(url) as ledger:
                backup.load_ledger(ledger)
                lacking = ledger.artifacts() - backup.artifacts() - {*backup.left_out}
        if lacking:
            raise BadInput(
                f"the backup is incomplete: its records name {counted(len(lacking), 'artifact')} it"
                f" lacks, such as {min(lacking)[:12]}"
            )

    def gc(
        self, *, apply: bool = False, grace_seconds: float = 3600.0, sole_copy: bool = False
    ) -> backups.Garbage:
        """Find artifacts that no record refers to, and files that killed processes left.

        They are deleted if ``apply``.

        Files younger than ``grace_seconds`` are kept: another process may be about to record
        something that refers to them.

        Raises:
            StoreRefused: The artifacts belong to another registry. Or another copy of this registry
                stores files among them; ``sole_copy`` states that this copy no longer exists.
            GraphError: With ``apply`` and without ``sole_copy``: the graph cannot be read, so it is
                unknown whether the ledger was restored to an older state.
        """
        from registry.upkeep import backup as backups

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
        """Refuse to delete artifacts that are newer than a ledger restored to an older state."""
        try:
            is_ahead = self._graph.is_ahead()
        except GraphError as error:
            raise GraphError(
                f"{error}. Nothing was deleted, because only the graph shows whether the ledger was"
                " restored to an older state; --sole-copy states that it was not"
            ) from error
        if is_ahead:
            raise StoreRefused(
                "the graph holds revisions that the ledger does not have: the ledger was restored"
                " to an older state, and artifacts recorded since would be deleted. If this state"
                " is intended, 'circuits sync' rebuilds the graph; nothing was deleted"
            )

    def damage(self, *, sample: int | None = None, not_stored: bool = False) -> list[Damage]:
        """Check artifacts that records refer to, with originals, and list missing or damaged ones.

        Args:
            sample: Number of artifacts to read, chosen at random; for the others, only their
                existence is checked. None reads all.
            not_stored: Also list originals that are not stored. They were deleted, or this registry
                never had them, because a bundle came without them.
        """
        from registry.upkeep.damage import damaged

        found = damaged(self._ledger, self._artifacts, sample=sample, not_stored=not_stored)
        return list(found)

    def mend(self, *sources: Path | str) -> tuple[tuple[Damage, ...], tuple[Damage, ...]]:
        """Replace missing and damaged artifacts from backups, bundles, originals or folders.

        Returns:
            The replaced artifacts, and those that are still damaged, missing or not stored.

        Raises:
            BadInput: A source does not exist; a source that cannot be read is logged.
        """
        from registry.upkeep.damage import mend

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

    def _check_annotated(self, batch: Batch) -> None:
        given = {new.circuit.id: new.circuit for new in batch.circuits} if batch.annotations else {}
        check_nodes(batch.annotations, given, lambda id: self.document(self._ledger.circuit(id).id))

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
    """Distinguish a registry whose ledger was lost from one that was never made.

    Raises:
        LedgerError: There are artifacts, but their ledger does not exist.
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
            f" {where['artifacts']}: restore the ledger, or restore a backup with 'circuits"
            " restore FILE'; a new registry needs separate artifacts, see --artifacts"
        )


def _check_shapes(batch: Batch, known: Sequence[Model], *, common: bool) -> None:
    """Refuse parts that a model does not have.

    Args:
        batch: Records to check.
        known: The registry's models.
        common: For a model without a shape, use the shape of the common model of that name.

    Raises:
        BadIdentifier: A layer, head or other index is too high.
    """
    models: dict[str, Model] = {}
    for model in (*known, *batch.models):
        before = models.get(model.slug)
        models[model.slug] = merge_models(before, model) if before else model
    for new in batch.circuits:
        names = (node.component for node in new.circuit.nodes)
        shape = models[new.circuit.model]
        if common and shape.n_layers is None:
            shape = common_model(shape.slug) or shape
        check_components(shape, names)
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
