"""Contracts of the stores, each run over every implementation."""

import pytest

# Contracts lie in modules that pytest does not take for tests; their assertions shall explain
# themselves all the same.
pytest.register_assert_rewrite(
    "tests.conformance.graph_contract",
    "tests.conformance.ledger_contract",
    "tests.conformance.ledger_recording",
)
