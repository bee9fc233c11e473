"""GraphML, as networkx, yEd, Gephi and Cytoscape write it.

The graph must be directed and not nested. Names, effects and other attributes are read as in
:mod:`ingest.formats.graphs.node_link`; yEd's label of a node counts as its ``label``. A DOCTYPE is
refused where it begins, before its declarations are read: entities can name files and expand to any
size, and GraphML does not need them.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ingest.formats.base import Context, Imported, Limits
from ingest.formats.facts import JSON_FACTS, is_ours
from ingest.formats.graphs.node_link import Graph, check_directed, graph_records
from ingest.formats.reading import check_count, check_size, count_in_file, each_once
from ingest.formats.tables.cells import may_be_number
from registry.errors import BadInput

__all__ = ["FORMAT", "GraphMl"]

_DEEPEST = 100
_CHUNK_BYTES = 1 << 16
_NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
_NODE_LABEL = "http://www.yworks.com/xml/graphml NodeLabel"
_NUMBERS = frozenset({"int", "integer", "long", "float", "double"})
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class GraphMl:
    """The format."""

    name = "graphml"
    summary = "GraphML of networkx, yEd, Gephi, Cytoscape: directed graphs"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if it has the name of the root element."""
        if b"<graphml" in head:
            return 0.95
        return 0.5 if path.suffix.lower() == ".graphml" else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a graph; all its edges are the circuit."""
        check_size(path, context.limits)
        check_count(count_in_file(path, b"<edge "), "edges", path.name, context.limits)
        reader = _Reader(path.name, context.limits)
        try:
            with path.open("rb") as file:
                n_bytes = _CHUNK_BYTES
                while chunk := file.read(n_bytes):
                    reader.parser.Parse(chunk, False)
                    n_bytes *= 2  # an incomplete token is read again with every chunk
            reader.parser.Parse(b"", True)
        except BadInput:
            raise
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
        except (expat.ExpatError, ValueError, LookupError) as error:  # also unknown encodings
            raise BadInput(f"{path.name} is no XML: {error}") from error
        return graph_records(reader.graph(), path.name, context)


FORMAT = GraphMl()


class _Key:
    """A declared attribute."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self.domain = attributes.get("for", "all")
        self.name = attributes.get("attr.name") or attributes.get("id", "")
        self.type = attributes.get("attr.type", "string")


