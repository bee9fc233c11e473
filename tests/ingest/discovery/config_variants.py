"""Every documented family with one setting of its configuration changed, and what comes of it.

Each boolean of a configuration is flipped once. Numbers, windows, kinds of layers and of rotary
embeddings are changed where a family has them, so far that a prompt of nine tokens tells. What is
accepted must be what the plain model of transformers computes: logits, edges and circuits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.models import wrap
from registry.errors import UnsupportedModel
from tests.ingest.discovery.families import FAMILIES, Family, build, in_turn, per_head
from tests.ingest.discovery.plain_patcher import Names, PlainPatcher

__all__ = ["NO_MODEL", "REFUSED", "SILENT", "Outcome", "Variant", "judge", "variants"]

N_EDGES = 4
STEP = 3e-3
WINDOW = 5
"""Longer than the prompt that proves a model when it is loaded, shorter than those of this test."""

_NO_FORWARD = {
    "_output_attentions", "_post_init_done", "output_hidden_states", "output_router_logits",
    "is_decoder", "is_encoder_decoder", "return_dict", "use_cache", "summary_use_proj",
    "summary_proj_to_labels", "use_sliding_window",
}  # fmt: skip
"""Booleans that say what is returned, are of other tasks, or are changed together with others."""

_MULTIPLIERS: dict[str, tuple[Any, ...]] = {
    "logit_scale": (0.25,), "embedding_multiplier": (3.0,), "residual_multiplier": (0.4,),
    "attention_multiplier": (0.3,), "logits_scaling": (3.0,), "clip_qkv": (0.5,),
    "final_logit_softcapping": (2.0, None), "attn_logit_softcapping": (1.0, None),
    "query_pre_attn_scalar": (16,), "attention_chunk_size": (3, WINDOW), "swiglu_limit": (0.5,),
    "routed_scaling_factor": (2.5,), "moe_norm_min": (0.9,), "window_size": (WINDOW,),
    "use_bidirectional_attention": (True,), "word_embed_proj_dim": (16,),
}  # fmt: skip
_SHAPES: dict[str, tuple[Any, ...]] = {
    "head_dim": (16,), "num_key_value_heads": (4, 1), "hidden_act": ("gelu", "relu"),
    "hidden_activation": ("gelu", "relu"), "activation_function": ("silu", "relu"),
    "activation": ("relu",), "pretraining_tp": (2,), "rotary_dim": (None, 8), "n_inner": (None, 24),
    "rms_norm_eps": (0.5,), "layer_norm_eps": (0.5,), "layer_norm_epsilon": (0.5,),
    "norm_eps": (0.5,), "norm_epsilon": (0.5,), "intermediate_size": (24,), "swiglu_alpha": (1.0,),
    "num_experts_per_tok": (1,), "moe_k": (2,), "n_shared_experts": (2,), "n_group": (2,),
    "moe_num_shared_experts": (0, 2), "moe_layer_interval": (2,), "first_k_dense_replace": (0, 2),
    "mlp_only_layers": ([0],), "decoder_sparse_step": (2,), "interleave_moe_layer_step": (2,),
    "no_rope_layers": ([0, 1], [1, 1], [0, 0]), "block_ffn_dim_multiplier": (0.5,),
    "attention_dropout": (0.5,), "hidden_dropout": (0.5,), "resid_pdrop": (0.5,),
    "router_jitter_noise": (0.5,), "max_position_embeddings": (32,),
}  # fmt: skip
_ROTARY: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 4},
    "llama3": {
        "factor": 8.0, "original_max_position_embeddings": 4, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "longrope": {"factor": 4.0, "original_max_position_embeddings": 6},
}  # fmt: skip
_SHORT_FACTORS, _LONG_FACTORS = (1.0, 1.5, 2.0, 3.0), (2.0, 3.0, 4.0, 5.0)
_OWN: dict[str, tuple[dict[str, Any], ...]] = {
    "falcon": (
        {"alibi": True, "parallel_attn": False, "multi_query": False, "bias": True},
        {"alibi": True, "attn_implementation": "eager"},
        {"parallel_attn": False, "multi_query": False},
        {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
        {"new_decoder_architecture": True, "num_kv_heads": 2},
        {"new_decoder_architecture": True, "num_kv_heads": 4},
        {"new_decoder_architecture": True, "num_kv_heads": 1},
    ),
    "gpt_neo": (
        {"attention_types": [[["local"], 2]], "window_size": WINDOW},
        {"attention_types": [[["global"], 2]]},
    ),
    "llama4_text": (
        {"no_rope_layers": [0, 1], "floor_scale": 2, "attn_scale": 0.7},
        {"no_rope_layers": [0, 1], "floor_scale": WINDOW, "attention_chunk_size": WINDOW},
        {"no_rope_layers": [0, 1], "floor_scale": 2, "attn_temperature_tuning": False},
    ),
    "mpt": (
        {"attn_config": {"alibi": False}}, {"attn_config": {"alibi_bias_max": 4}},
        {"attn_config": {"clip_qkv": 0.5}}, {"attn_config": {"softmax_scale": 0.3}},
        {"attn_config": {"qk_ln": True}}, {"attn_config": {"prefix_lm": True}},
    ),
}  # fmt: skip
"""Settings that matter only together, or lie deeper."""

REFUSED = {
    "bloom: apply_residual_connection_post_layernorm=True": "do not add up",
    "falcon 7b: alibi=True": "something else with eager attention",
    "falcon 7b: alibi=True, attn_implementation=eager": "something else with eager attention",
    "falcon 7b: alibi=True, parallel_attn=False, multi_query=False, bias=True": "eager attention",
    "falcon 7b: new_decoder_architecture=True": "cannot be wrapped",
    "falcon 7b: new_decoder_architecture=True, num_kv_heads=2": "cannot be wrapped",
    "falcon 7b: new_decoder_architecture=True, num_ln_in_parallel_attn=1": "ln_attn",
    "falcon 7b: new_decoder_architecture=True, num_kv_heads=4": "cannot be wrapped",
    "gemma3: attn_logit_softcapping=1.0": "becomes another model when",
    "gpt2: scale_attn_weights=False": "becomes another model when",
    "gpt_bigcode: multi_query=False": "supports multi_query=True",
    "gpt_bigcode: scale_attn_weights=False": "becomes another model when",
    "gpt_neox in sequence: attention_bias=False": "cannot be wrapped",
    "gpt_neox: attention_bias=False": "cannot be wrapped",
    "opt: _remove_final_layer_norm=True": r"fails in .*decoder\.final_layer_norm",
    "opt: do_layer_norm_before=False": r"fails in .*decoder\.final_layer_norm",
    "opt: word_embed_proj_dim=16": "no norm before its unembedding",
    "phi: qk_layernorm=True": "q_layernorm",
}
"""What is said of variants that are refused; all others are the same as transformers."""
_LATE = "rope scaled past five tokens"
_SAME_LATE = {
    "falcon 7b", "gpt_neox", "gpt_neox in sequence", "hunyuan_v1_dense", "llama4", "ministral3",
    "phi3", "gemma3", "olmo3",
}  # fmt: skip
"""Families that scale late themselves, or where that key is not read or changes nothing."""
NO_MODEL = {"gpt_bigcode: add_cross_attention=True"}
"""Variants that transformers itself cannot make or run."""
SILENT = {
    "bloom: slow_but_exact=True", "gemma2: use_bidirectional_attention=True",
    "gemma3: attn_logit_softcapping=1.0", "gemma: use_bidirectional_attention=True",
    "gpt2: reorder_and_upcast_attn=True", "gpt_bigcode: attention_softmax_in_fp32=False",
    "gpt_bigcode: scale_attention_softmax_in_fp32=False", "lfm2: conv_bias=True",
    "llama4: attn_temperature_tuning=False",
    "mpt: attn_config={'alibi': False}", "mpt: attn_config={'alibi_bias_max': 4}",
    "mpt: attn_config={'prefix_lm': True}", "mpt: attn_config={'qk_ln': True}",
    "mpt: learned_pos_emb=False", "mpt: logit_scale=0.25", "mpt: no_bias=False",
    "qwen2_moe: use_sliding_window=True, sliding_window=5, max_window_layers=0",
    "smollm3: use_sliding_window=True, sliding_window=5, max_window_layers=0",
    "smollm3: use_sliding_window=True, sliding_window=5, max_window_layers=1",
}  # fmt: skip
"""Variants whose plain model computes what the family does unchanged, in this size and dtype."""


@dataclass(frozen=True)
class Variant:
    """A family with something changed.

    Attributes:
        family: Its name among the documented ones.
        label: What was changed, in words.
        more: What its configuration has instead.
        brief: Whether it belongs to the test; else to the sweep under ``benchmarks/`` alone.
    """

    family: str
    label: str
    more: Mapping[str, Any] = field(hash=False)
    brief: bool = True

    def __str__(self) -> str:
        return f"{self.family}: {self.label}"

    @property
    def refused(self) -> str | None:
        """What is said of it if it is refused; None if it must be the same as transformers."""
        if self.label == _LATE and self.family not in _SAME_LATE:
            return "on prompts of 9 tokens"
        return REFUSED.get(str(self))

    @property
    def matters(self) -> bool:
        """Whether transformers' own code computes something else than for the family unchanged."""
        return self.label != _LATE and str(self) not in SILENT


