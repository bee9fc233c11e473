"""What two circuits share by chance, under several nulls, and how far each can be trusted.

A found circuit has hubs, and so has any other of the model, so two circuits share many edges
whatever their tasks. A null that ignores this calls everything significant.

**Degrees.** Every sender and every receiver port keeps its number of edges in its circuit, and only
who feeds whom is drawn anew, in both circuits (:mod:`queries.nulls`). This is exactly right where
an edge is in a circuit independently of the others, with odds that are a product of its sender's
and its receiver's. It is too eager where hubs are saturated: a strong hub's edges to other strong
hubs are then certain to be in any circuit, which is no sign that tasks are alike, and the degrees
alone do not say it. :func:`saturation` tells how much of that there is.

**Hubs.** The same on average where hubs do saturate, as they do when edges are taken by weight
(:mod:`queries.saturating`).

**Layers.** Effects are permuted among all edges of the model between the same two layers and kinds
of part, into the same port; as many of each sort are chosen as in the found circuits. What two such
circuits share is hypergeometric in each sort, and known exactly. It keeps no hub apart from MLPs,
input and logits, of which a layer has one.

The weakest of these conclusions is the one to report. Degrees would fix a circuit's components, so
components have the null of layers alone: any heads of the same layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

from queries.nulls import Draws, draw_circuits, ends_of
from registry.identifiers import Kind, Local, can_feed, parse_connection, parse_local
from registry.records import Model

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = [
    "Chance",
    "by_layer_and_kind",
    "corrected",
    "edges_by_layers",
    "n_parts",
    "of_distribution",
    "parts_by_chance",
    "saturation",
    "shared_by_chance",
    "shared_by_draws",
]

_ROUNDING = 1e-12
_HUBS_HOLD = 0.5


@dataclass(frozen=True, slots=True)
class Chance:
    """How much two circuits would share if they were as like the found ones as the null says.

    Attributes:
        n_shared: How much they do share.
        expected: Mean of the null.
        low: 2.5 % of the null lie below.
        high: 2.5 % lie above.
        z: Standard deviations from ``expected`` to ``n_shared``; None where the null leaves but one
            value.
        p: Share of the null that shares at least as many. Of draws the found pair is counted as
            one, ``(b + 1) / (n + 1)``, so that it is never 0 (Phipson & Smyth 2010, arXiv
            1603.05766).
        n_draws: Pairs of circuits drawn; None where the probabilities are known exactly.
    """

    n_shared: int
    expected: float
    low: float
    high: float
    z: float | None
    p: float
    n_draws: int | None


def shared_by_chance(
    a: Collection[str],
    b: Collection[str],
    n: int,
    seed: int,
    *,
    parallel_attn_mlp: bool = False,
) -> Chance:
    """Compare what two circuits share with what pairs of draws of both share: the null of degrees.

    Args:
        a: Connections of one circuit.
        b: Connections of the other.
        n: Pairs to draw.
        seed: Equal seeds give equal numbers.
        parallel_attn_mlp: Attention and MLP of a block read the same input.

    Raises:
        BadInput: As from :func:`queries.nulls.draw_circuits`.
    """
    drawn_a, drawn_b = (
        draw_circuits(circuit, n, [seed, side], parallel_attn_mlp=parallel_attn_mlp)
        for side, circuit in enumerate((a, b))
    )
    return shared_by_draws(len(set(a) & set(b)), drawn_a, drawn_b)


def shared_by_draws(n_shared: int, a: Draws, b: Draws) -> Chance:
    """The same with draws that are there already, such as those of many pairs.

    Args:
        n_shared: Connections that the found circuits share.
        a: Draws of one, independent of those of the other.
        b: As many of the other.
    """
    import numpy

    shared = a.n_shared(b)
    low, high = numpy.quantile(shared, (0.025, 0.975))
    expected, spread = float(shared.mean()), float(shared.std())
    return Chance(
        n_shared=n_shared,
        expected=expected,
        low=float(low),
        high=float(high),
        z=(n_shared - expected) / spread if spread else None,
        p=(int((shared >= n_shared).sum()) + 1) / (len(shared) + 1),
        n_draws=len(shared),
    )


def parts_by_chance(a: Collection[str], b: Collection[str], model: Model) -> Chance | None:
    """Compare what two circuits share with what random parts of the same layers and kinds share.

    Args:
        a: Local names of one circuit's parts.
        b: Of the other's.
        model: Says how many parts of each kind a layer has.

    Returns:
        Exact figures; None where it is unknown how many there are to choose from.
    """
    groups_a, groups_b = by_layer_and_kind(a), by_layer_and_kind(b)
    sizes = {group: n_parts(group[1], model) for group in groups_a.keys() | groups_b.keys()}
    return _of_groups(groups_a, groups_b, sizes, len(set(a) & set(b)))


def edges_by_layers(a: Collection[str], b: Collection[str], model: Model) -> Chance | None:
    """Compare what two circuits share with what they would if only layers mattered.

    Args:
        a: Connections of one circuit.
        b: Connections of the other.
        model: Says how many parts of each kind a layer has.

    Returns:
        Exact figures; None where it is unknown how many there are to choose from.
    """
    groups_a, groups_b = _by_layers(a), _by_layers(b)
    sizes = {group: _n_edges(group, model) for group in groups_a.keys() | groups_b.keys()}
    return _of_groups(groups_a, groups_b, sizes, len(set(a) & set(b)))


def corrected(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for how many there are: of those below .05, 5 % are expected to be false.

    Benjamini & Hochberg 1995, as ``scipy.stats.false_discovery_control``, which takes half a second
    to load.
    """
    import numpy

    n = len(p_values)
    largest_first = numpy.argsort(p_values)[::-1]
    each = numpy.asarray(p_values, dtype=numpy.float64)[largest_first] * n / numpy.arange(n, 0, -1)
    adjusted = numpy.empty(n)
    adjusted[largest_first] = numpy.minimum.accumulate(each)
    found: list[float] = adjusted.tolist()
    return found


