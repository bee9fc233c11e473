"""What named queries mean, checked against sets and sums in Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from queries.answers.overlap import compare
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.records import Circuit
from tests import examples
from tests.queries import small_registry

SLUGS = [task.slug for task in examples.TASKS]
MODELS = ("gpt2", small_registry.SMOLLM2.slug)
CIRCUITS = [examples.circuit(seed, task=SLUGS[seed % 3]) for seed in range(24)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("random") / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *CIRCUITS)
        yield registry


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("small") / "registry") as registry:
        small_registry.fill(registry)
        yield registry


def effects_by_task(circuits: list[Circuit]) -> dict[str, dict[str, list[float]]]:
    """Effects of every connection in every circuit, by connection and task."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for circuit in circuits:
        for edge in circuit.edges:
            assert edge.effect is not None
            found[f"{circuit.model}/{edge.connection}"][circuit.task].append(edge.effect)
    return found


@pytest.mark.parametrize("tasks", [SLUGS[:2], SLUGS, [SLUGS[0], SLUGS[2]]])
@pytest.mark.parametrize("min_tasks", [1, 2, None])
def test_shared_connections_are_an_intersection_of_unions(
    registry: Registry, tasks: list[str], min_tasks: int | None
) -> None:
    known = effects_by_task([circuit for circuit in CIRCUITS if circuit.task in tasks])
    least = min_tasks or len(tasks)
    rows = registry.query("shared-connections", tasks=tasks, min_tasks=min_tasks)
    assert {row["connection"] for row in rows} == {
        name for name, uses in known.items() if len(uses) >= least
    }
    for row in rows:
        uses = known[row["connection"]]
        assert row["n_tasks"] == len(uses)
        assert row["n_circuits"] == sum(map(len, uses.values()))
        assert [use["task"] for use in row["tasks"]] == sorted(uses)
        for use in row["tasks"]:
            effects = uses[use["task"]]
            assert use["effect"] == pytest.approx(sum(effects) / len(effects))
            assert use["magnitude"] == pytest.approx(sum(map(abs, effects)) / len(effects))


def test_shared_components_are_an_intersection_of_unions(registry: Registry) -> None:
    used: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for circuit in CIRCUITS:
        for node in circuit.nodes:
            used[f"gpt2/{node.component}"][circuit.task].append(node.effect or 0.0)
    rows = registry.query("shared-components", tasks=SLUGS, min_tasks=2)
    assert {row["component"] for row in rows} == {n for n, u in used.items() if len(u) >= 2}
    for row in rows:
        for use in row["tasks"]:
            effects = used[row["component"]][use["task"]]
            assert use["n_circuits"] == len(effects)
            assert use["effect"] == pytest.approx(sum(effects) / len(effects))


def test_the_nearest_circuits_are_those_of_the_largest_jaccard(registry: Registry) -> None:
    given, *others = CIRCUITS
    similarity = {other.id: compare(given, other).connections.iou or 0.0 for other in others}
    expected = sorted((-value, id_) for id_, value in similarity.items() if value > 0)[:7]
    rows = registry.query("nearest-circuits", circuit=given.id[:10], limit=7)
    assert [(-row["similarity"], row["circuit"]) for row in rows] == expected


def test_a_pair_intersection_holds_what_both_have(registry: Registry) -> None:
    pairs = list(combinations(CIRCUITS[:6], 2))
    for a, b in pairs:
        rows = registry.query("pair-intersection", a=a.id, b=b.id)
        shared = {f"gpt2/{name}" for name in compare(a, b).shared_connections}
        assert {row["connection"] for row in rows} == shared
    assert any(compare(a, b).shared_connections for a, b in pairs)


def test_superseded_and_retracted_circuits_count_nowhere(small: Registry) -> None:
    gone = {small_registry.SUPERSEDED.id, small_registry.RETRACTED.id}
    used = {row["circuit"] for row in small.query("where-used", component="gpt2/a9.h6")}
    of_task = {row["circuit"] for row in small.query("circuits-of-task", task="capitals")}
    near = {row["circuit"] for row in small.query("nearest-circuits", circuit="34b2")}
    assert used
    assert of_task
    assert near
    assert not gone & (used | of_task | near)
    shared = small.query("shared-components", tasks=["ioi", "capitals"])
    assert "gpt2/a0.h1" not in {row["component"] for row in shared}


def test_effects_without_a_sign_are_sizes_alone(small: Registry) -> None:
    rows = small.query("shared-connections", tasks=["ioi", "sequence/months"])
    for row in rows:
        (months,) = (use for use in row["tasks"] if use["task"] == "sequence/months")
        assert months["effect"] is None
        assert months["magnitude"] > 0


def test_positions_of_one_component_add_up(small: Registry) -> None:
    rows = small.query("shared-components", tasks=["ioi"], method="published")
    (head,) = (row for row in rows if row["component"] == "gpt2/a9.h6")
    assert head["tasks"] == [{"task": "ioi", "n_circuits": 1, "effect": 0.875, "magnitude": 0.875}]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("shared-components", {"tasks": ["ioi"]}),
        ("shared-connections", {"tasks": ["ioi"]}),
        ("reused-connections", {"min_circuits": 1}),
    ],
)
def test_models_are_counted_apart_and_every_row_says_whose_it_is(
    small: Registry, name: str, given: dict[str, Any]
) -> None:
    part = name.partition("-")[2].removesuffix("s")
    both = small.query(name, **given).to_dicts()
    assert [row["model"] for row in both] == [row[part].partition("/")[0] for row in both]
    of_each = [small.query(name, model=slug, **given).to_dicts() for slug in MODELS]
    assert all(of_each)
    assert sorted(row[part] for row in both) == sorted(row[part] for own in of_each for row in own)
    assert all(row in both for own in of_each for row in own)