@dataclass(frozen=True)
class Outcome:
    """What came of a variant.

    Attributes:
        kind: ``same`` as transformers, ``refused``, ``wrong``, ``crashed``; ``no model`` where
            transformers itself cannot make or run it.
        text: What was said.
        changed: Whether the plain model gives other logits than the family unchanged.
    """

    kind: str
    text: str = ""
    changed: bool = True


def variants(name: str) -> Iterator[Variant]:
    """All of a family, named as in ``FAMILIES``."""
    kind = FAMILIES[name].kind
    config = build(FAMILIES[name]).config
    for setting, value in vars(config).items():
        if isinstance(value, bool) and setting not in _NO_FORWARD:
            yield _variant(name, {setting: not value}, setting != "tie_word_embeddings")
    for table, brief in ((_MULTIPLIERS, True), (_SHAPES, False)):
        for setting, values in table.items():
            for value in values if hasattr(config, setting) else ():
                if value != getattr(config, setting):
                    yield _variant(name, {setting: value}, brief)
    yield from (_variant(name, more) for more in _OWN.get(kind, ()))
    yield from _windows(name, config, kind)
    yield from _rotary(name, config)


def judge(variant: Variant) -> Outcome:
    """Make a variant's model, wrap it, and compare what is computed with the plain model."""
    family = _family(variant)
    dtype = _dtype(family)
    clean, corrupt = _prompts()
    try:
        model, plain = build(family, dtype), build(family, dtype)
        expected = _all_logits(plain, clean)
    except Exception as error:  # noqa: BLE001  whatever transformers says
        return Outcome("no model", f"{type(error).__name__}: {error}")
    if not bool(expected.isfinite().all()):
        return Outcome("no model", "its logits are not finite")
    changed = not torch.allclose(expected.double(), _usual(variant.family), atol=1e-5, rtol=1e-5)
    try:
        bridge = wrap(model)
        exact = attribute_edges(prepare_setting(bridge, clean, corrupt, _metric), method="exact")
        first_order = attribute_edges(prepare_setting(bridge, clean, corrupt, _metric))
    except UnsupportedModel as error:
        return Outcome("refused", str(error), changed)
    except Exception as error:  # noqa: BLE001  which is what is looked for
        return Outcome("crashed", f"{type(error).__name__}: {error}", changed)
    found = bridge(clean, attention_mask=torch.ones_like(clean), use_cache=False).detach()
    if not torch.allclose(found.to(dtype), expected, atol=1e-5, rtol=1e-5):
        return Outcome("wrong", "other logits", changed)
    patcher = PlainPatcher(plain, _names(family, plain.config), exact.space, clean, corrupt)
    text = _differing(patcher, bridge, exact, first_order, _kinked(plain.config))
    return Outcome("wrong" if text else "same", text, changed)


