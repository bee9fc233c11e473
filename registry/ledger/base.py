"""What every ledger must do: keep the record of all results, and the changes of each revision.

A ledger writes in single transactions that also note the changes. Therefore a change is recorded
together with its note for projection, or not at all. A change names a record, not its new state:
projecting reads the present state of the record and updates the graph accordingly, which may be
repeated and reordered without harm. A graph stores the revision that it holds, so any number of
graphs can be made from one ledger.

Nodes and edges of circuits are not rows: they are in the artifact store as ``Circuit.document``
under the circuit's id. A caller stores artifacts before it records anything that refers to them.

Errors: every error of the database is raised as :class:`registry.errors.LedgerError`
(``LedgerOutdated`` if ``circuits migrate`` is needed), which names the database without its
password.

Threads and processes: any number may read and write; writers wait for each other.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Self, TypeVar

from registry.closing import Closing
from registry.files.attachments import Attachment, AttachmentOwner
from registry.processes import Process
from registry.records import (
    Ablation,
    Annotation,
    Circuit,
    CircuitLabels,
    CircuitState,
    Edit,
    Evaluation,
    Level,
    Model,
    Outcome,
    PromptSet,
    Record,
    Run,
    RunStatus,
    Sign,
    SourceFile,
    Task,
)

__all__ = [
    "Batch",
    "Change",
    "ChangeKind",
    "CircuitEntry",
    "CircuitFilter",
    "Delta",
    "EditFilter",
    "Ledger",
    "Life",
    "Made",
    "NewCircuit",
    "OutcomeRow",
    "Page",
    "PromptSetFilter",
    "Recorded",
    "Revision",
    "RunFilter",
    "Stage",
]

T = TypeVar("T")


class ChangeKind(StrEnum):
    """The kind of record that a change names."""

    MODEL = "model"
    TASK = "task"
    PROMPT_SET = "prompt_set"
    RUN = "run"
    CIRCUIT = "circuit"
    EVALUATION = "evaluation"
    EDIT = "edit"


@dataclass(frozen=True, slots=True)
class Change:
    """The record ``key`` of that kind changed."""

    kind: ChangeKind
    key: str


@dataclass(frozen=True, slots=True)
class Revision:
    """A state of the ledger: the number of writing transactions that led to it.

    ``token`` is random for each revision. If a ledger is restored to an older state and written
    again, it reaches the same numbers with other tokens. The empty ledger is at ``Revision()``.
    """

    number: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """The changes after one revision, up to another; each record once."""

    changes: tuple[Change, ...]
    up_to: Revision


@dataclass(frozen=True, slots=True)
class NewCircuit:
    """A circuit to record, its provenance, and its first labels.

    ``labels`` are applied only if the circuit is new; an existing circuit keeps its labels.
    """

    circuit: Circuit
    run: str | None = None
    source_file: SourceFile | None = None
    labels: CircuitLabels = CircuitLabels()


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run's work.

    Attributes:
        title: Description of the work.
        at: Its begin, by the clock of the run's host.
        done: Finished amount at the run's last heartbeat.
        total: Total amount; None if it cannot be counted, as ``done``.
    """

    title: str
    at: datetime
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """The process and heartbeats of a run; :mod:`registry.lives` interprets them.

    Attributes:
        run: The run's id.
        started_at: Its begin, by the clock of its host.
        process: The process that computes it; None if it is not recorded.
        beats: Number of heartbeats.
        beat_at: Last heartbeat, by the ledger's clock; None if there was none.
        seen_beats: ``beats`` as noted by a reader that found the run silent for too long.
        seen_at: Time of that note, by the ledger's clock.
        now: The ledger's clock when this was read: the server's clock for PostgreSQL, the clock of
            the reader's host for SQLite.
        stages: Stages of its work so far, oldest first.
    """

    run: str
    started_at: datetime
    process: Process | None
    beats: int
    beat_at: datetime | None
    seen_beats: int | None
    seen_at: datetime | None
    now: datetime
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to be written in one transaction, all or none.

    Attributes:
        edit_files: The file or files that an edit was imported from, by the edit's id.
        imported: Files that are stored even if no circuit or edit refers to them: originals of
            evaluations and prompt sets, files that were read together with another file, and files
            that an import computed from it.
        attachments: Named files of records of the batch or the ledger.
        annotations: Annotations of circuits' nodes; if a source already gave the same role to the
            node, the new annotation replaces the old one.
        processes: The process that computes a run that begins, by the run's id. That process must
            send the run's heartbeats (:func:`registry.lives.computed_here`, :meth:`Ledger.beat`).
    """

    models: Sequence[Model] = ()
    tasks: Sequence[Task] = ()
    prompt_sets: Sequence[PromptSet] = ()
    runs: Sequence[Run] = ()
    circuits: Sequence[NewCircuit] = ()
    evaluations: Sequence[Evaluation] = ()
    edits: Sequence[Edit] = ()
    outcomes: Sequence[Outcome] = ()
    edit_files: Mapping[str, SourceFile | Sequence[SourceFile]] = field(default_factory=dict)
    imported: Sequence[SourceFile] = ()
    attachments: Sequence[Attachment] = ()
    annotations: Sequence[Annotation] = ()
    processes: Mapping[str, Process] = field(default_factory=dict)

    @classmethod
    def of(cls, *records: Record | NewCircuit) -> Self:
        """Sort records into a batch by their types; a bare circuit has no run and no labels.

        Raises:
            TypeError: An argument is not a record of the registry.
        """
        sorted_: dict[str, Any] = {}
        for record in records:
            entry = NewCircuit(record) if isinstance(record, Circuit) else record
            if type(entry) not in _FIELD_OF:
                raise TypeError(f"{type(entry).__name__} is not a record that a ledger keeps")
            sorted_.setdefault(_FIELD_OF[type(entry)], []).append(entry)
        return cls(**sorted_)


_FIELD_OF: dict[type, str] = {
    Model: "models",
    Task: "tasks",
    PromptSet: "prompt_sets",
    Run: "runs",
    NewCircuit: "circuits",
    Evaluation: "evaluations",
    Edit: "edits",
    Outcome: "outcomes",
    Attachment: "attachments",
    Annotation: "annotations",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """The new records of a batch; records that existed before are omitted, also if updated."""

    circuits: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    annotations: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    prompt_sets: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether it added a record of any kind."""
        return any(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True, slots=True)
