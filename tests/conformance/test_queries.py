"""Every named query gives the same rows on every engine, and those its header promises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.catalogue import load_catalogue
from registry.rows import Rows
from registry.settings.local import load_settings
from tests import examples
from tests.golden_files import check_golden
from tests.queries import small_registry
from tests.servers.neo4j import Neo4jServer

pytestmark = pytest.mark.seconds

ASKED = [
    pytest.param(name, given, id=f"{name}-{place}")
    for name, variants in small_registry.EXAMPLES.items()
    for place, given in enumerate(variants)
]


@pytest.fixture(scope="module", params=["kglite", pytest.param("neo4j", marks=pytest.mark.neo4j)])
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """The small registry on each engine."""
    home = tmp_path_factory.mktemp("queries") / "registry"
    server: Neo4jServer | None = None
    if request.param == "neo4j":
        server = request.getfixturevalue("neo4j_server")
    with open_on(server, home) as registry:
        small_registry.fill(registry)
        yield registry


def open_on(server: Neo4jServer | None, home: Path) -> Registry:
    """A new registry whose graph is embedded, or that server, which is emptied."""
    if server is None:
        return Registry.init(home)
    with server.open() as store:
        store.clear()
    Registry.init(home).close()
    where = {"graph": server.url, "graph_user": server.user, "graph_password": server.password}
    return Registry.open(settings=load_settings(home).model_copy(update=where))


def test_every_query_has_an_example_here() -> None:
    assert set(small_registry.EXAMPLES) == set(load_catalogue())


@pytest.mark.parametrize(("name", "given"), ASKED)
def test_the_columns_are_those_the_header_promises(
    registry: Registry, name: str, given: dict[str, Any]
) -> None:
    query, rows = load_catalogue()[name], registry.query(name, **given)
    assert rows.columns == tuple(column.name for column in query.columns)
    assert len(rows) > 0
    for row, column in product(rows, query.columns):
        assert fits(row[column.name], column.type), f"{row[column.name]!r} is no {column.type}"


@pytest.mark.parametrize("name", sorted(small_registry.EXAMPLES))
def test_the_rows_are_the_known_ones(registry: Registry, name: str) -> None:
    answers = [
        {"parameters": dict(given), "rows": without_times(registry.query(name, **given))}
        for given in small_registry.EXAMPLES[name]
    ]
    text = json.dumps(answers, indent=1, ensure_ascii=False, sort_keys=True)
    check_golden(f"queries/{name}.json", text + "\n")


def test_rebuilding_changes_no_answer(registry: Registry) -> None:
    def answers() -> list[Rows]:
        return [
            registry.query(name, **given)
            for name, variants in small_registry.EXAMPLES.items()
            for given in variants
        ]

    before = answers()
    registry.rebuild()
    assert answers() == before


@pytest.mark.neo4j
def test_engines_agree_to_the_last_bit_on_random_circuits(
    neo4j_server: Neo4jServer, tmp_path: Path
) -> None:
    tasks = [task.slug for task in examples.TASKS]
    circuits = [examples.circuit(seed, task=tasks[seed % 3]) for seed in range(30)]
    edit, outcome = examples.edit(circuits[0], *(node.component for node in circuits[0].nodes))
    asked: list[tuple[str, dict[str, Any]]] = [
        ("shared-components", {"tasks": tasks, "min_tasks": 1}),
        ("shared-connections", {"tasks": tasks, "min_tasks": 1}),
        ("reused-connections", {"min_circuits": 1, "limit": 10_000}),
        ("tasks-at-risk", {"edit": edit.id}),
        ("pair-intersection", {"a": circuits[0].id, "b": circuits[3].id}),
        *(("nearest-circuits", {"circuit": circuit.id}) for circuit in circuits[:5]),
        *(("edits-touching", {"circuit": circuit.id}) for circuit in circuits[:5]),
        ("where-used", {"component": "gpt2/input"}),
        ("circuits-of-task", {"task": "ioi"}),
    ]
    answers = []
    for server in (None, neo4j_server):
        with open_on(server, tmp_path / ("neo4j" if server else "kglite")) as registry:
            registry.record(examples.GPT2, *examples.TASKS, *circuits, edit, outcome)
            answers.append([without_times(registry.query(name, **given)) for name, given in asked])
    embedded, neo4j = answers
    for (name, _), mine, theirs in zip(asked, embedded, neo4j, strict=True):
        assert mine == theirs, name


def without_times(rows: Rows) -> list[dict[str, Any]]:
    """The rows without what differs from one recording to the next."""
    return [{key: row[key] for key in row if key != "recorded_at"} for row in rows]


def fits(value: Any, type_: str) -> bool:
    """Whether a value is of a column's type."""
    if value is None:
        return type_.endswith("?")
    type_ = type_.removesuffix("?")
    if type_.startswith("list["):
        return isinstance(value, list) and all(fits(item, type_[5:-1]) for item in value)
    python = {"string": str, "integer": int, "number": float, "boolean": bool, "map": dict}[type_]
    return isinstance(value, python) and (type_ == "boolean" or not isinstance(value, bool))