def _variant(name: str, more: Mapping[str, Any], brief: bool = True) -> Variant:
    return Variant(name, ", ".join(f"{k}={v}" for k, v in more.items()), more, brief)


def _family(variant: Variant) -> Family:
    family = FAMILIES[variant.family]
    empty = tuple(setting for setting, value in variant.more.items() if value is None)
    return replace(family, more={**family.more, **variant.more}, empty=empty)


def _dtype(family: Family) -> torch.dtype:
    """What its forward pass can do."""
    narrow = family.kind == "xglm" or "reorder_and_upcast_attn" in family.more
    return torch.float32 if narrow else torch.float64


def _windows(name: str, config: Any, kind: str) -> Iterator[Variant]:
    """Windows, and every choice of two layers, one of which has a window."""
    switch = {"use_sliding_window": True} if hasattr(config, "use_sliding_window") else {}
    given = [each for each in ("sliding_window", "attention_chunk_size") if hasattr(config, each)]
    window = {**switch, **dict.fromkeys(given, WINDOW)}
    if "sliding_window" in given and not switch:
        yield _variant(name, window)
    if "sliding_window" in given and not switch and not getattr(config, "layer_types", None):
        yield _variant(name, {"sliding_window": None})
    for first in (0, 1) if switch else ():
        yield _variant(name, {**window, "max_window_layers": first})
    if getattr(config, "layer_types", None) and window:
        kinds = {"sliding_attention", "full_attention", *CONFIG_MAPPING[kind]().layer_types}
        kinds -= {"sliding_attention"} if "sliding_window" not in given else set()
        for pair in product(sorted(kinds), repeat=2):
            if pair != ("full_attention", "full_attention"):
                yield _variant(name, {"layer_types": list(pair), **window})


