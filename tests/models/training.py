"""Train the small model that jobs are tested on: ``python -m tests.models.training``.

It writes the folder ``tests/models/words``, whose weights are checked in, so that tests find
circuits in a model that does its tasks and no test trains one. ``make slow`` trains it anew and
asks that what comes out does the tasks as well. Training takes about a minute of one core; weights
differ in their last digits from machine to machine.

The model has two blocks with grouped queries and reads whole words. It learns the answers of
:data:`TASKS` alone, on prompts of seeds that no job is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

from ingest.tasks import TokenPair, all_tasks, find_task
from tests.ingest.tasks.words import WholeWords
from tests.models import WORDS

__all__ = ["SHARE_CORRECT", "TASKS", "share_correct", "train"]

TASKS = ("ioi", "sequence/months", "sequence/numerals")
SHARE_CORRECT = 0.9
"""On prompts that it has not seen, how often the right answer is above the wrong one, at least."""

_LEARNT_FROM_SEED = 1_000
_STEPS, _PROMPTS_OF_A_TASK = 700, 32
_LEARNING_RATE = 3e-3
Batch = tuple[Tensor, Tensor, Tensor]


def train(folder: Path, steps: int = _STEPS) -> Path:
    """Train a model and write it with its tokenizer, as users have them.

    Args:
        folder: Where it goes.
        steps: Batches learnt from, each with prompts of every task.
    """
    tokenizer = _tokenizer()
    model = _untrained(tokenizer)
    streams = [_batches(slug, tokenizer) for slug in TASKS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(steps):
        loss = torch.stack([_loss(model, next(stream)) for stream in streams]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def share_correct(folder: Path, task: str, seed: int = 0, n_prompts: int = 200) -> float:
    """How often a model puts the right answer above the wrong one, from 0 to 1."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = find_task(task).make(seed, n_prompts, _encoder(tokenizer))
    ids, last, right = _padded(pairs)
    logits = model(ids).logits[torch.arange(len(pairs)), last]
    wrong = torch.tensor([pair.wrong for pair in pairs])
    at = torch.arange(len(pairs))
    return float((logits[at, right] > logits[at, wrong]).double().mean())


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of all the words that our tasks have, also of those that are not learnt."""
    words = WholeWords()
    words("<s> </s> <unk>")
    for task in all_tasks().values():
        task.make(0, 200, words)
    for slug in TASKS:
        find_task(slug).make(_LEARNT_FROM_SEED, 2_000, words)
    words.ids |= {word: len(words.ids) + place for place, word in enumerate(["<<s>>", "<<u>>"])}
    backend = Tokenizer(WordLevel(words.ids, unk_token="<<u>>"))
    backend.pre_tokenizer = Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<<s>>", eos_token="<<s>>", unk_token="<<u>>"
    )


def _untrained(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=48,
        intermediate_size=96,
        max_position_embeddings=64,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        initializer_range=0.1,
    )
    return transformers.LlamaForCausalLM(config)


def _encoder(tokenizer: transformers.PreTrainedTokenizerFast) -> WholeWords:
    """What a job reads prompts with, but quicker: the same words have the same ids."""
    words = WholeWords()
    words.ids = dict(tokenizer.get_vocab())
    return words


def _batches(slug: str, tokenizer: transformers.PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Prompts of a task without end, no seed twice."""
    words, seed = _encoder(tokenizer), _LEARNT_FROM_SEED
    while True:
        yield _padded(find_task(slug).make(seed, _PROMPTS_OF_A_TASK, words))
        seed += 1


def _padded(pairs: Sequence[TokenPair]) -> Batch:
    """Token ids ``[prompt, pos]``, the place of each last one, and the right answers."""
    longest = max(len(pair.clean) for pair in pairs)
    ids = torch.tensor([(*pair.clean, *[0] * (longest - len(pair.clean))) for pair in pairs])
    last = torch.tensor([len(pair.clean) - 1 for pair in pairs])
    return ids, last, torch.tensor([pair.correct for pair in pairs])


def _loss(model: transformers.PreTrainedModel, batch: Batch) -> Tensor:
    ids, last, right = batch
    logits = model(ids).logits[torch.arange(len(ids)), last]
    return torch.nn.functional.cross_entropy(logits, right)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=WORDS)
    folder = train(parser.parse_args().out)
    for task in TASKS:
        print(f"{task}: {share_correct(folder, task):.3f} of 200 prompts")  # noqa: T201


if __name__ == "__main__":
    _main()
