"""The part of the ledger's contract that is about runs that live, end and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from registry.ledger import tables
from registry.ledger.base import Batch, Change, ChangeKind, Ledger, Stage
from registry.ledger.engine import writing
from registry.ledger.sql import SqlLedger
from registry.lives import (
    CONFIRMED_AFTER,
    LONGEST_SILENCE,
    Standing,
    computed_here,
    interrupt_dead_runs,
    standing,
)
from registry.processes import Process, this_process
from registry.records import Run, RunStatus
from tests.conformance.ledger_examples import NOON, contents

RUN = Run(id="7" * 32, job="edge-attribution", version="1", started_at=NOON)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about processes")


def elsewhere(**changes: Any) -> Process:
    """A process of another host that has the number of this one."""
    return replace(this_process(), **{"host": "elsewhere", "boot": "another boot", **changes})


def begin(ledger: Ledger, process: Process | None, run: Run = RUN) -> None:
    ledger.record(Batch(runs=[run], processes={} if process is None else {run.id: process}))


def move(ledger: Ledger, **values: Any) -> None:
    """Change what the run's row says, as a clock that was set would have it."""
    assert isinstance(ledger, SqlLedger)
    with writing(ledger._engine) as connection:
        connection.execute(update(tables.runs).where(tables.runs.c.id == RUN.id).values(values))


def ago(ledger: Ledger, time: timedelta) -> datetime:
    """A moment so long ago by the ledger's clock."""
    return ledger.lives([RUN.id])[RUN.id].now - time


def status(ledger: Ledger) -> RunStatus:
    return ledger.run(RUN.id).status


