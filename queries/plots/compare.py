"""A picture of two circuits: shared parts, and faintly parts that only one has."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from queries.circuits.folding import shared_key_group
from queries.plots.picture import DrawnEdge, Picture
from registry.records import Circuit, Model

if TYPE_CHECKING:
    from queries.answers.overlap import Comparison

__all__ = ["picture_of_pair"]


def picture_of_pair(a: Circuit, b: Circuit, comparison: Comparison, model: Model) -> Picture:
    """Make the picture of a pair, folded as for the comparison.

    Args:
        a: The first circuit.
        b: The second.
        comparison: Their comparison.
        model: Their model.
    """
    labels = tuple(f"{circuit.task} ({circuit.id[:12]})" for circuit in (a, b))
    folded = dict(zip(labels, (comparison.folded_a, comparison.folded_b), strict=False))
    names = sorted({name for one in folded.values() for name in one.connections})
    # Components are shown only if there are no edges; edges bring their own boxes.
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
        users=parts,
    )


def _edge(name: str, effects: dict[str, float | None]) -> DrawnEdge:
    source, _, target = name.partition("->")
    target, _, port = target.rstrip(">").partition("<")
    return DrawnEdge(source, target, port or None, effects)
