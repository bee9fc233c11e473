"""A server that takes a connection and then says nothing, or stops saying anything."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import LedgerError, StorageError
from registry.files.artifacts import ArtifactStore
from registry.files.file_systems import _Caller
from registry.ledger import engine
from registry.ledger.sql import migrate_ledger, open_ledger
from tests.patience import answers_within

PATIENCE_SECONDS = 0.5
ENOUGH_SECONDS = 15.0


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


class FtpServer:
    """Answers as an FTP server does, until a command that it falls silent at."""

    def __init__(self, silent_at: str) -> None:
        self._silent_at = silent_at
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listening]
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._open.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        answers = {"USER": "331 password", "PASS": "230 welcome", "TYPE": "200 so be it"}
        with contextlib.suppress(OSError), connection.makefile("rw", newline="\r\n") as lines:
            lines.write("220 here\n")
            lines.flush()
            for line in lines:
                word = line.split()[0].upper()
                if word == self._silent_at:
                    continue
                lines.write(answers.get(word, "502 what?") + "\n")
                lines.flush()


@pytest.fixture
def ftp_server() -> Iterator[Callable[[str], FtpServer]]:
    servers: list[FtpServer] = []

    def start(silent_at: str) -> FtpServer:
        servers.append(FtpServer(silent_at))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _refused(what: Callable[[ArtifactStore, Path], Any], store: ArtifactStore, path: Path) -> float:
    """The seconds until it is refused."""
    started = time.monotonic()
    with pytest.raises(StorageError, match="no answer from ftp://"):
        what(store, path)
    return time.monotonic() - started


def open_store(url: str) -> ArtifactStore:
    return ArtifactStore(url, patience_seconds=PATIENCE_SECONDS)


ATTEMPTS: dict[str, Callable[[ArtifactStore, Path], Any]] = {
    "put": lambda store, _: store.put(b"data"),
    "put_file": lambda store, path: store.put_file(path),
    "get": lambda store, _: store.get("0" * 64),
    "exists": lambda store, _: store.exists("0" * 64),
    "size_bytes": lambda store, _: store.size_bytes("0" * 64),
    "age_seconds": lambda store, _: store.age_seconds("0" * 64),
    "remove": lambda store, _: store.remove("0" * 64),
    "addresses": lambda store, _: list(store.addresses()),
    "leftovers": lambda store, _: store.leftovers(grace_seconds=0),
    "remove_leftovers": lambda store, _: store.remove_leftovers(grace_seconds=0),
}


@pytest.mark.parametrize("what", ATTEMPTS)
@pytest.mark.parametrize("protocol", ["ftp", "webhdfs", "simplecache::ftp"])
def test_an_artifact_store_that_says_nothing_is_given_up(
    protocol: str, what: str, silent: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    url = f"{protocol}://ada:S3cret@{silent}/files"
    with answers_within(ENOUGH_SECONDS), pytest.raises(StorageError) as caught:
        ATTEMPTS[what](open_store(url), path)
    text = str(caught.value)
    assert f"no answer from {protocol}://{silent}/files for 0.5 s" in text
    assert "\n" not in text
    assert "S3cret" not in text


# fsspec asks no FTP server for the time of a file.
@pytest.mark.parametrize("what", sorted(ATTEMPTS.keys() - {"age_seconds", "remove"}))
def test_one_that_falls_silent_later_is_given_up_and_not_asked_again(
    what: str, ftp_server: Callable[[str], FtpServer], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    store = open_store(f"ftp://{ftp_server('TYPE').address}/files")
    with answers_within(ENOUGH_SECONDS), pytest.raises(StorageError, match="no answer from ftp://"):
        ATTEMPTS[what](store, path)
    for again in ATTEMPTS.values():
        # The quickest of a few, as a busy machine may stop for a while at any of them.
        assert min(_refused(again, store, path) for _ in range(3)) < PATIENCE_SECONDS
    # Another store of the same place does not inherit the connection that hangs.
    with answers_within(ENOUGH_SECONDS), pytest.raises(StorageError, match="no answer from ftp://"):
        open_store(store._url).exists("0" * 64)


def test_a_command_ends_though_its_store_hangs(silent: str) -> None:
    code = (
        "import sys; from registry.files.artifacts import ArtifactStore\n"
        "try: ArtifactStore(sys.argv[1], patience_seconds=0.5).put(b'data')\n"
        "except OSError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, f"webhdfs://{silent}/files"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no answer from webhdfs://")


def test_what_takes_long_for_its_size_is_not_given_up() -> None:
    caller = _Caller("here", 0.2)
    with pytest.raises(StorageError, match=r"no answer from here for 0\.2 s"):
        caller.ask(time.sleep, 1.0)
    assert _Caller("here", 0.2).ask(_slow, 1.0, _n_bytes=200_000) == "done"
    assert _Caller("here", 0.2).ask(_slow, 1.0, _times=10) == "done"


def _slow(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


def test_what_a_call_raises_is_raised_and_the_next_is_made() -> None:
    caller = _Caller("here", 5.0)
    with pytest.raises(ZeroDivisionError):
        caller.ask(lambda: 1 // 0)
    assert caller.ask(lambda: 1) == 1


def test_a_store_that_is_let_go_ends_its_thread() -> None:
    # By name: threads of other tests end in their own time.
    def own() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if "memory://threads/" in one.name]

    stores = [ArtifactStore(f"memory://threads/{number}") for number in range(5)]
    threads = own()
    assert len(threads) == 5
    del stores
    for thread in threads:
        thread.join(ENOUGH_SECONDS)
    assert own() == []


@pytest.mark.parametrize("ask", [open_ledger, migrate_ledger])
def test_a_postgresql_that_says_nothing_is_given_up(ask: Callable[[str], Any], silent: str) -> None:
    with answers_within(ENOUGH_SECONDS), pytest.raises(LedgerError) as caught:
        ask(f"postgresql://me:S3cret@{silent}/db?connect_timeout=2")
    text = str(caught.value)
    assert text.startswith(f"postgresql+psycopg://me:***@{silent}/db: ")
    assert "timeout" in text
    assert "\n" not in text


def test_the_limit_holds_without_being_asked_for(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 2)
    with answers_within(ENOUGH_SECONDS), pytest.raises(LedgerError, match="timeout"):
        open_ledger(f"postgresql://me@{silent}/db")


@pytest.mark.parametrize(("variable", "in_url"), [("2", ""), (None, "?connect_timeout=2")])
def test_the_user_s_own_limit_goes_before_ours(
    variable: str | None, in_url: str, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 300)
    if variable:
        monkeypatch.setenv("PGCONNECT_TIMEOUT", variable)
    with answers_within(ENOUGH_SECONDS), pytest.raises(LedgerError, match="timeout"):
        open_ledger(f"postgresql://me@{silent}/db{in_url}")
