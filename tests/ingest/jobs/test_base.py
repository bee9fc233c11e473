"""A run is recorded however it ends."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest

from ingest.jobs import Configuration, Finding, find_job, run_job
from ingest.jobs.progress import Progress, Report
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.ledger.base import Batch, NewCircuit
from registry.records import Circuit, Level, Node, RunStatus, Task


class Told(Configuration):
    """Configuration of the jobs below."""

    word: str = "x"


class Plain:
    """A job that finds one circuit of one node."""

    name = "plain"
    version = "7"

    def prepare(self, configuration: Told, registry: Registry, progress: Progress) -> Told:
        return configuration

    def device(self, prepared: Told) -> str:
        return "none"

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        circuit = Circuit(
            model="m", task="t", method="plain", level=Level.NODE, nodes=(Node(component="m0"),)
        )
        tasks = (Task(slug="t", family="t"),)
        batch = Batch(tasks=tasks, circuits=(NewCircuit(circuit),))
        return Finding(batch, (b"scores",), {"circuit": circuit.id})


class Unprepared(Plain):
    """Ends before it computes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def prepare(self, configuration: Told, registry: Registry, progress: Progress) -> Told:
        raise self._error


class Unfinished(Plain):
    """Ends while it computes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        raise self._error


class Terminated(Plain):
    """Is told by the system to end."""

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().compute(prepared, progress)


@dataclass
class StopsWhile:
    """Presses Ctrl-C as a stage begins."""

    title: str

    def stage(self, title: str) -> Report:
        if title == self.title:
            raise KeyboardInterrupt
        return lambda _done, _total: None


def test_a_finished_run_names_job_version_configuration_and_packages(registry: Registry) -> None:
    outcome = run_job(Plain(), Told(word="y"), registry)
    (run,) = registry.ledger.runs()
    assert run == outcome.run
    assert (run.job, run.version, run.status) == ("plain", "7", RunStatus.FINISHED)
    assert run.configuration == {"word": "y"}
    assert run.device == "none"
    assert run.finished_at is not None
    assert run.finished_at >= run.started_at
    assert run.packages["circuit-registry"]
    (entry,) = registry.circuits()
    assert entry.runs == (run.id,)


def test_running_again_adds_a_run_and_no_circuit(registry: Registry) -> None:
    first, second = (run_job(Plain(), Told(), registry).run for _ in range(2))
    (entry,) = registry.circuits()
    assert set(entry.runs) == {first.id, second.id}


@pytest.mark.parametrize("error", [BadInput("no such thing"), NotFound("task", "x")])
def test_wrong_input_leaves_nothing(registry: Registry, error: Exception) -> None:
    with pytest.raises(type(error)):
        run_job(Unprepared(error), Told(), registry)
    assert registry.ledger.runs() == ()


def test_any_other_failure_while_preparing_is_recorded(registry: Registry) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        run_job(Unprepared(RuntimeError("out of memory")), Told(), registry)
    (run,) = registry.ledger.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, "RuntimeError: out of memory")


def test_a_failure_is_recorded_with_its_error_and_nothing_else_is(registry: Registry) -> None:
    with pytest.raises(BadInput, match="too deep"):
        run_job(Unfinished(BadInput("too deep")), Told(), registry)
    (run,) = registry.ledger.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, "BadInput: too deep")
    assert run.finished_at is not None
    assert registry.circuits() == []


def test_a_recorded_error_holds_no_password(registry: Registry) -> None:
    error = RuntimeError("cannot reach postgresql://me:hunter2@host/db")
    with pytest.raises(RuntimeError):
        run_job(Unfinished(error), Told(), registry)
    (run,) = registry.ledger.runs()
    assert run.error is not None
    assert "hunter2" not in run.error
    assert "host/db" in run.error


@pytest.mark.parametrize(
    "job", [Unprepared(KeyboardInterrupt()), Unfinished(KeyboardInterrupt()), Terminated()]
)
def test_ctrl_c_and_sigterm_leave_the_run_interrupted(registry: Registry, job: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_job(job, Told(), registry)
    (run,) = registry.ledger.runs()
    assert (run.status, run.error) == (RunStatus.INTERRUPTED, None)
    assert registry.circuits() == []


def test_ctrl_c_before_storing_stores_nothing(registry: Registry) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_job(Plain(), Told(), registry, progress=StopsWhile("storing"))
    (run,) = registry.ledger.runs()
    assert run.status is RunStatus.INTERRUPTED
    assert registry.circuits() == []
    assert registry.ledger.artifacts() == frozenset()


def test_signals_are_handled_as_before_once_a_job_is_over(registry: Registry) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_job(Terminated(), Told(), registry)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_an_unknown_job_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFound, match=r"no job 'edge'.*edge-attribution"):
        find_job("edge")
