"""The interface of a job, and the code that runs a job and always records how its run ended.

A job first prepares: it reads its inputs and checks them. Wrong input ends the job here, and
nothing is recorded. Then the run is recorded as running, and the job computes. Its results are
stored together with the finished run, artifacts first. A job that fails is recorded as failed, with
its error. A job that is stopped (Ctrl-C, SIGTERM) is recorded as interrupted. In both cases no
results are stored. Both are recorded also if they happen while the job prepares; such a run names
its process, but no device. While the job computes, a thread shows that the run is alive
(:mod:`ingest.jobs.heartbeat`), so that a killed run is known to be dead (:mod:`registry.lives`).
"""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from ingest.jobs.files import NamedFile, store_files
from ingest.jobs.heartbeat import StageLog, beating
from ingest.jobs.progress import Progress, Silent
from registry import plugins
from registry.credentials import scrubbed
from registry.errors import BadInput, MissingExtra, NotFound
from registry.known_measures import refuse_values
from registry.ledger.base import Batch, RunFilter
from registry.lives import computed_here
from registry.processes import this_process
from registry.records import Annotation, Edit, Evaluation, Run, RunStatus
from registry.texts.storable import as_storable

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = [
    "JOBS_GROUP",
    "Configuration",
    "Finding",
    "FinishedRun",
    "Job",
    "find_job",
    "finished_runs",
    "run_job",
]

JOBS_GROUP = "circuits.jobs"
_PACKAGES = ("circuit-registry", "torch", "transformers", "transformer_lens", "numpy")
_LONGEST_ERROR = 2_000


class Configuration(BaseModel):
    """Base class of all configurations of jobs; a configuration is recorded with its run.

    A configuration is immutable. Unknown fields, NaN and infinite numbers are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def resolved(self, registry: Registry) -> Self:  # noqa: ARG002
        """Return the configuration with unambiguous names, as the run records it.

        For example, it replaces the first digits of a circuit's id, which another circuit may share
        later, by the full id.

        Raises:
            BadInput, NotFound: A name does not exist, or is ambiguous.
        """
        return self


C = TypeVar("C", bound=Configuration)
P = TypeVar("P")
R = TypeVar("R", Evaluation, Edit, Annotation)
C_contra = TypeVar("C_contra", bound=Configuration, contravariant=True)


@dataclass(frozen=True)
class Finding:
    """The results of a job: records, the files that they refer to, and a summary for people.

    Attributes:
        batch: Records, without the run. Circuits, evaluations and edits need not name their run.
        artifacts: Files to store before the records, by their content.
        summary: The result in a few fields.
        rows: The result as a table, all rows with the same fields; () if one row, the summary, is
            enough.
        notes: The result in words, and further notes.
        files: Named files of the run, or of its results: plots, masks, tables.
    """

    batch: Batch
    artifacts: tuple[bytes, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[NamedFile, ...] = ()


@dataclass(frozen=True)
class FinishedRun:
    """A finished run and its results."""

    run: Run
    finding: Finding


class Job(Protocol[C_contra, P]):
    """An object that finds circuits; the module describes the order of its steps.

    ``version`` must change when equal configurations give different results than before.
    """

    @property
    def name(self) -> str:
        """Name of the job, such as ``edge-attribution``."""

    @property
    def version(self) -> str:
        """Version of the job's computation."""

    def prepare(self, configuration: C_contra, registry: Registry, progress: Progress) -> P:
        """Read and check all input.

        Raises:
            BadInput, NotFound, MissingExtra: An input is wrong; nothing is recorded. After any
                other error the run is recorded as failed.
        """

    def device(self, prepared: P) -> str:
        """Return the device of the computation."""

    def compute(self, prepared: P, progress: Progress) -> Finding:
        """Do the work; store nothing."""


def find_job(name: str) -> Any:
    """Return the job with that name, from the entry-point group ``circuits.jobs``.

    Raises:
        NotFound: No job has this name; the text lists all names.
        PluginBroken: It is from another package and broken.
    """
    return plugins.find(JOBS_GROUP, name)


def run_job(
    job: Job[C, P],
    configuration: C,
    registry: Registry,
    *,
    progress: Progress | None = None,
) -> FinishedRun:
    """Run a job and record its results, or how it ended.

    Raises:
        BadInput, NotFound, MissingExtra: If the error comes from ``prepare``, nothing is recorded.
            If it comes later, the run is recorded as failed, like after any other error.
        MeasureOutOfRange: The job computed a value that its measure cannot have; the run is
            recorded as failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run is recorded as interrupted.
        SystemExit, GeneratorExit: The job raised it; the run is recorded as failed.
    """
    registry.interrupt_dead_runs()
    stages = StageLog(progress or Silent())
    configuration = configuration.resolved(registry)
    run = _new_run(job, configuration)
    with _stoppable(), computed_here(run.id), _recorded_end(run, registry) as ending:
        prepared = job.prepare(configuration, registry, stages)
        run = ending.started(run.model_copy(update={"device": job.device(prepared)}))
        with beating(registry.ledger, run.id, stages):
            finding = job.compute(prepared, stages)
            refuse_values(finding.batch.evaluations, finding.batch.outcomes)
            stages.stage("storing")
            for data in finding.artifacts:
                registry.store_artifact(data)
            finished = _ended(run, RunStatus.FINISHED)
            batch = _with_run(finding.batch, finished)
            attached = store_files(registry, finding.files, batch, finished)
            registry.record(replace(batch, attachments=(*batch.attachments, *attached)))
    return FinishedRun(finished, finding)


