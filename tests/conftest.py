"""Fixtures for every test: the real servers live in ``tests.servers``."""

from hypothesis import settings

pytest_plugins = ["tests.servers.neo4j", "tests.servers.postgres"]

# An example that takes long says more of what else the machine does than of the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
