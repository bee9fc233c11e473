"""How many parts a list was chosen from, where it can be known: the list is the whole model's.

A file that lists two heads of a model of 144 does not say that there were two to choose from. Only
where what is listed is all that a model of a known shape has, of the kinds that are listed, is the
number of it the universe.
"""

from __future__ import annotations

from collections.abc import Iterable

from registry.identifiers import Kind, parse_local
from registry.records import Model

__all__ = ["whole_model"]


def whole_model(listed: Iterable[str], model: Model | None) -> int | None:
    """How many parts are listed, if they are all heads, MLPs or neurons of a model.

    Args:
        listed: Local names, each once.
        model: Its shape, as far as it is known.

    Returns:
        None where some of them are not listed, or nobody knows how many there are.
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
