"""``circuits runs``: lists, one run, and following one until it ends."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.ledger.base import Batch, NewCircuit, Stage
from registry.lives import computed_here
from registry.processes import Process, this_process
from registry.records import Run, RunStatus
from tests import examples
from tests.registry.cli.conftest import Cli

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ELSEWHERE = Process("elsewhere", 77, "1", "another boot")
FOUND = examples.circuit(1)


def run(number: int, **fields: Any) -> Run:
    given: dict[str, Any] = {
        "job": "edge-attribution",
        "version": "1",
        "configuration": {"model": "gpt2", "task": "ioi", "edges": 30},
        "started_at": NOON + timedelta(minutes=number),
        **fields,
    }
    return Run(id=f"{number:x}" * 32, **given)


def ended(number: int, status: RunStatus, **fields: Any) -> Run:
    at = NOON + timedelta(minutes=number, seconds=90)
    return run(number, status=status, finished_at=at, **fields)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a run of every status; that which is running is of another host."""
    with Registry.init(tmp_path / ".circuits") as opened:
        opened.record(examples.GPT2, *examples.TASKS, ended(1, RunStatus.FINISHED))
        opened.record(ended(2, RunStatus.FAILED, error="RuntimeError: out of memory"))
        opened.record(ended(3, RunStatus.INTERRUPTED, job="transfer", configuration={}))
        opened.record(NewCircuit(FOUND, run=run(1).id))
        opened.record(Batch(runs=[run(4)], processes={run(4).id: ELSEWHERE}))
        opened.ledger.beat(run(4).id, [Stage("scoring", NOON, 3, 8)])
        yield opened


BetweenLooks = Callable[..., None]


@pytest.fixture
def between_looks(monkeypatch: pytest.MonkeyPatch) -> BetweenLooks:
    """Have one thing happen after each look at a run that is followed, instead of a wait."""

    def arrange(*changes: Callable[[], object]) -> None:
        left = iter(changes)
        monkeypatch.setattr("registry.cli.runs._until_next_look", lambda: next(left)())

    return arrange


def listed(cli: Cli, *arguments: str) -> list[int]:
    answer = cli("runs", *arguments, "--json")
    assert answer.code == 0, answer.err
    return [int(row["run"][0], 16) for row in json.loads(answer.out)]


def test_runs_are_listed_newest_first_and_filtered(cli: Cli, registry: Registry) -> None:
    assert listed(cli) == [4, 3, 2, 1]
    assert listed(cli, "--status", "failed") == [2]
    assert listed(cli, "--job", "transfer") == [3]
    assert listed(cli, "--model", "gpt2", "--task", "ioi") == [4, 2, 1]
    assert listed(cli, "--model", "pythia-70m") == []
    assert listed(cli, "--since", "2026-01-31T12:02:30+00:00") == [4, 3]
    assert listed(cli, "--since", "1d") == []
    assert cli("runs", "--task", "sequence").err == "no such runs\n"


def test_pages_follow_one_another(cli: Cli, registry: Registry) -> None:
    first = cli("runs", "--limit", "3", "--format", "csv")
    place = first.err.split("--after ")[1].split()[0]
    registry.record(run(5))
    assert listed(cli, "--limit", "3", "--after", place) == [1]
    assert cli("runs", "--limit", "4", "--after", place).err == ""


def test_a_table_says_what_is_known_of_a_run_that_is_running(cli: Cli, registry: Registry) -> None:
    table = cli("runs").out.splitlines()
    assert " ".join(table[0].split()) == "run job status life model task started_at seconds host"
    assert "running" in table[1]
    assert "last heartbeat" in table[1]
    assert table[1].endswith("elsewhere")
    registry.record(Batch(runs=[run(5)], processes={run(5).id: this_process()}))
    with computed_here(run(5).id):
        assert "  alive  " in cli("runs", "--limit", "1").out


def test_one_run_is_shown_with_all_that_is_known(cli: Cli, registry: Registry) -> None:
    registry.ledger.keep_stages(run(1).id, [Stage("scoring", run(1).started_at, 8, 8)])
    shown = json.loads(cli("runs", "1111", "--json").out)
    assert shown["run"]["id"] == run(1).id
    assert (shown["run"]["status"], shown["run"]["seconds"]) == ("finished", 90.0)
    assert shown["configuration"] == {"model": "gpt2", "task": "ioi", "edges": 30}
    stage = {"began_at": "2026-01-31T12:01:00+00:00", "seconds": 90.0, "done": 8, "total": 8}
    assert shown["stages"] == [{"stage": "scoring", **stage}]
    assert [one["circuit"] for one in shown["circuits"]] == [FOUND.id]
    failed = cli("runs", "2222").out
    assert "RuntimeError: out of memory" in failed
    there = json.loads(cli("runs", "4444", "--json").out)["run"]
    assert (there["host"], there["pid"], there["status"]) == ("elsewhere", 77, "running")
    rows = list(csv.reader(io.StringIO(cli("runs", "4444", "--format", "csv").out)))
    assert rows[0] == ["stage", "began_at", "seconds", "done", "total"]
    assert rows[1][0] == "scoring"


