"""Refuses values in a config.json that no model can have, before the model is built.

transformers accepts most values without a check. If the number of positions is negative, or an
epsilon is infinite, torch reports an error later, which names neither the file nor the key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from registry.errors import BadInput

__all__ = ["require_usable_values"]

_COUNTS = frozenset(
    {
        # layers
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers",
        # heads
        "num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads",
        "decoder_attention_heads", "num_key_value_heads", "num_kv_heads", "n_head_kv",
        "kv_n_heads",
        # widths
        "hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "head_dim", "d_head",
        # tokens and positions
        "vocab_size", "max_position_embeddings", "n_positions", "max_seq_len",
    }
)  # fmt: skip
"""Keys whose value must be a number of at least 1, if it is given."""
_LIMITS = frozenset({"time_step_limit"})
"""Keys whose value may be infinite: the upper limit of a state-space model's steps."""
_TAGGED = "__float__"
"""Key with which transformers writes a number that JSON cannot: ``{"__float__": "Infinity"}``."""


def require_usable_values(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration with a value that no model can have.

    Args:
        name: Name of the model.
        config: The content of its config.json.

    Raises:
        BadInput: A count is below 1, a number is not finite, or ``architectures`` is not a list of
            names. The text names the key.
    """
    for key, value in _values(config):
        fault = _fault(key, value)
        if fault is not None:
            raise BadInput(
                f"the model {name} cannot be read: its config.json says {key}: {value!r:.80}, "
                f"{fault}"
            )


def _values(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, also ``rope_parameters.rope_theta`` and items of lists."""
    pending: list[tuple[str, Any]] = list(config.items())[::-1]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict) and value.keys() == {_TAGGED}:
            yield key, _number(value[_TAGGED])
            continue
        yield key, value
        if isinstance(value, dict):
            pending += [(f"{key}.{inner}", each) for inner, each in value.items()][::-1]
        elif isinstance(value, list):
            pending += [(f"{key}[{at}]", each) for at, each in enumerate(value)][::-1]


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def _fault(key: str, value: Any) -> str | None:
    """Return the reason why a model cannot have this value; None if it can."""
    if key == "architectures":
        return _fault_of_architectures(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    *_, last = key.split(".")
    last = last.partition("[")[0]
    if not _is_finite(value) and last not in _LIMITS:
        return "which is not a finite number"
    if last in _COUNTS and value < 1:
        return "which must be at least 1"
    return None


def _fault_of_architectures(value: Any) -> str | None:
    if value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        return None
    example = value if isinstance(value, str) else "LlamaForCausalLM"
    return f'which must be a list of names, such as ["{example}"]'


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number with hundreds of digits
        return False