def test_a_model_alias_is_understood(small: Registry) -> None:
    rows = small.query("where-used", component="smollm2/a4.kv2")
    assert [row["circuit"] for row in rows] == [small_registry.GROUPED.id]


def test_tasks_at_risk_are_those_whose_circuits_hold_what_an_edit_modified(
    registry: Registry,
) -> None:
    modified = ("input", "m3", "a5.h7", *(node.component for node in CIRCUITS[0].nodes[:3]))
    edit, outcome = examples.edit(CIRCUITS[0], *modified)
    registry.attach_edit(edit, [outcome])
    rows = registry.query("tasks-at-risk", edit=edit.id)
    assert {row["task"] for row in rows} == set(SLUGS)
    for row in rows:
        hit = {
            circuit.id: [node for node in circuit.nodes if node.component in edit.components]
            for circuit in CIRCUITS
            if circuit.task == row["task"]
        }
        nodes = [node for found in hit.values() for node in found]
        touching = {
            edge.connection
            for circuit in CIRCUITS
            for edge in circuit.edges
            if circuit.id in hit and {edge.source, edge.target} & set(edit.components)
        }
        assert set(row["circuits"]) == {id_ for id_, found in hit.items() if found}
        assert set(row["components"]) == {f"gpt2/{node.component}" for node in nodes}
        assert (row["n_circuits"], row["n_components"]) == (
            len(row["circuits"]),
            len(row["components"]),
        )
        assert row["n_connections"] == len(touching)
        effects = [node.effect or 0.0 for node in nodes]
        assert row["largest_effect"] == max(map(abs, effects))
        assert row["effect"] == pytest.approx(sum(effects) / row["n_circuits"])
        assert len(row["outcomes"]) == (row["task"] == outcome.task)


def test_where_used_lists_every_circuit_with_the_component(registry: Registry) -> None:
    for component in ("input", "m3", "a5.h7"):
        rows = registry.query("where-used", component=f"gpt2/{component}")
        users = [c for c in CIRCUITS if component in {node.component for node in c.nodes}]
        assert sorted(row["circuit"] for row in rows) == sorted(c.id for c in users)
        for row in rows:
            (circuit,) = (c for c in users if c.id == row["circuit"])
            assert row["n_in"] == sum(edge.target == component for edge in circuit.edges)
            assert row["n_out"] == sum(edge.source == component for edge in circuit.edges)


def test_components_by_role_are_those_that_active_circuits_know_for_it(small: Registry) -> None:
    kept = [
        circuit
        for circuit in small_registry.CIRCUITS
        if circuit.id not in {small_registry.SUPERSEDED.id, small_registry.RETRACTED.id}
    ]
    known: dict[tuple[str, str], set[str]] = defaultdict(set)
    for circuit in kept:
        for node in circuit.nodes:
            if node.role is not None:
                known[f"{circuit.model}/{node.component}", node.role].add(circuit.id)
    rows = small.query("components-by-role")
    assert {(row["component"], row["role"]): set(row["circuits"]) for row in rows} == known
    assert all(row["n_circuits"] == len(row["circuits"]) for row in rows)
    assert [row["role"] for row in rows] == ["duplicate token", "name mover"]


def test_a_role_is_found_in_any_case_and_by_a_part_of_its_name_if_asked(small: Registry) -> None:
    (mover,) = small.query("components-by-role", role="NAME mover")
    assert mover["component"] == "gpt2/a9.h6"
    assert mover["positions"] == ["END", "S2"]
    assert len(small.query("components-by-role", role="mover")) == 0
    (same,) = small.query("components-by-role", role="Mover", part=True)
    assert same == mover


def test_roles_of_one_task_method_or_model_alone_may_be_asked_for(small: Registry) -> None:
    published = small.query("components-by-role", role="name mover", method="published", task="ioi")
    assert published.to_dicts()[0]["circuits"] == [small_registry.IOI_AT_POSITIONS.id]
    assert len(small.query("components-by-role", model="smollm2")) == 0


def test_a_role_of_a_circuit_is_said_by_its_author_or_method(small: Registry) -> None:
    rows = {row["role"]: row for row in small.query("components-by-role")}
    assert {row["origin"] for row in rows.values()} == {"circuit"}
    assert rows["name mover"]["said_by"] == ["edge-attribution", "published"]
    assert len(small.query("components-by-role", origin="annotation")) == 0
    published = small.query("components-by-role", said_by="Published")
    assert {circuit for row in published for circuit in row["circuits"]} == {
        small_registry.IOI_AT_POSITIONS.id, small_registry.NODES_ONLY.id
    }  # fmt: skip


def test_reused_connections_count_circuits_and_tasks(registry: Registry) -> None:
    known = effects_by_task(CIRCUITS)
    counts = {name: sum(map(len, uses.values())) for name, uses in known.items()}
    rows = registry.query("reused-connections", min_circuits=3, limit=1000)
    assert {row["connection"]: row["n_circuits"] for row in rows} == {
        name: count for name, count in counts.items() if count >= 3
    }
    for row in rows:
        assert (row["n_active"], row["n_tasks"]) == (
            row["n_circuits"],
            len(known[row["connection"]]),
        )


def test_an_edit_that_touches_no_circuit_puts_no_task_at_risk(small: Registry) -> None:
    assert len(small.query("tasks-at-risk", edit=small_registry.AIMED.id)) == 0


def test_a_task_nobody_recorded_is_named(small: Registry) -> None:
    with pytest.raises(NotFound, match="no task 'iou'; nearest: ioi"):
        small.query("shared-components", tasks=["ioi", "iou"])
    with pytest.raises(BadInput, match="has no parameter 'tusks'"):
        small.query("shared-components", tusks=["ioi"])
