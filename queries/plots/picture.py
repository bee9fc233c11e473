"""What is drawn of one or several circuits: edges, their strengths and their effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    "users_of",
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
    """An edge with its effect in every task that uses it.

    Attributes:
        source: Local name of the component it leaves.
        target: Local name of the component it enters.
        port: Input of an attention head, or None.
        effects: Effect by task; None if it is unknown. The keys are the tasks that use the edge.
    """

    source: str
    target: str
    port: str | None
    effects: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Picture:
    """The content of a drawing.

    Attributes:
        title: Heading.
        tasks: Compared tasks, or names of circuits; the keys of the edges' effects.
        edges: Candidates to draw; see :func:`strongest`.
        min_tasks: Number of tasks from which an edge counts as shared; other edges are context and
            drawn faintly.
        heads_per_group: Query heads that read one key/value head, used to draw these links.
        components: Local names that are always drawn, even without a drawn edge, with the number of
            tasks that use them.
        max_edges: Maximum number of shared edges to draw, the strongest first.
        users: Number of tasks that use a component, by local name. Tasks can use it by edges that
            they do not share, so this can exceed the number of tasks of every drawn edge.
    """

    title: str
    tasks: tuple[str, ...]
    edges: tuple[DrawnEdge, ...]
    min_tasks: int = 1
    heads_per_group: int | None = None
    components: Mapping[str, int] = field(default_factory=dict)
    max_edges: int = MAX_EDGES
    users: Mapping[str, int] = field(default_factory=dict)


def strongest(picture: Picture) -> tuple[DrawnEdge, ...]:
    """The edges that are drawn: the strongest shared ones, then a few others for context."""
    strength = strengths(picture)
    ordered = sorted(picture.edges, key=lambda edge: (-strength[edge_key(edge)], edge_key(edge)))
    shared = [edge for edge in ordered if len(edge.effects) >= picture.min_tasks]
    others = [edge for edge in ordered if len(edge.effects) < picture.min_tasks]
    return (*shared[: picture.max_edges], *others[: picture.max_edges // _SHARED_PER_CONTEXT])


def users_of(picture: Picture, edges: Iterable[DrawnEdge]) -> dict[str, int]:
    """Number of tasks that use each drawn component, isolated or at the end of an edge."""
    users = dict(picture.components)
    for edge in edges:
        for name in (edge.source, edge.target):
            known = picture.users.get(name, 0)
            users[name] = max(users.get(name, 0), known, len(edge.effects))
    return users


def edge_key(edge: DrawnEdge) -> tuple[str, str, str]:
    """The key that distinguishes edges of one picture."""
    return edge.source, edge.target, edge.port or ""


def strengths(picture: Picture) -> dict[tuple[str, str, str], float]:
    """Strength of an edge for at least ``min_tasks`` tasks; 0 if its effects are unknown.

    Effects are divided by the largest effect of their task. The ``min_tasks``-th largest value of
    the edge is its strength, so that an edge must be strong in all these tasks to count as strong.
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
    """Colour for the number of compared tasks that use a part."""
    if n_tasks >= n_compared:
        return SHARED_BY_ALL
    return SHARED_BY_SOME if n_tasks > 1 else OWN


def acts(effects: Mapping[str, float | None]) -> str:
    """Sign of the known effects: ``helps``, ``hurts``, or ``mixed`` if signs differ.

    Unknown effects count as help, because sizes without signs are drawn the same way.
    """
    known = [effect for effect in effects.values() if effect]
    if not any(effect < 0 for effect in known):
        return "helps"
    return "mixed" if any(effect > 0 for effect in known) else "hurts"
