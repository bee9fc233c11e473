"""A tiny random model of every family that is documented, and where that family keeps its parts.

Sizes are set wherever a configuration knows them. Weights are far from zero, so that a part that is
lost or counted twice shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.ingest.discovery.plain_patcher import Names

__all__ = ["FAMILIES", "Family", "build", "in_turn", "per_head"]

_SIZES: dict[str, Any] = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32,
    "intermediate_size": 48, "vocab_size": 40, "max_position_embeddings": 64, "head_dim": 8,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "n_layer": 2, "n_head": 4,
    "n_embd": 32, "n_inner": 48, "n_positions": 64, "n_ctx": 64, "d_model": 32, "n_heads": 4,
    "n_layers": 2, "max_seq_len": 64, "rotary_dim": 4, "ffn_dim": 48, "decoder_layers": 2,
    "attention_heads": 4, "num_layers": 2, "word_embed_proj_dim": 32, "num_experts": 4,
    "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "moe_num_experts": 4, "shared_expert_intermediate_size": 16, "sliding_window": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        kind: ``model_type`` of its configuration.
        names: Where it keeps its parts.
        more: What its configuration has besides sizes, or instead of them; None leaves one out.
        empty: Settings that are None.
    """

    kind: str
    names: Names = field(default_factory=Names)
    more: Mapping[str, Any] = field(default_factory=dict)
    empty: tuple[str, ...] = ()


def build(family: Family, dtype: torch.dtype = torch.float32) -> transformers.PreTrainedModel:
    """A random model of a family, plain, in evaluation mode."""
    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family.kind]
    architecture = found if isinstance(found, str) else found[0]
    kind = CONFIG_MAPPING[family.kind]
    known = kind()
    given = {k: v for k, v in _SIZES.items() if hasattr(known, k) or k in kind.attribute_map}
    if getattr(known, "layer_types", None) and "sliding_attention" in known.layer_types:
        given["layer_types"] = ["full_attention", "sliding_attention"]
    given |= family.more
    given = {k: v for k, v in given.items() if v is not None} | dict.fromkeys(family.empty)
    config = kind(**given, architectures=[architecture])
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).eval()
    model.set_attn_implementation("eager")
    if "experts" in "".join(name for name, _ in model.named_modules()):
        model.set_experts_implementation("eager")  # the others have no float64
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model.to(dtype)


def per_head(port: str, head: int, d_head: int) -> list[int]:
    """Query, key and value of each head side by side (GPT-NeoX, BLOOM)."""
    first = (3 * head + "qkv".index(port)) * d_head
    return list(range(first, first + d_head))


def in_turn(n_heads: int, n_kv_heads: int) -> Any:
    """All queries, then all keys, then all values."""

    def rows(port: str, head: int, d_head: int) -> list[int]:
        before = {"q": 0, "k": n_heads, "v": n_heads + n_kv_heads}[port]
        return list(range((before + head) * d_head, (before + head + 1) * d_head))

    return rows


def _codegen(port: str, head: int, d_head: int) -> list[int]:
    """Four parts of a tensor-parallel run; in each queries, then values, then keys."""
    first = (3 * head + "qvk".index(port)) * d_head  # one head a part, as there are four
    return list(range(first, first + d_head))


def _joint(name: str) -> tuple[str, str, str]:
    return name, name, name


_BOTH_NORMS = Names(
    mlp_norm="pre_feedforward_layernorm",
    mlp_out="post_feedforward_layernorm",
    post_norm="post_attention_layernorm",
)
_POST_NORMS = Names(
    norm=None,
    mlp_norm=None,
    mlp_out="post_feedforward_layernorm",
    post_norm="post_attention_layernorm",
)
_SHARED_NORM = Names(mlp_norm="shared")
_GRANITE = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.25,
    "logits_scaling": 8.0,
}
_GPT2 = Names(
    blocks="transformer.h", ports=_joint("attn.c_attn"), rows=in_turn(4, 4), o="attn.c_proj",
    norm="ln_1", mlp="mlp", mlp_norm="ln_2", final="transformer.ln_f",
)  # fmt: skip
_NEOX = Names(
    blocks="gpt_neox.layers", ports=_joint("attention.query_key_value"), rows=per_head,
    o="attention.dense", final="gpt_neox.final_layer_norm",
)  # fmt: skip
_BLOOM = Names(
    blocks="transformer.h", ports=_joint("self_attention.query_key_value"), rows=per_head,
    o="self_attention.dense", mlp_out="mlp.dense_4h_to_h", final="transformer.ln_f",
)  # fmt: skip
_MPT = Names(
    blocks="transformer.blocks", ports=_joint("attn.Wqkv"), rows=in_turn(4, 4), o="attn.out_proj",
    norm="norm_1", mlp="ffn", mlp_norm="norm_2", mlp_out="ffn.down_proj",
    final="transformer.norm_f",
)  # fmt: skip
_FALCON = Names(
    blocks="transformer.h", ports=_joint("self_attention.query_key_value"), rows=in_turn(4, 1),
    o="self_attention.dense", mlp_norm="shared", final="transformer.ln_f",
)  # fmt: skip
_GPTJ = Names(
    blocks="transformer.h", ports=("attn.q_proj", "attn.k_proj", "attn.v_proj"), o="attn.out_proj",
    norm="ln_1", mlp_norm="shared", final="transformer.ln_f",
)  # fmt: skip
_CODEGEN = Names(
    blocks="transformer.h", ports=_joint("attn.qkv_proj"), rows=_codegen, o="attn.out_proj",
    norm="ln_1", mlp_norm="shared", final="transformer.ln_f",
)  # fmt: skip
_OPT = Names(
    blocks="model.decoder.layers", o="self_attn.out_proj", norm="self_attn_layer_norm",
    mlp="fc1", mlp_norm="final_layer_norm", mlp_out="fc2", final="model.decoder.final_layer_norm",
)  # fmt: skip
_XGLM = Names(
    blocks="model.layers", o="self_attn.out_proj", norm="self_attn_layer_norm",
    mlp="fc1", mlp_norm="final_layer_norm", mlp_out="fc2", final="model.layer_norm",
)  # fmt: skip
_PHI = Names(o="self_attn.dense", mlp_norm="shared", final="model.final_layernorm")
_PHI3 = Names(ports=_joint("self_attn.qkv_proj"), rows=in_turn(4, 2))
_GPT_NEO = Names(
    blocks="transformer.h",
    ports=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    o="attn.attention.out_proj", norm="ln_1", mlp_norm="ln_2", final="transformer.ln_f",
)  # fmt: skip
_BIGCODE = Names(
    blocks="transformer.h", ports=_joint("attn.c_attn"), rows=in_turn(4, 1), o="attn.c_proj",
    norm="ln_1", mlp_norm="ln_2", final="transformer.ln_f",
)  # fmt: skip
_FALCON_SIZES = {"head_dim": None, "num_key_value_heads": None, "ffn_hidden_size": 48}

