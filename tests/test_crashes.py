"""Kill -9 at random points: nothing is half there, nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registry import Registry
from registry.records import CircuitState
from tests import examples

pytestmark = pytest.mark.seconds

ROUNDS = 4
RECORD = """
import sys
from registry import Registry
from tests import examples
with Registry.open() as registry:
    print("ready", flush=True)
    for seed in range(int(sys.argv[1]), 100_000):
        circuit = examples.circuit(seed)
        registry.record(circuit, examples.faithfulness(circuit))
        print(circuit.id, flush=True)
"""
SYNC = """
from registry import Registry
with Registry.open() as registry:
    print("ready", flush=True)
    registry.sync()
"""
REBUILD = """
from registry import Registry
with Registry.open() as registry:
    print("ready", flush=True)
    while True:
        registry.rebuild()
"""


@pytest.fixture(params=["kglite", pytest.param("neo4j", marks=pytest.mark.neo4j)])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new registry on each engine, which every process finds through the environment."""
    if request.param == "neo4j":
        server = request.getfixturevalue("empty_neo4j")
        monkeypatch.setenv("CIRCUITS_GRAPH", server.url)
        monkeypatch.setenv("CIRCUITS_GRAPH_USER", server.user)
        monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", server.password.get_secret_value())
    monkeypatch.setenv("CIRCUITS_HOME", str(tmp_path / "registry"))
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS)
    return tmp_path / "registry"


def test_a_killed_recorder_leaves_nothing_half_there(home: Path) -> None:
    acknowledged: set[str] = set()
    for round_ in range(ROUNDS):
        acknowledged |= run_and_kill(RECORD, str(1000 * round_), seed=round_, acknowledged=1)
    with Registry.open(home) as registry:
        registry.sync()
        assert len(acknowledged) >= ROUNDS
        assert acknowledged <= {entry.id for entry in registry.circuits()}
        assert_ledger_and_graph_agree(registry)


def test_a_killed_sync_is_finished_by_the_next(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as out_of_reach:
        out_of_reach.setenv("CIRCUITS_GRAPH", "bolt://127.0.0.1:1")
        with Registry.open(home) as registry:
            circuits = [examples.circuit(seed) for seed in range(200)]
            registry.record(*circuits)
            registry.retract(circuits[0].id, reason="wrong prompts")
    for round_ in range(ROUNDS):
        run_and_kill(SYNC, seed=round_, longest_seconds=0.6)
    with Registry.open(home) as registry:
        registry.sync()
        assert len(registry.circuits()) == 200
        assert_ledger_and_graph_agree(registry)


def test_a_killed_rebuild_is_finished_by_the_next_sync(home: Path) -> None:
    with Registry.open(home) as registry:
        registry.record(*(examples.circuit(seed) for seed in range(100)))
    for round_ in range(ROUNDS):
        run_and_kill(REBUILD, seed=round_, longest_seconds=1.0)
        with Registry.open(home) as registry:
            registry.sync()
            assert_ledger_and_graph_agree(registry)


def run_and_kill(
    script: str, *arguments: str, seed: int, longest_seconds: float = 1.5, acknowledged: int = 0
) -> set[str]:
    """Run a script, kill it -9 at a random moment after so many lines; return its lines."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    first = {process.stdout.readline().strip() for _ in range(acknowledged)}
    time.sleep(random.Random(seed).uniform(0.01, longest_seconds))
    process.send_signal(signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)
    # The last line may be cut off in the middle: an acknowledgement nobody received.
    return first | {line.strip() for line in printed.splitlines(keepends=True) if line[-1] == "\n"}


def assert_ledger_and_graph_agree(registry: Registry) -> None:
    """Every circuit that is not retracted is wholly in the graph, and no other is."""
    assert registry.status().pending == 0
    recorded = {
        entry.id: (entry.n_nodes, entry.n_edges, entry.n_edges)
        for entry in registry.circuits()
        if entry.labels.state is not CircuitState.RETRACTED
    }
    nodes = counts(registry, "MATCH (c:Circuit) OPTIONAL MATCH (c)-[:HAS_NODE]->(x:Node)")
    edges = counts(
        registry, "MATCH (c:Circuit) OPTIONAL MATCH (c)-[:HAS_NODE]->(:Node)-[x:EDGE]->()"
    )
    uses = counts(registry, "MATCH (c:Circuit) OPTIONAL MATCH (c)-[x:USES]->(:Connection)")
    assert {key: (nodes[key], edges[key], uses[key]) for key in nodes} == recorded
    evaluations = registry.cypher("MATCH (e:Evaluation) RETURN count(e) AS n").values[0][0]
    kept = [e for e in registry.ledger.evaluations() if e.circuit in recorded]
    assert evaluations == len(kept)


def counts(registry: Registry, match: str) -> dict[str, int]:
    rows = registry.cypher(f"{match} RETURN c.id AS id, count(x) AS n ORDER BY id")
    return {row["id"]: row["n"] for row in rows}
