"""What tokenizers put before texts, and prompts that have it already."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import BertProcessing, ByteLevel, Sequence, TemplateProcessing
from transformers import PreTrainedTokenizerFast

from ingest import models
from ingest.jobs.prompts import opening_tokens
from ingest.tokens.openings import Around, around_of, opened, opening_of
from registry.errors import BadInput
from tests.ingest import tiny_models

WORDS = ["[CLS]", "[SEP]", "<s>", "[gMASK]", "<sop>", "[UNK]", "a", "b"]


def tokenizer(template: str, **special: str) -> PreTrainedTokenizerFast:
    """Of whole words, putting what a template says around every text."""
    backend = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    named = [(word, at) for at, word in enumerate(WORDS) if word in template.split()]
    backend.post_processor = TemplateProcessing(single=template, special_tokens=named)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special)


@pytest.mark.parametrize(
    ("template", "special", "expected"),
    [
        ("$A", {"bos_token": "<s>"}, ()),
        ("<s> $A", {"bos_token": "<s>"}, (2,)),
        ("[CLS] $A [SEP]", {"cls_token": "[CLS]", "sep_token": "[SEP]"}, (0,)),
        ("[gMASK] <sop> $A", {"bos_token": "<s>"}, (3, 4)),
        ("$A [SEP]", {"sep_token": "[SEP]"}, ()),
        ("a $A", {}, (6,)),
        ("<s> <s> $A", {"bos_token": "<s>"}, (2, 2)),
    ],
)
def test_all_that_stands_before_every_text_is_found(
    template: str, special: dict[str, str], expected: tuple[int, ...]
) -> None:
    assert opening_of(tokenizer(template, **special)) == expected


DIGITS = {"[BOS]": 1, "[EOS]": 2, **{str(digit): 3 + digit for digit in range(10)}}


@pytest.mark.parametrize(
    "model",
    [
        BPE(DIGITS, []),
        BPE({"[BOS]": 1, "[EOS]": 2, "Q": 3}, []),
        BPE({"[BOS]": 1, "[EOS]": 2}, []),
        WordLevel(DIGITS),
        WordLevel({"[BOS]": 1, "[EOS]": 2, "word": 3}),
        WordLevel({"[BOS]": 1, "[EOS]": 2}),
    ],
    ids=["digits", "one letter", "nothing", "whole digits", "one word", "no word"],
)
@pytest.mark.parametrize("after", [(), ("[EOS]",)])
def test_what_a_tokenizer_cannot_read_does_not_hide_it(model: Any, after: tuple[str, ...]) -> None:
    backend = Tokenizer(model)
    backend.post_processor = TemplateProcessing(
        single=["[BOS]", "$0", *after], special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="[BOS]")
    assert around_of(made) == Around((1,), (2,) if after else ())


@pytest.mark.parametrize("step", [None, ByteLevel()], ids=["none", "bytes"])
def test_a_last_step_that_puts_nothing_is_none(step: Any) -> None:
    backend = Tokenizer(BPE(DIGITS, []))
    if step is not None:
        backend.post_processor = step
    assert around_of(PreTrainedTokenizerFast(tokenizer_object=backend)) == Around()


def test_several_last_steps_are_taken_together() -> None:
    backend = Tokenizer(BPE(DIGITS, []))
    bert = BertProcessing(("[EOS]", 2), ("[BOS]", 1))
    backend.post_processor = Sequence([ByteLevel(), bert])
    assert around_of(PreTrainedTokenizerFast(tokenizer_object=backend)) == Around((1,), (2,))


class _Written:
    """A tokenizer that is no fast one, and reads digits alone."""

    all_special_tokens = ()

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [3 + int(each) for each in text if each.isdigit()]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}

    def get_vocab(self) -> dict[str, int]:
        return {str(digit): 3 + digit for digit in range(10)}


class _Built(_Written):
    def build_inputs_with_special_tokens(self, ids: list[int]) -> list[int]:
        return [1, *ids, 2]


class _BuiltOtherwise(_Written):
    def build_inputs_with_special_tokens(self, ids: list[int]) -> list[int]:
        return ids


@pytest.mark.parametrize("kind", [_Written, _Built, _BuiltOtherwise])
def test_a_tokenizer_written_in_python_is_asked_by_what_it_does(kind: Any) -> None:
    assert around_of(kind()) == Around((1,), (2,))


def test_a_model_is_given_it_whatever_the_tokenizer_reads() -> None:
    backend = Tokenizer(BPE(DIGITS, []))
    backend.post_processor = TemplateProcessing(single="[BOS] $0", special_tokens=[("[BOS]", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="[BOS]", eos_token="[EOS]", pad_token="[EOS]"
    )
    bridge = models.wrap(tiny_models.gpt2(), tokenizer=made)
    assert models.default_bos(bridge)
    assert opening_tokens(bridge, None) == (1,)
    assert bridge.cfg.tokenizer_appends_eos is False


def test_what_a_prompt_begins_with_is_not_put_there_twice() -> None:
    assert opened([6, 7], (3, 4)) == (3, 4, 6, 7)
    assert opened([3, 4, 6], (3, 4)) == (3, 4, 6)
    assert opened([6], ()) == (6,)


def test_half_an_opening_is_refused() -> None:
    with pytest.raises(BadInput, match="all of them or none"):
        opened([3, 6], (3, 4))
