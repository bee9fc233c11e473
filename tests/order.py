"""The longest files are tested first, so that the processes of a run end together.

Without this the file that takes longest may be the last to start, and all but one process wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["SECONDS", "longest_first"]

SECONDS: Mapping[str, int] = {
    "test_readme.py": 315,
    "conformance/test_ledger.py": 235,
    "conformance/test_graph.py": 200,
    "registry/graph/test_server_limits.py": 115,
    "registry/graph/test_foreign.py": 100,
    "ingest/jobs/test_matrix.py": 90,
    "ingest/jobs/test_transfer.py": 85,
    "test_faults.py": 75,
    "ingest/discovery/edges/test_reference.py": 70,
    "registry/test_odd_names.py": 60,
    "conformance/test_queries.py": 60,
    "registry/test_stores.py": 60,
    "test_crashes.py": 55,
    "ingest/discovery/test_tracr.py": 55,
    "ingest/models/test_models.py": 55,
    "ingest/formats/test_bundle.py": 50,
    "queries/cli/test_usage_cli.py": 45,
    "registry/settings/test_trust.py": 45,
    "queries/answers/test_matrix.py": 45,
    "ingest/formats/test_fuzz.py": 45,
    "queries/cli/test_report_cli.py": 40,
    "ingest/formats/test_safety.py": 40,
    "registry/graph/test_embedded.py": 35,
    "queries/test_planted.py": 35,
    "queries/chance/test_nulls.py": 35,
    "registry/test_silent_hosts.py": 35,
    "queries/cli/test_compare_cli.py": 35,
    "test_production.py": 35,
    "ingest/discovery/test_ablated_parts.py": 35,
    "ingest/discovery/test_config_variants.py": 30,
    "test_plugins.py": 30,
    "queries/cli/test_shared_cli.py": 30,
    "ingest/jobs/test_verification.py": 30,
    "registry/upkeep/test_backups.py": 30,
    "ingest/discovery/test_brute_force.py": 30,
    "registry/cli/test_runs.py": 30,
}
"""How long a file takes, about; what is not here takes less than the last.

``make test`` writes what each took into ``reports/junit.xml``.
"""

_TESTS = Path(__file__).parent


def longest_first(items: list[pytest.Item]) -> None:
    """Sort by the time that a file takes; all else stays in its order."""
    items.sort(key=lambda item: -SECONDS.get(item.path.relative_to(_TESTS).as_posix(), 0))