def by_layer_and_kind(names: Iterable[str]) -> Counter[tuple[int | None, Kind]]:
    """How many different parts there are of each layer and kind."""
    return Counter(_group(parse_local(name)) for name in set(names))


def n_parts(kind: Kind, model: Model) -> int | None:
    """How many parts of a kind a layer has, or the model where they are in no layer."""
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


def saturation(connections: Collection[str], *, parallel_attn_mlp: bool = False) -> float | None:
    """Share of all edges between a circuit's hubs that it has, 0 to 1.

    Hubs are the busiest senders, and receiver ports, that together hold half of its edges, and all
    that are as busy as the last of them. Near 1, edges between hubs are certain in any circuit of
    this size, and the null of degrees is too eager. None where no hub can feed another.
    """
    ends = {ends_of(connection) for connection in connections}
    senders = _hubs(Counter(sender for sender, _ in ends))
    receivers = _hubs(Counter(receiver for _, receiver in ends))
    possible = [
        (sender, receiver)
        for sender in senders
        for receiver in receivers
        if _may_feed(sender, receiver, parallel_attn_mlp=parallel_attn_mlp)
    ]
    return sum(edge in ends for edge in possible) / len(possible) if possible else None


_Group = TypeVar("_Group")
_Layered = tuple[int | None, Kind]
_Layers = tuple[_Layered, _Layered, str | None]


def _group(part: Local) -> _Layered:
    return part.layer, part.kind


def _by_layers(connections: Collection[str]) -> Counter[_Layers]:
    named = (parse_connection(f"m/{name}") for name in set(connections))
    return Counter((_group(one.source), _group(one.target), one.port) for one in named)


def _n_edges(group: _Layers, model: Model) -> int | None:
    """How many edges the model has between two layers and kinds; all of them lead forward."""
    (_, source), (_, target), _ = group
    n_sources, n_targets = n_parts(source, model), n_parts(target, model)
    return None if n_sources is None or n_targets is None else n_sources * n_targets


def _of_groups(
    a: Mapping[_Group, int],
    b: Mapping[_Group, int],
    sizes: Mapping[_Group, int | None],
    n_shared: int,
) -> Chance | None:
    """What is shared where of each group so many are chosen at random, in both alike."""
    import numpy
    from scipy.stats import hypergeom

    probabilities = numpy.ones(1)
    for group in sorted(sizes, key=repr):  # the order of a product decides its last digit
        size, n_a, n_b = sizes[group], a.get(group, 0), b.get(group, 0)
        if size is None or max(n_a, n_b) > size:
            return None
        if n_a and n_b:
            fewer, more = sorted((n_a, n_b))  # so that a pair's order changes no digit either
            shared = hypergeom.pmf(numpy.arange(fewer + 1), size, fewer, more)
            probabilities = numpy.convolve(probabilities, shared)
    return of_distribution(probabilities, n_shared)


def of_distribution(probabilities: NDArray[numpy.float64], n_shared: int) -> Chance:
    """Exact figures from how likely it is to share 0, 1, 2, ... and how many are shared."""
    import numpy

    values = numpy.arange(len(probabilities))
    expected = float(values @ probabilities)
    variance = float((values - expected) ** 2 @ probabilities)
    low, high = numpy.searchsorted(probabilities.cumsum(), (0.025, 0.975))
    return Chance(
        n_shared=n_shared,
        expected=expected,
        low=float(low),
        high=float(min(high, values[-1])),
        z=(n_shared - expected) / variance**0.5 if variance > _ROUNDING else None,
        p=min(1.0, float(probabilities[n_shared:].sum())),
        n_draws=None,
    )


def _hubs(degrees: Counter[str]) -> list[str]:
    """The busiest that hold half of all edges; of equals all, whatever they are called."""
    ordered = sorted(degrees.values(), reverse=True)
    enough = (held >= _HUBS_HOLD * degrees.total() for held in accumulate(ordered))
    least = next((degree for degree, reached in zip(ordered, enough, strict=True) if reached), 0)
    return [name for name, degree in degrees.items() if degree >= least]


def _may_feed(sender: str, receiver: str, *, parallel_attn_mlp: bool) -> bool:
    named = parse_connection(f"m/{sender}->{receiver}")
    return can_feed(named.source, named.target, named.port, parallel_attn_mlp=parallel_attn_mlp)
