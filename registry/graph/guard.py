"""Refuse statements that access anything outside the graph, or that would crash an engine.

Engines ensure that reading statements do not write. Not all of them ensure that a statement stays
within the database: the embedded engine's ``LOAD CSV`` opens any local file, and a Neo4j server
gives its settings and users, switches to other databases, and may have procedures that open
addresses or run further Cypher. Therefore :func:`guarded` reads a statement's tokens itself, and
has a list of what is allowed instead of a list of what is forbidden.

Two lexers may disagree about some texts, and something could be hidden there. Therefore comments
are blanked out before the text is passed on, and the few forms on which engines differ (unicode
escapes, doubled backticks) are refused.

Neo4j's planner overflows its stack at about 200 levels or 400 consecutive operators, and the
connection is never answered; 400 ``CALL`` or ``UNION`` end the embedded engine. Statements that are
deeper or longer than both engines can handle are refused here. All of this takes time proportional
to the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from registry.errors import QueryFailed

__all__ = ["guarded"]

_MOST_CHARACTERS = 500_000
_MOST_LEVELS = 64
_MOST_OPERATORS = 200
_MOST_UNIONS = 64

_TOKEN = re.compile(
    r"""
      (?P<comment> //[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<string>  '[^'\\]*(?:\\.[^'\\]*)*' | "[^"\\]*(?:\\.[^"\\]*)*" )
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
        "db.index.fulltext.queryRelationships", "db.indexes", "db.labels",
        "db.propertyKeys", "db.relationshipTypes", "db.schema.nodeTypeProperties",
        "db.schema.relTypeProperties", "db.schema.visualization",
        "betweenness", "closeness", "clustering_coefficient", "connected_components", "degree",
        "diameter", "eccentricity", "k_core", "label_propagation", "leiden", "louvain", "pagerank",
        "triangle_count",
    }
)  # fmt: skip
_FUNCTION_NAMESPACES = frozenset(
    {"date", "datetime", "duration", "localdatetime", "localtime", "point", "time"}
)

# What may follow SHOW: the schema of the graph, in all its forms.
_SHOWN = frozenset({"INDEX", "INDEXES", "CONSTRAINT", "CONSTRAINTS"})
_SORTS_SHOWN = frozenset(
    {
        "ALL", "BTREE", "FULLTEXT", "LOOKUP", "POINT", "RANGE", "TEXT", "VECTOR",
        "EXIST", "EXISTENCE", "EXISTS", "KEY", "NODE", "PROPERTY", "REL", "RELATIONSHIP", "TYPE",
        "UNIQUE", "UNIQUENESS",
    }
)  # fmt: skip
# SHOW and USE may be names of variables; then one of these or a sign follows.
_AFTER_A_VARIABLE = frozenset(
    {
        "AND", "AS", "ASC", "ASCENDING", "CALL", "CONTAINS", "DESC", "DESCENDING", "ELSE", "END",
        "ENDS", "IN", "IS", "LIMIT", "MATCH", "OFFSET", "OPTIONAL", "OR", "ORDER", "RETURN", "SKIP",
        "STARTS", "THEN", "UNION", "UNWIND", "WHEN", "WHERE", "WITH", "XOR", "YIELD",
    }
)  # fmt: skip

_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_OPERATOR_SIGNS = frozenset("+-*/%^=<>|&!.:")
_OPERATOR_WORDS = frozenset({"AND", "CONTAINS", "ENDS", "IN", "IS", "NOT", "OR", "STARTS", "XOR"})
_TOGETHER = "operators in a row or within each other"
# An expression ends at one of these, so operators of two expressions are not counted together.
_BETWEEN_EXPRESSIONS = frozenset(
    {
        "BY", "CALL", "ELSE", "LIMIT", "MATCH", "OPTIONAL", "RETURN", "SKIP", "THEN", "UNION",
        "UNWIND", "WHEN", "WHERE", "WITH", "YIELD",
    }
)  # fmt: skip


class _Token(NamedTuple):
    """A word, a name in backticks, a string or a sign of the statement.

    ``keyword`` is the word in capitals, as an engine may read it, and empty for other tokens. It is
    also set for a name in backticks, because the embedded engine reads `LOAD` CSV as the clause.
    """

    kind: str
    text: str
    keyword: str


_END = _Token("sign", "", "")


