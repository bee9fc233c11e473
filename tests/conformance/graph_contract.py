"""What every graph store owes, as tests; and the projection, which has to come out the same on all.

The fixtures ``graph`` (empty, open for writing) and ``reopen`` (opens the same graph again) decide
which engine it is.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from registry.errors import (
    GraphError,
    GraphOutdated,
    GraphRefused,
    QueryFailed,
    QueryTimeout,
    QueryTooLarge,
)
from registry.graph.base import GraphStore, Statement
from registry.graph.projection import project
from registry.graph.schema import (
    GraphState,
    Marker,
    Owner,
    PutAside,
    begin_filling,
    holds_nothing,
    identify,
    mark,
    migrate,
    put_aside,
    require_whole,
    schema_version,
)
from registry.ledger.base import Batch, Change, ChangeKind, Ledger, NewCircuit, Revision
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.records import (
    Annotation,
    Circuit,
    CircuitLabels,
    CircuitState,
    Edge,
    Evaluation,
    Level,
    Node,
    Run,
)
from tests import examples
from tests.conformance.ledger_examples import RUN
from tests.longest import longest_records
from tests.patience import answers_within

Reopen = Callable[..., GraphStore]
FOREVER = """
UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b UNWIND range(1, 100000) AS c
WITH a, b, c WHERE a + b + c = 0 RETURN count(*) AS n
"""
WAYS_OUT = [
    "LOAD CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "load\tcsv FROM 'file:///etc/hostname' AS line RETURN line",
    "LOAD // a comment\n CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "LOAD /* a comment */ CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "`LOAD` CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "LO\\u0041D CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "CALL { LOAD CSV FROM 'http://localhost:1/' AS line RETURN line } RETURN line",
    "RETURN 1 AS n; LOAD CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "EXPLAIN LOAD CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "MATCH (n) // '\r LOAD CSV FROM 'file:///etc/hostname' AS line RETURN line",
    "CALL apoc.load.json('http://localhost:1/') YIELD value RETURN value",
    "CALL `apoc`.load.json('http://localhost:1/') YIELD value RETURN value",
    "RETURN apoc.cypher.runFirstColumnSingle('LOAD CSV ...', {}) AS n",
    "CALL db.cdc.enable()",
    "CALL dbms.listConfig() YIELD value RETURN value",
    "SHOW TRANSACTIONS YIELD transactionId AS t TERMINATE TRANSACTIONS t",
    "SHOW SETTINGS",
    "SHOW USERS",
    "SHOW DATABASES",
    "SHOW PROCEDURES YIELD name RETURN name",
    "SHOW FUNCTIONS YIELD name RETURN name",
    "SHOW CURRENT USER",
    "CALL { USE system SHOW USERS YIELD user RETURN user } RETURN user",
    "CALL { USE neo4j MATCH (n) RETURN count(n) AS n } RETURN n",
    "CALL dbms.components() YIELD name RETURN name",
    "UNWIND [1] AS i CALL (i) { RETURN i AS j } IN TRANSACTIONS RETURN j",
]
TOO_DEEP = [
    "CALL { " * 2_000 + "RETURN 1 AS x" + " } RETURN x" * 2_000,
    "CALL () { " * 70 + "RETURN 1 AS x" + " } RETURN x" * 70,
    "RETURN " + "(" * 5_000 + "1" + ")" * 5_000 + " AS x",
    "RETURN " + "[" * 500 + "1" + "]" * 500 + " AS x",
    "RETURN " + "CASE WHEN true THEN " * 500 + "1" + " END" * 500 + " AS x",
    "RETURN " + "NOT " * 1_000 + "true AS x",
    "RETURN " + "+".join(["'a'"] * 1_000) + " AS x",
    "WITH {a: 1} AS a RETURN a" + ".a" * 10_000 + " AS x",
    " UNION ".join(["RETURN 1 AS x"] * 1_000),
    "RETURN '" + "a" * 600_000 + "' AS x",
]
HUNGRY = [
    "UNWIND range(1, 100000) AS a UNWIND range(1, 1000) AS b RETURN size(collect([a, b])) AS n",
    "UNWIND range(1, 3000) AS a UNWIND range(1, 3000) AS b"
    " RETURN size(collect(DISTINCT toString(a) + 'x' + toString(b))) AS n",
    "UNWIND range(1, 2000) AS i CALL { WITH i RETURN collect('some text ' + toString(i)) AS c }"
    " WITH c, i UNWIND range(1, 5000) AS j RETURN size(collect([c, i, j])) AS n",
]
WRITES = [
    "CREATE (n:Circuit {id: 'x'})",
    "MATCH (n) SET n.id = 'x' RETURN n.id",
    "MATCH (n) DETACH DELETE n",
    "MATCH (n) REMOVE n.id RETURN 1 AS one",
    "UNWIND [1] AS i MERGE (n:Circuit {id: 'x'}) RETURN n.id",
    "WITH 1 AS one FOREACH (i IN [1] | CREATE (:Circuit {id: 'x'}))",
    "CREATE CONSTRAINT model_ids FOR (n:Model) REQUIRE n.id IS UNIQUE",
    "DROP CONSTRAINT model_id",
    "CALL { CREATE (n:Circuit {id: 'x'}) RETURN n } RETURN 1 AS one",
    "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
]


class Records:
    """A real ledger beside the circuits' documents: all that the projection reads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'ledger.db'}"
        migrate_ledger(url)
        self.ledger: Ledger = open_ledger(url)
        self._documents: dict[str, Circuit] = {}

    def document(self, circuit: str) -> Circuit:
        """The circuit, read from its content as the artifact store would."""
        return Circuit.model_validate_json(self._documents[circuit].document)

    def add(self, circuits: Iterable[Circuit], **others: Any) -> None:
        """Record circuits with their model and tasks, and other records with them."""
        known = list(circuits)
        self._documents.update({circuit.id: circuit for circuit in known})
        batch = {"models": [examples.GPT2], "tasks": examples.TASKS, **others}
        self.ledger.record(Batch(circuits=[NewCircuit(c) for c in known], **batch))

    def retract(self, circuit: Circuit) -> None:
        """Mark a circuit as no longer valid."""
        labels = CircuitLabels(state=CircuitState.RETRACTED, reason="a bug")
        self.ledger.relabel(circuit.id, labels)

    def changes(self) -> list[Change]:
        """One change for every record."""
        return list(self.ledger.changes_since(0).changes)

    @property
    def owner(self) -> Owner:
        """Whose graph it is."""
        return Owner(self.ledger.registry_id, self.ledger.instance)


