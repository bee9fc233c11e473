"""The environment of tests: no settings from outside, and a list of trusted homes of its own."""

from __future__ import annotations

from collections.abc import Mapping

from registry.settings.table import CONFIG

_KEPT = ("CIRCUITS_TEST_", CONFIG.variable)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the settings of a registry."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("CIRCUITS_") or name.startswith(_KEPT)
    }