def _rotary(name: str, config: Any) -> Iterator[Variant]:
    """Kinds of rotary embeddings, and keys that some families read."""
    usual = getattr(config, "rope_parameters", None)
    if not usual:
        return
    by_kind = "full_attention" in usual
    own = usual["full_attention"] if by_kind else usual
    kept = {k: own[k] for k in ("partial_rotary_factor", "llama_4_scaling_beta") if k in own}
    for kind, more in _ROTARY.items():
        new = {"rope_type": kind, "rope_theta": 1e4, **kept, **more}
        if "llama_4_scaling_beta" in kept:
            new.setdefault("original_max_position_embeddings", 4)
        if kind == "longrope":
            new |= _factors(config, kept.get("partial_rotary_factor", 1.0))
        given: dict[str, Any] = {"max_position_embeddings": 6} if kind == "dynamic" else {}
        original = new.get("original_max_position_embeddings")
        if original and hasattr(config, "original_max_position_embeddings"):
            given["original_max_position_embeddings"] = original
        given["rope_parameters"] = _spread(new, by_kind)
        yield Variant(name, f"rope {kind}", given, brief=False)
    beta = {"llama_4_scaling_beta": 0.5, "original_max_position_embeddings": WINDOW}
    for label, more in (
        ("theta 10", {"rope_theta": 10.0}),
        ("half", {"rope_theta": 100.0, "partial_rotary_factor": 0.5}),
        ("whole", {"rope_theta": 100.0, "partial_rotary_factor": 1.0}),
        ("scaled past five tokens", beta),
    ):
        given = {"rope_parameters": _spread({**own, **more}, by_kind)}
        yield Variant(name, f"rope {label}", given, brief=more is beta)


