"""Edge scores and evaluations against patching one edge at a time.

The patching here uses TransformerLens's own split of the residual stream, one copy per query, key
and value, which the algorithms do without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import attribute_edges, evaluate_circuit
from ingest.discovery.edge_space import EdgeSpace, Receiver
from registry.identifiers import Local, parse_local
from tests.ingest.discovery.decoders import ALL, bridge, clean_ids, corrupt_ids, metric

pytestmark = pytest.mark.slow

MODELS = sorted(ALL)
# The bridge computes softmax and RMSNorm of rotary models in float32 even in a float64 model.
STEP = {"gpt2": 1e-4, "neox": 1e-4, "llama": 1e-2, "gemma2": 1e-2, "gemma3": 1e-2}
TOLERANCE = {"gpt2": 1e-7, "neox": 1e-7, "llama": 2e-3, "gemma2": 2e-3, "gemma3": 2e-3}


class Patcher:
    """Adds something to what one receiver of a bridge reads, in the clean run."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.clean = self._written(clean_ids())
        self.corrupt = self._written(corrupt_ids())

    def metric(self, receiver: Receiver, change: Tensor) -> Tensor:
        """Metric of each prompt with ``change`` ``[prompt, pos, d_model]`` added."""
        local = parse_local(receiver.node)

        def add(value: Tensor, hook: object) -> Tensor:
            if local.head is None:
                return value + change
            changed = value.clone()
            changed[:, :, local.head] += change
            return changed

        with self._split(), torch.no_grad(), self.model.hooks([(_place(receiver, local), add)]):
            logits = self.model(clean_ids())[:, -1]
        return metric()(logits, torch.arange(len(logits)))

    def effect(self, sender: str, size: float) -> Tensor:
        """What a sender adds to the stream when moved by ``size`` towards its corrupt output."""
        local = parse_local(sender)
        change = size * (self.corrupt[sender] - self.clean[sender])
        if local.layer is None or local.head is None:
            return change
        norm = self.model.blocks[local.layer].submodules.get("ln1_post")
        if norm is None:
            return change
        raw = self.clean[f"attention {local.layer}"]
        through: Tensor = norm.original_component(raw + change) - norm.original_component(raw)
        return through.detach()

    def _written(self, tokens: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any) -> None:
            seen[hook.name] = value.detach().clone()

        names = ["blocks.0.hook_in"]
        for layer in range(self.model.cfg.n_layers):
            names += [f"blocks.{layer}.attn.hook_result", f"blocks.{layer}.attn.hook_out"]
            names += [f"blocks.{layer}.mlp.hook_out", f"blocks.{layer}.ln2_post.hook_out"]
        names = [name for name in names if name in self.model.hook_dict]
        with self._split(), self.model.hooks([(name, keep) for name in names]):
            self.model(tokens)
        written = {"input": seen["blocks.0.hook_in"]}
        for layer in range(self.model.cfg.n_layers):
            for head in range(self.model.cfg.n_heads):
                result = seen[f"blocks.{layer}.attn.hook_result"]
                written[f"a{layer}.h{head}"] = result[:, :, head]
            written[f"attention {layer}"] = seen[f"blocks.{layer}.attn.hook_out"]
            mlp = f"blocks.{layer}.mlp.hook_out"
            written[f"m{layer}"] = seen.get(f"blocks.{layer}.ln2_post.hook_out", seen[mlp])
        return written

    @contextmanager
    def _split(self) -> Iterator[None]:
        switches = ("use_split_qkv_input", "use_hook_mlp_in", "use_attn_result")
        for switch in switches:
            getattr(self.model, f"set_{switch}")(True)
        try:
            yield
        finally:
            for switch in switches:
                getattr(self.model, f"set_{switch}")(False)


def _place(receiver: Receiver, local: Local) -> str:
    if local.layer is None:
        return "ln_final.hook_in"
    if receiver.port is None:
        return f"blocks.{local.layer}.hook_mlp_in"
    return f"blocks.{local.layer}.attn.hook_{receiver.port}_input"


def edges_of(space: EdgeSpace) -> Iterator[tuple[str, str, Receiver]]:
    for row, column in space.edges():
        yield space.edge_id(row, column), space.senders[row], space.receivers[column]


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_slope_of_patching_each_edge(name: str) -> None:
    model = bridge(name, torch.float64)
    scores = attribute_edges(model, clean_ids(), corrupt_ids(), metric())
    found, patcher, step = scores.to_dict(), Patcher(model), STEP[name]
    slopes = {}
    for edge, sender, receiver in edges_of(scores.space):
        up = patcher.metric(receiver, patcher.effect(sender, step))
        down = patcher.metric(receiver, patcher.effect(sender, -step))
        slopes[edge] = float((down - up).mean()) / (2 * step)
    largest = max(abs(slope) for slope in slopes.values())
    assert largest > 0.01
    for edge, slope in slopes.items():
        assert found[edge] == pytest.approx(slope, abs=TOLERANCE[name] * largest), edge


@pytest.mark.parametrize("name", MODELS)
def test_leaving_one_edge_out_is_patching_that_edge(name: str) -> None:
    model = bridge(name, torch.float64)
    patcher = Patcher(model)
    space = attribute_edges(model, clean_ids(), corrupt_ids(), metric()).space
    every = {edge for edge, _, _ in edges_of(space)}
    for edge, sender, receiver in list(edges_of(space))[::7]:
        found = evaluate_circuit(model, every - {edge}, clean_ids(), corrupt_ids(), metric())
        expected = patcher.metric(receiver, patcher.effect(sender, 1.0))
        torch.testing.assert_close(found.circuit, expected, atol=2e-6, rtol=0)
