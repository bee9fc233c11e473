"""A check of weights after a model was read: missing weights and unused weights.

transformers fills missing weights with random numbers and drops unused weights, with a warning. A
weight of a part that the model has, such as a layer after the last or the bias of a matrix, belongs
to the model: without it the model is a different one. A weight of a part that the model does not
have, such as the head of a classifier or the encoder of images, does not change the computations on
a text. Buffers of old checkpoints (attention masks, rotary frequencies) are recomputed by the
current code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from registry.errors import BadInput

__all__ = ["require_whole"]

_BUFFERS = re.compile(
    r"(^|\.)(rotary\w*\..*|inv_freq|cos_cached|sin_cached|masked_bias|causal_mask|position_ids"
    r"|embed_positions(\.weights|\._float_tensor)?"
    r"|(attn|attention|self_attn|self_attention)\.bias|_extra_state|version)$"
)
_LAYER = re.compile(r"\.(\d+)\.")


def require_whole(name: str, model: Any, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse a model that lacks weights, or does not use weights of its own parts.

    Args:
        name: Name of the model.
        model: The model as transformers read it.
        found: The loading report of transformers.

    Returns:
        Weights that were dropped because the model does not have their parts; including what a
        quantiser stores in addition to weights.

    Raises:
        BadInput: It lacks weights, or dropped weights of its own parts; the text names one.
    """
    missing = sorted(found["missing_keys"])
    if missing:
        raise BadInput(
            f"the model {name} lacks {len(missing)} of its weights, such as {missing[0]!r}"
        )
    left = sorted(each for each in found["unexpected_keys"] if not _BUFFERS.search(each))
    quantised = getattr(model.config, "quantization_config", None) is not None
    own = [] if quantised else [each for each in left if _is_of(model, each)]
    if own:
        raise BadInput(
            f"the model {name} cannot be read: its config.json omits {len(own)} of the "
            f"weights in its files, such as {own[0]!r}, and without them it is another "
            "model; give the config.json of these weights"
        )
    return tuple(left)


def _is_of(model: Any, name: str) -> bool:
    """Return whether a weight belongs to a part that the model has."""
    base = model.base_model
    part = name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
    has = part in dict(base.named_children()) or part in dict(model.named_children())
    return has and not _foretells(model.config, name)


def _foretells(config: Any, name: str) -> bool:
    """Return whether it belongs to extra layers that predict later tokens; no model uses them."""
    n_more = getattr(config, "num_nextn_predict_layers", None) or 0
    layer = _LAYER.search(name)
    first = config.num_hidden_layers
    return layer is not None and first <= int(layer[1]) < first + n_more
