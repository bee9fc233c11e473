"""A graph's address may lead anywhere: whatever answers there ends as one line, in bounded time."""

from __future__ import annotations

import itertools
import logging
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import Registry
from registry.errors import GraphError, GraphUnavailable, QueryFailed, QueryTimeout, QueryTooLarge
from registry.graph.neo4j import Neo4jGraph
from registry.graph.schema import Owner, identify, put_aside, schema_version
from tests import examples
from tests.few import n_examples
from tests.patience import SLACK_SECONDS, answers_within
from tests.servers.fake_bolt import (
    Script,
    answer,
    chunked,
    failure,
    fake_server,
    message,
)

pytestmark = pytest.mark.seconds

_SUCCESS, _RECORD = 0x70, 0x71
_HEAD = message(_SUCCESS, {"fields": ["n"]})
_LIMIT_SECONDS = 0.75
_AT_MOST_SECONDS = _LIMIT_SECONDS + 1
"""The limit, and a second of grace."""
_SILENT_SECONDS = _AT_MOST_SECONDS + SLACK_SECONDS + 5
"""Silence that lasts longer than an answer may take."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with answers_within(n_examples(60)):
        yield


def asking(
    script: Script,
    kind: type[GraphError] | tuple[type[GraphError], ...] = GraphError,
    match: str | None = None,
) -> None:
    """Ask a server that answers by the script; the answer ends as one line."""
    with fake_server(script) as server, Neo4jGraph(server.url, writing=False) as graph:
        with answers_within(_AT_MOST_SECONDS), pytest.raises(kind, match=match) as caught:
            graph.read(
                "RETURN 2 AS n", timeout_seconds=_LIMIT_SECONDS, max_rows=1000, memory_bytes=10**8
            )
        assert "\n" not in str(caught.value)
        # The store stays usable: the driver was replaced, or is in step.
        assert graph.read("RETURN 1", timeout_seconds=SLACK_SECONDS).values == ((1,),)


def line_of(ask: Callable[[], object]) -> str | None:
    """The line that a question ends as, if it ends as one; anything else but an answer fails."""
    try:
        ask()
    except GraphError as error:
        lines = str(error).split("\n")
    else:
        return None
    assert len(lines) == 1
    return lines[0]


def forever(part: bytes, pause_seconds: float = 0.0) -> Iterator[bytes]:
    while True:
        yield part
        time.sleep(pause_seconds)


# -- silence and endlessness -----------------------------------------------------------------------


def silence() -> Iterator[bytes]:
    time.sleep(_SILENT_SECONDS)
    yield b""


@pytest.mark.parametrize(
    "script",
    [
        lambda _: silence(),
        lambda _: itertools.chain([_HEAD], silence()),
        lambda _: itertools.chain([_HEAD[:5]], silence()),
        lambda _: forever(b"\0\0", 0.05),
        lambda _: forever(b"\x01", 0.2),
        lambda _: itertools.chain([_HEAD], forever(message(_RECORD, [1]), 0.05)),
    ],
    ids=["silent", "silent-after-columns", "half-a-message", "no-operation", "bytewise", "rows"],
)  # fmt: skip
def test_a_slow_or_silent_answer_ends_at_the_limit(script: Script) -> None:
    asking(script, QueryTimeout, "time limit")


@pytest.mark.parametrize(
    "script",
    [
        lambda _: itertools.chain([_HEAD], forever(message(_RECORD, ["x" * 60_000]))),
        lambda _: forever(struct.pack(">H", 0xFFFF) + b"\x90" * 0xFFFF),
        lambda _: [_HEAD, message(_RECORD, [["x" * 1_000_000] * 200])],
    ],
    ids=["rows", "one-message", "one-large-row"],
)
def test_an_endless_or_huge_answer_ends_at_a_limit(script: Script) -> None:
    asking(script, (QueryTooLarge, QueryTimeout))


def test_an_answer_without_a_time_limit_is_bounded_by_memory() -> None:
    rows = itertools.chain([_HEAD], forever(message(_RECORD, ["x" * 60_000])))
    with (
        fake_server(lambda _: rows) as server,
        Neo4jGraph(server.url, writing=False) as graph,
        pytest.raises(QueryTooLarge, match="more memory than allowed"),
    ):
        graph.read("RETURN 2 AS n", memory_bytes=200_000_000)


@pytest.mark.parametrize(
    "handshake",
    [
        [],
        [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        [b"\0\0\0\x09"],
        [b"\xff\xff\xff\xff"],
        [b"SSH-2.0-OpenSSH_9.9\r\n"],
    ],
    ids=["silent", "http", "no-version", "nonsense", "ssh"],
)
def test_what_is_no_bolt_server_is_told_in_one_line(handshake: list[bytes]) -> None:
    with (
        answers_within(40),
        fake_server(handshake=handshake) as server,
        pytest.raises(GraphError, match=r"^the graph bolt://127\.0\.0\.1") as caught,
    ):
        Neo4jGraph(server.url, writing=False)
    assert "\n" not in str(caught.value)


def test_a_writer_of_a_server_that_falls_silent_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent: list[bool] = []

    def script(text: str) -> Iterable[bytes] | None:
        return silence() if silent else answer(["n"], [[1]])

    monkeypatch.setattr("registry.graph.process._ASK_ELSEWHERE_SECONDS", 1.0)
    monkeypatch.setattr("registry.graph.neo4j._LONGEST_SECONDS", 5.0)
    with fake_server(script) as server, Neo4jGraph(server.url, writing=True) as graph:
        assert graph.read("RETURN 2 AS n").values == ((1,),)
        silent.append(True)
        # It goes on answering "RETURN 1" on other connections, but not for ever.
        with pytest.raises(GraphUnavailable, match="has not answered for 5 s"):
            graph.read("RETURN 2 AS n")
        assert server.asked.count("RETURN 1") >= 2


# -- what no Neo4j server sends --------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        [_HEAD, chunked(b"\xb1\x71\xd6\xff\xff\xff\xff")],
        [_HEAD, chunked(b"\xb1\x71\xda\xff\xff\xff\xff")],
        [_HEAD, chunked(b"\xb1\x71\xd2\xff\xff\xff\xff")],
        [_HEAD, chunked(b"\xb1\x71\x91" + b"\x91" * 200_000 + b"\x01")],
        [_HEAD, chunked(b"\xb1\x71\x91\x81\xff")],
        [_HEAD, chunked(b"\xb1\x71\x91\xa1\x01\x01")],
        [_HEAD, chunked(b"\xb1\x71\x91\xb4\x4e\x01\x02\x03\x04")],
        [_HEAD, chunked(b"\xb1\x71\x91\xb0\x58")],
        [_HEAD, message(_RECORD, 7)],
        [_HEAD, message(_RECORD, {"n": 1})],
        [_HEAD, message(_RECORD, [])],
        [_HEAD, message(0x00, {})],
        [_HEAD, chunked(b"")],
        [_HEAD, chunked(b"\x01")],
        [message(_SUCCESS, {"fields": 7}), message(_RECORD, [1]), message(_SUCCESS, {})],
        [message(_SUCCESS, {"fields": ["a", "b"]}), message(_RECORD, [1]), message(_SUCCESS, {})],
        [message(_SUCCESS, {}), message(_RECORD, [1]), message(_SUCCESS, {})],
        [message(_SUCCESS, [])],
        [message(_RECORD, [1])],
        [b"\xff" * 100],
    ],
    ids=lambda reply: reply[-1].hex()[:24],
)
def test_a_malformed_answer_is_told_in_one_line(reply: list[bytes]) -> None:
    asking(lambda _: reply)


@pytest.mark.parametrize("depth", [200, 5_000, 20_000])
def test_an_answer_nested_without_end_is_refused(depth: int) -> None:
    reply = [_HEAD, chunked(b"\xb1\x71\x91" + b"\x91" * depth + b"\x01"), message(_SUCCESS, {})]
    if depth < 500:
        with fake_server(lambda _: reply) as server, Neo4jGraph(server.url, writing=False) as graph:
            assert len(graph.read("RETURN 2 AS n")) == 1
    else:
        asking(lambda _: reply)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("Neo.ClientError.Statement.SyntaxError", "first\nsecond", QueryFailed),
        ("Neo.ClientError.Transaction.TransactionTimedOut", "x", QueryTimeout),
        ("Neo.TransientError.General.MemoryPoolOutOfMemoryError", "x", QueryTooLarge),
        ("Neo.DatabaseError.General.UnknownError", "", GraphError),
        ("Neo.ClientError.Security.Unauthorized", "x", GraphError),
        ("nonsense", "\x1b[2J", GraphError),
        (7, [1, 2], GraphError),
        (None, None, GraphError),
        ({"a": 1}, {"b": 2}, GraphError),
    ],
)
def test_a_refusal_of_any_form_is_one_line(
    code: object, text: object, kind: type[GraphError]
) -> None:
    asking(lambda _: [failure(code, text)], kind)


@settings(
    max_examples=n_examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_any_bytes_end_in_one_line(bodies: list[bytes], framed: bool) -> None:
    reply = [_HEAD, *(map(chunked, bodies) if framed else bodies)]
    with fake_server(lambda _: reply) as server, Neo4jGraph(server.url, writing=False) as graph:
        line = line_of(lambda: graph.read("RETURN 2 AS n", timeout_seconds=0.3))
    assert line is None or line


def test_a_connection_that_breaks_off_is_told_and_made_again() -> None:
    def broken(text: str) -> Iterator[bytes]:
        yield _HEAD
        raise OSError

    asking(broken, GraphUnavailable, "does not answer")


# -- answers to other questions --------------------------------------------------------------------

OTHERS: list[tuple[list[object], list[list[object]]]] = [
    (["something"], [[1]]),
    ([], []),
    (["id", "id"], [[1, 2]]),
    (["version", "edition"], [[[1], {"a": 2}]]),
    (["id", "instance", "schema_version", "state", "revision", "token", "n_put_aside"],
     [["mine", "this", "many", 7, [1], {}, "x"]]),
    (["kind", "key", "reason"], [[1, None, {"a": 1}]]),
    (["n"], [["x"]] * 3),
]  # fmt: skip
QUESTIONS: list[Callable[[Neo4jGraph], object]] = [
    lambda graph: graph.version(),
    lambda graph: graph.limits(),
    lambda graph: identify(graph, Owner("mine", "this")),
    put_aside,
]


@pytest.mark.parametrize(("columns", "rows"), OTHERS, ids=lambda value: str(value)[:40])
def test_an_answer_to_another_question_is_told_in_one_line(
    columns: list[object], rows: list[list[object]]
) -> None:
    with (
        fake_server(lambda _: answer(columns, rows)) as server,
        Neo4jGraph(server.url, writing=True) as graph,
    ):
        for ask in QUESTIONS:
            line = line_of(lambda ask=ask: ask(graph))  # type: ignore[misc]
            assert line is None or len(line) < 1000


def marked(registry: Registry, others: Script) -> Script:
    """A server that says its graph is this registry's, and then what a test wants."""
    ledger, revision = registry.ledger, registry.ledger.revision()

    def script(text: str) -> Iterable[bytes] | None:
        if "MATCH (r:Registry)" in text:
            columns: dict[str, object] = {
                "id": ledger.registry_id, "instance": ledger.instance,
                "schema_version": schema_version(), "state": "ready",
                "revision": revision.number, "token": revision.token, "n_put_aside": 0,
            }  # fmt: skip
            return answer(list(columns), [list(columns.values())])
        return others(text)

    return script


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with Registry.init(tmp_path / ".circuits") as registry:
        registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1))
        return registry.settings.home


