"""A run is recorded however it ends."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ingest.jobs import Configuration, Finding, find_job, run_job
from ingest.jobs.files import NamedFile, plot_file, tensor_file
from ingest.jobs.progress import Progress, Report
from registry import Registry
from registry.errors import BadInput, MeasureOutOfRange, NotFound
from registry.figures import empty_figure
from registry.ledger.base import Batch, NewCircuit
from registry.processes import this_process
from registry.records import Annotation, Circuit, Edit, Evaluation, Level, Node, RunStatus, Task


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


class Measuring(Plain):
    """Finds the circuit, measures it, and makes an edit; one measurement is another run's."""

    def __init__(self, other: str | None = None) -> None:
        self._other = other

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        found = super().compute(prepared, progress).batch
        id = found.circuits[0].circuit.id
        evaluations = [Evaluation(circuit=id, task="t", measure="own", value=1)]
        if self._other:
            taken = Evaluation(circuit=id, task="t", measure="taken", value=1, run=self._other)
            evaluations.append(taken)
        edits = [Edit(model="m", editor="ROME", circuits=(id,))]
        return Finding(replace(found, evaluations=evaluations, edits=edits))


class Leaving(Plain):
    """Leaves files with its circuit, its run and a record of the registry."""

    def __init__(self, *files: NamedFile, says: str = "z") -> None:
        self._files, self._says = files, says

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        found = super().compute(prepared, progress)
        id = found.summary["circuit"]
        own = NamedFile("own.txt", self._says.encode(), "what the circuit has", of=id)
        said = Annotation(circuit=id, node="m0", role="mover", said_by="plain")
        batch = replace(found.batch, annotations=(said,))
        return replace(found, batch=batch, files=(own, *self._files))


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


class Closing(Unfinished):
    """Closes the registry, so that its end cannot be recorded, and ends."""

    def __init__(self, error: BaseException, registry: Registry) -> None:
        super().__init__(error)
        self._registry = registry

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        self._registry.close()
        return super().compute(prepared, progress)


class Titled(Plain):
    """Begins a stage of a title."""

    def __init__(self, title: str) -> None:
        self._title = title

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        progress.stage(self._title)
        return super().compute(prepared, progress)


class Terminated(Plain):
    """Is told by the system to end."""

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().compute(prepared, progress)


class Overshooting(Plain):
    """Computes a share that is none."""

    def compute(self, prepared: Told, progress: Progress) -> Finding:
        found = super().compute(prepared, progress)
        (new,) = found.batch.circuits
        overlap = Evaluation(circuit=new.circuit.id, task="t", measure="edge_overlap", value=1.2)
        return replace(found, batch=replace(found.batch, evaluations=(overlap,)))


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


def test_what_a_job_measures_and_makes_names_its_run(registry: Registry) -> None:
    first = run_job(Measuring(), Told(), registry).run
    assert [one.run for one in registry.ledger.evaluations()] == [first.id]
    assert [edit.run for edit in registry.edits()] == [first.id]
    run_job(Measuring(first.id), Told(), registry)
    runs = {one.measure: one.run for one in registry.ledger.evaluations()}
    assert runs == {"own": first.id, "taken": first.id}
    rows = registry.cypher(
        "MATCH (r:Run)-[k]->(x) WHERE type(k) IN ['MEASURED', 'MADE']"
        " RETURN r.id AS run, type(k) AS kind, count(x) AS n ORDER BY kind"
    )
    assert rows.values == ((first.id, "MADE", 1), (first.id, "MEASURED", 2))


