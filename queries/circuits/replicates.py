"""Which circuits of a task were found the same way, so that only their prompts differ."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from registry.canonical import canonical_json
from registry.circuits.copies import copies_among
from registry.circuits.prompt_pairs import PromptPairs
from registry.records import Circuit

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["SAME_KIND", "Alike", "Ceiling", "ceiling", "group_alike", "n_selected", "replicates"]

SAME_KIND = ("level", "ablation", "kv_heads")
"""The settings that two circuits must have in common to be compared."""
_SAME_WAY = ("model", "method", "metric", "sign", *SAME_KIND)
_MOST_REPLICATES = 20
_MOST_READ = 60
_SAME = ("model", "task", "method", "metric", "sign", "level", "ablation", "kv_heads")
_RARELY_DIFFERENT = ("metric", "sign", "level")
"""Fields that rarely differ between circuits of one method and task."""
_OF_THE_RESULT = ("dangling_removed", "selected")
"""Entries of a selection that are its results, not its settings."""
_SIZES = ("top", "greedy")


_Content = Mapping[str, Any]
"""A circuit's content as it is stored, without fields that are None."""


@dataclass(frozen=True, slots=True)
class Alike:
    """Circuits that were found the same way.

    Attributes:
        method: What found them.
        level: What their parts are: ``node``, ``edge``, ``neuron``, ...
        variant: What tells this way from others of the method: ``eap-ig-inputs, steps 5``.
        ablation: What took the place of a component's activation.
        kv_heads: ``grouped`` or ``per-query-head``.
        rule: How edges were chosen: ``top 500, by absolute``; the number of edges, or of nodes
            without edges, where the record does not say.
        circuits: Their ids, in the order given.
        n_repeated: Number of circuits omitted because another one was found on the same prompts, in
            any order.
        copies: Circuits omitted because they equal another circuit and their prompts are unknown,
            each with that circuit.
    """

    method: str
    level: str
    variant: str
    ablation: str | None
    kv_heads: str | None
    rule: str
    circuits: tuple[str, ...]
    n_repeated: int
    copies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How much circuits of one task share if they were found the same way on other prompts.

    Two tasks are not expected to share more than one task shares with itself.

    Attributes:
        task: The task.
        n_circuits: Number of circuits, each found on different prompts.
        mean_iou: Intersection over union of connections, mean over all pairs, 0 to 1; of components
            if the circuits have no connections.
        lowest_iou: IoU of the pair that shares least.
        highest_iou: IoU of the pair that shares most.
    """

    task: str
    n_circuits: int
    mean_iou: float
    lowest_iou: float
    highest_iou: float


def group_alike(
    registry: Registry, circuits: Iterable[str], prompts: PromptPairs | None = None
) -> list[Alike]:
    """Group circuits that were found the same way, the largest group first.

    Circuits of a group have the same model, task, method with its parameters, metric, ablation,
    key/value heads and selection rule. Seeds, and parameters that name the circuit's own prompts,
    may differ.

    Args:
        registry: The open registry.
        circuits: Full ids. Only the first of the circuits found the same way on the same prompts,
            in any order, is kept. Copies of another circuit whose prompts are unknown are omitted.
        prompts: Pairs of prompt sets that were read before.
    """
    prompts = prompts or PromptPairs(registry)
    # Read without validation: validating all edges of hundreds of circuits would dominate the time.
    contents: dict[str, _Content] = {id: json.loads(registry.artifact(id)) for id in circuits}
    copies = copies_among(contents)
    groups: dict[str, list[tuple[str, _Content]]] = defaultdict(list)
    for id, circuit in contents.items():
        if id in copies:
            continue
        fields = [circuit.get(name) for name in _SAME]
        way = [*fields, _parameters(circuit), _rule(circuit)]
        groups[canonical_json(way)].append((id, circuit))
    variants = _variants([members[0][1] for members in groups.values()])
    found = [
        _alike(members, variant, copies, prompts)
        for members, variant in zip(groups.values(), variants, strict=True)
    ]
    return sorted(found, key=lambda one: (-len(one.circuits), one.method, one.variant, one.rule))


def replicates(
    registry: Registry, circuit: Circuit, prompts: PromptPairs | None = None
) -> tuple[str, ...]:
    """Circuits that were found the same way on other prompts of the same task.

    At most 20, the newest ones. :func:`group_alike` defines "the same way".

    Args:
        registry: The open registry.
        circuit: One of them.
        prompts: Pairs of prompt sets that were read before.

    Returns:
        Ids, the given one first.
    """
    rows = registry.query(
        "circuits-of-task", task=circuit.task, model=circuit.model, method=circuit.method
    ).to_dicts()
    mine = next((row for row in rows if row["circuit"] == circuit.id), None)
    if mine is None or circuit.prompt_set is None:
        return (circuit.id,)
    others = [
        row
        for row in rows
        if row["prompt_set"] not in (None, circuit.prompt_set)
        and all(row[name] == mine[name] for name in _SAME_WAY)
    ]
    if not others:
        return (circuit.id,)
    others.sort(key=lambda row: (row["recorded_at"], row["circuit"]), reverse=True)
    others.sort(key=lambda row: n_selected(row) != n_selected(mine))
    read = (circuit.id, *(row["circuit"] for row in others[:_MOST_READ]))
    groups = group_alike(registry, read, prompts)
    same = next(group.circuits for group in groups if circuit.id in group.circuits)
    return same[:_MOST_REPLICATES]


def ceiling(
    registry: Registry, circuit: Circuit, prompts: PromptPairs | None = None
) -> Ceiling | None:
    """How much a circuit's replicates share with each other; None if it has none.

    Args:
        registry: The open registry.
        circuit: The circuit.
        prompts: Pairs of prompt sets that were read before.

    Raises:
        GraphError: The graph cannot be read.
    """
    same = replicates(registry, circuit, prompts)
    if len(same) < 2:
        return None
    asked = "circuit-overlaps" if circuit.edges else "circuit-overlaps-of-components"
    shared = {
        (row["a"], row["b"]): row["n_shared"] for row in registry.query(asked, circuits=list(same))
    }
    ordered = sorted(same)
    overlaps = [_iou(shared, a, b) for place, a in enumerate(ordered) for b in ordered[place + 1 :]]
    return Ceiling(circuit.task, len(same), fmean(overlaps), min(overlaps), max(overlaps))


def _iou(shared: Mapping[tuple[str, str], int], a: str, b: str) -> float:
    both = shared.get((a, b), 0)
    union = shared.get((a, a), 0) + shared.get((b, b), 0) - both
    return both / union if union else 0.0


def n_selected(row: Mapping[str, Any]) -> int:
    """Number of selected parts: edges, or nodes if there are no edges.

    Args:
        row: A row of the query ``circuits-of-task``.
    """
    return int(row["n_selected"] or row["n_edges"] or row["n_nodes"])


def _alike(
    members: Sequence[tuple[str, _Content]],
    variant: str,
    copies: Mapping[str, str],
    prompts: PromptPairs,
) -> Alike:
    first, ids = members[0][1], {id for id, _ in members}
    sets = [circuit["prompt_set"] for _, circuit in members if "prompt_set" in circuit]
    first_alike = prompts.first_alike(first["task"], sets)
    kept: dict[str, str] = {}
    for id, circuit in members:
        known = first_alike.get(circuit.get("prompt_set", ""))
        kept.setdefault(known or id, id)  # unknown prompts can be any
    return Alike(
        method=first["method"],
        level=first["level"],
        variant=variant,
        ablation=first.get("ablation"),
        kv_heads=first.get("kv_heads"),
        rule=_text(_rule(first)),
        circuits=tuple(kept.values()),
        n_repeated=len(members) - len(kept),
        copies={copy: of for copy, of in copies.items() if of in ids},
    )


def _parameters(circuit: _Content) -> dict[str, Any]:
    prompts = circuit.get("prompt_set")
    return {
        name: value
        for name, value in circuit["parameters"].items()
        if name != "seed" and (prompts is None or value != prompts)
    }


def _rule(circuit: _Content) -> dict[str, Any]:
    """How edges or nodes were chosen; a size that a wanted faithfulness led to is no part of it."""
    n_edges = len(circuit["edges"])
    size = {"edges": n_edges} if n_edges else {"nodes": len(circuit["nodes"])}
    selection = circuit.get("selection") or size
    results = (*_OF_THE_RESULT, *(_SIZES if "faithfulness" in selection else ()))
    return {name: value for name, value in selection.items() if name not in results}


def _variants(circuits: Sequence[_Content]) -> list[str]:
    """The variant of each circuit: the settings in which circuits of its method differ."""
    parameters = [
        {
            **{name: str(circuit.get(name) or "unknown") for name in _RARELY_DIFFERENT},
            **_parameters(circuit),
        }
        for circuit in circuits
    ]
    found = []
    for circuit, own in zip(circuits, parameters, strict=True):
        others = [
            theirs
            for other, theirs in zip(circuits, parameters, strict=True)
            if other["method"] == circuit["method"]
        ]
        differing = {
            name: value
            for name, value in own.items()
            if name != "method" and any(theirs.get(name) != value for theirs in others)
        }
        variant = own.get("method")
        found.append(", ".join(filter(None, [variant and str(variant), _text(differing)])))
    return found


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
