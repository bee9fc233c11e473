"""A run that starts at a block, from a residual stream that is known already.

Blocks below the lowest changed part have the same output in every run, so they need not be computed
again. The model runs as usual, but these blocks return their input, and the first block that is
computed reads the kept stream. Masks, rotary embeddings and the embedding of the tokens are
computed again; this costs little time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.model.anatomy import Anatomy, Hook
from ingest.discovery.model.sites import stream_hook

__all__ = ["Shapes", "read_shapes", "run_from"]

Shapes = tuple[int, ...]
"""Number of values in each block's returned tuple; 0 if it returns only the stream."""


def read_shapes(model: Any, anatomy: Anatomy, tokens: Tensor) -> Shapes:
    """Run prompts ``[batch, pos]`` and record what each block returns."""
    found = [0] * len(anatomy.blocks)
    with ExitStack() as stack, torch.no_grad():
        for layer, block in enumerate(model.blocks):
            handle = block.register_forward_hook(_noting(found, layer))
            stack.callback(handle.remove)
        anatomy.run(model, tokens, [])
    return tuple(found)


def run_from(
    model: Any,
    anatomy: Anatomy,
    tokens: Tensor,
    hooks: Sequence[tuple[str, Hook]],
    *,
    layer: int,
    stream: Tensor,
    shapes: Shapes,
) -> Tensor:
    """Run prompts from a block on; return the last logits ``[batch, word]``.

    Args:
        model: Frozen.
        anatomy: Anatomy of the model.
        tokens: Token ids ``[batch, pos]``.
        hooks: Hooks of the run; hooks of blocks below ``layer`` are not called.
        layer: The first block that is computed. If it is the number of blocks, only the last norm
            and the logits are computed.
        stream: Its input, ``[batch, pos, d_model]``. It may have fewer prompts, if ``tokens``
            repeats these prompts.
        shapes: Return values of blocks, from :func:`read_shapes`.
    """
    times = len(tokens) // len(stream)

    def start(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        return stream.to(value.device).repeat(times, 1, 1).reshape(value.shape)

    with _skipped(model, shapes[:layer]):
        return anatomy.run(model, tokens, [(stream_hook(anatomy, layer), start), *hooks])


@contextmanager
def _skipped(model: Any, shapes: Shapes) -> Iterator[None]:
    """Make the first blocks return their input."""
    with ExitStack() as stack:
        for block, n_returned in zip(model.blocks, shapes, strict=False):
            own = vars(block)
            before = {key: own[key] for key in ("forward",) if key in own}
            own["forward"] = _passing_on(n_returned)
            stack.callback(own.update, before)
            stack.callback(own.pop, "forward")  # called first
        yield


def _passing_on(n_returned: int) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        stream = args[0] if args else kwargs["hidden_states"]
        return (stream, *[None] * (n_returned - 1)) if n_returned else stream

    return forward


def _noting(found: list[int], layer: int) -> Any:
    def note(block: object, args: object, output: object) -> None:  # noqa: ARG001
        found[layer] = len(output) if isinstance(output, tuple) else 0

    return note
