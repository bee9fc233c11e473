"""A tiny random model that reads the words of our tasks, in a folder as users have them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from ingest.tasks import all_tasks
from tests.ingest.tasks.words import WholeWords

__all__ = ["save_tiny_model"]


def save_tiny_model(folder: Path) -> Path:
    """Write a grouped-query model of two blocks with a tokenizer of whole words."""
    words = WholeWords()
    words("<s> </s> <unk>")
    for task in all_tasks().values():
        task.make(0, 200, words)
    words.ids |= {word: len(words.ids) + place for place, word in enumerate(["<<s>>", "<<u>>"])}
    backend = Tokenizer(WordLevel(words.ids, unk_token="<<u>>"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<<s>>", eos_token="<<s>>", unk_token="<<u>>"
    )
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=32,
        intermediate_size=48,
        max_position_embeddings=64,
        vocab_size=len(words.ids),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,  # the default gives logits too flat to tell answers apart
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
