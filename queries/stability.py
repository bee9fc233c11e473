"""How much circuits of one task agree: those found the same way on other prompts, or another way.

Circuits are put into *groups*: a group's circuits differ in their prompts alone. Within a group,
how much two circuits overlap says how far a circuit depends on the prompts that happened to be
drawn; nothing can be expected to share more with another task than these do with each other.
Between groups, it says how far it depends on the method. Beside overlaps stand how often each
connection is found, and the *consensus*: the connections that are found often enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any

from queries.alike import Alike
from queries.candidates import By, candidates
from queries.recurrence import (
    FrequentConnection,
    Recurrence,
    frequent_connections,
    recurrence,
)
from registry.errors import BadInput

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from registry.registry import Registry

__all__ = [
    "By",
    "FoundAgain",
    "Group",
    "Overlaps",
    "RecordedConsensus",
    "Stability",
    "stability",
]

SHARE = 0.5
_OVERLAP = "edge_overlap"
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Overlap of pairs of circuits: shared connections over all connections of the two, 0 to 1."""

    n_pairs: int
    mean: float
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True)
class FoundAgain:
    """A circuit and the group it belongs to.

    Attributes:
        circuit: Its id.
        group: Number of its group, from 1.
        prompt_set: Prompts it was found on; None where the record does not say.
        prompt_seed: What they were drawn with.
        n_connections: How many connections it has.
        faithfulness: Latest on its own task.
    """

    circuit: str
    group: int
    prompt_set: str | None
    prompt_seed: int | None
    n_connections: int
    faithfulness: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Circuits that were found the same way.

    Attributes:
        number: From 1, the largest group first.
        way: How.
        n_circuits: How many circuits.
        overlaps: Of all pairs of them; None for a single circuit.
        n_connections: Connections that any of them has.
        n_in_all: Connections that all of them have.
        n_consensus: Connections that are found often enough.
    """

    number: int
    way: Alike
    n_circuits: int
    overlaps: Overlaps | None
    n_connections: int
    n_in_all: int
    n_consensus: int


@dataclass(frozen=True, slots=True)
class RecordedConsensus:
    """A consensus that a job recorded as a circuit of its own.

    Attributes:
        circuit: Its id.
        n_connections: How many edges it has.
        n_circuits: Over how many circuits it was taken; None where it does not say.
        share: Share of them that its edges are in; None where it does not say.
        mean_overlap: Mean overlap of these circuits, as the job measured it.
    """

    circuit: str
    n_connections: int
    n_circuits: int | None
    share: float | None
    mean_overlap: float | None


@dataclass(frozen=True, repr=False)
class Stability:
    """How circuits of one task agree.

    Attributes:
        task: The task.
        model: The model they lie in.
        by: What connections were counted by.
        share: From which share on a connection belongs to the consensus.
        circuits: All of them, group by group.
        groups: How they were found.
        iou: Overlap of any two circuits, ``[circuit][circuit]``, in the order of ``circuits``.
        between: Overlaps of pairs from two groups, by the groups' numbers.
        connections: By seeds, those of every group of several; by methods, over all groups. The
            most frequent first.
        recorded: What jobs recorded as a consensus.
        notes: What a reader has to know.
    """

    task: str
    model: str
    by: By
    share: float
    circuits: tuple[FoundAgain, ...]
    groups: tuple[Group, ...]
    iou: tuple[tuple[float, ...], ...]
    between: Mapping[tuple[int, int], Overlaps]
    connections: tuple[FrequentConnection, ...]
    recorded: tuple[RecordedConsensus, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        found = self.overlaps
        overlap = "" if found is None else f", mean overlap {found.mean:.3g} by {self.by}"
        return (
            f"<Stability of {self.task} in {self.model}: {len(self.circuits)} circuits in "
            f"{len(self.groups)} groups{overlap}>"
        )

    @property
    def consensus(self) -> tuple[FrequentConnection, ...]:
        """The connections that are found often enough."""
        return tuple(one for one in self.connections if one.share >= self.share)

    @property
    def overlaps(self) -> Overlaps | None:
        """Overlaps of the pairs that are asked for: within groups, or between them."""
        same = self.by == "seeds"
        groups = [one.group for one in self.circuits]
        return _overlaps(
            self.iou[i][j]
            for i, j in itertools.combinations(range(len(groups)), 2)
            if (groups[i] == groups[j]) is same
        )

    def to_frame(self) -> pandas.DataFrame:
        """One row for each connection that was counted, the most frequent first."""
        import pandas as pd

        return pd.DataFrame(
            [[getattr(one, name) for name in _COLUMNS] for one in self.connections],
            columns=list(_COLUMNS),
        )

    def plot(self) -> Figure:
        """A map of the overlap of any two circuits, beside how often connections are found.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from queries.stability_figure import stability_figure

        return stability_figure(self)


