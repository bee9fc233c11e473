"""Nouns with numbers and articles."""

from __future__ import annotations

import pytest

from registry.limits import LIMITS
from registry.plugins import GROUPS
from registry.texts.nouns import counted, with_article


@pytest.mark.parametrize(
    ("n", "words"), [(0, "0 artifacts"), (1, "1 artifact"), (1_354, "1,354 artifacts")]
)
def test_only_one_is_singular(n: int, words: str) -> None:
    assert counted(n, "artifact") == words


def test_the_nouns_of_messages_have_their_articles() -> None:
    nouns = {*LIMITS, *(group.name for group in GROUPS.values())}
    written = {with_article(noun) for noun in nouns}
    assert {one for one in written if one.startswith("an ")} == {
        "an attachment's name",
        "an exporter",
    }
