"""What tokenizers put before texts, and prompts that have it already."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from ingest.openings import opened, opening_of
from registry.errors import BadInput

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
    ],
)
def test_all_that_stands_before_every_text_is_found(
    template: str, special: dict[str, str], expected: tuple[int, ...]
) -> None:
    assert opening_of(tokenizer(template, **special)) == expected


def test_what_a_prompt_begins_with_is_not_put_there_twice() -> None:
    assert opened([6, 7], (3, 4)) == (3, 4, 6, 7)
    assert opened([3, 4, 6], (3, 4)) == (3, 4, 6)
    assert opened([6], ()) == (6,)


def test_half_an_opening_is_refused() -> None:
    with pytest.raises(BadInput, match="all of them or none"):
        opened([3, 6], (3, 4))
