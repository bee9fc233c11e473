"""Which parts several tasks use: counted again by hand, and by chance as enumeration says."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.answers.reuse import Reuse, reuse
from queries.chance.degrees import draw_circuits
from queries.chance.reuse import (
    components_by_chance,
    connections_by_chance,
    number_of_tasks,
)
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.identifiers import can_feed, parse_connection
from registry.records import Circuit, Edge, Level, Model, Node
from tests import examples
from tests.few import n_examples
from tests.figures import assert_no_legend_lies_on_data
from tests.queries import small_registry
from tests.queries.small_registry import (
    GROUPED,
    IOI,
    IOI_AT_POSITIONS,
    MONTHS,
    NODES_ONLY,
    NUMERALS,
)

SLUGS = [task.slug for task in examples.TASKS]
CIRCUITS = [examples.circuit(seed, task=SLUGS[seed % 3]) for seed in range(9)]
MEASURED = [examples.faithfulness(one, 0.5 + n / 100) for n, one in enumerate(CIRCUITS)]
TINY = Model(slug="tiny", n_layers=2, n_heads=3, n_kv_heads=3)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("reuse") / "registry") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *CIRCUITS, *MEASURED)
        yield registry


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("small") / "registry") as registry:
        small_registry.fill(registry)
        yield registry


# -- chance ----------------------------------------------------------------------------------------


@given(SHARES)
def test_the_number_of_tasks_is_a_sum_over_all_their_outcomes(shares: list[float]) -> None:
    expected = [0.0] * (len(shares) + 1)
    for outcome in itertools.product((False, True), repeat=len(shares)):
        pairs = zip(outcome, shares, strict=True)
        expected[sum(outcome)] += math.prod(p if happens else 1 - p for happens, p in pairs)
    found = number_of_tasks(numpy.array([[share] for share in shares]))[:, 0]
    assert found.tolist() == pytest.approx(expected)


def test_components_by_chance_are_those_of_all_choices_of_heads() -> None:
    used = {"x": ["a0.h0", "a0.h1", "m0", "a1.h2"], "y": ["a0.h0", "a1.h0"], "z": ["a0.h0", "m0"]}
    found = components_by_chance(used, TINY)
    heads = [f"a0.h{n}" for n in range(3)]
    choices = [
        dict(zip(used, chosen, strict=True))
        for chosen in itertools.product(*(itertools.combinations(heads, n) for n in (2, 1, 1)))
    ]
    counts = [sum("a0.h0" in chosen for chosen in choice.values()) for choice in choices]
    assert found.expected["a0.h0"] == pytest.approx(fmean(counts))
    assert found.p["a0.h0"] == pytest.approx(fmean(count >= 3 for count in counts))
    assert (found.expected["m0"], found.p["m0"]) == (2, 1)
    # Three heads in each of two layers, and one MLP.
    assert sum(found.spread) == pytest.approx(7)
    assert sum(n * parts for n, parts in enumerate(found.spread)) == pytest.approx(8)


def test_components_of_which_nobody_knows_the_number_are_left_out() -> None:
    used = {"x": ["m0.f3#dictionary", "a0.h0"], "y": ["m0.f3#dictionary"]}
    assert set(components_by_chance(used, TINY).p) == {"a0.h0"}
    without_shape = components_by_chance(used, Model(slug="tiny"))
    assert (without_shape.p, without_shape.q, sum(without_shape.spread)) == ({}, {}, 0)


def test_p_is_corrected_for_parts_that_no_task_uses_too() -> None:
    used = {task: ["a0.h0"] for task in "xyz"}
    found = components_by_chance(used, TINY)
    assert found.p["a0.h0"] == pytest.approx(1 / 27)
    assert found.q["a0.h0"] == pytest.approx(3 / 27)


SENDERS = ("input", "a0.h0", "a0.h1", "m0", "a1.h0")
RECEIVERS = ("a0.h0<q>", "m0", "a1.h0<q>", "a1.h0<v>", "m1", "logits")


def possible(connection: str) -> bool:
    named = parse_connection(f"m/{connection}")
    return can_feed(named.source, named.target, named.port)


UNIVERSE = [c for s in SENDERS for r in RECEIVERS if possible(c := f"{s}->{r}")]


def degrees(circuit: frozenset[str]) -> tuple[Counter[str], Counter[str]]:
    ends = [connection.partition("->") for connection in circuit]
    return Counter(s for s, _, _ in ends), Counter(r for _, _, r in ends)


def alike(circuit: frozenset[str]) -> list[frozenset[str]]:
    choices = map(frozenset, itertools.combinations(UNIVERSE, len(circuit)))
    return [one for one in choices if degrees(one) == degrees(circuit)]


@pytest.mark.seconds
def test_connections_by_chance_are_those_of_all_circuits_with_these_degrees() -> None:
    used = {
        "x": frozenset(UNIVERSE[::3]),
        "y": frozenset(UNIVERSE[1::4]),
        "z": frozenset(UNIVERSE[2::3]),
    }
    everything = [alike(circuit) for circuit in used.values()]
    found = connections_by_chance(used, 4_000, 0)
    for name in {name for circuit in used.values() for name in circuit}:
        shares = [fmean(name in one for one in circuits) for circuits in everything]
        counts = number_of_tasks(numpy.array([[share] for share in shares]))[:, 0]
        n_tasks = sum(name in circuit for circuit in used.values())
        assert found.expected[name] == pytest.approx(sum(shares), abs=0.06)
        assert found.p[name] == pytest.approx(counts[n_tasks:].sum(), abs=0.06)
    assert sum(n * parts for n, parts in enumerate(found.spread)) == pytest.approx(
        sum(map(len, used.values()))
    )


@settings(deadline=None, max_examples=n_examples(20))
@given(
    st.lists(st.frozensets(st.sampled_from(UNIVERSE), min_size=1), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_names_and_order_of_tasks_change_nothing(
    circuits: list[frozenset[str]], draw: random.Random
) -> None:
    used = {f"t{n}": circuit for n, circuit in enumerate(circuits)}
    shuffled = [*enumerate(circuits)]
    draw.shuffle(shuffled)
    one = connections_by_chance(used, 20, 3)
    other = connections_by_chance({f"u{n}": sorted(circuit) for n, circuit in shuffled}, 20, 3)
    assert other.expected == pytest.approx(one.expected)
    assert other.p == pytest.approx(one.p)
    assert other.q == pytest.approx(one.q)


def test_tasks_with_one_and_the_same_circuit_are_drawn_apart() -> None:
    circuit = frozenset(UNIVERSE[::2])
    same = connections_by_chance({"x": circuit, "y": circuit}, 500, 0)
    alone = connections_by_chance({"x": circuit}, 500, 0)
    free = [name for name, p in alone.p.items() if 0.2 < p < 0.8]
    assert free
    for name in free:  # p of both at once is a product where draws do not go together
        assert same.p[name] == pytest.approx(alone.p[name] ** 2, rel=0.25)


def planted(n_tasks: int, core: int, seed: int) -> tuple[dict[str, list[str]], set[str]]:
    """Circuits drawn anew with the degrees of one each, all with the same few edges planted."""
    heads = [f"a{layer}.h{head}" for layer in range(8) for head in range(8)]
    universe = [
        name
        for source, target in itertools.product(["input", *heads], [*heads, "logits"])
        for port in (("<q>", "<k>", "<v>") if target.startswith("a") else ("",))
        if possible(name := f"{source}->{target}{port}")
    ]
    generator = random.Random(seed)
    shared = set(generator.sample(universe, core))
    used = {}
    for task in range(n_tasks):
        (drawn,) = circuits_of(generator.sample(universe, 150), seed=[seed, task])
        used[f"t{task}"] = sorted({*drawn, *shared})
    return used, shared


def circuits_of(connections: list[str], seed: list[int]) -> list[set[str]]:
    draws = draw_circuits(connections, 1, seed)
    width = len(draws.receivers)
    return [
        {f"{draws.senders[cell // width]}->{draws.receivers[cell % width]}" for cell in cells}
        for cells in draws.cells.tolist()
    ]


@pytest.mark.seconds
def test_a_planted_core_is_found_and_nothing_where_none_is_planted() -> None:
    used, core = planted(5, core=12, seed=1)
    found = connections_by_chance(used, 200, 0)
    assert {name for name in core if found.q[name] < 0.01} == core
    assert sum(found.q[name] < 0.05 for name in found.q.keys() - core) <= 1
    for seed in range(2, 8):
        without, _ = planted(5, core=0, seed=seed)
        assert min(connections_by_chance(without, 200, 0).q.values()) > 0.05


# -- stored circuits -------------------------------------------------------------------------------


def users(circuits: list[Circuit], parts: str) -> Mapping[str, Mapping[str, set[str]]]:
    """By part, then task: ids of the circuits that have it."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for circuit in circuits:
        names = {
            "components": {node.component for node in circuit.nodes},
            "connections": {edge.connection for edge in circuit.edges},
        }
        for name in names[parts]:
            found[f"{circuit.model}/{name}"][circuit.task].add(circuit.id)
    return found


