"""The null of layers: the same number of parts or edges of each group, at random within layers.

The number that two such circuits share is hypergeometric in each group, and known exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from queries.chance.chance import Chance, of_distribution
from registry.identifiers import Kind, Local, parse_connection, parse_local
from registry.records import Model

__all__ = ["by_layer_and_kind", "edges_by_layers", "layer_and_kind", "n_parts", "parts_by_chance"]

_Group = TypeVar("_Group")
_Layered = tuple[int | None, str]
_Layers = tuple[_Layered, _Layered, str | None]


def parts_by_chance(a: Collection[str], b: Collection[str], model: Model) -> Chance | None:
    """Compare two circuits' shared parts with random parts of the same layers and kinds.

    Args:
        a: Local names of one circuit's parts.
        b: Local names of the other circuit's parts.
        model: Gives how many parts of each kind a layer has.

    Returns:
        Exact values; None if the number of parts to choose from is unknown.
    """
    groups_a, groups_b = by_layer_and_kind(a), by_layer_and_kind(b)
    sizes = {group: n_parts(group[1], model) for group in groups_a.keys() | groups_b.keys()}
    return _of_groups(groups_a, groups_b, sizes, len(set(a) & set(b)))


def edges_by_layers(a: Collection[str], b: Collection[str], model: Model) -> Chance | None:
    """Compare two circuits' shared connections with those expected if only layers mattered.

    Args:
        a: Connections of one circuit.
        b: Connections of the other.
        model: Gives how many parts of each kind a layer has.

    Returns:
        Exact values; None if the number of parts to choose from is unknown.
    """
    groups_a, groups_b = _by_layers(a), _by_layers(b)
    sizes = {group: _n_edges(group, model) for group in groups_a.keys() | groups_b.keys()}
    return _of_groups(groups_a, groups_b, sizes, len(set(a) & set(b)))


def by_layer_and_kind(names: Iterable[str]) -> Counter[tuple[int | None, str]]:
    """Number of different parts of each layer and kind; norms count as kinds of part."""
    return Counter(layer_and_kind(parse_local(name)) for name in set(names))


def layer_and_kind(part: Local) -> tuple[int | None, str]:
    """The group that a random part is drawn from: its layer and kind."""
    return part.layer, part.norm or part.kind  # no shape gives the norms of a layer


def n_parts(kind: str, model: Model) -> int | None:
    """Number of parts of a kind in a layer, or in the model for parts outside layers."""
    match kind:
        case Kind.HEAD:
            return model.n_heads
        case Kind.KV_HEAD:
            return model.n_kv_heads
        case Kind.NEURON:
            return model.d_mlp
        case Kind.SUBSPACE | Kind.FEATURE | Kind.ERROR | Kind.LOGIT:
            return None
        case _:
            return 1


def _by_layers(connections: Collection[str]) -> Counter[_Layers]:
    named = (parse_connection(f"m/{name}") for name in set(connections))
    return Counter(
        (layer_and_kind(one.source), layer_and_kind(one.target), one.port) for one in named
    )


def _n_edges(group: _Layers, model: Model) -> int | None:
    """Number of edges of the model between two layers and kinds; all of them lead forward."""
    (_, source), (_, target), _ = group
    n_sources, n_targets = n_parts(source, model), n_parts(target, model)
    return None if n_sources is None or n_targets is None else n_sources * n_targets


def _of_groups(
    a: Mapping[_Group, int],
    b: Mapping[_Group, int],
    sizes: Mapping[_Group, int | None],
    n_shared: int,
) -> Chance | None:
    """Null for two circuits that each choose a given number from every group at random."""
    import numpy
    from scipy.stats import hypergeom

    probabilities = numpy.ones(1)
    for group in sorted(sizes, key=repr):  # the last digit of a product depends on its order
        size, n_a, n_b = sizes[group], a.get(group, 0), b.get(group, 0)
        if size is None or max(n_a, n_b) > size:
            return None
        if n_a and n_b:
            fewer, more = sorted((n_a, n_b))  # so that no digit depends on a pair's order
            shared = hypergeom.pmf(numpy.arange(fewer + 1), size, fewer, more)
            probabilities = numpy.convolve(probabilities, shared)
    return of_distribution(probabilities, n_shared)
