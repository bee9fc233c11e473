"""Short names of models: accepted wherever a model is named, never stored."""

from __future__ import annotations

__all__ = ["MODEL_ALIASES", "resolve_component", "resolve_model"]

MODEL_ALIASES = {
    "smollm2": "smollm2-135m-instruct-q4_1",
    "gemma3": "gemma-3-270m-q4_k_m",
}


def resolve_model(name: str) -> str:
    """Return the slug of an alias, in capitals or not; other names are returned unchanged."""
    return MODEL_ALIASES.get(name.casefold(), name)


def resolve_component(text: str) -> str:
    """Resolve the model's alias at the start of a component or connection: ``smollm2/a9.h6``."""
    model, slash, rest = text.partition("/")
    return f"{resolve_model(model)}{slash}{rest}"
