"""Every task's pairs: of equal token length, single answers, new each time, the same by seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from ingest.tasks import PromptPair, TaskSpec, TokenPair, align, all_tasks, find_task
from ingest.tasks.base import Encode, single_tokens
from registry.errors import BadInput, NotFound
from registry.models.aliases import MODEL_ALIASES
from tests.ingest.tasks.words import WholeWords

TASKS = tuple(all_tasks().values())
_SLUGS = [task.slug for task in TASKS]
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)


def _split_digits(text: str) -> list[int]:
    """Reads ``" 5"`` as a space and a digit, as Llama's tokenizers do; other words are whole."""
    found: list[int] = []
    word = ""
    for character in [*text, ""]:
        if character and character != " " and not character.isdigit() and character.isalnum():
            word += character
            continue
        if word.strip():
            found.append(sum(ord(c) * 31**i for i, c in enumerate(word)))
        word = character if character == " " else ""
        if character and character != " ":
            found += [1000, ord(character)] if character.isdigit() else [ord(character)]
    return found


@pytest.fixture(params=["whole words", "split digits"])
def encode(request: pytest.FixtureRequest) -> Encode:
    return WholeWords() if request.param == "whole words" else _split_digits


@pytest.mark.parametrize("task", TASKS, ids=_SLUGS)
def test_both_prompts_of_a_pair_have_as_many_tokens(task: TaskSpec, encode: Encode) -> None:
    for pair in _made(task, encode):
        assert len(pair.clean) == len(pair.corrupt)
        assert pair.clean != pair.corrupt


@pytest.mark.parametrize("task", TASKS, ids=_SLUGS)
def test_a_prompt_with_its_answer_reads_as_its_tokens_and_the_answers(
    task: TaskSpec, encode: Encode
) -> None:
    for pair in _made(task, encode):
        assert [*pair.clean, pair.correct] == list(encode(pair.text.clean + pair.text.correct))
        assert [*pair.corrupt, pair.wrong] == list(encode(pair.text.corrupt + pair.text.wrong))
        assert pair.correct != pair.wrong


