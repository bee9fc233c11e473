"""What comparing logits adds to the loading of a model, beside one forward pass of a prompt.

A model's logits are taken before and after it is wrapped. Random weights of the shapes of GPT-2
small and SmolLM2 135M, float32 and bfloat16; the prompt is as long as those of the task ioi (15
tokens). A pass reads all weights however short its prompt, so that two passes of four tokens cost
about as much as two of two.
Ratios are of one run: these machines are noisy. Run from the root::

    python benchmarks/loading.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers

from ingest.model_proof import all_logits

_N_TOKENS = 15
_REPEATS = 7
_SHAPES: dict[str, Callable[[], Any]] = {
    "GPT-2 small": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config()),
    "SmolLM2 135M": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=49_152, hidden_size=576, intermediate_size=1_536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
        )
    ),
}  # fmt: skip


def median_seconds(work: Callable[[], object]) -> float:
    """Median of several runs, after one that warms up."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Print a line per model and dtype."""
    print("| model | dtype | two proofs, ms | one prompt, ms | ratio |")
    print("|---|---|---|---|---|")
    for name, make in _SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            model = make().to(dtype).eval()
            tokens = torch.arange(_N_TOKENS)[None]
            with torch.no_grad():
                proofs = 2 * median_seconds(partial(all_logits, model, "benchmark"))
                prompt = median_seconds(partial(model, tokens))
            print(
                f"| {name} | {str(dtype).removeprefix('torch.')} | {1e3 * proofs:.0f} | "
                f"{1e3 * prompt:.0f} | {proofs / prompt:.2f} |"
            )


if __name__ == "__main__":
    main()
