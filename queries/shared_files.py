"""What several tasks share, as a file: a drawing, GraphML, DOT or JSON, by its suffix.

GraphML is for networkx, yEd, Gephi and Cytoscape, DOT for graphviz (``dot -Tsvg shared.dot``);
both hold the links from key/value heads to query heads, too, which are no connections.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queries.drawn import FILLS, MAX_EDGES, DrawnEdge, Picture, acts, colour_of
from queries.shared_rows import CONTENTS, SPECIFIC
from registry.errors import BadInput
from registry.identifiers import parse_local, sort_key

if TYPE_CHECKING:
    import networkx

    from queries.shared import SharedSubgraph
    from queries.shared_parts import Used

__all__ = ["SUFFIXES", "check_suffix", "picture_of", "write_shared"]

_DRAWINGS = (".svg", ".png", ".pdf")
SUFFIXES = (*_DRAWINGS, ".graphml", ".dot", ".gv", ".json")
_MAX_COMPONENTS = 60
"""Components that are drawn where there are no connections."""


def check_suffix(path: Path) -> None:
    """Refuse a file that could not be written, before anything is asked.

    Raises:
        BadInput: Its suffix is none of :data:`SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(
            f"cannot write to {str(path)!r}; name a file that ends in "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )


def write_shared(found: SharedSubgraph, path: Path, *, max_edges: int = MAX_EDGES) -> None:
    """Write it by the suffix of ``path``.

    Args:
        found: What is shared.
        path: The file.
        max_edges: At most so many connections are drawn, the strongest; other files hold all.

    Raises:
        BadInput: The suffix is another, or there is nothing to draw.
        MissingExtra: A drawing needs the extra ``plots``, which is not installed.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix in _DRAWINGS:
        from queries.drawing import draw

        draw(picture_of(found, max_edges), path)
    else:
        writer = {".graphml": as_graphml, ".json": as_json}.get(suffix, as_dot)
        path.write_text(writer(found), encoding="utf-8", newline="\n")


# -- drawing ---------------------------------------------------------------------------------------


def picture_of(found: SharedSubgraph, max_edges: int = MAX_EDGES) -> Picture:
    """What to draw: shared connections beside specific ones, or components where there are none."""
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
    )


def _shown(one: Used) -> dict[str, float | None]:
    return {
        task: use.magnitude if use.effect is None else use.effect for task, use in one.uses.items()
    }


# -- GraphML ---------------------------------------------------------------------------------------

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def as_graphml(found: SharedSubgraph) -> str:
    """The subgraph in GraphML; attributes ``effect TASK`` and ``magnitude TASK`` for each task.

    A link has no ``connection``. What is unknown has no value; characters that XML has not are
    replaced.
    """
    import networkx as nx

    graph = found.to_networkx()
    plain: networkx.MultiDiGraph[str] = nx.MultiDiGraph(**_plain(graph.graph))
    for name, data in graph.nodes(data=True):
        plain.add_node(name, **_plain(data))
    for source, target, data in graph.edges(data=True):
        # Keys become the ids of edges, which are told apart within a file.
        key = data["connection"] or f"{source}=>{target}"
        plain.add_edge(source, target, key=key, **_plain(data))
    return "\n".join(nx.generate_graphml(plain)) + "\n"


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as GraphML has them: one value each, of a known type."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= {f"{name[:-1]} {task}": number for task, number in value.items()}
        elif isinstance(value, tuple):
            flat[name] = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", ", ".join(value)) or None
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if value is not None}


# -- DOT -------------------------------------------------------------------------------------------

_SPECIAL = re.compile(r"[&\"\\<>\x00-\x1f\x7f-\x9f\u2028\u2029]")
_THINNEST, _WIDEST = 0.6, 5.0


def as_dot(found: SharedSubgraph) -> str:
    """The subgraph for graphviz: a line is as wide as it is strong, and dashed where it hurts.

    A hollow tip is for what helps one task and hurts another; dotted lines are links from key/value
    heads to query heads. What tasks a part is used by, and what it does there, is its tooltip.
    """
    return "".join(f"{line}\n" for line in _dot_lines(found))


def _dot_lines(found: SharedSubgraph) -> Iterator[str]:
    title = picture_of(found).title
    yield "digraph shared {"
    yield f"  graph [rankdir=LR, fontname=Helvetica, labelloc=t, label={_quoted(title)}];"
    yield '  node [shape=box, style="rounded,filled", fontname=Helvetica];'
    yield "  edge [fontname=Helvetica, fontsize=9];"
    n_tasks = len(found.tasks)
    for part in sorted(found.components, key=lambda one: sort_key(parse_local(one.name))):
        colour = colour_of(part.n_tasks, n_tasks)
        yield f"  {_quoted(part.name)} " + _attributes(
            label="\n".join((part.name, *part.roles)), color=colour, fillcolor=FILLS[colour],
            tooltip=_told(part),
        )  # fmt: skip
    strongest = max((one.strength or 0.0 for one in found.connections), default=0.0) or 1.0
    for one in found.connections:
        yield f"  {_quoted(one.source)} -> {_quoted(one.target)} " + _attributes(
            label=one.port, color=colour_of(one.n_tasks, n_tasks), tooltip=_told(one),
            penwidth=f"{_THINNEST + (_WIDEST - _THINNEST) * (one.strength or 0.0) / strongest:.3g}",
            style="dashed" if acts(_shown(one)) == "hurts" else None,
            arrowhead="odiamond" if acts(_shown(one)) == "mixed" else None,
        )  # fmt: skip
    for source, target in found.links:
        yield f"  {_quoted(source)} -> {_quoted(target)} [style=dotted, arrowhead=none];"
    yield "}"


def _told(one: Used) -> str:
    """What it does in each task, as a line each."""
    shown = _shown(one)
    return "\n".join(
        f"{task}: {'unknown' if effect is None else format(effect, '.4g')}"
        for task, effect in shown.items()
    )


def _attributes(**values: str | None) -> str:
    written = (f"{name}={_quoted(value)}" for name, value in values.items() if value is not None)
    return f"[{', '.join(written)}];"


def _quoted(text: str) -> str:
    # As character references, which graphviz knows, no character can end the text or the line.
    return '"' + _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text) + '"'


# -- JSON ------------------------------------------------------------------------------------------


def as_json(found: SharedSubgraph) -> str:
    """All parts of the answer, as ``--format json`` writes them, with what it is about."""
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
