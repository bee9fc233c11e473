"""Decide which runs recorded as running are alive, and which died without recording an end.

A job that is killed, or whose host loses power, cannot record how it ended. Therefore each run
records the process that computes it (:mod:`registry.processes`), and this process writes a
heartbeat (a *beat*) to the ledger every :data:`BEAT_SECONDS` seconds; the ledger's clock dates and
counts the beats. A *reader* (``circuits status``, ``doctor``, ``runs``, a job that begins) records
dead runs as interrupted, by these rules, in this order:

1. **The process is visible from here**: same boot, same namespace of process numbers. Then the
   system knows whether the process is alive. It is gone if its number does not exist, if the number
   belongs to a process that was started at another time, or if it has ended and waits for its
   parent. Beats and clocks do not count: a host that slept, a stopped process or a changed clock
   makes no difference. Runs that name the reader's own process are dead if that process is not
   computing them.
2. **The process is not visible**: another host, another boot of this host, another container, or a
   process about which the system shows nothing. Then only a long silence counts, confirmed by a
   second check. If the last beat is older than :data:`LONGEST_SILENCE`, the reader notes in the
   ledger how many beats it saw. If a reader finds the same number :data:`CONFIRMED_AFTER` later,
   the run is dead. Thus a clock that was set forward ends no run: a run that is alive beats in
   between. If the last beat is in the future, a clock was set back and the beat's age is
   meaningless; then the same number must be found :data:`LONGEST_SILENCE` after it was noted.

In PostgreSQL, both times come from one clock, the server's. A SQLite ledger has no clock; it uses
those of the readers' and writers' hosts. Rule 2 is correct as long as these differ by less than a
day.

Rule 2 can still be wrong: for example, a laptop with a PostgreSQL ledger elsewhere is closed over
the weekend while another host checks. The error does not last. The next beat of a run that was
wrongly recorded as dead makes it running again, and a job that ends records its end in any case. A
run without a recorded process (of an earlier version, or imported) is judged by rule 2, from the
upgrade of the ledger, or otherwise from its begin.

The end is recorded in one conditional statement: if a run ends or beats at the same moment, its own
record wins.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum

from registry.ledger.base import Ledger, Life
from registry.processes import is_alive, this_process

__all__ = [
    "BEAT_SECONDS",
    "CONFIRMED_AFTER",
    "LONGEST_SILENCE",
    "Standing",
    "computed_here",
    "interrupt_dead_runs",
    "standing",
]

BEAT_SECONDS = 15.0
"""Interval of the heartbeats."""

LONGEST_SILENCE = timedelta(hours=24)
"""Maximum silence of a run on another host."""

CONFIRMED_AFTER = timedelta(minutes=5)
"""Time until the second check of the silence; many times the interval of the beats."""

_here: set[str] = set()
_guard = threading.Lock()


class Standing(StrEnum):
    """The state of a run that is recorded as running."""

    ALIVE = "alive"
    GONE = "gone"
    SILENT = "silent"
    UNSEEN = "unseen"


@contextmanager
def computed_here(run: str) -> Iterator[None]:
    """Declare that this process computes a run, while the context lasts."""
    with _guard:
        _here.add(run)
    try:
        yield
    finally:
        with _guard:
            _here.discard(run)


def standing(life: Life) -> Standing:
    """The state of a run, as far as this process can see.

    Returns:
        Alive or gone if the system knows (rule 1). Otherwise silent, if its last beat is too
        old or in the future, or else unseen: it beat recently, or may have done so.
    """
    alive = None if life.process is None else is_alive(life.process)
    if alive and life.process == this_process():
        alive = life.run in _here
    if alive is not None:
        return Standing.ALIVE if alive else Standing.GONE
    silence = life.now - (life.beat_at or life.started_at)
    is_heard = timedelta(0) <= silence <= LONGEST_SILENCE
    return Standing.UNSEEN if is_heard else Standing.SILENT


def interrupt_dead_runs(ledger: Ledger) -> tuple[str, ...]:
    """Record dead runs as interrupted, and note the beats of silent runs; see the module.

    Returns:
        Ids of the runs that were recorded as interrupted.

    Raises:
        LedgerError: The ledger cannot be read or written.
    """
    ended = []
    for run, life in ledger.lives().items():
        how = standing(life)
        if how is Standing.SILENT and not _is_confirmed(life):
            if not _is_noted(life):
                ledger.note_silence(run, life.beats)
        elif how in (Standing.GONE, Standing.SILENT) and ledger.interrupt(
            run, beats=life.beats, error=_why(life, how)
        ):
            ended.append(run)
    return tuple(ended)


def _is_noted(life: Life) -> bool:
    """Whether a reader noted the same number of beats, at a time not in the future."""
    return life.seen_beats == life.beats and life.seen_at is not None and life.seen_at <= life.now


def _is_confirmed(life: Life) -> bool:
    """Whether the same number of beats was noted long enough ago."""
    if not _is_noted(life) or life.seen_at is None:
        return False
    is_dated = (life.beat_at or life.started_at) <= life.now
    return life.now - life.seen_at > (CONFIRMED_AFTER if is_dated else LONGEST_SILENCE)


def _why(life: Life, how: Standing) -> str:
    whose = "the process that computed it"
    if life.process is not None:
        whose += f" (number {life.process.pid} on {life.process.host})"
    if how is Standing.GONE:
        return f"{whose} ended without recording how"
    last = (life.beat_at or life.started_at).isoformat(timespec="seconds")
    return f"no heartbeat of {whose} since {last}"
