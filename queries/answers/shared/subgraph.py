"""What several tasks share: the subgraph that a minimum number of them use, and specific parts.

A task uses what any of its chosen circuits uses (:mod:`queries.circuits.choosing`). Parts are
compared by name, with positions folded away. A path inside the shared subgraph can therefore join
parts that act at different positions. The tasks that use all connections of a path are given with
it.

How much two circuits share depends mainly on their sizes and on the model's hubs. This module
describes what is shared; ``circuits compare`` tests whether it is more than chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from queries.answers.shared.parts import (
    SharedComponent,
    SharedConnection,
    Used,
    components_of,
    connections_of,
)
from queries.answers.shared.routes import (
    Route,
    connected_parts,
    count_routes,
    group_links,
    strongest_routes,
)
from queries.circuits.choosing import Chosen, Which, choose_circuits
from queries.circuits.folding import shared_key_group
from registry.errors import BadInput
from registry.identifiers import Kind, parse_local, ports_of, sort_key
from registry.records import CircuitState, Sign

if TYPE_CHECKING:
    import networkx
    import pandas
    from matplotlib.figure import Figure

    from registry.ledger.base import CircuitEntry
    from registry.registry import Registry
    from registry.rows import Rows

__all__ = ["Part", "SharedSubgraph", "Specific", "shared_subgraph"]

_MAX_PATHS = 10
_SETTINGS = ("level", "metric", "ablation")


@dataclass(frozen=True, slots=True, repr=False)
class Specific:
    """The parts that only one task uses, the strongest first."""

    components: tuple[SharedComponent, ...]
    connections: tuple[SharedConnection, ...]

    def __repr__(self) -> str:
        return (
            f"<Specific: {len(self.components)} components and {len(self.connections)} connections>"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Part:
    """Components that are connected by shared connections and links to query heads.

    Attributes:
        components: Local names, in the order in which the model runs them.
        n_connections: Number of shared connections in it.
        n_paths: Number of paths through it from input to logits.
    """

    components: tuple[str, ...]
    n_connections: int
    n_paths: int

    def __repr__(self) -> str:
        return (
            f"<Part of {len(self.components)} components and {self.n_connections} connections, "
            f"{self.n_paths} paths>"
        )


@dataclass(frozen=True, repr=False)
class SharedSubgraph:
    """The parts that at least ``min_tasks`` of some tasks use, in one model.

    Attributes:
        model: The model.
        tasks: The tasks, in the order given.
        min_tasks: Number of tasks that must use a part.
        chosen: The circuits that represent the tasks.
        circuits: These circuits, task by task.
        components: Shared components, the most used first, then the strongest.
        connections: Shared connections, in the same order.
        unique: The parts specific to each task; None if not requested.
        heads_per_group: Query heads that read one key/value head; None if each has its own.
        notes: Notes that the reader must know.
    """

    model: str
    tasks: tuple[str, ...]
    min_tasks: int
    chosen: Chosen
    circuits: tuple[CircuitEntry, ...]
    components: tuple[SharedComponent, ...]
    connections: tuple[SharedConnection, ...]
    unique: Mapping[str, Specific] | None
    heads_per_group: int | None
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"<SharedSubgraph in {self.model}: {len(self.components)} components and "
            f"{len(self.connections)} connections of {self.min_tasks} or more of "
            f"{len(self.tasks)} tasks>"
        )

    @cached_property
    def links(self) -> tuple[tuple[str, str], ...]:
        """Shared key/value heads with the shared query heads that read them; not connections."""
        return group_links([one.name for one in self.components], self.heads_per_group)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The connected parts, the largest first; isolated components are omitted."""
        graph = self._graph
        found = []
        for names in connected_parts(graph):
            inside = graph.subgraph(names)
            n_links = sum(source in names for source, _ in self.links)
            n_connections = inside.number_of_edges() - n_links
            if n_connections:  # heads joined only by links have only their position in common
                ordered = sorted(names, key=lambda name: sort_key(parse_local(name)))
                found.append(Part(tuple(ordered), n_connections, count_routes(inside)))
        return tuple(found)

    @cached_property
    def paths(self) -> tuple[Route, ...]:
        """The strongest paths from input to logits, at most ten; :attr:`n_paths` counts all."""
        return strongest_routes(self._graph, _MAX_PATHS)

    @property
    def n_paths(self) -> int:
        """Number of paths from input to logits over shared connections."""
        return sum(part.n_paths for part in self.parts)

    def strength_of(self, path: Route) -> float | None:
        """Strength of a path's weakest connection; None if one of its strengths is unknown."""
        strengths = {one.name: one.strength for one in self.connections}
        known = [strengths[name] for name in path.connections]
        return None if None in known else path.strength

    def tasks_of(self, path: Route) -> tuple[str, ...]:
        """Tasks that use every connection of a path, so that they contain the whole path."""
        uses = {one.name: one.uses for one in self.connections}
        return tuple(
            task for task in self.tasks if all(task in uses[name] for name in path.connections)
        )

    def to_networkx(self) -> networkx.MultiDiGraph[str]:
        """Make the shared subgraph; the key of an edge is its port, ``""``, or ``"link"``.

        Nodes are local names with the attributes ``component``, ``kind``, ``layer``, ``n_tasks``,
        ``strength``, ``signs_agree``, ``roles`` and ``effects``, by task. Edges have
        ``connection``, ``port`` and the same numbers. A link has no connection and no numbers.
        Unknown strengths are None.
        """
        import networkx as nx

        graph: networkx.MultiDiGraph[str] = nx.MultiDiGraph(
            model=self.model, tasks=self.tasks, min_tasks=self.min_tasks
        )
        for part in self.components:
            graph.add_node(
                part.name, component=f"{self.model}/{part.name}", kind=part.kind,
                layer=part.layer, roles=part.roles, **_numbers(part),
            )  # fmt: skip
        for one in self.connections:
            graph.add_edge(
                one.source, one.target, key=one.port or "", connection=one.name, port=one.port,
                **_numbers(one),
            )  # fmt: skip
        for source, target in self.links:
            graph.add_edge(source, target, key="link", connection=None, port=None)
        return graph

    @cached_property
    def _graph(self) -> networkx.MultiDiGraph[str]:
        # Callers get a copy: a change of this graph would change the paths.
        return self.to_networkx()

    def to_rows(self, of: str = "connections") -> Rows:
        """Give one part of the answer as rows.

        Args:
            of: ``circuits``, ``components``, ``connections``, ``parts``, ``paths``, and if
                requested ``unique components`` and ``unique connections``.

        Raises:
            BadInput: There is no such part.
        """
        from queries.answers.shared.rows import rows_of

        return rows_of(self, of)

    def to_frame(self, of: str = "connections") -> pandas.DataFrame:
        """Give one part of the answer as a frame; see :meth:`to_rows`."""
        return self.to_rows(of).to_frame()

    def plot(self, max_edges: int = 60) -> Figure:
        """Draw it: layers from left to right, width by strength, colour by number of tasks.

        Parts specific to tasks are drawn faintly, if they were requested.

        Args:
            max_edges: Maximum number of shared connections to draw, the strongest first.

        Raises:
            BadInput: There is nothing to draw.
            MissingExtra: matplotlib is not installed.
        """
        from queries.plots.circuit import figure_of
        from queries.plots.shared_files import picture_of

        return figure_of(picture_of(self, max_edges))


