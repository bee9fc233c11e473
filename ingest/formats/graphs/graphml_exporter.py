"""A circuit as GraphML, for networkx, yEd, Gephi and Cytoscape.

Nodes are named by their keys and have ``component``, ``kind``, ``layer``, ``position``, ``effect``,
``rank``, ``role`` and ``density``; edges have ``port``, ``effect`` and ``rank``; the graph has the
circuit's facts (:mod:`ingest.formats.facts`). Unknown facts have no value. If one part feeds two
ports of one head, these are two edges, so readers without multigraphs keep only one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from ingest.formats.exporting import Exporting
from ingest.formats.facts import JSON_FACTS, facts_of
from registry.errors import BadInput
from registry.identifiers import parse_local
from registry.records import Circuit, Edge, Node
from registry.texts.markup import NOT_XML

__all__ = ["EXPORTER", "GraphMl"]

_TYPES: dict[str, dict[str, str]] = {
    "graph": {
        "circuits_format": "long", "model": "string", "task": "string", "method": "string",
        "metric": "string", "higher_is_better": "boolean", "ablation": "string",
        "sign": "string", "kv_heads": "string", "level": "string", "parameters": "string",
        "selection": "string", "universe_size": "long",
    },
    "node": {
        "label": "string", "component": "string", "kind": "string", "layer": "long",
        "position": "string", "effect": "double", "rank": "long", "role": "string",
        "density": "double",
    },
    "edge": {"port": "string", "effect": "double", "rank": "long"},
}  # fmt: skip
# XML readers replace them by other spaces if they are not encoded.
_SPACES = {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns'
    ' http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">\n'
)


class GraphMl:
    """Writes GraphML."""

    name = "graphml"
    summary = "GraphML for networkx, yEd, Gephi, Cytoscape; all of a circuit but prompts and scores"
    suffix = ".graphml"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:  # noqa: ARG002
        """Return the document.

        Raises:
            BadInput: A text has a character that XML does not allow.
        """
        return "".join(_document(circuit)).encode()


EXPORTER = GraphMl()


def _document(circuit: Circuit) -> Iterator[str]:
    yield _HEAD
    for domain, types in _TYPES.items():
        for name, type_ in types.items():
            yield (
                f'  <key id="{_key(domain, name)}" for="{domain}" attr.name="{name}"'
                f' attr.type="{type_}"/>\n'
            )
    yield '  <graph edgedefault="directed">\n'
    yield from _data("graph", "    ", _about(circuit))
    for node in circuit.nodes:
        yield f"    <node id={_attribute(node.key)}>\n"
        yield from _data("node", "      ", _of_node(node))
        yield "    </node>\n"
    for number, edge in enumerate(circuit.edges):
        ends = f"source={_attribute(edge.source)} target={_attribute(edge.target)}"
        yield f'    <edge id="e{number}" {ends}>\n'
        yield from _data("edge", "      ", _of_edge(edge))
        yield "    </edge>\n"
    yield "  </graph>\n</graphml>\n"


def _key(domain: str, name: str) -> str:
    return f"{domain}_{name}"


def _about(circuit: Circuit) -> dict[str, Any]:
    return {
        name: json.dumps(value, sort_keys=True) if name in JSON_FACTS else value
        for name, value in facts_of(circuit).items()
    }


def _of_node(node: Node) -> dict[str, Any]:
    local = parse_local(node.component)
    return {
        "label": node.key, "component": node.component, "kind": str(local.kind),
        "layer": local.layer, "position": node.position, "effect": node.effect,
        "rank": node.rank, "role": node.role, "density": node.density,
    }  # fmt: skip


def _of_edge(edge: Edge) -> dict[str, Any]:
    return {"port": edge.port, "effect": edge.effect, "rank": edge.rank}


def _data(domain: str, indent: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:
            text = escape(_text(value), _SPACES)
            yield f'{indent}<data key="{_key(domain, name)}">{text}</data>\n'


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else repr(value)
    if found := NOT_XML.search(text):
        raise BadInput(f"XML has no character {found[0]!r}, which is in {text[:40]!r}")
    return text


def _attribute(text: str) -> str:
    return quoteattr(_text(text), _SPACES)
