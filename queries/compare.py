"""How much two circuits have in common: pure functions on sets of names.

Circuits are compared by the names of their parts, folded onto what both tell
(:mod:`queries.folding`), at three levels: components, edges between components, and connections,
which tell the queries, keys and values of a head apart. What would make the comparison unsound is
refused, or folded and named. Overlap alone proves little: two circuits that both hold a model's
busiest heads overlap by chance (:mod:`queries.chance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queries.folding import (
    Folded,
    Folding,
    fold,
    heads_per_group,
    how_ports_are_told,
    ports_are_told,
)
from registry.errors import BadInput
from registry.identifiers import Kind, parse_local
from registry.ranking import rank_correlation
from registry.records import Circuit, Level, Model, Sign

if TYPE_CHECKING:
    pass

__all__ = ["Comparison", "Overlap", "compare", "overlap"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two sets share, as counts and as shares from 0 to 1; None for a share of nothing.

    Attributes:
        n_a: Size of the first.
        n_b: Size of the second.
        n_shared: Size of their intersection.
    """

    n_a: int
    n_b: int
    n_shared: int

    @property
    def iou(self) -> float | None:
        """Intersection over union."""
        return _share(self.n_shared, self.n_a + self.n_b - self.n_shared)

    @property
    def iom(self) -> float | None:
        """Intersection over the smaller set."""
        return _share(self.n_shared, min(self.n_a, self.n_b))

    @property
    def share_of_a(self) -> float | None:
        """Part of the first that the second has too."""
        return _share(self.n_shared, self.n_a)

    @property
    def share_of_b(self) -> float | None:
        """Part of the second that the first has too."""
        return _share(self.n_shared, self.n_b)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two circuits of one model beside each other.

    Attributes:
        a: Id of the first circuit.
        b: Id of the second.
        folded_a: What of the first is compared.
        folded_b: What of the second is.
        components: Overlap of components.
        edges: Overlap of edges between components, whatever the port.
        connections: Overlap of connections, ports told apart where both circuits tell them.
        universe_size: How many edges there are to choose from; None where the circuits do not say,
            or not the same.
        n_signed: Shared connections whose effect both circuits give, with a sign.
        n_same_sign: How many of them have the same sign in both; zero agrees with zero alone.
        rank_correlation: Spearman's, of the effects of shared connections, or of their sizes where
            a sign is missing; -1 to 1. None where fewer than three have one, or all are equal.
        differences: What makes the comparison less than sound, in words; empty where nothing does.
    """

    a: str
    b: str
    folded_a: Folded
    folded_b: Folded
    components: Overlap
    edges: Overlap
    connections: Overlap
    universe_size: int | None
    n_signed: int
    n_same_sign: int
    rank_correlation: float | None
    differences: tuple[str, ...]

    def __repr__(self) -> str:
        shared = ", ".join(
            f"{found.n_shared} {of}"
            for of, found in (("components", self.components), ("connections", self.connections))
        )
        return f"<Comparison of {self.a[:12]} and {self.b[:12]}: {shared} shared>"

    @property
    def shared_components(self) -> frozenset[str]:
        """Components of both."""
        return self.folded_a.components & self.folded_b.components

    @property
    def shared_connections(self) -> frozenset[str]:
        """Connections of both."""
        return self.folded_a.connections & self.folded_b.connections

    def of_kind(self, kind: Kind) -> Overlap:
        """Overlap of the components of one kind, such as heads."""
        a, b = (
            frozenset(name for name in folded.components if parse_local(name).kind is kind)
            for folded in (self.folded_a, self.folded_b)
        )
        return overlap(a, b)

    @property
    def sign_agreement(self) -> float | None:
        """Share of signed shared connections that act alike, 0 to 1; None where there are none."""
        return _share(self.n_same_sign, self.n_signed)


def overlap(a: Set[str], b: Set[str]) -> Overlap:
    """Count what two sets share."""
    return Overlap(len(a), len(b), len(a & b))


def compare(
    a: Circuit, b: Circuit, model: Model | None = None, *, anyway: bool = False
) -> Comparison:
    """Put two circuits of one model beside each other.

    Key/value heads that are counted otherwise, inputs of heads that one circuit merges, and a
    circuit of nodes beside one of edges are folded and named in :attr:`Comparison.differences`, as
    are an unknown ablation, another metric and unknown signs.

    Args:
        a: A circuit.
        b: Another.
        model: Theirs, which says how heads share keys and values.
        anyway: Compare what would be refused, and name it.

    Raises:
        BadInput: The circuits lie in different models, whose parts have nothing in common; or, and
            not ``anyway``, parts were ablated otherwise or are of other levels, or keys and values
            are counted otherwise and the model does not say how heads share them.
    """
    if a.model != b.model:
        raise BadInput(
            f"circuits of different models do not compare: {a.id[:12]} lies in {a.model}, "
            f"{b.id[:12]} in {b.model}"
        )
    unsound = _unsound(a, b, model)
    if unsound and not anyway:
        raise BadInput(
            f"circuits {a.id[:12]} and {b.id[:12]} do not compare: {'; '.join(unsound)}. "
            "--anyway compares them nevertheless"
        )
    how = _common_folding(a, b, model)
    folded_a, folded_b = fold(a, how), fold(b, how)
    pairs = _effect_pairs(folded_a, folded_b)
    signed = pairs if a.sign == b.sign == Sign.HELPS_POSITIVE else []
    ranked = signed or [(abs(x), abs(y)) for x, y in pairs]
    return Comparison(
        a=a.id,
        b=b.id,
        folded_a=folded_a,
        folded_b=folded_b,
        components=overlap(folded_a.components, folded_b.components),
        edges=overlap(folded_a.edges, folded_b.edges),
        connections=overlap(folded_a.connections, folded_b.connections),
        universe_size=a.universe_size if a.universe_size == b.universe_size else None,
        n_signed=len(signed),
        n_same_sign=sum(_sign(x) == _sign(y) for x, y in signed),
        rank_correlation=rank_correlation(ranked),
        differences=(*unsound, *_folded_differences(a, b, model), *_named_differences(a, b)),
    )


# -- differences -----------------------------------------------------------------------------------


def _unsound(a: Circuit, b: Circuit, model: Model | None) -> list[str]:
    found = []
    if a.level != b.level and not _only_components(a, b):
        found.append(f"level: {a.level} in a, {b.level} in b")
    if _counted_otherwise(a, b, model) and heads_per_group(model) is None:
        found.append(
            f"kv heads: {a.kv_heads} in a, {b.kv_heads} in b, and how heads of {a.model} share keys"
            " and values is unknown"
        )
    if a.ablation != b.ablation and a.ablation is not None and b.ablation is not None:
        found.append(f"ablation: {a.ablation} in a, {b.ablation} in b")
    return found


def _folded_differences(a: Circuit, b: Circuit, model: Model | None) -> list[str]:
    found = []
    if _only_components(a, b):
        found.append(f"level: {a.level} in a, {b.level} in b; only components compare")
    if _counted_otherwise(a, b, model) and heads_per_group(model) is not None:
        found.append(f"kv heads: {a.kv_heads} in a, {b.kv_heads} in b; folded onto the model's own")
    if not ports_are_told(a, b):
        found += _differing_ports(a, b)
    if _inputs(a) != _inputs(b) and _inputs(a) and _inputs(b):
        found.append(
            f"input: {_inputs(a)} in a, {_inputs(b)} in b; embed and pos_embed count as input"
        )
    return found


def _named_differences(a: Circuit, b: Circuit) -> list[str]:
    found = []
    if a.metric != b.metric:
        found.append(f"metric: {a.metric or 'unknown'} in a, {b.metric or 'unknown'} in b")
    if a.ablation != b.ablation and None in (a.ablation, b.ablation):
        found.append(f"ablation: {a.ablation or 'unknown'} in a, {b.ablation or 'unknown'} in b")
    if (a.kv_heads is None) != (b.kv_heads is None):
        found.append(f"kv heads: {a.kv_heads or 'unknown'} in a, {b.kv_heads or 'unknown'} in b")
    if a.sign != b.sign:
        found.append(f"sign: {a.sign} in a, {b.sign} in b")
    elif a.sign is not Sign.HELPS_POSITIVE:
        found.append(f"sign: {a.sign} in both, so that agreement of signs cannot be told")
    return found


def _common_folding(a: Circuit, b: Circuit, model: Model | None) -> Folding:
    return Folding(
        ports=ports_are_told(a, b),
        heads_per_group=heads_per_group(model) if _counted_otherwise(a, b, model) else None,
        one_input=_inputs(a) != _inputs(b),
    )


def _only_components(a: Circuit, b: Circuit) -> bool:
    """Whether one is a circuit of nodes and the other one of edges, whose nodes it has as well."""
    return {a.level, b.level} == {Level.NODE, Level.EDGE}


def _counted_otherwise(a: Circuit, b: Circuit, model: Model | None) -> bool:
    """Whether keys and values are counted otherwise, and that matters in this model."""
    told = a.kv_heads is not None and b.kv_heads is not None
    return told and a.kv_heads != b.kv_heads and heads_per_group(model) != 1


def _inputs(circuit: Circuit) -> str:
    names = sorted({node.component for node in circuit.nodes} & {"input", "embed", "pos_embed"})
    return " and ".join(names)


def _differing_ports(a: Circuit, b: Circuit) -> list[str]:
    in_a, in_b = how_ports_are_told(a), how_ports_are_told(b)
    if in_a == in_b == "merged" or not (in_a and in_b):
        return []
    return [f"ports of heads: {in_a} in a, {in_b} in b; connections compare without them"]


def _effect_pairs(a: Folded, b: Folded) -> list[tuple[float, float]]:
    names = sorted(a.connections & b.connections)
    pairs: list[tuple[float, float]] = []
    of_a: Mapping[str, float | None] = a.effects
    for name in names:
        x, y = of_a[name], b.effects[name]
        if x is not None and y is not None:
            pairs.append((x, y))
    return pairs


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
