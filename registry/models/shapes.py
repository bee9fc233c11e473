"""Check whether a part exists in a model, before anything is recorded about it."""

from __future__ import annotations

from collections.abc import Iterable

from registry.errors import BadIdentifier
from registry.identifiers import Kind, Local, parse_local
from registry.records import Model

__all__ = ["check_components"]


def check_components(model: Model, names: Iterable[str]) -> None:
    """Refuse local names outside a model's shape, as far as the shape is known.

    Raises:
        BadIdentifier: A layer, head, key/value head, neuron or vocabulary index is too high.
    """
    for name in names:
        local = parse_local(name)
        for what, index, count in _bounds(model, local):
            if index is not None and count is not None and index >= count:
                raise BadIdentifier(
                    f"{model.slug}/{name}", f"inside the model, which has {count} {what}"
                )


def _bounds(model: Model, local: Local) -> Iterable[tuple[str, int | None, int | None]]:
    yield "layers", local.layer, model.n_layers
    grouped = local.kind is Kind.KV_HEAD or ".kv" in (local.site or "")
    if grouped:
        yield "key/value heads", local.head, model.n_kv_heads
    else:
        yield "heads", local.head, model.n_heads
    if local.kind is Kind.NEURON:
        yield "neurons per MLP", local.index, model.d_mlp
    if local.kind is Kind.LOGIT:
        yield "vocabulary entries", local.index, model.d_vocab
