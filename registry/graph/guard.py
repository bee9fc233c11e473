"""Refuse, before an engine sees it, a statement that reaches out of the graph.

Engines enforce that reading statements do not write. They do not all enforce that a statement
stays within the database: the embedded engine's ``LOAD CSV`` opens any local file, and a Neo4j
server may carry procedures that open addresses or run further Cypher. :func:`guarded` therefore
reads a statement's words itself and knows what may be called, rather than what may not.

So that nothing hides in a place where two lexers disagree, comments are blanked out before the
text goes on, and the few forms on which engines differ (unicode escapes, doubled backticks) are
refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from registry.errors import QueryFailed

__all__ = ["guarded"]

_TOKEN = re.compile(
    r"""
      (?P<comment> //[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<string>  '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
    | (?P<quoted>  `[^`]*` )
    | (?P<word>    \w+ )
    | (?P<open>    ['"`] )
    | (?P<sign>    \S )
    """,
    re.VERBOSE | re.DOTALL,
)
_UNICODE_ESCAPE = re.compile(r"\\u+[0-9A-Fa-f]{4}")

_FIRST_WORDS = frozenset(
    {"MATCH", "OPTIONAL", "WITH", "UNWIND", "RETURN", "CALL", "SHOW", "EXPLAIN", "PROFILE"}
)
_PROCEDURES = frozenset(
    {
        "db.constraints", "db.graph_stats", "db.index.fulltext.queryNodes",
        "db.index.fulltext.queryRelationships", "db.indexes", "db.labels", "db.ping",
        "db.propertyKeys", "db.relationshipTypes", "db.schema.nodeTypeProperties",
        "db.schema.relTypeProperties", "db.schema.visualization", "dbms.components",
        "betweenness", "closeness", "clustering_coefficient", "connected_components", "degree",
        "diameter", "eccentricity", "k_core", "label_propagation", "leiden", "louvain", "pagerank",
        "triangle_count",
    }
)  # fmt: skip
_FUNCTION_NAMESPACES = frozenset(
    {"date", "datetime", "duration", "localdatetime", "localtime", "point", "time"}
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["word", "string", "sign"]
    text: str

    @property
    def keyword(self) -> str:
        return unicodedata.normalize("NFKC", self.text).upper() if self.kind == "word" else ""


def guarded(text: str) -> str:
    """Return ``text`` without its comments if it stays within the graph.

    Raises:
        QueryFailed: It loads files or addresses, calls something that is not known to stay within
            the graph, is more than one statement, or does not begin as a reading statement does.
    """
    # One kind of line end: a lone carriage return ends a comment for one engine only.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _UNICODE_ESCAPE.search(text):
        raise QueryFailed(
            "unicode escapes are not accepted in a statement: write the character itself, or pass"
            " the text as a parameter"
        )
    tokens = list(_tokens(text))
    _refuse_several_statements(tokens)
    _refuse_other_beginnings(tokens)
    _refuse_ways_out(tokens)
    return _TOKEN.sub(_blank_comment, text)


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found["open"]:
            raise QueryFailed(f"a {found['open']} is opened and not closed")
        if found["quoted"]:
            if text[found.end() : found.end() + 1] == "`":
                raise QueryFailed("a name in backticks may not itself hold a backtick")
            # The embedded engine takes `LOAD` CSV for the clause, so a quoted name is a word.
            yield _Token("word", found["quoted"][1:-1])
        elif found["word"]:
            yield _Token("word", found["word"])
        elif found["string"]:
            yield _Token("string", found["string"])
        elif found["sign"]:
            yield _Token("sign", found["sign"])


def _refuse_several_statements(tokens: list[_Token]) -> None:
    ends = [token.text == ";" and token.kind == "sign" for token in tokens]
    if True in ends and not all(ends[ends.index(True) :]):
        raise QueryFailed("more than one statement was given; run them one by one")


def _refuse_other_beginnings(tokens: list[_Token]) -> None:
    first = tokens[0].keyword if tokens else ""
    if first not in _FIRST_WORDS:
        given = tokens[0].text if tokens else ""
        raise QueryFailed(
            f"a reading statement begins with MATCH, OPTIONAL MATCH, WITH, UNWIND, CALL, RETURN or"
            f" SHOW, not with {given!r}; the graph is written by the registry alone"
        )


def _refuse_ways_out(tokens: list[_Token]) -> None:
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else _Token("sign", "")
        before = tokens[place - 1] if place else _Token("sign", "")
        if token.keyword == "LOAD" and after.keyword == "CSV":
            raise QueryFailed("LOAD CSV is not allowed: a query may not load files or addresses")
        if token.keyword == "TERMINATE" and after.keyword.startswith("TRANSACTION"):
            raise QueryFailed("TERMINATE is not allowed: a query may only read")
        if token.keyword == "CALL" and after.kind == "word" and before.text != ".":
            _refuse_unknown_procedure(_dotted_name(tokens, place + 1))
        if token.kind == "word" and before.text != "." and after.text == ".":
            _refuse_unknown_function(tokens, place)


def _refuse_unknown_procedure(name: str) -> None:
    if name not in _PROCEDURES:
        raise QueryFailed(
            f"CALL {name} is not allowed: a query may not reach out of the graph. Allowed are"
            f" subqueries and {', '.join(sorted(_PROCEDURES))}"
        )


def _refuse_unknown_function(tokens: list[_Token], place: int) -> None:
    name = _dotted_name(tokens, place)
    following = place + 2 * name.count(".") + 1
    called = following < len(tokens) and tokens[following].text == "("
    is_procedure = place > 0 and tokens[place - 1].keyword == "CALL"
    if called and not is_procedure and tokens[place].text.lower() not in _FUNCTION_NAMESPACES:
        raise QueryFailed(
            f"the function {name} is not allowed: a query may not reach out of the graph"
        )


def _dotted_name(tokens: list[_Token], place: int) -> str:
    parts = [tokens[place].text]
    rest = tokens[place + 1 :]
    for dot, word in zip(rest[::2], rest[1::2], strict=False):
        if dot.text != "." or word.kind != "word":
            break
        parts.append(word.text)
    return ".".join(parts)


def _blank_comment(found: re.Match[str]) -> str:
    # Of the same length and lines, so that an engine's error still points to the right place.
    return re.sub(r"[^\n]", " ", found[0]) if found["comment"] else found[0]
