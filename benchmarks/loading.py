"""Measure the time that comparing logits adds to the loading of a model.

The time is compared with one forward pass of a prompt. A model's logits are computed before and
after it is wrapped, on half of the cores, while the other half hashes its weights. Without the
comparison all cores would hash them first. Weights are random, with the shapes of GPT-2 small and
SmolLM2 135M, in float32 and bfloat16. The prompt has the length of prompts of the task ioi (15
tokens). A pass reads all weights even for a short prompt, so two passes of three tokens cost about
as much as two passes of two tokens.

Ratios use the smallest of several times within one run, because other load on the machine only adds
time. Run it from the root::

    python benchmarks/loading.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import transformers

import ingest.models
from ingest.models.proof import all_logits

_N_TOKENS = 15
_REPEATS = 9
_WRAPPED = 6
_SHAPES: dict[str, Callable[[], Any]] = {
    "GPT-2 small": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config()),
    "SmolLM2 135M": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=49_152, hidden_size=576, intermediate_size=1_536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
        )
    ),
}  # fmt: skip


def least_seconds(work: Callable[[], object]) -> float:
    """Smallest time of several runs, after one warm-up run."""
    work()
    return min(seconds(work) for _ in range(_REPEATS))


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """Time of one run."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def without_proofs(model: Any) -> None:
    """Wrap a model without comparing logits; its weights are hashed first."""
    digest, same = ingest.models.weights_hash(model), torch.zeros(1, 1)
    with (
        patch("ingest.models.loading.hash_of_tensors", return_value=digest),
        patch("ingest.models.loading.all_logits", return_value=same),
    ):
        ingest.models.wrap(model)


def main() -> None:
    """Print a line per model and dtype."""
    print("| model | dtype | two proofs, ms | one prompt, ms | ratio | loading grows by, ms |")
    print("|---|---|---|---|---|---|")
    for name, make in _SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            model = make().to(dtype).eval()
            tokens = torch.arange(_N_TOKENS)[None]
            with torch.no_grad():
                proofs = 2 * least_seconds(partial(all_logits, model, "benchmark"))
                prompt = least_seconds(partial(model, tokens))
            pairs = [(make().to(dtype), make().to(dtype)) for _ in range(_WRAPPED)]
            both = [(seconds(without_proofs, a), seconds(ingest.models.wrap, b)) for a, b in pairs]
            before, now = (min(times) for times in zip(*both, strict=True))
            print(
                f"| {name} | {str(dtype).removeprefix('torch.')} | {1e3 * proofs:.0f} | "
                f"{1e3 * prompt:.0f} | {proofs / prompt:.2f} | {1e3 * (now - before):+.0f} |"
            )


if __name__ == "__main__":
    main()
