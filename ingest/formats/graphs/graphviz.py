"""Graphviz drawings that are circuits: of KnowledgeCircuits, of ACDC, and our own.

Facts that matter here (ACDC's ``show`` and tools that copied it): node names are ``<a9.6>``,
``<a9.6_q>``, ``<m0>``, ``<resid_post>``, on request followed by an index; edges of style ``invis``
only serve the layout. The width of the pen is twice the effect, with a lower limit: at the smallest
width of a file an edge is present and its effect unknown, for either sign. So widths are stored as
in the file, as absolute values; a user who knows the sign can give it. If the inputs of heads were
merged, an edge has the width of one of them.

Two files may be next to a graph: ``io.txt`` with the prompt and, on its last line, the answer, and
``specialNode.txt`` with parts that the authors highlight. Our own files contain the facts of a
circuit that DOT can hold (:mod:`ingest.formats.graphs.dot_facts`), and these are read back
unchanged. They do not contain its prompts, full scores, evaluations, runs, title and tags: the
imported circuit is a separate circuit whose prompts are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Limits
from ingest.formats.facts import is_ours
from ingest.formats.graphs.dot import DotEdge, DotGraph, read_dot
from ingest.formats.graphs.dot_facts import decoded, facts_from_text
from ingest.formats.graphs.node_link import Graph, check_directed, graph_records
from ingest.formats.reading import OddScores, read_text
from ingest.formats.spelling import read_name
from ingest.formats.tables.cells import number_of
from registry.errors import BadIdentifier, BadInput
from registry.records import Circuit
from registry.texts.words import listed

__all__ = ["FORMAT", "Graphviz"]

_WIDTH = "penwidth"
_PROMPT, _SPECIAL = "io.txt", "specialNode.txt"
_KEPT = frozenset(
    {"style", _WIDTH, "component", "name", "position", "effect", "rank", "role", "port", "density"}
)
_HEAD = re.compile(rb"\s*(?:strict\s+)?(?:di)?graph\b", re.IGNORECASE)
_INDEX = re.compile(r"_\[[^\]]*\](?=>?$)")
_HIDDEN = frozenset({"invis", "invisible"})
_COMPANION_BYTES = 2**20
_LONGEST_NAME = 200
_TEXTS = ("component", "position", "role")


class Graphviz:
    """The format."""

    name = "graphviz"
    summary = "graphviz .gv of KnowledgeCircuits and ACDC, and our own"
    companions = (_PROMPT, _SPECIAL)

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure by the suffix, likely if it begins as DOT does."""
        if path.suffix.lower() in {".gv", ".dot"}:
            return 0.9
        return 0.4 if _HEAD.match(head) and b"{" in head else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a graph; its visible part is the circuit."""
        graph = read_dot(
            read_text(path, context.limits),
            path.name,
            keep=_KEPT | set(context.said.columns.values()),
            max_edges=context.limits.max_edges,
        )
        check_directed(graph.directed, path.name)
        about = facts_from_text(graph.about, path.name)
        if is_ours(about):
            return graph_records(_ours(graph, about), path.name, context)
        return _drawn(graph, path, context)


FORMAT = Graphviz()


def _ours(graph: DotGraph, about: dict[str, Any]) -> Graph:
    found = Graph(about)
    found.nodes.update((name, _decoded(values)) for name, values in graph.nodes.items())
    found.edges.extend(graph.edges)
    return found


def _decoded(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: decoded(v) if name in _TEXTS else v for name, v in attributes.items()}


def _drawn(graph: DotGraph, path: Path, context: Context) -> Imported:
    edges = [edge for edge in graph.edges if not _hidden(edge)]
    if not edges:
        raise BadInput(
            f"{path.name} is a layout, not a circuit: none of its {len(graph.edges):,} edges is"
            " visible (style invis)"
            if graph.edges
            else f"{path.name} has no edge"
        )
    said, parameters = context.said, dict[str, Any]()
    links: _Links = [DotEdge(_bare(e.tail), _bare(e.head), e.attributes) for e in edges]
    notes = _left_out(graph, edges)
    graph.edges.clear()  # the links hold the rest of them
    del edges
    if not any(said.columns.get("effect", "effect") in values for _, _, values in links):
        parameters, more = _take_widths(links, path.name)
        notes += more
        if parameters and "sign" not in said.model_fields_set:
            said = said.model_copy(update={"sign": "unsigned"})
        links, more = _once(links)
        notes += more
    about, special, beside, more = _companions(path)
    circuit_graph = Graph(nodes=_nodes(graph, links, special), edges=[*links])
    del links  # as graph_records does with its edges: the circuit is as large as they are
    found = graph_records(circuit_graph, path.name, Context(said, context.limits))
    circuit = _with_parameters(found.circuits[0], parameters | about)
    singled_out = _notes_on_special(circuit, special)
    return replace(
        found, circuits=[circuit], beside=beside, notes=[*notes, *more, *singled_out, *found.notes]
    )


def _hidden(edge: DotEdge) -> bool:
    styles = edge.attributes.get("style", "").lower().split(",")
    return not _HIDDEN.isdisjoint(style.strip() for style in styles)


def _bare(name: str) -> str:
    """Return a node's name without a hook point's index: ``<a9.6_[:, :, 6]>`` is ``<a9.6>``."""
    return _INDEX.sub("", name) if len(name) < _LONGEST_NAME else name


def _left_out(graph: DotGraph, edges: Sequence[DotEdge]) -> list[str]:
    notes = []
    if len(edges) < len(graph.edges):
        n_hidden = len(graph.edges) - len(edges)
        notes.append(f"invisible edges, which only serve the layout, omitted: {n_hidden:,}")
    n_alone = len(graph.nodes) - len({end for edge in edges for end in (edge.tail, edge.head)})
    if n_alone:
        notes.append(f"nodes without a visible edge omitted: {n_alone:,}")
    return notes


_Links = list[tuple[str, str, dict[str, Any]]]


def _take_widths(links: _Links, name: str) -> tuple[dict[str, Any], list[str]]:
    """Set the effect of each link wider than the minimum; return the method, and notes."""
    odd = OddScores()
    widths = [
        odd.taken(_width(values.pop(_WIDTH, None), name), f"{_WIDTH} of {tail} -> {head}")
        for tail, head, values in links
    ]
    known = [width for width in widths if width is not None]
    if not known:
        return {}, odd.notes()
    floor = min(known)
    for (_, _, values), width in zip(links, widths, strict=True):
        values["effect"] = width if width != floor else None
    n_floor = known.count(floor)
    note = f"{n_floor:,} of {len(links):,} edges are drawn at the least width, {floor:g}"
    notes = [f"{note}: present, effect unknown", *odd.notes()]
    return {"effect": "pen width", "floor": floor}, notes


def _width(text: str | None, name: str) -> float | None:
    if text is None:
        return None
    width = number_of(text)
    if width is None or width < 0:
        raise BadInput(f"{name}: {_WIDTH} {text[:40]!r} is no width")
    return width


def _once(links: _Links) -> tuple[_Links, list[str]]:
    """Merge parallel edges, because a drawing does not distinguish their ports."""
    once: dict[tuple[str, str], dict[str, Any]] = {}
    for tail, head, values in links:
        known = once.setdefault((tail, head), values)
        if known.get("effect") != values.get("effect"):
            known["effect"] = None
    n_more = len(links) - len(once)
    notes = [f"edges parallel to another edge omitted: {n_more:,}"] if n_more else []
    return [(*ends, values) for ends, values in once.items()], notes


def _nodes(
    graph: DotGraph, links: _Links, special: Mapping[str, str]
) -> dict[str | int, Mapping[str, Any]]:
    """Return attributes of the nodes that links join; special nodes get that role."""
    attributes = {_bare(name): values for name, values in graph.nodes.items()}
    nodes: dict[str | int, Mapping[str, Any]] = {}
    for name in dict.fromkeys(end for tail, head, _ in links for end in (tail, head)):
        role = {"role": "special"} if _local(name) in special else {}
        nodes[name] = role | attributes[name]
    return nodes


def _local(name: str) -> str | None:
    try:
        local, port = read_name(name)
    except BadIdentifier:
        return None
    return None if port else local


def _with_parameters(circuit: Circuit, parameters: Mapping[str, Any]) -> Circuit:
    if not parameters:
        return circuit
    return Circuit.model_validate(dict(circuit) | {"parameters": parameters})


# -- files next to a graph -------------------------------------------------------------------------


def _companions(
    path: Path,
) -> tuple[dict[str, Any], dict[str, str], list[Path], list[str]]:
    """Read the files next to a graph: parameters, special parts as spelled, files, notes."""
    about: dict[str, Any] = {}
    special: dict[str, str] = {}
    beside: list[Path] = []
    notes: list[str] = []
    for name in (_PROMPT, _SPECIAL):
        text = _beside(path, name, notes)
        if text is None:
            continue
        beside.append(path.with_name(name))
        if name == _PROMPT:
            about |= _prompt_and_answer(text)
        else:
            special = _special_parts(text, notes)
            about["special"] = sorted(special)
    return about, special, beside, notes


def _beside(path: Path, name: str, notes: list[str]) -> str | None:
    """Return the text of a file next to another, unless it is a link; None, with a note, if not."""
    companion = path.with_name(name)
    if companion.is_symlink() or not companion.is_file():
        return None
    try:
        text = read_text(companion, Limits(max_bytes=_COMPANION_BYTES))
        if "\x00" in text:
            raise BadInput(f"{name} is no text: it holds a character NUL")
    except BadInput as error:
        notes.append(f"omitted: {error}")
        return None
    return text


def _prompt_and_answer(text: str) -> dict[str, str]:
    lines = text.rstrip("\n").split("\n")
    if len(lines) < 2:
        return {"prompt": lines[0]} if lines[0] else {}
    return {"prompt": "\n".join(lines[:-1]), "answer": lines[-1]}


def _special_parts(text: str, notes: list[str]) -> dict[str, str]:
    special: dict[str, str] = {}
    strangers: dict[str, None] = {}
    for name in filter(None, map(str.strip, re.split(r"[\n,;]", text))):
        local = _local(name)
        if local is None:
            strangers[name[:40]] = None
        else:
            special[local] = name
    if strangers:
        are = "is no part" if len(strangers) == 1 else "are no parts"
        notes.append(f"{_SPECIAL} names {listed([*map(repr, strangers)])}, which {are}")
    return special


def _notes_on_special(circuit: Circuit, special: Mapping[str, str]) -> list[str]:
    if not special:
        return []
    found = [node.component for node in circuit.nodes if node.component in special]
    absent = sorted(set(special) - set(found))
    notes = [f"the authors highlight {listed(found)} (role special)"] if found else []
    return notes + ([f"not in the graph: {listed(absent)} of {_SPECIAL}"] if absent else [])
