"""Two circuits part by part: what only one of them has, and what a part does in each.

Circuits are folded onto what both tell, as in :mod:`queries.compare`. The queries
``circuit-differences`` and ``circuit-differences-of-components`` answer the same in the graph,
nothing folded but positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from statistics import median
from typing import TYPE_CHECKING, Literal

from queries.compare import compare
from queries.figures import empty_figure
from registry.identifiers import parse_local, parse_node_key, sort_key
from registry.records import Circuit, Sign

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from registry.registry import Registry

__all__ = ["Counts", "Differences", "PartDifference", "Where", "count", "differences"]

Where = Literal["a", "b", "both"]
"""Which of two circuits have a part: only the first, only the second, both."""

_COLOURS: Mapping[Where, str] = {"a": "#d9822b", "b": "#5b6bb5", "both": "#0b6e75"}
_LEGEND: Mapping[Where, str] = {"a": "only in a", "b": "only in b", "both": "in both"}


@dataclass(frozen=True, slots=True)
class PartDifference:
    """A component or connection of either circuit, and what it does in each.

    Attributes:
        name: With its model.
        where: Which of the circuits have it.
        effect_a: Effect in a, summed over positions and what was folded together; None where a does
            not have it or does not say.
        effect_b: Effect in b.
        rank_a: Best rank in a, 1 for the strongest; None also for what was renamed by folding.
        rank_b: Best rank in b.
        sign_turned: Whether it helps in one and hurts in the other; None where that is unknown.
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
        """Effect in b less that in a; None where one of them is unknown."""
        if self.effect_a is None or self.effect_b is None:
            return None
        return self.effect_b - self.effect_a

    @property
    def strength(self) -> float:
        """The larger size of both effects; 0 where none is known."""
        return max(abs(self.effect_a or 0.0), abs(self.effect_b or 0.0))


@dataclass(frozen=True, slots=True)
class Counts:
    """How many parts two circuits have, and have in common."""

    n_a: int
    n_b: int
    both: int
    only_a: int
    only_b: int
    sign_turned: int


@dataclass(frozen=True, repr=False)
class Differences:
    """Two circuits of one model part by part.

    Attributes:
        a: Id of the first.
        b: Id of the second.
        model: Their model.
        connections: Connections of either; what both have first, then the strongest.
        components: Components of either, in the same order.
        notes: What makes effects or parts differ besides the circuits themselves.
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
        """Effect of each connection in b against that in a; 0 where one does not have it.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        figure = empty_figure(5.6, 5.2)
        axes = figure.subplots()
        for where in _COLOURS:
            parts = [one for one in self.connections if one.where == where]
            axes.scatter(
                [one.effect_a or 0.0 for one in parts],
                [one.effect_b or 0.0 for one in parts],
                s=14,
                color=_COLOURS[where],
                alpha=0.7,
                label=f"{_LEGEND[where]} ({len(parts)})",
            )
        # A few edges outweigh all others by far: beyond the median size, scales are logarithmic.
        sizes = [abs(e) for one in self.connections for e in (one.effect_a, one.effect_b) if e]
        largest, middle = (max(sizes), median(sizes)) if sizes else (1.0, 1.0)
        for set_scale in (axes.set_xscale, axes.set_yscale):
            set_scale("symlog", linthresh=middle)
        reach = (-1.3 * largest, 1.3 * largest)
        axes.plot(reach, reach, color="#aab4bf", linewidth=0.8, zorder=0)
        axes.set_xlim(reach)
        axes.set_ylim(reach)
        axes.set_xlabel(f"effect in a ({self.a[:12]})")
        axes.set_ylabel(f"effect in b ({self.b[:12]})")
        axes.legend(frameon=False, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"Connections of two circuits in {self.model}", fontsize=10)
        return figure


def differences(registry: Registry, a: str, b: str) -> Differences:
    """Put two circuits beside each other, part by part.

    Args:
        registry: Where they are.
        a: Id of one, or its first digits.
        b: Of the other.

    Raises:
        NotFound: There is no such circuit.
        BadInput: They lie in different models.
    """
    one, other = registry.circuit(a).circuit, registry.circuit(b).circuit
    models = {model.slug: model for model in registry.ledger.models()}
    # What compare refuses as unsound does not stop a list of parts; it is named like the rest.
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
                _node_effects(one, compared.folded_a.components),
                _node_effects(other, compared.folded_b.components),
            ),
            (_node_ranks(one), _node_ranks(other)),
            signed=signed,
        ),
        notes=compared.differences,
    )


def count(parts: Iterable[PartDifference]) -> Counts:
    """Count what two circuits have, and have in common."""
    known = list(parts)
    both, only_a, only_b = (
        sum(one.where == where for one in known) for where in ("both", "a", "b")
    )
    turned = sum(bool(one.sign_turned) for one in known)
    return Counts(both + only_a, both + only_b, both, only_a, only_b, turned)


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
    """Best rank of each connection, with its port and without."""
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


def _node_effects(circuit: Circuit, components: Iterable[str]) -> dict[str, float | None]:
    """Effect of each component, summed over positions; None for what was renamed by folding."""
    found: dict[str, float | None] = dict.fromkeys(components)
    for node in circuit.nodes:
        name = str(parse_node_key(node.key)[0])
        if name in found and node.effect is not None:
            found[name] = node.effect + (found[name] or 0.0)
    return found