_COLUMNS = tuple(field.name for field in fields(FrequentConnection))


def stability(
    registry: Registry,
    task: str,
    *,
    model: str | None = None,
    method: str | None = None,
    by: By = "seeds",
    share: float = SHARE,
) -> Stability:
    """Compare the active circuits of a task with each other.

    Args:
        registry: Where they are.
        task: Their task.
        model: Only circuits of this model. Needed where the task has circuits that can be compared
            in several: such as were found the same way, or, by methods and where none were, any
            two with edges.
        method: Only circuits found by this method.
        by: Whether connections are counted within groups or over all of them.
        share: From which share of circuits on a connection belongs to the consensus, 0 to 1.

    Raises:
        NotFound: No task or model goes by that name.
        BadInput: The task has circuits to compare in several models, or fewer than two with edges.
        GraphError: The graph cannot be read.
    """
    if not 0 < share <= 1:
        raise BadInput(f"a share of circuits lies above 0 and at 1 or below, not at {share}")
    mine = candidates(registry, task, model=model, method=method, by=by)
    ways, with_edges = mine.ways, mine.with_edges
    if len(with_edges) < 2:
        raise BadInput(
            f"stability compares circuits with edges, two or more; {task} has {len(with_edges)}"
            + (f" of method {method}" if method else "")
        )
    counted = recurrence(registry, *_read_together(ways, by))
    groups = _groups(ways, counted, share)
    return Stability(
        task=task,
        model=mine.model,
        by=by,
        share=share,
        circuits=_circuits(registry, ways, with_edges, counted),
        groups=groups,
        iou=_in_order(ways, counted),
        between=_between(ways, counted),
        connections=_connections(ways, counted, by),
        recorded=tuple(_recorded(registry, row["circuit"]) for row in mine.recorded),
        notes=(*mine.notes, *_notes(ways, with_edges, mine.n_without_edges, counted, by)),
    )


def _read_together(ways: Sequence[Alike], by: By) -> list[list[str]]:
    """Circuits over which effects are means: each group's, or, by methods, all there are.

    Circuits on their own come last, in one go.
    """
    if by == "methods":
        return [[id for way in ways for id in way.circuits]]
    several = [list(way.circuits) for way in ways if len(way.circuits) > 1]
    alone = [way.circuits[0] for way in ways if len(way.circuits) == 1]
    return [*several, alone] if alone else several


def _in_order(ways: Sequence[Alike], counted: Recurrence) -> tuple[tuple[float, ...], ...]:
    """Overlaps of any two circuits, group by group, in whatever order they were read."""
    places = counted.places(id for way in ways for id in way.circuits)
    return tuple(tuple(counted.iou[row][column] for column in places) for row in places)


def _groups(ways: Sequence[Alike], counted: Recurrence, share: float) -> tuple[Group, ...]:
    iou = counted.iou
    found = []
    for number, way in enumerate(ways, start=1):
        counts, n = counted.counts(way.circuits), len(way.circuits)
        places = counted.places(way.circuits)
        found.append(
            Group(
                number=number,
                way=way,
                n_circuits=n,
                overlaps=_overlaps(iou[i][j] for i, j in itertools.combinations(places, 2)),
                n_connections=int((counts > 0).sum()),
                n_in_all=int((counts == n).sum()),
                n_consensus=int((counts >= share * n - _ROUNDING).sum()),
            )
        )
    return tuple(found)


