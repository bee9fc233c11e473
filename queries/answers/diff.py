"""The differences of two circuits: parts that only one has, and the effect of a part in each.

Circuits are folded to the detail that both have, like in :mod:`queries.answers.overlap`. The
queries ``circuit-differences`` and ``circuit-differences-of-components`` answer the same question
in the graph, where only positions are folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal

from queries.answers.overlap import compare
from queries.circuits.folding import node_effects
from registry.identifiers import parse_local, sort_key
from registry.records import Circuit, Sign
from registry.rows import Rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from registry.registry import Registry

__all__ = ["Counts", "Differences", "PartDifference", "Where", "count", "differences"]

Where = Literal["a", "b", "both"]
"""Which of two circuits have a part: only the first, only the second, or both."""


@dataclass(frozen=True, slots=True)
class PartDifference:
    """A component or connection of either circuit, and its effect in each.

    Attributes:
        name: With its model.
        where: Which of the circuits have it.
        effect_a: Effect in a, summed over positions and over what was folded together; None if a
            does not have it or does not give its effect.
        effect_b: Effect in b.
        rank_a: Best rank in a, 1 for the strongest; None also for parts that folding renamed.
        rank_b: Best rank in b.
        sign_turned: Whether it helps in one and hurts in the other; None if that is unknown.
    """

    name: str
    where: Where
    effect_a: float | None
    effect_b: float | None
    rank_a: int | None
    rank_b: int | None
    sign_turned: bool | None

    @property
    def change(self) -> float | None:
        """Effect in b minus effect in a; None if one of them is unknown."""
        if self.effect_a is None or self.effect_b is None:
            return None
        return self.effect_b - self.effect_a

    @property
    def strength(self) -> float:
        """The larger absolute value of both effects; 0 if none is known."""
        return max(abs(self.effect_a or 0.0), abs(self.effect_b or 0.0))


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of parts that two circuits have, and share."""

    n_a: int
    n_b: int
    both: int
    only_a: int
    only_b: int
    sign_turned: int


@dataclass(frozen=True, repr=False)
class Differences:
    """The differences of two circuits of one model.

    Attributes:
        a: Id of the first.
        b: Id of the second.
        model: Their model.
        connections: Connections of either circuit; shared ones first, then the strongest.
        components: Components of either circuit, in the same order.
        notes: Other reasons why effects or parts differ, such as the metric.
    """

    a: str
    b: str
    model: str
    connections: tuple[PartDifference, ...]
    components: tuple[PartDifference, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"<Differences of {self.a[:12]} and {self.b[:12]}: {len(self.connections)} connections "
            f"and {len(self.components)} components of either>"
        )

    def parts(self, only: str | None = None) -> dict[str, Rows]:
        """The parts, by the titles of ``circuits diff --format json``.

        Args:
            only: ``a``, ``b`` or ``both``: keep only parts of these; the summary counts all parts.
        """
        both = {"connections": self.connections, "components": self.components}
        counts = [{"of": of, **asdict(count(parts))} for of, parts in both.items()]
        summary = Rows(tuple(counts[0]), tuple(tuple(one.values()) for one in counts))
        return {
            "summary": summary,
            **{of: _rows(of.removesuffix("s"), parts, only) for of, parts in both.items()},
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row for each component and each connection."""
        import pandas as pd

        names = [field.name for field in fields(PartDifference)]
        rows = [
            {"of": of, **{name: getattr(one, name) for name in names}, "change": one.change}
            for of, parts in (("connection", self.connections), ("component", self.components))
            for one in parts
        ]
        return pd.DataFrame(rows, columns=["of", *names, "change"])

    def plot(self) -> Figure:
        """Plot the effect of each connection in b against that in a; 0 if it is not in a circuit.

        For circuits without edges, plot the effects of components.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from queries.plots.diff import figure_of_differences

        return figure_of_differences(self)


def differences(registry: Registry, a: str, b: str) -> Differences:
    """List the differences of two circuits, part by part.

    Args:
        registry: The open registry.
        a: Id of one, or its first digits.
        b: Id of the other, or its first digits.

    Raises:
        NotFound: There is no such circuit.
        BadInput: They belong to different models.
    """
    one, other = registry.circuit(a).circuit, registry.circuit(b).circuit
    models = {model.slug: model for model in registry.ledger.models()}
    # What compare refuses as unsound does not prevent a list of parts; it is noted like the rest.
    compared = compare(one, other, models.get(one.model), anyway=True)
    signed = one.sign == other.sign == Sign.HELPS_POSITIVE
    return Differences(
        a=one.id,
        b=other.id,
        model=one.model,
        connections=_parts(
            one.model,
            (compared.folded_a.effects, compared.folded_b.effects),
            (_edge_ranks(one), _edge_ranks(other)),
            signed=signed,
        ),
        components=_parts(
            one.model,
            (
                node_effects(one, compared.folded_a.components),
                node_effects(other, compared.folded_b.components),
            ),
            (_node_ranks(one), _node_ranks(other)),
            signed=signed,
        ),
        notes=compared.differences,
    )


def count(parts: Iterable[PartDifference]) -> Counts:
    """Count the parts that two circuits have, and share."""
    known = list(parts)
    both, only_a, only_b = (
        sum(one.where == where for one in known) for where in ("both", "a", "b")
    )
    turned = sum(bool(one.sign_turned) for one in known)
    return Counts(both + only_a, both + only_b, both, only_a, only_b, turned)


def _rows(what: str, parts: Iterable[PartDifference], only: str | None) -> Rows:
    columns = ("where", "effect_a", "effect_b", "change", "sign_turned", "rank_a", "rank_b")
    return Rows(
        (what, *columns),
        tuple(
            (one.name, *(getattr(one, name) for name in columns))
            for one in parts
            if only is None or one.where == only
        ),
    )


_Effects = Mapping[str, float | None]
_Ranks = Mapping[str, int]


def _parts(
    model: str, effects: tuple[_Effects, _Effects], ranks: tuple[_Ranks, _Ranks], *, signed: bool
) -> tuple[PartDifference, ...]:
    in_a, in_b = effects
    parts = [
        PartDifference(
            name=f"{model}/{name}",
            where="both" if name in in_a and name in in_b else "a" if name in in_a else "b",
            effect_a=in_a.get(name),
            effect_b=in_b.get(name),
            rank_a=ranks[0].get(name),
            rank_b=ranks[1].get(name),
            sign_turned=_turned(in_a.get(name), in_b.get(name)) if signed else None,
        )
        for name in in_a.keys() | in_b.keys()
    ]
    return tuple(sorted(parts, key=_order))


def _order(part: PartDifference) -> tuple[object, ...]:
    source = part.name.partition("/")[2].partition("->")[0]
    return part.where != "both", -part.strength, sort_key(parse_local(source)), part.name


def _turned(in_a: float | None, in_b: float | None) -> bool | None:
    return None if in_a is None or in_b is None else in_a * in_b < 0


def _edge_ranks(circuit: Circuit) -> dict[str, int]:
    """Best rank of each connection, with and without its port."""
    found: dict[str, int] = {}
    for edge in circuit.edges:
        if edge.rank is not None:
            for name in (edge.connection, edge.connection.partition("<")[0]):
                found[name] = min(edge.rank, found.get(name, edge.rank))
    return found


def _node_ranks(circuit: Circuit) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in circuit.nodes:
        if node.rank is not None:
            found[node.component] = min(node.rank, found.get(node.component, node.rank))
    return found
