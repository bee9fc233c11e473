"""A campaign: many runs of jobs towards one end, each recorded on its own.

A job stores what it found when it is over, all or nothing: right for a minute, wrong for an hour. A
campaign is a plan of runs. Before each it looks whether a finished run that was told the
same is recorded already (:func:`ingest.jobs.base.finished_runs`), so a campaign that was stopped,
however it was, goes on where it stopped when it is started again, and a complete one does nothing.
So the configurations it makes must follow from its own and from the record alone: ids whole, lists
in a fixed order, no time, no chance.
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
    """What a job or a campaign came to, for people; the record has it all.

    Attributes:
        rows: The result as a table, all rows with the same fields.
        notes: What is to be known besides.
    """

    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()


@runtime_checkable
class Campaign(Protocol[C_contra]):
    """Something that makes runs of jobs; see the module. Has no run of its own."""

    @property
    def name(self) -> str:
        """``matrix``."""

    def run(self, configuration: C_contra, registry: Registry, progress: Progress) -> Account:
        """Make the runs that are not there yet.

        A run that fails for a reason of its own does not end the others.

        Raises:
            BadInput, NotFound, MissingExtra: What is asked for is wrong; nothing was recorded.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the runs that had finished stay.
        """


def discover(
    work: Job[C, Any] | Campaign[C],
    configuration: C,
    registry: Registry,
    *,
    progress: Progress | None = None,
) -> Account:
    """Run a job or a campaign, whichever it is.

    Raises:
        Exception: As from :func:`ingest.jobs.base.run_job` and :meth:`Campaign.run`.
    """
    if isinstance(work, Campaign):
        return work.run(configuration, registry, progress or Silent())
    finding = run_job(work, configuration, registry, progress=progress).finding
    return Account(finding.rows or (finding.summary,), finding.notes)


class NumberedRuns:
    """Progress of runs that says which of how many it is, and for how long there is work left.

    The time left is known once a run of each kind that is still to come has been made.

    Args:
        progress: Who is told.
        sizes: Of all runs to come, in order: their kind, and how much work one is beside others of
            its kind.
    """

    def __init__(self, progress: Progress, sizes: Sequence[tuple[str, float]]) -> None:
        self._progress = progress
        self._sizes = sizes
        self._at = 0
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._made: dict[str, float] = {}

    def begin(self) -> None:
        """The next run begins, or turns out to be there already."""
        self._started = time.monotonic()
        self._at += 1

    def made(self) -> None:
        """The run that began was made to its end."""
        kind, size = self._sizes[self._at - 1]
        spent = time.monotonic() - self._started
        self._seconds[kind] = self._seconds.get(kind, 0.0) + spent
        self._made[kind] = self._made.get(kind, 0.0) + size

    def stage(self, title: str) -> Report:
        """Begin a stage of the present run."""
        seconds = self.seconds_left()
        left = "" if seconds is None else f", about {_duration(seconds)} left"
        return self._progress.stage(f"run {self._at} of {len(self._sizes)}{left}: {title}")

    def seconds_left(self) -> float | None:
        """For the present run and all that follow; None where it cannot be known."""
        left = 0.0
        for kind, size in self._sizes[max(self._at - 1, 0) :]:
            if kind not in self._made:
                return None
            left += size * self._seconds[kind] / self._made[kind]
        return left


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