def test_looking_makes_a_dead_run_interrupted(cli: Cli, registry: Registry) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = replace(this_process(), pid=gone.pid)
    for number, arguments in ((5, ["runs"]), (6, ["runs", "6666"]), (7, ["doctor"])):
        registry.record(Batch(runs=[run(number)], processes={run(number).id: dead}))
        cli(*arguments)
        assert registry.ledger.run(run(number).id).status is RunStatus.INTERRUPTED
    assert registry.ledger.run(run(4).id).status is RunStatus.RUNNING


def test_the_doctor_names_runs_that_had_died_and_those_that_are_silent(
    cli: Cli, registry: Registry
) -> None:
    dead = replace(this_process(), started="1")
    registry.record(Batch(runs=[run(5), run(6)], processes={run(5).id: dead}))
    rows = json.loads(cli("doctor", "--format", "json").out)
    (row,) = [one for one in rows if one["part"] == "runs"]
    assert row["state"] == "warn"  # the last one began long ago, and no process is known of it
    assert row["finding"] == (
        f"2 running; 1 had died and are interrupted now: {'5' * 12}; 1 silent for more than 24"
        f" hours: {'6' * 12}"
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [(RunStatus.FINISHED, 0), (RunStatus.FAILED, 1), (RunStatus.INTERRUPTED, 3)],
)
def test_following_ends_as_the_run_does(
    cli: Cli, registry: Registry, between_looks: BetweenLooks, status: RunStatus, code: int
) -> None:
    stages = [Stage("scoring", NOON), Stage("storing", NOON.replace(hour=13))]
    between_looks(
        lambda: registry.ledger.beat(run(4).id, stages),
        lambda: registry.record(ended(4, status)),
    )
    answer = cli("runs", "4444", "--follow", "--json")
    assert answer.code == code
    assert answer.err == "2026-01-31T12:00:00+00:00 scoring\n2026-01-31T13:00:00+00:00 storing\n"
    assert json.loads(answer.out)["run"]["status"] == status


def test_following_shows_each_stage_once_if_the_clock_is_set_back_or_the_first_are_gone(
    cli: Cli, registry: Registry, between_looks: BetweenLooks
) -> None:
    first, later, back = (
        Stage(title, NOON + timedelta(hours=hours))
        for title, hours in (("first", 0), ("later", 2), ("set back", 1))
    )
    looks = [[first, later], [first, replace(later, done=1, total=2), back], [back, first, back]]
    registry.ledger.keep_stages(run(4).id, ())
    between_looks(
        *(partial(registry.ledger.beat, run(4).id, stages) for stages in looks),
        lambda: registry.record(ended(4, RunStatus.FINISHED)),
    )
    answer = cli("runs", "4444", "--follow", "--json")
    titles = [line.split(maxsplit=1)[1] for line in answer.err.splitlines()]
    assert titles == ["first", "later", "set back", "first", "set back"]


def test_following_a_run_that_ended_does_not_wait(cli: Cli, registry: Registry) -> None:
    assert cli("runs", "2222", "--follow").code == 1


def test_following_a_run_that_is_killed_ends(cli: Cli, registry: Registry) -> None:
    dead = replace(this_process(), started="1")
    registry.record(Batch(runs=[run(5)], processes={run(5).id: dead}))
    answer = cli("runs", "5555", "--follow")
    assert answer.code == 3
    assert "ended without recording how" in answer.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--status", "dead"], "--status is 'dead'; it must be one of running, finished"),
        (["--since", "yesterday"], "--since is 'yesterday'; give a date"),
        (["--since", "999999w"], "--since is '999999w'; give a date"),
        (["--after", "WyJydW5zIl0"], "'WyJydW5zIl0' is not a position in the list of runs"),
        (["--follow"], "--follow needs a run"),
        (["4444", "--job", "transfer"], "--job is for lists"),
        (["xyz"], "'xyz' is not the start of a run's id"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Cli, registry: Registry, arguments: list[str], says: str
) -> None:
    answer = cli("runs", *arguments)
    assert answer.code == 2
    assert says in answer.err


def test_a_run_that_is_not_there_is_named_with_the_nearest(cli: Cli, registry: Registry) -> None:
    answer = cli("runs", "1112")
    assert answer.code == 1
    assert "no run '1112'; nearest: 111111111111; see 'circuits runs'" in answer.err
