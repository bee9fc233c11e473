"""Measure edge attribution compared with the model passes that it needs at least.

The default is SmolLM2-135M (IOI, 32 prompts). The passes without attribution use the same model
object, batch, attention and dtype, frozen weights, a gradient to the embeddings, and only the
logits of the last position. Plain attribution needs two forward passes and one backward pass.
Integrated gradients with 5 steps need one forward pass, and five forward passes with backward
passes. Times are medians of alternating runs. Peak memory is the largest resident set of the
process since the start of the run (Linux).

    python benchmarks/edge_attribution.py [--model smollm2] [--prompts 32] [--batch-size 32]
        [--repeat 5] [--profile eap]
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import ctypes
import gc
import pstats
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingest import models
from ingest.discovery import attribute_edges, prepare_setting
from ingest.discovery.model.anatomy import frozen, read_anatomy
from ingest.jobs.answering import PromptTensors, as_tensors, judge
from ingest.tasks.catalogue import find_task
from ingest.tasks.prompts import keep_answered

STEPS = 5
MIB = 2**20


@dataclass
class Measured:
    """Wall time and processor time of every run in seconds, and the largest peak."""

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    @property
    def median(self) -> float:
        """The median wall time."""
        return statistics.median(self.seconds)


def prompts_of(model: Any, n: int) -> PromptTensors:
    """IOI prompts that the model answers correctly."""

    def encode(text: str) -> list[int]:
        ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    kept = keep_answered(
        find_task("ioi"), judge(model), encode=encode, model="benchmark", opening=(), seed=0,
        n=n, at_least=n,
    )  # fmt: skip
    return as_tensors(kept.pairs)


def same_length(prompts: PromptTensors, n: int) -> PromptTensors:
    """The first ``n`` prompts of the most frequent length, as one batch."""
    lengths = prompts.attention_mask.sum(1)
    chosen = (lengths == lengths.mode().values).nonzero()[:n, 0]
    if len(chosen) < n:
        raise SystemExit(f"only {len(chosen)} prompts of one length; ask for fewer")
    length = int(lengths.mode().values)
    return PromptTensors(
        prompts.clean[chosen, :length], prompts.corrupt[chosen, :length],
        prompts.attention_mask[chosen, :length], prompts.correct[chosen], prompts.wrong[chosen],
    )  # fmt: skip


def bare(model: Any, prompts: PromptTensors, size: int, n_forward: int, n_both: int) -> None:
    """Run forward passes, and forward passes with backward passes to the embeddings."""
    anatomy = read_anatomy(model)
    for index in torch.split(torch.arange(len(prompts.clean)), size):
        clean, corrupt = prompts.clean[index], prompts.corrupt[index]
        with torch.no_grad():
            for _ in range(n_forward):
                prompts.logit_difference(anatomy.run(model, corrupt, []), index)
        for _ in range(n_both):
            backward(model, anatomy, clean, prompts, index)


def backward(
    model: Any, anatomy: Any, tokens: Tensor, prompts: PromptTensors, index: Tensor
) -> None:
    """Run one forward pass, and a backward pass to the embeddings."""
    start: list[Tensor] = []

    def begin(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        start.append(value.detach().requires_grad_())
        return start[0]

    logits = anatomy.run(model, tokens, [("blocks.0.hook_in", begin)])
    torch.autograd.grad(prompts.logit_difference(logits, index).sum(), start)


def contenders(
    model: Any, prompts: PromptTensors, size: int
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """The passes without attribution, and the attribution, of each method."""

    def ours(method: Any) -> Callable[[], Any]:
        return lambda: attribute_edges(
            prepare_setting(
                model, prompts.clean, prompts.corrupt, prompts.logit_difference, batch_size=size
            ),
            method=method,
            steps=STEPS,
        )

    return {
        "eap": (lambda: bare(model, prompts, size, 1, 1), ours("eap")),
        "eap-ig-inputs": (lambda: bare(model, prompts, size, 1, STEPS), ours("eap-ig-inputs")),
    }


def measured(run: Callable[[], Any], into: Measured) -> None:
    """Run once and record time and peak."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    began, processor = time.perf_counter(), time.process_time()
    run()
    into.seconds.append(time.perf_counter() - began)
    into.processor_seconds.append(time.process_time() - processor)
    into.peak_mib = max(into.peak_mib, peak_mib())


def peak_mib() -> float:
    """The largest resident set since the last reset; 0 if the system does not give it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def report(method: str, plain: Measured, ours: Measured, extra_mib: float) -> None:
    """Print the measurements of one method."""
    allowed = 1.25 * plain.peak_mib + extra_mib
    processor = [statistics.median(found.processor_seconds) for found in (ours, plain)]
    print(f"{method:<16} bare {plain.median:7.2f} s {plain.peak_mib:7,.0f} MiB")
    print(
        f"{'':<16} ours {ours.median:7.2f} s {ours.peak_mib:7,.0f} MiB"
        f"   {ours.median / plain.median:.2f} times the time (processor"
        f" {processor[0] / processor[1]:.2f}),"
        f" {ours.peak_mib:,.0f} of {allowed:,.0f} MiB allowed"
    )


def main() -> None:
    """Measure as the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--profile", help="print a profile of this method, and stop")
    options = parser.parse_args()
    model = models.load(options.model, device="cpu")
    prompts = same_length(prompts_of(model, 3 * options.prompts), options.prompts)
    runs = contenders(model, prompts, options.batch_size)
    with frozen(model):
        if options.profile:
            profile(runs[options.profile][1])
            return
        space = read_anatomy(model).space
        n_prompts, n_tokens = prompts.clean.shape
        print(
            f"{options.model}, {n_prompts} prompts of {n_tokens} tokens, batches of"
            f" {options.batch_size}, {space.n_edges:,} edges, {torch.get_num_threads()} threads"
        )
        batch = min(options.batch_size, n_prompts)
        changes = len(space.senders) * batch * n_tokens * model.cfg.d_model * 4 / MIB
        scores = len(space.senders) * len(space.receivers) * 8 / MIB
        for method, (plain, ours) in runs.items():
            found = Measured(), Measured()
            # The first run is a warm-up and does not count.
            for repeat in range(options.repeat + 1):
                for run, into in zip((plain, ours), found, strict=True):
                    measured(run, into if repeat else Measured())
            report(method, *found, changes + scores)


def profile(run: Callable[[], Any]) -> None:
    """Print the time of each function."""
    run()
    profiler = cProfile.Profile()
    profiler.runcall(run)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(70)


if __name__ == "__main__":
    main()
