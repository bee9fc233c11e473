"""A run shows that it lives while it computes, and one that was killed is known to be dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ingest.jobs import run_job
from ingest.jobs.heartbeat import StageLog, beating
from ingest.jobs.progress import Progress, Silent
from registry import Registry
from registry.errors import LedgerError
from registry.ledger.base import Batch, Stage
from registry.processes import this_process
from registry.records import Run, RunStatus
from tests.ingest.jobs.test_base import Plain, Told

pytestmark = pytest.mark.seconds

RUN = Run(id="7" * 32, job="plain", version="1", started_at="2026-03-01T12:00:00Z")
DISCOVER = """
import sys
from pathlib import Path
from registry import Registry
from tests.ingest.jobs.discovering import discover
with Registry.open(sys.argv[1]) as registry:
    discover(registry, Path(sys.argv[2]), prompts=400, batch_size=1, method="exact")
"""


class Asks(Plain):
    """Looks at the ledger while it computes."""

    def __init__(self, registry: Registry, ask: Callable[[], None]) -> None:
        self._registry = registry
        self._ask = ask

    def compute(self, prepared: Told, progress: Progress) -> Any:
        for title in ("first", "second"):
            report = progress.stage(title)
            report(1, 2)
        self._ask()
        return super().compute(prepared, progress)


def until(what: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until something holds."""
    ends_at = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends_at, "it never held"
        time.sleep(0.01)


def test_a_run_says_where_it_is_computed_and_lives_until_its_end(registry: Registry) -> None:
    seen: list[Any] = []

    def ask() -> None:
        registry.interrupt_dead_runs()
        seen.extend(registry.ledger.lives().values())

    outcome = run_job(Asks(registry, ask), Told(), registry)
    (life,) = seen
    assert (life.run, life.process) == (outcome.run.id, this_process())
    assert registry.ledger.lives() == {}
    assert registry.ledger.run(outcome.run.id).status is RunStatus.FINISHED


def test_stages_are_kept_with_how_far_they_came(registry: Registry) -> None:
    run = run_job(Asks(registry, lambda: None), Told(), registry).run
    stages = registry.ledger.lives([run.id])[run.id].stages
    assert [(one.title, one.done, one.total) for one in stages] == [
        ("first", 1, 2),
        ("second", 1, 2),
        ("storing", None, None),
    ]
    assert run.started_at <= stages[0].at <= stages[-1].at


def test_a_stage_that_begins_is_noted_before_the_next_beat(registry: Registry) -> None:
    registry.record(Batch(runs=[RUN], processes={RUN.id: this_process()}))
    stages = StageLog(Silent())

    def noted() -> list[str]:
        return [one.title for one in registry.ledger.lives()[RUN.id].stages]

    with beating(registry.ledger, RUN.id, stages, seconds=3_600):
        stages.stage("scoring")
        until(lambda: noted() == ["scoring"])


def test_of_very_many_stages_the_last_ones_are_kept_and_titles_are_cut() -> None:
    stages = StageLog(Silent())
    for number in range(1_000):
        stages.stage(f"{number} postgresql://me:hunter2@host/db " + "x" * 500)
    kept = stages.stages()
    assert kept[-1].title.startswith("999 ")
    assert len(kept) == 100
    assert all(len(one.title) < 250 and "hunter2" not in one.title for one in kept)


def test_it_beats_while_torch_computes(registry: Registry) -> None:
    registry.record(Batch(runs=[RUN], processes={RUN.id: this_process()}))
    matrix = torch.ones(600, 600)
    with beating(registry.ledger, RUN.id, StageLog(Silent()), seconds=0.05):
        ends_at = time.monotonic() + 120

        def beats() -> int:
            return registry.ledger.lives()[RUN.id].beats

        while beats() < 5:
            for _ in range(20):
                matrix @ matrix
            assert time.monotonic() < ends_at


def test_a_ledger_that_is_gone_for_a_while_stops_neither_work_nor_beats(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.record(Batch(runs=[RUN], processes={RUN.id: this_process()}))
    ledger, asked = registry.ledger, []
    beat = ledger.beat

    def busy(run: str, stages: tuple[Stage, ...] = ()) -> None:
        asked.append(run)
        if len(asked) < 3:
            raise LedgerError("another process has been writing for 30 s; try again")
        beat(run, stages)

    monkeypatch.setattr(ledger, "beat", busy)
    with beating(ledger, RUN.id, StageLog(Silent()), seconds=0.02):
        until(lambda: ledger.lives()[RUN.id].beats > 2)


def test_a_run_that_others_took_for_dead_finishes(registry: Registry) -> None:
    def ask() -> None:
        (life,) = registry.ledger.lives().values()
        assert registry.ledger.interrupt(life.run, beats=life.beats, error="taken for dead")

    run = run_job(Asks(registry, ask), Told(), registry).run
    assert registry.ledger.run(run.id) == run
    assert (run.status, run.error) == (RunStatus.FINISHED, None)


def test_a_run_whose_end_could_not_be_recorded_is_dead_for_its_own_process(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def ask() -> None:
            def refuse(*_: Any) -> None:
                raise LedgerError("the database is gone")

            broken.setattr(registry.ledger, "record", refuse)
            raise RuntimeError("out of memory")

        with pytest.raises(RuntimeError, match="out of memory"):
            run_job(Asks(registry, ask), Told(), registry)
    (run,) = registry.ledger.runs()
    assert run.status is RunStatus.RUNNING
    run_job(Plain(), Told(), registry)  # a job that begins looks
    assert registry.ledger.run(run.id).status is RunStatus.INTERRUPTED


@pytest.mark.parametrize("look", ["status", "job"])
def test_a_discovery_that_was_killed_is_interrupted(
    registry: Registry, tiny_model: Path, look: str
) -> None:
    checkout = str(Path(__file__).parents[3])
    child = subprocess.Popen(
        [sys.executable, "-c", DISCOVER, str(registry.settings.home), str(tiny_model)],
        env={**os.environ, "PYTHONPATH": checkout},
    )
    try:
        until(lambda: bool(registry.ledger.runs()) or child.poll() is not None)
        (run,) = registry.ledger.runs()
        registry.status()
        assert registry.ledger.run(run.id).status is RunStatus.RUNNING
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert registry.ledger.run(run.id).status is RunStatus.RUNNING
    if look == "status":
        assert registry.status().runs == {"interrupted": 1}
    else:
        run_job(Plain(), Told(), registry)
    dead = registry.ledger.run(run.id)
    assert dead.status is RunStatus.INTERRUPTED
    assert f"number {child.pid} on " in (dead.error or "")
    (shown,) = registry.cypher("MATCH (r:Run {id: $id}) RETURN r.status AS s", {"id": run.id})
    assert shown == {"s": "interrupted"}