@pytest.mark.parametrize("task", TASKS, ids=_SLUGS)
def test_no_clean_prompt_comes_twice(task: TaskSpec, encode: Encode) -> None:
    texts = [pair.text.clean for pair in _made(task, encode)]
    assert len(texts) == 64
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("task", TASKS, ids=_SLUGS)
def test_a_seed_gives_the_same_pairs_again_and_another_seed_others(task: TaskSpec) -> None:
    encode = WholeWords()
    first, again, other = (task.make(seed, 16, encode) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("task", TASKS, ids=_SLUGS)
def test_asking_for_fewer_pairs_gives_the_beginning_of_more(task: TaskSpec) -> None:
    encode = WholeWords()
    assert task.make(0, 5, encode) == task.make(0, 16, encode)[:5]


def test_a_task_with_few_prompts_ends_when_there_are_no_new_ones() -> None:
    capitals = find_task("capitals")
    made = capitals.make(0, 100_000, WholeWords())
    assert 100 < len(made) < 1_000


def test_ioi_names_either_person_first() -> None:
    firsts = {
        "receiver" if _place(pair.correct, pair) < _place(pair.wrong, pair) else "subject"
        for pair in _texts("ioi")
    }
    assert firsts == {"receiver", "subject"}


def test_ioi_corrupts_the_second_subject_with_a_third_name() -> None:
    for pair in _texts("ioi"):
        clean, corrupt = pair.clean.split(), pair.corrupt.split()
        changed = [(old, new) for old, new in zip(clean, corrupt, strict=True) if old != new]
        assert len(changed) == 1
        old, new = changed[0]
        assert old == pair.wrong.strip()
        assert new not in pair.clean.split()


def test_sequences_ask_for_the_successor_and_corrupt_their_order() -> None:
    for pair in _texts("sequence/months"):
        shown, random = (_months(text) for text in (pair.clean, pair.corrupt))
        asked = _MONTHS.index(pair.correct.strip())
        assert [_MONTHS.index(month) for month in shown] == list(range(asked - 4, asked))
        assert pair.wrong == f" {shown[-1]}"
        places = [_MONTHS.index(month) for month in random]
        assert all(b != a + 1 for a, b in pairwise(places))
        assert random[-1] != shown[-1]


def test_agreement_puts_a_noun_of_the_other_number_before_the_verb() -> None:
    for pair in _texts("agreement"):
        plural = pair.correct.strip() in ("are", "were", "have")
        assert pair.clean.endswith("s") != plural  # no attractor has an irregular plural
        assert pair.clean.split()[-1] == pair.corrupt.split()[-1]


def test_the_wrong_capital_is_right_in_the_corrupt_prompt() -> None:
    pairs = _texts("capitals")
    capital_of = {pair.clean: pair.correct for pair in pairs}
    met = [pair for pair in pairs if pair.corrupt in capital_of]
    assert met
    assert all(capital_of[pair.corrupt] == pair.wrong for pair in met)


def test_an_unknown_task_is_named_with_the_nearest_and_all_others() -> None:
    with pytest.raises(NotFound, match=r"no task 'sequence/month'.*mean 'sequence/months'.*ioi"):
        find_task("sequence/month")
    with pytest.raises(NotFound, match="did you mean 'sequence/numerals'"):
        find_task("numeral")


def test_an_answer_split_like_the_other_lends_its_beginning_to_the_prompts() -> None:
    pair = align(PromptPair("Van done in", "Hat done in", " 5", " 4"), _split_digits)
    assert pair.clean[-1] == pair.corrupt[-1] == 1000
    assert (pair.correct, pair.wrong) == (ord("5"), ord("4"))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("a b", "a b c", " x", " y"), "2 tokens, the corrupt one 3"),
        (("a b", "a c", " x z", " y"), "must differ in exactly one last token"),
        (("a b", "a c", " x", " x"), "are the same"),
        (("a b", "a c", "", " x"), "has no separate tokens"),
        (("", "a", " x", " y"), "empty"),
    ],
)
def test_a_pair_whose_tokens_do_not_match_is_refused(
    pair: tuple[str, str, str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        align(PromptPair(*pair), WholeWords())


def test_an_answer_that_melts_into_the_prompt_is_refused() -> None:
    with pytest.raises(BadInput, match="write the space between them at the beginning"):
        align(PromptPair("the do", "the ca", "g", "t"), WholeWords())


def test_a_tokenizer_that_splits_every_word_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"keeps 0 of .* words such as 'Mary'"):
        find_task("ioi").make(0, 1, lambda text: [ord(character) for character in text])


def test_words_keep_their_order_when_split_ones_are_left_out() -> None:
    assert single_tokens(["x", "a.b", "y"], WholeWords(), at_least=1) == ["x", "y"]


@pytest.mark.model
@pytest.mark.parametrize("task", TASKS, ids=_SLUGS)
def test_pairs_match_under_real_tokenizers(task: TaskSpec, real_tokenizer: Any) -> None:
    def encode(text: str) -> list[int]:
        return list(real_tokenizer(text, add_special_tokens=False)["input_ids"])

    made = task.make(0, 48, encode)
    assert len(made) == 48
    for pair in made:
        assert len(pair.clean) == len(pair.corrupt)
        ends = real_tokenizer.decode([*pair.clean, pair.correct])
        assert ends.endswith(pair.text.clean + pair.text.correct)


@pytest.fixture(scope="module", params=sorted(MODEL_ALIASES))
def real_tokenizer(request: pytest.FixtureRequest) -> Iterator[Any]:
    from ingest.models import load

    try:
        yield load(request.param, device="cpu").tokenizer
    except NotFound as error:
        pytest.skip(str(error))


def _made(task: TaskSpec, encode: Encode) -> tuple[TokenPair, ...]:
    return task.make(0, 64, encode)


def _texts(slug: str) -> list[PromptPair]:
    return [pair.text for pair in find_task(slug).make(0, 64, WholeWords())]


def _place(answer: str, pair: PromptPair) -> int:
    return pair.clean.split().index(answer.strip())


def _months(text: str) -> list[str]:
    return [word.strip(".") for word in text.split() if word.strip(".") in _MONTHS]
