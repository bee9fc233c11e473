"""The number of parts that a list was selected from, if it is known: the whole model.

A file that lists two heads of a model with 144 heads does not say that there were two to select
from. The number of listed parts is the size of the universe only if the list has all parts of the
listed kinds in a model of known shape.
"""

from __future__ import annotations

from collections.abc import Iterable

from registry.identifiers import Kind, parse_local
from registry.records import Model

__all__ = ["whole_model"]


def whole_model(listed: Iterable[str], model: Model | None) -> int | None:
    """Return the number of listed parts, if they are all heads, MLPs or neurons of a model.

    Args:
        listed: Local names, each once.
        model: Its shape, as far as it is known.

    Returns:
        None if some of the parts are not listed, or their number is unknown.
    """
    names = set(listed)
    kinds = {parse_local(name).kind for name in names}
    if model is None or model.n_layers is None or not kinds & {Kind.HEAD, Kind.MLP, Kind.NEURON}:
        return None
    counts = {Kind.HEAD: model.n_heads, Kind.MLP: 1, Kind.NEURON: model.d_mlp}
    expected = [counts.get(kind) for kind in kinds - {Kind.INPUT, Kind.LOGITS}]
    if None in expected:
        return None
    n_ends = len(kinds & {Kind.INPUT, Kind.LOGITS})
    n_model = n_ends + model.n_layers * sum(n for n in expected if n is not None)
    return n_model if n_model == len(names) else None
