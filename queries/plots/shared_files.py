"""What several tasks share, as a file: a drawing, GraphML, DOT or JSON, depending on its suffix.

GraphML is for networkx, yEd, Gephi and Cytoscape; DOT is for graphviz (``dot -Tsvg shared.dot``).
Both also contain the links from key/value heads to query heads, which are not connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queries.answers.shared.rows import CONTENTS, SPECIFIC
from queries.plots.picture import FILLS, MAX_EDGES, DrawnEdge, Picture, acts, colour_of
from registry.errors import BadInput
from registry.identifiers import parse_local, sort_key
from registry.texts.markup import NOT_XML, dot_quoted

if TYPE_CHECKING:
    import networkx

    from queries.answers.shared.parts import Used
    from queries.answers.shared.subgraph import SharedSubgraph

__all__ = ["SUFFIXES", "check_suffix", "picture_of", "write_shared"]

_DRAWINGS = (".svg", ".png", ".pdf")
SUFFIXES = (*_DRAWINGS, ".graphml", ".dot", ".gv", ".json")
_MAX_COMPONENTS = 60
"""Maximum number of components that are drawn if there are no connections."""


def check_suffix(path: Path) -> None:
    """Refuse a file that cannot be written, before any query runs.

    Raises:
        BadInput: Its suffix is not one of :data:`SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(
            f"cannot write to {str(path)!r}; name a file that ends in "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )


def write_shared(found: SharedSubgraph, path: Path, *, max_edges: int = MAX_EDGES) -> None:
    """Write it in the format of the suffix of ``path``.

    Args:
        found: The shared subgraph.
        path: The file.
        max_edges: Maximum number of drawn connections, the strongest first; other formats hold all.

    Raises:
        BadInput: The suffix is not supported, or there is nothing to draw.
        MissingExtra: A drawing needs the extra ``plots``, which is not installed.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix in _DRAWINGS:
        from queries.plots.circuit import draw

        draw(picture_of(found, max_edges), path)
    else:
        writer = {".graphml": as_graphml, ".json": as_json}.get(suffix, as_dot)
        path.write_text(writer(found), encoding="utf-8", newline="\n")


# -- drawing ---------------------------------------------------------------------------------------


def picture_of(found: SharedSubgraph, max_edges: int = MAX_EDGES) -> Picture:
    """Make the picture: shared and specific connections, or components if there are none."""
    least = found.min_tasks
    specific = (of.connections for of in (found.unique or {}).values()) if least > 1 else ()
    n_tasks = len(found.tasks)
    those_of_all = "both" if n_tasks == 2 else f"all {n_tasks}"
    among = those_of_all if least == n_tasks else f"{least} or more of {n_tasks}"
    edges = tuple(
        DrawnEdge(one.source, one.target, one.port, _shown(one))
        for one in chain(found.connections, *specific)
    )
    alone = () if found.connections else found.components[:_MAX_COMPONENTS]
    return Picture(
        title=f"What {among} tasks share in {found.model}",
        tasks=found.tasks,
        edges=edges if found.connections else (),
        components={one.name: one.n_tasks for one in alone},
        min_tasks=least,
        heads_per_group=found.heads_per_group,
        max_edges=max_edges,
        users=_users(found),
    )


def _users(found: SharedSubgraph) -> dict[str, int]:
    """Number of tasks that use a component, as exactly as the colours of a drawing show it."""
    specific = [one for of in (found.unique or {}).values() for one in of.components]
    ends = {end for of in (found.unique or {}).values() for one in of.connections
            for end in (one.source, one.target)}  # fmt: skip
    # A part that is neither shared by enough tasks nor specific has two or more tasks, but not all.
    users = dict.fromkeys(ends, 2)
    return users | {one.name: one.n_tasks for one in (*found.components, *specific)}


def _shown(one: Used) -> dict[str, float | None]:
    return {
        task: use.magnitude if use.effect is None else use.effect for task, use in one.uses.items()
    }


# -- GraphML ---------------------------------------------------------------------------------------


def as_graphml(found: SharedSubgraph) -> str:
    """Write the subgraph as GraphML, with ``effect TASK`` and ``magnitude TASK`` for each task.

    A link has no ``connection``. Unknown attributes have no value. Characters that XML does not
    allow are replaced.
    """
    import networkx as nx

    graph = found.to_networkx()
    plain: networkx.MultiDiGraph[str] = nx.MultiDiGraph(**_plain(graph.graph))
    for name, data in graph.nodes(data=True):
        plain.add_node(name, **_plain(data))
    for source, target, data in graph.edges(data=True):
        # Keys become the ids of edges, which must be unique within a file.
        key = data["connection"] or f"{source}=>{target}"
        plain.add_edge(source, target, key=key, **_plain(data))
    return "\n".join(nx.generate_graphml(plain)) + "\n"


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes in the form of GraphML: one value each, of a known type."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{name[:-1]} {task}": number for task, number in value.items()}
        elif isinstance(value, tuple):
            flat[name] = NOT_XML.sub("\N{REPLACEMENT CHARACTER}", ", ".join(value)) or None
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if value is not None}


# -- DOT -------------------------------------------------------------------------------------------

_THINNEST, _WIDEST = 0.6, 5.0


def as_dot(found: SharedSubgraph) -> str:
    """Write the subgraph for graphviz: width shows strength, and dashes show edges that hurt.

    A hollow tip marks an edge that helps one task and hurts another. Dotted lines are links from
    key/value heads to query heads. The tooltip of a part lists its tasks and its effects.
    """
    return "".join(f"{line}\n" for line in _dot_lines(found))


def _dot_lines(found: SharedSubgraph) -> Iterator[str]:
    title = picture_of(found).title
    yield "digraph shared {"
    yield f"  graph [rankdir=LR, fontname=Helvetica, labelloc=t, label={dot_quoted(title)}];"
    yield '  node [shape=box, style="rounded,filled", fontname=Helvetica];'
    yield "  edge [fontname=Helvetica, fontsize=9];"
    n_tasks = len(found.tasks)
    for part in sorted(found.components, key=lambda one: sort_key(parse_local(one.name))):
        colour = colour_of(part.n_tasks, n_tasks)
        yield f"  {dot_quoted(part.name)} " + _attributes(
            label="\n".join((part.name, *part.roles)), color=colour, fillcolor=FILLS[colour],
            tooltip=_tooltip(part),
        )  # fmt: skip
    strongest = max((one.strength or 0.0 for one in found.connections), default=0.0) or 1.0
    for one in found.connections:
        yield f"  {dot_quoted(one.source)} -> {dot_quoted(one.target)} " + _attributes(
            label=one.port, color=colour_of(one.n_tasks, n_tasks), tooltip=_tooltip(one),
            penwidth=f"{_THINNEST + (_WIDEST - _THINNEST) * (one.strength or 0.0) / strongest:.3g}",
            style="dashed" if acts(_shown(one)) == "hurts" else None,
            arrowhead="odiamond" if acts(_shown(one)) == "mixed" else None,
        )  # fmt: skip
    for source, target in found.links:
        yield f"  {dot_quoted(source)} -> {dot_quoted(target)} [style=dotted, arrowhead=none];"
    yield "}"


def _tooltip(one: Used) -> str:
    """Its effect in each task, one line per task."""
    shown = _shown(one)
    return "\n".join(
        f"{task}: {'unknown' if effect is None else format(effect, '.4g')}"
        for task, effect in shown.items()
    )


def _attributes(**values: str | None) -> str:
    written = (f"{name}={dot_quoted(value)}" for name, value in values.items() if value is not None)
    return f"[{', '.join(written)}];"


# -- JSON ------------------------------------------------------------------------------------------


def as_json(found: SharedSubgraph) -> str:
    """Write all parts of the answer, like ``--format json``, with the model and the tasks."""
    about = {
        "model": found.model,
        "tasks": found.tasks,
        "min_tasks": found.min_tasks,
        "notes": found.notes,
        "links": found.links,
    }
    contents = (*CONTENTS, *(SPECIFIC if found.unique is not None else ()))
    parts = {of: found.to_rows(of).to_dicts() for of in contents}
    return json.dumps({**about, **parts}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
