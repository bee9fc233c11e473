"""Several processes and foreign libraries around one registry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry import Registry
from tests import examples

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


@pytest.mark.slow
def test_a_notebook_that_imported_transformer_lens_first_records_and_queries(home: Path) -> None:
    process = start(NOTEBOOK, str(home))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
