"""From records to rows: what the projection writes, as pure functions.

A row is a map that one of the statements in ``registry.graph.statements`` takes. Rows carry scalars
and lists of one type; what is None is absent in the graph.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from registry.identifiers import parse_local, split_connection
from registry.ledger.base import CircuitEntry
from registry.records import (
    Circuit,
    Edge,
    Edit,
    Evaluation,
    Model,
    Node,
    Outcome,
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
    "circuit_row",
    "circuit_rows",
    "component_row",
    "connection_row",
    "edit_row",
    "evaluation_row",
    "model_row",
    "outcome_row",
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
    """A node of a circuit. Rows of which there are many are tuples: names would double the work."""

    id: str
    circuit: str
    component: str
    effect: float | None
    rank: int | None
    role: str | None
    position: str | None


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
    """Rows that are made whenever they are gone through.

    A row takes more memory than the record it is made of; of a million edges there is never more
    than a part.

    Args:
        make: Makes the rows, the same each time.
        n_rows: How many.
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
    """Everything a circuit puts into the graph, apart from its own node.

    Attributes:
        model: Its model.
        locals: Local names of the components its nodes are instances of.
        connections: Ids of what its edges run over.
        nodes: One for each node.
        edges: One for each edge.
        uses: One for each connection, summed over positions.
        properties: What only the document says about the circuit itself.
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
    """The circuit's node with its labels as they are now.

    Args:
        entry: The circuit as the ledger knows it.
        rows: Where the node is new, the rest; what they say of the circuit never changes.
    """
    labels = entry.labels
    properties = {
        # Always there: the embedded engine makes up a title where none is stored.
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
    """The circuit's nodes and edges, and the parts of the reference layer they stand on.

    Args:
        id: The circuit's id, which the caller knows; to compute it is half the work.
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
        # Two edges run over one connection only where they are bound to positions.
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
    """How many edges or nodes a rule chose, before what dangles was taken out; None if unsaid."""
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
    }
    return {"id": f"{model}/{name}", "model": model, "properties": properties}


def evaluation_row(evaluation: Evaluation) -> Row:
    """An evaluation with the circuit and task it belongs to."""
    properties = evaluation.model_dump(mode="json", exclude={"parameters"})
    return {
        "id": evaluation.id,
        "circuit": evaluation.circuit,
        "task": evaluation.task,
        "properties": _properties(properties),
    }


def edit_row(edit: Edit) -> Row:
    """The edit's node; what has inner structure is kept as JSON text."""
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


def outcome_row(outcome: Outcome) -> Row:
    """What was measured after an edit."""
    return {
        "id": outcome.id,
        "edit": outcome.edit,
        "task": outcome.task,
        "properties": _properties(outcome.model_dump(mode="json")),
    }


def _node_row(circuit: str, model: str, node: Node) -> NodeRow:
    return NodeRow(
        f"{circuit}/{node.key}",
        circuit,
        f"{model}/{node.component}",
        node.effect,
        node.rank,
        node.role,
        node.position,
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
    """Leave whole numbers beyond 64 bits, such as a generator's seed, as text."""
    return {
        name: str(value) if isinstance(value, int) and value not in _WHOLE_NUMBERS else value
        for name, value in values.items()
    }


def _moment(moment: datetime) -> str:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat()
