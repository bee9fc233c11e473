"""Facts that are made here, from word lists of this project and without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ingest.facts.base import Fact
from ingest.facts.makers.geography import capitals_facts, continents_facts, languages_facts
from ingest.facts.makers.hierarchy import hierarchy_facts

__all__ = [
    "ABOUT",
    "MAKERS",
    "capitals_facts",
    "continents_facts",
    "hierarchy_facts",
    "languages_facts",
]

MAKERS: Mapping[str, Callable[[int, int], tuple[Fact, ...]]] = MappingProxyType(
    {
        "capitals": capitals_facts,
        "languages": languages_facts,
        "continents": continents_facts,
        "hierarchy": hierarchy_facts,
    }
)
"""Makers by name; each takes a seed and the number of facts."""

ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "capitals": "A country gets the capital of another one.",
        "languages": "A country gets another official language; neighbours speak the true one.",
        "continents": "A country is moved to another continent; neighbours lie on the true one.",
        "hierarchy": "A thing gets another class, and a class another kingdom.",
    }
)
"""What each maker's facts are, in a sentence."""