def guarded(text: str) -> str:
    """Return ``text`` without its comments if it stays within the graph.

    Raises:
        QueryFailed: It loads files or addresses, calls something that may leave the graph, asks
            about the server, is more than one statement, does not begin like a reading statement,
            or is larger or more deeply nested than engines can handle.
    """
    if len(text) > _MOST_CHARACTERS:
        raise QueryFailed(
            f"the statement has {len(text):,} characters and {_MOST_CHARACTERS:,} are allowed; pass"
            f" values as parameters"
        )
    # One kind of line end: a lone carriage return ends a comment only in one engine.
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
    _refuse_what_engines_do_not_bear(tokens)
    return _TOKEN.sub(_blank_comment, text)


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        kind, said = found.lastgroup or "", found[0]
        if kind == "open":
            raise QueryFailed(f"a {said} is opened and not closed")
        if kind == "quoted":
            if text[found.end() : found.end() + 1] == "`":
                raise QueryFailed("a name in backticks must not contain a backtick")
            yield _Token(kind, said[1:-1], _keyword(said[1:-1]))
        elif kind == "word":
            yield _Token(kind, said, _keyword(said))
        elif kind != "comment":
            yield _Token(kind, said, "")


def _keyword(word: str) -> str:
    return (word if word.isascii() else unicodedata.normalize("NFKC", word)).upper()


def _refuse_several_statements(tokens: list[_Token]) -> None:
    ended = False
    for token in tokens:
        if ended and token.text != ";":
            raise QueryFailed("more than one statement was given; run them one by one")
        ended = token.kind == "sign" and token.text == ";"


def _refuse_other_beginnings(tokens: list[_Token]) -> None:
    first = tokens[0] if tokens else _END
    if first.keyword not in _FIRST_WORDS:
        raise QueryFailed(
            f"a reading statement begins with MATCH, OPTIONAL MATCH, WITH, UNWIND, CALL, RETURN or"
            f" SHOW, not with {first.text[:40]!r}; only the registry writes to the graph"
        )


# -- outside the graph -----------------------------------------------------------------------------


def _refuse_ways_out(tokens: list[_Token]) -> None:
    before = _END
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else _END
        if token.keyword and before.text != ".":
            _refuse_clause(tokens, place, token, after)
            if token.keyword == "CALL" and after.keyword:
                _refuse_unknown_procedure(_dotted_name(tokens, place + 1))
            elif after.text == "." and before.keyword != "CALL":
                _refuse_unknown_function(tokens, place)
        before = token


def _refuse_clause(tokens: list[_Token], place: int, token: _Token, after: _Token) -> None:
    match token.keyword:
        case "LOAD" if after.keyword == "CSV":
            raise QueryFailed("LOAD CSV is not allowed: a query must not load files or addresses")
        case "TERMINATE" if after.keyword.startswith("TRANSACTION"):
            raise QueryFailed("TERMINATE is not allowed: a query may only read")
        case "SHOW" if _is_clause(place, after) and not _shows_schema(tokens, place + 1):
            raise QueryFailed(
                f"SHOW {after.text[:40]} is not allowed: a query may read only the graph, and"
                f" nothing else of the server. Allowed are SHOW INDEXES and SHOW CONSTRAINTS"
            )
        case "USE" if _is_clause(place, after):
            raise QueryFailed(
                f"USE {after.text[:40]} is not allowed: a query reads the registry's own graph"
            )
        case "IN" if place and tokens[place - 1].text == "}" and _in_transactions(tokens, place):
            raise QueryFailed("CALL { ... } IN TRANSACTIONS is not allowed: a query may only read")


def _is_clause(place: int, after: _Token) -> bool:
    """Whether SHOW or USE begins a clause; otherwise it is a variable."""
    if place == 0:
        return True
    return after.kind == "quoted" or bool(after.keyword and after.keyword not in _AFTER_A_VARIABLE)


def _shows_schema(tokens: list[_Token], place: int) -> bool:
    while place < len(tokens) and tokens[place].keyword in _SORTS_SHOWN:
        place += 1
    return place < len(tokens) and tokens[place].keyword in _SHOWN


def _in_transactions(tokens: list[_Token], place: int) -> bool:
    # IN TRANSACTIONS, IN 4 CONCURRENT TRANSACTIONS, IN $n CONCURRENT TRANSACTIONS
    words = {token.keyword for token in tokens[place + 1 : place + 5]}
    return "TRANSACTIONS" in words or "TRANSACTION" in words