class CircuitEntry:
    """A stored circuit without its nodes and edges.

    Attributes:
        runs: Ids of the runs that produced it, oldest first.
        source_files: Files it was imported from, oldest first.
        faithfulness: Its latest faithfulness on its own task, if it was measured.
    """

    id: str
    model: str
    task: str
    prompt_set: str | None
    method: str
    metric: str | None
    ablation: Ablation | None
    sign: Sign
    level: Level
    n_nodes: int
    n_edges: int
    universe_size: int | None
    scores: str | None
    labels: CircuitLabels
    runs: tuple[str, ...]
    source_files: tuple[SourceFile, ...]
    faithfulness: float | None
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class CircuitFilter:
    """Conditions for circuits in a list; None does not restrict.

    ``task`` matches the slug or its family prefix (``sequence`` finds ``sequence/numerals``);
    ``text`` searches titles and notes, all its words, without regard to case. ``prompt_set`` is a
    full id.
    """

    task: str | None = None
    model: str | None = None
    method: str | None = None
    tag: str | None = None
    author: str | None = None
    state: CircuitState | None = None
    text: str | None = None
    limit: int | None = None
    prompt_set: str | None = None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Conditions for runs in a list; None or an empty value does not restrict.

    Attributes:
        models: Names of one model: its slug, and its other names. A run belongs to the model in
            its configuration, and to the models of the circuits that it made.
        task: As in :class:`CircuitFilter`; a run belongs to tasks in the same way as to models.
        since: Runs that began at this time or later.
    """

    status: RunStatus | None = None
    job: str | None = None
    models: frozenset[str] = frozenset()
    task: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class EditFilter:
    """Conditions for edits in a list; None does not restrict.

    Attributes:
        circuit: Full id of a circuit that they targeted.
        model: Slug of the model that they changed.
    """

    circuit: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class PromptSetFilter:
    """Conditions for prompt sets in a list; None does not restrict.

    Attributes:
        task: As in :class:`CircuitFilter`.
        model: Slug of the model that answered them.
    """

    task: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """The results of a run in the ledger.

    Attributes:
        circuits: Circuits that it produced, even if they existed before; by id.
        evaluations: Its measurements, in order of recording.
        edits: Its edits, in order of recording.
    """

    circuits: tuple[CircuitEntry, ...]
    evaluations: tuple[Evaluation, ...]
    edits: tuple[Edit, ...]


class OutcomeRow(NamedTuple):
    """An outcome of an edit; checking that stored ones are records would take most of the time."""

    id: str
    edit: str
    metric: str
    protocol: str
    task: str | None
    before: float | None
    after: float | None
    n_prompts: int | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        items: Items of the page, newest first.
        after: Start of the next page, an argument of the same method; None after the last page.
    """

    items: tuple[T, ...]
    after: str | None


