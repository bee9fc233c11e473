"""A circuit as a graphviz drawing: ``dot -Tsvg circuit.gv -o circuit.svg``.

Nodes are labelled with their names, positions and roles, edges with the input of a head that they
enter. The width of an edge grows with its effect. It is blue if a part helps, red if it hurts, and
grey if signs are unknown. All facts of a circuit except its prompts and scores are also written as
attributes that graphviz ignores (:mod:`ingest.formats.graphs.dot_facts`), with effects in full
precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ingest.formats.exporting import Exporting
from ingest.formats.graphs.dot_facts import facts_as_text
from registry.identifiers import Kind, parse_local
from registry.records import Circuit, Edge, Node, Sign
from registry.texts.markup import dot_quoted

__all__ = ["EXPORTER", "Graphviz"]

_THINNEST, _WIDEST = 0.6, 5.0
_HELPS, _HURTS, _NEITHER = "#3366aa", "#bb4433", "#777777"
_FILLS = {Kind.HEAD: "#dbe7f6", Kind.KV_HEAD: "#dbe7f6", Kind.MLP: "#e4efd9"}
_FILL = "#f2f2f2"


class Graphviz:
    """Writes DOT."""

    name = "graphviz"
    summary = "graphviz .gv, to be drawn with dot; all of a circuit but prompts and scores"
    suffix = ".gv"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:  # noqa: ARG002
        """Return the drawing's text."""
        return "".join(_lines(circuit)).encode()


EXPORTER = Graphviz()


def _lines(circuit: Circuit) -> Iterator[str]:
    yield "digraph circuit {\n"
    yield f"  graph [rankdir=BT];\n  graph {_attributes(facts_as_text(circuit))};\n"
    yield '  node [shape=box, style="rounded,filled", fontname=Helvetica];\n'
    yield "  edge [fontname=Helvetica, fontsize=9];\n"
    for node in circuit.nodes:
        yield f"  {dot_quoted(node.key)} {_attributes(_of_node(node))};\n"
    largest = max((abs(edge.effect) for edge in circuit.edges if edge.effect), default=0.0)
    for edge in circuit.edges:
        ends = f"{dot_quoted(edge.source)} -> {dot_quoted(edge.target)}"
        yield f"  {ends} {_attributes(_of_edge(edge, largest, circuit.sign))};\n"
    yield "}\n"


def _of_node(node: Node) -> dict[str, Any]:
    shown = [node.component, node.position, node.role]
    return {
        "component": node.component, "position": node.position, "effect": node.effect,
        "rank": node.rank, "role": node.role, "density": node.density,
        "label": "\n".join(text for text in shown if text),
        "fillcolor": _FILLS.get(parse_local(node.component).kind, _FILL),
    }  # fmt: skip


def _of_edge(edge: Edge, largest: float, sign: Sign) -> dict[str, Any]:
    return {
        "port": edge.port, "effect": edge.effect, "rank": edge.rank, "label": edge.port,
        "penwidth": f"{_width(edge.effect, largest):.3g}", "color": _color(edge.effect, sign),
    }  # fmt: skip


def _width(effect: float | None, largest: float) -> float:
    if not effect:
        return _THINNEST
    return _THINNEST + (_WIDEST - _THINNEST) * abs(effect) / largest


def _color(effect: float | None, sign: Sign) -> str:
    if not effect or sign is not Sign.HELPS_POSITIVE:
        return _NEITHER
    return _HELPS if effect > 0 else _HURTS


def _attributes(values: Mapping[str, Any]) -> str:
    written = (f"{name}={_value(value)}" for name, value in values.items() if value is not None)
    return f"[{', '.join(written)}]"


def _value(value: Any) -> str:
    # repr gives the shortest digits that are read back as the same float.
    return dot_quoted(value if isinstance(value, str) else repr(value))
