"""What every ledger owes: the record of all that was found, and what changed with each revision.

A ledger writes in single transactions that also note what changed, so that a change is either
recorded together with what is to be projected or not at all. A change names a record, not what
became of it: whoever projects reads the present state of the record and makes the graph agree with
it, which may be repeated and reordered without harm. A graph carries the revision that it holds, so
any number of graphs may be made from one ledger.

Circuits' nodes and edges are not rows: they lie in the artifact store as ``Circuit.document``
under the circuit's id. A caller stores artifacts before it records what refers to them.

Errors: whatever the database raises comes out as :class:`registry.errors.LedgerError`
(``LedgerOutdated`` where ``circuits migrate`` is due), naming the database without its password.

Threads and processes: any number may read and write; writers wait for each other.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from registry.closing import Closing
from registry.records import (
    Ablation,
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
    "Ledger",
    "NewCircuit",
    "Recorded",
    "Revision",
]


class ChangeKind(StrEnum):
    """What a change names."""

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
    """A state of the ledger: how many writing transactions led to it.

    ``token`` is drawn at random for each: a ledger put back to an older state and written again
    comes to the same numbers with other tokens. The empty ledger is at ``Revision()``.
    """

    number: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed after one revision, up to another; each record once."""

    changes: tuple[Change, ...]
    up_to: Revision


@dataclass(frozen=True, slots=True)
class NewCircuit:
    """A circuit to record, where it came from, and its first labels.

    ``labels`` are applied only if the circuit is new; a known circuit keeps its own.
    """

    circuit: Circuit
    run: str | None = None
    source_file: SourceFile | None = None
    labels: CircuitLabels = CircuitLabels()


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to be written in one transaction, all or none.

    Attributes:
        edit_files: By an edit's id, the file that it was imported from, or several.
        imported: Files whose content is kept though no circuit or edit may name them: originals
            of evaluations and prompt sets, files that were read beside another, what an import
            computed from it.
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

    @classmethod
    def of(cls, *records: Record | NewCircuit) -> Self:
        """Sort records into a batch by their types; a bare circuit has no run and no labels.

        Raises:
            TypeError: Something that is no record of the registry.
        """
        sorted_: dict[str, Any] = {}
        for record in records:
            entry = NewCircuit(record) if isinstance(record, Circuit) else record
            if type(entry) not in _FIELD_OF:
                raise TypeError(f"{type(entry).__name__} is no record that a ledger keeps")
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
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a batch added. Ids that were already there are left out."""

    circuits: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    @property
    def anything(self) -> bool:
        """Whether it added a circuit, evaluation, edit or outcome."""
        return bool(self.circuits or self.evaluations or self.edits or self.outcomes)


@dataclass(frozen=True, slots=True)
class CircuitEntry:
    """A stored circuit without its nodes and edges.

    Attributes:
        runs: Ids of the runs that produced it, oldest first.
        source_files: Files it was imported from, oldest first.
        faithfulness: Its latest evaluation of that name on its own task, if any.
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
    """Which circuits to list; what is None does not restrict.

    ``task`` matches the slug or its family prefix (``sequence`` finds ``sequence/numerals``);
    ``text`` searches titles and notes, all its words, without regard to case.
    """

    task: str | None = None
    model: str | None = None
    method: str | None = None
    tag: str | None = None
    author: str | None = None
    state: CircuitState | None = None
    text: str | None = None
    limit: int | None = None


