"""How much two circuits have in common, as pure functions on sets of names.

Circuits are compared by the names of their parts, folded to the detail that both have
(:mod:`queries.circuits.folding`). There are three levels: components; edges between components;
and connections, which keep the queries, keys and values of a head separate. Settings that make the
comparison unsound are refused, or folded and noted. Overlap alone proves little: two circuits that
both contain a model's hubs overlap by chance (:mod:`queries.chance.chance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from queries.circuits.folding import (
    Folded,
    Folding,
    fold,
    heads_per_group,
    how_ports_are_told,
    node_effects,
    ports_are_told,
)
from registry.circuits.ranking import rank_correlation
from registry.errors import BadInput
from registry.identifiers import Kind, parse_local
from registry.records import Circuit, Level, Model, Sign

__all__ = ["Agreement", "Comparison", "Overlap", "compare", "overlap"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """The overlap of two sets, as counts and as shares from 0 to 1; None for shares of empty sets.

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
        """Share of the first set that the second has too."""
        return _share(self.n_shared, self.n_a)

    @property
    def share_of_b(self) -> float | None:
        """Share of the second set that the first has too."""
        return _share(self.n_shared, self.n_b)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How similar the effects of shared parts are in two circuits.

    Attributes:
        n_signed: Number of shared parts with signed effects in both circuits.
        n_same_sign: Number of these with the same sign in both; zero agrees only with zero.
        rank_correlation: Spearman correlation of the effects, or of their absolute values if signs
            are missing; -1 to 1. None if fewer than three parts have effects, or all are equal.
    """

    n_signed: int
    n_same_sign: int
    rank_correlation: float | None

    @property
    def sign_agreement(self) -> float | None:
        """Share of signed shared parts with the same sign, 0 to 1; None if there are none."""
        return _share(self.n_same_sign, self.n_signed)


@dataclass(frozen=True, repr=False)
class Comparison:
    """The comparison of two circuits of one model.

    Attributes:
        a: Id of the first circuit.
        b: Id of the second.
        folded_a: The folded first circuit, as it is compared.
        folded_b: The folded second circuit.
        components: Overlap of components.
        edges: Overlap of edges between components, regardless of the port.
        connections: Overlap of connections, with separate ports if both circuits give ports.
        universe_size: Number of edges to choose from; None if the circuits do not give it, or give
            different numbers.
        n_signed: Number of shared connections with signed effects in both circuits.
        n_same_sign: Number of these with the same sign in both; zero agrees only with zero.
        rank_correlation: Spearman correlation of the effects of shared connections, or of their
            absolute values if signs are missing; -1 to 1. None if fewer than three connections have
            effects, or all are equal.
        component_effects: Agreement of the effects of shared components; the only effects that are
            compared if a circuit has no edges.
        differences: Settings that make the comparison less sound, in words; empty if there are
            none.
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
    component_effects: Agreement
    differences: tuple[str, ...]

    def __repr__(self) -> str:
        shared = ", ".join(
            f"{found.n_shared} {of}"
            for of, found in (("components", self.components), ("connections", self.connections))
        )
        return f"<Comparison of {self.a[:12]} and {self.b[:12]}: {shared} shared>"

    @property
    def shared_components(self) -> frozenset[str]:
        """Components that both have."""
        return self.folded_a.components & self.folded_b.components

    @property
    def shared_connections(self) -> frozenset[str]:
        """Connections that both have."""
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
        """Share of signed shared connections with the same sign, 0 to 1; None if there are none."""
        return _share(self.n_same_sign, self.n_signed)


def overlap(a: Set[str], b: Set[str]) -> Overlap:
    """Count the elements that two sets share."""
    return Overlap(len(a), len(b), len(a & b))


