"""Capitals: the capital city of a country.

After "The capital of France is" the correct answer is " Paris". The corrupt prompt names another
country, whose capital is the wrong answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ingest.tasks.base import Encode, PromptPair, TaskSpec, single_tokens

__all__ = ["CAPITALS", "COUNTRIES"]

COUNTRIES = (
    ("France", "Paris"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid"),
    ("England", "London"), ("Japan", "Tokyo"), ("China", "Beijing"), ("Russia", "Moscow"),
    ("Egypt", "Cairo"), ("Ireland", "Dublin"), ("Greece", "Athens"), ("Austria", "Vienna"),
    ("Portugal", "Lisbon"), ("Poland", "Warsaw"), ("Hungary", "Budapest"), ("Sweden", "Stockholm"),
    ("Norway", "Oslo"), ("Denmark", "Copenhagen"), ("Finland", "Helsinki"), ("Belgium", "Brussels"),
    ("Cuba", "Havana"), ("Peru", "Lima"), ("Kenya", "Nairobi"), ("Iran", "Tehran"),
    ("Iraq", "Baghdad"), ("Syria", "Damascus"), ("Lebanon", "Beirut"), ("Canada", "Ottawa"),
    ("Thailand", "Bangkok"), ("Turkey", "Ankara"), ("Ukraine", "Kyiv"), ("Romania", "Bucharest"),
    ("Afghanistan", "Kabul"), ("Chile", "Santiago"),
    ("Australia", "Canberra"), ("Scotland", "Edinburgh"),
    ("Croatia", "Zagreb"), ("Serbia", "Belgrade"), ("Bulgaria", "Sofia"),
    ("Colombia", "Bogota"), ("Pakistan", "Islamabad"), ("Nepal", "Kathmandu"),
    ("Vietnam", "Hanoi"), ("Indonesia", "Jakarta"), ("Switzerland", "Bern"), ("Wales", "Cardiff"),
    ("Jordan", "Amman"), ("Qatar", "Doha"), ("Ghana", "Accra"), ("Libya", "Tripoli"),
    ("Tunisia", "Tunis"), ("Venezuela", "Caracas"), ("Bangladesh", "Dhaka"), ("Latvia", "Riga"),
)  # fmt: skip
_TEMPLATES = (
    "The capital of {country} is",
    "The capital city of {country} is",
    "The capital of {country} is the city of",
    "Everyone knows that the capital of {country} is",
    "Question: What is the capital of {country}? Answer:",
    "The government of {country} sits in its capital,",
)


def _draw(choose: random.Random, encode: Encode) -> Iterator[PromptPair]:
    cities = set(single_tokens([city for _, city in COUNTRIES], encode, at_least=4))
    known = [entry for entry in COUNTRIES if entry[1] in cities]
    while True:
        (country, city), (other, other_city) = choose.sample(known, 2)
        template = choose.choice(_TEMPLATES)
        yield PromptPair(
            clean=template.format(country=country),
            corrupt=template.format(country=other),
            correct=f" {city}",
            wrong=f" {other_city}",
        )


CAPITALS = TaskSpec(
    slug="capitals",
    family="capitals",
    description="Capitals: a country is named; which city is its capital?",
    draw=_draw,
)
