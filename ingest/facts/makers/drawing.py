"""Draw facts of a relation: a subject, a wrong answer, and neighbours that share the true one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ingest.facts.base import SUBJECT, Fact
from registry.errors import BadInput

__all__ = ["MOST_NEIGHBOURS", "Relation", "check_number", "draw_facts"]

MOST_NEIGHBOURS = 10
"""Neighbours of a fact, as many as CounterFact has."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation between subjects and answers.

    Attributes:
        name: Its name, which seeds its draws.
        templates: Prompts with ``{}`` for the subject; those after the first are paraphrases.
        pairs: Each subject with its true answer.
    """

    name: str
    templates: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def draw_facts(relation: Relation, seed: int, n: int) -> tuple[Fact, ...]:
    """Draw facts without repetition; fewer of the same seed are the first of them.

    Raises:
        BadInput: There are not so many.
    """
    check_number(relation.name, n, len(relation.pairs))
    # A text seeds the generator in the same way in every process and version of Python.
    choose = random.Random(f"{relation.name}:{seed}")
    order = choose.sample(relation.pairs, len(relation.pairs))
    return tuple(_fact(relation, pair, choose) for pair in order[:n])


def check_number(name: str, n: int, most: int) -> None:
    """Refuse a number of facts that there are not.

    Args:
        name: The maker's name.
        n: The number.
        most: How many there are.

    Raises:
        BadInput: It is below 1 or above ``most``.
    """
    if not 1 <= n <= most:
        raise BadInput(f"{n:,} facts of {name!r} are too many or too few; give 1 to {most:,}")


def _fact(relation: Relation, pair: tuple[str, str], choose: random.Random) -> Fact:
    subject, true = pair
    prompt, *paraphrases = relation.templates
    others = sorted({answer for _, answer in relation.pairs} - {true})
    return Fact(
        prompt=prompt,
        subject=subject,
        target_new=choose.choice(others),
        target_true=true,
        paraphrases=tuple(one.replace(SUBJECT, subject) for one in paraphrases),
        neighbours=tuple(
            prompt.replace(SUBJECT, other) for other in _sharing(relation.pairs, pair, choose)
        ),
    )


def _sharing(
    pairs: Sequence[tuple[str, str]], pair: tuple[str, str], choose: random.Random
) -> list[str]:
    """Draw other subjects with the same true answer."""
    found = [subject for subject, true in pairs if true == pair[1] and subject != pair[0]]
    return choose.sample(found, min(len(found), MOST_NEIGHBOURS))
