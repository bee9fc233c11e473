"""Measure the graph: the rate of projection, and the times of the named queries.

It measures 100 and 1,000 circuits of 500 edges on each engine. Circuits are synthetic: ten tasks on
GPT-2 small. Some components are hubs, as in real circuits, and circuits of one task share more. The
time of projection is from the outbox to the committed graph, including reading and validating each
circuit's document; the embedded engine's checkpoint is timed separately.

    python benchmarks/graph.py [--circuits 100 1000] [--engines kglite neo4j] [--repeat 7]

Neo4j is started as for tests (Java 17 and Maven), or CIRCUITS_TEST_NEO4J names a running server,
which is emptied.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from many_circuits import MODEL, N_EDGES, TASKS, make_circuits
from pydantic import SecretStr

from registry.catalogue import NamedQuery, bind, load_catalogue
from registry.graph.base import GraphStore
from registry.graph.embedded import EmbeddedGraph
from registry.graph.projection import project
from registry.graph.schema import Owner, begin_filling
from registry.ledger.base import Batch, Ledger, NewCircuit
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.records import Circuit, Edit, Outcome

if TYPE_CHECKING:
    from tests.servers.neo4j import Neo4jServer


class Source:
    """A ledger in a file, and the circuits' documents in memory."""

    def __init__(self, ledger: Ledger, circuits: Sequence[Circuit]) -> None:
        self.ledger = ledger
        self._documents = {circuit.id: circuit.document for circuit in circuits}

    def document(self, circuit: str) -> Circuit:
        """Read and validate a document, like from the artifact store."""
        return Circuit.model_validate_json(self._documents[circuit])


