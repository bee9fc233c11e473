"""A picture of two circuits beside each other: what they share, and faintly what they do not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from queries.drawn import DrawnEdge, Picture
from queries.folding import shared_key_group
from registry.records import Circuit, Model

if TYPE_CHECKING:
    from queries.compare import Comparison

__all__ = ["picture_of_pair"]


def picture_of_pair(a: Circuit, b: Circuit, comparison: Comparison, model: Model) -> Picture:
    """What there is to draw of a pair, as it was folded to be compared.

    Args:
        a: The first circuit.
        b: The second.
        comparison: What they share.
        model: Theirs.
    """
    labels = tuple(f"{circuit.task} ({circuit.id[:12]})" for circuit in (a, b))
    folded = dict(zip(labels, (comparison.folded_a, comparison.folded_b), strict=False))
    names = sorted({name for one in folded.values() for name in one.connections})
    # Without edges there are components to show; with them, boxes come with their edges.
    parts = Counter(part for one in folded.values() for part in one.components)
    return Picture(
        title=f"What two circuits in {a.model} share",
        tasks=tuple(folded),
        edges=tuple(
            _edge(
                name,
                {label: one.effects[name] for label, one in folded.items() if name in one.effects},
            )
            for name in names
        ),
        min_tasks=len(folded),
        heads_per_group=shared_key_group(model),
        components={} if names else dict(parts),
    )


def _edge(name: str, effects: dict[str, float | None]) -> DrawnEdge:
    source, _, target = name.partition("->")
    target, _, port = target.rstrip(">").partition("<")
    return DrawnEdge(source, target, port or None, effects)
