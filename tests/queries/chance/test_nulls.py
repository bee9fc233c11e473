"""What circuits share by chance: draws keep what they should, reach all, and reach all alike."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.chance.degrees import Draws, draw_circuits, shared_by_chance
from registry.errors import BadInput
from registry.identifiers import can_feed, parse_connection
from tests.few import n_examples

SENDERS = ("input", "a0.h0", "a0.h1", "m0", "a1.h0", "m1")
RECEIVERS = ("a0.h0<q>", "a0.h1<v>", "m0", "a1.h0<q>", "a1.h0<v>", "m1", "logits")


def possible(connection: str) -> bool:
    named = parse_connection(f"m/{connection}")
    return can_feed(named.source, named.target, named.port)


UNIVERSE = [c for s in SENDERS for r in RECEIVERS if possible(c := f"{s}->{r}")]
CIRCUITS = st.frozensets(st.sampled_from(UNIVERSE), min_size=1)


def degrees(circuit: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    ends = [connection.partition("->") for connection in circuit]
    return tuple(sorted(s for s, _, _ in ends)), tuple(sorted(r for _, _, r in ends))


def circuits_of(draws: Draws) -> list[frozenset[str]]:
    return [
        frozenset(
            f"{draws.senders[row]}->{draws.receivers[column]}"
            for row, column in numpy.argwhere(one)
        )
        for one in draws.present
    ]


@given(CIRCUITS, st.integers(0, 2**32))
def test_every_part_keeps_its_number_of_edges_and_all_lead_forward(
    circuit: frozenset[str], seed: int
) -> None:
    for drawn in circuits_of(draw_circuits(circuit, 3, seed)):
        assert degrees(drawn) == degrees(circuit)
        assert all(map(possible, drawn))


@pytest.mark.seconds
@settings(max_examples=n_examples(12), deadline=None)
@given(st.frozensets(st.sampled_from(UNIVERSE), min_size=4, max_size=7))
def test_all_circuits_with_these_degrees_are_drawn_equally_often(circuit: frozenset[str]) -> None:
    alike = [
        frozenset(chosen)
        for chosen in itertools.combinations(UNIVERSE, len(circuit))
        if degrees(frozenset(chosen)) == degrees(circuit)
    ]
    n = 400 * len(alike)
    drawn = circuits_of(draw_circuits(circuit, n, 0, swaps_per_edge=60))
    found = [drawn.count(one) for one in alike]
    assert sum(found) == n
    # Chi square of k - 1 degrees lies five of its standard deviations above its mean by chance in
    # some 1 of 10,000 cases or fewer, seldom enough for 12 circuits.
    chi_square = sum((count - 400) ** 2 / 400 for count in found)
    assert chi_square <= len(alike) + 5 * math.sqrt(2 * len(alike)) + 5


@given(CIRCUITS, CIRCUITS, st.integers(0, 2**32))
def test_equal_seeds_give_equal_numbers_whatever_the_order(
    a: frozenset[str], b: frozenset[str], seed: int
) -> None:
    one = shared_by_chance(sorted(a), sorted(b), 10, seed)
    assert one == shared_by_chance(sorted(a, reverse=True), b, 10, seed)


def test_two_circuits_are_not_drawn_alike_by_the_same_seed() -> None:
    circuit = UNIVERSE[::2]
    one, other = (draw_circuits(circuit, 50, [0, side]) for side in (0, 1))
    assert circuits_of(one) != circuits_of(other)


def test_what_is_shared_by_chance_is_what_all_pairs_of_such_circuits_share() -> None:
    a, b = frozenset(UNIVERSE[::3]), frozenset(UNIVERSE[::4])
    pairs = []
    for circuit in (a, b):
        choices = itertools.combinations(UNIVERSE, len(circuit))
        pairs.append([set(c) for c in choices if degrees(frozenset(c)) == degrees(circuit)])
    shared = [len(x & y) for x, y in itertools.product(*pairs)]
    found = shared_by_chance(a, b, 4_000, 0)
    assert found.n_shared == len(a & b)
    assert found.expected == pytest.approx(numpy.mean(shared), abs=0.05)
    exact = numpy.mean([n >= len(a & b) for n in shared])
    assert found.p == pytest.approx(exact, abs=0.03)
    assert found.low <= found.expected <= found.high


def test_a_planted_core_is_told_from_hubs() -> None:
    generator = numpy.random.default_rng(0)
    heads = [f"a{layer}.h{head}" for layer in range(6) for head in range(6)]
    universe = [f"{s}->{r}<q>" for s in heads for r in heads if possible(f"{s}->{r}<q>")]
    hubs = generator.lognormal(0, 1, len(heads))
    odds = dict(zip(heads, hubs, strict=True))
    weights = [odds[c[:5]] * odds[c[7:12]] for c in universe]

    def noise() -> set[str]:
        limits = generator.random(len(universe)) * 40
        return {c for c, w, limit in zip(universe, weights, limits, strict=True) if w > limit}

    core = set(generator.choice(universe, 25, replace=False))
    apart = shared_by_chance(noise(), noise(), 400, 0)
    together = shared_by_chance(noise() | core, noise() | core, 400, 0)
    assert together.p < 0.01
    assert apart.p > 0.05
    assert apart.n_shared > 0


@pytest.mark.parametrize(
    ("circuit", "n", "message"),
    [
        (["m1->m0"], 5, "m1->m0 leads from a later part to an earlier one"),
        (["m0->m1"], 0, "must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(circuit: list[str], n: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        draw_circuits(circuit, n, 0)


def test_beside_attention_an_mlp_does_not_read_it() -> None:
    assert draw_circuits(["a0.h0->m0"], 1, 0).present.all()
    with pytest.raises(BadInput, match="leads from a later part"):
        draw_circuits(["a0.h0->m0"], 1, 0, parallel_attn_mlp=True)


def test_empty_circuits_share_nothing_by_chance() -> None:
    found = shared_by_chance([], ["m0->m1"], 5, 0)
    assert (found.n_shared, found.expected, found.z, found.p) == (0, 0.0, None, 1.0)
