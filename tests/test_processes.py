"""Several processes and foreign libraries around one registry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry import Registry
from tests import examples

pytestmark = pytest.mark.seconds

RECORD_TEN = """
import sys
from registry import Registry
from tests import examples
with Registry.open(sys.argv[1]) as registry:
    for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
        registry.record(examples.circuit(seed))
"""
NOTEBOOK = """
import sys
import transformer_lens
from registry import Registry
from tests import examples
with Registry.open(sys.argv[1]) as registry:
    circuit = examples.circuit(7)
    registry.record(circuit)
    registry.sync()
    rows = registry.cypher("MATCH (c:Circuit) RETURN c.id AS id")
    assert rows.to_dicts() == [{"id": circuit.id}], rows
    assert "kglite" not in sys.modules
"""

FULL_DISK = """
import resource, signal, sys
from registry import Registry
from registry.errors import StorageError
from registry.records import Circuit, Node
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
nodes = tuple(Node(component=f"m{i % 12}.n{i // 12}", effect=i / 7) for i in range(30_000))
with Registry.open(sys.argv[1]) as registry:
    try:
        registry.record(Circuit(model="gpt2", task="ioi", method="x", level="neuron", nodes=nodes))
    except StorageError as error:
        print(error)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with Registry.init(tmp_path / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS)
    return tmp_path / "registry"


def test_two_processes_recording_at_once_are_both_kept(home: Path) -> None:
    processes = [start(RECORD_TEN, str(home), str(first)) for first in (0, 100)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    wanted = {examples.circuit(seed).id for seed in (*range(10), *range(100, 110))}
    with Registry.open(home) as registry:
        registry.sync()
        in_graph = registry.cypher("MATCH (c:Circuit) RETURN c.id AS id")
        assert {row["id"] for row in in_graph} == wanted
        assert {entry.id for entry in registry.circuits()} == wanted


@pytest.mark.seconds
def test_a_notebook_that_imported_transformer_lens_first_records_and_queries(home: Path) -> None:
    process = start(NOTEBOOK, str(home))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_a_disk_that_is_full_ends_in_one_line_and_nothing_stored(home: Path) -> None:
    artifacts = sorted((home / "artifacts").rglob("*"))
    process = start(FULL_DISK, str(home))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(output.splitlines()) == 1
    assert "artifact" in output
    with Registry.open(home) as registry:
        assert registry.circuits() == []
    files = [path for path in (home / "artifacts").rglob("*") if path.is_file()]
    assert files == [path for path in artifacts if path.is_file()]


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
