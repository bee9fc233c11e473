"""One question in a setting of its own, for tests that are given both kinds of options together."""

from __future__ import annotations

from typing import Any

from ingest.discovery import EdgeScores, attribute_edges, prepare_setting

_OF_ATTRIBUTION = ("method", "steps", "progress", "on_batch")


def attribute(*given: Any, **options: Any) -> EdgeScores:
    """``attribute_edges`` in a new setting of ``given`` and all options but attribution's own."""
    own = {name: options.pop(name) for name in _OF_ATTRIBUTION if name in options}
    return attribute_edges(prepare_setting(*given, **options), **own)