@contextmanager
def sleeping() -> Iterator[tuple[subprocess.Popen[str], Process]]:
    """A process that does nothing, and how it is named."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        yield process, replace(this_process(), pid=process.pid, started=started(process.pid))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def started(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[19]


class LivesContract:
    # -- what is noted -----------------------------------------------------------------------

    def test_a_run_names_its_process_and_counts_its_beats(self, ledger: Ledger) -> None:
        begin(ledger, elsewhere())
        life = ledger.lives()[RUN.id]
        assert (life.process, life.beats, life.stages) == (elsewhere(), 1, ())
        assert life.beat_at is not None
        assert timedelta(0) <= life.now - life.beat_at < MINUTE
        stages = (Stage("scoring", NOON, 3, 8), Stage("storing", NOON + SECOND))
        ledger.beat(RUN.id, stages)
        again = ledger.lives([RUN.id])[RUN.id]
        assert (again.beats, again.stages) == (2, stages)
        assert again.beat_at is not None
        assert again.beat_at >= life.beat_at
        assert ledger.lives(["f" * 32]) == {}

    def test_beats_and_stages_make_no_revision_and_change_no_record(self, ledger: Ledger) -> None:
        begin(ledger, elsewhere())
        before = ledger.revision(), ledger.run(RUN.id)
        ledger.beat(RUN.id)
        ledger.note_silence(RUN.id, 2)
        ledger.keep_stages(RUN.id, [Stage("scoring", NOON)])
        assert (ledger.revision(), ledger.run(RUN.id)) == before

    def test_a_run_that_ended_lives_no_more_and_keeps_its_stages(self, ledger: Ledger) -> None:
        begin(ledger, elsewhere())
        ledger.beat(RUN.id, [Stage("scoring", NOON)])
        finished = RUN.model_copy(update={"status": RunStatus.FINISHED})
        ledger.record(Batch(runs=[finished]))
        ledger.beat(RUN.id, [])
        ledger.keep_stages(RUN.id, [Stage("storing", NOON)])
        assert ledger.lives() == {}
        life = ledger.lives([RUN.id])[RUN.id]
        assert (life.process, life.beats) == (elsewhere(), 2)
        assert [stage.title for stage in life.stages] == ["storing"]
        assert ledger.run(RUN.id) == finished

    def test_lives_are_dumped_and_loaded(self, ledger: Ledger, other: Ledger) -> None:
        begin(ledger, elsewhere())
        ledger.beat(RUN.id, [Stage("scoring", NOON, 1, 2)])
        ledger.note_silence(RUN.id, 2)
        other.load(contents(ledger))
        there, here = other.lives()[RUN.id], ledger.lives()[RUN.id]
        assert replace(there, now=NOON) == replace(here, now=NOON)

    def test_rows_of_before_there_were_lives_are_loaded(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        begin(ledger, elsewhere())
        later = {"host", "pid", "process_started", "boot", "beats", "beat_at"}
        later |= {"seen_beats", "seen_at", "stages"}
        rows = [
            (table, {key: value for key, value in row.items() if key not in later})
            for table, row in contents(ledger)
        ]
        rows[0] = ("ledger_revision", {"version_num": "0003"})
        other.load(rows)
        assert other.runs() == ledger.runs()
        assert other.lives()[RUN.id].process is None

    # -- being taken for dead ----------------------------------------------------------------

    def test_a_dead_run_becomes_interrupted_and_the_graph_hears_of_it(self, ledger: Ledger) -> None:
        begin(ledger, elsewhere())
        before = ledger.revision()
        assert ledger.interrupt(RUN.id, beats=1, error="gone")
        assert ledger.run(RUN.id) == RUN.model_copy(
            update={"status": RunStatus.INTERRUPTED, "error": "gone"}
        )
        changed = ledger.changes_since(before.number).changes
        assert changed == (Change(ChangeKind.RUN, RUN.id),)
        assert not ledger.interrupt(RUN.id, beats=1, error="gone again")

    def test_a_run_that_showed_itself_meanwhile_is_not_interrupted(self, ledger: Ledger) -> None:
        begin(ledger, elsewhere())
        ledger.beat(RUN.id)
        assert not ledger.interrupt(RUN.id, beats=1, error="gone")
        assert status(ledger) is RunStatus.RUNNING

    @pytest.mark.parametrize("ended", [RunStatus.FINISHED, RunStatus.FAILED])
    def test_a_run_that_ended_is_not_interrupted(self, ledger: Ledger, ended: RunStatus) -> None:
        begin(ledger, elsewhere())
        ledger.record(Batch(runs=[RUN.model_copy(update={"status": ended})]))
        assert not ledger.interrupt(RUN.id, beats=1, error="gone")
        assert status(ledger) is ended

    def test_a_run_that_finishes_at_the_same_moment_is_finished(self, ledger: Ledger) -> None:
        for number in range(20):
            run = RUN.model_copy(update={"id": f"{number:032x}"})
            begin(ledger, elsewhere(), run)
            done = Batch(runs=[run.model_copy(update={"status": RunStatus.FINISHED})])
            barrier = threading.Barrier(2)

            def finish(done: Batch = done, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                ledger.record(done)

            thread = threading.Thread(target=finish)
            thread.start()
            barrier.wait()
            ledger.interrupt(run.id, beats=1, error="gone")
            thread.join()
            assert ledger.run(run.id) == done.runs[0]

    def test_a_run_that_was_taken_for_dead_and_shows_itself_is_running(
        self, ledger: Ledger
    ) -> None:
        begin(ledger, elsewhere())
        ledger.interrupt(RUN.id, beats=1, error="gone")
        before = ledger.revision()
        ledger.beat(RUN.id)
        assert ledger.run(RUN.id) == RUN
        assert ledger.changes_since(before.number).changes == (Change(ChangeKind.RUN, RUN.id),)

    # -- processes that can be seen ----------------------------------------------------------

    @linux
    def test_a_run_whose_host_slept_lives(self, ledger: Ledger) -> None:
        with sleeping() as (_, process):
            begin(ledger, process)
            for at in (ago(ledger, timedelta(days=9)), ago(ledger, -timedelta(days=9))):
                move(ledger, beat_at=at, seen_beats=1, seen_at=ago(ledger, timedelta(days=8)))
                assert interrupt_dead_runs(ledger) == ()
        assert status(ledger) is RunStatus.RUNNING

    @linux
    def test_a_run_whose_process_was_stopped_lives(self, ledger: Ledger) -> None:
        with sleeping() as (child, process):
            begin(ledger, process)
            child.send_signal(signal.SIGSTOP)
            move(ledger, beat_at=ago(ledger, timedelta(days=9)))
            assert interrupt_dead_runs(ledger) == ()

    @linux
    def test_a_run_whose_process_was_killed_is_dead_at_once(self, ledger: Ledger) -> None:
        with sleeping() as (child, process):
            begin(ledger, process)
            assert interrupt_dead_runs(ledger) == ()
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            # Its parent has not asked yet how it ended, so that the number is still there.
            assert interrupt_dead_runs(ledger) == (RUN.id,)
        run = ledger.run(RUN.id)
        assert run.status is RunStatus.INTERRUPTED
        assert run.error == (
            f"the process that computed it (number {process.pid} on {process.host}) ended without"
            " recording how"
        )

    @linux
    def test_a_run_whose_process_is_no_more_there_is_dead_at_once(self, ledger: Ledger) -> None:
        with sleeping() as (_, process):
            begin(ledger, process)
        assert interrupt_dead_runs(ledger) == (RUN.id,)

    @linux
    def test_another_process_with_the_same_number_does_not_keep_a_run_alive(
        self, ledger: Ledger
    ) -> None:
        with sleeping() as (_, process):
            begin(ledger, replace(process, started=str(int(process.started or 0) - 1)))
            assert interrupt_dead_runs(ledger) == (RUN.id,)

    @linux
    def test_of_this_process_the_runs_live_that_it_computes(self, ledger: Ledger) -> None:
        begin(ledger, this_process())
        with computed_here(RUN.id):
            assert interrupt_dead_runs(ledger) == ()
        assert interrupt_dead_runs(ledger) == (RUN.id,)

    # -- processes that cannot be seen -------------------------------------------------------

    @pytest.mark.parametrize(
        "process",
        [
            elsewhere(),
            elsewhere(pid=2**22 + 1),
            elsewhere(host=this_process().host),  # such as a container of the same image
            elsewhere(boot=None, started=None),
            None,
        ],
        ids=["same number", "unused number", "same name of host", "nothing known", "no process"],
    )
    def test_a_run_of_another_host_dies_of_long_silence_that_was_seen_twice(
        self, ledger: Ledger, process: Process | None
    ) -> None:
        begin(ledger, process)
        when = "started_at" if process is None else "beat_at"
        move(ledger, **{when: ago(ledger, LONGEST_SILENCE - MINUTE)})
        assert interrupt_dead_runs(ledger) == ()
        assert ledger.lives()[RUN.id].seen_at is None
        move(ledger, **{when: ago(ledger, LONGEST_SILENCE + MINUTE)})
        for _ in range(3):
            assert interrupt_dead_runs(ledger) == ()
        move(ledger, seen_at=ago(ledger, CONFIRMED_AFTER - MINUTE))
        assert interrupt_dead_runs(ledger) == ()
        move(ledger, seen_at=ago(ledger, CONFIRMED_AFTER + MINUTE))
        assert interrupt_dead_runs(ledger) == (RUN.id,)
        error = ledger.run(RUN.id).error or ""
        assert error.startswith("no heartbeat of the process that computed it")

    def test_a_clock_that_was_set_forward_kills_no_run_that_shows_itself(
        self, ledger: Ledger
    ) -> None:
        begin(ledger, elsewhere())
        move(ledger, beat_at=ago(ledger, timedelta(days=400)))
        assert interrupt_dead_runs(ledger) == ()
        ledger.beat(RUN.id)
        move(ledger, seen_at=ago(ledger, timedelta(days=300)))
        move(ledger, beat_at=ago(ledger, timedelta(days=200)))  # set forward once more
        assert interrupt_dead_runs(ledger) == ()
        assert ledger.lives()[RUN.id].seen_beats == 2

    def test_a_clock_that_was_set_back_neither_kills_a_run_nor_keeps_it_for_ever(
        self, ledger: Ledger
    ) -> None:
        begin(ledger, elsewhere())
        move(ledger, beat_at=ago(ledger, -timedelta(days=400)))
        assert standing(ledger.lives()[RUN.id]) is Standing.SILENT
        assert interrupt_dead_runs(ledger) == ()
        move(ledger, seen_at=ago(ledger, -MINUTE))  # set back after the first look, too
        assert interrupt_dead_runs(ledger) == ()
        seen_at = ledger.lives()[RUN.id].seen_at
        assert seen_at is not None
        assert seen_at <= datetime.now(UTC)
        move(ledger, seen_at=ago(ledger, LONGEST_SILENCE - MINUTE))
        assert interrupt_dead_runs(ledger) == ()
        move(ledger, seen_at=ago(ledger, LONGEST_SILENCE + MINUTE))
        assert interrupt_dead_runs(ledger) == (RUN.id,)
