"""A thread that shows that a run is alive, and records the stages of its work.

The thread is independent of the work: torch lets other threads run while it computes. If the ledger
is busy or unavailable and does not accept a beat, the beat is skipped. The next beat contains all
stages again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from ingest.jobs.progress import Progress, Report
from registry.credentials import scrubbed
from registry.errors import LedgerError
from registry.ledger.base import Ledger, Stage
from registry.lives import BEAT_SECONDS
from registry.texts.storable import as_storable

__all__ = ["StageLog", "beating"]

_MOST_STAGES = 100
_LONGEST_TITLE = 200
_SECONDS_TOGETHER = 0.5
"""Stages that begin within this time are recorded together."""

log = logging.getLogger(__name__)


class StageLog:
    """Progress that remembers the stages, and passes everything on to another progress.

    Only the last 100 stages are remembered.

    Args:
        progress: Also receives the progress.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stages: list[Stage] = []
        self._guard = threading.Lock()
        self.news = threading.Event()
        """Set when a stage begins."""

    def stage(self, title: str) -> Report:
        """Begin a stage of the work."""
        shown = as_storable(scrubbed(title))
        cut = shown if len(shown) <= _LONGEST_TITLE else f"{shown[:_LONGEST_TITLE]}..."
        stage = Stage(cut, datetime.now(UTC))
        with self._guard:
            self._stages.append(stage)
            del self._stages[:-_MOST_STAGES]
        self.news.set()
        tell = self._progress.stage(title)

        def report(done: int, total: int) -> None:
            nonlocal stage
            counted = replace(stage, done=int(done), total=int(total))
            with self._guard:
                if self._stages and self._stages[-1] is stage:
                    self._stages[-1] = stage = counted
            tell(done, total)

        return report

    def stages(self) -> tuple[Stage, ...]:
        """The stages so far."""
        with self._guard:
            return tuple(self._stages)


@contextmanager
def beating(
    ledger: Ledger, run: str, stages: StageLog, *, seconds: float = BEAT_SECONDS
) -> Iterator[None]:
    """Show that a recorded run is alive, until the context ends.

    Args:
        ledger: The ledger of the run.
        run: Its id.
        stages: Stages of its work; they are also recorded when the context ends.
        seconds: Time between two beats; the beginning of a stage is recorded at once.
    """
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.is_set():
            stages.news.wait(seconds)
            stages.news.clear()
            if stopped.wait(min(seconds, _SECONDS_TOGETHER)):
                return
            _note(lambda: ledger.beat(run, stages.stages()))

    thread = threading.Thread(target=beat, name=f"heartbeat of run {run[:12]}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        stages.news.set()
        # The thread must end first: a beat after the run's end would undo the end.
        thread.join()
        _note(lambda: ledger.keep_stages(run, stages.stages()))


def _note(what: Callable[[], None]) -> None:
    try:
        what()
    except LedgerError as error:
        log.debug("the run could not be shown as alive: %s", error)