BY_POSITION = Circuit(
    model="gpt2", task="ioi", method="by hand", level=Level.EDGE,
    nodes=tuple(
        Node(component=name, position=position)
        for name in ("m20", "a21.h0", "m22") for position in ("1", "2")
    ),
    edges=tuple(
        Edge(source=f"{source}@{at}", target=f"{target}@{to}", effect=0.5)
        for source, target in (("m20", "a21.h0"), ("m20", "m22"), ("a21.h0", "m22"))
        for at, to in (("1", "1"), ("1", "2"), ("2", "2"))
    ),
)  # fmt: skip
"""A circuit that shares no part with others, and whose edges share connections."""


def in_small_parts(store: GraphStore) -> None:
    """Let a store take no more than a few rows in a transaction, as a server's memory may."""
    store.rows_per_transaction, store.largest_transaction = 2, 3


@dataclass
class Stopping:
    """Whether projecting was stopped."""

    stopped: bool = False


@contextmanager
def stopped_after(store: GraphStore, n_transactions: int) -> Iterator[Stopping]:
    """Stop whoever writes to a store after so many transactions, as a kill would."""
    write, left, stopping = store.write, itertools.count(n_transactions, -1), Stopping()

    def write_or_stop(statements: Iterable[Statement]) -> None:
        if next(left) == 0:
            raise KeyboardInterrupt
        write(statements)

    store.write = write_or_stop  # type: ignore[method-assign]
    try:
        yield stopping
    except KeyboardInterrupt:
        stopping.stopped = True
    finally:
        del store.write


def filled(records: Records) -> tuple[Circuit, Circuit]:
    """Two circuits that share parts, an evaluation, an edit and its outcome."""
    first, second = examples.circuit(1), examples.circuit(2, task="sequence/numerals")
    edit, outcome = examples.edit(first, "m3", "a11.h11")
    annotations = [said(first, "logits", run=RUN.id, scores={"b": 0.5, "a": -1.0}),
                   said(second, "input"), said(second, "input", said_by="a paper")]  # fmt: skip
    records.add([first, second], evaluations=[examples.faithfulness(first)], edits=[edit],
                outcomes=[outcome], runs=[RUN], annotations=annotations)  # fmt: skip
    return first, second


ANNOTATING = Run(id="5" * 32, job="head-functions", version="1", started_at="2026-03-01T12:00:00Z")


def said(of: Circuit, node: str, **fields: Any) -> Annotation:
    """What Ada says of a circuit's node."""
    given = {"circuit": of.id, "node": node, "role": "mover", "said_by": "Ada", **fields}
    return Annotation.model_validate(given)


ANNOTATED = """
MATCH (a:Annotation)-[:ANNOTATES]->(n:Node)
MATCH (a)-[:OF]->(c:Circuit)-[:HAS_NODE]->(n)
RETURN a.role AS role, a.said_by AS said_by, n.id AS node
ORDER BY role, said_by, node
"""


def dump(store: GraphStore) -> list[Any]:
    """All nodes and relationships with their properties, in a fixed order."""
    nodes = store.read("MATCH (n) RETURN labels(n) AS labels, properties(n) AS properties")
    links = store.read(
        "MATCH (a)-[r]->(b)"
        " RETURN labels(a) AS source_labels, a.id AS source, type(r) AS kind,"
        " properties(r) AS properties, labels(b) AS target_labels, b.id AS target"
    )
    return sorted(
        [
            *(("node", sorted(n["labels"]), own(n["properties"], n["labels"])) for n in nodes),
            *(
                ("link", sorted(k["source_labels"]), k["source"], k["kind"],
                 own(k["properties"]), sorted(k["target_labels"]), k["target"])
                for k in links
            ),
        ],
        key=repr,
    )  # fmt: skip


