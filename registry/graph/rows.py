"""From records to rows: the data that the projection writes, as pure functions.

A row is a map for one of the statements in ``registry.graph.statements``. Rows have scalars and
lists of one type; None is absent in the graph.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from registry.identifiers import parse_local, parse_node_key, split_connection
from registry.ledger.base import CircuitEntry
from registry.records import (
    Annotation,
    Circuit,
    Edge,
    Edit,
    Evaluation,
    Model,
    Node,
    PromptSet,
    Run,
    Task,
)

__all__ = [
    "CircuitRows",
    "EdgeRow",
    "Made",
    "NodeRow",
    "Row",
    "UseRow",
    "annotation_row",
    "circuit_row",
    "circuit_rows",
    "component_row",
    "connection_row",
    "edit_row",
    "evaluation_row",
    "made_rows",
    "measured_rows",
    "model_row",
    "prompt_set_row",
    "run_row",
    "task_row",
]

Row = dict[str, Any]
_R = TypeVar("_R")
_WHOLE_NUMBERS = range(-(2**63), 2**63)
_SIZES = ("top", "greedy", "selected")
"""Entries of a circuit's selection that hold a number of edges or nodes."""


class NodeRow(NamedTuple):
    """A node of a circuit. Frequent rows are tuples: maps with names would take twice as long."""

    id: str
    circuit: str
    component: str
    effect: float | None
    rank: int | None
    role: str | None
    position: str | None
    density: float | None


class EdgeRow(NamedTuple):
    """An edge of a circuit."""

    source: str
    target: str
    connection: str
    port: str | None
    effect: float | None
    rank: int | None


class UseRow(NamedTuple):
    """A circuit's use of a connection, summed over positions."""

    circuit: str
    connection: str
    effect: float | None
    rank: int | None
    positions: int


class Made(Collection[_R], Generic[_R]):
    """Rows that are made again for each iteration.

    A row takes more memory than its record; of a million edges, only a part exists at a time.

    Args:
        make: Makes the rows, the same each time.
        n_rows: Number of rows.
    """

    def __init__(self, make: Callable[[], Iterator[_R]], n_rows: int) -> None:
        self._make, self._n_rows = make, n_rows

    def __iter__(self) -> Iterator[_R]:
        return self._make()

    def __len__(self) -> int:
        return self._n_rows

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)


@dataclass(frozen=True, slots=True)
class CircuitRows:
    """All data of a circuit in the graph, except its own node.

    Attributes:
        model: Its model.
        locals: Local names of the components of its nodes.
        connections: Ids of the connections of its edges.
        nodes: One row for each node.
        edges: One row for each edge.
        uses: One row for each connection, summed over positions.
        properties: Properties of the circuit that only the document gives.
    """

    model: str
    locals: frozenset[str]
    connections: frozenset[str]
    nodes: Collection[NodeRow]
    edges: Collection[EdgeRow]
    uses: Collection[UseRow]
    properties: Row


def model_row(model: Model) -> Row:
    """The model's node."""
    return {"id": model.slug, "properties": _properties(model.model_dump(exclude={"slug"}))}


def task_row(task: Task) -> Row:
    """The task's node."""
    return {"id": task.slug, "properties": {"family": task.family, "description": task.description}}


def prompt_set_row(prompts: PromptSet) -> Row:
    """The prompt set's node and its task."""
    properties = _properties(prompts.model_dump(exclude={"id", "artifact"}))
    return {"id": prompts.id, "task": prompts.task, "properties": properties}


def run_row(run: Run) -> Row:
    """The run's node."""
    properties = {
        "job": run.job,
        "version": run.version,
        "status": run.status.value,
        "device": run.device,
        "started_at": _moment(run.started_at),
        "finished_at": None if run.finished_at is None else _moment(run.finished_at),
    }
    return {"id": run.id, "properties": properties}


def circuit_row(entry: CircuitEntry, rows: CircuitRows | None = None) -> Row:
    """The circuit's node with its present labels.

    Args:
        entry: The circuit in the ledger.
        rows: The other rows, if the node is new; their facts about the circuit never change.
    """
    labels = entry.labels
    properties = {
        # Always set: without a title, the embedded engine makes one up.
        "title": labels.title or "",
        "model": entry.model,
        "task": entry.task,
        "prompt_set": entry.prompt_set,
        "method": entry.method,
        "metric": entry.metric,
        "ablation": None if entry.ablation is None else entry.ablation.value,
        "sign": entry.sign.value,
        "level": entry.level.value,
        "state": labels.state.value,
        "superseded_by": labels.superseded_by,
        "tags": list(labels.tags),
        "author": labels.author,
        "n_nodes": entry.n_nodes,
        "n_edges": entry.n_edges,
        "universe_size": entry.universe_size,
        "faithfulness": entry.faithfulness,
        "recorded_at": _moment(entry.recorded_at),
    }
    return {
        "id": entry.id,
        "model": entry.model,
        "task": entry.task,
        "properties": _properties(properties) | (rows.properties if rows else {}),
    }