def _between(ways: Sequence[Alike], counted: Recurrence) -> Mapping[tuple[int, int], Overlaps]:
    iou = counted.iou
    places = [counted.places(way.circuits) for way in ways]
    found = {}
    for one, other in itertools.combinations(range(len(ways)), 2):
        pairs = itertools.product(places[one], places[other])
        overlaps = _overlaps(iou[i][j] for i, j in pairs)
        if overlaps is not None:
            found[one + 1, other + 1] = overlaps
    return found


def _overlaps(values: Iterable[float]) -> Overlaps | None:
    known = list(values)
    return Overlaps(len(known), fmean(known), min(known), max(known)) if known else None


def _circuits(
    registry: Registry,
    ways: Sequence[Alike],
    rows: Sequence[Mapping[str, Any]],
    counted: Recurrence,
) -> tuple[FoundAgain, ...]:
    seeds = {prompts.id: prompts.seed for prompts in registry.ledger.prompt_sets()}
    known = {row["circuit"]: row for row in rows}
    sizes = dict(zip(counted.circuits, counted.present.sum(1).tolist(), strict=True))
    return tuple(
        FoundAgain(
            circuit=id,
            group=number,
            prompt_set=known[id]["prompt_set"],
            prompt_seed=seeds.get(known[id]["prompt_set"]),
            n_connections=sizes[id],
            faithfulness=known[id]["faithfulness"],
        )
        for number, way in enumerate(ways, start=1)
        for id in way.circuits
    )


def _connections(
    ways: Sequence[Alike], counted: Recurrence, by: By
) -> tuple[FrequentConnection, ...]:
    import numpy

    found: list[FrequentConnection] = []
    if by == "methods":
        shares = [counted.counts(way.circuits) / len(way.circuits) for way in ways]
        found += frequent_connections(counted.groups[0], numpy.mean(shares, axis=0).tolist())
    else:
        several = (at for at, way in enumerate(ways, start=1) if len(way.circuits) > 1)
        for number, rows in zip(several, counted.groups, strict=False):
            found += frequent_connections(rows, group=number)
    return tuple(sorted(found, key=lambda one: (-one.share, one.group or 0, one.connection)))


def _recorded(registry: Registry, circuit: str) -> RecordedConsensus:
    stored = registry.circuit(circuit)
    content = stored.circuit
    measured = [one.value for one in stored.evaluations if one.measure == _OVERLAP]
    return RecordedConsensus(
        circuit=circuit,
        n_connections=len({edge.connection for edge in content.edges}),
        n_circuits=content.parameters.get("circuits"),
        share=(content.selection or {}).get("frequency"),
        mean_overlap=measured[-1] if measured else None,
    )


def _notes(
    ways: Sequence[Alike],
    rows: Sequence[Mapping[str, Any]],
    n_without_edges: int,
    counted: Recurrence,
    by: By,
) -> Iterator[str]:
    if n_without_edges:
        yield f"circuits without edges are left out: {n_without_edges}"
    if n_repeated := sum(way.n_repeated for way in ways):
        yield f"circuits found the same way on the same prompts are left out: {n_repeated}"
    unknown = sum(row["prompt_set"] is None for row in rows)
    if unknown and len(ways) < len(rows):
        yield f"circuits whose prompts are not recorded: {unknown}; they are taken for different"
    if not counted.ports:
        yield "some circuits merge the inputs of heads; connections count without ports in all"
    if {"grouped", "per-query-head"} <= {way.kv_heads for way in ways}:
        yield (
            "some groups count keys and values by query head, others as the model has them; where "
            "heads share them, connections into these do not meet"
        )
    if by == "seeds" and all(len(way.circuits) == 1 for way in ways):
        yield "no two circuits were found the same way; compare them by methods instead"
    if by == "methods" and len(ways) == 1:
        yield "all circuits were found the same way; compare them by seeds instead"
