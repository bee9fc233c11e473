"""Tiny models that cannot be split into edges, with what is said of each."""

from __future__ import annotations

from typing import Any

from tests.ingest.discovery.families import Family

__all__ = ["REFUSED"]

_LATENT: dict[str, Any] = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "head_dim": 4, "num_key_value_heads": 4,
}  # fmt: skip
_NO_HEADS = "has no attn"
_NO_QUERIES = "has no q or k or v"
_ANOTHER_MODEL = "becomes another model"

REFUSED: dict[str, tuple[Family, str]] = {
    "afmoe": (Family("afmoe", more={"num_dense_layers": 1}), "reads the residual stream"),
    "bert": (Family("bert", more={"is_decoder": True}), "do not add up"),
    "bloom with its skip path behind the norm": (
        Family("bloom", more={"apply_residual_connection_post_layernorm": True}), "do not add up",
    ),
    "deepseek_v2": (
        Family("deepseek_v2", more={**_LATENT, "topk_method": "greedy"}), _NO_QUERIES,
    ),
    "deepseek_v3": (Family("deepseek_v3", more=_LATENT), _NO_QUERIES),
    "deepseek_v4": (Family("deepseek_v4"), _NO_QUERIES),
    "falcon 40b": (
        Family(
            "falcon",
            more={"new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": None,
                  "num_key_value_heads": None, "ffn_hidden_size": 48},
        ),
        "cannot be wrapped: TransformerLens",
    ),
    "glm4_moe_lite": (Family("glm4_moe_lite", more=_LATENT), _NO_QUERIES),
    "glm_moe_dsa": (Family("glm_moe_dsa", more=_LATENT), _NO_QUERIES),
    "gpt2 without scaled scores": (
        Family("gpt2", more={"scale_attn_weights": False}), _ANOTHER_MODEL,
    ),
    "gpt_bigcode with many keys": (
        Family("gpt_bigcode", more={"multi_query": False}), "cannot be wrapped: TransformerLens",
    ),
    "hrm_text": (Family("hrm_text"), "no norm before its unembedding"),
    "jetmoe": (Family("jetmoe"), _NO_QUERIES),
    "laguna": (Family("laguna"), "reads the residual stream"),
    "lfm2 with convolutions": (
        Family("lfm2", more={"layer_types": ["conv", "full_attention"]}), _NO_HEADS,
    ),
    "mamba": (Family("mamba"), _NO_HEADS),
    "nanochat": (Family("nanochat"), "with every edge kept it gives other logits|their scores say"),
    "openai-gpt": (Family("openai-gpt"), _ANOTHER_MODEL),
    "opt with norms behind the sum": (
        Family("opt", more={"do_layer_norm_before": False}), "once it is wrapped",
    ),
    "opt with a projection": (
        Family("opt", more={"word_embed_proj_dim": 16}), "no norm before its unembedding",
    ),
    "phi with norms of queries": (
        Family("phi", more={"qk_layernorm": True}), "cannot be wrapped: TransformerLens",
    ),
    "rwkv": (Family("rwkv"), _NO_HEADS),
    "youtu": (Family("youtu", more=_LATENT), _NO_QUERIES),
}  # fmt: skip
