"""A Neo4j with the settings that we ship: what freezes it, fills it or never ends, ends for us.

Its process is stopped and continued by signals; nobody else uses it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from registry import Registry
from registry.errors import (
    GraphError,
    GraphUnavailable,
    QueryFailed,
    QueryTimeout,
    QueryTooLarge,
)
from registry.graph.base import GraphStore, Statement
from registry.graph.neo4j import _OPEN_SECONDS
from tests import examples
from tests.few import every_nth, left_to_make_slow
from tests.patience import answers_within
from tests.servers import unavailable
from tests.servers.neo4j import CannotStart, Neo4jProcess, Neo4jServer
from tests.servers.shipped import shipped_server, shipped_settings

pytestmark = [pytest.mark.neo4j, pytest.mark.seconds]

_ALIVE_SECONDS = 120.0
_NO_ANSWER = r"(does not answer|has not answered)"


@pytest.fixture(scope="module")
def shipped() -> Iterator[Neo4jProcess]:
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(shipped_server())
        except CannotStart as error:
            unavailable("Neo4j", str(error))
        yield started


@pytest.fixture
def server(shipped: Neo4jProcess) -> Neo4jServer:
    return shipped.server


@contextlib.contextmanager
def frozen(process: Neo4jProcess) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_a_frozen_server_holds_a_reader_no_longer_than_its_limit(
    shipped: Neo4jProcess, server: Neo4jServer
) -> None:
    with server.open(writing=False) as store:
        with frozen(shipped):
            with answers_within(3), pytest.raises(QueryTimeout, match="time limit"):
                store.read("RETURN 1 AS one", timeout_seconds=2)
            # Its connection is gone; a new one is made within the limit of the next call.
            with answers_within(3), pytest.raises((QueryTimeout, GraphUnavailable)):
                store.read("RETURN 1 AS one", timeout_seconds=2)
        assert store.read("RETURN 1 AS one", timeout_seconds=_ALIVE_SECONDS).values == ((1,),)


@pytest.mark.parametrize(
    "open_seconds", [4.0, left_to_make_slow(_OPEN_SECONDS, kept="a shorter limit")]
)
def test_a_frozen_server_holds_nobody_who_connects(
    shipped: Neo4jProcess,
    server: Neo4jServer,
    open_seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("registry.graph.neo4j._OPEN_SECONDS", open_seconds)
    silent = pytest.raises(GraphUnavailable, match=_NO_ANSWER)
    with frozen(shipped), answers_within(open_seconds + 1), silent:
        server.open(writing=False)


def test_a_frozen_server_holds_no_open_registry(
    shipped: Neo4jProcess, server: Neo4jServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUITS_GRAPH", server.url)
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", server.password.get_secret_value())
    with server.open() as store:
        store.clear()
    with Registry.init(tmp_path / ".circuits") as registry:
        registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1))
        asked = "MATCH (c:Circuit) RETURN count(c) AS n"
        assert registry.cypher(asked).values == ((1,),)
        late = (QueryTimeout, GraphUnavailable)
        with frozen(shipped), answers_within(3), pytest.raises(late):
            registry.cypher(asked, timeout_seconds=2)
        assert registry.cypher(asked).values == ((1,),)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.read("MATCH (n) RETURN count(n) AS n"),
        lambda store: store.write([Statement("CREATE (n:Frozen {id: 'x'})")]),
    ],
    ids=["reading", "writing"],
)
def test_a_frozen_server_holds_no_projector(
    shipped: Neo4jProcess,
    server: Neo4jServer,
    ask: Callable[[GraphStore], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("registry.graph.process._ASK_ELSEWHERE_SECONDS", 2.0)
    monkeypatch.setattr("registry.graph.neo4j._OPEN_SECONDS", 4.0)
    with server.open() as store:
        silent = pytest.raises(GraphUnavailable, match=_NO_ANSWER)
        with frozen(shipped), answers_within(8), silent:
            ask(store)
        store.write([Statement("MERGE (n:Frozen {id: 'y'})")])
        store.write([Statement("MATCH (n:Frozen) DETACH DELETE n")])


def test_a_slow_server_that_lives_is_waited_for(
    server: Neo4jServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.graph.process._ASK_ELSEWHERE_SECONDS", 0.5)
    text = (
        "UNWIND range(1, 2000) AS a UNWIND range(1, 2000) AS b"
        " WITH a, b WHERE a * b = 7 RETURN count(*) AS n"
    )
    with server.open() as store:
        assert store.read(text).values == ((2,),)


ENDLESS = [
    "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b WITH a, b WHERE a + b = 0"
    " RETURN count(*) AS n",
    "RETURN size([x IN range(1, 1000000000) WHERE x < 0]) AS n",
    "RETURN reduce(s = 0, i IN range(1, 1000000000) | s + i) AS n",
    "RETURN size([x IN range(1, 100000000) WHERE size([y IN range(1, 999) WHERE y = x]) = 9]) AS n",
    "MATCH " + ", ".join(f"(a{i})" for i in range(100)) + " RETURN count(*) AS n",
    "MATCH ()" + "-->()" * 38 + " RETURN count(*) AS n",
]  # fmt: skip


@pytest.mark.parametrize(
    "text", every_nth(ENDLESS, 3, "rows without end, and a list"), ids=lambda text: text[:24]
)
def test_no_query_goes_on_past_its_limit_or_is_repeated(server: Neo4jServer, text: str) -> None:
    with server.open(writing=False) as store:
        # Planned in time, some are answered, or found to count more than there are numbers for.
        with answers_within(3), contextlib.suppress(QueryTimeout, QueryFailed):
            store.read(text, timeout_seconds=2)
        assert store.read("RETURN 1 AS one", timeout_seconds=_ALIVE_SECONDS).values == ((1,),)


TRACKED = [
    "UNWIND range(1, 100000) AS a UNWIND range(1, 1000) AS b RETURN size(collect([a, b])) AS n",
    "UNWIND range(1, 900) AS k WITH k, reduce(s = 'x', i IN range(1, 20) | s + s) AS t"
    " RETURN size(collect(t + toString(k))) AS n",
    "UNWIND range(1, 30000000) AS a WITH toString(a) AS t ORDER BY t DESC SKIP 20000000"
    " RETURN t LIMIT 1",
    "UNWIND range(1, 1000) AS k WITH k, [x IN range(1, 20000) | toString(x + k)] AS t"
    " RETURN size(collect(t)) AS n",
]


@pytest.mark.parametrize(
    "text", every_nth(TRACKED, 4, "pairs"), ids=["pairs", "texts", "sorting", "lists"]
)
def test_a_query_that_would_fill_the_heap_is_refused_and_the_server_answers(
    server: Neo4jServer, text: str
) -> None:
    with server.open(writing=False) as store:
        with pytest.raises(QueryTooLarge, match="more memory than the server has") as caught:
            store.read(text, timeout_seconds=120)
        assert "\n" not in str(caught.value)
        assert store.read("RETURN 1 AS one", timeout_seconds=_ALIVE_SECONDS).values == ((1,),)


def test_doctor_is_content_with_what_we_ship_and_not_with_less(
    server: Neo4jServer, neo4j_server: Neo4jServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(asked: Neo4jServer) -> tuple[str, str]:
        monkeypatch.setenv("CIRCUITS_GRAPH", asked.url)
        monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", asked.password.get_secret_value())
        home = tmp_path / str(asked.url.rpartition(":")[2])
        with asked.open() as store:
            store.clear()
        with Registry.init(home / ".circuits") as registry:
            registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1))
        said = subprocess.run(
            [sys.executable, "-m", "registry", "doctor", "--format", "json"],
            cwd=home, capture_output=True, text=True, check=False,
        )  # fmt: skip
        (row,) = [row for row in json.loads(said.stdout) if row["part"] == "graph limits"]
        return row["state"], row["finding"]

    assert found(server) == ("ok", "600.00MiB of memory for a statement, 700.00MiB for all")
    state, finding = found(neo4j_server)
    assert state == "warn"
    assert "db.memory.transaction.max" in finding


def test_the_limits_of_the_compose_file_fit_its_heap() -> None:
    def megabytes(setting: str) -> float:
        value = shipped_settings()[setting]
        return float(value[:-1]) * {"M": 1, "G": 1024}[value[-1]]

    heap = megabytes("server.memory.heap.max_size")
    assert megabytes("db.memory.transaction.max") <= 0.6 * heap
    assert megabytes("dbms.memory.transaction.total.max") <= 0.7 * heap
    assert shipped_settings()["server.jvm.additional"] == "-XX:+ExitOnOutOfMemoryError"
    assert shipped_settings()["dbms.security.allow_csv_import_from_file_urls"] == "false"


@pytest.mark.slow("that the file for Docker has the option, and that queries stay below the heap")
def test_a_server_that_runs_out_of_memory_all_the_same_ends_for_docker_to_start_again(
    shipped: Neo4jProcess,
) -> None:
    """Texts in lists are not counted; without the option it stays up and answers no more."""
    text = "RETURN [x IN range(1, 100000000) | 'abcdef' + toString(x)] AS x"

    def ask(_: int) -> None:
        with contextlib.suppress(GraphError), shipped.server.open(writing=False) as store:
            store.read(text, timeout_seconds=60)

    java = psutil.Process(shipped.pid)
    with ThreadPoolExecutor(4) as many:
        list(many.map(ask, range(4)))
    ends_at = time.monotonic() + _ALIVE_SECONDS
    while java.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends_at, "it neither ended nor can be started again"
        time.sleep(0.5)
    shipped.stop()
    shipped.start()
    with shipped.server.open(writing=False) as store:
        assert store.read("RETURN 1 AS one", timeout_seconds=_ALIVE_SECONDS).values == ((1,),)
