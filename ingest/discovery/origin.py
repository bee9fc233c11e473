"""What scores came from, so that a circuit chosen from them can say how it was found; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["VERSION", "Origin", "known_name"]

VERSION = "2"
"""Of the arithmetic; part of what a circuit's id is made of."""

_GRADIENT = {
    "eap": "clean",
    "eap-ig-inputs": "between inputs",
    "eap-ig-activations": "between activations",
    "clean-corrupted": "clean and corrupt",
    "exact": "none",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """How the edges of a model were scored.

    Attributes:
        model: Name the model goes by; None where it has none.
        method: Where gradients were taken, as :func:`ingest.discovery.attribute_edges` names it.
        steps: Of integrated gradients; None where nothing was integrated.
        ablation: What senders wrote instead.
        kv_heads: ``grouped`` or ``per-query-head``.
        metric: Its name; None where it has none.
    """

    model: str | None
    method: str
    steps: int | None
    ablation: str
    kv_heads: str
    metric: str | None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What scores depend on besides model, prompts, metric, ablation and key/value heads."""
        found = {
            "method": self.method,
            "gradient": _GRADIENT[self.method],
            "positions": "summed",
            "version": VERSION,
        }
        return found if self.steps is None else {**found, "steps": self.steps}

    def __str__(self) -> str:
        steps = "" if self.steps is None else f" in {self.steps} steps"
        return f"{self.method}{steps}, {self.ablation}"


def known_name(model: Any) -> str | None:
    """What a bridge's model is called; None where only its architecture is known."""
    name: str | None = getattr(model.cfg, "model_name", None)
    return None if name == getattr(model.cfg, "architecture", None) else name
