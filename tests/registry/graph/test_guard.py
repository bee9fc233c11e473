"""Which statements of a user reach an engine; that engines agree is in the graph's contract."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from registry.errors import QueryFailed
from registry.graph.guard import guarded
from tests.patience import soon


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
        "SHOW ALL CONSTRAINTS YIELD name RETURN name",
        "SHOW FULLTEXT INDEXES",
        "SHOW NODE KEY CONSTRAINTS",
        "WITH 1 AS show, 2 AS use RETURN show, use AS x ORDER BY use DESC",
        "MATCH (use:Model) WHERE use.show IS NULL RETURN use.use AS settings",
        "WITH {a: 1} AS m, [1] AS transactions WHERE 1 IN transactions RETURN m",
        "RETURN CASE WHEN 1 = 1 THEN {end: 2} ELSE 3 END AS x",
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
        ("SHOW TRANSACTIONS YIELD transactionId AS t TERMINATE TRANSACTIONS t", "SHOW TRANS"),
        ("MATCH (n) TERMINATE TRANSACTIONS 'a'", "TERMINATE"),
        ("CALL db.ping()", "CALL db.ping is not allowed"),
        ("CALL dbms.components()", "CALL dbms.components is not allowed"),
        ("CALL `dbms` . components()", "CALL dbms.components is not allowed"),
        ("RETURN graph.names() AS names", "the function graph.names"),
        ("RETURN 1 AS `a", "not closed"),
        ("", "begins with"),
        ("// nothing", "begins with"),
    ],
)
def test_ways_out_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(QueryFailed, match=why):
        guarded(text)


@pytest.mark.parametrize(
    "text",
    [
        "SHOW SETTINGS", "SHOW USERS", "show current user", "SHOW DATABASES", "SHOW DATABASE x",
        "SHOW HOME DATABASE", "SHOW DEFAULT DATABASE", "SHOW TRANSACTIONS", "SHOW ROLES",
        "SHOW POPULATED ROLES WITH USERS", "SHOW USER ada PRIVILEGES", "SHOW PRIVILEGES",
        "SHOW ALL PRIVILEGES AS COMMANDS", "SHOW SUPPORTED PRIVILEGES", "SHOW SERVERS",
        "SHOW ALIASES FOR DATABASE", "SHOW FUNCTIONS", "SHOW ALL FUNCTIONS",
        "SHOW BUILT IN FUNCTIONS", "SHOW PROCEDURES EXECUTABLE", "SHOW", "SHOW `INDEXES x`",
        "`SHOW` SETTINGS", "SHOW `SETTINGS`", "SHOW/**/SETTINGS", "EXPLAIN SHOW SETTINGS",
        "PROFILE SHOW USERS", "SHOW INDEXES YIELD name SHOW SETTINGS YIELD value RETURN value",
        "CALL { SHOW SETTINGS YIELD name RETURN name } RETURN name",
        "MATCH (n) WITH n SHOW USERS YIELD user RETURN user",
        "RETURN 1 AS n UNION SHOW USERS YIELD user AS n RETURN n",
        "\uff33HOW SETTINGS",
    ],
)  # fmt: skip
def test_the_server_is_not_asked_about(text: str) -> None:
    with pytest.raises(QueryFailed, match=r"^SHOW .* is not allowed"):
        guarded(text)


@pytest.mark.parametrize(
    "text",
    [
        "CALL { USE system MATCH (n) RETURN n } RETURN n.id AS id",
        "CALL { USE `neo4j` MATCH (n) RETURN n } RETURN n.id AS id",
        "CALL () { USE graph.byName('other') RETURN 1 AS n } RETURN n",
        "EXPLAIN USE system SHOW USERS",
        "MATCH (n) CALL (n) { use other MATCH (m) RETURN m } RETURN m.id AS id",
    ],
)
def test_another_database_is_not_used(text: str) -> None:
    with pytest.raises(QueryFailed, match=r"^USE .* is not allowed"):
        guarded(text)


@pytest.mark.parametrize(
    "how",
    ["IN TRANSACTIONS", "IN 4 CONCURRENT TRANSACTIONS OF 2 ROWS", "in $n concurrent transactions"],
)
def test_a_query_begins_no_transactions_of_its_own(how: str) -> None:
    with pytest.raises(QueryFailed, match="IN TRANSACTIONS is not allowed"):
        guarded(f"UNWIND [1] AS i CALL (i) {{ RETURN i AS j }} {how} RETURN j")


# -- what engines do not bear ----------------------------------------------------------------------

NESTED: dict[str, Callable[[int], str]] = {
    "brackets": lambda n: "RETURN " + "(" * n + "1" + ")" * n + " AS x",
    "lists": lambda n: "RETURN " + "[" * n + "1" + "]" * n + " AS x",
    "maps": lambda n: "RETURN " + "{a: " * n + "1" + "}" * n + " AS x",
    "functions": lambda n: "RETURN " + "abs(" * n + "1" + ")" * n + " AS x",
    "case": lambda n: "RETURN " + "CASE WHEN true THEN " * n + "1" + " END" * n + " AS x",
    "else": lambda n: "RETURN " + "CASE WHEN false THEN 0 ELSE " * n + "1" + " END" * n + " AS x",
    "call": lambda n: "CALL { " * n + "RETURN 1 AS x" + " } RETURN x" * n,
    "exists": lambda n: "MATCH (a) WHERE " + "EXISTS { MATCH (a) WHERE " * n + "1=1" + " }" * n
    + " RETURN 1 AS x",
    "open": lambda n: "RETURN " + "([{" * n,
    "names": lambda n: "WITH 1 AS end RETURN " + "(end + " * n + "1" + ")" * n + " AS x",
}  # fmt: skip
IN_A_ROW: dict[str, Callable[[int], str]] = {
    "sum": lambda n: "RETURN " + " + ".join(["1"] * n) + " AS x",
    "sums": lambda n: "RETURN (" + "+".join(["1"] * (n // 2)) + ")" + "+1" * (n - n // 2) + " AS x",
    "properties": lambda n: "WITH {b: 1} AS a RETURN " + "+".join(["a.b"] * n) + " AS x",
    "keywords": lambda n: "WITH 1 AS where RETURN " + "+".join(["where"] * n) + " AS x",
    "or": lambda n: "RETURN " + " OR ".join(["false"] * n) + " AS x",
    "not": lambda n: "RETURN " + "NOT " * n + "true AS x",
    "minus": lambda n: "RETURN " + "- " * n + "1 AS x",
    "index": lambda n: "WITH [1] AS a RETURN a" + "[0]" * n + " AS x",
    "hops": lambda n: "MATCH ()" + "-->()" * n + " RETURN 1 AS x",
    "labels": lambda n: "MATCH (a:" + "|".join(["A"] * n) + ") RETURN 1 AS x",
}


@pytest.mark.parametrize("form", NESTED)
def test_what_nests_deeper_than_engines_bear_is_refused(form: str) -> None:
    guarded(NESTED[form](20))
    for depth in (65, 2_000, 30_000):
        with pytest.raises(QueryFailed, match=r"has more than (64 lev|200 op)|500,000 are"):
            guarded(NESTED[form](depth))


@pytest.mark.parametrize("form", IN_A_ROW)
def test_more_operators_in_a_row_than_engines_bear_are_refused(form: str) -> None:
    guarded(IN_A_ROW[form](30))
    for length in (210, 2_000, 30_000):
        with pytest.raises(QueryFailed, match="has more than 200 operators"):
            guarded(IN_A_ROW[form](length))


def test_names_with_dots_and_unions_without_end_are_refused() -> None:
    with pytest.raises(QueryFailed, match="64 names with dots"):
        guarded("WITH {a: 1} AS a RETURN a" + ".a" * 65)
    with pytest.raises(QueryFailed, match="64 UNION"):
        guarded(" UNION ".join(["RETURN 1 AS x"] * 66))


def test_long_statements_that_are_not_deep_pass() -> None:
    for text in (
        "RETURN [" + ", ".join(["-1.5"] * 10_000) + "] AS x",
        "MATCH (n) WHERE " + " OR ".join(["n.id = 'x'"] * 90) + " RETURN n.id AS id",
        "UNWIND [1 + 1] AS a " * 2_000 + "RETURN a",
        "RETURN CASE" + " WHEN 1 = 2 THEN 3 + 4" * 500 + " END AS x",
    ):
        assert guarded(text) == text


def test_a_statement_has_a_size() -> None:
    with pytest.raises(QueryFailed, match="500,001 characters and 500,000 are allowed; pass val"):
        guarded("RETURN '" + "a" * 499_992 + "'")


HOSTILE = (
    "RETURN " + "a.b+" * 120_000 + "1",
    "RETURN " + "a." * 200_000 + "b()",
    "RETURN " + "[1,2]," * 80_000 + "1",
    "RETURN 1 " + "SHOW ALL " * 50_000,
    "RETURN 1" + ";" * 490_000,
    "RETURN 1 " + "/* a */" * 70_000,
    "/*" * 240_000,
    "RETURN '" + "a" * 480_000,
    'RETURN "' + "\\a" * 240_000,
    "RETURN " + "`a`," * 120_000 + "1",
    "RETURN " + "CALL " * 90_000,
    "RETURN {" + "} IN 1" * 80_000,
    "RETURN " + "\ufb00 " * 240_000,
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[7:20])
def test_reading_a_statement_takes_time_in_proportion_to_it(text: str) -> None:
    # Before, 64 kB of a.b+a.b+... took ten seconds, and 480 kB would take ten minutes.
    with soon(), contextlib.suppress(QueryFailed):
        guarded(text)
