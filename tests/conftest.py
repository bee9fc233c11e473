"""Fixtures for every test: the real servers live in ``tests.servers``."""

import os
import shutil
import tempfile

import pytest
from hypothesis import settings

from registry.settings_table import CONFIG

pytest_plugins = ["tests.servers.neo4j", "tests.servers.postgres"]

# An example that takes long says more of what else the machine does than of the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Give this run, and the processes it starts, a list of trusted registries of their own."""
    folder = tempfile.mkdtemp(prefix="circuits-config-")
    os.environ[CONFIG.variable] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
