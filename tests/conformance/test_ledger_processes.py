"""Ledgers under several processes and sudden death, over both databases."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from registry.errors import GraphBusy, LedgerError
from registry.ledger.base import Batch, ChangeKind, Ledger
from registry.ledger.engine import connect, parse_url
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.records import Task
from tests.conformance.ledger_examples import circuit
from tests.conformance.test_ledger import DATABASES, new_url

pytestmark = pytest.mark.seconds

_KILLS = 5
_HOLDER = """
import sys, time
from registry.ledger.sql import open_ledger
with open_ledger(sys.argv[1]) as ledger, ledger.projecting(timeout_seconds=0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty ledger."""
    made = new_url(request.param, tmp_path, request)
    migrate_ledger(made)
    return made


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python with arguments; whatever still runs after the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def recording(
    start: Callable[..., subprocess.Popen[str]], url: str, first: int, n_circuits: int
) -> subprocess.Popen[str]:
    module = "tests.conformance.recording_process"
    return start("-m", module, url, str(first), str(n_circuits))


def test_processes_that_record_at_once_are_all_kept(
    url: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    writers = [recording(start, url, first, 25) for first in (0, 10, 100)]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    numbers = {*range(35), *range(100, 125)}
    with open_ledger(url) as ledger:
        assert {entry.id for entry in ledger.circuits()} == {circuit(n).id for n in numbers}
        assert len(ledger.models()) == 1
        assert len(ledger.runs()) == len(numbers) + 1
        # Whoever came second with a circuit changed nothing: one revision for each.
        waiting = [c.key for c in ledger.changes_since(0).changes if c.kind is ChangeKind.CIRCUIT]
        assert sorted(waiting) == sorted(circuit(n).id for n in numbers)


def test_threads_share_a_ledger(url: str) -> None:
    with open_ledger(url) as ledger:

        def record(first: int) -> None:
            for number in range(first, first + 10):
                slug = f"task-{number}"
                ledger.record(Batch(tasks=[Task(slug=slug, family="task")]))

        threads = [threading.Thread(target=record, args=(10 * n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {task.slug for task in ledger.tasks()} == {f"task-{n}" for n in range(30)}


def test_kill_9_leaves_nothing_half_there_and_loses_nothing_acknowledged(
    url: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    acknowledged: set[str] = set()
    for attempt in range(_KILLS):
        writer = recording(start, url, 1000 * attempt, 1000)
        assert writer.stdout is not None
        acknowledged.add(writer.stdout.readline().strip())
        time.sleep(random.Random(attempt).uniform(0, 0.2))
        writer.kill()
        printed, _ = writer.communicate()
        # The last line may have been cut off in the middle.
        acknowledged.update(line for line in printed.split("\n")[:-1] if line)
        with open_ledger(url) as ledger:
            check_whole(ledger, acknowledged)
    assert len(acknowledged) >= _KILLS


def check_whole(ledger: Ledger, acknowledged: set[str]) -> None:
    entries = ledger.circuits()
    stored = {entry.id for entry in entries}
    assert acknowledged <= stored
    for entry in entries:
        assert entry.labels.tags == ("recorded", "together")
        assert len(entry.runs) == 1
        assert entry.faithfulness == 0.5
    assert {run for entry in entries for run in entry.runs} < {run.id for run in ledger.runs()}
    changes = ledger.changes_since(0).changes
    waiting = {change.key for change in changes if change.kind is ChangeKind.CIRCUIT}
    assert waiting == stored


def test_the_right_to_project_is_freed_when_its_holder_is_killed(
    url: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = start("-c", _HOLDER, url)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with open_ledger(url) as ledger:
        with (
            pytest.raises(GraphBusy, match="another process"),
            ledger.projecting(timeout_seconds=0),
        ):
            pytest.fail("two processes were projecting at once")
        holder.kill()
        holder.wait()
        with ledger.projecting(timeout_seconds=60):
            pass


def test_waiting_for_the_right_to_project_ends_when_it_is_freed(url: str) -> None:
    with open_ledger(url) as ledger, open_ledger(url) as other:
        held = threading.Event()

        def hold() -> None:
            with other.projecting(timeout_seconds=0):
                held.set()
                time.sleep(0.3)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        with ledger.projecting(timeout_seconds=30):
            pass
        thread.join()


def test_processes_that_migrate_at_once_make_one_ledger(
    start: Callable[..., subprocess.Popen[str]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    url = new_url("sqlite", tmp_path / "new", request)
    check_one_ledger(start, url)


@pytest.mark.postgres
def test_processes_that_migrate_postgresql_at_once_make_one_ledger(
    start: Callable[..., subprocess.Popen[str]], empty_postgres: str
) -> None:
    check_one_ledger(start, empty_postgres)


def check_one_ledger(start: Callable[..., subprocess.Popen[str]], url: str) -> None:
    code = "import sys; from registry.ledger.sql import *; print(len(migrate_ledger(sys.argv[1])))"
    migrating = [start("-c", code, url) for _ in range(3)]
    applied = sorted(process.communicate(timeout=120)[0].strip() for process in migrating)
    assert applied[:2] == ["0", "0"]
    assert int(applied[2]) > 0
    with open_ledger(url) as ledger:
        assert len(ledger.registry_id) == 32


@pytest.mark.postgres
def test_the_right_to_project_that_is_lost_with_its_connection_is_noticed(
    empty_postgres: str,
) -> None:
    migrate_ledger(empty_postgres)
    end_others = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with (
        open_ledger(empty_postgres) as ledger,
        open_ledger(empty_postgres) as other,
        ledger.projecting(timeout_seconds=0) as held,
    ):
        assert held is not None
        held()
        engine = connect(parse_url(empty_postgres))
        with engine.connect() as connection:
            assert connection.execute(text(end_others)).scalar_one() > 0
        engine.dispose()
        with other.projecting(timeout_seconds=60) as taken_over:
            assert taken_over is not None
        with pytest.raises(LedgerError):
            held()