FAMILIES: dict[str, Family] = {
    "apertus": Family(
        "apertus", Names(norm="attention_layernorm", mlp_norm="feedforward_layernorm")
    ),
    "arcee": Family("arcee"),
    "bitnet": Family("bitnet"),
    "bloom": Family("bloom", _BLOOM),
    "codegen": Family("codegen", _CODEGEN),
    "cohere": Family("cohere", _SHARED_NORM, {"logit_scale": 0.5}),
    "cohere with norms of queries": Family("cohere", _SHARED_NORM, {"use_qk_norm": True}),
    "cohere2": Family("cohere2", _SHARED_NORM, {"logit_scale": 0.5}),
    "ernie4_5": Family("ernie4_5"),
    "ernie4_5_moe": Family("ernie4_5_moe"),
    "exaone4": Family("exaone4", _POST_NORMS),
    "falcon 7b": Family("falcon", _FALCON, _FALCON_SIZES),
    "flex_olmo": Family("flex_olmo", _POST_NORMS),
    "gemma": Family("gemma"),
    "gemma2": Family("gemma2", _BOTH_NORMS),
    "gemma3": Family("gemma3_text", _BOTH_NORMS),
    "glm": Family("glm"),
    "glm4": Family(
        "glm4", Names(mlp_out="post_mlp_layernorm", post_norm="post_self_attn_layernorm")
    ),
    "glm4_moe": Family("glm4_moe"),
    "gpt2": Family("gpt2", _GPT2),
    "gpt_bigcode": Family("gpt_bigcode", _BIGCODE),
    "gpt_neo": Family(
        "gpt_neo", _GPT_NEO,
        {"attention_types": [[["global", "local"], 1]], "window_size": 3, "intermediate_size": 48},
    ),
    "gpt_neox": Family("gpt_neox", _NEOX),
    "gpt_neox in sequence": Family("gpt_neox", _NEOX, {"use_parallel_residual": False}),
    "gpt_oss": Family("gpt_oss"),
    "gptj": Family("gptj", _GPTJ),
    "granite": Family("granite", Names(scale=0.22), _GRANITE),
    "granitemoe": Family(
        "granitemoe", Names(scale=0.22, mlp="block_sparse_moe", mlp_out="block_sparse_moe"),
        _GRANITE,
    ),
    "hunyuan_v1_dense": Family("hunyuan_v1_dense"),
    "jais2": Family("jais2"),
    "lfm2": Family(
        "lfm2",
        Names(
            o="self_attn.out_proj", norm="operator_norm", mlp="feed_forward", mlp_norm="ffn_norm",
            mlp_out="feed_forward", final="model.embedding_norm",
        ),
        {"layer_types": ["full_attention", "full_attention"]},
    ),
    "llama": Family("llama"),
    "llama4": Family("llama4_text", Names(mlp="feed_forward", mlp_out="feed_forward")),
    "minimax_m2": Family("minimax_m2"),
    "ministral3": Family("ministral3"),
    "mistral": Family("mistral"),
    "mixtral": Family("mixtral"),
    "mpt": Family("mpt", _MPT, {"expansion_ratio": 2}),
    "nemotron": Family("nemotron"),
    "olmo": Family("olmo"),
    "olmo with clipped queries": Family("olmo", more={"clip_qkv": 4.0}),
    "olmo2": Family("olmo2", _POST_NORMS),
    "olmo3": Family("olmo3", _POST_NORMS),
    "olmoe": Family("olmoe"),
    "opt": Family("opt", _OPT),
    "phi": Family("phi", _PHI),
    "phi3": Family("phi3", _PHI3, {"original_max_position_embeddings": 64}),
    "qwen2": Family("qwen2"),
    "qwen2_moe": Family("qwen2_moe"),
    "qwen3": Family("qwen3"),
    "qwen3_moe": Family("qwen3_moe"),
    "seed_oss": Family("seed_oss"),
    "smollm3": Family("smollm3"),
    "stablelm": Family("stablelm"),
    "stablelm in parallel": Family(
        "stablelm", _SHARED_NORM, {"use_parallel_residual": True, "qk_layernorm": True}
    ),
    "starcoder2": Family("starcoder2"),
    "vaultgemma": Family("vaultgemma", Names(mlp_norm="pre_feedforward_layernorm")),
    "xglm": Family("xglm", _XGLM),
}  # fmt: skip