def made_by(store: GraphStore) -> list[tuple[str, str, str]]:
    """Runs, and the evaluations and edits that they measured or made."""
    rows = store.read(
        "MATCH (r:Run)-[k]->(x) WHERE type(k) IN ['MEASURED', 'MADE'] AND NOT x:Annotation"
        " RETURN r.id AS run, type(k) AS kind, x.id AS id"
    )
    return sorted(rows.values)


def own(properties: dict[str, Any], labels: Iterable[str] = ()) -> list[tuple[str, Any]]:
    """Properties without those an engine makes up; only circuits have a title of their own."""
    made_up = {"type", "name"} | (set() if "Circuit" in labels else {"title"})
    return sorted((key, value) for key, value in properties.items() if key not in made_up)


def count(store: GraphStore) -> int:
    """How many nodes there are."""
    found: int = store.read("MATCH (n) RETURN count(n) AS n").values[0][0]
    return found


def is_refused(store: GraphStore, text: str) -> bool:
    """Whether a question is not answered."""
    try:
        store.read(text)
    except QueryFailed:
        return True
    return False


@pytest.fixture
def records(tmp_path: Path) -> Iterable[Records]:
    made = Records(tmp_path / "records")
    yield made
    made.ledger.close()


@pytest.fixture
def prepared(graph: GraphStore, records: Records) -> GraphStore:
    begin_filling(graph, records.owner, None)
    return graph


MINE = Owner("mine", "a")


