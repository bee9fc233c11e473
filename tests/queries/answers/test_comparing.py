"""Stored circuits beside each other: figures that do not hang on the order of a pair."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scipy.stats import false_discovery_control

from queries.answers.compare import compare_circuits, compare_pairs
from queries.chance.hubs import shared_by_hubs
from queries.chance.layers import edges_by_layers, parts_by_chance
from queries.plots.picture import DrawnEdge
from registry import Registry
from registry.errors import BadInput
from registry.records import Ablation, Circuit, Level, Model
from tests import examples

DRAWS = 60
PARALLEL = Model(slug="parallel", n_layers=12, n_heads=12, n_kv_heads=12, parallel_attn_mlp=True)
PROMPTS = [digit * 64 for digit in "123"]
CIRCUITS = [examples.circuit(seed, n_heads=10) for seed in range(4)]
# Found the same way, each on prompts of its own.
SEEDS = [
    examples.circuit(seed, n_heads=10).model_copy(
        update={"prompt_set": prompts, "parameters": {}, "selection": {"top": 20}}
    )
    for seed, prompts in enumerate(PROMPTS, start=10)
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("comparing")) as registry:
        registry.record(examples.GPT2, PARALLEL, *examples.TASKS, *CIRCUITS)
        registry.record(*(examples.prompt_set(id) for id in PROMPTS))
        registry.record(*SEEDS)
        yield registry


def pairs() -> list[tuple[str, str]]:
    return [(a.id, b.id) for a, b in itertools.combinations(CIRCUITS, 2)]


def test_figures_of_a_pair_are_equal_in_either_order_to_the_last_digit(registry: Registry) -> None:
    one = compare_pairs(registry, pairs(), draws=DRAWS)
    other = compare_pairs(registry, [(b, a) for a, b in pairs()], draws=DRAWS)
    for here, there in zip(one, other, strict=True):
        assert here.by_degrees == there.by_degrees
        assert here.by_hubs == there.by_hubs
        assert here.by_layers == there.by_layers
        assert here.components_by_layers == there.components_by_layers
        assert (here.p, here.q, here.conclusion) == (there.p, there.q, there.conclusion)
        assert (here.saturation_a, here.saturation_b) == (there.saturation_b, there.saturation_a)


def test_a_pair_is_drawn_alike_alone_and_among_others(registry: Registry) -> None:
    among = compare_pairs(registry, pairs(), draws=DRAWS)
    for pair, (a, b) in zip(among, pairs(), strict=True):
        alone = compare_circuits(registry, a, b, draws=DRAWS)
        assert (alone.by_degrees, alone.by_layers) == (pair.by_degrees, pair.by_layers)
        assert alone.q == alone.p


def test_other_seeds_draw_others(registry: Registry) -> None:
    a, b = pairs()[0]
    found = {compare_circuits(registry, a, b, draws=DRAWS, seed=seed).by_degrees for seed in (0, 1)}
    assert len(found) == 2


def test_the_weakest_conclusion_counts_and_is_corrected_for_all_pairs(registry: Registry) -> None:
    found = compare_pairs(registry, pairs(), draws=DRAWS)
    weakest = []
    for pair in found:
        nulls = [one for one in (pair.by_degrees, pair.by_hubs, pair.by_layers) if one is not None]
        assert len(nulls) == 3
        assert pair.p == max(one.p for one in nulls)
        weakest.append(pair.p)
    assert [pair.q for pair in found] == pytest.approx(false_discovery_control(weakest))


def test_exact_nulls_are_those_of_the_parts(registry: Registry) -> None:
    a, b = CIRCUITS[:2]
    found = compare_circuits(registry, a.id, b.id, draws=1)
    ours, theirs = (
        ({node.component for node in one.nodes}, {edge.connection for edge in one.edges})
        for one in (a, b)
    )
    assert found.components_by_layers == parts_by_chance(ours[0], theirs[0], examples.GPT2)
    assert found.by_layers == edges_by_layers(ours[1], theirs[1], examples.GPT2)
    assert found.by_hubs == shared_by_hubs(ours[1], theirs[1])


def test_a_circuit_beside_itself_shares_everything_and_more_than_chance(registry: Registry) -> None:
    (one, _) = pairs()[0]
    found = compare_circuits(registry, one, one[:10], draws=DRAWS)
    for level in ("components", "edges", "connections"):
        assert getattr(found.comparison, level).iou == 1
    assert found.by_degrees is not None
    # Two independent draws of it differ, or every draw would share all.
    assert found.by_degrees.expected < found.by_degrees.n_shared


def test_circuits_of_equal_names_are_drawn_as_their_own_model_allows(registry: Registry) -> None:
    asked = []
    for model in ("gpt2", PARALLEL.slug):
        both = [_without_attention_to_mlp(one, model) for one in CIRCUITS[:2]]
        registry.record(*both)
        asked.append((both[0].id, both[1].id))
    together = compare_pairs(registry, asked, draws=DRAWS)
    for pair, (a, b) in zip(together, asked, strict=True):
        alone = compare_circuits(registry, a, b, draws=DRAWS)
        assert (alone.by_degrees, alone.by_hubs) == (pair.by_degrees, pair.by_hubs)


def test_the_ceiling_is_what_replicates_share(registry: Registry) -> None:
    found = compare_circuits(registry, SEEDS[0].id, CIRCUITS[0].id, draws=0)
    (ceiling,) = found.ceilings
    edges = [{edge.connection for edge in one.edges} for one in SEEDS]
    ious = [len(a & b) / len(a | b) for a, b in itertools.combinations(edges, 2)]
    assert (ceiling.task, ceiling.n_circuits) == ("ioi", 3)
    assert ceiling.mean_iou == pytest.approx(sum(ious) / 3)
    assert (ceiling.lowest_iou, ceiling.highest_iou) == (min(ious), max(ious))


def test_without_draws_nothing_is_said_of_chance(registry: Registry) -> None:
    (found,) = compare_pairs(registry, pairs()[:1], draws=0)
    assert (found.by_degrees, found.by_hubs, found.by_layers) == (None, None, None)
    assert (found.components_by_layers, found.p, found.q) == (None, None, None)
    assert "not requested" in found.conclusion


def test_what_does_not_compare_ends_the_call_unless_anyway(registry: Registry) -> None:
    zero = examples.circuit(30, n_heads=10).model_copy(update={"ablation": Ablation.ZERO})
    registry.record(zero)
    unsound = [(CIRCUITS[0].id, zero.id)]
    with pytest.raises(BadInput, match="ablation: resample in a, zero in b"):
        compare_pairs(registry, unsound, draws=0)
    (found,) = compare_pairs(registry, unsound, draws=0, anyway=True)
    assert found.comparison.differences[0] == "ablation: resample in a, zero in b"


def test_progress_tells_every_pair(registry: Registry) -> None:
    told: list[tuple[int, int]] = []
    compare_pairs(registry, pairs()[:3], draws=0, progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_frame_has_a_row_for_each_level(registry: Registry) -> None:
    a, b = pairs()[0]
    found = compare_circuits(registry, a, b, draws=DRAWS)
    frame = found.to_frame().set_index("of")
    assert list(frame.index) == ["components", "edges", "connections"]
    assert frame.loc["connections", "p"] == found.p
    assert frame.loc["components", "n_shared"] == found.comparison.components.n_shared
    silent = replace(
        found, by_degrees=None, by_hubs=None, by_layers=None, components_by_layers=None
    )
    assert silent.to_frame()["p"].isna().all()


def _without_attention_to_mlp(circuit: Circuit, model: str) -> Circuit:
    """Only edges that a model has whose attention and MLP of a block read the same."""
    edges = [edge for edge in circuit.edges if edge.source == "input" or edge.target == "logits"]
    return Circuit.model_validate(circuit.model_dump() | {"model": model, "edges": edges})


def test_a_pair_is_drawn_with_what_both_use_apart_from_the_rest(registry: Registry) -> None:
    pair = compare_circuits(registry, SEEDS[0].id, SEEDS[1].id, draws=0)
    picture = pair.picture
    assert {_name(edge) for edge in picture.edges if len(edge.effects) == 2} == set(
        pair.comparison.shared_connections
    )
    assert len(picture.edges) == len(
        pair.comparison.folded_a.connections | pair.comparison.folded_b.connections
    )
    (first,) = (edge for edge in picture.edges if _name(edge) == SEEDS[0].edges[0].connection)
    assert first.effects[picture.tasks[0]] == SEEDS[0].edges[0].effect
    assert "used by both" in {text.get_text() for text in pair.plot().legends[0].get_texts()}
    assert {
        name for name, n in picture.users.items() if n == 2
    } == pair.comparison.shared_components


def test_a_pair_without_edges_is_drawn_by_its_components(registry: Registry) -> None:
    nodes = [
        circuit.model_copy(update={"edges": (), "level": Level.NODE, "parameters": {"nodes": at}})
        for at, circuit in enumerate(CIRCUITS[:2])
    ]
    nodes = [Circuit.model_validate(circuit.model_dump()) for circuit in nodes]
    registry.record(*nodes)
    pair = compare_circuits(registry, nodes[0].id, nodes[1].id)
    drawn = pair.picture.components
    assert {name for name, n in drawn.items() if n == 2} == pair.comparison.shared_components
    n_shared = pair.comparison.components.n_shared
    assert f"{n_shared} shared components" in " ".join(
        text.get_text() for text in pair.plot().axes[0].texts + pair.plot().texts
    )


def test_a_circuit_beside_itself_or_its_copy_proves_nothing(registry: Registry) -> None:
    copy = Circuit(**{**SEEDS[0].model_dump(), "prompt_set": None})
    registry.record(copy)
    itself = compare_circuits(registry, SEEDS[0].id, SEEDS[0].id, draws=DRAWS)
    copied = compare_circuits(registry, SEEDS[0].id, copy.id, draws=DRAWS)
    other = compare_circuits(registry, SEEDS[0].id, SEEDS[1].id, draws=DRAWS)
    assert itself.sameness == "both are the same circuit"
    assert "one may be a copy of the other" in copied.sameness
    for pair in (itself, copied):
        assert pair.conclusion == f"{pair.sameness}, so their overlap is no evidence"
    assert (other.sameness, "by chance" in other.conclusion) == ("", True)


def _name(edge: DrawnEdge) -> str:
    return f"{edge.source}->{edge.target}" + (f"<{edge.port}>" if edge.port else "")
