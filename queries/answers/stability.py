"""How much circuits of one task agree, over prompts or over methods.

Circuits are put into *groups*: a group's circuits differ in their prompts alone. Within a group,
how much two circuits overlap says how far a circuit depends on the prompts that happened to be
drawn; nothing can be expected to share more with another task than these do with each other.
Between groups, it says how far it depends on the method. Beside overlaps stand how often each
connection is found, and the *consensus*: the connections that are found often enough. Circuits
without edges, of nodes, neurons, subspaces, features or parameters, are compared over components.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any

from queries.circuits.candidates import By, Candidates, candidates
from queries.circuits.recurrence import (
    FrequentComponent,
    FrequentConnection,
    FrequentPart,
    Over,
    Recurrence,
    frequent_parts,
    recurrence,
)
from queries.circuits.replicates import Alike
from registry.errors import BadInput
from registry.texts.words import listed

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from registry.registry import Registry
    from registry.rows import Parts

__all__ = [
    "By",
    "FoundAgain",
    "Group",
    "Over",
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
    """Overlap of pairs of circuits: shared parts over all parts of the two, 0 to 1."""

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
        prompt_set: Prompts it was found on; None if the record does not say.
        prompt_seed: What they were drawn with.
        n_parts: How many connections it has, or components.
        faithfulness: Latest on its own task.
    """

    circuit: str
    group: int
    prompt_set: str | None
    prompt_seed: int | None
    n_parts: int
    faithfulness: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Circuits that were found the same way.

    Attributes:
        number: From 1, the largest group first.
        way: How.
        n_circuits: How many circuits.
        overlaps: Of all pairs of them; None for a single circuit.
        n_parts: Connections that any of them has, or components.
        n_in_all: Those that all of them have.
        n_consensus: Those that are found often enough.
    """

    number: int
    way: Alike
    n_circuits: int
    overlaps: Overlaps | None
    n_parts: int
    n_in_all: int
    n_consensus: int


@dataclass(frozen=True, slots=True)
class RecordedConsensus:
    """A consensus that a job recorded as a separate circuit.

    Attributes:
        circuit: Its id.
        n_parts: How many connections it has, or components.
        n_circuits: Over how many circuits it was taken; None if it does not say.
        share: Share of them that its edges are in; None if it does not say.
        mean_overlap: Mean overlap of these circuits, as the job measured it.
    """

    circuit: str
    n_parts: int
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
        over: Whether connections are compared, or components.
        share: From which share on a connection or component belongs to the consensus.
        circuits: All of them, group by group.
        groups: How they were found.
        iou: Overlap of any two circuits, ``[circuit][circuit]``, in the order of ``circuits``.
        between: Overlaps of pairs from two groups, by the groups' numbers.
        frequent: The connections or components. By seeds, those of every group of several; by
            methods, over all groups. The most frequent first.
        recorded: What jobs recorded as a consensus.
        notes: Notes that the reader must know.
    """

    task: str
    model: str
    by: By
    over: Over
    share: float
    circuits: tuple[FoundAgain, ...]
    groups: tuple[Group, ...]
    iou: tuple[tuple[float, ...], ...]
    between: Mapping[tuple[int, int], Overlaps]
    frequent: tuple[FrequentPart, ...]
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
    def connections(self) -> tuple[FrequentConnection, ...]:
        """The connections; none where components are compared."""
        return tuple(one for one in self.frequent if isinstance(one, FrequentConnection))

    @property
    def components(self) -> tuple[FrequentComponent, ...]:
        """The components; none where connections are compared."""
        return tuple(one for one in self.frequent if isinstance(one, FrequentComponent))

    @property
    def consensus(self) -> tuple[FrequentPart, ...]:
        """The connections or components that are found often enough."""
        return tuple(one for one in self.frequent if one.share >= self.share - _ROUNDING)

    @property
    def overlaps(self) -> Overlaps | None:
        """Overlaps of the requested pairs: within groups, or between them."""
        same = self.by == "seeds"
        groups = [one.group for one in self.circuits]
        return _overlaps(
            self.iou[i][j]
            for i, j in itertools.combinations(range(len(groups)), 2)
            if (groups[i] == groups[j]) is same
        )

    def parts(self) -> Parts:
        """The whole answer, by the titles of ``circuits stability --format json``."""
        from queries.answers.stability_rows import parts_of

        return parts_of(self)

    def to_frame(self) -> pandas.DataFrame:
        """One row for each connection or component, the most frequent first."""
        import pandas as pd

        columns = [_PART[self.over], *(field.name for field in fields(FrequentPart))]
        rows = [[getattr(one, name) for name in columns] for one in self.frequent]
        return pd.DataFrame(rows, columns=columns)

    def plot(self) -> Figure:
        """Plot the overlap of any two circuits, next to how often parts are found.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from queries.plots.stability import stability_figure

        return stability_figure(self)


_PART: Mapping[Over, str] = {"connections": "connection", "components": "component"}


def stability(
    registry: Registry,
    task: str,
    *,
    model: str | None = None,
    method: str | None = None,
    by: By = "seeds",
    share: float = SHARE,
    over: Over | None = None,
) -> Stability:
    """Compare the active circuits of a task with each other.

    Args:
        registry: The open registry.
        task: Their task.
        model: Only circuits of this model. Needed where the task has circuits that can be compared
            in several: such as were found the same way, or, by methods and where none were, any
            two.
        method: Only circuits found by this method.
        by: Whether connections are counted within groups or over all of them.
        share: From which share of circuits on a part belongs to the consensus, 0 to 1.
        over: What is compared. Where it is left to the circuits: connections, or components where
            no two of them have edges.

    Raises:
        NotFound: No task or model has that name.
        BadInput: The task has circuits to compare in several models, or fewer than two in any.
        GraphError: The graph cannot be read.
    """
    if not 0 < share <= 1:
        raise BadInput(f"a share of circuits must be above 0 and at most 1; got {share}")
    mine = candidates(registry, task, model=model, method=method, by=by, over=over)
    ways, compared = mine.ways, mine.compared
    if len(compared) < 2:
        which = "circuits with edges" if mine.over == "connections" else "circuits"
        raise BadInput(
            f"stability compares {which}, two or more; {task} has {len(compared)}"
            + (f" of method {method}" if method else "")
            + "".join(f"; {note}" for note in _copies(ways))
        )
    counted = recurrence(registry, *_read_together(ways, by), over=mine.over)
    groups = _groups(ways, counted, share)
    return Stability(
        task=task,
        model=mine.model,
        by=by,
        over=mine.over,
        share=share,
        circuits=_circuits(registry, ways, compared, counted),
        groups=groups,
        iou=_in_order(ways, counted),
        between=_between(ways, counted),
        frequent=_frequent(ways, counted, by),
        recorded=tuple(_recorded(registry, row["circuit"], mine.over) for row in mine.recorded),
        notes=(*mine.notes, *_over_notes(mine, asked=over), *_notes(ways, compared, counted, by)),
    )


def _read_together(ways: Sequence[Alike], by: By) -> list[list[str]]:
    """Circuits over which effects are averaged: those of each group, or all by methods.

    Groups of a single circuit come last, together.
    """
    if by == "methods":
        return [[id for way in ways for id in way.circuits]]
    several = [list(way.circuits) for way in ways if len(way.circuits) > 1]
    alone = [way.circuits[0] for way in ways if len(way.circuits) == 1]
    return [*several, alone] if alone else several


def _in_order(ways: Sequence[Alike], counted: Recurrence) -> tuple[tuple[float, ...], ...]:
    """Overlaps of any two circuits, group by group, independent of the order of reading."""
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
                n_parts=int((counts > 0).sum()),
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
            n_parts=sizes[id],
            faithfulness=known[id]["faithfulness"],
        )
        for number, way in enumerate(ways, start=1)
        for id in way.circuits
    )


def _frequent(ways: Sequence[Alike], counted: Recurrence, by: By) -> tuple[FrequentPart, ...]:
    import numpy

    found: list[FrequentPart] = []
    if by == "methods":
        shares = [counted.counts(way.circuits) / len(way.circuits) for way in ways]
        mean = numpy.mean(shares, axis=0).tolist()
        found += frequent_parts(counted.groups[0], counted.over, mean)
    else:
        several = (at for at, way in enumerate(ways, start=1) if len(way.circuits) > 1)
        for number, rows in zip(several, counted.groups, strict=False):
            found += frequent_parts(rows, counted.over, group=number)
    return tuple(sorted(found, key=lambda one: (-one.share, one.group or 0, one.name)))


def _recorded(registry: Registry, circuit: str, over: Over) -> RecordedConsensus:
    stored = registry.circuit(circuit)
    content = stored.circuit
    measured = [one.value for one in stored.evaluations if one.measure == _OVERLAP]
    connections = {edge.connection for edge in content.edges}
    components = {node.component for node in content.nodes}
    return RecordedConsensus(
        circuit=circuit,
        n_parts=len(connections if over == "connections" else components),
        n_circuits=content.parameters.get("circuits"),
        share=(content.selection or {}).get("frequency"),
        mean_overlap=measured[-1] if measured else None,
    )


def _over_notes(mine: Candidates, *, asked: Over | None) -> Iterator[str]:
    """What has to be said of what the circuits are compared over."""
    if mine.over == "connections":
        if mine.n_left_out:
            yield (
                f"circuits without edges are omitted: {mine.n_left_out}; --over components"
                " compares them too"
            )
        return
    if mine.n_left_out:
        yield f"circuits without nodes are omitted: {mine.n_left_out}"
    if asked is None:
        yield "no two circuits have edges; compared over components"
    levels = sorted({way.level for way in mine.ways})
    if len(levels) > 1:
        yield f"the circuits differ in level: {', '.join(levels)}; each has parts of its own kind"


def _notes(
    ways: Sequence[Alike], rows: Sequence[Mapping[str, Any]], counted: Recurrence, by: By
) -> Iterator[str]:
    if n_repeated := sum(way.n_repeated for way in ways):
        yield f"circuits found the same way on the same prompts are omitted: {n_repeated}"
    yield from _copies(ways)
    unknown = sum(row["prompt_set"] is None for row in rows)
    if unknown and len(ways) < len(rows):
        yield f"circuits whose prompts are not recorded: {unknown}; they are treated as different"
    if not counted.ports:
        yield (
            "some circuits merge the inputs of heads; connections are counted without ports in all"
        )
    grouping = {way.kv_heads for way in ways}
    if counted.over == "connections" and {"grouped", "per-query-head"} <= grouping:
        yield (
            "some groups count keys and values by query head, others as the model has them; where "
            "heads share them, connections into these cannot match"
        )
    if by == "seeds" and all(len(way.circuits) == 1 for way in ways):
        yield "no two circuits were found the same way; compare them by methods instead"
    if by == "methods" and len(ways) == 1:
        yield "all circuits were found the same way; compare them by seeds instead"


def _copies(ways: Sequence[Alike]) -> Iterator[str]:
    copies = [f"{copy[:12]} of {of[:12]}" for way in ways for copy, of in way.copies.items()]
    if copies:
        yield (
            "circuits whose prompts are not recorded and that otherwise equal another one are "
            f"omitted as copies: {listed(copies)}"
        )
