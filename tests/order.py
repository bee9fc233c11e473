"""The longest files are tested first, so that the processes of a run end together.

Without this the file that takes longest may be the last to start, and all but one process wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["SECONDS", "longest_first"]

SECONDS: Mapping[str, int] = {
    "test_readme.py": 160,
    "conformance/test_ledger.py": 130,
    "conformance/test_graph.py": 110,
    "registry/graph/test_foreign.py": 100,
    "test_faults.py": 80,
    "registry/graph/test_server_limits.py": 70,
    "registry/test_stores.py": 60,
    "ingest/jobs/test_matrix.py": 55,
    "ingest/formats/test_safety.py": 40,
    "ingest/jobs/test_transfer.py": 40,
    "conformance/test_queries.py": 35,
    "ingest/discovery/edges/test_reference.py": 35,
    "ingest/formats/test_fuzz.py": 35,
    "test_crashes.py": 35,
    "test_examples.py": 35,
    "test_extending.py": 35,
    "test_packaging.py": 35,
    "test_production.py": 35,
    "ingest/discovery/test_ablated_parts.py": 30,
    "ingest/discovery/test_brute_force.py": 30,
    "ingest/discovery/test_config_variants.py": 30,
    "ingest/discovery/test_families.py": 30,
    "conformance/test_ledger_processes.py": 25,
}
"""How long a file takes, about; what is not here takes less than the last.

``make test`` writes what each took into ``reports/junit.xml``.
"""

_TESTS = Path(__file__).parent


def longest_first(items: list[pytest.Item]) -> None:
    """Sort by the time that a file takes; all else stays in its order."""
    items.sort(key=lambda item: -SECONDS.get(item.path.relative_to(_TESTS).as_posix(), 0))
