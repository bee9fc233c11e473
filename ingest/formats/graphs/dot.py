"""The DOT language of graphviz, limited to the structure of a graph.

This is our own reader: pydot and the parser below it take minutes for a few kilobytes of malformed
text, and their memory grows with every attribute. This reader reads each character once, limits the
nesting depth, and keeps only the requested attributes. Grammar:
https://graphviz.org/doc/info/lang.html.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from registry.errors import BadInput

__all__ = ["DotEdge", "DotGraph", "read_dot"]

_DEEPEST = 40
_MOST_UNFOLDED = 100_000
"""Maximum number of edges that a file may imply in addition to those it writes: a few kilobytes
of groups joined to groups would give millions."""
_SPACE = re.compile(r"(?:[\s;\\]++|//[^\n]*+|/\*.*?\*/|^#[^\n]*+)++", re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(
    r"""(?P<mark>->|--|[{}\[\],=:+])"""
    r"""|(?P<quoted>"(?:[^"\\]++|\\.)*+")"""
    r"""|(?P<word>[^\W\d][\w.]*+|-?(?:\.\d++|\d++(?:\.\d*+)?))"""
    r"""|(?P<html><)""",
    re.DOTALL,
)
_ESCAPED = re.compile(r'\\(\\|"|\n)')
_ANGLE = re.compile("[<>]")
_ARROW = re.compile(r'"(?:[^"\\]++|\\.)*+"|->', re.DOTALL)
"""An arrow, or a text that may contain arrows."""
_WORDS = frozenset({"strict", "graph", "digraph", "node", "edge", "subgraph"})


class DotEdge(NamedTuple):
    """An edge from ``tail`` to ``head``; attributes include the defaults."""

    tail: str
    head: str
    attributes: dict[str, Any]


