"""Fixtures for every test: the real servers live in ``tests.servers``."""

import os
import shutil
import tempfile

import pytest
from hypothesis import settings

from registry.settings.table import CONFIG
from tests.few import n_examples
from tests.order import longest_first

pytest_plugins = ["tests.servers.neo4j", "tests.servers.postgres"]

# An example that takes long says more of what else the machine does than of the code.
settings.register_profile("no deadline", deadline=None, max_examples=n_examples(50))
settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Give this run, and the processes it starts, a list of trusted registries of their own."""
    folder = tempfile.mkdtemp(prefix="circuits-config-")
    os.environ[CONFIG.variable] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, and have every test that ``make test`` leaves say why.

    Raises:
        pytest.UsageError: A test is marked ``slow`` without a word on what is tested instead.
    """
    longest_first(items)
    for item in items:
        if any(not mark.args for mark in item.iter_markers("slow")):
            raise pytest.UsageError(
                f"{item.nodeid} is left to 'make slow' without a reason: write slow('what of it"
                " make test holds'), or 'seconds' for a test that 'make check' leaves out"
            )