def check(found: Reuse, circuits: list[Circuit]) -> None:
    per_task = Counter(circuit.task for circuit in circuits)
    for of in ("components", "connections"):
        known, parts = users(circuits, of), getattr(found, of)
        assert {part.name for part in parts} == set(known)
        for part in parts:
            uses = known[part.name]
            assert part.tasks == tuple(sorted(uses))
            shares = [len(ids) / per_task[task] for task, ids in uses.items()]
            assert part.generality == pytest.approx(sum(shares) / len(per_task))
            assert part.only_task == (next(iter(uses)) if len(uses) == 1 else None)
        ranked = [(-part.n_tasks, -part.generality) for part in parts]
        assert ranked == sorted(ranked)


def test_the_best_circuit_of_each_task_stands_for_it(registry: Registry) -> None:
    found = reuse(registry, SLUGS, draws=20)
    check(found, CIRCUITS[6:])  # measured as the most faithful, all of one size
    assert found.tasks == tuple(SLUGS)
    for part in found.connections:
        assert part.p is not None
        assert part.q is not None
        assert 0 < part.p <= part.q <= 1
    logits = next(part for part in found.components if part.name == "gpt2/logits")
    assert (logits.kind, logits.layer, logits.expected, logits.p) == ("logits", None, 3, 1)


