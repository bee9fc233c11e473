"""Disks that are full, mounts that cannot be written, file systems without locks, damaged files."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import Registry
from registry.errors import CircuitsError, LedgerError, StorageError
from registry.ledger import engine as engines
from registry.ledger.base import Batch
from registry.ledger.causes import cause_of_sqlite, cause_of_system
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.records import Task
from tests import examples

CIRCUITS_IN_GRAPH = "MATCH (c:Circuit) RETURN c.id AS id ORDER BY id"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which only root can mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def home(disk: Path) -> Path:
    with Registry.init(disk / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1))
    return disk / "registry"


def fill_up(disk: Path) -> Path:
    path = disk / "filling"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:  # until the system says that there is no space left
            file.write(bytes(4096))
    return path


def read_everything(home: Path) -> None:
    with Registry.open(home) as registry:
        assert registry.circuit(examples.circuit(1).id).circuit == examples.circuit(1)
        assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == 1
        assert registry.status().graph.startswith("ready")


class TestFullDisk:
    def test_what_is_there_can_be_read(self, disk: Path, home: Path) -> None:
        fill_up(disk)
        read_everything(home)

    def test_recording_says_so_and_goes_on_once_there_is_space(
        self, disk: Path, home: Path
    ) -> None:
        filling = fill_up(disk)
        with Registry.open(home) as registry:
            with pytest.raises(StorageError, match="the disk is full"):
                registry.record(examples.circuit(2))
            with pytest.raises(LedgerError, match="the disk is full"):
                registry.tag(examples.circuit(1).id, add=["final"])
            filling.unlink()
            registry.record(examples.circuit(2))
            registry.tag(examples.circuit(1).id, add=["final"])
            assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == len(registry.circuits()) == 2

    def test_a_reader_that_stayed_open_sees_what_is_written_later(
        self, disk: Path, home: Path
    ) -> None:
        filling = fill_up(disk)
        with Registry.open(home) as reader:
            assert len(reader.circuits()) == 1
            filling.unlink()
            with Registry.open(home) as writer:
                writer.record(examples.circuit(2))
                assert len(reader.circuits()) == 2


class TestReadOnly:
    @pytest.fixture
    def home(self, disk: Path, home: Path) -> Path:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return home

    def test_what_is_there_can_be_read(self, home: Path) -> None:
        assert not list(home.glob("ledger.sqlite-*"))
        read_everything(home)

    def test_writing_names_the_cause(self, home: Path) -> None:
        with Registry.open(home) as registry:
            for write in (
                lambda: registry.tag(examples.circuit(1).id, add=["final"]),
                registry.sync,
                registry.rebuild,
            ):
                with pytest.raises(LedgerError, match="cannot be written: reading works"):
                    write()
            with pytest.raises(CircuitsError, match="Read-only file system"):
                registry.record(examples.circuit(2))


class TestLocks:
    def test_a_file_system_without_locks_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No such file system can be mounted everywhere: the system's answer is put in its place.
        def no_locks(*_: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        url = f"sqlite:///{tmp_path}/ledger.sqlite"
        migrate_ledger(url)
        monkeypatch.setattr(engines, "BUSY_SECONDS", 0.1)
        busy = "another process has been writing"
        with (
            contextlib.closing(
                sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
            ) as other,
            open_ledger(url) as ledger,
        ):
            other.execute("BEGIN IMMEDIATE")
            batch = Batch(tasks=[Task(slug="t", family="t")])
            with pytest.raises(LedgerError, match=busy):
                ledger.record(batch)
            monkeypatch.setattr("fcntl.lockf", no_locks)
            with pytest.raises(LedgerError, match=r"has no locks.*PostgreSQL"):
                ledger.record(batch)

    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (errno.ENOLCK, "has no locks"),
            (errno.ENOSPC, "the disk is full"),
            (errno.EROFS, "cannot be written"),
            (errno.EISDIR, "Is a directory (ledger.lock)"),
        ],
    )
    def test_errors_at_the_lock_file_name_their_cause(self, number: int, text: str) -> None:
        error = OSError(number, os.strerror(number))
        assert text in cause_of_system(Path("ledger.lock"), error)


class TestDamage:
    @pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"\xff" * 5000, b"dear diary" * 99])
    def test_a_file_that_is_no_database_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "ledger.sqlite").write_bytes(content)
        with pytest.raises(LedgerError, match="is damaged or not a database: restore a backup"):
            open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")

    def test_other_errors_keep_their_own_words(self, tmp_path: Path) -> None:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            with pytest.raises(sqlite3.OperationalError) as caught:
                database.execute("SELECT nothing")
            assert cause_of_sqlite(tmp_path / "ledger.sqlite", caught.value) is None