@pytest.mark.parametrize(
    ("columns", "rows", "why"),
    [
        (["circuit"], [["a"]], "answered with the columns circuit, and was asked for"),
        ([], [], "answered with the columns none"),
        (
            ["a", "b", "n_shared"],
            [["x", "y", "many"]],
            "answered with str in the column 'n_shared'",
        ),
        (["a", "b", "n_shared"], [["x", None, 3]], "answered with null in the column 'b'"),
        (["a", "b", "n_shared"], [["x", ["y"], 3]], "answered with list in the column 'b'"),
        (["n_shared", "b", "a"], [[3, "y", "x"]], ""),
    ],
)
def test_a_named_query_takes_no_answer_to_another(
    home: Path,
    columns: list[object],
    rows: list[list[object]],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Registry.open(home) as registry:
        script = marked(registry, lambda _: answer(columns, rows))
    with fake_server(script) as server:
        monkeypatch.setenv("CIRCUITS_GRAPH", server.url)
        with Registry.open(home) as registry:
            if not why:
                found = registry.query("circuit-overlaps", circuits=[examples.circuit(1).id])
                assert found.to_dicts() == [{"n_shared": 3, "b": "y", "a": "x"}]
                return
            with pytest.raises(GraphUnavailable, match=why):
                registry.query("circuit-overlaps", circuits=[examples.circuit(1).id])


@pytest.mark.parametrize("command", ["status", "doctor", "cypher", "query"])
def test_escapes_of_a_server_reach_no_terminal(
    command: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from registry.cli.main import main

    evil = "\x1b]0;owned\x07\x9b2J\u202egnp\r\n"

    def script(text: str) -> Iterable[bytes]:
        if "dbms.components" in text:
            return answer(["version", "edition"], [[evil, evil]])
        if "MATCH (p:PutAside)" in text:
            return answer(["kind", "key", "reason"], [["circuit", evil, evil]])
        if "SHOW SETTINGS" in text:
            return answer(["name", "value"], [[evil, evil]])
        return answer([evil], [[evil]]) if "evil" in text else [failure(evil, evil)]

    with Registry.open(home) as registry:
        marked_script = marked(registry, script)
    arguments = {
        "cypher": ["cypher", "RETURN 'evil' AS evil"],
        "query": ["query", "circuits-of-task", "task=ioi"],
    }.get(command, [command])
    with fake_server(marked_script) as server:
        monkeypatch.setenv("CIRCUITS_GRAPH", server.url)
        monkeypatch.chdir(home.parent)
        for format in ("table", "json"):
            main([*arguments, "--format", format])
            said = capsys.readouterr()
            assert "owned" in said.out + said.err
            assert not set("\x1b\x07\x9b\u202e\r") & set(said.out + said.err)
    logging.captureWarnings(False)
