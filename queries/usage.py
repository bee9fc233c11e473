"""Where a part of a model is used, and which circuits are most like one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from queries.folding import ports_are_told
from registry.aliases import resolve_component
from registry.errors import BadInput
from registry.identifiers import Component, parse_component, parse_connection, ports_of
from registry.names import known_model
from registry.shapes import check_components

if TYPE_CHECKING:
    import pandas

    from registry.records import Circuit
    from registry.registry import Registry
    from registry.rows import Rows

__all__ = ["Nearest", "Over", "Usage", "nearest_circuits", "where_used"]

Over = Literal["connections", "components"]

_NEAREST: Mapping[Over, str] = {
    "connections": "nearest-circuits",
    "components": "nearest-by-components",
}


@dataclass(frozen=True, slots=True, repr=False)
class Nearest:
    """Circuits that are most like a given one.

    Attributes:
        circuit: Id of the given one.
        over: What was compared.
        rows: The nearest first: circuit, task, method, sizes, similarity, title.
        notes: What a reader has to know.
    """

    circuit: str
    over: Over
    rows: Rows
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Nearest to {self.circuit[:12]} over {self.over}: {len(self.rows)} circuits>"

    def to_frame(self) -> pandas.DataFrame:
        """One row for each circuit, the nearest first."""
        return self.rows.to_frame()


@dataclass(frozen=True, slots=True, repr=False)
class Usage:
    """Where a component or connection is used.

    Attributes:
        name: The part, with its model.
        kind: Sort of component (head, mlp, ...), or ``connection``.
        layer: Block of the component, or of what a connection enters; None where it has none.
        circuits: Active circuits that use it, with what it does in each.
        edits: Edits that modified it, or an end of the connection.
    """

    name: str
    kind: str
    layer: int | None
    circuits: Rows
    edits: Rows

    def __repr__(self) -> str:
        return f"<Usage of {self.name}: {self.n_circuits} circuits, {len(self.edits)} edits>"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of these circuits."""
        return tuple(sorted({row["task"] for row in self.circuits}))

    @property
    def n_circuits(self) -> int:
        """How many circuits use it, at however many positions."""
        return len({row["circuit"] for row in self.circuits})

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that circuits know it for."""
        return tuple(sorted({row["role"] for row in self.circuits if row.get("role")}))

    @property
    def heading(self) -> dict[str, Any]:
        """What there is to say in a few fields."""
        return {
            "part": self.name,
            "model": self.name.partition("/")[0],
            "kind": self.kind,
            "layer": self.layer,
            "circuits": self.n_circuits,
            "tasks": self.tasks,
            "roles": self.roles,
            "edits": len(self.edits),
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row for each use in a circuit."""
        return self.circuits.to_frame()


def nearest_circuits(
    registry: Registry,
    circuit: str,
    *,
    over: Over | None = None,
    limit: int = 10,
    task: str | None = None,
    method: str | None = None,
) -> Nearest:
    """Find the active circuits that are most like one.

    Args:
        registry: Where they are.
        circuit: Id of the given one, or its first digits.
        over: What is compared. Where it is left to the circuit: connections, or components where it
            has no connections or merges the inputs of heads, as connections that tell them never
            equal those that do not.
        limit: At most so many.
        task: Only circuits of this task.
        method: Only circuits found by this method.

    Raises:
        NotFound: No circuit or task goes by that name.
        BadInput: The circuit has left the graph, or has no connections to compare over.
        GraphError: The graph cannot be read.
    """
    stored = registry.circuit(circuit)
    given, id = stored.circuit, stored.entry.id
    if stored.entry.labels.state == "retracted":
        raise BadInput(
            f"circuit {id[:12]} is retracted, and the graph holds it no longer; 'circuits show' "
            "tells why"
        )
    if over == "connections" and not given.edges:
        raise BadInput(f"circuit {id[:12]} has no edges; compare it over components")
    chosen, notes = (over, ()) if over else _fitting(given)
    rows = registry.query(_NEAREST[chosen], circuit=id, limit=limit, task=task, method=method)
    if chosen == "connections":
        notes = (*notes, *_unseen(registry, given))
    return Nearest(id, chosen, rows, notes)


def where_used(registry: Registry, name: str) -> Usage:
    """Find the active circuits that use a component or connection, and the edits that touched it.

    Args:
        registry: Where they are.
        name: With its model or an alias of it. A connection into a head that names no port stands
            for all inputs of the head, and for circuits that merge them.

    Raises:
        BadIdentifier: It is no name of a part, or lies outside the model.
        NotFound: No such model is recorded.
        GraphError: The graph cannot be read.
    """
    resolved = resolve_component(name)
    return (_connection_usage if "->" in resolved else _component_usage)(registry, resolved)


def _component_usage(registry: Registry, name: str) -> Usage:
    component = parse_component(name)
    _check(registry, component)
    return Usage(
        name=str(component),
        kind=component.local.kind.value,
        layer=component.local.layer,
        circuits=registry.query("where-used", component=str(component)),
        edits=registry.query("edits-of-components", components=[str(component)]),
    )


def _connection_usage(registry: Registry, name: str) -> Usage:
    connection = parse_connection(name)
    ends = [Component(connection.model, end) for end in (connection.source, connection.target)]
    for end in ends:
        _check(registry, end)
    ports = ports_of(connection.target) if connection.port is None else ()
    names = [str(connection), *(f"{connection}<{port}>" for port in ports)]
    return Usage(
        name=str(connection),
        kind="connection",
        layer=connection.target.layer,
        circuits=registry.query("circuits-using-connections", connections=names),
        edits=registry.query("edits-of-components", components=[str(end) for end in ends]),
    )


def _check(registry: Registry, component: Component) -> None:
    """Refuse a component of no recorded model, or outside of it, rather than say nobody uses it."""
    known_model(registry.ledger, component.model)
    models = {model.slug: model for model in registry.ledger.models()}
    check_components(models[component.model], [str(component.local)])


def _fitting(circuit: Circuit) -> tuple[Over, tuple[str, ...]]:
    """What a circuit is compared over, and why if not over connections."""
    if not circuit.edges:
        return "components", ("the circuit has no edges; compared over components",)
    if not ports_are_told(circuit):
        return "components", (
            "the circuit merges the inputs of heads, so that its connections into heads equal none "
            "that tell them apart; compared over components",
        )
    return "connections", ()


def _unseen(registry: Registry, given: Circuit) -> tuple[str, ...]:
    """Say how many circuits cannot be found over connections."""
    without = sum(
        not entry.n_edges
        for entry in registry.circuits(model=given.model)
        if entry.labels.state == "active"
    )
    if not without:
        return ()
    return (
        f"circuits without edges, which are found over components alone: {without} (--over "
        "components)",
    )
