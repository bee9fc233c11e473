"""Facts about countries: their capitals, official languages and continents.

A neighbour is the prompt of the fact with another country that has the same true answer, as in
CounterFact. No two countries share a capital, so facts about capitals have no neighbours. Countries
with several official languages, or on two continents, are left out, because their true answer is
not one.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingest.facts.base import Fact
from ingest.facts.makers.drawing import Relation, draw_facts
from ingest.tasks.capitals import COUNTRIES

__all__ = ["capitals_facts", "continents_facts", "languages_facts"]

_LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "Spanish": (
        "Spain", "Mexico", "Argentina", "Colombia", "Chile", "Cuba", "Uruguay",
        "Honduras", "Guatemala", "Panama", "Nicaragua",
    ),
    "Portuguese": ("Portugal", "Brazil", "Angola", "Mozambique"),
    "German": ("Germany", "Austria", "Liechtenstein"),
    "French": ("France", "Monaco", "Gabon", "Benin", "Togo", "Senegal"),
    "English": (
        "Jamaica", "Ghana", "Nigeria", "Zambia", "Barbados", "Liberia", "Grenada", "Sierra Leone",
    ),
    "Arabic": (
        "Egypt", "Libya", "Jordan", "Qatar", "Oman", "Kuwait", "Yemen", "Tunisia", "Lebanon",
        "Saudi Arabia",
    ),
    "Italian": ("Italy", "San Marino"),
    "Korean": ("South Korea", "North Korea"),
    "Romanian": ("Romania", "Moldova"),
    "Dutch": ("the Netherlands", "Suriname"),
}  # fmt: skip
_CONTINENTS: Mapping[str, tuple[str, ...]] = {
    "Europe": (
        "France", "Germany", "Italy", "Poland", "Sweden", "Norway", "Finland", "Austria", "Belgium",
        "Hungary", "Romania", "Ireland", "Greece", "Croatia",
    ),
    "Asia": (
        "China", "India", "Japan", "Thailand", "Vietnam", "Nepal", "Mongolia", "Pakistan",
        "Bangladesh", "Malaysia", "Cambodia", "Iraq",
    ),
    "Africa": (
        "Kenya", "Nigeria", "Ghana", "Ethiopia", "Senegal", "Zambia", "Uganda", "Morocco",
        "Algeria", "Libya", "Angola", "Tanzania",
    ),
    "South America": (
        "Brazil", "Argentina", "Peru", "Chile", "Bolivia", "Ecuador", "Paraguay", "Uruguay",
        "Venezuela",
    ),
    "North America": ("Canada", "Mexico", "Cuba", "Guatemala", "Honduras", "Nicaragua", "Belize"),
}  # fmt: skip


def _pairs(groups: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, str], ...]:
    return tuple((country, answer) for answer, countries in groups.items() for country in countries)


_OF_CAPITALS = Relation(
    "capitals",
    (
        "The capital of {} is",
        "The capital city of {} is",
        "{}'s capital is the city of",
        "The government of {} sits in the city of",
    ),
    COUNTRIES,
)
_OF_LANGUAGES = Relation(
    "languages",
    (
        "The official language of {} is",
        "In {}, the official language is",
        "The government of {} writes its laws in",
    ),
    _pairs(_LANGUAGES),
)
_OF_CONTINENTS = Relation(
    "continents",
    (
        "{} is a country on the continent of",
        "The continent on which {} lies is",
        "On a map of the world, {} is found in",
    ),
    _pairs(_CONTINENTS),
)


def capitals_facts(seed: int, n: int) -> tuple[Fact, ...]:
    """Draw facts such as "The capital of France is", from Paris to the capital of another country.

    Args:
        seed: Determines the facts and their order.
        n: Number of facts; each is about another country.

    Returns:
        Facts with three paraphrases each and without neighbours.

    Raises:
        BadInput: There are not so many.
    """
    return draw_facts(_OF_CAPITALS, seed, n)


def languages_facts(seed: int, n: int) -> tuple[Fact, ...]:
    """Draw facts such as "The official language of Brazil is", from Portuguese to another one.

    Args:
        seed: Determines the facts and their order.
        n: Number of facts; each is about another country.

    Returns:
        Facts with two paraphrases each, and neighbours with the same true language.

    Raises:
        BadInput: There are not so many.
    """
    return draw_facts(_OF_LANGUAGES, seed, n)


def continents_facts(seed: int, n: int) -> tuple[Fact, ...]:
    """Draw facts such as "Kenya is a country on the continent of", from Africa to another one.

    Args:
        seed: Determines the facts and their order.
        n: Number of facts; each is about another country.

    Returns:
        Facts with two paraphrases each, and neighbours on the same true continent.

    Raises:
        BadInput: There are not so many.
    """
    return draw_facts(_OF_CONTINENTS, seed, n)