def circuit_rows(id: str, circuit: Circuit) -> CircuitRows:
    """The circuit's nodes and edges, with their parts of the reference layer.

    Args:
        id: The circuit's id, which the caller knows; computing it is half of the work.
        circuit: Its content.
    """
    local_of = {node.key: node.component for node in circuit.nodes}
    ids = {key: f"{id}/{key}" for key in local_of}
    by_position = any(node.position is not None for node in circuit.nodes)

    def named() -> Iterator[tuple[str, Edge]]:
        for edge in circuit.edges:
            port = f"<{edge.port}>" if edge.port else ""
            ends = f"{local_of[edge.source]}->{local_of[edge.target]}"
            yield f"{circuit.model}/{ends}{port}", edge

    def edges() -> Iterator[EdgeRow]:
        for name, edge in named():
            ends = ids[edge.source], ids[edge.target]
            yield EdgeRow(*ends, name, edge.port, edge.effect, edge.rank)

    def uses() -> Iterator[UseRow]:
        each = (UseRow(id, name, edge.effect, edge.rank, 1) for name, edge in named())
        # Two edges have the same connection only if they are bound to positions.
        return _summed(each) if by_position else each

    connections = frozenset(name for name, _ in named())
    return CircuitRows(
        circuit.model,
        frozenset(local_of.values()),
        connections,
        Made(lambda: (_node_row(id, circuit.model, node) for node in circuit.nodes), len(local_of)),
        Made(edges, len(circuit.edges)),
        Made(uses, len(connections)),
        {
            "higher_is_better": circuit.higher_is_better,
            "kv_heads": circuit.kv_heads,
            "n_selected": _n_selected(circuit.selection),
        },
    )


def _n_selected(selection: Mapping[str, Any] | None) -> int | None:
    """Edges or nodes that a rule chose, before dangling ones are removed; None if unknown."""
    for rule in _SIZES:
        number = (selection or {}).get(rule)
        if isinstance(number, int) and not isinstance(number, bool) and number in _WHOLE_NUMBERS:
            return number
    return None


def connection_row(id: str) -> Row:
    """A connection between two parts, in the reference layer, by its id."""
    model, source, target, port = split_connection(id)
    return {
        "id": id,
        "source": f"{model}/{source}",
        "target": f"{model}/{target}",
        "model": model,
        "local": id[len(model) + 1 :],
        "port": port,
    }


def component_row(model: str, name: str) -> Row:
    """A part of a model, in the reference layer, by its local name."""
    local = parse_local(name)
    properties = {
        "model": model,
        "local": name,
        "kind": local.kind.value,
        "layer": local.layer,
        "head": local.head,
        "index": local.index,
        "site": local.site,
        "basis": local.basis,
        "norm": local.norm,
    }
    return {"id": f"{model}/{name}", "model": model, "properties": properties}


def evaluation_row(evaluation: Evaluation) -> Row:
    """An evaluation with the circuit and task it belongs to."""
    properties = evaluation.model_dump(mode="json", exclude={"parameters", "run"})
    return {
        "id": evaluation.id,
        "circuit": evaluation.circuit,
        "task": evaluation.task,
        "properties": _properties(properties),
    }


def annotation_row(annotation: Annotation, model: str) -> Row:
    """An annotation of a circuit's node, with the component and position of the node.

    Args:
        annotation: The annotation.
        model: Slug of the circuit's model.
    """
    local, position = parse_node_key(annotation.node)
    return {
        "id": annotation.id,
        "circuit": annotation.circuit,
        "component": f"{model}/{local}",
        "position": position,
        "run": annotation.run,
        "properties": {
            "role": annotation.role,
            "said_by": annotation.said_by,
            "position": position,
            "score_names": list(annotation.scores),
            "score_values": list(annotation.scores.values()),
        },
    }


def edit_row(edit: Edit) -> Row:
    """The edit's node; nested values are stored as JSON text."""
    properties = {
        "model": edit.model,
        "editor": edit.editor,
        "restriction": edit.restriction,
        "note": edit.note,
        "request": json.dumps(dict(edit.request), ensure_ascii=False, sort_keys=True),
        "hyperparameters": json.dumps(
            dict(edit.hyperparameters), ensure_ascii=False, sort_keys=True
        ),
    }
    return {"id": edit.id, "properties": properties}


def measured_rows(evaluations: Iterable[Evaluation]) -> list[Row]:
    """The runs that made evaluations, for evaluations that name their run."""
    return [{"evaluation": one.id, "run": one.run} for one in evaluations if one.run]


def made_rows(edits: Iterable[Edit]) -> list[Row]:
    """The runs that made edits, for edits that name their run."""
    return [{"edit": edit.id, "run": edit.run} for edit in edits if edit.run]


def _node_row(circuit: str, model: str, node: Node) -> NodeRow:
    return NodeRow(
        f"{circuit}/{node.key}",
        circuit,
        f"{model}/{node.component}",
        node.effect,
        node.rank,
        node.role,
        node.position,
        node.density,
    )


def _summed(uses: Iterator[UseRow]) -> Iterator[UseRow]:
    summed: dict[str, UseRow] = {}
    for use in uses:
        known = summed.get(use.connection)
        summed[use.connection] = use if known is None else _with_another(known, use)
    return iter(summed.values())


def _with_another(use: UseRow, other: UseRow) -> UseRow:
    effects = [effect for effect in (use.effect, other.effect) if effect is not None]
    ranks = [rank for rank in (use.rank, other.rank) if rank is not None]
    return use._replace(
        effect=_finite_sum(effects) if effects else None,
        rank=min(ranks, default=None),
        positions=use.positions + 1,
    )


def _finite_sum(effects: Sequence[float]) -> float:
    largest = 1.7976931348623157e308
    return max(-largest, min(largest, sum(effects)))


def _properties(values: Mapping[str, Any]) -> Row:
    """Store whole numbers beyond 64 bits, such as a generator's seed, as text."""
    return {
        name: str(value) if isinstance(value, int) and value not in _WHOLE_NUMBERS else value
        for name, value in values.items()
    }


def _moment(moment: datetime) -> str:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat()