def shared_subgraph(
    registry: Registry,
    tasks: Sequence[str],
    *,
    min_tasks: int | None = None,
    circuits: Which = "best",
    model: str | None = None,
    method: str | None = None,
    unique: bool = True,
) -> SharedSubgraph:
    """Find what several tasks share.

    Args:
        registry: The open registry.
        tasks: Slugs of two or more. May be empty if circuits are named; their tasks are used then.
        min_tasks: Number of tasks that must use a part; all tasks by default.
        circuits: Circuits that represent the tasks: ``best``, ``all`` or ids; see
            :func:`queries.circuits.choosing.choose_circuits`.
        model: Only circuits of this model. Needed if the tasks have several models in common.
        method: Only circuits found by this method.
        unique: Also find the parts specific to each task. For many circuits this takes most of the
            time.

    Raises:
        NotFound: No task, model or circuit has that name.
        BadInput: There are fewer than two tasks, or than ``min_tasks``; or circuits cannot be
            chosen.
    """
    chosen = choose_circuits(registry, tasks, circuits=circuits, model=model, method=method)
    compared = tuple(chosen.by_task)
    least = _checked(min_tasks, compared)
    # Without ids the graph uses all active circuits, so their ids need not be sent.
    which: dict[str, Any] = {"tasks": compared, "model": chosen.model}
    which |= {"method": method} if circuits == "all" else {"circuits": chosen.ids}
    entries = _entries(registry, chosen)
    components, connections = _ask(registry, which, least)
    specific = _ask(registry, which, 1, 1) if unique else None
    models = {model.slug: model for model in registry.ledger.models()}
    group = shared_key_group(models.get(chosen.model))
    listed = (*connections, *(specific[1] if specific else ()))
    return SharedSubgraph(
        model=chosen.model,
        tasks=compared,
        min_tasks=least,
        chosen=chosen,
        circuits=entries,
        components=components,
        connections=connections,
        unique=_by_task(compared, *specific) if specific else None,
        heads_per_group=group,
        notes=(*chosen.notes, *_differences(entries), *_namings(listed, group)),
    )