class Ledger(Closing):
    """The record of one registry."""

    @property
    @abc.abstractmethod
    def registry_id(self) -> str:
        """32 hexadecimal digits, made when the registry was; all its stores carry it."""

    @property
    @abc.abstractmethod
    def instance(self) -> str:
        """32 hexadecimal digits of this ledger alone: a restored copy has others."""

    @property
    @abc.abstractmethod
    def restored_from(self) -> str | None:
        """The digest given to :meth:`load`, if the ledger was filled from a backup."""

    # -- writing -------------------------------------------------------------------------------

    @abc.abstractmethod
    def record(self, batch: Batch) -> Recorded:
        """Add records in one transaction and note what changed, as one revision.

        Models, tasks and prompt sets are added or filled in where a field was None; runs are added
        or brought up to date; circuits, evaluations, edits and outcomes are added if new. A known
        circuit that comes again with another run or file gains that provenance, and a known edit
        that comes again with another file.

        Raises:
            IncompatibleModel: A model's slug is taken by another shape or other weights; the text
                names what differs and a slug to use instead (``slug@REVISION``).
            NotFound: A record refers to a model, task, prompt set, circuit, run or edit that is
                neither in the batch nor in the ledger.
            BadInput: A value that not every database can hold: a NUL character, an integer of more
                than 64 bits.
            LedgerError: The database refused.

        Nothing is written when it raises.
        """

    @abc.abstractmethod
    def relabel(
        self, circuit: str, labels: CircuitLabels, *, expected: CircuitLabels | None = None
    ) -> bool:
        """Replace a circuit's labels, which makes a revision.

        Args:
            circuit: Its full id.
            labels: What it gets.
            expected: What the caller saw; if another process has changed it since, nothing is
                replaced. None replaces whatever there is.

        Returns:
            Whether the labels were replaced.

        Raises:
            NotFound: No circuit has that id, or ``superseded_by`` names none.
            BadInput: It would supersede itself.
        """

    # -- reading -------------------------------------------------------------------------------

    @abc.abstractmethod
    def models(self) -> tuple[Model, ...]:
        """All models, by slug."""

    @abc.abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, by slug."""

    @abc.abstractmethod
    def prompt_sets(self, task: str | None = None) -> tuple[PromptSet, ...]:
        """Prompt sets, of one task or all, by task and id."""

    @abc.abstractmethod
    def runs(self, *, limit: int | None = None) -> tuple[Run, ...]:
        """Runs, newest first."""

    @abc.abstractmethod
    def circuits(self, which: CircuitFilter = CircuitFilter()) -> tuple[CircuitEntry, ...]:
        """Stored circuits, newest first, then by id. Retracted ones too unless ``state`` says."""

    @abc.abstractmethod
    def circuit(self, prefix: str) -> CircuitEntry:
        """The circuit whose id starts with ``prefix`` (four digits or more).

        Raises:
            NotFound: None does; the hint names the nearest or says how to list them.
            BadInput: Several do, or it is no hexadecimal prefix.
        """

    @abc.abstractmethod
    def circuit_id(self, prefix: str) -> str:
        """The id of that circuit alone, which is quicker to find than all that hangs on it.

        Raises:
            NotFound: As for :meth:`circuit`.
            BadInput: As for :meth:`circuit`.
        """

    @abc.abstractmethod
    def evaluations(self, circuit: str | None = None) -> tuple[Evaluation, ...]:
        """Evaluations of one circuit or all, in order of recording."""

    @abc.abstractmethod
    def edits(self, ids: Iterable[str] | None = None) -> tuple[Edit, ...]:
        """All edits, in order of recording; or those with these full ids, in any order."""

    @abc.abstractmethod
    def edit(self, prefix: str) -> Edit:
        """The edit whose id starts with ``prefix``; errors as in :meth:`circuit`."""

    @abc.abstractmethod
    def edit_files(self, edit: str) -> tuple[SourceFile, ...]:
        """Files that an edit (its full id) was imported from, oldest first."""

    @abc.abstractmethod
    def outcomes(self, edit: str) -> tuple[Outcome, ...]:
        """What was measured after that edit, in order of recording."""

    @abc.abstractmethod
    def outcomes_of(self, edits: Iterable[str]) -> Mapping[str, tuple[Outcome, ...]]:
        """The same for many edits at once, without those that nothing was measured after."""

    @abc.abstractmethod
    def artifacts(self) -> frozenset[str]:
        """Addresses of all artifacts that some record refers to, circuit documents included."""

    @abc.abstractmethod
    def imported_files(self) -> tuple[SourceFile, ...]:
        """Files that are kept though no circuit or edit may name them, in order of recording."""

    @abc.abstractmethod
    def source_files(self) -> frozenset[str]:
        """Hashes of all files that were imported; importing keeps them as artifacts."""

    # -- what graphs lack ----------------------------------------------------------------------

    @abc.abstractmethod
    def revision(self) -> Revision:
        """The revision that the ledger is at."""

    @abc.abstractmethod
    def has_revision(self, revision: Revision) -> bool:
        """Whether the ledger is at that revision or went through it."""

    @abc.abstractmethod
    def changes_since(self, number: int) -> Delta:
        """All that changed after that revision, as of one moment; what others refer to first.

        ``changes_since(0)`` names every record that has a place in the graph.
        """

    @abc.abstractmethod
    def count_since(self, number: int) -> int:
        """How many changes :meth:`changes_since` would give."""

    @abc.abstractmethod
    def note_projected(self, graph: str, number: int) -> None:
        """Remember that the graph at that address holds that revision, durably there.

        A note for others; what the graph itself says stands over it.
        """

    @abc.abstractmethod
    def projected(self, graph: str) -> int:
        """The number last noted for that graph, 0 if none was."""

    @abc.abstractmethod
    def projecting(
        self, *, timeout_seconds: float, unless: Callable[[], bool] | None = None
    ) -> AbstractContextManager[Callable[[], None] | None]:
        """Hold the right to project, which one process has at a time.

        Freed when the holder dies, or the database does.

        Args:
            timeout_seconds: How long to wait for it.
            unless: Asked now and then while another process holds the right; once it says True,
                there is nothing left to wait for.

        Returns:
            A context whose value is None after ``unless``, without the right. Otherwise it is to
            be called before each thing that only the holder may do: it raises
            :class:`registry.errors.LedgerError` where the right was lost with the database's server
            and may be somebody else's by now.

        Raises:
            GraphBusy: Another process held it for the whole time.
        """

    # -- maintenance ---------------------------------------------------------------------------

    @abc.abstractmethod
    def require_sound(self) -> None:
        """Let the database check its own pages, where it can: SQLite's ``quick_check``.

        Raises:
            LedgerError: They are damaged; the text says what to do.
        """

    @abc.abstractmethod
    def dump(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """All rows as ``(table, row)`` in an order that can be loaded, of one moment.

        Values are JSON types. Other processes may write meanwhile. Revisions are left out: a copy
        begins its own.
        """

    @abc.abstractmethod
    def load(
        self, rows: Iterable[tuple[str, Mapping[str, Any]]], *, digest: str | None = None
    ) -> None:
        """Fill an empty ledger from :meth:`dump` of either database, in one transaction.

        The ledger takes over the dumped registry's id, keeps its own instance, and is at its first
        revision, which changed everything. Rows of revision 0002 are taken too.

        Args:
            rows: What :meth:`dump` gave.
            digest: Tells the backup from others; kept as :attr:`restored_from`.

        Raises:
            LedgerError: The ledger holds records already, or the rows are of another version or
                not whole. Nothing is written.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release connections; safe to repeat."""
