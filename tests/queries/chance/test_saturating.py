"""What circuits share by chance where hubs saturate: exact figures from fitted propensities."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queries.chance.degrees import edge_places
from queries.chance.hubs import EdgeChances, edge_chances, shared_by_chances, shared_by_hubs
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


FULL = frozenset(
    {
        "a0.h0->a1.h0<v>", "a0.h1->a1.h0<v>", "input->a1.h0<v>", "a0.h1->m1", "a1.h0->m1",
        "input->m1", "a0.h0->logits",
    }
)  # fmt: skip
"""Holds most of its possible edges: 500 rounds leave a receiver .0503 short."""


@example(FULL)
@given(CIRCUITS)
def test_every_part_has_as_many_edges_as_found_on_average(circuit: frozenset[str]) -> None:
    # docs/statistics.md says what 500 rounds can leave.
    found = edge_chances(circuit)
    sent, received = found.probabilities.sum(1), found.probabilities.sum(0)
    for name, expected in zip(found.senders, sent, strict=True):
        n_edges = sum(edge.startswith(f"{name}->") for edge in circuit)
        assert expected == pytest.approx(n_edges, abs=0.07)
    for name, expected in zip(found.receivers, received, strict=True):
        n_edges = sum(edge.endswith(f"->{name}") for edge in circuit)
        assert expected == pytest.approx(n_edges, abs=0.07)


@given(CIRCUITS)
def test_only_edges_of_the_model_are_likely_at_all(circuit: frozenset[str]) -> None:
    found = edge_chances(circuit)
    assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
    for row, sender in enumerate(found.senders):
        for column, receiver in enumerate(found.receivers):
            likely = found.probabilities[row, column] > 0
            assert likely == possible(f"{sender}->{receiver}")


@given(CIRCUITS)
def test_an_edge_comes_up_at_the_rate_of_both_its_ends(circuit: frozenset[str]) -> None:
    # Where four edges form a rectangle, products of rates along its diagonals are equal.
    found = edge_chances(circuit)
    rates = -numpy.log1p(-found.probabilities.clip(max=1 - 1e-9))
    allowed = edge_places(circuit).allowed
    for (one, other), (left, right) in itertools.product(
        itertools.combinations(range(len(found.senders)), 2),
        itertools.combinations(range(len(found.receivers)), 2),
    ):
        corners = rates[[one, one, other, other], [left, right, left, right]]
        if (
            allowed[[one, one, other, other], [left, right, left, right]].all()
            and corners.max() < 15
        ):
            assert corners[0] * corners[3] == pytest.approx(corners[1] * corners[2], rel=1e-4)


@settings(max_examples=n_examples(50))
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.lists(st.floats(0, 1), min_size=8, max_size=8),
    st.integers(0, 8),
)
def test_what_is_shared_is_a_sum_of_independent_chances(
    ours: list[float], theirs: list[float], n_shared: int
) -> None:
    receivers = tuple(f"m{layer}" for layer in range(len(ours)))
    a, b = (
        EdgeChances(("input",), receivers, numpy.array([chances[: len(ours)]]))
        for chances in (ours, theirs)
    )
    both = [one * other for one, other in zip(ours, theirs, strict=False)]
    exact = [0.0] * (len(both) + 1)
    for happened in itertools.product((0, 1), repeat=len(both)):
        exact[sum(happened)] += math.prod(
            chance if yes else 1 - chance for chance, yes in zip(both, happened, strict=True)
        )
    found = shared_by_chances(n_shared, a, b)
    assert found.expected == pytest.approx(sum(both))
    assert found.p == pytest.approx(sum(exact[n_shared:]), abs=1e-12)
    assert found.n_shared == n_shared
    assert sum(exact[: int(found.low)]) <= 0.025 + 1e-9
    assert sum(exact[int(found.high) + 1 :]) <= 0.025 + 1e-9
    spread = math.sqrt(sum(chance * (1 - chance) for chance in both))
    if spread > 1e-3:
        assert found.z == pytest.approx((n_shared - sum(both)) / spread)


@given(CIRCUITS, CIRCUITS)
def test_figures_are_equal_in_either_order_to_the_last_digit(
    a: frozenset[str], b: frozenset[str]
) -> None:
    assert shared_by_hubs(a, b) == shared_by_hubs(sorted(b, reverse=True), a)


def test_hubs_that_hold_all_edges_they_can_are_certain_to_share_them() -> None:
    circuit = [c for c in UNIVERSE if c.partition("->")[0] in ("input", "m0")]
    found = shared_by_hubs(circuit, circuit)
    assert found.expected == pytest.approx(len(circuit), abs=0.1)
    assert found.p > 0.9


def test_circuits_without_common_parts_share_nothing_by_chance() -> None:
    found = shared_by_hubs(["input->m0"], ["a0.h0->m1"])
    assert (found.n_shared, found.expected, found.z, found.p) == (0, 0.0, None, 1.0)
    assert shared_by_hubs([], ["input->m0"]).p == 1.0


def test_an_edge_that_leads_backwards_is_refused() -> None:
    with pytest.raises(BadInput, match="m1->m0 leads from a later part"):
        shared_by_hubs(["m1->m0"], ["m0->m1"])
    assert shared_by_hubs(["a0.h0->m0"], ["a0.h0->m0"]).n_shared == 1
    with pytest.raises(BadInput, match="leads from a later part"):
        shared_by_hubs(["a0.h0->m0"], ["a0.h0->m0"], parallel_attn_mlp=True)