def _checked(min_tasks: int | None, tasks: Sequence[str]) -> int:
    if len(tasks) < 2:
        raise BadInput(
            f"what is shared needs two or more tasks, got {len(tasks)}; for example ioi and "
            "sequence/numerals"
        )
    if min_tasks is not None and not 1 <= min_tasks <= len(tasks):
        raise BadInput(
            f"the smallest number of tasks is {min_tasks}, but {len(tasks)} tasks are given; it "
            f"must be from 1 to {len(tasks)}"
        )
    return min_tasks or len(tasks)


def _ask(
    registry: Registry, which: Mapping[str, Any], least: int, most: int | None = None
) -> tuple[tuple[SharedComponent, ...], tuple[SharedConnection, ...]]:
    """Components and connections by the number of tasks that use them."""
    asked = {**which, "min_tasks": least, "max_tasks": most}
    return (
        components_of(registry.query("shared-components", **asked)),
        connections_of(registry.query("shared-connections", **asked)),
    )


def _by_task(
    tasks: Sequence[str],
    components: Iterable[SharedComponent],
    connections: Iterable[SharedConnection],
) -> dict[str, Specific]:
    return {
        task: Specific(
            tuple(one for one in components if task in one.uses),
            tuple(one for one in connections if task in one.uses),
        )
        for task in tasks
    }


def _differences(circuits: Iterable[CircuitEntry]) -> Iterator[str]:
    """Settings that make the comparison of these circuits less sound."""
    listed = list(circuits)
    for name in _SETTINGS:
        values = sorted({str(getattr(circuit, name) or "unknown") for circuit in listed})
        if len(values) > 1:
            yield f"the circuits differ in {name}: {', '.join(values)}"
    unsigned = {circuit.task for circuit in listed if circuit.sign is not Sign.HELPS_POSITIVE}
    if unsigned:
        yield f"effects have no known sign in some circuits of {', '.join(sorted(unsigned))}"


def _namings(connections: Iterable[SharedConnection], heads_per_group: int | None) -> Iterator[str]:
    """Connections that are the same in the model but differ in name, so that they never match."""
    into = [(parse_local(one.target), one.port) for one in connections]
    if len({port is None for target, port in into if ports_of(target)}) > 1:
        yield (
            "some circuits merge the inputs of heads (connections without <q>, <k>, <v>) and some "
            "keep them separate; such connections are never counted as shared"
        )
    grouped = any(target.kind is Kind.KV_HEAD for target, _ in into)
    if grouped and any(target.kind is Kind.HEAD and port in ("k", "v") for target, port in into):
        yield (
            "some circuits give every query head its own keys and values and some have "
            "key/value heads; such connections are never counted as shared"
        )
    if grouped and heads_per_group is None:
        yield (
            "the model's numbers of heads are not recorded, so paths end at key/value heads: which "
            "query heads read them is unknown"
        )


def _entries(registry: Registry, chosen: Chosen) -> tuple[CircuitEntry, ...]:
    known = {entry.id: entry for entry in registry.circuits(model=chosen.model)}
    entries = tuple(known[id] for id in chosen.ids)
    for entry in entries:
        if entry.labels.state is CircuitState.RETRACTED:
            raise BadInput(
                f"circuit {entry.id[:12]} is retracted ({entry.labels.reason}) and cannot be "
                "compared; choose another"
            )
    return entries


def _numbers(one: Used) -> dict[str, Any]:
    return {
        "n_tasks": one.n_tasks,
        "strength": one.strength,
        "signs_agree": one.signs_agree,
        "effects": {task: use.effect for task, use in one.uses.items()},
    }
