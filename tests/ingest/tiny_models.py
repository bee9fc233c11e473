"""Tiny random models, made with transformers, for tests that need no weights from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

D_VOCAB = 24
WORDS = (
    *("a", "when", "mary", "and", "john", "went", "to", "the", "store", ",", "gave", "drink"),
    *("one", "two", "three", "four"),
)


def gpt2() -> transformers.PreTrainedModel:
    """Learned positions, LayerNorm, biases, joint query-key-value weights, tied embeddings."""
    return _make(
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(
            n_layer=2, n_head=4, n_embd=16, n_positions=32, vocab_size=D_VOCAB, bos_token_id=0
        ),
    )


def llama() -> transformers.PreTrainedModel:
    """Grouped queries, rotary positions, RMSNorm, gated MLP."""
    return _make(
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(**_sizes(), num_key_value_heads=2, tie_word_embeddings=False),
    )


def neox() -> transformers.PreTrainedModel:
    """Attention and MLP side by side."""
    return _make(
        transformers.GPTNeoXForCausalLM,
        transformers.GPTNeoXConfig(**_sizes(), use_parallel_residual=True, rotary_pct=0.5),
    )


def gemma2() -> transformers.PreTrainedModel:
    """Soft-capped attention scores and logits, norms after the blocks' parts, sliding windows."""
    return _make(
        transformers.Gemma2ForCausalLM,
        transformers.Gemma2Config(
            **_sizes(),
            num_key_value_heads=2,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=4,
            # Low caps, so that leaving them out would show.
            attn_logit_softcapping=0.5,
            final_logit_softcapping=0.5,
        ),
    )


ALL: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "gpt2": gpt2,
    "llama": llama,
    "neox": neox,
    "gemma2": gemma2,
}


def tokenizer(*, prepends_bos: bool) -> transformers.PreTrainedTokenizerFast:
    """Make a tokenizer of whole words that does, or does not, begin every text with BOS."""
    vocabulary = {word: index for index, word in enumerate(["<s>", "</s>", "<unk>", *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    if prepends_bos:
        backend.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def save(folder: Path, model: transformers.PreTrainedModel, **dtypes: Any) -> str:
    """Write a model without tokenizer and return the folder's name."""
    model.to(**dtypes).save_pretrained(folder)
    return str(folder)


def write_gguf(file: Path) -> Path:
    """Write :func:`llama` as a GGUF file, unquantised and without tokenizer."""
    model = llama()
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        n_heads = next((heads[part] for part in heads if part in name), None)
        values = tensor if n_heads is None else _interleave_rotary(tensor, n_heads)
        writer.add_tensor(names.get_name(name, (".weight",)) or name, values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def token_ids() -> torch.Tensor:
    """Return two prompts of nine tokens, longer than the sliding window."""
    return torch.randint(0, D_VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))


def _sizes() -> dict[str, Any]:
    return {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "vocab_size": D_VOCAB,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }


def _interleave_rotary(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Order a projection's rows as GGUF has them: each rotated pair side by side."""
    rows, columns = weight.shape
    halves = weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _make(kind: Any, config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from zero, so that a lost part shows
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model
