"""How a record is merged with a stored one that has fewer or different facts."""

from __future__ import annotations

from typing import TypeVar

from registry.canonical import content_hash
from registry.errors import IncompatibleModel
from registry.records import Model, Record

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
"""Fields that make two models different if both give a value."""


def fill_in(stored: R, given: R) -> R:
    """The stored record, with fields that only the given record has; other fields stay."""
    said = {
        name: getattr(given, name)
        for name in type(stored).model_fields
        if getattr(stored, name) in (None, "") and getattr(given, name) is not None
    }
    return stored.model_copy(update=said)


def merge_models(stored: Model, given: Model) -> Model:
    """Like :func:`fill_in`, for models of one shape and the same weights.

    ``parallel_attn_mlp`` has no value for "unknown"; a source that sets it knows it.

    Raises:
        IncompatibleModel: They are two models; the message gives another slug for the given one.
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
