"""What only a server does: it asks for a password, which must show nowhere."""

from __future__ import annotations

import logging
import traceback

import psutil
import pytest
from pydantic import SecretStr

from registry.errors import GraphRefused, GraphUnavailable
from registry.graph.base import Statement
from registry.graph.open import open_graph
from tests.servers.neo4j import Neo4jServer

pytestmark = pytest.mark.neo4j


def test_a_wrong_password_is_refused_and_not_repeated(neo4j_server: Neo4jServer) -> None:
    wrong = SecretStr("a-wrong-secret")
    with pytest.raises(GraphRefused, match="check CIRCUITS_GRAPH_USER") as caught:
        open_graph(neo4j_server.url, user=neo4j_server.user, password=wrong, writing=False)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_no_credentials_are_refused(neo4j_server: Neo4jServer) -> None:
    with pytest.raises(GraphRefused, match="refuses the user"):
        open_graph(neo4j_server.url, writing=False)


def test_an_unknown_database_is_refused(neo4j_server: Neo4jServer) -> None:
    with pytest.raises(GraphRefused, match="nowhere"):
        open_graph(
            neo4j_server.url, user=neo4j_server.user, password=neo4j_server.password,
            database="nowhere", writing=False,
        )  # fmt: skip


def test_a_server_without_encryption_is_not_spoken_to_as_if_it_had(
    neo4j_server: Neo4jServer,
) -> None:
    with pytest.raises(GraphUnavailable, match="does not answer") as caught:
        open_graph(
            neo4j_server.url.replace("bolt://", "bolt+s://"), user=neo4j_server.user,
            password=neo4j_server.password, writing=False,
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_the_password_shows_nowhere(
    empty_neo4j: Neo4jServer, caplog: pytest.LogCaptureFixture
) -> None:
    secret = empty_neo4j.password.get_secret_value()
    assert secret
    with caplog.at_level(logging.DEBUG), empty_neo4j.open() as store:
        store.write([Statement("CREATE (n:Model {id: 'x'})")])
        assert secret not in repr(store)
        stored = store.read("MATCH (n) RETURN properties(n) AS p").values
        lines = [
            " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
        ]
    # The driver's own process is there, and was not told the password by an argument.
    assert [line for line in lines if "registry.graph.neo4j_worker" in line]
    assert not [line for line in lines if secret in line]
    assert secret not in caplog.text
    assert secret not in repr(stored)


def test_a_driver_that_is_killed_is_told_and_replaced(empty_neo4j: Neo4jServer) -> None:
    with empty_neo4j.open() as store:
        store.write([Statement("CREATE (n:Model {id: 'x'})")])
        for process in psutil.Process().children():
            if "registry.graph.neo4j_worker" in process.cmdline():
                process.kill()
        with pytest.raises(GraphUnavailable, match=r"ended unexpectedly \(signal 9\)"):
            store.read("MATCH (n:Model) RETURN n.id AS id")
        assert store.read("MATCH (n:Model) RETURN n.id AS id").values == (("x",),)


def test_a_driver_is_kept_for_the_next_graph(empty_neo4j: Neo4jServer) -> None:
    def drivers() -> set[int]:
        return {
            child.pid
            for child in psutil.Process().children()
            if "registry.graph.neo4j_worker" in child.cmdline()
        }

    empty_neo4j.open().close()
    before = drivers()
    assert len(before) == 1
    empty_neo4j.open().close()
    assert drivers() == before
