"""Which components and connections several tasks use, and which only one task uses.

Each task is represented by its circuits (:mod:`queries.circuits.choosing`). The *generality* of a
part is the share of the tasks whose circuits use it. If a task has several circuits, it counts with
the share of its circuits that use the part. Hubs are used by many tasks, even unrelated ones, so
:mod:`queries.chance.reuse` gives how many tasks would use a part by chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from queries.chance.reuse import UseByChance, components_by_chance, connections_by_chance
from queries.circuits.choosing import Chosen, Which, choose_circuits
from queries.circuits.recurrence import merges_ports
from registry.errors import BadInput
from registry.identifiers import parse_component, sort_key
from registry.records import Model
from registry.rows import Rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from registry.registry import Registry

__all__ = ["DRAWS", "Reuse", "ReusedComponent", "ReusedPart", "reuse"]

DRAWS = 200
"""Random circuits for each task. The null combines the draws of all tasks, so few are enough."""

_OF_COMPONENTS = ("kind", "layer", "roles")


@dataclass(frozen=True)
class ReusedPart:
    """A connection or component, and the tasks that use it.

    Attributes:
        name: With its model, such as ``gpt2/a9.h6->a10.h7<k>``.
        tasks: Tasks that use it, in any of their circuits.
        generality: Mean over all tasks of the share of a task's circuits that use it, 0 to 1.
        expected: Number of tasks that would use it by chance; None if that is unknown.
        p: Probability that at least as many tasks use it by chance.
        q: p corrected for all parts that could have been used.
    """

    name: str
    tasks: tuple[str, ...]
    generality: float
    expected: float | None
    p: float | None
    q: float | None

    @property
    def n_tasks(self) -> int:
        """Number of tasks that use it."""
        return len(self.tasks)

    @property
    def only_task(self) -> str | None:
        """The task, if only one uses it."""
        return self.tasks[0] if len(self.tasks) == 1 else None


@dataclass(frozen=True)
class ReusedComponent(ReusedPart):
    """A component and the tasks that use it.

    Attributes:
        kind: Kind of component: head, kv_head, mlp, ...
        layer: Block it is in; None for ``input`` and ``logits``.
        roles: Roles it is known for in these circuits: their own, and annotations.
    """

    kind: str
    layer: int | None
    roles: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Reuse:
    """How tasks share the parts of one model.

    Attributes:
        chosen: The circuits that represent the tasks.
        components: Components in order of the number of tasks, then of generality, then of p.
        connections: Connections in the same order, with separate ports if all circuits give ports.
        components_spread: Number of components expected by chance to be used by no task, one, ...,
            all; only for kinds of which the model gives the number.
        connections_spread: The same numbers for connections; empty if nothing was drawn.
        draws: Random circuits for each task; 0 if chance was not requested.
        notes: Notes that the reader must know.
    """

    chosen: Chosen
    components: tuple[ReusedComponent, ...]
    connections: tuple[ReusedPart, ...]
    components_spread: tuple[float, ...]
    connections_spread: tuple[float, ...]
    draws: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"<Reuse of {len(self.components)} components and {len(self.connections)} connections "
            f"by {len(self.tasks)} tasks in {self.chosen.model}>"
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are compared."""
        return tuple(self.chosen.by_task)

    def spread(self) -> list[dict[str, Any]]:
        """For each number of tasks from 1: how many parts that many use, and would by chance.

        Only components of kinds of which the model gives the number are counted. If there are none,
        components of all kinds are counted, without a comparison with chance.
        """
        compared = [part for part in self.components if part.expected is not None]
        components = Counter(part.n_tasks for part in compared or self.components)
        connections = Counter(part.n_tasks for part in self.connections)
        return [
            {
                "n_tasks": n,
                "components": components[n],
                "components by chance": _at(self.components_spread if compared else (), n),
                "connections": connections[n],
                "connections by chance": _at(self.connections_spread, n),
            }
            for n in range(1, len(self.tasks) + 1)
        ]

    def parts(self, min_tasks: int = 1) -> dict[str, Rows]:
        """The parts, by the titles of ``circuits reuse --format json``, the most used first.

        Args:
            min_tasks: Omit components and connections that fewer tasks use.
        """
        spread = self.spread()
        return {
            "parts by number of tasks": Rows(
                tuple(spread[0]), tuple(tuple(row.values()) for row in spread)
            ),
            "components": _ranked("component", self.components, min_tasks, *_OF_COMPONENTS),
            "connections": _ranked("connection", self.connections, min_tasks),
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row for each component and each connection, the most used first."""
        import pandas as pd

        columns = ("generality", "expected", "p", "q")
        rows = [
            {
                "of": of,
                "name": part.name,
                "n_tasks": part.n_tasks,
                "tasks": list(part.tasks),
                **{column: getattr(part, column) for column in columns},
                "only_task": part.only_task,
            }
            for of, parts in (("component", self.components), ("connection", self.connections))
            for part in parts
        ]
        return pd.DataFrame(rows)

    def plot(self) -> Figure:
        """Plot how many components and connections are used by one task, two, ..., and by chance.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from queries.plots.reuse import figure_of_reuse

        return figure_of_reuse(self)


def reuse(
    registry: Registry,
    tasks: Sequence[str] = (),
    *,
    circuits: Which = "best",
    model: str | None = None,
    method: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Reuse:
    """Rank components and connections by how many tasks use them.

    Args:
        registry: The open registry.
        tasks: Two or more; all tasks with active circuits if none is given.
        circuits: Circuits that represent each task: ``best``, ``all``, or ids.
        model: Only circuits of this model. Needed if there are several models.
        method: Only circuits found by this method.
        draws: Random circuits for each task, for the null of connections; 0 for none.
        seed: Seed of the draws; equal seeds give equal numbers.

    Raises:
        NotFound: No task, model or circuit has that name.
        BadInput: Fewer than two tasks have circuits, or no circuits can be chosen
            (:func:`queries.circuits.choosing.choose_circuits`).
        GraphError: The graph cannot be read.
    """
    if isinstance(circuits, str) and not tasks:
        tasks, model = _recorded_tasks(registry, model, method)
    chosen = choose_circuits(registry, tasks, circuits=circuits, model=model, method=method)
    if len(chosen.by_task) < 2:
        raise BadInput(
            "reuse needs circuits of two or more tasks; found circuits of "
            f"{', '.join(chosen.by_task) or 'none'}"
        )
    of_components = registry.query("tasks-using-components", circuits=list(chosen.ids))
    of_connections, merged = _connection_rows(registry, chosen)
    with_edges = _with_edges(registry, chosen)
    shape = registry.ledger.model(chosen.model)
    by_chance = components_by_chance(_used(of_components, "component"), shape)
    drawn: UseByChance | None = None
    if draws and of_connections.values:
        drawn = connections_by_chance(
            _used(of_connections, "connection"),
            draws,
            seed,
            parallel_attn_mlp=shape.parallel_attn_mlp,
        )
    return Reuse(
        chosen=chosen,
        components=_components(of_components, by_chance, chosen.by_task),
        connections=_connections(of_connections, drawn, with_edges),
        components_spread=by_chance.spread,
        connections_spread=drawn.spread if drawn else (),
        draws=draws,
        notes=(
            *chosen.notes,
            *_notes(chosen, with_edges, merged=merged),
            *_differing_heads(registry, chosen, shape),
        ),
    )


def _recorded_tasks(
    registry: Registry, model: str | None, method: str | None
) -> tuple[list[str], str]:
    """Find all tasks with active circuits of one model, and that model."""
    entries = [
        entry
        for entry in registry.circuits(model=model, method=method)
        if entry.labels.state == "active"
    ]
    models = sorted({entry.model for entry in entries})
    if len(models) > 1:
        raise BadInput(
            f"there are circuits in {len(models)} models ({', '.join(models)}); choose one with "
            "--model"
        )
    if not models:
        raise BadInput("no active circuit that can be used is recorded; see 'circuits list'")
    return sorted({entry.task for entry in entries}), models[0]


def _connection_rows(registry: Registry, chosen: Chosen) -> tuple[Rows, bool]:
    """Which tasks use each connection, and whether ports had to be folded."""
    rows = registry.query("tasks-using-connections", circuits=list(chosen.ids))
    merged = any(merges_ports(row["connection"]) for row in rows)
    if merged:
        rows = registry.query("tasks-using-connections", circuits=list(chosen.ids), ports=False)
    return rows, merged


def _with_edges(registry: Registry, chosen: Chosen) -> dict[str, tuple[str, ...]]:
    """Circuits with edges, by task; tasks without any are omitted."""
    n_edges = {entry.id: entry.n_edges for entry in registry.circuits(model=chosen.model)}
    found = {task: tuple(id for id in ids if n_edges[id]) for task, ids in chosen.by_task.items()}
    return {task: ids for task, ids in found.items() if ids}


def _used(rows: Rows, column: str) -> dict[str, list[str]]:
    """Local names of the parts that each task uses; tasks without any are omitted."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for use in row["tasks"]:
            found.setdefault(use["task"], []).append(row[column].partition("/")[2])
    return found


def _components(
    rows: Rows, chance: UseByChance, circuits: Mapping[str, Sequence[str]]
) -> tuple[ReusedComponent, ...]:
    parts = [
        ReusedComponent(
            **_part(row, row["component"], chance, circuits),
            kind=row["kind"],
            layer=row["layer"],
            roles=tuple(row["roles"]),
        )
        for row in rows
    ]
    return tuple(
        sorted(parts, key=lambda part: (_order(part), sort_key(parse_component(part.name).local)))
    )


def _connections(
    rows: Rows, chance: UseByChance | None, circuits: Mapping[str, Sequence[str]]
) -> tuple[ReusedPart, ...]:
    parts = (ReusedPart(**_part(row, row["connection"], chance, circuits)) for row in rows)
    return tuple(sorted(parts, key=lambda part: (_order(part), part.name)))


def _part(
    row: Mapping[str, Any],
    name: str,
    chance: UseByChance | None,
    circuits: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    shares = [use["n_circuits"] / len(circuits[use["task"]]) for use in row["tasks"]]
    local = name.partition("/")[2]
    return {
        "name": name,
        "tasks": tuple(use["task"] for use in row["tasks"]),
        "generality": sum(shares) / len(circuits),
        "expected": chance.expected.get(local) if chance else None,
        "p": chance.p.get(local) if chance else None,
        "q": chance.q.get(local) if chance else None,
    }


def _order(part: ReusedPart) -> tuple[float, ...]:
    return (-part.n_tasks, -part.generality, 1.0 if part.p is None else part.p)


def _at(spread: Sequence[float], n: int) -> float | None:
    """Expected number of parts that ``n`` tasks use; 0 if no part can be used by that many."""
    if not spread:
        return None
    return spread[n] if n < len(spread) else 0.0


def _notes(chosen: Chosen, with_edges: Iterable[str], *, merged: bool) -> list[str]:
    found = []
    without = [task for task in chosen.by_task if task not in with_edges]
    if without:
        found.append(
            f"circuits of {', '.join(without)} have no edges, and count only for components"
        )
    if merged:
        found.append(
            "some circuits merge the inputs of heads; connections are counted without ports in all"
        )
    return found


def _differing_heads(registry: Registry, chosen: Chosen, model: Model) -> list[str]:
    """Report circuits that count keys and values differently, so that connections cannot match."""
    if model.n_kv_heads == model.n_heads:
        return []
    kinds = {
        row["kv_heads"]
        for task, ids in chosen.by_task.items()
        for row in registry.query("circuits-of-task", task=task, model=chosen.model)
        if row["circuit"] in ids
    }
    if {"grouped", "per-query-head"} <= kinds:
        return [
            "some circuits count keys and values by query head, others as the model has them; "
            "connections into these cannot match"
        ]
    return []


def _ranked(what: str, parts: Sequence[ReusedPart], min_tasks: int, *about: str) -> Rows:
    columns = (*about, "n_tasks", "generality", "expected", "p", "q", "only_task")
    return Rows(
        (what, *columns, "tasks"),
        tuple(
            (part.name, *(getattr(part, column) for column in columns), part.tasks)
            for part in parts
            if part.n_tasks >= min_tasks
        ),
    )