def _refuse_unknown_procedure(name: str) -> None:
    if name not in _PROCEDURES:
        raise QueryFailed(
            f"CALL {name[:100]} is not allowed: a query must stay within the graph. Allowed are"
            f" subqueries and {', '.join(sorted(_PROCEDURES))}"
        )


def _refuse_unknown_function(tokens: list[_Token], place: int) -> None:
    name = _dotted_name(tokens, place)
    following = place + 2 * name.count(".") + 1
    called = following < len(tokens) and tokens[following].text == "("
    if called and tokens[place].text.lower() not in _FUNCTION_NAMESPACES:
        raise QueryFailed(
            f"the function {name[:100]} is not allowed: a query must stay within the graph"
        )


def _dotted_name(tokens: list[_Token], place: int) -> str:
    parts = [tokens[place].text]
    while place + 2 < len(tokens) and tokens[place + 1].text == "." and tokens[place + 2].keyword:
        place += 2
        parts.append(tokens[place].text)
    return ".".join(parts)


# -- what engines cannot handle --------------------------------------------------------------------


def _refuse_what_engines_do_not_bear(tokens: list[_Token]) -> None:
    levels = [_Level("")]
    unions, after_operator = 0, False
    for token in tokens:
        # After a dot or an operator, a word is a name, even if it is a keyword.
        keyword = token.keyword if token.kind == "word" and not after_operator else ""
        after_operator = token.text in _OPERATOR_SIGNS or token.keyword in _OPERATOR_WORDS
        if after_operator:
            levels[-1].add_operator(token.text)
        elif token.text in _OPENING or keyword == "CASE":
            # Consecutive indices or calls, a[0][0] or (a)-[]->(b), nest like operators.
            levels[-1].add_operator("")
            levels.append(_Level(token.text.upper()))
            _refuse_more(len(levels) - 1, _MOST_LEVELS, "levels of brackets, CASE and CALL")
        elif token.text in _CLOSING:
            _leave_brackets(levels)
        elif keyword == "END" and levels[-1].opened_by == "CASE":
            _leave(levels)
        elif token.text == "," or keyword in _BETWEEN_EXPRESSIONS:
            levels[-1].separate()
            unions += keyword == "UNION"
            _refuse_more(unions, _MOST_UNIONS, "UNION")


@dataclass(slots=True)
class _Level:
    """The content of a bracket or CASE: the maximum depth of its expressions.

    Attributes:
        opened_by: The bracket, or CASE.
        operators: Number in the present expression.
        dots: Consecutive dots in the present expression.
        inside: Depth of the deepest brackets of the present expression.
        deepest: Depth of the deepest expression before it.
    """

    opened_by: str
    operators: int = 0
    dots: int = 0
    inside: int = 0
    deepest: int = 0

    @property
    def depth(self) -> int:
        return max(self.deepest, self.operators + self.inside)

    def add_operator(self, sign: str) -> None:
        """Count an operator; dots are counted separately, because engines can handle fewer."""
        if sign == ".":
            self.dots += 1
            _refuse_more(self.dots, _MOST_LEVELS, "names with dots between them")
            return
        self.operators, self.dots = self.operators + 1, 0
        _refuse_more(self.operators + self.inside, _MOST_OPERATORS, _TOGETHER)

    def separate(self) -> None:
        """Begin another expression."""
        self.deepest = self.depth
        self.operators = self.dots = self.inside = 0


def _leave_brackets(levels: list[_Level]) -> None:
    while len(levels) > 1 and _leave(levels).opened_by == "CASE":
        pass


def _leave(levels: list[_Level]) -> _Level:
    left, level = levels.pop(), levels[-1]
    level.inside = max(level.inside, left.depth)
    _refuse_more(level.operators + level.inside, _MOST_OPERATORS, _TOGETHER)
    return left


def _refuse_more(found: int, allowed: int, what: str) -> None:
    if found > allowed:
        raise QueryFailed(
            f"the statement has more than {allowed} {what}, which engines cannot handle; pass a"
            f" list as a parameter, or use several statements"
        )


def _blank_comment(found: re.Match[str]) -> str:
    # Of the same length and lines, so that an engine's error still points to the right place.
    return re.sub(r"[^\n]", " ", found[0]) if found["comment"] else found[0]
