"""Measure ablating many sets of parts at once, next to one full forward pass for each set.

Every head and every MLP of a model is ablated separately, on some prompts. This is done in two
ways: with the residual stream of the clean run and several sets per batch, as jobs do it, and with
one full run for each set. The script checks that both give the same numbers. The model is random,
with GPT-2's architecture.

    python benchmarks/ablation_parts.py [--layers 12] [--heads 12] [--width 384] [--prompts 4]
        [--tokens 12] [--device cpu] [--at-least 1.5]

With ``--at-least`` the exit code is 1 if the ratio is smaller.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
import transformers
from torch import Tensor

from ingest.discovery import PartAblation, prepare_parts, prepare_setting
from ingest.models import wrap

VOCABULARY = 4_096


def main() -> int:
    """Measure and print one line for each method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-least", type=float, default=0.0)
    given = parser.parse_args()
    model = wrap(_model(given.layers, given.heads, given.width), device=given.device)
    generator = torch.Generator().manual_seed(0)
    shape = (2, given.prompts, given.tokens)
    clean, corrupt = torch.randint(1, VOCABULARY, shape, generator=generator)
    sets = [{f"a{layer}.h{head}"} for layer in range(given.layers) for head in range(given.heads)]
    sets += [{f"m{layer}"} for layer in range(given.layers)]
    setting = prepare_setting(
        model, clean, corrupt, lambda logits, _: logits[:, 1] - logits[:, 2]
    )  # fmt: skip
    shared = prepare_parts(setting)
    apart = prepare_parts(setting.with_batch_size(len(clean)), cached=False, run_bytes=1)
    fast, seconds = _measured(shared, sets)
    slow, seconds_apart = _measured(apart, sets)
    torch.testing.assert_close(fast, slow, atol=1e-3, rtol=1e-3)
    print(f"{len(sets)} sets on {given.prompts} prompts of {given.tokens} tokens, {given.device}")
    print(f"one full forward pass a set   {seconds_apart:8.2f} s")
    print(f"at once, with a kept stream   {seconds:8.2f} s")
    ratio = seconds_apart / seconds
    print(f"ratio                         {ratio:8.2f}")
    return int(ratio < given.at_least)


def _measured(ablation: PartAblation, sets: list[set[str]]) -> tuple[Tensor, float]:
    began = time.perf_counter()
    found = ablation.effects(sets)
    return found.ablated, time.perf_counter() - began


def _model(n_layers: int, n_heads: int, width: int) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=n_layers, n_head=n_heads, n_embd=width, vocab_size=VOCABULARY, n_positions=128,
            bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
