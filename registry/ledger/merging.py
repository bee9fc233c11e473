"""What becomes of a record that is stored already and comes again saying more, or otherwise."""

from __future__ import annotations

from typing import TypeVar

from registry.errors import IncompatibleModel
from registry.records import Model, Record, content_hash

__all__ = ["fill_in", "merge_models"]

R = TypeVar("R", bound=Record)

_IDENTITY = (
    "weights_sha256",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "d_model",
    "d_head",
    "d_mlp",
    "d_vocab",
)
"""What makes a model another one where both sides say it."""


def fill_in(stored: R, given: R) -> R:
    """The stored record with what only the given one says; what both say stays as it was."""
    said = {
        name: getattr(given, name)
        for name in type(stored).model_fields
        if getattr(stored, name) in (None, "") and getattr(given, name) is not None
    }
    return stored.model_copy(update=said)


def merge_models(stored: Model, given: Model) -> Model:
    """As :func:`fill_in`, for models of one shape and the same weights.

    ``parallel_attn_mlp`` has no value for "unknown"; whoever says so knows.

    Raises:
        IncompatibleModel: They are two models; the text names another slug for the given one.
    """
    differing = [
        name
        for name in _IDENTITY
        if None not in (getattr(stored, name), getattr(given, name))
        and getattr(stored, name) != getattr(given, name)
    ]
    if differing:
        first = differing[0]
        raise IncompatibleModel(
            f"{stored.slug!r} is stored with {first} {getattr(stored, first)},"
            f" not {getattr(given, first)}; record this one as {_other_slug(given)!r}"
        )
    parallel = stored.parallel_attn_mlp or given.parallel_attn_mlp
    return fill_in(stored, given).model_copy(update={"parallel_attn_mlp": parallel})


def _other_slug(given: Model) -> str:
    base, _, revision = given.slug.partition("@")
    digest = given.weights_sha256 or content_hash([getattr(given, name) for name in _IDENTITY])
    short = digest[:8]
    return f"{base}@{short if short != revision else digest[:16]}"
