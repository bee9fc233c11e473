"""Opening a ledger: where it may be, what is said when it is not, and what is never shown."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from registry.errors import BadInput, LedgerError, MissingExtra
from registry.ledger.base import Batch
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.records import Model, Task

SECRET = "s3cret-pass"
ATTEMPTS: list[Callable[[str], object]] = [
    open_ledger,
    migrate_ledger,
    lambda url: migrate_ledger(url, check=True),
]


def unused_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("ledger.db", "write sqlite:///PATH or"),
        ("", "write sqlite:///PATH or"),
        ("postgresql://user:s3cret-pass@host:port/db", "write sqlite:///PATH or"),
        ("mysql://user:s3cret-pass@host/db", "not in mysql"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
    ],
)
def test_a_url_of_another_kind_is_refused(
    attempt: Callable[[str], object], url: str, hint: str
) -> None:
    with pytest.raises(BadInput, match=hint) as caught:
        attempt(url)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"ledger\.db does not exist: 'circuits init' makes"):
        open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_file_that_is_no_database_is_left_alone(
    attempt: Callable[[str], object], tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are my notes\n" * 100)
    with pytest.raises(LedgerError, match=r"notes\.db: .*not a database") as caught:
        attempt(f"sqlite:///{path}")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "these are my notes\n" * 100


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"ledger\.db: (Not a directory|File exists)"):
        migrate_ledger(f"sqlite:///{tmp_path / 'file' / 'ledger.db'}")


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_server_that_does_not_answer_is_one_clear_error_without_the_password(
    attempt: Callable[[str], object],
) -> None:
    where = f"postgresql://ada:{SECRET}@127.0.0.1:{unused_port()}/circuits?connect_timeout=5"
    with pytest.raises(LedgerError, match=r"postgresql.*ada.*127\.0\.0\.1.*refused") as caught:
        attempt(where)
    assert "\n" not in str(caught.value)
    assert not reveals(caught.value, SECRET)


@pytest.mark.parametrize("place", ["{user}:{secret}@", "{user}@"])
@pytest.mark.postgres
def test_a_password_is_shown_neither_in_errors_nor_in_reprs(
    empty_postgres: str, place: str
) -> None:
    # The server trusts everybody, so that a password is accepted wherever it is written.
    bare = empty_postgres.partition("@")[2]
    user = place.format(user="postgres", secret=SECRET)
    query = "" if SECRET in user else f"&password={SECRET}"
    url = f"postgresql://{user}{bare}{query}"
    migrate_ledger(url)
    with open_ledger(url) as ledger:
        assert SECRET not in repr(ledger)
        drop_table(empty_postgres, "models")
        with pytest.raises(LedgerError, match="models") as caught:
            ledger.models()
        assert not reveals(caught.value, SECRET)


def test_an_absent_driver_names_the_extra(tmp_path: Path) -> None:
    # A fresh Python in which psycopg cannot be imported, as after a plain install.
    (tmp_path / "psycopg.py").write_text("raise ImportError('not installed')")
    code = (
        "from registry.ledger.sql import open_ledger\n"
        "from registry.errors import MissingExtra\n"
        "try: open_ledger('postgresql://ada@127.0.0.1/x')\n"
        "except MissingExtra as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == str(MissingExtra("a ledger in PostgreSQL", "postgres"))


def test_records_stay_out_of_the_errors_of_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate_ledger(url)
    with open_ledger(url) as ledger:
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
            database.execute("ALTER TABLE tasks DROP COLUMN description")
        with pytest.raises(LedgerError, match="description") as caught:
            ledger.record(Batch(tasks=[Task(slug="t", family="t", description="confidential")]))
        assert not reveals(caught.value, "confidential")


def test_what_was_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate_ledger(url)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with open_ledger(url) as ledger:
        ledger.record(Batch(models=[Model(slug="gpt2")]))
        # Read by another connection, as after a crash: from the write-ahead log.
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
            assert database.execute("SELECT slug FROM models").fetchall() == [("gpt2",)]


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "100% mine, é 日本 & co"
    url = f"sqlite:///{folder / 'ledger.db'}"
    migrate_ledger(url)
    with open_ledger(url) as ledger, ledger.projecting(timeout_seconds=0):
        ledger.record(Batch(models=[Model(slug="gpt2")]))
    assert (folder / "ledger.db").is_file()


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate_ledger(url)
    ledger = open_ledger(url)
    ledger.close()
    ledger.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.db", "ledger.db.lock"]


def test_importing_the_ledger_imports_no_migrations_and_no_driver() -> None:
    code = (
        "import sys, registry.ledger.sql\n"
        "print([n for n in ('alembic', 'psycopg', 'torch', 'neo4j') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def drop_table(url: str, name: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {name} CASCADE")
    engine.dispose()


def reveals(error: BaseException | None, secret: str) -> bool:
    """Whether an error or what it came from says ``secret``."""
    while error is not None:
        if secret in str(error) or secret in repr(error):
            return True
        error = error.__cause__
    return False
