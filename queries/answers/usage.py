"""Where a part of a model is used, and which circuits are most similar to a given one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from queries.circuits.folding import ports_are_told
from queries.circuits.recurrence import Over
from registry.errors import BadInput
from registry.identifiers import Component, parse_component, parse_connection, ports_of
from registry.models.aliases import resolve_component
from registry.models.shapes import check_components
from registry.names import known_model

if TYPE_CHECKING:
    import pandas

    from registry.records import Circuit
    from registry.registry import Registry
    from registry.rows import Rows

__all__ = ["Nearest", "Over", "Usage", "nearest_circuits", "where_used"]

_NEAREST: Mapping[Over, str] = {
    "connections": "nearest-circuits",
    "components": "nearest-by-components",
}


@dataclass(frozen=True, slots=True, repr=False)
class Nearest:
    """Circuits that are most similar to a given one.

    Attributes:
        circuit: Id of the given one.
        over: The kind of part compared.
        rows: The most similar first: circuit, task, method, sizes, similarity, title.
        notes: Notes that the reader must know.
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
        kind: Kind of component (head, mlp, ...), or ``connection``.
        layer: Block of the component, or of the target of a connection; None if it has none.
        circuits: Active circuits that use it, with its effect in each.
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
        """Number of circuits that use it, counted once for all positions."""
        return len({row["circuit"] for row in self.circuits})

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that circuits know it for, and those that annotations of them give it."""
        own = {row["role"] for row in self.circuits if row.get("role")}
        return tuple(sorted(own.union(*(row.get("annotated", ()) for row in self.circuits))))

    @property
    def heading(self) -> dict[str, Any]:
        """A summary in a few fields."""
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
    """Find the active circuits that are most similar to a given one.

    Args:
        registry: The open registry.
        circuit: Id of the given one, or its first digits.
        over: The kind of part to compare. By default connections; components if the circuit has no
            connections or merges the inputs of heads, because connections with ports never equal
            connections without.
        limit: Maximum number of circuits.
        task: Only circuits of this task.
        method: Only circuits found by this method.

    Raises:
        NotFound: No circuit or task has that name.
        BadInput: The circuit is retracted, or has no connections to compare over.
        GraphError: The graph cannot be read.
    """
    stored = registry.circuit(circuit)
    given, id = stored.circuit, stored.entry.id
    if stored.entry.labels.state == "retracted":
        raise BadInput(
            f"circuit {id[:12]} is retracted and no longer in the graph; 'circuits show' shows why"
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
        registry: The open registry.
        name: Its name, with its model or an alias of the model. A connection into a head without a
            port means all inputs of the head, and also matches circuits that merge them.

    Raises:
        BadIdentifier: It is not the name of a part, or is outside the model.
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
    """Refuse a component of an unknown model or outside its model, instead of finding no uses."""
    known_model(registry.ledger, component.model)
    models = {model.slug: model for model in registry.ledger.models()}
    check_components(models[component.model], [str(component.local)])


def _fitting(circuit: Circuit) -> tuple[Over, tuple[str, ...]]:
    """The kind of part that a circuit is compared over, and why if it is not connections."""
    if not circuit.edges:
        return "components", ("the circuit has no edges; compared over components",)
    if not ports_are_told(circuit):
        return "components", (
            "the circuit merges the inputs of heads, so its connections into heads never equal "
            "connections with ports; compared over components",
        )
    return "connections", ()


def _unseen(registry: Registry, given: Circuit) -> tuple[str, ...]:
    """Report how many circuits cannot be found over connections."""
    without = sum(
        not entry.n_edges
        for entry in registry.circuits(model=given.model)
        if entry.labels.state == "active"
    )
    if not without:
        return ()
    return (
        f"circuits without edges, which are found only over components: {without} (--over "
        "components)",
    )