class Ledger(Closing):
    """The record of one registry."""

    @property
    @abc.abstractmethod
    def registry_id(self) -> str:
        """32 hexadecimal digits, made with the registry; all its stores carry them."""

    @property
    @abc.abstractmethod
    def instance(self) -> str:
        """32 hexadecimal digits of this ledger only: a restored copy has different digits."""

    @property
    @abc.abstractmethod
    def restored_from(self) -> str | None:
        """The digest given to :meth:`load`, if the ledger was filled from a backup."""

    # -- writing -------------------------------------------------------------------------------

    @abc.abstractmethod
    def record(self, batch: Batch) -> Recorded:
        """Add records in one transaction and note the changes as one revision.

        Models, tasks and prompt sets are added, or their fields that were None are filled in. Runs
        are added or updated. Circuits, evaluations, edits, outcomes and attachments are added if
        they are new. An existing circuit gains provenance from a new run or file, and an existing
        edit from a new file. An existing evaluation or edit without a run gains the run that it is
        recorded with. An attachment keeps its first description.

        Raises:
            IncompatibleModel: A model's slug is used for another shape or other weights; the
                message gives the difference and a slug to use instead (``slug@REVISION``).
            NotFound: A record refers to a model, task, prompt set, circuit, run or edit that is
                neither in the batch nor in the ledger.
            BadInput: A value that some database cannot hold: a NUL character, an integer of more
                than 64 bits. Or an attachment whose owner has another file of that name.
            LedgerError: The database refused.

        Nothing is written when it raises.
        """

    @abc.abstractmethod
    def record_at(self, revision: Revision, batch: Batch) -> Recorded | None:
        """Like :meth:`record`, for a batch that depends on the ledger's state at that revision.

        Returns:
            None if the ledger has another revision now; then nothing is written.
        """

    @abc.abstractmethod
    def relabel(
        self, circuit: str, labels: CircuitLabels, *, expected: CircuitLabels | None = None
    ) -> bool:
        """Replace a circuit's labels, which makes a revision.

        Args:
            circuit: Its full id.
            labels: The new labels.
            expected: The labels that the caller read; if another process has changed them since,
                nothing is replaced. None replaces any labels.

        Returns:
            Whether the labels were replaced.

        Raises:
            NotFound: No circuit has that id, or the id in ``superseded_by``.
            BadInput: It would supersede itself.
        """

    @abc.abstractmethod
    def annotate(self, annotations: Sequence[Annotation], *, also: bool = False) -> bool:
        """Set annotations of circuits' nodes, which makes a revision if anything changes.

        Args:
            annotations: New annotations. The caller checks that the circuits have such nodes.
            also: Keep other roles that these sources gave to these nodes; otherwise the new ones
                replace all of them.

        Returns:
            Whether anything changed.

        Raises:
            NotFound: A circuit or run is not in the ledger.
            BadInput: A value that some database cannot hold.
        """

    @abc.abstractmethod
    def take_back(self, circuit: str, node: str, *, said_by: str, role: str | None = None) -> int:
        """Remove a source's roles of a node, which makes a revision if there were any.

        Args:
            circuit: Full id.
            node: Node as in the annotation.
            said_by: The source.
            role: Only this role; None removes all roles that the source gave to the node.

        Returns:
            Number of removed annotations.
        """

    # -- reading -------------------------------------------------------------------------------

    @abc.abstractmethod
    def models(self) -> tuple[Model, ...]:
        """All models, by slug."""

    @abc.abstractmethod
    def model(self, slug: str) -> Model:
        """The model of that slug.

        Raises:
            NotFound: There is none; the hint gives similar names.
        """

    @abc.abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, by slug."""

    @abc.abstractmethod
    def prompt_sets(self, task: str | None = None) -> tuple[PromptSet, ...]:
        """Prompt sets, of one task or all, by task and id."""

    @abc.abstractmethod
    def prompt_sets_page(
        self,
        which: PromptSetFilter = PromptSetFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[PromptSet]:
        """Prompt sets of a filter in pages, as in :meth:`runs_page`.

        The prompt sets that were recorded or filled in last come first: if one is filled in between
        two pages, it moves to the front.
        """

    @abc.abstractmethod
    def prompt_set(self, prefix: str) -> PromptSet:
        """The prompt set whose id starts with ``prefix``; errors as in :meth:`circuit`."""

    @abc.abstractmethod
    def runs(
        self, ids: Iterable[str] | None = None, *, limit: int | None = None
    ) -> tuple[Run, ...]:
        """Runs, newest first.

        Args:
            ids: Full ids of the runs; ids that do not exist are skipped. None for all runs.
            limit: Maximum number of runs.
        """

    @abc.abstractmethod
    def run(self, prefix: str) -> Run:
        """The run whose id starts with ``prefix``; errors as in :meth:`circuit`."""

    @abc.abstractmethod
    def runs_page(
        self,
        which: RunFilter = RunFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Run]:
        """One page of the runs of a filter, newest first.

        New records between two pages shift nothing: no run comes twice, and no existing run is
        missed. This holds for all methods that return pages.

        Args:
            which: Conditions for runs.
            limit: Maximum number, at least 1; None for all remaining runs.
            after: :attr:`Page.after` of the page before; None for the first page.

        Raises:
            BadInput: ``after`` is not a position in this list, or the limit is below 1.
        """

    @abc.abstractmethod
    def made_by(self, run: str) -> Made:
        """The results of a run, given its full id."""

    @abc.abstractmethod
    def circuits(self, which: CircuitFilter = CircuitFilter()) -> tuple[CircuitEntry, ...]:
        """Stored circuits, newest first, then by id; retracted ones too if no ``state`` is set."""

    @abc.abstractmethod
    def circuits_page(
        self,
        which: CircuitFilter = CircuitFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[CircuitEntry]:
        """Like :meth:`circuits` in pages (:meth:`runs_page`); the filter's limit is ignored."""

    @abc.abstractmethod
    def circuit(self, prefix: str) -> CircuitEntry:
        """The circuit whose id starts with ``prefix`` (four digits or more).

        Raises:
            NotFound: None does; the hint gives the nearest id or the command that lists ids.
            BadInput: Several do, or it is not a hexadecimal prefix.
        """

    @abc.abstractmethod
    def circuit_id(self, prefix: str) -> str:
        """Only the id of that circuit, which is found faster than the whole entry.

        Raises:
            NotFound: As for :meth:`circuit`.
            BadInput: As for :meth:`circuit`.
        """

    @abc.abstractmethod
    def evaluations(self, circuit: str | None = None) -> tuple[Evaluation, ...]:
        """Evaluations of one circuit or all, in order of recording."""

    @abc.abstractmethod
    def annotations(self, circuit: str | None = None) -> tuple[Annotation, ...]:
        """Annotations of the nodes of one circuit or all, in order of recording."""

    @abc.abstractmethod
    def evaluations_on(self, prompt_set: str) -> tuple[Evaluation, ...]:
        """Evaluations on one prompt set (its full id), in order of recording."""

    @abc.abstractmethod
    def evaluations_page(
        self, circuit: str | None = None, *, limit: int | None = None, after: str | None = None
    ) -> Page[Evaluation]:
        """Evaluations of one circuit or all in pages, newest first; as in :meth:`runs_page`."""

    @abc.abstractmethod
    def edits(self, ids: Iterable[str] | None = None) -> tuple[Edit, ...]:
        """All edits, in order of recording; or those with these full ids, in any order."""

    @abc.abstractmethod
    def edits_page(
        self,
        which: EditFilter = EditFilter(),
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Edit]:
        """Edits of a filter in pages, newest first; as in :meth:`runs_page`."""

    @abc.abstractmethod
    def edit(self, prefix: str) -> Edit:
        """The edit whose id starts with ``prefix``; errors as in :meth:`circuit`."""

    @abc.abstractmethod
    def edit_files(self, edit: str) -> tuple[SourceFile, ...]:
        """Files that an edit (its full id) was imported from, oldest first."""

    @abc.abstractmethod
    def outcomes(self, edit: str) -> tuple[Outcome, ...]:
        """Outcomes of that edit, in order of recording."""

    @abc.abstractmethod
    def outcomes_page(
        self, edit: str | None = None, *, limit: int | None = None, after: str | None = None
    ) -> Page[Outcome]:
        """Outcomes of one edit or all, in pages, newest first."""

    @abc.abstractmethod
    def outcomes_of(self, edits: Iterable[str]) -> Mapping[str, tuple[Outcome, ...]]:
        """Outcomes of many edits at once, without edits that have none."""

    @abc.abstractmethod
    def outcome_rows(self, edits: Iterable[str]) -> Iterator[OutcomeRow]:
        """Outcomes of many edits as tuples, in order of recording for each edit."""

    @abc.abstractmethod
    def owner(self, prefix: str) -> tuple[AttachmentOwner, str]:
        """The circuit, run, edit or prompt set whose id starts with ``prefix``, by full id.

        Raises:
            NotFound: None does.
            BadInput: Several do, or it is not a prefix of four hexadecimal digits or more.
        """

    @abc.abstractmethod
    def attachments(self, owner: str | None = None) -> tuple[Attachment, ...]:
        """Attachments of one record (its full id) or of all, in order of recording."""

    @abc.abstractmethod
    def artifacts(self) -> frozenset[str]:
        """Addresses of all artifacts that some record refers to, circuit documents included."""

    @abc.abstractmethod
    def imported_files(self) -> tuple[SourceFile, ...]:
        """Files that are stored even if no circuit or edit names them, in order of recording."""

    @abc.abstractmethod
    def source_files(self) -> frozenset[str]:
        """Hashes of all imported files; importing stores them as artifacts."""

    # -- lives of runs -------------------------------------------------------------------------

    @abc.abstractmethod
    def beat(self, run: str, stages: Sequence[Stage] = ()) -> None:
        """Note a heartbeat of a run; only the process that computes the run may call this.

        A run that was wrongly recorded as dead is running again. A run that has ended otherwise
        stays as it is.

        Args:
            run: Its full id.
            stages: Stages of its work so far.
        """

    @abc.abstractmethod
    def keep_stages(self, run: str, stages: Sequence[Stage]) -> None:
        """Store the stages of a run (its full id), running or not."""

    @abc.abstractmethod
    def lives(self, runs: Iterable[str] | None = None) -> Mapping[str, Life]:
        """Processes and heartbeats by run id: of all running runs, or of the given runs."""

    @abc.abstractmethod
    def note_silence(self, run: str, beats: int) -> None:
        """Note, by the ledger's clock, that a running run was silent after this many beats."""

    @abc.abstractmethod
    def interrupt(self, run: str, *, beats: int, error: str) -> bool:
        """Record a run as interrupted if it is still running and had no heartbeat since.

        Args:
            run: Its full id.
            beats: Number of its heartbeats when it was judged dead.
            error: Reason why it was judged dead.

        Returns:
            Whether it was recorded as interrupted, which makes a revision.
        """

    # -- what graphs lack ----------------------------------------------------------------------

    @abc.abstractmethod
    def revision(self) -> Revision:
        """The revision that the ledger is at."""

    @abc.abstractmethod
    def has_revision(self, revision: Revision) -> bool:
        """Whether the ledger is at that revision or has been at it."""

    @abc.abstractmethod
    def changes_since(self, number: int) -> Delta:
        """All changes after that revision, at one moment; records that others refer to come first.

        ``changes_since(0)`` names every record that is shown in the graph.
        """

    @abc.abstractmethod
    def count_since(self, number: int) -> int:
        """The number of changes that :meth:`changes_since` would return."""

    @abc.abstractmethod
    def note_projected(self, graph: str, number: int) -> None:
        """Note that the graph at that address stores that revision durably.

        The note is for other processes; the graph's own marker takes precedence.
        """

    @abc.abstractmethod
    def projected(self, graph: str) -> int:
        """The number last noted for that graph; 0 if there is none."""

    @abc.abstractmethod
    def projecting(
        self, *, timeout_seconds: float, unless: Callable[[], bool] | None = None
    ) -> AbstractContextManager[Callable[[], None] | None]:
        """Hold the right to project, which only one process can have at a time.

        It is released when the holder or the database dies.

        Args:
            timeout_seconds: Maximum waiting time.
            unless: Called repeatedly while another process holds the right; if it returns True,
                waiting ends.

        Returns:
            A context. After ``unless``, its value is None, without the right. Otherwise its value
            must be called before each action that only the holder may do: it raises
            :class:`registry.errors.LedgerError` if the right was lost with the database's server,
            because another process may hold it now.

        Raises:
            GraphBusy: Another process held it for the whole time.
        """

    # -- maintenance ---------------------------------------------------------------------------

    @abc.abstractmethod
    def require_sound(self) -> None:
        """Let the database check its own pages, if it can: SQLite's ``quick_check``.

        Raises:
            LedgerError: They are damaged; the message gives the remedy.
        """

    @abc.abstractmethod
    def dump(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """All rows as ``(table, row)``, at one moment, in an order that can be loaded.

        Values are JSON types. Other processes may write at the same time. Revisions are omitted: a
        copy starts with new ones.
        """

    @abc.abstractmethod
    def load(
        self, rows: Iterable[tuple[str, Mapping[str, Any]]], *, digest: str | None = None
    ) -> None:
        """Fill an empty ledger from :meth:`dump` of either database, in one transaction.

        The ledger takes over the dumped registry's id and keeps its own instance. It is at its
        first revision, which changed everything. Rows of revisions since 0002 are accepted too.

        Args:
            rows: Output of :meth:`dump`.
            digest: Identifies the backup; stored as :attr:`restored_from`.

        Raises:
            LedgerError: The ledger already holds records, or the rows are of another version or
                incomplete. Nothing is written.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release connections; safe to repeat."""
