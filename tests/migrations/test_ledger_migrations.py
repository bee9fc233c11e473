"""The ledger's revisions: equal to the tables in use, and kind to data that is there."""

from __future__ import annotations

import ast
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from registry.errors import LedgerError, LedgerOutdated
from registry.ledger import tables
from registry.ledger.base import ChangeKind, Ledger
from registry.ledger.engine import connect, parse_url, writing
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.records import CircuitState
from registry.resources import migrations_folder
from tests.old.make_old import fill

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
CHECKOUT = Path(__file__).resolve().parents[2]
OLD = sorted((CHECKOUT / "tests" / "old").glob("ledger_*.sql"))


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database (SQLite: of a file that is not there)."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a folder' / 'ledger.db'}"
    create: Callable[[], str] = request.getfixturevalue("new_postgres")
    return create()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine for that database."""
    (Path(parse_url(url).database or "").parent).mkdir(parents=True, exist_ok=True)
    made = connect(parse_url(url))
    yield made
    made.dispose()


def scripts() -> ScriptDirectory:
    return ScriptDirectory(str(migrations_folder("ledger")))


def revisions() -> list[str]:
    """All revisions, oldest first."""
    return [script.revision for script in scripts().walk_revisions()][::-1]


def upgrade_to(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder("ledger")))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def differences(engine: Engine) -> list[object]:
    """What Alembic would change to get from the database to the tables in use."""
    with engine.connect() as connection:
        options = {
            "version_table": tables.REVISION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
        }
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, tables.metadata))


class TestRevisions:
    def test_the_program_knows_the_newest_revision(self) -> None:
        assert scripts().get_current_head() == tables.REVISION
        assert revisions() == sorted(revisions())

    def test_all_revisions_together_make_the_tables_in_use(self, engine: Engine) -> None:
        upgrade_to(engine, "head")
        assert differences(engine) == []

    def test_the_comparison_notices_a_difference(self, engine: Engine) -> None:
        upgrade_to(engine, "head")
        with writing(engine) as connection:
            connection.execute(text("ALTER TABLE tasks ADD COLUMN colour TEXT"))
            connection.execute(text("DROP INDEX ix_circuits_task"))
        kinds = {change[0] for change in differences(engine) if isinstance(change, tuple)}
        assert kinds == {"remove_column", "add_index"}

    def test_every_revision_follows_on_the_one_before(self, engine: Engine) -> None:
        for revision in revisions():
            upgrade_to(engine, revision)
            with engine.connect() as connection:
                found = connection.execute(text(f"SELECT * FROM {tables.REVISION_TABLE}"))
                assert found.scalars().all() == [revision]
        assert differences(engine) == []

    @pytest.mark.parametrize("path", sorted(migrations_folder("ledger").glob("versions/*.py")))
    def test_a_revision_imports_nothing_that_may_change(self, path: Path) -> None:
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
        assert imported <= {"__future__", "alembic", "json", "sqlalchemy"}
        assert path.name.startswith(revisions()[int(path.name[:4]) - 1])


class TestMigrating:
    def test_an_empty_database_gets_all_revisions_once(self, url: str) -> None:
        pending = migrate_ledger(url, check=True)
        assert [name.split()[0] for name in pending] == revisions()
        assert migrate_ledger(url) == pending
        assert migrate_ledger(url, check=True) == ()
        assert migrate_ledger(url) == ()

    def test_checking_makes_nothing(self, tmp_path: Path) -> None:
        migrate_ledger(f"sqlite:///{tmp_path / 'folder' / 'ledger.db'}", check=True)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.postgres
    def test_checking_makes_nothing_in_postgresql(self, empty_postgres: str) -> None:
        migrate_ledger(empty_postgres, check=True)
        assert table_names(empty_postgres) == []

    def test_migrating_again_keeps_the_registrys_id_and_records(self, url: str) -> None:
        migrate_ledger(url)
        with open_ledger(url) as ledger:
            before = ledger.registry_id
            fill(ledger)
            rows = list(ledger.dump())
        migrate_ledger(url)
        with open_ledger(url) as ledger:
            assert ledger.registry_id == before
            assert list(ledger.dump()) == rows

    def test_a_database_that_is_not_set_up_says_what_to_run(self, url: str, engine: Engine) -> None:
        with engine.connect():
            pass
        with pytest.raises(LedgerOutdated, match="not set up yet: run 'circuits migrate'"):
            open_ledger(url)

    def test_an_older_database_says_what_to_run(self, url: str) -> None:
        migrate_ledger(url)
        set_revision(url, "0000")
        with pytest.raises(LedgerOutdated, match=r"at revision 0000.*run 'circuits migrate'"):
            open_ledger(url)

    def test_a_newer_database_is_neither_opened_nor_migrated(self, url: str) -> None:
        migrate_ledger(url)
        set_revision(url, "9999")
        for attempt in (
            lambda: open_ledger(url),
            lambda: migrate_ledger(url),
            lambda: migrate_ledger(url, check=True),
        ):
            with pytest.raises(LedgerOutdated, match=r"newer version.*upgrade circuit-registry"):
                attempt()

    @pytest.mark.parametrize("name", ["alembic_version", "customers", "ledger_revision"])
    def test_somebody_elses_database_is_left_alone(
        self, url: str, engine: Engine, name: str
    ) -> None:
        with writing(engine) as connection:
            connection.execute(text(f"CREATE TABLE {name} (version_num TEXT)"))
            connection.execute(text(f"INSERT INTO {name} VALUES ('kept')"))
        for attempt in (
            lambda: open_ledger(url),
            lambda: migrate_ledger(url),
            lambda: migrate_ledger(url, check=True),
        ):
            with pytest.raises(LedgerError, match=rf"another application \(tables {name}\); give"):
                attempt()
        with engine.connect() as connection:
            assert inspect(connection).get_table_names() == [name]
            assert connection.execute(text(f"SELECT * FROM {name}")).all() == [("kept",)]

    def test_a_revision_that_fails_half_way_leaves_the_ledger_as_it_was(
        self, url: str, tmp_path: Path
    ) -> None:
        migrate_ledger(url)
        with open_ledger(url) as ledger:
            fill(ledger)
            before = list(ledger.dump())
        failed = later_version(url, tmp_path / "next", "raise RuntimeError('no such step')")
        assert "no such step" in failed.stderr
        with open_ledger(url) as ledger:
            assert list(ledger.dump()) == before
        assert "wishes" not in table_names(url)

    def test_a_later_revision_is_applied_to_a_ledger_in_use(self, url: str, tmp_path: Path) -> None:
        migrate_ledger(url)
        with open_ledger(url) as ledger:
            fill(ledger)
            before = list(ledger.dump())
        done = later_version(url, tmp_path / "next", "pass")
        assert done.stdout.splitlines() == [f"{_LATER} Wishes", "True"], done.stderr
        with pytest.raises(LedgerOutdated, match=f"newer version .revision {_LATER}"):
            open_ledger(url)
        set_revision(url, tables.REVISION)
        with open_ledger(url) as ledger:
            assert list(ledger.dump()) == before


class TestOldLedgers:
    def test_there_is_one_of_every_revision(self) -> None:
        assert [path.stem.removeprefix("ledger_") for path in OLD] == revisions()

    @pytest.fixture(params=OLD, ids=[path.stem for path in OLD])
    def old(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        """The URL of a ledger as an earlier version left it."""
        path: Path = request.param
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
            database.executescript(path.read_text(encoding="utf-8"))
        return f"sqlite:///{tmp_path / 'ledger.db'}"

    def test_it_is_upgraded_and_keeps_all_it_held(self, old: str, tmp_path: Path) -> None:
        begun = revision_of(old)
        pending = migrate_ledger(old, check=True)
        assert [name.split()[0] for name in pending] == [r for r in revisions() if r > begun]
        assert migrate_ledger(old) == pending
        fresh = f"sqlite:///{tmp_path / 'fresh.db'}"
        migrate_ledger(fresh)
        with open_ledger(old) as ledger, open_ledger(fresh) as expected:
            fill(expected, begun)
            assert records_of(ledger) == records_of(expected)
            assert set(ledger.changes_since(0).changes) == set(expected.changes_since(0).changes)

    def test_files_are_kept_that_its_revision_knew_of(self, old: str) -> None:
        begun = revision_of(old)
        migrate_ledger(old)
        with open_ledger(old) as ledger:
            (edit,) = ledger.edits()
            known = ["c" * 64, "e" * 64, "f" * 64] if begun >= "0002" else ["c" * 64]
            assert sorted(ledger.source_files()) == known
            names = ["éd.json"] if begun >= "0002" else []
            assert [file.name for file in ledger.edit_files(edit.id)] == names

    def test_it_is_the_schema_in_use_after_the_upgrade(self, old: str) -> None:
        migrate_ledger(old)
        engine = connect(parse_url(old))
        assert differences(engine) == []
        engine.dispose()

    def test_it_is_used_as_a_new_one_after_the_upgrade(self, old: str) -> None:
        begun = revision_of(old)
        migrate_ledger(old)
        with open_ledger(old) as ledger:
            before = records_of(ledger)
            fill(ledger, begun)
            assert records_of(ledger) == before
            (superseded,) = [c for c in ledger.circuits() if c.labels.state != "active"]
            assert superseded.labels.state is CircuitState.SUPERSEDED
            assert ledger.count_since(0) == 9
            assert ledger.changes_since(0).changes[0].kind is ChangeKind.MODEL

    @pytest.mark.postgres
    def test_it_moves_to_postgresql_after_the_upgrade(self, old: str, empty_postgres: str) -> None:
        migrate_ledger(old)
        migrate_ledger(empty_postgres)
        with open_ledger(old) as ledger, open_ledger(empty_postgres) as moved:
            moved.load(ledger.dump())
            assert records_of(moved) == records_of(ledger)
            assert moved.registry_id == ledger.registry_id


def records_of(ledger: Ledger) -> list[object]:
    """All records, without the times at which they were recorded."""
    return [
        ledger.models(),
        ledger.tasks(),
        ledger.prompt_sets(),
        ledger.runs(),
        {(e.id, e.labels, e.runs, e.source_files, e.faithfulness) for e in ledger.circuits()},
        ledger.evaluations(),
        [(edit, ledger.outcomes(edit.id)) for edit in ledger.edits()],
        ledger.attachments(),
        ledger.artifacts(),
    ]


def table_names(url: str) -> list[str]:
    engine = connect(parse_url(url))
    with engine.connect() as connection:
        found = inspect(connection).get_table_names()
    engine.dispose()
    return found


def revision_of(url: str) -> str:
    engine = connect(parse_url(url))
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT version_num FROM {tables.REVISION_TABLE}"))
        revision = str(found.scalar_one())
    engine.dispose()
    return revision


def set_revision(url: str, revision: str) -> None:
    engine = connect(parse_url(url))
    with writing(engine) as connection:
        statement = text(f"UPDATE {tables.REVISION_TABLE} SET version_num = :revision")
        connection.execute(statement, {"revision": revision})
    engine.dispose()


_LATER = f"{int(tables.REVISION) + 1:04d}"
_REVISION = """'''Wishes.'''
import sqlalchemy as sa
from alembic import op

