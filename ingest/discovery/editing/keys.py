"""Second moments of the keys of MLPs over a text, which ROME and MEMIT weigh other facts with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.editing.projections import DownProjection, down_projection, seen
from registry.errors import BadInput
from registry.progress import OnProgress

__all__ = ["KeyMoment", "key_moments"]


@dataclass(frozen=True, eq=False)
class KeyMoment:
    """The second moment of one MLP's keys, ``E[k k^T]``, not centred.

    Attributes:
        layer: Index of the block.
        matrix: ``[d_mlp, d_mlp]``, float64, on the CPU.
        n_tokens: Number of tokens in the mean.
    """

    layer: int
    matrix: Tensor
    n_tokens: int


def key_moments(
    model: Any,
    layers: Sequence[int],
    windows: Sequence[Sequence[int]],
    *,
    progress: OnProgress | None = None,
) -> dict[int, KeyMoment]:
    """Measure the second moment of the keys of several layers in one pass over a text.

    The authors take 100,000 samples of Wikipedia for a ``d_mlp`` of 6,400 (Meng et al. 2022, arXiv
    2202.05262, appendix E.5). The matrix has full rank only with more tokens than ``d_mlp``.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        layers: Indices of blocks.
        windows: Token ids of pieces of the text, each of at most the model's context.
        progress: Called with the number of finished windows and the total.

    Raises:
        BadInput: There is no text, the model has no such layer, or a key is not finite.
        UnsupportedModel: A layer has no single down-projection.
    """
    places = [down_projection(model, layer) for layer in dict.fromkeys(layers)]
    if not any(windows):
        raise BadInput("the text for the second moment of keys is empty; give a longer text")
    sums = {one.layer: torch.zeros(one.d_mlp, one.d_mlp, dtype=torch.float64) for one in places}
    for done, window in enumerate(windows, 1):
        for place, keys in _keys_of(model, places, window):
            sums[place.layer] += keys.T @ keys
        if progress is not None:
            progress(done, len(windows))
    n_tokens = sum(map(len, windows))
    for layer, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise BadInput(f"a key of layer {layer} is not finite; use a wider dtype")
    return {layer: KeyMoment(layer, total / n_tokens, n_tokens) for layer, total in sums.items()}


def _keys_of(
    model: Any, places: Sequence[DownProjection], window: Sequence[int]
) -> Iterable[tuple[DownProjection, Tensor]]:
    """Return the keys of all tokens of a window, ``[token, d_mlp]`` in float64, by layer."""
    if not window:
        return []
    device = places[0].weight.device
    with ExitStack() as stack, torch.no_grad():
        found = [(one, stack.enter_context(seen(one.module))) for one in places]
        model(torch.tensor([list(window)], device=device))
    return [(one, pairs[0][0][0].to("cpu", torch.float64)) for one, pairs in found]
