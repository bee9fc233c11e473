"""Indirect object identification: the person who receives the object.

After "Then Mary and John went to the store. John gave a drink to" the correct answer is " Mary".
Either person may be named first (ABBA and BABA). In the corrupt prompt a third name replaces the
second subject, so the prompt no longer determines which of the two it is. The task is that of Wang
et al. 2022 (arXiv 2211.00593); the sentences and lists are our own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ingest.tasks.base import Encode, PromptPair, TaskSpec, single_tokens

__all__ = ["IOI"]

_NAMES = (
    "Mary", "John", "Alice", "Paul", "Anna", "Peter", "Sarah", "Tom", "Emma", "David", "Laura",
    "James", "Susan", "Mark", "Julia", "Robert", "Helen", "Daniel", "Kate", "Simon", "Maria",
    "Thomas", "Jane", "Michael", "Lucy", "George", "Rachel", "Henry", "Diana", "Jack", "Linda",
    "Frank", "Nancy", "Kevin", "Amy", "Brian", "Lisa", "Adam", "Karen", "Martin", "Ruth", "Eric",
    "Carol", "Steven", "Emily", "Richard", "Sophie", "William", "Clara", "Edward",
)  # fmt: skip

_TEMPLATES = (
    "When {first} and {second} went to the {place}, {subject} gave a {thing} to",
    "Then {first} and {second} went to the {place}. {subject} gave a {thing} to",
    "After {first} and {second} came home from the {place}, {subject} gave a {thing} to",
    "While {first} and {second} were at the {place}, {subject} handed a {thing} to",
    "Yesterday {first} and {second} met at the {place}, and {subject} gave a {thing} to",
    "{first} and {second} had a long day at the {place}, and {subject} offered a {thing} to",
    "As soon as {first} and {second} arrived at the {place}, {subject} passed a {thing} to",
    "Once {first} and {second} were done at the {place}, {subject} decided to give a {thing} to",
)
_PLACES = (
    "store", "school", "park", "office", "garden", "station", "library", "market", "beach", "farm",
)  # fmt: skip
_THINGS = (
    "drink", "book", "ring", "letter", "ball", "key", "flower", "coin", "map", "gift",
)  # fmt: skip


def _draw(choose: random.Random, encode: Encode) -> Iterator[PromptPair]:
    names = single_tokens(_NAMES, encode, at_least=6)
    while True:
        subject, receiver, stranger = choose.sample(names, 3)
        first, second = choose.sample([subject, receiver], 2)
        template = choose.choice(_TEMPLATES)
        words = {
            "first": first,
            "second": second,
            "place": choose.choice(_PLACES),
            "thing": choose.choice(_THINGS),
        }
        yield PromptPair(
            clean=template.format(**words, subject=subject),
            corrupt=template.format(**words, subject=stranger),
            correct=f" {receiver}",
            wrong=f" {subject}",
        )


IOI = TaskSpec(
    slug="ioi",
    family="ioi",
    description="Indirect object identification: two people are named, one gives something; "
    "who receives it?",
    draw=_draw,
)
