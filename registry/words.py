"""Measurements in words, for people who do not carry their definitions about with them."""

from __future__ import annotations

__all__ = ["faithfulness_in_words"]


def faithfulness_in_words(value: float, metric: str | None) -> str:
    """Say how much of a model's behaviour a circuit keeps.

    Args:
        value: Its faithfulness, ``(m(circuit) - m(empty)) / (m(full) - m(empty))``.
        metric: Name of the metric; None where it has none.

    Returns:
        A sentence without its full stop.
    """
    percent = round(100 * value)
    of = f"{percent} % of the {(metric or 'metric').replace('_', ' ')} that the whole model has"
    scale = "(0 %: everything ablated)"
    if percent > 100:
        return f"the circuit has {of} {scale}: it leaves out parts that work against it"
    if percent < 0:
        return f"the circuit has {of} {scale}: it works against it"
    return f"the circuit keeps {of} {scale}"