class _Reader:
    """Collects a graph from the events of a parser."""

    def __init__(self, file: str, limits: Limits) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text_found
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._file, self._limits = file, limits
        self._graph: Graph | None = None
        self._open: list[str] = []
        self._keys: dict[str, _Key] = {}
        self._defaults: dict[str, dict[str, Any]] = {"graph": {}, "node": {}, "edge": {}}
        self._ids: dict[str, str] = {}  # each name once, although every edge has two
        self._of: MutableMapping[str, Any] | None = None
        self._key: _Key | None = None
        self._text: list[str] | None = None

    def graph(self) -> Graph:
        """Return the graph.

        Raises:
            BadInput: There is no graph.
        """
        if self._graph is None:
            raise self._wrong("there is no graph")
        about = self._graph.about
        if is_ours(about):
            for name in JSON_FACTS & about.keys():
                about[name] = self._object(name, about[name])
        return self._graph

    def _object(self, name: str, text: Any) -> Any:
        try:
            return json.loads(text, parse_constant=lambda _: None, object_pairs_hook=each_once)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._wrong(f"{name} of the graph is no JSON: {error}") from error

    def _wrong(self, what: str) -> BadInput:
        return BadInput(f"{self._file}, line {self.parser.CurrentLineNumber}: {what}")

    def _doctype(self, *_declared: object) -> None:
        raise self._wrong("a DOCTYPE, with its entities, is not read; delete it")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._open.append(name)
        if len(self._open) > _DEEPEST:
            raise self._wrong(f"elements are nested more than {_DEEPEST} deep")
        tag = name.rpartition(" ")[2] if name.startswith(_NAMESPACE) else name
        if len(self._open) == 1:
            if tag != "graphml":
                raise self._wrong(f"the outermost element is {tag[:40]}, not graphml")
            return
        match tag:
            case "key":
                self._key = self._keys[attributes.get("id", "")] = _Key(attributes)
            case "default" | "data":
                self._start_value(tag, attributes)
            case "graph":
                self._start_graph(attributes)
            case "node":
                self._start_node(attributes)
            case "edge":
                self._start_edge(attributes)
            case "hyperedge":
                raise self._wrong("an edge of more than two nodes is no edge of a circuit")
            case _:
                pass  # ports of nodes, and additions of drawing programs
        if name == _NODE_LABEL:
            self._text = []

    def _start_value(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "data":
            self._key = self._keys.get(attributes.get("key", ""))
            if self._key is None:
                raise self._wrong(f"no key {attributes.get('key', '')[:40]!r} was declared")
        self._text = []

    def _start_graph(self, attributes: Mapping[str, str]) -> None:
        if self._graph is not None:
            raise self._wrong("a second or nested graph cannot be read as a circuit")
        given = attributes.get("edgedefault")
        check_directed({"directed": True, "undirected": False}.get(given or ""), self._file)
        self._of = ChainMap({}, self._defaults["graph"])
        self._graph = Graph(self._of)

    def _start_node(self, attributes: Mapping[str, str]) -> None:
        id_ = attributes.get("id")
        if id_ is None or self._graph is None or id_ in self._graph.nodes:
            raise self._wrong("a node has no id, or a repeated id, or is outside the graph")
        nodes = self._graph.nodes
        if len(nodes) == self._limits.max_edges:
            raise self._wrong(
                f"more than {self._limits.max_edges:,} nodes; --max-edges allows more"
            )
        id_ = self._ids.setdefault(id_, id_)
        self._of = nodes[id_] = self._values("node")

    def _start_edge(self, attributes: Mapping[str, str]) -> None:
        source, target = attributes.get("source"), attributes.get("target")
        if source is None or target is None or self._graph is None:
            raise self._wrong("an edge has no source or no target, or is outside the graph")
        edges = self._graph.edges
        if _TRUTHS.get(attributes.get("directed", "true"), True) is False:
            check_directed(False, f"{self._file}, line {self.parser.CurrentLineNumber}: an edge")
        if len(edges) == self._limits.max_edges:
            raise self._wrong(
                f"more than {self._limits.max_edges:,} edges; --max-edges allows more"
            )
        source, target = (self._ids.setdefault(end, end) for end in (source, target))
        self._of = values = self._values("edge")
        edges.append((source, target, values))

    def _values(self, kind: str) -> MutableMapping[str, Any]:
        """Return the values of a node or an edge, with the defaults.

        Defaults are chained, not copied: a thousand defaults of a million edges would fill memory.
        """
        defaults = self._defaults[kind]
        return ChainMap({}, defaults) if defaults else {}

    def _text_found(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        self._open.pop()
        tag = name.rpartition(" ")[2] if name.startswith(_NAMESPACE) else name
        text = None if self._text is None else "".join(self._text)
        if name == _NODE_LABEL and self._of is not None and text is not None:
            self._of.setdefault("label", text.strip())
            self._text = None
        elif tag == "default" and self._key is not None and text is not None:
            self._set_default(self._key, self._value(self._key, text))
            self._text = None
        elif tag == "data":
            if self._of is not None and self._key is not None and text is not None:
                self._take(self._of, self._key, text)
            self._text = None
        elif tag in {"node", "edge"}:
            self._of = None if self._graph is None else self._graph.about

    def _take(self, of: MutableMapping[str, Any], key: _Key, text: str) -> None:
        own = of.maps[0] if isinstance(of, ChainMap) else of  # without the defaults
        if key.name in own and key.name != "label":  # which a drawing may have given
            raise self._wrong(f"{key.name[:40]!r} appears twice in one element")
        of[key.name] = self._value(key, text)

    def _set_default(self, key: _Key, value: Any) -> None:
        for domain, values in self._defaults.items():
            if key.domain in {domain, "all"}:
                values[key.name] = value

    def _value(self, key: _Key, text: str) -> Any:
        """Return a value of the declared type."""
        try:
            if key.type in _NUMBERS and not may_be_number(text):
                raise ValueError(text)
            match key.type:
                case "int" | "integer" | "long":
                    return int(text)
                case "float" | "double":
                    return float(text)
                case "boolean":
                    return _TRUTHS[text.strip().lower()]
                case _:
                    return text
        except (ValueError, KeyError):
            raise self._wrong(f"{key.name[:40]} is {text[:40]!r}, no {key.type[:40]}") from None