def _factors(config: Any, share: float) -> dict[str, list[float]]:
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    n = int(d_head * share) // 2
    return {
        "short_factor": list(_SHORT_FACTORS * 2)[:n],
        "long_factor": list(_LONG_FACTORS * 2)[:n],
    }


def _spread(rope: dict[str, Any], by_kind: bool) -> dict[str, Any]:
    """For all layers, or for those of full attention, beside a plain one for those of a window."""
    if not by_kind:
        return rope
    return {
        "full_attention": rope,
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }


def _names(family: Family, config: Any) -> Names:
    """Where a variant keeps its parts, where that depends on its settings."""
    names = family.names
    if "residual_multiplier" in family.more:
        names = replace(names, scale=config.residual_multiplier)
    if family.kind == "phi3":
        names = replace(names, rows=in_turn(4, config.num_key_value_heads))
    if family.kind == "stablelm":
        shared = config.use_parallel_residual
        names = replace(names, mlp_norm="shared" if shared else "post_attention_layernorm")
    if family.kind == "falcon":
        if config.new_decoder_architecture:
            names = replace(names, norm="ln_attn", mlp_norm="ln_mlp")
        elif not config.multi_query:
            names = replace(names, rows=per_head)
        if not config.parallel_attn:
            names = replace(names, mlp_norm="post_attention_layernorm")
    return names


def _kinked(config: Any) -> bool:
    """Whether slopes differ on both sides of points that a step may cross."""
    names = ("hidden_act", "hidden_activation", "activation_function", "activation")
    clipped = getattr(config, "clip_qkv", None) or getattr(config, "swiglu_limit", None)
    clipped = clipped or getattr(getattr(config, "attn_config", None), "clip_qkv", None)
    return bool(clipped) or any(getattr(config, name, None) == "relu" for name in names)


def _prompts() -> tuple[Tensor, Tensor]:
    clean = torch.randint(2, 40, (2, 9), generator=torch.Generator().manual_seed(7))
    corrupt = clean.clone()
    for position, by in ((1, 5), (3, 9), (6, 11)):
        corrupt[:, position] = 2 + (clean[:, position] + by) % 38
    return clean, corrupt


def _metric(logits: Tensor, index: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 10]


def _all_logits(plain: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        found = plain(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    logits: Tensor = found.logits
    return logits


@cache
def _usual(name: str) -> Tensor:
    """Logits of a family as it is documented."""
    family = FAMILIES[name]
    return _all_logits(build(family, _dtype(family)), _prompts()[0]).double()


def _differing(
    patcher: PlainPatcher, bridge: Any, exact: Any, first_order: Any, kinked: bool
) -> str:
    """The first of some edges and a circuit that the plain model computes otherwise; else empty."""
    space, index = exact.space, torch.arange(2)
    full = _metric(patcher.clean.logits, index)
    every = list(space.edges())
    largest = float(first_order.matrix.abs().max())
    for row, column in random.Random(0).sample(every, N_EDGES):
        edge, sender, receiver = (
            space.edge_id(row, column),
            space.senders[row],
            space.receivers[column],
        )
        taken = float((full - _metric(patcher.logits_without(sender, receiver), index)).mean())
        if abs(float(exact.matrix[row, column]) - taken) > 5e-6:
            return f"other effect of {edge}"
        up, down = (patcher.logits_without(sender, receiver, by) for by in (STEP, -STEP))
        slope = float((_metric(down, index) - _metric(up, index)).mean()) / (2 * STEP)
        if not kinked and abs(float(first_order.matrix[row, column]) - slope) > 5e-3 * largest:
            return f"other slope of {edge}"
    circuit = set(
        random.Random(1).sample([space.edge_id(*place) for place in every], len(every) // 3)
    )
    found = evaluate_circuit(prepare_setting(bridge, *_prompts(), _metric), circuit).circuit
    expected = _metric(patcher.logits_of(circuit), index).double()
    return "" if torch.allclose(found, expected, atol=1e-5, rtol=1e-5) else "other circuit"