def finished_runs(
    job: Job[C, Any], configuration: C, registry: Registry, *, whatever: str | None = None
) -> list[Run]:
    """Return finished runs of a job with the same configuration, newest first.

    Args:
        job: Only its name and version matter.
        configuration: The configuration of the runs.
        registry: The registry of the runs.
        whatever: Name of a field in which their configurations may differ.
    """
    wanted = _new_run(job, configuration.resolved(registry))
    which = RunFilter(status=RunStatus.FINISHED, job=wanted.job)
    return [
        run
        for run in registry.ledger.runs_page(which).items
        if run.version == wanted.version and _told(run, whatever) == _told(wanted, whatever)
    ]


def _told(run: Run, whatever: str | None) -> str:
    rest = {name: value for name, value in run.configuration.items() if name != whatever}
    return run.model_copy(update={"configuration": rest}).configuration_sha256


@contextmanager
def _recorded_end(run: Run, registry: Registry) -> Iterator[_Ending]:
    ending = _Ending(run, registry)
    try:
        yield ending
    except KeyboardInterrupt as error:
        ending.record(RunStatus.INTERRUPTED, error)
        raise
    except (BadInput, NotFound, MissingExtra) as error:
        if ending.is_started:
            ending.record(RunStatus.FAILED, error)
        raise
    except BaseException as error:  # also SystemExit and GeneratorExit, which libraries raise
        ending.record(RunStatus.FAILED, error)
        raise


class _Ending:
    """Records the end of a run that did not finish."""

    def __init__(self, run: Run, registry: Registry) -> None:
        self._run = run
        self._registry = registry
        self.is_started = False

    def started(self, run: Run) -> Run:
        """Record the run as running, in this process."""
        self._run = run
        self._registry.record(self._with_process(run))
        self.is_started = True
        return run

    def record(self, status: RunStatus, error: BaseException) -> None:
        """Record the end, unless the run is already recorded as finished.

        Args:
            status: How the run ended.
            error: What ended it. It gets a note if the end cannot be recorded.
        """
        with _deaf():
            try:
                if not self._has_finished():
                    ended = _ended(self._run, status, error)
                    # A run that ends before it started is recorded here for the first time.
                    batch = Batch(runs=[ended]) if self.is_started else self._with_process(ended)
                    self._registry.record(batch)
            except Exception as also:  # noqa: BLE001
                # The error that ended the job is more useful than any error of recording it.
                error.add_note(f"the run could not be recorded as {status}: {_text_of(also)}")

    @staticmethod
    def _with_process(run: Run) -> Batch:
        """A run that the ledger does not have yet, computed by this process."""
        return Batch(runs=[run], processes={run.id: this_process()})

    def _has_finished(self) -> bool:
        stored = self._registry.ledger.runs([self._run.id])
        return any(run.status is RunStatus.FINISHED for run in stored)


def _new_run(job: Job[Any, Any], configuration: Configuration) -> Run:
    return Run(
        id=uuid.uuid4().hex,
        job=job.name,
        version=job.version,
        configuration=configuration.model_dump(mode="json", exclude_none=True),
        started_at=datetime.now(UTC),
        packages=_package_versions(),
    )


def _package_versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _ended(run: Run, status: RunStatus, error: BaseException | None = None) -> Run:
    text = _text_of(error) if error is not None and status is RunStatus.FAILED else None
    changes = {"status": status, "finished_at": datetime.now(UTC), "error": text}
    return run.model_copy(update=changes)


def _text_of(error: BaseException) -> str:
    """Return an error's name and text, without passwords, as a run can hold it."""
    try:
        said = str(error)
    except Exception as also:  # noqa: BLE001 - of a library that computes its text
        said = f"its text cannot be read ({type(also).__name__})"
    return as_storable(scrubbed(f"{type(error).__name__}: {said}"))[:_LONGEST_ERROR]


def _with_run(batch: Batch, run: Run) -> Batch:
    """Return the batch with its run; records that name no run then name this one."""
    return replace(
        batch,
        runs=(*batch.runs, run),
        circuits=tuple(replace(new, run=new.run or run.id) for new in batch.circuits),
        evaluations=tuple(_of_run(one, run) for one in batch.evaluations),
        edits=tuple(_of_run(edit, run) for edit in batch.edits),
        annotations=tuple(_of_run(said, run) for said in batch.annotations),
    )


def _of_run(record: R, run: Run) -> R:
    return record if record.run is not None else record.model_copy(update={"run": run.id})


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the work in the same way as Ctrl-C."""
    with _handling((signal.SIGTERM,), _interrupt):
        yield


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore a second Ctrl-C or SIGTERM while the run's end is recorded."""
    with _handling((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN):
        yield


@contextmanager
def _handling(
    signals: tuple[signal.Signals, ...],
    handler: signal.Handlers | Callable[[int, FrameType | None], None],
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt
