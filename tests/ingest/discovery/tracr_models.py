"""Decoders compiled by tracr from programs in RASP: their circuits are known.

tracr (Lindner et al. 2023, arXiv 2301.05062) writes a program's steps into the weights of a
transformer without norms. Which edges the program needs depends on what stands in for an ablated
edge, so there is a truth for each ablation:

- ``resample``, by another prompt of the same length: the edges that carry tokens. AutoCircuit
  states them (Miller et al. 2024, arXiv 2407.08734).
- ``zero``: also those that carry what is the same in every prompt of a length. ACDC found them
  (Conmy et al. 2023, arXiv 2304.14997).

Both count positions as part of what ``input`` writes. The edge algorithms leave learned positions
in place, so a bridge can be had either way: with positions apart, or within the embedding of tokens
that say where they stand.

tracr brings jax and is imported only by the functions that need it: the extra ``tracr``.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ingest.discovery.ablation.replacement import Ablation
from ingest.discovery.model.metrics import Metric

__all__ = [
    "ABLATIONS",
    "PROGRAMS",
    "TRACE",
    "CompiledProgram",
    "Program",
    "Prompts",
    "answer",
    "auroc",
    "closeness",
    "compiled",
    "last_logits",
]

ABLATIONS: tuple[Ablation, ...] = ("resample", "zero")  # nobody states a truth for "mean"
TRACE = 1e-5
"""Effects on the output below this show no edge of the program.

