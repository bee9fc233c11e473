"""What discovery asks of its callers: a metric, and maybe somebody who watches progress."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from registry.errors import BadInput

__all__ = ["Metric", "Progress", "per_prompt"]

Metric = Callable[[Tensor, Tensor], Tensor]
"""``metric(logits[batch, word], index[batch]) -> [batch]``.

One number per prompt from the logits at its last real position. ``index`` says which prompts these
are, counted from 0 in the order in which they were given; it lies on the CPU.
"""

Progress = Callable[[int, int], None]
"""``progress(done, total)``, in prompts, after each batch."""


def per_prompt(metric: Metric, logits: Tensor, index: Tensor) -> Tensor:
    """Call a metric and check that it gives one number per prompt.

    Raises:
        BadInput: It gives something else.
    """
    values = metric(logits, index)
    if not isinstance(values, Tensor) or values.shape != index.shape:
        found = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise BadInput(f"the metric must give one number per prompt, [{len(index)}]; got {found}")
    return values
