"""A real Neo4j for tests: the community kernel from Maven Central behind a small Java launcher.

One server a run, emptied before each test that asks for it. ``CIRCUITS_TEST_NEO4J`` names a running
server instead (a Bolt URL; ``CIRCUITS_GRAPH_USER`` and ``CIRCUITS_GRAPH_PASSWORD`` sign in), whose
default database is emptied too. The jars are copied once into the user's cache, or
``CIRCUITS_CACHE``.

``python -m tests.servers.neo4j`` starts one for benchmarks and for trying things out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import filelock
import neo4j
import psutil
import pytest
from neo4j.exceptions import DriverError, Neo4jError
from platformdirs import user_cache_dir
from pydantic import SecretStr

from registry.graph.neo4j import Neo4jGraph
from tests.servers import unavailable

VERSION = "5.26.28"
LONG_RUNNING = ("-Xmx1g",)
"""Java options of a server whose speed is to be measured."""
SOON_THERE = (*LONG_RUNNING, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Of one that lives for minutes: it compiles less, and all that tests do takes half the time."""
_HERE = Path(__file__).parent / "java"
_FIRST_PASSWORD = "neo4j"
_START_SECONDS = 240.0  # 8 s on an idle machine
_STOP_SECONDS = 30.0


class CannotStart(RuntimeError):
    """Java, Maven or the network is missing."""


@dataclass(frozen=True)
class Neo4jServer:
    """How to reach a running server."""

    url: str
    user: str
    password: SecretStr
    process: psutil.Process | None = None
    """Its Java machine, where the tests started it."""

    def open(self, *, writing: bool = True) -> Neo4jGraph:
        """Open its default database."""
        return Neo4jGraph(self.url, user=self.user, password=self.password, writing=writing)


@pytest.fixture(scope="session")
def neo4j_server() -> Iterator[Neo4jServer]:
    """A running Neo4j, started once per run and stopped at its end."""
    given = os.environ.get("CIRCUITS_TEST_NEO4J")
    if given:
        user = os.environ.get("CIRCUITS_GRAPH_USER", "neo4j")
        yield Neo4jServer(given, user, SecretStr(os.environ.get("CIRCUITS_GRAPH_PASSWORD", "")))
        return
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running_server())
        except CannotStart as error:
            unavailable("Neo4j", str(error))
        yield server


@pytest.fixture
def empty_neo4j(neo4j_server: Neo4jServer) -> Neo4jServer:
    """The running Neo4j with nothing in it."""
    with neo4j_server.open() as store:
        store.clear()
    return neo4j_server


class Neo4jProcess:
    """A Neo4j with a data folder of its own, on a free loopback port, with a random password.

    It can be killed and started again on the same data, port and password.

    Args:
        folder: Where its data and its log go; the caller deletes it.
        settings: Settings of the server, by the names that ``neo4j.conf`` has for them.
        java_options: Options of the Java machine.

    Raises:
        CannotStart: Java or Maven is missing, or the jars cannot be fetched.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] = MappingProxyType({}),
        java_options: Sequence[str] = SOON_THERE,
    ) -> None:
        self._folder = folder
        lines = (f"{name}={value}\n" for name, value in settings.items())
        (folder / "neo4j.conf").write_text("".join(lines), encoding="utf-8")
        self._port = _free_port()
        self._has_password = False
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            _tool("java"), *java_options, "-cp", f"{_jars()}/*", str(_HERE / "Neo4jServer.java"),
            str(folder / "data"), str(self._port), str(folder / "neo4j.conf"),
        ]  # fmt: skip
        self.server = Neo4jServer(
            f"bolt://127.0.0.1:{self._port}", "neo4j", SecretStr(secrets.token_urlsafe(16))
        )

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            CannotStart: It ended, or does not answer.
        """
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C stops the tests, which stop the server.
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def stop(self) -> None:
        """End it in order; safe to repeat."""
        if self._process is not None:
            _stop(self._process)
            self._process = None

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        ends_at = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._ask()
            except (DriverError, Neo4jError, OSError) as error:
                if process.poll() is not None or time.monotonic() > ends_at:
                    log = (self._folder / "log").read_text(errors="replace")
                    said = " ".join(log.split()[-40:])
                    raise CannotStart(f"the server did not start ({error}): {said}") from error
                time.sleep(0.2)
            else:
                return

    def _ask(self) -> None:
        if not self._has_password:
            _set_first_password(self.server)
            self._has_password = True
        auth = self.server.user, self.server.password.get_secret_value()
        # Not a managed transaction, which would be tried again with longer and longer pauses.
        with (
            neo4j.GraphDatabase.driver(self.server.url, auth=auth) as driver,
            driver.session() as session,
        ):
            session.run("RETURN 1").consume()


@contextlib.contextmanager
def running_server(
    settings: Mapping[str, str] = MappingProxyType({}), java_options: Sequence[str] = SOON_THERE
) -> Iterator[Neo4jServer]:
    """Start a Neo4j on a free loopback port with a random password; stop it afterwards.

    Args:
        settings: Settings of the server, by the names that ``neo4j.conf`` has for them.
        java_options: Options of the Java machine.

    Raises:
        CannotStart: Java or Maven is missing, or the jars cannot be fetched.
    """
    folder = Path(tempfile.mkdtemp(prefix="circuits-neo4j-"))
    try:
        process = Neo4jProcess(folder, settings, java_options)
        process.start()
        try:
            yield process.server
        finally:
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _jars() -> Path:
    cache = Path(os.environ.get("CIRCUITS_CACHE") or user_cache_dir("circuit-registry"))
    folder = cache.expanduser() / f"neo4j-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):
        complete = folder / "lib"
        if not complete.is_dir():
            partial = folder / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            _copy_dependencies(partial)
            partial.rename(complete)
    return complete


def _copy_dependencies(folder: Path) -> None:
    command = [
        _tool("mvn"), "--batch-mode", "--quiet", "--file", str(_HERE / "pom.xml"),
        "dependency:copy-dependencies", f"-DoutputDirectory={folder}", "-DincludeScope=runtime",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise CannotStart(f"Maven could not copy Neo4j {VERSION}: {' '.join(last)}")


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CannotStart(f"{name} is not installed (Java 17 and Maven are needed)")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _set_first_password(server: Neo4jServer) -> None:
    with (
        neo4j.GraphDatabase.driver(server.url, auth=(server.user, _FIRST_PASSWORD)) as driver,
        driver.session(database="system") as session,
    ):
        session.run(
            "ALTER CURRENT USER SET PASSWORD FROM $old TO $new",
            old=_FIRST_PASSWORD,
            new=server.password.get_secret_value(),
        ).consume()


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.send_signal(signal.SIGCONT)  # where a test that froze it did not come to thaw it
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _serve() -> None:
    # Stopped from a script as by Ctrl-C, so that the data folder goes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running_server() as server:
        print(f"export CIRCUITS_TEST_NEO4J={server.url} CIRCUITS_GRAPH={server.url}")  # noqa: T201
        print(  # noqa: T201
            f"export CIRCUITS_GRAPH_USER={server.user}"
            f" CIRCUITS_GRAPH_PASSWORD={server.password.get_secret_value()}",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    _serve()
