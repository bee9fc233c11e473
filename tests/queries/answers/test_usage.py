"""What is most like a circuit and where a part is used, counted again by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from queries.answers.overlap import compare
from queries.answers.usage import nearest_circuits, where_used
from registry import Registry
from registry.errors import BadInput
from registry.records import Circuit, Edge, Edit, Level, Outcome
from tests import examples

SLUGS = [task.slug for task in examples.TASKS]
CIRCUITS = [examples.circuit(seed, task=SLUGS[seed % 3]) for seed in range(12)]
PARTS = tuple(node.component for node in CIRCUITS[0].nodes)
EDITS = [
    Edit(model="gpt2", editor=f"editor {n}", components=PARTS[n : n + 3], circuits=())
    for n in range(1, 5)
]
OUTCOMES = [
    Outcome(edit=edit.id, metric="efficacy", task=task, after=0.5)
    for edit, tasks in zip(EDITS, (SLUGS, SLUGS[:1], (), ()), strict=True)
    for task in tasks
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("usage") / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *CIRCUITS, *EDITS, *OUTCOMES)
        yield registry


def changed(circuit: Circuit, **fields: Any) -> Circuit:
    """Another circuit; a copy would keep the id that is remembered of the first."""
    return Circuit.model_validate({**circuit.model_dump(), **fields})


@pytest.mark.parametrize("over", ["connections", "components"])
def test_the_nearest_are_those_of_the_largest_overlap(registry: Registry, over: str) -> None:
    given, *others = CIRCUITS
    alike = {other.id: getattr(compare(given, other), over).iou or 0.0 for other in others}
    expected = sorted((-value, id) for id, value in alike.items() if value > 0)[:8]
    found = nearest_circuits(registry, given.id[:10], over=over, limit=8)  # type: ignore[arg-type]
    assert [(-row["similarity"], row["circuit"]) for row in found.rows] == expected
    for row in found.rows:
        other = next(one for one in others if one.id == row["circuit"])
        overlap = getattr(compare(given, other), over)
        assert (row["n_shared"], row[f"n_{over}"]) == (overlap.n_shared, overlap.n_b)
    of_task = nearest_circuits(registry, given.id, over=over, task=SLUGS[1])  # type: ignore[arg-type]
    assert {row["task"] for row in of_task.rows} == {SLUGS[1]}


def test_what_is_compared_fits_the_circuit_unless_it_is_said(registry: Registry) -> None:
    bare = changed(CIRCUITS[1], edges=(), level=Level.NODE, method="published", selection=None)
    ends = sorted({(edge.source, edge.target) for edge in CIRCUITS[2].edges})
    merged = changed(CIRCUITS[2], edges=tuple(Edge(source=s, target=t) for s, t in ends))
    with registry.projecting_later():
        registry.record(bare, merged)
    try:
        assert nearest_circuits(registry, CIRCUITS[0].id).over == "connections"
        assert nearest_circuits(registry, bare.id).over == "components"
        assert nearest_circuits(registry, merged.id).over == "components"
        assert nearest_circuits(registry, merged.id, over="connections").over == "connections"
        with pytest.raises(BadInput, match="has no edges"):
            nearest_circuits(registry, bare.id, over="connections")
        (twin, *_) = nearest_circuits(registry, bare.id).rows
        assert (twin["circuit"], twin["similarity"]) == (CIRCUITS[1].id, 1)
    finally:
        for one in (bare, merged):
            registry.retract(one.id, reason="made for one test")


def test_a_connection_is_used_by_every_circuit_that_has_it(registry: Registry) -> None:
    known: dict[str, dict[str, Edge]] = {}
    for circuit in CIRCUITS:
        for edge in circuit.edges:
            known.setdefault(f"gpt2/{edge.connection}", {})[circuit.id] = edge
    often = sorted(known, key=lambda name: (-len(known[name]), name))[:5]
    assert len(known[often[0]]) > 1
    for name in often:
        usage = where_used(registry, name)
        assert {row["circuit"] for row in usage.circuits} == set(known[name])
        for row in usage.circuits:
            edge = known[name][row["circuit"]]
            assert (row["effect"], row["rank"], row["positions"]) == (edge.effect, edge.rank, 1)
        assert usage.n_circuits == len(known[name])
        tasks = {circuit.task for circuit in CIRCUITS if circuit.id in known[name]}
        assert usage.tasks == tuple(sorted(tasks))


def test_a_connection_without_a_port_is_any_of_the_heads_inputs(registry: Registry) -> None:
    head = next(name for name in PARTS if ".h" in name)
    users = [
        (circuit.id, edge.connection)
        for circuit in CIRCUITS
        for edge in circuit.edges
        if (edge.source, edge.target) == ("input", head)
    ]
    usage = where_used(registry, f"gpt2/input->{head}")
    assert users
    assert sorted(
        (row["circuit"], row["connection"].partition("/")[2]) for row in usage.circuits
    ) == (sorted(users))


def test_edits_are_those_that_modified_the_part_or_an_end_of_the_connection(
    registry: Registry,
) -> None:
    source, target = PARTS[1], PARTS[3]
    for name, parts in (
        (f"gpt2/{source}", {source}),
        (f"gpt2/{source}->{target}", {source, target}),
    ):
        usage = where_used(registry, name)
        hit = [edit for edit in EDITS if parts & set(edit.components)]
        assert {row["edit"] for row in usage.edits} == {edit.id for edit in hit}
        assert usage.heading["edits"] == len(hit)
        for row in usage.edits:
            (edit,) = (one for one in hit if one.id == row["edit"])
            assert row["editor"] == edit.editor
            assert row["components"] == sorted(f"gpt2/{n}" for n in parts & set(edit.components))
            assert row["n_modified"] == len(edit.components)
            measured = [one.task for one in OUTCOMES if one.edit == edit.id]
            assert (row["n_outcomes"], row["tasks"]) == (
                len(measured),
                sorted(filter(None, measured)),
            )
