"""What is drawn of a circuit, or of several: which edges, how strong they are, what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "FILLS",
    "OWN",
    "SHARED_BY_ALL",
    "SHARED_BY_SOME",
    "DrawnEdge",
    "Picture",
    "acts",
    "colour_of",
    "edge_key",
    "strengths",
    "strongest",
]

MAX_EDGES = 60
_SHARED_PER_CONTEXT = 4

SHARED_BY_ALL = "#0b6e75"
SHARED_BY_SOME = "#d9822b"
OWN = "#aab4bf"
FILLS: Mapping[str, str] = {SHARED_BY_ALL: "#d5eeee", SHARED_BY_SOME: "#fbe7d0", OWN: "#f1f3f5"}
"""Colour of a box by the colour of its border."""


@dataclass(frozen=True, slots=True)
class DrawnEdge:
    """An edge with what it does in every task that uses it.

    Attributes:
        source: Local name of the component it leaves.
        target: Local name of the component it enters.
        port: Input of an attention head, or None.
        effects: By task; None where the effect is unknown. Its keys are the tasks that use it.
    """

    source: str
    target: str
    port: str | None
    effects: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Picture:
    """What to draw.

    Attributes:
        title: Heading.
        tasks: Tasks, or names of circuits, that are compared; those edges' effects are keyed by.
        edges: What may be drawn; see :func:`strongest`.
        min_tasks: An edge of so many tasks counts as shared; others are context, drawn faintly.
        heads_per_group: Query heads that read from one key/value head, to show which do.
        components: Local names drawn even where no drawn edge touches them, with how many tasks
            use them.
        max_edges: At most so many shared edges are drawn, the strongest.
    """

    title: str
    tasks: tuple[str, ...]
    edges: tuple[DrawnEdge, ...]
    min_tasks: int = 1
    heads_per_group: int | None = None
    components: Mapping[str, int] = field(default_factory=dict)
    max_edges: int = MAX_EDGES


def strongest(picture: Picture) -> tuple[DrawnEdge, ...]:
    """The edges that are drawn: the strongest shared ones, then a few others for context."""
    strength = strengths(picture)
    ordered = sorted(picture.edges, key=lambda edge: (-strength[edge_key(edge)], edge_key(edge)))
    shared = [edge for edge in ordered if len(edge.effects) >= picture.min_tasks]
    others = [edge for edge in ordered if len(edge.effects) < picture.min_tasks]
    return (*shared[: picture.max_edges], *others[: picture.max_edges // _SHARED_PER_CONTEXT])


def edge_key(edge: DrawnEdge) -> tuple[str, str, str]:
    """What tells edges of one picture apart."""
    return edge.source, edge.target, edge.port or ""


def strengths(picture: Picture) -> dict[tuple[str, str, str], float]:
    """How strong an edge is for at least ``min_tasks`` tasks; 0 where its effects are unknown.

    Effects are shares of their task's largest; of an edge's, the ``min_tasks``-th largest counts.
    So an edge that one task uses much and another hardly is no strong shared edge.
    """
    largest = {
        task: max((abs(edge.effects.get(task) or 0.0) for edge in picture.edges), default=0.0)
        for task in picture.tasks
    }
    strength = {}
    for edge in picture.edges:
        sizes = [
            abs(effect or 0.0) / largest[task] if largest[task] else 0.0
            for task, effect in edge.effects.items()
        ]
        counts = min(picture.min_tasks, len(sizes)) - 1
        strength[edge_key(edge)] = sorted(sizes, reverse=True)[counts] if sizes else 0.0
    return strength


def colour_of(n_tasks: int, n_compared: int) -> str:
    """Colour that tells how many of the compared tasks use a part."""
    if n_tasks >= n_compared:
        return SHARED_BY_ALL
    return SHARED_BY_SOME if n_tasks > 1 else OWN


def acts(effects: Mapping[str, float | None]) -> str:
    """What known effects do: ``helps``, ``hurts``, or ``mixed`` where some do this and some that.

    Where nothing is known it counts as help: a size without a sign is drawn like one.
    """
    known = [effect for effect in effects.values() if effect]
    if not any(effect < 0 for effect in known):
        return "helps"
    return "mixed" if any(effect > 0 for effect in known) else "hurts"