class GraphContract:
    # -- reading and writing -------------------------------------------------------------------

    def test_values_come_back_as_they_went_in(self, graph: GraphStore) -> None:
        values = {
            "texts": ["", "a'b\"c`d\\e", "две\n строки", "日本語 العربية 🧠", "\x01\x7f"],
            "whole": [0, -1, 2**63 - 1, -(2**63)],
            "floats": [0.1, 1e308, -1.7976931348623157e308, 5e-324, 1.0, -2.5],
            "flags": [True, False],
        }
        text = "MERGE (n:Model {id: $id}) SET n += $properties"
        graph.write([Statement(text, {"id": "x", "properties": {**values, "unknown": None}})])
        row = graph.read(
            "MATCH (n:Model) RETURN n.texts AS texts, n.whole AS whole, n.floats AS floats,"
            " n.flags AS flags, n.unknown AS unknown"
        )
        assert row.to_dicts() == [{**values, "unknown": None}]
        assert [type(value) for value in row.values[0][2]] == [float] * 6

    def test_parameters_are_values_never_text(self, graph: GraphStore) -> None:
        evil = "'}) DETACH DELETE (n) //"
        assert graph.read("RETURN $a AS a, $b AS b", {"a": evil, "b": {"c": [evil]}}).values == (
            (evil, {"c": [evil]}),
        )

    def test_columns_are_known_without_rows(self, graph: GraphStore) -> None:
        rows = graph.read("MATCH (n:Model) WHERE n.id = 'none' RETURN n.id AS id, 1 AS one")
        assert (rows.columns, rows.values, rows.truncated) == (("id", "one"), (), False)

    def test_a_row_limit_cuts_off_and_says_so(self, graph: GraphStore) -> None:
        text = "UNWIND range(1, 10) AS n RETURN n ORDER BY n"
        assert graph.read(text, max_rows=3).values == ((1,), (2,), (3,))
        assert graph.read(text, max_rows=3).truncated
        assert not graph.read(text, max_rows=10).truncated

    def test_a_transaction_is_all_or_nothing(self, graph: GraphStore) -> None:
        good = Statement("CREATE (n:Model {id: 'one'})")
        with pytest.raises(QueryFailed):
            graph.write([good, Statement("CREATE (n:Model {id: 'two'}) RETURN nonsense(")])
        with pytest.raises(QueryFailed):
            graph.write([good, Statement("UNWIND [0] AS z CREATE (n:Model {id: 'two', p: 1 / z})")])
        assert count(graph) == 0
        graph.write([good])
        assert count(graph) == 1

    def test_a_transaction_whose_statements_end_in_an_error_leaves_nothing(
        self, graph: GraphStore
    ) -> None:
        def ends(after: int) -> Iterator[Statement]:
            for number in range(after):
                yield Statement("CREATE (n:Model {id: $id})", {"id": str(number)})
            raise RuntimeError("no more")

        for after in (0, 1, 3):
            with pytest.raises(RuntimeError, match="no more"):
                graph.write(ends(after))
            assert count(graph) == 0
        graph.write(Statement("CREATE (n:Model {id: $id})", {"id": id}) for id in "abc")
        assert count(graph) == 3

    def test_what_is_no_value_of_a_graph_is_refused(self, graph: GraphStore) -> None:
        for value in (math.nan, math.inf, 2**63, b"bytes", "half \ud800", {1, 2}):
            for given in (value, [{"inner": value}]):
                with pytest.raises(QueryFailed, match="parameter v"):
                    graph.read("RETURN $v AS v", {"v": given})

    def test_a_second_node_of_an_id_is_refused(self, prepared: GraphStore) -> None:
        prepared.write([Statement("CREATE (n:Circuit {id: 'x'})")])
        with pytest.raises(QueryFailed):
            prepared.write([Statement("CREATE (n:Circuit {id: 'x'})")])

    def test_reading_cannot_write(self, prepared: GraphStore) -> None:
        before = dump(prepared)
        assert not [text for text in WRITES if not is_refused(prepared, text)]
        assert dump(prepared) == before

    def test_reading_cannot_leave_the_graph(self, graph: GraphStore) -> None:
        assert not [text for text in WAYS_OUT if not is_refused(graph, text)]

    def test_words_of_forbidden_clauses_are_free_as_values(self, graph: GraphStore) -> None:
        text = (
            "// LOAD CSV\nWITH 'LOAD CSV; CALL apoc.x()' AS load /* CALL apoc.x() */ RETURN load;"
        )
        assert graph.read(text).values == (("LOAD CSV; CALL apoc.x()",),)

    def test_a_broken_statement_is_refused_in_one_line(self, graph: GraphStore) -> None:
        for text in ("RETURN", "MATCH (n RETURN n", "", "RETURN $missing AS m"):
            with pytest.raises(QueryFailed) as caught:
                graph.read(text)
            assert str(caught.value)
            assert "\n" not in str(caught.value)

    def test_a_query_is_stopped_at_its_limit_and_the_store_stays_usable(
        self, graph: GraphStore
    ) -> None:
        with answers_within(20), pytest.raises(QueryTimeout, match="time limit"):
            graph.read(FOREVER, timeout_seconds=0.5)
        assert graph.read("RETURN 1 AS one").values == ((1,),)

    def test_what_no_engine_bears_is_refused_and_the_store_stays_usable(
        self, graph: GraphStore
    ) -> None:
        for text in TOO_DEEP:
            with pytest.raises(QueryFailed, match="the statement has ") as caught:
                graph.read(text, timeout_seconds=60)
            assert len(str(caught.value)) < 300
        deep: Any = 1
        for _ in range(5_000):
            deep = [deep]
        with pytest.raises(QueryFailed, match="parameter v: lists and maps are nested"):
            graph.read("RETURN $v AS v", {"v": deep})
        assert graph.read("RETURN 1 AS one").values == ((1,),)

    def test_depth_that_is_allowed_is_borne(self, graph: GraphStore) -> None:
        for text in (
            "RETURN " + "(" * 64 + "1" + ")" * 64 + " AS x",
            "RETURN " + "CASE WHEN true THEN " * 30 + "1" + " END" * 30 + " AS x",
            "RETURN " + "+".join(["1"] * 200) + " AS x",
            "RETURN " + " OR ".join(["false"] * 150) + " OR true AS x",
        ):
            assert len(graph.read(text, timeout_seconds=120)) == 1
        value: Any = 1
        for _ in range(60):
            value = [value]
        assert graph.read("RETURN $v AS v", {"v": value}).values == ((value,),)

    @pytest.mark.parametrize("text", HUNGRY, ids=["collect", "distinct", "subqueries"])
    def test_a_query_that_takes_too_much_memory_is_stopped_and_the_store_stays_usable(
        self, graph: GraphStore, text: str
    ) -> None:
        graph.write([Statement("CREATE (n:Model {id: 'x'})")])
        graph.checkpoint()
        with pytest.raises((QueryTooLarge, QueryTimeout)) as caught:
            graph.read(text, timeout_seconds=30, memory_bytes=300_000_000)
        assert "\n" not in str(caught.value)
        assert graph.read("MATCH (n) RETURN count(n) AS n", timeout_seconds=60).values == ((1,),)

    def test_an_answer_has_a_size(self, graph: GraphStore) -> None:
        text = "UNWIND range(1, 4000) AS i RETURN $text + toString(i) AS t"
        with pytest.raises(QueryTooLarge):
            graph.read(text, {"text": "x" * 100_000}, timeout_seconds=120, memory_bytes=150_000_000)
        assert graph.read("RETURN 1 AS one").values == ((1,),)

    def test_a_reader_sees_what_was_checkpointed(self, graph: GraphStore, reopen: Reopen) -> None:
        graph.write([Statement("CREATE (n:Model {id: 'one'})")])
        graph.checkpoint()
        with reopen(writing=False) as reader:
            assert count(reader) == 1
            graph.write([Statement("CREATE (n:Model {id: 'two'})")])
            graph.checkpoint()
            assert count(reader) == 2

    def test_a_reader_cannot_write(self, graph: GraphStore, reopen: Reopen) -> None:
        with reopen(writing=False) as reader:
            with pytest.raises(GraphError, match="reading only"):
                reader.write([Statement("CREATE (n:Model {id: 'x'})")])
            with pytest.raises(GraphError, match="reading only"):
                reader.clear()

    def test_closing_twice_is_harmless(self, reopen: Reopen) -> None:
        store = reopen(writing=False)
        store.close()
        store.close()

    def test_the_engine_names_its_version(self, graph: GraphStore) -> None:
        name, _, version = graph.version().partition(" ")
        assert name.lower() == graph.engine
        assert version[0].isdigit()

    # -- what engines are known to differ in -----------------------------------------------------

    def test_a_float_divided_by_zero_is_infinite(self, graph: GraphStore) -> None:
        assert graph.read("RETURN 1.0 / 0.0 AS x").values == ((math.inf,),)

    def test_a_missing_title_is_null(self, graph: GraphStore) -> None:
        graph.write([Statement("CREATE (n:Model {id: 'x'})")])
        assert graph.read("MATCH (n:Model) RETURN n.title AS title").values == ((None,),)

    def test_a_quantified_path_is_understood(self, graph: GraphStore) -> None:
        assert graph.read("MATCH ((a)-[:EDGE]->(b)){1,2} RETURN count(*) AS n").values == ((0,),)

    # -- marker and schema -----------------------------------------------------------------------

    def test_a_new_graph_is_marked_and_not_whole_until_it_says_so(self, graph: GraphStore) -> None:
        assert holds_nothing(graph)
        assert identify(graph, MINE) is None
        with pytest.raises(GraphOutdated, match="is empty"):
            require_whole(None)
        marker = begin_filling(graph, MINE, None)
        assert marker == Marker("mine", "a", schema_version(), GraphState.FILLING)
        assert identify(graph, MINE) == marker
        with pytest.raises(GraphOutdated, match="being rebuilt and is not complete yet"):
            require_whole(marker)
        whole = replace(marker, state=GraphState.READY, revision=Revision(7, "token"))
        mark(graph, whole, [])
        assert require_whole(identify(graph, MINE)) == whole

    def test_another_registrys_graph_is_refused(self, graph: GraphStore) -> None:
        begin_filling(graph, MINE, None)
        before = dump(graph)
        with pytest.raises(GraphRefused, match="belongs to registry mine, not to yours"):
            identify(graph, Owner("yours", "a"), of_any_instance=True)
        assert dump(graph) == before

    def test_the_graph_of_another_copy_of_the_registry_is_refused(self, graph: GraphStore) -> None:
        marker = begin_filling(graph, MINE, None)
        with pytest.raises(GraphRefused, match="another copy of this registry"):
            identify(graph, Owner("mine", "b"))
        assert identify(graph, Owner("mine", "b"), of_any_instance=True) == marker

    def test_a_graph_that_nobody_marked_is_refused(self, graph: GraphStore) -> None:
        graph.write([Statement("CREATE (n:Something {id: 'x'})")])
        with pytest.raises(GraphRefused, match="no registry wrote"):
            identify(graph, MINE)
        assert not holds_nothing(graph)

    @pytest.mark.parametrize(
        "change",
        ["r.state = 'made up'", "r.revision = 'seven'", "r.schema_version = null"],
    )
    def test_a_marker_that_cannot_be_read_is_refused(self, graph: GraphStore, change: str) -> None:
        begin_filling(graph, MINE, None)
        graph.write([Statement(f"MATCH (r:Registry) SET {change}")])
        with pytest.raises(GraphRefused, match="marker cannot be read"):
            identify(graph, MINE)

    def test_a_newer_schema_is_refused(self, graph: GraphStore) -> None:
        begin_filling(graph, MINE, None)
        graph.write([Statement("MATCH (r:Registry) SET r.schema_version = 999")])
        with pytest.raises(GraphOutdated, match="version 999, newer"):
            identify(graph, MINE)

    def test_an_older_schema_is_refused_to_readers_and_migrated_by_writers(
        self, graph: GraphStore
    ) -> None:
        graph.write(
            [Statement("CREATE (r:Registry {id: 'mine', schema_version: 0, state: 'ready'})")]
        )
        marker = identify(graph, MINE)
        assert marker == Marker("mine", None, 0, GraphState.READY)
        with pytest.raises(GraphOutdated, match="version 0, this program needs"):
            require_whole(marker)
        assert migrate(graph, marker, MINE) == Marker(
            "mine", "a", schema_version(), GraphState.READY
        )
        assert require_whole(identify(graph, MINE)).revision == Revision()

    def test_a_rebuild_that_was_killed_is_found(self, graph: GraphStore) -> None:
        marker = begin_filling(graph, MINE, None)
        mark(graph, replace(marker, state=GraphState.EMPTYING))
        found = identify(graph, MINE)
        with pytest.raises(GraphOutdated, match="being rebuilt"):
            require_whole(found)
        assert begin_filling(graph, MINE, found) == marker

    def test_what_is_put_aside_is_named_until_it_is_not(self, graph: GraphStore) -> None:
        marker = begin_filling(graph, MINE, None)
        long = PutAside(Change(ChangeKind.TASK, "x" * 20_000), "too long " * 200)
        other = PutAside(Change(ChangeKind.CIRCUIT, "a" * 64), "damaged")
        mark(graph, marker, [long, other])
        mark(graph, marker)  # says nothing of them
        first, second = put_aside(graph)
        assert (first, second.change) == (other, long.change)
        assert long.reason.startswith(second.reason)
        mark(graph, marker, [])
        assert put_aside(graph) == []

    def test_clearing_leaves_nothing(self, prepared: GraphStore, records: Records) -> None:
        filled(records)
        project(prepared, records.changes(), records)
        prepared.clear()
        assert dump(prepared) == []
        assert len(prepared.read("SHOW CONSTRAINTS")) == 0

    # -- projection ------------------------------------------------------------------------------

    def test_records_as_long_as_may_be_are_projected_and_those_after_them(
        self, prepared: GraphStore, records: Records
    ) -> None:
        batch = longest_records()
        others = {field: getattr(batch, field) for field in Batch.__dataclass_fields__}
        records.add([new.circuit for new in others.pop("circuits")], **others)
        later = examples.circuit(1)
        records.add([later])
        project(prepared, records.changes(), records)
        (longest,) = (new.circuit for new in batch.circuits)
        nodes = prepared.read("MATCH (n:Node) RETURN n.id AS id, n.position AS position").values
        assert len(nodes) == len(longest.nodes) + len(later.nodes)
        for node in longest.nodes:
            assert (f"{longest.id}/{node.key}", node.position) in nodes
        (edit,) = batch.edits
        (request,) = prepared.read("MATCH (e:Edit) RETURN e.request AS request").values
        assert json.loads(request[0]) == edit.request

    def test_what_no_transaction_can_hold_is_the_same_in_several(
        self, prepared: GraphStore, records: Records
    ) -> None:
        filled(records)
        records.add([BY_POSITION])
        changes = records.changes()
        project(prepared, changes, records)
        whole = dump(prepared)
        begin_filling(prepared, records.owner, identify(prepared, records.owner))
        in_small_parts(prepared)
        project(prepared, changes, records)
        assert dump(prepared) == whole
        project(prepared, changes, records)
        assert dump(prepared) == whole

    def test_what_is_stopped_between_two_parts_is_completed(
        self, prepared: GraphStore, records: Records
    ) -> None:
        records.add([BY_POSITION])
        changes = records.changes()
        project(prepared, changes, records)
        whole = dump(prepared)
        in_small_parts(prepared)
        for n_written in itertools.count():
            begin_filling(prepared, records.owner, identify(prepared, records.owner))
            with stopped_after(prepared, n_written) as stopping:
                project(prepared, changes, records)
            if not stopping.stopped:
                break
            project(prepared, changes, records)
            assert dump(prepared) == whole
        assert n_written > 8

    def test_what_is_taken_out_in_parts_leaves_nothing_wherever_it_is_stopped(
        self, prepared: GraphStore, records: Records
    ) -> None:
        other = examples.circuit(1)
        records.add([other])
        project(prepared, records.changes(), records)
        without = dump(prepared)
        records.add([BY_POSITION], annotations=[said(BY_POSITION, "m20")])
        present = records.changes()
        records.retract(BY_POSITION)
        retracted = [Change(ChangeKind.CIRCUIT, BY_POSITION.id)]
        in_small_parts(prepared)
        for n_written in itertools.count():
            records.ledger.relabel(BY_POSITION.id, CircuitLabels())
            project(prepared, present, records)
            records.retract(BY_POSITION)
            with stopped_after(prepared, n_written) as stopping:
                project(prepared, retracted, records)
            if not stopping.stopped:
                break
            project(prepared, retracted, records)
            assert dump(prepared) == without
        assert dump(prepared) == without
        assert n_written > 4

    def test_projecting_twice_changes_nothing(self, prepared: GraphStore, records: Records) -> None:
        filled(records)
        project(prepared, records.changes(), records)
        once = dump(prepared)
        project(prepared, records.changes(), records)
        assert dump(prepared) == once

    def test_any_order_gives_the_same_graph(self, prepared: GraphStore, records: Records) -> None:
        filled(records)
        changes = records.changes()
        project(prepared, changes, records)
        forwards = dump(prepared)
        begin_filling(prepared, records.owner, identify(prepared, records.owner))
        for change in reversed(changes):
            project(prepared, [change], records)
        assert dump(prepared) == forwards

    def test_a_circuit_is_there_with_all_it_has(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, _ = filled(records)
        project(prepared, records.changes(), records)
        row = prepared.read(
            "MATCH (c:Circuit)-[:FOR_TASK]->(t:Task), (c)-[:OF_MODEL]->(m:Model) WHERE c.id = $id"
            " RETURN t.id AS task, m.id AS model, c.title AS title, c.state AS state,"
            " c.faithfulness AS faithfulness, c.kv_heads AS kv_heads, c.n_edges AS n_edges",
            {"id": first.id},
        )
        assert row.values == (("ioi", "gpt2", "", "active", 0.85, "grouped", len(first.edges)),)
        edges = prepared.read(
            "MATCH (c:Circuit)-[:HAS_NODE]->(:Node)-[e:EDGE]->(t:Node),"
            " (t)-[:INSTANCE_OF]->(k:Component) WHERE c.id = $id"
            " RETURN e.connection AS connection, e.port AS port, e.effect AS effect,"
            " e.rank AS rank, k.id AS target",
            {"id": first.id},
        )
        assert sorted(edges.values) == sorted(
            (f"gpt2/{e.connection}", e.port, e.effect, e.rank, f"gpt2/{e.target}")
            for e in first.edges
        )

    def test_effects_are_summed_over_positions(
        self, prepared: GraphStore, records: Records
    ) -> None:
        records.add([circuit_with_positions()])
        project(prepared, records.changes(), records)
        used = prepared.read(
            "MATCH (:Circuit)-[u:USES]->(k:Connection) RETURN k.local AS local, u.effect AS effect,"
            " u.rank AS rank, u.positions AS positions ORDER BY local"
        )
        assert used.values == (
            ("a0.h1->m3", -0.25, 2, 2),
            ("input->m3", None, None, 1),
        )

    def test_retracting_takes_everything_that_nobody_else_uses(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, second = filled(records)
        project(prepared, records.changes(), records)
        records.retract(first)
        project(prepared, records.changes(), records)
        after = dump(prepared)
        assert [row[0] for row in prepared.read("MATCH (c:Circuit) RETURN c.id AS id").values] == [
            second.id
        ]
        assert len(prepared.read("MATCH (e:Evaluation) RETURN e.id AS id")) == 0
        begin_filling(prepared, records.owner, identify(prepared, records.owner))
        project(prepared, records.changes(), records)
        assert dump(prepared) == after

    def test_retracting_and_taking_it_back_changes_nothing(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, _ = filled(records)
        project(prepared, records.changes(), records)
        before = dump(prepared)
        records.retract(first)
        project(prepared, records.changes(), records)
        records.ledger.relabel(first.id, CircuitLabels())
        project(prepared, records.changes(), records)
        assert dump(prepared) == before

    def test_labels_reach_the_graph_and_leave_it(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, second = filled(records)
        asked = (
            "MATCH (c:Circuit) WHERE c.id = $id RETURN c.title AS t, c.tags AS g, c.author AS a,"
        )
        asked += " c.state AS s, c.superseded_by AS b"
        given = CircuitLabels(title="名", tags=("a", "b"), author="Ada", superseded_by=second.id,
                              state=CircuitState.SUPERSEDED)  # fmt: skip
        for labels, seen in (
            (given, ("名", ["a", "b"], "Ada", "superseded", second.id)),
            (CircuitLabels(), ("", [], None, "active", None)),
        ):
            records.ledger.relabel(first.id, labels)
            project(prepared, records.changes(), records)
            assert prepared.read(asked, {"id": first.id}).values == (seen,)

    def test_a_later_evaluation_alone_reaches_its_circuit(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, _ = filled(records)
        project(prepared, records.changes(), records)
        later = Evaluation(circuit=first.id, task="ioi", measure="faithfulness", value=0.5)
        records.ledger.record(Batch(evaluations=[later]))
        project(prepared, [Change(ChangeKind.EVALUATION, later.id)], records)
        rows = prepared.read(
            "MATCH (e:Evaluation)-[:OF]->(c:Circuit) RETURN e.value AS value,"
            " c.faithfulness AS latest ORDER BY value"
        )
        assert rows.values == ((0.5, 0.5), (0.85, 0.5))

    def test_runs_lead_to_what_they_measured_and_made(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, second = filled(records)
        measured = [
            examples.faithfulness(circuit, 0.5).model_copy(update={"run": RUN.id})
            for circuit in (first, second)
        ]
        edit = examples.edit(second, "m4")[0].model_copy(update={"run": RUN.id})
        records.ledger.record(Batch(runs=[RUN], evaluations=measured, edits=[edit]))
        project(prepared, records.changes(), records)
        assert made_by(prepared) == sorted([*((RUN.id, "MEASURED", one.id) for one in measured),
                                            (RUN.id, "MADE", edit.id)])  # fmt: skip
        records.retract(first)
        project(prepared, records.changes(), records)
        assert made_by(prepared) == sorted([(RUN.id, "MEASURED", measured[1].id),
                                            (RUN.id, "MADE", edit.id)])  # fmt: skip
        left = dump(prepared)
        begin_filling(prepared, records.owner, identify(prepared, records.owner))
        project(prepared, records.changes(), records)
        assert dump(prepared) == left

    def test_a_run_that_is_named_later_comes_to_the_same_graph_in_any_order(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, _ = filled(records)
        measured, (edit, _) = examples.faithfulness(first), examples.edit(first, "m3", "a11.h11")
        project(prepared, records.changes(), records)
        assert made_by(prepared) == []
        before = records.ledger.revision().number
        named = {"run": ANNOTATING.id}
        records.ledger.record(
            Batch(
                runs=[ANNOTATING],
                evaluations=[measured.model_copy(update=named)],
                edits=[edit.model_copy(update=named)],
            )
        )
        later = records.ledger.changes_since(before).changes
        assert {change.kind for change in later} == {"run", "evaluation", "edit"}
        project(prepared, later, records)
        at_once = dump(prepared)
        assert made_by(prepared) == sorted(
            [(ANNOTATING.id, "MEASURED", measured.id), (ANNOTATING.id, "MADE", edit.id)]
        )
        for order in itertools.permutations(later):
            begin_filling(prepared, records.owner, identify(prepared, records.owner))
            project(prepared, [one for one in records.changes() if one not in later], records)
            for change in (*order, *order):
                project(prepared, [change], records)
            assert dump(prepared) == at_once

    def test_annotations_reach_the_nodes_that_they_are_of(
        self, prepared: GraphStore, records: Records
    ) -> None:
        records.add([BY_POSITION, examples.circuit(1)], runs=[ANNOTATING])
        project(prepared, records.changes(), records)
        scored = said(BY_POSITION, "a21.h0@2", run=ANNOTATING.id, scores={"z": 2.0, "a": 0.25})
        records.ledger.annotate([scored, said(BY_POSITION, "m20", said_by="a paper")])
        project(prepared, [Change(ChangeKind.CIRCUIT, BY_POSITION.id)], records)
        at = BY_POSITION.id
        assert prepared.read(ANNOTATED).values == (
            ("mover", "Ada", f"{at}/a21.h0@2"),
            ("mover", "a paper", f"{at}/m20@1"),
            ("mover", "a paper", f"{at}/m20@2"),
        )
        about = prepared.read(
            "MATCH (r:Run)-[:MADE]->(a:Annotation) RETURN r.job AS job, a.id AS id,"
            " a.position AS position, a.score_names AS names, a.score_values AS scores"
        )
        assert about.values == (("head-functions", scored.id, "2", ["a", "z"], [0.25, 2.0]),)

    def test_annotations_that_change_or_are_taken_back_do_so_in_the_graph(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, second = filled(records)
        project(prepared, records.changes(), records)
        records.ledger.annotate([said(second, "input", role="token"), said(first, "input")])
        records.ledger.annotate([said(first, "input", role="another")], also=True)
        records.ledger.take_back(first.id, "logits", said_by="Ada")
        for change in reversed(records.changes()):
            project(prepared, [change], records)
        assert prepared.read(ANNOTATED).values == (
            ("another", "Ada", f"{first.id}/input"),
            ("mover", "Ada", f"{first.id}/input"),
            ("mover", "a paper", f"{second.id}/input"),
            ("token", "Ada", f"{second.id}/input"),
        )
        after = dump(prepared)
        assert not any("MADE" in row for row in after)
        begin_filling(prepared, records.owner, identify(prepared, records.owner))
        project(prepared, records.changes(), records)
        assert dump(prepared) == after

    def test_annotations_leave_with_their_circuit_and_come_back_with_it(
        self, prepared: GraphStore, records: Records
    ) -> None:
        first, second = filled(records)
        project(prepared, records.changes(), records)
        before = prepared.read(ANNOTATED)
        for circuit in (first, second):
            records.retract(circuit)
        project(prepared, records.changes(), records)
        assert len(prepared.read("MATCH (a:Annotation) RETURN a.id AS id")) == 0
        records.ledger.take_back(second.id, "input", said_by="a paper")
        for circuit in (first, second):
            records.ledger.relabel(circuit.id, CircuitLabels())
        project(prepared, records.changes(), records)
        kept = [row for row in before.values if row[1] == "Ada"]
        assert list(prepared.read(ANNOTATED).values) == kept

    def test_every_kind_of_component_has_its_label(
        self, prepared: GraphStore, records: Records
    ) -> None:
        names = {"l5.ln1": "Norm", "ln_final": "Norm", "unembed": "Unembed", "m3": "MLP"}
        nodes = tuple(Node(component=name, density=0.25) for name in names)
        masked = Circuit(
            model="gpt2", task="ioi", method="mask", level=Level.PARAMETER, nodes=nodes
        )
        records.add([masked])
        project(prepared, records.changes(), records)
        rows = prepared.read(
            "MATCH (n:Node)-[:INSTANCE_OF]->(k:Component)"
            " RETURN k.local AS name, labels(k) AS labels, k.norm AS norm, n.density AS density"
        )
        found = {name: (set(labels), norm, density) for name, labels, norm, density in rows.values}
        norms = {"l5.ln1": "ln1", "ln_final": "ln_final"}
        assert found == {
            name: ({"Component", label}, norms.get(name), 0.25) for name, label in names.items()
        }

    def test_no_circuit_is_ever_half_there(self, prepared: GraphStore, records: Records) -> None:
        whole = circuit_with_positions()
        broken = examples.circuit(3)
        records.add([whole, broken])
        # A node that stands in the way makes the transaction fail near its end.
        last = f"{broken.id}/{broken.nodes[-1].key}"
        prepared.write([Statement("CREATE (n:Node {id: $id})", {"id": last})])
        before = dump(prepared)
        only = [c for c in records.changes() if c.key in {whole.id, broken.id}]
        with pytest.raises(QueryFailed):
            project(prepared, only, records)
        assert dump(prepared) == before

    def test_progress_reaches_the_end(self, prepared: GraphStore, records: Records) -> None:
        filled(records)
        changes = records.changes()
        told: list[tuple[int, int]] = []
        project(prepared, changes, records, progress=lambda done, of: told.append((done, of)))
        assert told[-1] == (len(changes), len(changes))
        assert told == sorted(told)


def circuit_with_positions() -> Circuit:
    """Two edges over one connection at different positions, and one without an effect."""
    return Circuit(
        model="gpt2",
        task="ioi",
        method="hand",
        level=Level.EDGE,
        nodes=(
            Node(component="a0.h1", position="S1"),
            Node(component="a0.h1", position="S2"),
            Node(component="input"),
            Node(component="m3", position="END"),
        ),
        edges=(
            Edge(source="a0.h1@S1", target="m3@END", effect=0.25, rank=3),
            Edge(source="a0.h1@S2", target="m3@END", effect=-0.5, rank=2),
            Edge(source="input", target="m3@END"),
        ),
    )