@dataclass(slots=True)
class DotGraph:
    """A graph as it is written.

    Attributes:
        directed: Whether it is a digraph.
        strict: Whether parallel edges count as one.
        about: Attributes of the graph itself.
        nodes: Attributes of each node, by its name.
        edges: Edges in the order of the file.
    """

    directed: bool
    strict: bool
    about: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    edges: list[DotEdge] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Token:
    """``kind`` is a mark, a lower-case keyword, ``name``, or ``end``."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class _Scope:
    """The defaults for nodes and edges within braces."""

    node: dict[str, str] = field(default_factory=dict)
    edge: dict[str, str] = field(default_factory=dict)

    def inner(self) -> _Scope:
        return _Scope(dict(self.node), dict(self.edge))


def read_dot(text: str, name: str, *, keep: Collection[str], max_edges: int) -> DotGraph:
    """Read a graph.

    Args:
        text: Text in DOT.
        name: Name of the file, for errors.
        keep: Names of attributes of nodes and edges to keep; all attributes of the graph are kept.
        max_edges: Maximum number of edges, and of nodes.

    Raises:
        BadInput: It is not DOT, nested too deeply, has too many edges or nodes, or a few groups
            expand to very many edges.
    """
    return _Reader(text, name, frozenset(keep), max_edges).graph()


class _Reader:
    """A recursive-descent parser with one token of lookahead."""

    def __init__(self, text: str, name: str, keep: frozenset[str], max_edges: int) -> None:
        self._text, self._name = text, name
        self._keep, self._max_edges = keep, max_edges
        self._tokens = self._scan()
        self._next = next(self._tokens)
        self._graph = DotGraph(directed=False, strict=False)
        self._known: dict[tuple[str, str], DotEdge] = {}
        self._names: dict[str, str] = {}  # each name once, although every edge has two
        self._n_unfolded = 0
        self._n_joined = 0  # counts repetitions too: a strict graph may repeat one edge endlessly

    def graph(self) -> DotGraph:
        if self._text.count("->") > self._max_edges and self._n_arrows() > self._max_edges:
            raise self._too_many("edges")
        self._graph.strict = self._took("strict")
        if self._next.kind not in {"graph", "digraph"}:
            raise self._error("a graph or digraph")
        self._graph.directed = self._advance().kind == "digraph"
        if self._next.kind == "name":
            self._id()
        self._expect("{")
        self._statements(_Scope(), depth=0)
        if self._next.kind != "end":
            raise self._error("nothing after the graph")
        return self._graph

    # -- statements ----------------------------------------------------------------------------

    def _statements(self, scope: _Scope, *, depth: int) -> list[str]:
        """Read up to the closing brace; return the names of the nodes in between."""
        nodes: dict[str, None] = {}
        while not self._took("}"):
            if self._took(","):  # not in graphviz' grammar, but some programs write it
                continue
            nodes.update(dict.fromkeys(self._statement(scope, depth)))
        return list(nodes)

    def _statement(self, scope: _Scope, depth: int) -> list[str]:
        if self._next.kind in {"graph", "node", "edge"}:
            self._defaults(scope, self._advance().kind, depth)
            return []
        if self._next.kind != "name":
            return self._edges(self._subgraph(scope, depth), scope, depth)
        name = self._id()
        if self._took("="):
            value = self._id()
            if depth == 0:
                self._graph.about[name] = value
            return []
        self._skip_port()
        if self._next.kind in {"->", "--"}:
            return self._edges([self._node(name, scope)], scope, depth)
        attributes = self._attributes()
        self._graph.nodes[self._node(name, scope)].update(attributes)
        return [name]

    def _defaults(self, scope: _Scope, kind: str, depth: int) -> None:
        if kind == "graph":
            found = self._attributes(everything=True)
            if depth == 0:
                self._graph.about.update(found)
        else:
            defaults = scope.node if kind == "node" else scope.edge
            defaults.update(self._attributes())

    def _edges(self, tails: list[str], scope: _Scope, depth: int) -> list[str]:
        """Read the rest of a chain ``a -> {b c} -> d [...]``; return the names of all its nodes."""
        groups = [tails]
        while self._next.kind in {"->", "--"}:
            if (self._advance().kind == "->") is not self._graph.directed:
                arrow = "->" if self._graph.directed else "--"
                raise self._error(f"edges written with {arrow}, as the graph's kind asks")
            if self._next.kind == "name":
                name = self._id()
                self._skip_port()
                groups.append([self._node(name, scope)])
            else:
                groups.append(self._subgraph(scope, depth))
        if len(groups) > 1:
            attributes = {**scope.edge, **self._attributes()}
            for before, after in itertools.pairwise(groups):
                self._join(before, after, attributes)
        return [name for group in groups for name in group]

    def _join(self, tails: Sequence[str], heads: Sequence[str], attributes: dict[str, str]) -> None:
        self._n_joined += len(tails) * len(heads)
        if self._n_joined > self._max_edges:
            raise self._too_many("edges")
        self._n_unfolded += max(0, len(tails) - 1) * max(0, len(heads) - 1)
        if self._n_unfolded > _MOST_UNFOLDED:
            raise BadInput(
                f"{self._name} joins groups in braces to groups, finally {len(tails):,} by"
                f" {len(heads):,} nodes: more than {_MOST_UNFOLDED:,} edges that it does not write;"
                " write them one by one"
            )
        for tail, head in itertools.product(tails, heads):
            known = self._known.get((tail, head)) if self._graph.strict else None
            if known is not None:
                known.attributes.update(attributes)
                continue
            edge = DotEdge(tail, head, dict(attributes))
            self._graph.edges.append(edge)
            if self._graph.strict:
                self._known[tail, head] = edge

    def _subgraph(self, scope: _Scope, depth: int) -> list[str]:
        if self._took("subgraph") and self._next.kind == "name":
            self._id()
        self._expect("{")
        if depth == _DEEPEST:
            raise BadInput(f"{self._name} nests graphs deeper than {_DEEPEST}")
        return self._statements(scope.inner(), depth=depth + 1)

    def _node(self, name: str, scope: _Scope) -> str:
        name = self._names.setdefault(name, name)
        if name not in self._graph.nodes:
            if len(self._graph.nodes) == self._max_edges:
                raise self._too_many("nodes")
            self._graph.nodes[name] = dict(scope.node)
        return name

    def _attributes(self, *, everything: bool = False) -> dict[str, str]:
        found: dict[str, str] = {}
        while self._took("["):
            while not self._took("]"):
                name = self._id()
                value = self._id() if self._took("=") else "true"
                if everything or name in self._keep:
                    found[name] = value
                self._took(",")
        return found

    def _skip_port(self) -> None:
        while self._took(":"):
            self._id()

    def _id(self) -> str:
        """Read a name; texts joined by ``+`` are one name."""
        text = self._expect("name").text
        while self._took("+"):
            text += self._expect("name").text
        return text

    def _n_arrows(self) -> int:
        return sum(found[0] == "->" for found in _ARROW.finditer(self._text))

    # -- tokens --------------------------------------------------------------------------------

    def _advance(self) -> _Token:
        token = self._next
        self._next = next(self._tokens)
        return token

    def _took(self, kind: str) -> bool:
        if self._next.kind != kind:
            return False
        self._advance()
        return True

    def _expect(self, kind: str) -> _Token:
        if self._next.kind != kind:
            raise self._error("a name" if kind == "name" else repr(kind))
        return self._advance()

    def _scan(self) -> Iterator[_Token]:
        at, text = 0, self._text
        while True:
            space = _SPACE.match(text, at)
            at = space.end() if space else at
            found = _TOKEN.match(text, at)
            if found is None:
                break
            if found["html"]:
                end = self._end_of_html(at)
                yield _Token("name", text[at + 1 : end - 1], at)
            else:
                end = found.end()
                yield _token(found)
            at = end
        if at < len(text):
            self._next = _Token("other", text[at : at + 20], at)
            raise self._error("DOT")
        while True:
            yield _Token("end", "", at)

    def _end_of_html(self, start: int) -> int:
        depth = 0
        for found in _ANGLE.finditer(self._text, start):
            depth += 1 if found[0] == "<" else -1
            if depth == 0:
                return found.end()
        self._next = _Token("other", self._text[start : start + 20], start)
        raise self._error("a '>' for each '<'")

    def _error(self, expected: str) -> BadInput:
        token = self._next
        line = self._text.count("\n", 0, token.at) + 1
        found = repr(token.text[:40]) if token.kind != "end" else "its end"
        return BadInput(f"{self._name}, line {line}: expected {expected}, found {found}")

    def _too_many(self, what: str) -> BadInput:
        return BadInput(
            f"{self._name} has more than {self._max_edges:,} {what}; --max-edges allows more"
        )


def _unescaped(found: re.Match[str]) -> str:
    """Keep a backslash, except before a quote and at the end of a line."""
    return {'"': '"', "\n": ""}.get(found[1], found[0])


def _token(found: re.Match[str]) -> _Token:
    text, at = found[0], found.start()
    if found["mark"]:
        return _Token(text, text, at)
    if found["quoted"]:
        return _Token("name", _ESCAPED.sub(_unescaped, text[1:-1]), at)
    word = text.lower()
    return _Token(word if word in _WORDS else "name", text, at)