revision = "{later}"
down_revision = "{present}"


def upgrade():
    op.create_table("wishes", sa.Column("id", sa.Text(), primary_key=True))
    op.execute("INSERT INTO wishes SELECT slug FROM models")
    {end}
"""
_MIGRATE = """
import sys
from registry.ledger.sql import migrate_ledger, open_ledger
print(*migrate_ledger(sys.argv[1]), sep=chr(10))
print(len(open_ledger(sys.argv[1]).circuits()) == 2)
"""


def later_version(url: str, folder: Path, end: str) -> subprocess.CompletedProcess[str]:
    """Migrate with a copy of this program that has one more revision, which ends in ``end``."""
    ignored = shutil.ignore_patterns("__pycache__", "migrations")
    shutil.copytree(CHECKOUT / "registry", folder / "registry", ignore=ignored)
    shutil.copytree(migrations_folder("ledger"), folder / "migrations" / "ledger")
    revision = _REVISION.format(later=_LATER, present=tables.REVISION, end=end)
    versions = folder / "migrations" / "ledger" / "versions"
    (versions / f"{_LATER}_wishes.py").write_text(revision, encoding="utf-8")
    known = folder / "registry" / "ledger" / "tables.py"
    code = known.read_text(encoding="utf-8")
    present = f'REVISION = "{tables.REVISION}"'
    assert present in code
    known.write_text(code.replace(present, f'REVISION = "{_LATER}"'), encoding="utf-8")
    command_line = [sys.executable, "-c", _MIGRATE, url]
    return subprocess.run(command_line, cwd=folder, capture_output=True, text=True, check=False)
