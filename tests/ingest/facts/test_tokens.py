"""Facts as token ids, and the place of the last token of a subject."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Prepend, Replace, Sequence
from tokenizers.pre_tokenizers import Metaspace, WhitespaceSplit

from ingest import models
from ingest.facts.base import Fact
from ingest.facts.tokens import tokenised
from registry.errors import BadInput
from tests.ingest import tiny_models
from tests.models import WORDS


class Slow:
    """A tokenizer that does not tell the characters of its tokens."""

    is_fast = False

    def __init__(self, fast: Any) -> None:
        self._fast = fast

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        return self._fast(text, add_special_tokens=add_special_tokens)

    def convert_ids_to_tokens(self, token: int) -> str:
        return str(self._fast.convert_ids_to_tokens(token))


def model(tokenizer: Any, d_vocab: int = tiny_models.D_VOCAB) -> Any:
    return SimpleNamespace(tokenizer=tokenizer, cfg=SimpleNamespace(d_vocab=d_vocab))


def tiny(*, bos: bool = False, slow: bool = False) -> Any:
    made = tiny_models.tokenizer(prepends_bos=bos)
    return model(Slow(made) if slow else made)


def of_words(words: tuple[str, ...], split: Any) -> Any:
    backend = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="?"))
    backend.pre_tokenizer = split
    if isinstance(split, Metaspace):
        backend.normalizer = Sequence([Prepend("▁"), Replace(" ", "▁")])
    return model(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?"))


def fact(prompt: str = "when {} went to", subject: str = "mary", **more: Any) -> Fact:
    return Fact(**{"prompt": prompt, "subject": subject, "target_new": "store", **more})


def words_of(model: Any, ids: tuple[int, ...] | list[int]) -> list[str]:
    return list(model.tokenizer.convert_ids_to_tokens(list(ids)))


def last_word(model: Any, one: Fact) -> tuple[str, int]:
    read = tokenised(model, one)
    token = read.prompt[read.subject_last]
    return str(model.tokenizer.convert_ids_to_tokens(token)), read.subject_last


PLACES = [
    ("{} went to", "mary", ("mary", 0)),
    ("when {} went to", "mary", ("mary", 1)),
    ("when mary and john gave {}", "drink", ("drink", 5)),
    ("{} went", "mary and john", ("john", 2)),
    ("mary and {} went", "mary", ("mary", 2)),
    ("{} and mary went", "mary", ("mary", 0)),
    ("mary, {}, mary", "mary", ("mary", 2)),
    ("the store {}", "mary", ("mary", 2)),
]


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("prompt", "subject", "place"), PLACES)
def test_the_last_token_of_the_subject_at_the_braces_is_found(
    prompt: str, subject: str, place: tuple[str, int], bos: bool, slow: bool
) -> None:
    word, at = place
    assert last_word(tiny(bos=bos, slow=slow), fact(prompt, subject)) == (word, at + bos)


@pytest.mark.parametrize("bos", [False, True])
def test_every_text_of_a_fact_is_read(bos: bool) -> None:
    reader = tiny(bos=bos)
    read = tokenised(
        reader,
        fact(target_true="a drink", paraphrases=("mary went", "mary"), neighbours=("john went",)),
    )
    begin = ["<s>"] if bos else []
    assert words_of(reader, read.prompt) == [*begin, "when", "mary", "went", "to"]
    assert words_of(reader, read.target_new) == ["store"]
    assert words_of(reader, read.target_true or ()) == ["a", "drink"]
    assert [words_of(reader, one) for one in read.paraphrases] == [
        [*begin, "mary", "went"],
        [*begin, "mary"],
    ]
    assert [words_of(reader, one) for one in read.neighbours] == [[*begin, "john", "went"]]


def test_an_unknown_true_answer_stays_unknown() -> None:
    assert tokenised(tiny(), fact()).target_true is None


def test_an_opening_that_a_prompt_has_already_is_not_put_there_twice() -> None:
    reader = tiny(bos=True)
    assert (
        tokenised(reader, fact("<s> {} went")).prompt == tokenised(reader, fact("{} went")).prompt
    )
    assert last_word(reader, fact("<s> {} went")) == ("mary", 1)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (fact(target_new="?"), "target_new ' [?]' has no tokens"),
        (fact(target_true="?"), "target_true ' [?]' has no tokens"),
        (fact(subject="?"), "subject '[?]' in 'when [?] went to' cannot be told: no token stands"),
        (fact(paraphrases=("?",)), "a paraphrase '[?]' has no tokens"),
        (fact(neighbours=("?",)), "a neighbour '[?]' has no tokens"),
        (fact("{}", "?"), "the prompt '[?]' has no tokens"),
    ],
)
def test_texts_without_tokens_are_refused(one: Fact, says: str) -> None:
    words = {word: at for at, word in enumerate(tiny_models.WORDS)}

    class Skipping(Slow):
        """Leaves out what it does not know."""

        def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
            return {"input_ids": [words[word] for word in text.split() if word in words]}

    with pytest.raises(BadInput, match=says):
        tokenised(model(Skipping(None)), one)


@pytest.mark.parametrize("slow", [False, True])
def test_a_token_of_the_subject_and_what_follows_it_is_refused(slow: bool) -> None:
    reader = of_words(("?", "when", "mary's", "store", "mary"), WhitespaceSplit())
    if slow:
        reader.tokenizer = Slow(reader.tokenizer)
    with pytest.raises(BadInput, match=r"subject 'mary' .* the token \"mary's\" holds its end"):
        tokenised(reader, fact("when {}'s"))


@pytest.mark.parametrize("slow", [False, True])
def test_a_tokenizer_that_puts_a_space_before_every_text_puts_none_before_answers(
    slow: bool,
) -> None:
    words = ("?", "▁", "▁when", "▁mary", "▁went", "▁to", "▁store")
    reader = of_words(words, Metaspace(prepend_scheme="never"))
    assert words_of(reader, list(reader.tokenizer(" store")["input_ids"])) == ["▁", "▁store"]
    if slow:
        reader.tokenizer = Slow(reader.tokenizer)
    read = tokenised(reader, fact())
    assert read.target_new == (6,)
    assert read.prompt[read.subject_last] == 3


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    reader = tiny_models.tokenizer(prepends_bos=False)
    with pytest.raises(BadInput, match="the model knows only 0 to 9"):
        tokenised(model(reader, d_vocab=10), fact())


def test_an_opening_beyond_the_vocabulary_is_refused() -> None:
    made = tiny_models.tokenizer(prepends_bos=True)
    with pytest.raises(BadInput, match="the beginning of every text"):
        tokenised(model(made, d_vocab=0), fact())


def test_a_model_without_tokenizer_is_refused() -> None:
    with pytest.raises(BadInput, match="has no tokenizer to read facts with"):
        tokenised(model(None), fact())


def test_a_model_of_words_is_read() -> None:
    reader = model(transformers.AutoTokenizer.from_pretrained(WORDS), 10_000)
    one = Fact("When {} went to the store", "Mary and John", "Mary", "John")
    read = tokenised(reader, one)
    assert words_of(reader, [read.prompt[read.subject_last]]) == ["John"]
    assert words_of(reader, read.target_new) == ["Mary"]


@pytest.mark.model
@pytest.mark.seconds
def test_both_ways_find_the_same_place_for_smollm2() -> None:
    bridge = models.load("smollm2")
    slow = model(Slow(bridge.tokenizer), bridge.cfg.d_vocab)
    for prompt, subject, last in [
        ("{} is a city in", "Ouagadougou", "ou"),
        ("The capital of {} is", "France", "ĠFrance"),
        ("The capital of {}, that is", "New Zealand", "ĠZealand"),
        ("{}'s capital, not of France, is", "France", "France"),
        ("France or {}: the capital is", "France", "ĠFrance"),
    ]:
        one = Fact(prompt, subject, "Rome", "Paris")
        read = tokenised(bridge, one)
        assert read == tokenised(slow, one)
        assert words_of(bridge, [read.prompt[read.subject_last]]) == [last]
        assert words_of(bridge, read.target_new) == ["ĠRome"]
        cut = bridge.tokenizer(one.text[: one.subject_end], add_special_tokens=False)["input_ids"]
        assert read.prompt[: read.subject_last + 1] == tuple(cut)
