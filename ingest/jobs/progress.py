"""The progress of a job, for people: a bar on a terminal, otherwise lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["Progress", "Report", "Silent", "show_progress"]

Report = Callable[[int, int], None]
"""Called with the number of finished items and the total."""

_SECONDS_BETWEEN_LINES = 5.0
_MOST_BARS = 10

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Receives the progress of a job."""

    def stage(self, title: str) -> Report:
        """Begin a stage of the work; call the result as it advances, if it can be counted."""


class Silent:
    """Reports nothing; for notebooks and tests."""

    def stage(self, title: str) -> Report:  # noqa: ARG002
        """Begin a stage that is not reported."""
        return lambda _done, _total: None


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Show a bar with an estimate if standard error is a terminal, else write log lines."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with _bars() as bars:
        yield _Bars(bars)


class _Lines:
    """Progress as log lines, one per stage and then one every few seconds."""

    def stage(self, title: str) -> Report:
        log.info("%s", title)
        started = said = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal said
            now = time.monotonic()
            if done and now - said >= _SECONDS_BETWEEN_LINES:
                said = now
                left = (now - started) / done * (total - done)
                log.info("%s: %d of %d, about %.0f s left", title, done, total, left)

        return report


class _Bars:
    """Progress as one bar per stage; a bar is full when the next one begins.

    Of many stages the last ones are shown, because a terminal cuts off lines that do not fit.
    """

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars

    def stage(self, title: str) -> Report:
        for task in self._bars.tasks:
            self._bars.update(task.id, total=task.total or 1, completed=task.total or 1)
        for task in self._bars.tasks[: 1 - _MOST_BARS]:
            self._bars.remove_task(task.id)
        current = self._bars.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            self._bars.update(current, completed=done, total=total)

        return report


def _bars() -> RichProgress:
    # Imported on demand: the command line's help does not need it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
