"""Which statements of a user reach an engine; that engines agree is in the graph's contract."""

from __future__ import annotations

import pytest

from registry.errors import QueryFailed
from registry.graph.guard import guarded


@pytest.mark.parametrize(
    "text",
    [
        "MATCH (n) RETURN n.id",
        "match (c:Circuit) where c.title contains 'load csv' return c.id;",
        "OPTIONAL MATCH (n) RETURN date.truncate('year', date()) AS d",
        "CALL { MATCH (n) RETURN n } RETURN n.id",
        "CALL () { RETURN 1 AS n } RETURN n",
        "CALL db.labels() YIELD label RETURN label",
        "MATCH (n) WHERE n.load IS NULL RETURN n.call AS csv",
        "UNWIND [1] AS load RETURN load AS csv",
        "EXPLAIN MATCH (n) RETURN n",
        "PROFILE MATCH (n) RETURN n",
        "SHOW INDEXES YIELD name RETURN name",
        "RETURN 'it\\'s; LOAD CSV' AS text",
        'RETURN "a // b /* c */" AS text',
        "RETURN 1 AS `LOAD`",
    ],
)
def test_questions_pass_unchanged(text: str) -> None:
    assert guarded(text) == text


def test_comments_are_blanked_out_in_place() -> None:
    text = "// what\nMATCH (n) /* which\n one */ RETURN n // é\n"
    passed = guarded(text)
    assert passed.split() == ["MATCH", "(n)", "RETURN", "n"]
    assert len(passed) == len(text)
    assert passed.index("RETURN") == text.index("RETURN")
    assert passed.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("LOAD CSV FROM 'x' AS l RETURN l", "begins with"),
        ("MATCH (n) LOAD CSV FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) lOaD\u2003CsV FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) LOAD//\nCSV FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) LOAD/**/CSV FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) `load` `csv` FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) // '\nLOAD CSV FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) // x\rLOAD CSV FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) \uff2c\uff2f\uff21\uff24 CSV FROM 'x' AS l RETURN l", "LOAD CSV"),
        ("MATCH (n) L\\u004FAD CSV FROM 'x' AS l RETURN l", "unicode escapes"),
        ("RETURN '\\u0027 LOAD CSV' AS l", "unicode escapes"),
        ("RETURN `a``b` AS l", "backtick"),
        ("RETURN 'open", "not closed"),
        ("RETURN 1 AS a; RETURN 2 AS b", "more than one statement"),
        ("RETURN 1 AS a;; RETURN 2 AS b", "more than one statement"),
        ("CALL apoc.load.json('x')", "CALL apoc.load.json is not allowed"),
        ("CALL `apoc`.`load`.`json`('x')", "CALL apoc.load.json is not allowed"),
        ("CALL apoc . load . json('x')", "CALL apoc.load.json is not allowed"),
        ("MATCH (n) CALL db.cdc.enable() RETURN n", "CALL db.cdc.enable is not allowed"),
        ("RETURN apoc.cypher.runFirstColumnSingle('x', {}) AS x", "the function apoc.cypher"),
        ("CREATE (n)", "begins with"),
        ("USE system MATCH (n) RETURN n", "begins with"),
        ("FOR VALID_TIME ALL MATCH (n) RETURN n", "begins with"),
        ("SHOW TRANSACTIONS YIELD transactionId AS t TERMINATE TRANSACTIONS t", "TERMINATE"),
        ("", "begins with"),
        ("// nothing", "begins with"),
    ],
)
def test_ways_out_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(QueryFailed, match=why):
        guarded(text)
