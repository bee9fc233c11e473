"""Real servers for tests, started once per run and stopped at its end."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(server: str, reason: str) -> NoReturn:
    """Skip a server's tests with the reason; in CI fail them, as a skip there guards nothing."""
    text = f"{server} is not available: {reason}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(text + " (a failure because CI=true)")
    pytest.skip(text)
