"""From an entry of the catalogue to the records that a registry keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ingest.catalog.entries import ENDS, Entry, Figure, RoleEdge
from registry.errors import BadInput
from registry.identifiers import Port, can_feed, node_key, parse_connection, parse_local, ports_of
from registry.models.known_models import common_model
from registry.records import Circuit, CircuitLabels, Edge, Evaluation, Level, Model, Node, Sign

__all__ = ["METHOD", "circuit_of", "evaluations_of", "labels_of", "model_of"]

METHOD = "published"


def model_of(entry: Entry) -> Model:
    """Return the entry's model with its shape.

    Raises:
        BadInput: The shape is unknown, so heads cannot be checked.
    """
    found = common_model(entry.model)
    if found is None:
        raise BadInput(f"{entry.name} is of the model {entry.model}, whose shape is unknown")
    return found


def circuit_of(entry: Entry) -> Circuit:
    """Return the circuit with expanded rules; it has no effects, only figures of the paper."""
    positions = {part: role.position for role in entry.roles.values() for part in role.parts}
    roles = {part: name for name, role in entry.roles.items() for part in role.parts}
    connections = tuple(dict.fromkeys(_connections(entry)))  # several rules may give one edge
    ends = ENDS & {end for source, target, _ in connections for end in (source, target)}
    return Circuit(
        model=entry.model,
        task=entry.task.slug,
        method=METHOD,
        # This is part of the circuit's id, so it holds no words that may be improved later.
        parameters={"entry": entry.name, **({"arxiv": entry.arxiv} if entry.arxiv else {})},
        metric=entry.metric,
        higher_is_better=entry.higher_is_better,
        ablation=entry.ablation,
        sign=Sign.UNKNOWN,
        level=entry.level,
        kv_heads="grouped" if entry.level is Level.EDGE else None,
        selection=entry.selection,
        nodes=tuple(
            Node(component=part, position=positions.get(part), role=roles.get(part))
            for part in (*entry.members, *ends)
        ),
        edges=tuple(
            Edge(
                source=node_key(source, positions.get(source)),
                target=node_key(target, positions.get(target)),
                port=port,
            )
            for source, target, port in connections
        ),
    )


def evaluations_of(entry: Entry, circuit: str) -> tuple[Evaluation, ...]:
    """Return the entry's figures as measurements of its circuit, whose id is given."""
    return tuple(_evaluation(figure, entry, circuit) for figure in entry.figures)


def labels_of(entry: Entry) -> CircuitLabels:
    """Return the title, tag and notes of a new circuit."""
    read = (f"{one.what}: read in {one.where}" for one in entry.verified)
    return CircuitLabels(
        title=entry.title, tags=(METHOD,), notes=(entry.reference, *entry.notes, *read)
    )


def _connections(entry: Entry) -> Iterator[tuple[str, str, Port | None]]:
    for rule in entry.role_edges:
        yield from _expanded(entry, rule)
    for receiver, senders in entry.edges.items():
        for source in senders:
            found = parse_connection(f"{entry.model}/{source}->{receiver}")
            yield source, str(found.target), found.port


def _expanded(entry: Entry, rule: RoleEdge) -> Iterator[tuple[str, str, Port | None]]:
    """Yield every pair of a rule whose layers allow it, at each port that the rule names."""
    parallel = model_of(entry).parallel_attn_mlp
    for source in _named(entry, rule.sources):
        for target in _named(entry, rule.targets):
            receiver = parse_local(target)
            for port in rule.ports if ports_of(receiver) and rule.ports else (None,):
                if can_feed(parse_local(source), receiver, port, parallel_attn_mlp=parallel):
                    yield source, target, port


def _named(entry: Entry, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield from entry.roles[name].parts if name in entry.roles else (name,)


def _evaluation(figure: Figure, entry: Entry, circuit: str) -> Evaluation:
    about: dict[str, Any] = {"definition": figure.definition, "verified": figure.verified}
    if figure.unit is not None:
        about["unit"] = figure.unit
    if figure.component is not None:
        about["component"] = figure.component
    if figure.removed:
        about["removed"] = list(figure.removed)
    return Evaluation(
        circuit=circuit,
        task=figure.task or entry.task.slug,
        measure=figure.measure,
        value=figure.value,
        ablation=figure.ablation,
        n_prompts=figure.prompts,
        parameters=about,
    )