def test_files_that_a_job_leaves_are_attached(registry: Registry, tmp_path: Path) -> None:
    other = run_job(Plain(), Told(), registry).finding.summary["circuit"]
    (tmp_path / "large.bin").write_bytes(b"large" * 100)
    figure = empty_figure(2, 2)
    figure.subplots().plot([1, 2])
    left = (
        plot_file("plot.svg", figure, "a line"),
        plot_file("plot.png", figure, "a line", of=other),
        tensor_file("mask.safetensors", {"mask": torch.eye(2) > 0}, "which [row, column]"),
        NamedFile("large.bin", tmp_path / "large.bin", "from the disk"),
    )
    run = run_job(Leaving(*left), Told(), registry).run
    of_run = {one.name: one for one in registry.attachments(run.id)}
    assert set(of_run) == {"plot.svg", "mask.safetensors", "large.bin"}
    assert of_run["plot.svg"].media_type == "image/svg+xml"
    with of_run["large.bin"].open() as file:
        assert file.read() == b"large" * 100
    saved = of_run["mask.safetensors"].save(tmp_path / "out")
    assert torch.equal(load_file(saved)["mask"], torch.eye(2) > 0)
    assert {one.name for one in registry.attachments(other)} == {"plot.png", "own.txt"}
    (said,) = registry.annotations(other)
    assert said.run == run.id


def test_a_file_of_another_content_gets_another_name(registry: Registry) -> None:
    for says in ("z", "z", "y"):
        circuit = run_job(Leaving(says=says), Told(), registry).finding.summary["circuit"]
    names = sorted(one.name for one in registry.attachments(circuit))
    assert len(names) == 2
    assert "own.txt" in names


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (NamedFile("../out", b"", ""), BadInput),
        (NamedFile("x", Path("not-there"), ""), BadInput),
        (NamedFile("x", b"", "", of="0" * 64), NotFound),
    ],
)
def test_a_file_that_cannot_be_attached_ends_the_run_with_nothing_recorded(
    registry: Registry, file: NamedFile, error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_job(Leaving(file), Told(), registry)
    (run,) = registry.ledger.runs()
    assert run.status is RunStatus.FAILED
    assert registry.circuits() == []


def test_a_value_that_its_measure_cannot_have_ends_the_run_with_nothing_recorded(
    registry: Registry,
) -> None:
    with pytest.raises(MeasureOutOfRange, match="edge_overlap"):
        run_job(Overshooting(), Told(), registry)
    (run,) = registry.ledger.runs()
    assert run.status is RunStatus.FAILED
    assert "its range is 0 to 1" in (run.error or "")
    assert registry.circuits() == []


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


class Unreadable(Exception):
    """An error whose text cannot be computed."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (RuntimeError("a\x00b\ud800c"), "RuntimeError: a\ufffdb\ufffdc"),
        (Unreadable(), "Unreadable: its text cannot be read (ValueError)"),
    ],
)
def test_an_error_whose_text_no_store_can_hold_is_recorded_and_raised_as_it_is(
    registry: Registry, error: Exception, recorded: str
) -> None:
    with pytest.raises(type(error)) as raised:
        run_job(Unfinished(error), Told(), registry)
    assert raised.value is error
    (run,) = registry.ledger.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, recorded)


def test_a_stage_whose_title_no_store_can_hold_is_recorded(registry: Registry) -> None:
    run = run_job(Titled("a\x00b\ud800c"), Told(), registry).run
    stages = registry.ledger.lives([run.id])[run.id].stages
    assert [one.title for one in stages] == ["a\ufffdb\ufffdc", "storing"]


@pytest.mark.parametrize("error", [RuntimeError("the job's own"), KeyboardInterrupt()])
def test_an_end_that_cannot_be_recorded_does_not_replace_the_error(
    registry: Registry, error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised:
        run_job(Closing(error, registry), Told(), registry)
    assert raised.value is error
    assert any("could not be recorded" in note for note in raised.value.__notes__)


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (SystemExit("the library gave up"), "SystemExit: the library gave up"),
        (GeneratorExit("closed"), "GeneratorExit: closed"),
    ],
)
@pytest.mark.parametrize("when", ["prepare", "compute"])
def test_what_ends_a_program_ends_a_run_as_failed(
    registry: Registry, error: BaseException, recorded: str, when: str
) -> None:
    job = Unprepared(error) if when == "prepare" else Unfinished(error)
    with pytest.raises(type(error)):
        run_job(job, Told(), registry)
    (run,) = registry.ledger.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, recorded)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_run_that_ends_while_it_prepares_names_its_process(
    registry: Registry, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        run_job(Unprepared(error), Told(), registry)
    (run,) = registry.ledger.runs()
    assert registry.ledger.lives([run.id])[run.id].process == this_process()
    assert run.device is None


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
