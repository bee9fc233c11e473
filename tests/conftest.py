"""Fixtures for every test: the real servers live in ``tests.servers``."""

pytest_plugins = ["tests.servers.neo4j", "tests.servers.postgres"]
