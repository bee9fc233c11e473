"""A campaign: many runs of jobs for one purpose, each recorded separately.

A job stores all its results at its end. This is suitable for a job of one minute, but not for a job
of one hour. A campaign is a plan of runs. Before each run it checks whether a finished run with the
same configuration is already recorded (:func:`ingest.jobs.base.finished_runs`). So a campaign that
was stopped in any way continues when it is started again, and a complete campaign does nothing.
Therefore the configurations of its runs must depend only on its own configuration and on the
record: full ids, lists in a fixed order, no time, no randomness.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from ingest.jobs.base import Configuration, Job, run_job
from ingest.jobs.progress import Progress, Report, Silent

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Account", "Campaign", "NumberedRuns", "discover"]

C = TypeVar("C", bound=Configuration)
C_contra = TypeVar("C_contra", bound=Configuration, contravariant=True)


@dataclass(frozen=True)
class Account:
    """The results of a job or a campaign, for people; the record has all details.

    Attributes:
        rows: The result as a table, all rows with the same fields.
        notes: Further notes.
    """

    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


@runtime_checkable
class Campaign(Protocol[C_contra]):
    """An object that makes runs of jobs; see the module. It is not recorded as a run itself."""

    @property
    def name(self) -> str:
        """Name of the campaign, such as ``matrix``."""

    def run(self, configuration: C_contra, registry: Registry, progress: Progress) -> Account:
        """Make the runs that do not exist yet.

        A run that fails because of its own task does not end the others.

        Raises:
            BadInput, NotFound, MissingExtra: The configuration is wrong; nothing was recorded.
            KeyboardInterrupt: Ctrl-C or SIGTERM; runs that had finished stay recorded.
        """


def discover(
    work: Job[C, Any] | Campaign[C],
    configuration: C,
    registry: Registry,
    *,
    progress: Progress | None = None,
) -> Account:
    """Run a job or a campaign.

    Raises:
        Exception: See :func:`ingest.jobs.base.run_job` and :meth:`Campaign.run`.
    """
    if isinstance(work, Campaign):
        return work.run(configuration, registry, progress or Silent())
    finding = run_job(work, configuration, registry, progress=progress).finding
    return Account(finding.rows or (finding.summary,), finding.notes)


class NumberedRuns:
    """Progress of runs with the number of the current run and the remaining time.

    The remaining time is known when a run of each remaining kind was completed.

    Args:
        progress: Receives the progress.
        sizes: For each run, in order: its kind, and its amount of work relative to other runs of
            that kind.
    """

    def __init__(self, progress: Progress, sizes: Sequence[tuple[str, float]]) -> None:
        self._progress = progress
        self._sizes = sizes
        self._at = 0
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._made: dict[str, float] = {}

    def begin(self) -> None:
        """Note that the next run begins, or exists already."""
        self._started = time.monotonic()
        self._at += 1

    def made(self) -> None:
        """Note that the run that began was completed."""
        kind, size = self._sizes[self._at - 1]
        spent = time.monotonic() - self._started
        self._seconds[kind] = self._seconds.get(kind, 0.0) + spent
        self._made[kind] = self._made.get(kind, 0.0) + size

    def stage(self, title: str) -> Report:
        """Begin a stage of the current run."""
        seconds = self.seconds_left()
        left = "" if seconds is None else f", about {_duration(seconds)} left"
        return self._progress.stage(f"run {self._at} of {len(self._sizes)}{left}: {title}")

    def seconds_left(self) -> float | None:
        """Return the time for the current and all later runs; None if it is unknown."""
        left = 0.0
        for kind, size in self._sizes[max(self._at - 1, 0) :]:
            if kind not in self._made:
                return None
            left += size * self._seconds[kind] / self._made[kind]
        return left


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
