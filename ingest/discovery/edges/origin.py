"""The origin of scores, so that a circuit selected from them can record it; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["VERSION", "Origin", "known_name"]

VERSION = "2"
"""Version of the computation; part of the content that determines a circuit's id."""

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
        model: Name of the model; None if it has none.
        method: Where gradients were computed, as :func:`ingest.discovery.attribute_edges` names it.
        steps: Steps of integrated gradients; None without integration.
        ablation: What senders wrote instead.
        kv_heads: ``grouped`` or ``per-query-head``.
        metric: Its name; None if it has none.
    """

    model: str | None
    method: str
    steps: int | None
    ablation: str
    kv_heads: str
    metric: str | None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return parameters of scores, besides model, prompts, metric, ablation and k/v heads."""
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
    """Return the name of a bridge's model; None if only its architecture is known."""
    name: str | None = getattr(model.cfg, "model_name", None)
    return None if name == getattr(model.cfg, "architecture", None) else name