A compiled head that finds nothing reads BOS, and one that does find something still spares BOS
``exp(-50 / sqrt(d_head))`` of its attention, 5e-7 in ``reverse``: what makes it do so is a trace.
"""
_LONGEST = 5
_BOS, _PAD = "BOS", "PAD"
_LENGTHS = (2, 3, 4)  # of 1 a reversal needs no index, of 5 no count: the longest is the default
_PARTS = {
    "attn.q": "attn/query",
    "attn.k": "attn/key",
    "attn.v": "attn/value",
    "attn.o": "attn/linear",
    "mlp.fc_in": "mlp/linear_1",
    "mlp.fc_out": "mlp/linear_2",
}


@dataclass(frozen=True)
class Program:
    """A program and the edges it needs.

    Attributes:
        name: ``reverse``: the prompt backwards. ``xproportion``: at each place, the share of ``x``
            so far.
        letters: Its vocabulary.
        carries_tokens: Edges needed under ``resample``.
        carries_constants: Further edges needed under ``zero``.
        only_positions: Those of them that carry nothing but positions.
    """

    name: str
    letters: str
    carries_tokens: frozenset[str]
    carries_constants: frozenset[str]
    only_positions: frozenset[str]

    def truth(self, ablation: Ablation) -> frozenset[str]:
        """Edges needed when the others are ablated so."""
        truths: dict[Ablation, frozenset[str]] = {
            "resample": self.carries_tokens,
            "zero": self.carries_tokens | self.carries_constants,
        }
        return truths[ablation]


PROGRAMS: Mapping[str, Program] = {
    "reverse": Program(
        "reverse",
        "abc",
        frozenset({"input->a3.h0<v>", "a3.h0->logits"}),
        frozenset(
            {
                "input->a0.h0<v>",
                "input->m0",
                "a0.h0->m0",
                "input->m1",
                "m0->m1",
                "m1->m2",
                "m2->a3.h0<q>",
                "input->a3.h0<k>",
            }
        ),
        frozenset({"input->a3.h0<k>"}),
    ),
    "xproportion": Program(
        "xproportion",
        "wxyz",
        frozenset({"input->m0", "m0->a1.h0<v>", "a1.h0->logits"}),
        frozenset({"input->a1.h0<q>", "input->a1.h0<k>"}),
        frozenset({"input->a1.h0<q>", "input->a1.h0<k>"}),
    ),
}


@dataclass(frozen=True, eq=False)
class Prompts:
    """Pairs of prompts of mixed lengths.

    Attributes:
        texts: The clean prompts' letters.
        clean: Token ids ``[prompt, position]`` padded on the right.
        corrupt: The same with every letter replaced by the next of the vocabulary.
        attention_mask: 1 at real tokens.
    """

    texts: tuple[str, ...]
    clean: Tensor
    corrupt: Tensor
    attention_mask: Tensor


@dataclass(frozen=True, eq=False)
class CompiledProgram:
    """A program compiled by tracr.

    Attributes:
        program: Which.
        assembled: tracr's model.
        weights: tracr's parameters by module and name.
        unembedding: What tracr reads its output with, ``[d_model, word]``.
    """

    program: Program
    assembled: Any
    weights: Mapping[str, Mapping[str, Tensor]]
    unembedding: Tensor

    def bridge(
        self, *, positions_in_input: bool = False, dtype: torch.dtype = torch.float32
    ) -> Any:
        """Wrap the same weights as a ``TransformerBridge``.

        Args:
            positions_in_input: Whether tokens say where they stand, so that the whole residual
                stream starts in ``input``; else positions have an embedding of their own.
            dtype: Of the weights.
        """
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
        from transformer_lens.model_bridge.sources.native import NativeModel

        state = self._state(positions_in_input)
        compiled_as = self.assembled.model_config
        config = TransformerBridgeConfig(
            n_layers=compiled_as.num_layers,
            n_heads=compiled_as.num_heads,
            d_head=compiled_as.key_size,
            d_mlp=compiled_as.mlp_hidden_size,
            d_model=len(self.unembedding),
            n_ctx=len(state["pos.weight"]),
            d_vocab=len(state["tok_embed.weight"]),
            d_vocab_out=len(state["head.weight"]),
            act_fn="relu",
            normalization_type=None,
            attention_dir="causal" if compiled_as.causal else "bidirectional",
        )
        module = NativeModel(config)
        module.load_state_dict(state)
        module.to(dtype).eval()
        return build_bridge_from_module(module, "TransformerLensNative", tl_config=config)

    def prompts(self, *, positions_in_input: bool = False) -> Prompts:
        """All prompts of two to four letters, for a bridge made the same way."""
        texts = tuple(
            "".join(letters)
            for length in _LENGTHS
            for letters in itertools.product(self.program.letters, repeat=length)
        )
        turned = self.program.letters[1:] + self.program.letters[:1]
        table = str.maketrans(self.program.letters, turned)
        n_tokens = len(self.weights["token_embed"]["embeddings"]) if positions_in_input else 0
        steps = n_tokens * torch.arange(1 + max(_LENGTHS))
        mask = torch.tensor([[1] * (1 + len(t)) + [0] * (max(_LENGTHS) - len(t)) for t in texts])
        clean = self._encode(texts) + steps
        corrupt = self._encode([text.translate(table) for text in texts]) + steps
        return Prompts(texts, clean, corrupt, mask)

    def output(self, text: str) -> Tensor:
        """What tracr's own model gives, before it takes the largest: ``[position, word]``."""
        found = self.assembled.apply([_BOS, *text]).transformer_output
        return torch.from_numpy(np.array(found))[0] @ self.unembedding

    def decoded(self, text: str) -> list[Any]:
        """What tracr's own model answers, one value for each letter."""
        return list(self.assembled.apply([_BOS, *text]).decoded)[1:]

    def _encode(self, texts: Collection[str]) -> Tensor:
        longest = max(_LENGTHS)
        rows = [[_BOS, *text, *[_PAD] * (longest - len(text))] for text in texts]
        return torch.tensor([self.assembled.input_encoder.encode(row) for row in rows])

    def _state(self, positions_in_input: bool) -> dict[str, Tensor]:
        """Weights by the names of TransformerLens's own decoder, whose matrices are [out, in]."""
        tokens = self.weights["token_embed"]["embeddings"]
        positions = self.weights["pos_embed"]["embeddings"]
        if positions_in_input:
            tokens = (positions[:, None] + tokens).flatten(0, 1)
            positions = torch.zeros_like(positions)
        state = {
            "tok_embed.weight": tokens,
            "pos.weight": positions,
            "head.weight": self.unembedding.mT,
        }
        for layer, (ours, theirs) in itertools.product(
            range(self.assembled.model_config.num_layers), _PARTS.items()
        ):
            part = self.weights[f"transformer/layer_{layer}/{theirs}"]
            state[f"layers.{layer}.{ours}.weight"] = part["w"].mT
            state[f"layers.{layer}.{ours}.bias"] = part["b"]
        return state


