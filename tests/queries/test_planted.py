"""Circuits of which it is known whether they share more than chance: the nulls must say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from queries.chance.degrees import draw_circuits, shared_by_chance
from queries.chance.hubs import shared_by_hubs
from queries.chance.layers import edges_by_layers
from registry.identifiers import can_feed, parse_connection
from registry.records import Model

pytestmark = pytest.mark.seconds

SMALL = Model(slug="small", n_layers=5, n_heads=6, n_kv_heads=6)
GPT2 = Model(slug="gpt2", n_layers=12, n_heads=12, n_kv_heads=12)
N_PAIRS, N_DRAWS = 200, 300
SPREAD = 1.0


@dataclass(frozen=True)
class Universe:
    """All edges of a model, and where they start and end."""

    names: tuple[str, ...]
    senders: NDArray[numpy.int64]
    receivers: NDArray[numpy.int64]

    def odds(
        self, generator: numpy.random.Generator, n_edges: int, spread: float = SPREAD
    ) -> NDArray[numpy.float64]:
        """Of each edge to be in a circuit: sender's propensity x receiver's, and a constant."""
        sending, receiving = (
            generator.lognormal(0, spread, places.max() + 1)
            for places in (self.senders, self.receivers)
        )
        product: NDArray[numpy.float64] = sending[self.senders] * receiving[self.receivers]
        low, high = -50.0, 50.0
        for _ in range(60):  # until so many edges are expected
            middle = (low + high) / 2
            odds = product * numpy.exp(middle)
            low, high = (low, middle) if (odds / (1 + odds)).sum() > n_edges else (middle, high)
        product *= numpy.exp(low)
        return product

    def draw(self, odds: NDArray[numpy.float64], generator: numpy.random.Generator) -> set[str]:
        """Each edge apart."""
        chosen = generator.random(len(odds)) * (1 + odds) < odds
        return {self.names[at] for at in numpy.flatnonzero(chosen)}


def universe_of(model: Model) -> Universe:
    layers, heads_a_layer = range(model.n_layers or 0), range(model.n_heads or 0)
    heads = [f"a{layer}.h{head}" for layer in layers for head in heads_a_layer]
    mlps = [f"m{layer}" for layer in layers]
    receivers = [f"{head}<{port}>" for head in heads for port in "qkv"] + [*mlps, "logits"]
    pairs = [
        (sender, receiver)
        for sender in ("input", *heads, *mlps)
        for receiver in receivers
        if leads_forward(f"{sender}->{receiver}")
    ]
    return Universe(
        tuple(f"{sender}->{receiver}" for sender, receiver in pairs),
        *(numpy.unique(ends, return_inverse=True)[1] for ends in zip(*pairs, strict=True)),
    )


@pytest.fixture(scope="module")
def gpt2() -> Universe:
    return universe_of(GPT2)


def leads_forward(edge: str) -> bool:
    named = parse_connection(f"m/{edge}")
    return can_feed(named.source, named.target, named.port)


def unrelated(universe: Universe) -> Iterator[tuple[set[str], set[str]]]:
    """Pairs that share the propensities of their model's parts, and nothing else."""
    for number in range(N_PAIRS):
        generator = numpy.random.default_rng([0, number])
        odds = universe.odds(generator, 60)
        yield universe.draw(odds, generator), universe.draw(odds, generator)


def test_under_no_sharing_the_null_of_degrees_is_as_often_right_as_it_says() -> None:
    ranks, by_layers = [], []
    for number, (a, b) in enumerate(unrelated(universe_of(SMALL))):
        drawn_a, drawn_b = (draw_circuits(one, N_DRAWS, [number, side]) for side, one in
                            enumerate((a, b)))  # fmt: skip
        shared, n_shared = drawn_a.n_shared(drawn_b), len(a & b)
        # The place of the found pair among the drawn, at random among equals, is uniform.
        tie = numpy.random.default_rng([1, number]).random()
        above, equal = (shared > n_shared).sum(), (shared == n_shared).sum()
        ranks.append((above + tie * (equal + 1)) / (N_DRAWS + 1))
        chance = edges_by_layers(a, b, SMALL)
        assert chance is not None
        by_layers.append(chance.p)
    assert len(ranks) == N_PAIRS
    assert kstest(ranks, "uniform").pvalue > 0.01
    # The same pairs, where hubs are not kept: what is claimed above is no matter of course.
    assert kstest(by_layers, "uniform").pvalue < 1e-6
    assert numpy.mean(numpy.array(by_layers) < 0.05) > 0.3


def taken_by_weight(universe: Universe, number: int) -> tuple[set[str], set[str]]:
    """A pair that shares its model's propensities, edges taken one by one without replacement."""
    generator = numpy.random.default_rng([4, number])
    rates = universe.odds(generator, 600, spread=2.0)
    a, b = (numpy.argsort(generator.exponential(size=len(rates)) / rates)[:600] for _ in range(2))
    return {universe.names[at] for at in a}, {universe.names[at] for at in b}


def test_where_hubs_saturate_the_null_of_degrees_is_too_eager_and_theirs_is_not(
    gpt2: Universe,
) -> None:
    pairs = [taken_by_weight(gpt2, number) for number in range(60)]
    by_hubs = numpy.array([shared_by_hubs(a, b).p for a, b in pairs])
    by_degrees = [shared_by_chance(a, b, 99, number).p for number, (a, b) in enumerate(pairs[:10])]
    assert numpy.mean(by_degrees) < 0.25
    assert by_hubs.mean() > 0.4
    assert (by_hubs < 0.05).mean() <= 0.05


@pytest.mark.parametrize("seed", range(5))
def test_a_tenth_of_the_edges_planted_among_noise_of_equal_degrees_is_told(
    gpt2: Universe, seed: int
) -> None:
    generator = numpy.random.default_rng([2, seed])
    noise = gpt2.draw(gpt2.odds(generator, 270), generator)
    rest = [edge for edge in gpt2.names if edge not in noise]
    core = set(generator.choice(rest, round(len(noise) / 9), replace=False))
    draws = draw_circuits(noise, 1, [3, seed])
    other = {
        f"{draws.senders[row]}->{draws.receivers[column]}"
        for row, column in numpy.argwhere(draws.present[0])
    }
    together = shared_by_chance(noise | core, other | core, N_DRAWS, seed)
    apart = shared_by_chance(noise, other, N_DRAWS, seed)
    assert len(core) / len(noise | core) == pytest.approx(0.1, abs=0.005)
    assert together.p < 0.01
    assert shared_by_hubs(noise | core, other | core).p < 0.01
    assert apart.p > 0.01
    assert apart.n_shared > 0
