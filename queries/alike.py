"""Which circuits of a task were found the same way, so that they differ in their prompts alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.records import canonical_json

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Alike", "group_alike"]

_SAME = ("model", "task", "method", "metric", "sign", "level", "ablation", "kv_heads")
_SELDOM = ("metric", "sign", "level")
"""Fields that circuits of one method and task seldom differ in."""
_OF_THE_RESULT = ("dangling_removed", "selected")
"""Entries of a selection that come out of it."""
_SIZES = ("top", "greedy")


_Content = Mapping[str, Any]
"""A circuit's content as it is kept, without what is None."""


@dataclass(frozen=True, slots=True)
class Alike:
    """Circuits that were found the same way.

    Attributes:
        method: What found them.
        variant: What tells this way from others of the method: ``eap-ig-inputs, steps 5``.
        ablation: What took the place of a component's activation.
        kv_heads: ``grouped`` or ``per-query-head``.
        rule: How edges were chosen: ``top 500, by absolute``; the number of edges where the record
            does not say.
        circuits: Their ids, in the order given.
        n_repeated: Circuits left out, as another of these was found on the same prompts.
    """

    method: str
    variant: str
    ablation: str | None
    kv_heads: str | None
    rule: str
    circuits: tuple[str, ...]
    n_repeated: int


def group_alike(registry: Registry, circuits: Iterable[str]) -> list[Alike]:
    """Put circuits into groups that were found the same way, the largest group first.

    The same model, task, method with its parameters, metric, ablation, key/value heads and rule of
    choice. A parameter that names the circuit's own prompts, and a seed, are no difference.

    Args:
        registry: Where they are.
        circuits: Full ids; of those found the same way on the same prompts the first is kept.
    """
    groups: dict[str, list[tuple[str, _Content]]] = defaultdict(list)
    for id in circuits:
        # Read as it is: to validate all edges of hundreds of circuits would take most of the time.
        circuit: _Content = json.loads(registry.artifact(id))
        fields = [circuit.get(name) for name in _SAME]
        way = [*fields, _parameters(circuit), _rule(circuit)]
        groups[canonical_json(way)].append((id, circuit))
    variants = _variants([members[0][1] for members in groups.values()])
    found = [
        _alike(members, variant) for members, variant in zip(groups.values(), variants, strict=True)
    ]
    return sorted(found, key=lambda one: (-len(one.circuits), one.method, one.variant, one.rule))


def _alike(members: Sequence[tuple[str, _Content]], variant: str) -> Alike:
    first = members[0][1]
    kept: dict[str, str] = {}
    for id, circuit in members:
        kept.setdefault(circuit.get("prompt_set", id), id)  # unknown prompts may be any
    return Alike(
        method=first["method"],
        variant=variant,
        ablation=first.get("ablation"),
        kv_heads=first.get("kv_heads"),
        rule=_text(_rule(first)),
        circuits=tuple(kept.values()),
        n_repeated=len(members) - len(kept),
    )


def _parameters(circuit: _Content) -> dict[str, Any]:
    prompts = circuit.get("prompt_set")
    return {
        name: value
        for name, value in circuit["parameters"].items()
        if name != "seed" and (prompts is None or value != prompts)
    }


def _rule(circuit: _Content) -> dict[str, Any]:
    """How edges were chosen; a size that a wanted faithfulness led to is no part of it."""
    selection = circuit.get("selection") or {"edges": len(circuit["edges"])}
    results = (*_OF_THE_RESULT, *(_SIZES if "faithfulness" in selection else ()))
    return {name: value for name, value in selection.items() if name not in results}


def _variants(circuits: Sequence[_Content]) -> list[str]:
    """Of each circuit, its variant and in what others of its method differ from it."""
    parameters = [
        {**{name: str(circuit.get(name)) for name in _SELDOM}, **_parameters(circuit)}
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
