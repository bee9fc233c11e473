"""A model's weights by their names in transformers, and their hash.

TransformerLens wraps a model's parts, so names become longer and some weights appear twice. Here a
weight has only its name in the checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from ingest.discovery.model.interrupts import without_interrupts
from ingest.discovery.model.wrapping import unwrapped

__all__ = ["all_names", "hash_of_tensors", "named_weights", "weights_sha256"]

_THREADS = 4


def named_weights(model: Any) -> dict[str, nn.Parameter]:
    """Return a model's weights by name; a tied weight has only the first of its names.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
    """
    if not hasattr(model, "original_model"):
        return dict(model.named_parameters())
    with without_interrupts(), unwrapped(model) as plain:
        return dict(plain.named_parameters())


def all_names(model: Any) -> dict[str, nn.Parameter]:
    """Return a model's weights by name, with every name of a tied weight."""
    if not hasattr(model, "original_model"):
        return dict(model.named_parameters(remove_duplicate=False))
    with without_interrupts(), unwrapped(model) as plain:
        return dict(plain.named_parameters(remove_duplicate=False))


def weights_sha256(model: Any) -> str:
    """Return the hash of a model's present weights, as ``ingest.models.weights_hash`` gives it.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
    """
    return hash_of_tensors((name, weight.detach()) for name, weight in named_weights(model).items())


def hash_of_tensors(tensors: Iterable[tuple[str, Tensor]], n_threads: int = _THREADS) -> str:
    """Return the SHA-256 of the sorted lines ``name shape dtype sha256-of-bytes`` of tensors.

    Half-precision values are widened to float32 first, which is exact.
    """
    ordered = sorted(tensors, key=lambda pair: pair[0])
    with ThreadPoolExecutor(n_threads) as pool:  # hashing releases the interpreter's lock
        lines = pool.map(lambda pair: _line(*pair), ordered)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _line(name: str, tensor: Tensor) -> str:
    values = tensor.to("cpu")
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.to(torch.float32)
    # As bytes, because numpy does not support some of torch's types.
    data = values.contiguous().reshape(-1).view(torch.uint8).numpy().data
    shape = "x".join(str(size) for size in values.shape)
    dtype = str(values.dtype).removeprefix("torch.")
    return f"{name} {shape} {dtype} {hashlib.sha256(data).hexdigest()}\n"
