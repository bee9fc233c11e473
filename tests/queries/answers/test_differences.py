"""Two circuits part by part: as sets and sums say, and as the graph says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from queries.answers.diff import PartDifference, count, differences
from queries.answers.overlap import compare
from registry import Registry
from registry.errors import BadInput
from registry.records import Circuit, Edge, Level, Node, Sign
from tests import examples
from tests.figures import assert_no_legend_lies_on_data
from tests.queries import small_registry
from tests.queries.small_registry import (
    GROUPED,
    IOI,
    IOI_AT_POSITIONS,
    MONTHS,
    NODES_ONLY,
    NUMERALS,
    RETRACTED,
)

CIRCUITS = [examples.circuit(seed) for seed in range(5)]
MERGED = Circuit(
    model="gpt2",
    task="ioi",
    method="merged",
    level=Level.EDGE,
    sign=Sign.HELPS_POSITIVE,
    nodes=(Node(component="a0.h1"), Node(component="a9.h6"), Node(component="logits")),
    edges=(
        Edge(source="a0.h1", target="a9.h6", effect=-1.0, rank=1),
        Edge(source="a9.h6", target="logits", effect=0.5, rank=2),
    ),
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("differences") / "registry") as registry:
        small_registry.fill(registry)
        registry.record(*CIRCUITS, MERGED)
        yield registry


def by_name(parts: tuple[PartDifference, ...]) -> dict[str, PartDifference]:
    return {part.name: part for part in parts}


@pytest.mark.parametrize(("a", "b"), [*itertools.combinations(CIRCUITS, 2)])
def test_connections_are_those_of_either_with_effect_and_rank_in_each(
    registry: Registry, a: Circuit, b: Circuit
) -> None:
    found = by_name(differences(registry, a.id[:12], b.id).connections)
    in_a, in_b = ({f"gpt2/{e.connection}": e for e in one.edges} for one in (a, b))
    assert set(found) == set(in_a) | set(in_b)
    for name, part in found.items():
        one, other = in_a.get(name), in_b.get(name)
        assert part.where == ("both" if one and other else "a" if one else "b")
        assert (part.effect_a, part.rank_a) == ((one.effect, one.rank) if one else (None, None))
        assert (part.effect_b, part.rank_b) == (
            (other.effect, other.rank) if other else (None, None)
        )
        if one and other:
            assert one.effect is not None
            assert other.effect is not None
            assert part.change == other.effect - one.effect
            assert part.sign_turned == ((one.effect > 0) != (other.effect > 0))
        else:
            assert (part.change, part.sign_turned) == (None, None)


def graph_says(
    registry: Registry, query: str, of: str, a: Circuit, b: Circuit
) -> set[tuple[Any, ...]]:
    kept = ("in_a", "in_b", "effect_a", "effect_b", "rank_a", "rank_b")
    rows = registry.query(query, a=a.id, b=b.id)
    return {(row[of], *(row[name] for name in kept)) for row in rows}


@pytest.mark.parametrize(
    ("a", "b"),
    [(CIRCUITS[0], CIRCUITS[1]), (IOI, NUMERALS), (IOI, IOI_AT_POSITIONS), (IOI, IOI)],
)
def test_the_graph_says_the_same(registry: Registry, a: Circuit, b: Circuit) -> None:
    found = differences(registry, a.id, b.id)
    for query, of, parts in (
        ("circuit-differences", "connection", found.connections),
        ("circuit-differences-of-components", "component", found.components),
    ):
        said = {
            (
                part.name,
                part.where in ("a", "both"),
                part.where in ("b", "both"),
                part.effect_a,
                part.effect_b,
                part.rank_a,
                part.rank_b,
            )
            for part in parts
        }
        assert said == graph_says(registry, query, of, a, b)


@pytest.mark.parametrize(("a", "b"), [*itertools.combinations(CIRCUITS, 2), (IOI, NODES_ONLY)])
def test_turning_the_pair_round_turns_every_row(registry: Registry, a: Circuit, b: Circuit) -> None:
    turned = {"a": "b", "b": "a", "both": "both"}
    one, other = differences(registry, a.id, b.id), differences(registry, b.id, a.id)
    assert {
        (p.name, turned[p.where], p.effect_b, p.effect_a, p.rank_b, p.rank_a, p.sign_turned)
        for p in (*one.connections, *one.components)
    } == {
        (p.name, p.where, p.effect_a, p.effect_b, p.rank_a, p.rank_b, p.sign_turned)
        for p in (*other.connections, *other.components)
    }


def test_counts_are_those_of_the_comparison(registry: Registry) -> None:
    found, compared = differences(registry, IOI.id, NUMERALS.id), compare(IOI, NUMERALS)
    counts = count(found.connections)
    assert (counts.n_a, counts.n_b, counts.both) == (5, 4, 4)
    assert (counts.only_a, counts.only_b) == (1, 0)
    assert counts.sign_turned == compared.n_signed - compared.n_same_sign == 2
    components = count(found.components)
    assert (components.n_a, components.n_b, components.both) == (5, 5, 5)


def test_what_both_have_comes_first_and_the_strongest_of_that(registry: Registry) -> None:
    names = [part.name for part in differences(registry, IOI.id, NUMERALS.id).connections]
    assert names == [
        "gpt2/m9->logits",
        "gpt2/a9.h6->logits",
        "gpt2/a0.h1->a9.h6<k>",
        "gpt2/input->a0.h1<v>",
        "gpt2/a9.h6->m9",
    ]


def test_effects_at_several_positions_add_up(registry: Registry) -> None:
    found = differences(registry, IOI.id, IOI_AT_POSITIONS.id)
    edge = by_name(found.connections)["gpt2/a0.h1->a9.h6<k>"]
    assert (edge.effect_a, edge.effect_b, edge.rank_b) == (0.75, 0.375, 3)
    head = by_name(found.components)["gpt2/a9.h6"]
    assert (head.effect_b, head.rank_b) == (0.875, 1)


def test_merged_ports_are_folded_and_said(registry: Registry) -> None:
    found = differences(registry, IOI.id, MERGED.id)
    edge = by_name(found.connections)["gpt2/a0.h1->a9.h6"]
    assert (edge.where, edge.effect_a, edge.effect_b) == ("both", 0.75, -1.0)
    assert (edge.rank_a, edge.rank_b, edge.sign_turned) == (2, 1, True)
    assert any("are compared without them" in note for note in found.notes)


def test_a_sign_is_not_said_to_turn_where_effects_have_none(registry: Registry) -> None:
    found = differences(registry, IOI.id, MONTHS.id)
    assert {part.sign_turned for part in (*found.connections, *found.components)} == {None}
    assert any(note.startswith("sign: ") for note in found.notes)


def test_a_circuit_of_nodes_differs_in_its_components(registry: Registry) -> None:
    found = differences(registry, NODES_ONLY.id, IOI.id)
    assert {part.where for part in found.connections} == {"b"}
    assert by_name(found.components)["gpt2/a4.h4"].where == "a"
    assert any("only components are compared" in note for note in found.notes)


def test_a_circuit_does_not_differ_from_itself_even_if_retracted(registry: Registry) -> None:
    found = differences(registry, RETRACTED.id, RETRACTED.id)
    assert {part.where for part in found.connections} == {"both"}
    assert {part.change for part in found.connections} == {0.0}


def test_circuits_of_different_models_are_refused(registry: Registry) -> None:
    with pytest.raises(BadInput, match=r"is of gpt2, .* of smollm2"):
        differences(registry, IOI.id, GROUPED.id)


def test_a_frame_and_a_figure_hold_every_connection(registry: Registry) -> None:
    found = differences(registry, CIRCUITS[0].id, CIRCUITS[1].id)
    frame = found.to_frame()
    assert len(frame) == len(found.connections) + len(found.components)
    assert set(frame.loc[frame["where"] == "both", "change"].isna()) == {False}
    (axes,) = found.plot().axes
    points = [numpy.shape(dots.get_offsets())[0] for dots in axes.collections]
    counts = count(found.connections)
    assert points == [counts.only_a, counts.only_b, counts.both]


def test_the_legend_covers_no_part(registry: Registry) -> None:
    figure = differences(registry, CIRCUITS[0].id, CIRCUITS[1].id).plot()
    assert_no_legend_lies_on_data(figure)
