"""The ledger's contract over SQLite and PostgreSQL, and what only shows with several processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import LedgerError
from registry.ledger.base import CircuitFilter, Ledger, Revision
from registry.ledger.engine import writing
from registry.ledger.sql import SqlLedger, migrate_ledger, open_ledger
from registry.ledger.transfer import load_rows
from tests.conformance.ledger_contract import LedgerContract
from tests.conformance.ledger_examples import (
    circuit,
    contents,
    everything,
    record_circuit,
)
from tests.conformance.ledger_lives import LivesContract
from tests.conformance.ledger_paging import PagingContract
from tests.conformance.ledger_runs import RunsContract
from tests.few import every_nth

pytestmark = pytest.mark.seconds

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
NewUrl = Callable[[], str]


def new_url(database: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of that kind."""
    if database == "sqlite":
        return f"sqlite:///{folder / 'ledger.db'}"
    create: NewUrl = request.getfixturevalue("new_postgres")
    return create()


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty ledger."""
    made = new_url(request.param, tmp_path, request)
    migrate_ledger(made)
    return made


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def reopen(url: str) -> Callable[[], Ledger]:
    """Opens the same ledger again, as another process would."""
    return lambda: open_ledger(url)


class TestLedger(LedgerContract):
    pass


class TestLives(LivesContract):
    pass


class TestRuns(RunsContract):
    pass


class TestPaging(PagingContract):
    pass


@pytest.fixture(params=DATABASES)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """A second, empty ledger, in a database of the same or of the other kind."""
    made = new_url(request.param, tmp_path / "other", request)
    migrate_ledger(made)
    with open_ledger(made) as opened:
        yield opened


class TestMovingBetweenDatabases:
    def test_a_dump_loads_into_either_database_unchanged(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        ledger.record(everything())
        record_circuit(ledger, 1, state="superseded", superseded_by=circuit().id, title="名前")
        rows = contents(ledger)
        other.load(iter(rows))
        assert contents(other) == rows
        assert other.circuits() == ledger.circuits()
        assert other.registry_id == ledger.registry_id
        assert other.changes_since(0).changes == ledger.changes_since(0).changes
        assert other.instance != ledger.instance
        other.record(everything())
        assert other.circuits(CircuitFilter(text="名前")) == ledger.circuits()[:1]

    def test_a_ledger_with_records_is_not_overwritten(self, ledger: Ledger, other: Ledger) -> None:
        record_circuit(ledger, 0)
        record_circuit(other, 1)
        kept = contents(other)
        with pytest.raises(LedgerError, match="already holds records; restore into a new"):
            other.load(contents(ledger))
        assert contents(other) == kept


def _refused_or_readable(ledger: Ledger, rows: list[tuple[str, dict[str, Any]]]) -> bool:
    """Load rows, read them back and undo it; True if they were refused."""
    assert isinstance(ledger, SqlLedger)
    try:
        with writing(ledger._engine) as connection:
            load_rows(connection, rows, instance="i" * 32, digest=None)
            raise _Undone
    except LedgerError:
        return True
    except _Undone:
        return False


class _Undone(Exception):
    pass


class TestDamagedBackups:
    def test_rows_of_another_revision_are_refused(self, ledger: Ledger) -> None:
        rows = [("ledger_revision", {"version_num": "9999"}), *contents(ledger)[1:]]
        with pytest.raises(LedgerError, match=r"revision 9999.*restore it with the version"):
            ledger.load(rows)

    @pytest.mark.parametrize(
        "row",
        [
            ("secrets", {"id": 1}),
            ("tasks", {"slug": "t", "family": "t"}),
            ("tasks", {"slug": "t", "family": "t", "description": "", "colour": "red"}),
        ],
    )
    def test_unknown_tables_and_columns_are_refused(
        self, ledger: Ledger, row: tuple[str, dict[str, str]]
    ) -> None:
        kept = contents(ledger)
        with pytest.raises(LedgerError, match=f"rows of '{row[0]}' that this program does not"):
            ledger.load([*kept, row])
        assert contents(ledger) == kept

    @pytest.mark.parametrize("missing", ["registry", "tasks", "circuits"])
    def test_rows_that_are_missing_leave_nothing_behind(
        self, ledger: Ledger, other: Ledger, missing: str
    ) -> None:
        ledger.record(everything())
        empty = contents(other)
        with pytest.raises(LedgerError, match=r"(?i)incomplete|foreign key"):
            other.load([row for row in ledger.dump() if row[0] != missing])
        assert contents(other) == empty
        assert other.revision() == Revision()

    @pytest.mark.parametrize("time", ["yesterday", "0001-01-01T00:00:00+14:00"])
    def test_a_time_that_is_none_is_refused(self, ledger: Ledger, other: Ledger, time: str) -> None:
        ledger.record(everything())
        rows = contents(ledger)
        next(row for table, row in rows if table == "runs")["started_at"] = time
        with pytest.raises(
            LedgerError, match=f"'{re.escape(time)}' where started_at must be a time"
        ):
            other.load(rows)

    @pytest.mark.parametrize(
        "value",
        every_nth(
            [
                "nonsense",
                "",
                "\0",
                "\ud800",
                -1,
                2**80,
                1.5,
                float("nan"),
                True,
                None,
                [],
                {"a": 1},
            ],
            3,
            "a text, one that is none, a number and nothing",
        ),
        ids=repr,
    )
    def test_whatever_a_column_holds_is_loaded_and_readable_or_refused(
        self, other: Ledger, value: Any, tmp_path: Path
    ) -> None:
        migrate_ledger(source := f"sqlite:///{tmp_path / 'source.db'}")
        with open_ledger(source) as ledger:
            ledger.record(everything())
            rows = contents(ledger)
        refused = 0
        for at, (table, row) in enumerate(rows[1:], 1):
            for column in row:
                changed = [*rows[:at], (table, {**row, column: value}), *rows[at + 1 :]]
                refused += _refused_or_readable(other, changed)
        assert refused

    @pytest.mark.parametrize("n_rows", [0, 1])
    def test_a_backup_that_ends_at_once_is_refused(self, ledger: Ledger, n_rows: int) -> None:
        kept = contents(ledger)
        with pytest.raises(LedgerError, match="incomplete"):
            ledger.load(kept[:n_rows])
        assert contents(ledger) == kept
