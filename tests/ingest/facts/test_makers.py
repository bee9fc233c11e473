"""Facts that are made here."""

from __future__ import annotations

import re

import pytest

from ingest.facts.base import SUBJECT, Fact
from ingest.facts.makers import ABOUT, MAKERS, hierarchy_facts
from registry.errors import BadInput

MOST = {"capitals": 54, "languages": 50, "continents": 54, "hierarchy": 118}
each_maker = pytest.mark.parametrize("name", MAKERS)


def everything(name: str) -> tuple[Fact, ...]:
    return MAKERS[name](0, MOST[name])


def with_subject(fact: Fact, subject: str) -> str:
    """A fact's prompt with another subject, without its article."""
    return re.sub("^An? ", "", fact.prompt).replace(SUBJECT, subject)


def test_every_maker_says_what_it_makes() -> None:
    assert list(MAKERS) == list(ABOUT) == list(MOST)
    assert all(line.endswith(".") for line in ABOUT.values())


@each_maker
def test_a_seed_determines_the_facts_and_fewer_are_the_first(name: str) -> None:
    made = MAKERS[name](3, 12)
    assert made == MAKERS[name](3, 12)
    assert made[:5] == MAKERS[name](3, 5)
    assert made != MAKERS[name](4, 12)


@each_maker
def test_no_subject_comes_twice(name: str) -> None:
    subjects = [fact.subject for fact in everything(name)]
    assert len(set(subjects)) == MOST[name]


@each_maker
@pytest.mark.parametrize("too", [-1, 0, 1])
def test_more_than_there_are_is_refused(name: str, too: int) -> None:
    n = MOST[name] + 1 if too == 1 else too
    with pytest.raises(BadInput, match=f"^{n} facts of '{name}' .* give 1 to {MOST[name]}$"):
        MAKERS[name](0, n)


@each_maker
def test_the_new_answer_is_another_subjects_true_one(name: str) -> None:
    made = everything(name)
    answers = {fact.target_true for fact in made}
    assert all(fact.target_new in answers - {fact.target_true} for fact in made)


@each_maker
def test_paraphrases_are_other_prompts_about_the_subject(name: str) -> None:
    for fact in everything(name):
        assert len({fact.text, *fact.paraphrases}) >= 3
        assert all(fact.subject in one and SUBJECT not in one for one in fact.paraphrases)


@pytest.mark.parametrize("name", ["languages", "continents", "hierarchy"])
def test_neighbours_are_other_subjects_with_the_same_true_answer(name: str) -> None:
    made = everything(name)
    true = {with_subject(fact, fact.subject): fact.target_true for fact in made}
    for fact in made:
        near = [re.sub("^An? ", "", one) for one in fact.neighbours]
        assert 1 <= len(set(near)) == len(near) <= 10
        assert with_subject(fact, fact.subject) not in near
        assert {true[one] for one in near} == {fact.target_true}


def test_capitals_have_no_neighbours() -> None:
    assert not any(fact.neighbours for fact in everything("capitals"))


class TestHierarchy:
    @pytest.mark.parametrize("n", [2, 7, 40, 118])
    def test_the_fact_of_a_class_stands_before_its_leaves(self, n: int) -> None:
        made = hierarchy_facts(1, n)
        place = {fact.subject: at for at, fact in enumerate(made)}
        classes = {fact.target_true for fact in everything("hierarchy")} & {
            fact.subject for fact in everything("hierarchy")
        }
        for at, fact in enumerate(made):
            if fact.subject not in classes:
                assert place[str(fact.target_true)] < at

    def test_it_has_three_levels(self) -> None:
        above = {fact.subject: str(fact.target_true) for fact in everything("hierarchy")}
        leaves = set(above) - set(above.values())
        kingdoms = set(above.values()) - set(above)
        assert len(leaves) >= 60
        assert {above[above[leaf]] for leaf in leaves} == kingdoms
        assert (above["poodle"], above["dog"]) == ("dog", "animal")

    def test_the_new_answer_is_of_the_same_level(self) -> None:
        made = everything("hierarchy")
        kingdoms = {fact.target_true for fact in made} - {fact.subject for fact in made}
        assert all((one.target_true in kingdoms) == (one.target_new in kingdoms) for one in made)

    def test_articles_are_right(self) -> None:
        made = {fact.subject: fact for fact in everything("hierarchy")}
        assert made["oak"].prompt == "An {} is a kind of"
        assert made["dog"].prompt == "A {} is a kind of"
        assert made["oak"].paraphrases == (
            "An oak is a type of",
            "An oak falls under the category of",
        )
        texts = [text for fact in made.values() for text in (fact.text, *fact.neighbours)]
        assert not [one for one in texts if re.match("A [aeio]|An [^aeio]", one)]
