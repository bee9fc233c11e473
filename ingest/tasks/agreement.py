"""Subject-verb agreement across an attractor.

After "The key to the cabinets" the correct answer is " is": the verb agrees with the subject, not
with the nearer noun, which has the other number. In the corrupt prompt the subject has the
attractor's number, and the wrong answer is the verb that would be correct there. After Linzen et
al. 2016 (arXiv 1611.01368); the sentences are our own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ingest.tasks.base import Encode, PromptPair, TaskSpec, single_tokens

__all__ = ["AGREEMENT"]

_SUBJECTS = (
    ("key", "keys"), ("book", "books"), ("picture", "pictures"), ("letter", "letters"),
    ("road", "roads"), ("door", "doors"), ("student", "students"), ("doctor", "doctors"),
    ("teacher", "teachers"), ("child", "children"), ("friend", "friends"), ("house", "houses"),
    ("tree", "trees"), ("car", "cars"), ("dog", "dogs"), ("song", "songs"), ("story", "stories"),
    ("window", "windows"), ("table", "tables"), ("name", "names"), ("boy", "boys"),
    ("girl", "girls"), ("woman", "women"), ("man", "men"), ("author", "authors"),
)  # fmt: skip
_ATTRACTORS = (
    ("cabinet", "cabinets"), ("lake", "lakes"), ("river", "rivers"), ("village", "villages"),
    ("school", "schools"), ("garden", "gardens"), ("bridge", "bridges"), ("tower", "towers"),
    ("office", "offices"), ("mountain", "mountains"), ("church", "churches"),
    ("farmer", "farmers"), ("king", "kings"), ("artist", "artists"), ("neighbor", "neighbors"),
    ("hospital", "hospitals"), ("shop", "shops"), ("island", "islands"), ("wall", "walls"),
)  # fmt: skip
_LINKS = ("near", "behind", "beside", "from", "close to", "next to")
_VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
_OPENINGS = ("The", "Everyone knows that the", "It seems that the", "Today the", "I think the")


def _draw(choose: random.Random, encode: Encode) -> Iterator[PromptPair]:
    subjects = _both_whole(_SUBJECTS, encode, at_least=5)
    attractors = _both_whole(_ATTRACTORS, encode, at_least=3)
    while True:
        number = choose.randrange(2)
        subject, verb = choose.choice(subjects), choose.choice(_VERBS)
        opening, link = choose.choice(_OPENINGS), choose.choice(_LINKS)
        rest = f"{link} the {choose.choice(attractors)[1 - number]}"
        yield PromptPair(
            clean=f"{opening} {subject[number]} {rest}",
            corrupt=f"{opening} {subject[1 - number]} {rest}",
            correct=f" {verb[number]}",
            wrong=f" {verb[1 - number]}",
        )


def _both_whole(
    nouns: tuple[tuple[str, str], ...], encode: Encode, *, at_least: int
) -> list[tuple[str, str]]:
    """Keep the nouns that are one token in both numbers."""
    forms = [form for noun in nouns for form in noun]
    whole = set(single_tokens(forms, encode, at_least=2 * at_least))
    return [noun for noun in nouns if whole.issuperset(noun)]


AGREEMENT = TaskSpec(
    slug="agreement",
    family="agreement",
    description="Subject-verb agreement: a verb after a noun of the other number than its subject",
    draw=_draw,
)