@cache
def compiled(name: str) -> CompiledProgram:
    """Compile a program of :data:`PROGRAMS`; takes seconds the first time."""
    from tracr.compiler import compiling, lib
    from tracr.rasp import rasp

    program = PROGRAMS[name]
    sources = {
        "reverse": lambda: lib.make_reverse(rasp.tokens),
        "xproportion": lambda: lib.make_frac_prevs(rasp.tokens == "x"),
    }
    assembled = compiling.compile_rasp_to_model(
        sources[name](),
        vocab=set(program.letters),
        max_seq_len=_LONGEST,
        compiler_bos=_BOS,
        compiler_pad=_PAD,
    )
    weights = {
        module: {part: torch.from_numpy(np.array(value)) for part, value in parts.items()}
        for module, parts in assembled.params.items()
    }
    return CompiledProgram(program, assembled, weights, _unembedding(assembled, weights))


def last_logits(bridge: Any, tokens: Tensor, attention_mask: Tensor) -> Tensor:
    """A bridge's logits at each prompt's last letter, ``[prompt, word]``."""
    with torch.no_grad():
        logits: Tensor = bridge(tokens, attention_mask=attention_mask)
    return logits[torch.arange(len(tokens)), attention_mask.sum(1) - 1]


def closeness(bridge: Any, prompts: Prompts) -> Metric:
    """Minus the distance of the output from the clean one: any change whatever lowers it.

    Without a gradient to speak of, since the clean run is its maximum.
    """
    clean = last_logits(bridge, prompts.clean, prompts.attention_mask)
    return lambda logits, index: -(logits - clean[index]).abs().sum(-1)


def answer(bridge: Any, prompts: Prompts, ablation: Ablation) -> Metric:
    """How far the output has gone from the ablated model's, which is 0 under ``zero``, to its own.

    Linear in the logits, so that it has the same gradient everywhere.
    """
    ways = last_logits(bridge, prompts.clean, prompts.attention_mask)
    if ablation == "resample":
        ways = ways - last_logits(bridge, prompts.corrupt, prompts.attention_mask)
    return lambda logits, index: (logits * ways[index]).sum(-1)


def auroc(scores: Mapping[str, float], truth: Collection[str]) -> float:
    """How often a true edge has a larger score in size than a false one; ties count half."""
    true = [abs(score) for edge, score in scores.items() if edge in truth]
    false = [abs(score) for edge, score in scores.items() if edge not in truth]
    wins = sum((t > f) + (t == f) / 2 for t, f in itertools.product(true, false))
    return wins / (len(true) * len(false))


def _unembedding(assembled: Any, weights: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """The matrix by which tracr's model reads its output; it is no parameter."""
    import haiku

    def unembed(residual: Any) -> Any:
        return assembled.get_compiled_model().unembed(residual, use_unembed_argmax=False)

    d_model = weights["token_embed"]["embeddings"].shape[1]
    run = haiku.without_apply_rng(haiku.transform(unembed))
    matrix = np.array(run.apply({}, np.eye(d_model, dtype=np.float32)), dtype=np.float32)
    return torch.from_numpy(matrix.reshape(d_model, -1))