def compare(
    a: Circuit, b: Circuit, model: Model | None = None, *, anyway: bool = False
) -> Comparison:
    """Compare two circuits of one model.

    Three differences are folded and listed in :attr:`Comparison.differences`: key/value heads that
    are counted differently, inputs of heads that one circuit merges, and a circuit of nodes
    compared with one of edges. An unknown ablation, different metrics and unknown signs are listed
    there too.

    Args:
        a: A circuit.
        b: Another.
        model: Their model, which gives how heads share keys and values.
        anyway: Compare even if the comparison would be refused, and list the reason.

    Raises:
        BadInput: The circuits belong to different models, whose parts have nothing in common. Or,
            without ``anyway``: the ablations or the levels differ, or keys and values are counted
            differently and the model does not give how heads share them.
    """
    if a.model != b.model:
        raise BadInput(
            f"circuits of different models cannot be compared: {a.id[:12]} is of {a.model}, "
            f"{b.id[:12]} of {b.model}"
        )
    unsound = _unsound(a, b, model)
    if unsound and not anyway:
        raise BadInput(
            f"circuits {a.id[:12]} and {b.id[:12]} cannot be compared: {'; '.join(unsound)}. "
            "--anyway compares them all the same"
        )
    how = _common_folding(a, b, model)
    folded_a, folded_b = fold(a, how), fold(b, how)
    signed = a.sign == b.sign == Sign.HELPS_POSITIVE
    agreement = _agreement(folded_a.effects, folded_b.effects, signed=signed)
    return Comparison(
        a=a.id,
        b=b.id,
        folded_a=folded_a,
        folded_b=folded_b,
        components=overlap(folded_a.components, folded_b.components),
        edges=overlap(folded_a.edges, folded_b.edges),
        connections=overlap(folded_a.connections, folded_b.connections),
        universe_size=a.universe_size if a.universe_size == b.universe_size else None,
        n_signed=agreement.n_signed,
        n_same_sign=agreement.n_same_sign,
        rank_correlation=agreement.rank_correlation,
        component_effects=_agreement(
            node_effects(a, folded_a.components),
            node_effects(b, folded_b.components),
            signed=signed,
        ),
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
        found.append(f"level: {a.level} in a, {b.level} in b; only components are compared")
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
        found.append(f"sign: {a.sign} in both, so the agreement of signs is unknown")
    return found


def _common_folding(a: Circuit, b: Circuit, model: Model | None) -> Folding:
    return Folding(
        ports=ports_are_told(a, b),
        heads_per_group=heads_per_group(model) if _counted_otherwise(a, b, model) else None,
        # A setting that only one of them names cannot differ in the other.
        one_input=bool(_inputs(a) and _inputs(b)) and _inputs(a) != _inputs(b),
    )


def _only_components(a: Circuit, b: Circuit) -> bool:
    """Whether one is a circuit of nodes and the other of edges; the latter has nodes as well."""
    return {a.level, b.level} == {Level.NODE, Level.EDGE}


def _counted_otherwise(a: Circuit, b: Circuit, model: Model | None) -> bool:
    """Whether keys and values are counted differently, in a model in which this matters."""
    known = a.kv_heads is not None and b.kv_heads is not None
    return known and a.kv_heads != b.kv_heads and heads_per_group(model) != 1


def _inputs(circuit: Circuit) -> str:
    names = sorted({node.component for node in circuit.nodes} & {"input", "embed", "pos_embed"})
    return " and ".join(names)


def _differing_ports(a: Circuit, b: Circuit) -> list[str]:
    in_a, in_b = how_ports_are_told(a), how_ports_are_told(b)
    if in_a == in_b == "merged" or not (in_a and in_b):
        return []
    return [f"ports of heads: {in_a} in a, {in_b} in b; connections are compared without them"]


def _agreement(
    a: Mapping[str, float | None], b: Mapping[str, float | None], *, signed: bool
) -> Agreement:
    """Compare the effects of shared parts, signed or unsigned."""
    pairs: list[tuple[float, float]] = []
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name], b[name]
        if x is not None and y is not None:
            pairs.append((x, y))
    with_signs = pairs if signed else []
    ranked = with_signs or [(abs(x), abs(y)) for x, y in pairs]
    n_same = sum(_sign(x) == _sign(y) for x, y in with_signs)
    return Agreement(len(with_signs), n_same, rank_correlation(ranked))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