def parameters(circuits: Sequence[Circuit], edit: Edit) -> dict[str, dict[str, Any]]:
    """Parameters of each named query; a query that is not listed here is an error."""
    tasks = [task.slug for task in TASKS]
    # Two circuits of one task, with the same hubs, and one circuit of every task.
    first, second = circuits[0], circuits[len(TASKS)]
    everything = [circuit.id for circuit in circuits]
    each = everything[: len(TASKS)]
    busy = [f"{MODEL.slug}/{edge.connection}" for edge in first.edges if edge.source == "input"]
    pair = {"a": first.id, "b": second.id}
    return {
        "circuit-differences": pair,
        "circuit-differences-of-components": pair,
        "circuit-overlaps": {"circuits": everything[::50]},
        "circuit-overlaps-of-components": {"circuits": everything[::50], "kind": "head"},
        "circuits-of-task": {"task": tasks[0]},
        "circuits-using-connections": {"connections": busy[:3]},
        "component-frequency": {"circuits": everything[:: len(TASKS)]},
        "components-by-role": {},
        "connection-frequency": {"circuits": everything[:: len(TASKS)]},
        "edits-of-components": {"components": ["gpt2/a9.h6", "gpt2/m5"]},
        "edits-touching": {"circuit": first.id},
        "nearest-by-components": {"circuit": first.id, "limit": 10},
        "nearest-circuits": {"circuit": first.id, "limit": 10},
        "pair-intersection": pair,
        "reused-connections": {"min_circuits": max(2, len(circuits) // 20)},
        "shared-components": {"tasks": tasks[:3]},
        "shared-connections": {"tasks": tasks[:3]},
        "tasks-at-risk": {"edit": edit.id},
        "tasks-using-components": {"circuits": each},
        "tasks-using-connections": {"circuits": each},
        "transfers": {"circuits": each},
        "where-used": {"component": "gpt2/a9.h6"},
    }


@contextlib.contextmanager
def recorded(circuits: Sequence[Circuit], folder: Path) -> Iterator[tuple[Source, Edit]]:
    """Make a ledger with the circuits and one edit with an outcome on each task."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    migrate_ledger(url)
    edit = Edit(model=MODEL.slug, editor="ROME", components=("m5", "a9.h6"),
                circuits=(circuits[0].id,))  # fmt: skip
    outcomes = [
        Outcome(edit=edit.id, metric="accuracy", task=task.slug, before=1.0, after=0.5)
        for task in TASKS
    ]
    with open_ledger(url) as ledger:
        ledger.record(Batch(models=[MODEL], tasks=TASKS, edits=[edit], outcomes=outcomes,
                            circuits=[NewCircuit(circuit) for circuit in circuits]))  # fmt: skip
        yield Source(ledger, circuits), edit


def measure_projection(store: GraphStore, source: Source, n_circuits: int) -> None:
    """Project everything pending into an empty graph and print the rates."""
    changes = source.ledger.changes_since(0).changes
    wall, processor = time.perf_counter(), time.process_time()
    project(store, changes, source)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    began = time.perf_counter()
    store.checkpoint()
    saved = time.perf_counter() - began
    edges = n_circuits * N_EDGES
    (rows,) = store.read("MATCH (n) RETURN count(n) AS n").values[0]
    (links,) = store.read("MATCH ()-[r]->() RETURN count(r) AS n").values[0]
    print(
        f"  projection      {edges / wall:10,.0f} edges/s   {(rows + links) / wall:10,.0f} rows/s"
        f"   ({wall:.1f} s, of which {processor:.1f} s of this process; {rows:,} nodes,"
        f" {links:,} relationships)"
    )
    print(f"  checkpoint      {saved * 1000:10,.0f} ms")


def measure_queries(store: GraphStore, asked: Mapping[str, Mapping[str, Any]], repeat: int) -> None:
    """Print each named query's median time and number of rows."""
    for name, query in load_catalogue().items():
        given = bind(query, dict(asked[name]))
        times, n_rows = [], 0
        for _ in range(repeat):
            began = time.perf_counter()
            n_rows = len(store.read(query.text, given, timeout_seconds=300))
            times.append(time.perf_counter() - began)
        first, median = times[0] * 1000, statistics.median(times) * 1000
        print(f"  {name:<33} {median:8.1f} ms   (first {first:.0f} ms, {n_rows:,} rows)")


def refuse_unlisted(catalogue: Mapping[str, NamedQuery], asked: Mapping[str, Any]) -> None:
    """End if a named query has no parameters here, or if a listed query no longer exists."""
    if catalogue.keys() != asked.keys():
        raise SystemExit(
            f"queries and parameters differ: {sorted(catalogue.keys() ^ asked.keys())}"
        )


@contextlib.contextmanager
def kglite_graph(folder: Path) -> Iterator[tuple[GraphStore, GraphStore]]:
    """A writer and a reader of a new embedded graph."""
    path = folder / "graph.kgl"
    with EmbeddedGraph(path, writing=True) as writer, EmbeddedGraph(path, writing=False) as reader:
        yield writer, reader


@contextlib.contextmanager
def running_neo4j() -> Iterator[Neo4jServer]:
    """The Neo4j of the tests, or the one that CIRCUITS_TEST_NEO4J names."""
    # A script has this folder on its path, but not the folder of the tests.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.servers.neo4j import LONG_RUNNING, Neo4jServer, running_server

    given = os.environ.get("CIRCUITS_TEST_NEO4J")
    if given:
        user = os.environ.get("CIRCUITS_GRAPH_USER", "neo4j")
        yield Neo4jServer(given, user, SecretStr(os.environ.get("CIRCUITS_GRAPH_PASSWORD", "")))
        return
    with running_server(java_options=LONG_RUNNING) as server:
        yield server


@contextlib.contextmanager
def neo4j_graph(folder: Path) -> Iterator[tuple[GraphStore, GraphStore]]:
    """A writer and a reader of an empty Neo4j."""
    del folder
    with running_neo4j() as server, server.open() as writer, server.open(writing=False) as reader:
        writer.clear()
        yield writer, reader


def measure(engine: str, circuits: Sequence[Circuit], repeat: int) -> None:
    """Print everything for one engine and number of circuits."""
    opened = {"kglite": kglite_graph, "neo4j": neo4j_graph}[engine]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="circuits-bench-")))
        source, edit = stack.enter_context(recorded(circuits, folder))
        asked = parameters(circuits, edit)
        refuse_unlisted(load_catalogue(), asked)
        writer, reader = stack.enter_context(opened(folder))
        print(f"{writer.version()}, {len(circuits):,} circuits of {N_EDGES} edges", flush=True)
        owner = Owner(source.ledger.registry_id, source.ledger.instance)
        marker = begin_filling(writer, owner, None)
        if engine == "neo4j":
            # A new server still compiles its code; only times after that count.
            project(writer, source.ledger.changes_since(0).changes[:40], source)
            begin_filling(writer, owner, marker)
        measure_projection(writer, source, len(circuits))
        began = time.perf_counter()
        reader.read("RETURN 1 AS one")
        print(f"  opening to read {(time.perf_counter() - began) * 1000:10,.0f} ms", flush=True)
        measure_queries(reader, asked, repeat)
        began = time.perf_counter()
        begin_filling(writer, owner, marker)
        print(f"  emptying        {(time.perf_counter() - began) * 1000:10,.0f} ms\n", flush=True)


def main() -> None:
    """Measure as the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--circuits", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--engines", nargs="+", default=["kglite", "neo4j"])
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    for n in options.circuits:
        circuits = make_circuits(n)
        for engine in options.engines:
            measure(engine, circuits, options.repeat)


if __name__ == "__main__":
    main()
