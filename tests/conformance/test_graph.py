"""The graph's contract over the embedded engine and Neo4j."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.graph.base import GraphStore
from registry.graph.embedded import EmbeddedGraph
from registry.graph.projection import project
from registry.graph.schema import begin_filling
from tests.conformance.gaps import GAPS, marks_for
from tests.conformance.graph_contract import (
    GraphContract,
    Records,
    Reopen,
    circuit_with_positions,
    dump,
    filled,
    prepared,
    records,
)
from tests.servers.neo4j import Neo4jServer

__all__ = ["prepared", "records"]

ENGINES = ["kglite", pytest.param("neo4j", marks=pytest.mark.neo4j)]


@pytest.fixture(params=ENGINES)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Opens the same, at first empty graph each time it is called."""
    for mark in marks_for(request.param, request.node.name):
        request.applymarker(mark)
    if request.param == "kglite":
        return lambda *, writing: EmbeddedGraph(tmp_path / "graph" / "graph.kgl", writing=writing)
    server: Neo4jServer = request.getfixturevalue("empty_neo4j")
    return server.open


@pytest.fixture
def graph(reopen: Reopen) -> Iterator[GraphStore]:
    with reopen(writing=True) as opened:
        yield opened


class TestGraph(GraphContract):
    pass


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: f"{gap.engine}-{gap.test}")
def test_a_gap_names_a_test_that_exists(gap: Any) -> None:
    assert hasattr(GraphContract, gap.test)
    assert gap.reason


@pytest.mark.neo4j
def test_both_engines_hold_the_same_graph(
    tmp_path: Path, empty_neo4j: Neo4jServer, records: Records
) -> None:
    first, _ = filled(records)
    records.add([circuit_with_positions()])
    with (
        EmbeddedGraph(tmp_path / "graph.kgl", writing=True) as embedded,
        empty_neo4j.open() as server,
    ):
        for store in (embedded, server):
            begin_filling(store, records.owner, None)
            project(store, records.changes(), records)
        assert dump(embedded) == dump(server)
        records.retract(first)
        for store in (embedded, server):
            project(store, records.changes(), records)
        assert dump(embedded) == dump(server)