def test_a_value_of_another_type_does_not_pass() -> None:
    assert not fits(None, "integer")
    assert not fits(True, "integer")
    assert not fits(["a", None], "list[string]")
    assert fits(None, "number?")


@pytest.mark.neo4j
def test_engines_agree_on_roles_that_were_said_later(
    neo4j_server: Neo4jServer, tmp_path: Path
) -> None:
    at_positions, alone = small_registry.IOI_AT_POSITIONS, small_registry.NODES_ONLY
    answers = []
    for server in (None, neo4j_server):
        with open_on(server, tmp_path / ("neo4j" if server else "kglite")) as registry:
            small_registry.fill(registry)
            for circuit, node, role, by in (
                (at_positions, "a9.h6@END", "name mover", "Zoë"),
                (at_positions, "a9.h6", "Name Mover", "a paper"),
                (alone, "a9.h6", "name mover", "Ada"),
                (alone, "a9.h6", "name mover", "Zoë"),
                (alone, "a4.h4", "mover", "Ada"),
                (small_registry.SUPERSEDED, "a9.h6", "name mover", "Ada"),
            ):
                registry.annotate(circuit.id, node, role, by=by)
            asked: list[dict[str, Any]] = [
                {}, {"origin": "annotation"}, {"said_by": "ada"}, {"role": "mover", "part": True},
                {"role": "name mover", "task": "ioi", "method": "published"},
            ]  # fmt: skip
            by_role = [registry.query("components-by-role", **one) for one in asked]
            circuits = [at_positions.id, alone.id]
            others = [
                registry.query("shared-components", tasks=small_registry.TASKS, min_tasks=1),
                registry.query("tasks-using-components", circuits=circuits),
                registry.query("where-used", component="gpt2/a9.h6"),
            ]
            answers.append((by_role, others))
    (embedded, others), neo4j = answers
    assert (embedded, others) == neo4j
    for rows in others[:2]:
        roles = {row["component"]: row["roles"] for row in rows}
        assert roles["gpt2/a9.h6"] == ["name mover", "Name Mover"]
        assert roles["gpt2/a4.h4"] == ["mover"]
    uses = {(row["circuit"], row["position"]): row["annotated"] for row in others[2]}
    assert uses[at_positions.id, "END"] == ["Name Mover", "name mover"]
    assert uses[at_positions.id, "S2"] == ["Name Mover"]
    assert uses[alone.id, None] == ["name mover"]
    assert uses[small_registry.IOI.id, None] == []
    later = embedded[1].to_dicts()
    assert [(row["component"], row["role"], row["said_by"], row["positions"]) for row in later] == [
        ("gpt2/a9.h6", "Name Mover", ["a paper"], ["END", "S2"]),
        ("gpt2/a4.h4", "mover", ["Ada"], []),
        ("gpt2/a9.h6", "name mover", ["Zoë", "Ada"], ["END"]),
    ]
    assert later[2]["circuits"] == [at_positions.id, alone.id]
    assert [len(rows) for rows in embedded] == [5, 3, 2, 4, 3]
