"""What a job is, and how any job runs so that its run is recorded however it ends.

A job first prepares: it reads its inputs and checks them. Input that is wrong ends here with
nothing recorded. Then the run is recorded as running, and the job computes; what it found is
stored in one go with the finished run, artifacts first. A job that fails is recorded as failed
with its error, one that is stopped (Ctrl-C, SIGTERM) as interrupted, and neither leaves results.
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

from ingest.jobs.progress import Progress, Silent
from registry import plugins
from registry.credentials import scrubbed
from registry.errors import BadInput, LedgerError, MissingExtra, NotFound
from registry.ledger.base import Batch
from registry.records import Run, RunStatus

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = [
    "JOBS_GROUP",
    "Configuration",
    "Finding",
    "Job",
    "Outcome",
    "find_job",
    "finished_runs",
    "run_job",
]

JOBS_GROUP = "circuits.jobs"
_PACKAGES = ("circuit-registry", "torch", "transformers", "transformer_lens", "numpy")
_LONGEST_ERROR = 2_000


class Configuration(BaseModel):
    """Base of all jobs' configurations: immutable, closed, finite; recorded with the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def resolved(self, registry: Registry) -> Self:  # noqa: ARG002
        """The same with names that may change their meaning spelt out, as the run records it.

        Such as the first digits of a circuit's id, which another circuit may share tomorrow.

        Raises:
            BadInput, NotFound: A name means nothing, or more than one thing.
        """
        return self


C = TypeVar("C", bound=Configuration)
P = TypeVar("P")
C_contra = TypeVar("C_contra", bound=Configuration, contravariant=True)


@dataclass(frozen=True)
class Finding:
    """What a job found: records, the files they refer to, and a summary for people.

    Attributes:
        batch: Records, without the run. Circuits in it need not name their run.
        artifacts: Files to store before the records, by their content.
        summary: The result in a few fields.
        rows: The result as a table, all rows with the same fields; () where one row, the summary,
            says it all.
        notes: The result in words, and what is to be known besides.
    """

    batch: Batch
    artifacts: tuple[bytes, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A finished run and what it found."""

    run: Run
    finding: Finding


class Job(Protocol[C_contra, P]):
    """Something that finds circuits; see the module for the order of things.

    ``version`` changes when equal configurations would give other results.
    """

    @property
    def name(self) -> str:
        """``edge-attribution``."""

    @property
    def version(self) -> str:
        """Version of the job's arithmetic."""

    def prepare(self, configuration: C_contra, registry: Registry, progress: Progress) -> P:
        """Read and check all input.

        Raises:
            BadInput, NotFound, MissingExtra: Something given is wrong; nothing is recorded.
        """

    def device(self, prepared: P) -> str:
        """The device that will compute."""

    def compute(self, prepared: P, progress: Progress) -> Finding:
        """Do the work; stores nothing."""


def find_job(name: str) -> Any:
    """Return the job of that name, from the entry-point group ``circuits.jobs``.

    Raises:
        NotFound: There is none; the text names all there are.
        PluginBroken: It is another package's and broken.
    """
    return plugins.find(JOBS_GROUP, name)


def run_job(
    job: Job[C, P],
    configuration: C,
    registry: Registry,
    *,
    progress: Progress | None = None,
) -> Outcome:
    """Run a job and record what it found, or how it ended.

    Raises:
        BadInput, NotFound, MissingExtra: While preparing: nothing was recorded. Later, like any
            other error: the run is recorded as failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run is recorded as interrupted.
    """
    progress = progress or Silent()
    configuration = configuration.resolved(registry)
    run = _new_run(job, configuration)
    with _stoppable(), _recorded_end(run, registry) as ending:
        prepared = job.prepare(configuration, registry, progress)
        run = ending.started(run.model_copy(update={"device": job.device(prepared)}))
        finding = job.compute(prepared, progress)
        progress.stage("storing")
        for data in finding.artifacts:
            registry.store_artifact(data)
        finished = _ended(run, RunStatus.FINISHED)
        registry.record(_with_run(finding.batch, finished))
    return Outcome(finished, finding)


def finished_runs(
    job: Job[C, Any], configuration: C, registry: Registry, *, whatever: str | None = None
) -> list[Run]:
    """Finished runs of a job that were told the same, newest first.

    Args:
        job: Its name and version count.
        configuration: What they were told.
        registry: Where they are recorded.
        whatever: A field in which they may differ.
    """
    wanted = _new_run(job, configuration.resolved(registry))
    return [
        run
        for run in registry.ledger.runs()
        if run.status is RunStatus.FINISHED
        and (run.job, run.version) == (wanted.job, wanted.version)
        and _told(run, whatever) == _told(wanted, whatever)
    ]


def _told(run: Run, whatever: str | None) -> str:
    rest = {name: value for name, value in run.configuration.items() if name != whatever}
    return run.model_copy(update={"configuration": rest}).configuration_sha256


@contextmanager
def _recorded_end(run: Run, registry: Registry) -> Iterator[_Ending]:
    ending = _Ending(run, registry)
    try:
        yield ending
    except KeyboardInterrupt:
        ending.record(RunStatus.INTERRUPTED, None)
        raise
    except (BadInput, NotFound, MissingExtra) as error:
        if ending.is_started:
            ending.record(RunStatus.FAILED, error)
        raise
    except Exception as error:
        ending.record(RunStatus.FAILED, error)
        raise


class _Ending:
    """Records how a run that did not finish ended."""

    def __init__(self, run: Run, registry: Registry) -> None:
        self._run = run
        self._registry = registry
        self.is_started = False

    def started(self, run: Run) -> Run:
        """Record the run as running."""
        self._run = run
        self._registry.record(run)
        self.is_started = True
        return run

    def record(self, status: RunStatus, error: BaseException | None) -> None:
        """Record the end, unless the run had finished when it came."""
        with _deaf():
            try:
                if not self._has_finished():
                    self._registry.record(_ended(self._run, status, error))
            except LedgerError as also:
                # The error that ended the job says more than that it could not be recorded.
                if error is not None:
                    error.add_note(f"the run could not be recorded as {status}: {also}")

    def _has_finished(self) -> bool:
        runs = {run.id: run for run in self._registry.ledger.runs()}
        return self._run.id in runs and runs[self._run.id].status is RunStatus.FINISHED


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
    text = None
    if error is not None:
        text = scrubbed(f"{type(error).__name__}: {error}")[:_LONGEST_ERROR]
    changes = {"status": status, "finished_at": datetime.now(UTC), "error": text}
    return run.model_copy(update=changes)


def _with_run(batch: Batch, run: Run) -> Batch:
    circuits = tuple(replace(new, run=new.run or run.id) for new in batch.circuits)
    return replace(batch, runs=(*batch.runs, run), circuits=circuits)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the work the way Ctrl-C does."""
    with _handling((signal.SIGTERM,), _interrupt):
        yield


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a second Ctrl-C not keep the end of the run from being recorded."""
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