def test_all_circuits_of_a_task_count_by_their_share(registry: Registry) -> None:
    found = reuse(registry, circuits="all", draws=0)  # no task is named: all that have circuits
    check(found, CIRCUITS)
    assert {part.p for part in found.connections} == {None}
    assert found.connections_spread == ()
    assert {row["connections by chance"] for row in found.spread()} == {None}


def test_named_circuits_bring_their_tasks(registry: Registry) -> None:
    found = reuse(registry, circuits=[CIRCUITS[0].id[:12], CIRCUITS[1].id], draws=5)
    check(found, CIRCUITS[:2])


def test_equal_seeds_give_equal_numbers(registry: Registry) -> None:
    one, same, other = (reuse(registry, SLUGS, draws=10, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.connections != other.connections
    assert one.components == other.components


def test_the_spread_counts_what_was_found_beside_chance(registry: Registry) -> None:
    found = reuse(registry, SLUGS, draws=20)
    spread = found.spread()
    assert [row["n_tasks"] for row in spread] == [1, 2, 3]
    assert sum(row["components"] for row in spread) == len(found.components)
    assert sum(row["connections"] for row in spread) == len(found.connections)
    for of in ("components", "connections"):  # as many uses by chance as there are
        by_chance = sum(row["n_tasks"] * row[f"{of} by chance"] for row in spread)
        assert by_chance == pytest.approx(sum(row["n_tasks"] * row[of] for row in spread))


def test_merged_ports_are_folded_in_all_and_said_so(small: Registry) -> None:
    merged = Circuit(
        model="gpt2",
        task="sequence/months",
        method="merged",
        level=Level.EDGE,
        nodes=(Node(component="a0.h1"), Node(component="a9.h6"), Node(component="logits")),
        edges=(Edge(source="a0.h1", target="a9.h6"), Edge(source="a9.h6", target="logits")),
    )
    small.record(merged)
    found = reuse(small, circuits=[IOI.id, merged.id], draws=0)
    assert any("merge the inputs of heads" in note for note in found.notes)
    both = {part.name for part in found.connections if part.n_tasks == 2}
    assert both == {"gpt2/a0.h1->a9.h6", "gpt2/a9.h6->logits"}
    assert not any("<" in part.name for part in found.connections)


def test_circuits_without_edges_count_among_components_alone(small: Registry) -> None:
    found = reuse(small, circuits=[IOI.id, NUMERALS.id, NODES_ONLY.id], draws=5)
    assert any("sequence/months have no edges" in note for note in found.notes)
    head = next(part for part in found.components if part.name == "gpt2/a9.h6")
    assert (head.n_tasks, head.roles) == (3, ("name mover",))
    edge = next(part for part in found.connections if part.name == "gpt2/a9.h6->logits")
    assert (edge.n_tasks, edge.generality) == (2, 1)


def test_circuits_without_edges_have_no_plot_of_connections(tmp_path: Path) -> None:
    other = NODES_ONLY.model_copy(update={"task": "ioi"})
    with Registry.init(tmp_path / "registry") as registry:
        small_registry.fill(registry)
        registry.record(other)
        (axes,) = reuse(registry, circuits=[NODES_ONLY.id, other.id], draws=5).plot().axes
    assert axes.get_ylabel() == "components"


def test_a_component_at_several_positions_counts_once(small: Registry) -> None:
    found = reuse(small, circuits=[IOI_AT_POSITIONS.id, MONTHS.id], draws=0)
    (head,) = (part for part in found.components if part.name == "gpt2/a9.h6")
    assert (head.tasks, head.generality) == (("ioi",), 0.5)


def test_what_cannot_be_compared_is_refused(small: Registry) -> None:
    with pytest.raises(BadInput, match="circuits in 2 models"):
        reuse(small)
    with pytest.raises(BadInput, match=r"needs circuits of two or more tasks; found .* of ioi"):
        reuse(small, ["ioi"], model="gpt2")
    with pytest.raises(BadInput, match="two or more tasks"):
        reuse(small, circuits=[GROUPED.id])
    with pytest.raises(BadInput, match="no active circuit that can be used"):
        reuse(small, method="guessing")
    with pytest.raises(NotFound, match="no model 'gpt9'"):
        reuse(small, model="gpt9")


def test_a_frame_has_a_row_for_each_part_and_a_figure_both_kinds(registry: Registry) -> None:
    found = reuse(registry, SLUGS, draws=5)
    frame = found.to_frame()
    assert len(frame) == len(found.components) + len(found.connections)
    top = frame.iloc[0]
    assert (top["of"], top["name"], top["n_tasks"]) == (
        "component",
        found.components[0].name,
        found.components[0].n_tasks,
    )
    axes = found.plot().axes
    assert [one.get_ylabel() for one in axes] == ["components", "connections"]
    of_connections, by_chance = axes[1].containers
    heights = [bar.get_height() for bar in of_connections]
    assert heights == [row["connections"] for row in found.spread()]
    assert len(by_chance) == len(SLUGS)
    assert_no_legend_lies_on_data(found.plot())


@pytest.mark.parametrize("ports", [True, False])
def test_the_queries_count_tasks_and_circuits(registry: Registry, ports: bool) -> None:
    ids = [circuit.id for circuit in CIRCUITS]
    rows = registry.query("tasks-using-connections", circuits=ids, ports=ports)
    known: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, uses in users(CIRCUITS, "connections").items():
        for task, circuits in uses.items():
            known[name if ports else name.partition("<")[0]][task] |= circuits
    assert {row["connection"] for row in rows} == set(known)
    for row in rows:
        uses = known[row["connection"]]
        assert row["tasks"] == [{"task": t, "n_circuits": len(uses[t])} for t in sorted(uses)]
        assert (row["n_tasks"], row["n_circuits"]) == (len(uses), sum(map(len, uses.values())))
