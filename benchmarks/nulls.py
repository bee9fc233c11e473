"""Measure how often the nulls reject for pairs of independent circuits.

Both circuits of a pair belong to one model, whose senders and receiver ports have propensities
(log-normal, so that some are hubs). Circuits of a pair have only these propensities in common.
Their edges are drawn in three ways:

- ``odds``: each edge independently, with odds that are the product of both propensities. For these
  pairs the null of degrees is exact. The odds are scaled so that the expected number of edges
  equals that of the other ways.
- ``weights``: one after the other, without replacement, with that product as weight; this violates
  the assumption of the null of degrees, but not that of the null of hubs.
- ``uniform``: random edges of the model.

At .05, an exact null rejects for at most 5 % of such pairs. The share can be smaller, because
numbers of edges are whole numbers. A larger share means that the null rejects too often. The second
table groups the pairs that were drawn by weights by their saturation.

    python benchmarks/nulls.py [--pairs 200] [--draws 199] [--layers 6] [--heads 8] [--processes 2]
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy
from compare import universe
from numpy.typing import NDArray

from queries.chance.degrees import saturation, shared_by_chance
from queries.chance.hubs import shared_by_hubs
from queries.chance.layers import edges_by_layers
from registry.records import Model

SHARES = (0.005, 0.01, 0.02, 0.05)
SPREADS = (0.5, 1.0, 2.0)
LEVEL = 0.05
NULLS = ("degrees", "layers", "hubs", "weakest")
_BINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to draw pairs.

    Attributes:
        how: ``odds``, ``weights`` or ``uniform``.
        spread: Standard deviation of the logarithm of a propensity.
        share: Size of a circuit as a share of the model's edges.
        shape: Number of layers, and of heads in each layer.
        draws: Number of random circuits for the null of degrees.
    """

    how: str
    spread: float
    share: float
    shape: tuple[int, int]
    draws: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Results of the nulls for one pair.

    Attributes:
        saturation: Mean saturation of both circuits.
        n_shared: Number of shared edges.
        degrees: p of the null of degrees.
        layers: p of the null of layers.
        hubs: p of the null of hubs that saturate.
    """

    saturation: float
    n_shared: int
    degrees: float
    layers: float
    hubs: float

    @property
    def weakest(self) -> float:
        """The largest p, which is the one to report."""
        return max(self.degrees, self.layers, self.hubs)


class Universe:
    """All edges of a model, as indices of their senders and receivers."""

    def __init__(self, n_layers: int, n_heads: int) -> None:
        self.model = Model(slug="model", n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_heads)
        self.names = numpy.array(universe(n_layers, n_heads, n_heads))
        ends = [name.split("->") for name in self.names.tolist()]
        self.senders = numpy.unique([sender for sender, _ in ends], return_inverse=True)[1]
        self.receivers = numpy.unique([receiver for _, receiver in ends], return_inverse=True)[1]

    def weights(self, generator: numpy.random.Generator, spread: float) -> NDArray[numpy.float64]:
        """Product of the propensities of each edge's ends."""
        sending, receiving = (
            generator.lognormal(0, spread, places.max() + 1)
            for places in (self.senders, self.receivers)
        )
        product: NDArray[numpy.float64] = sending[self.senders] * receiving[self.receivers]
        return product


def draw_circuit(
    how: str, weights: NDArray[numpy.float64], n: int, generator: numpy.random.Generator
) -> NDArray[numpy.int64]:
    """Indices of a circuit's edges."""
    if how == "odds":
        odds = weights * _scale(weights, n)
        return numpy.flatnonzero(generator.random(len(odds)) * (1 + odds) < odds)
    if how == "uniform":
        weights = numpy.ones_like(weights)
    # The n edges with the smallest exponential times, one for each edge: Efraimidis & Spirakis
    # 2006.
    return numpy.argsort(generator.exponential(size=len(weights)) / weights)[:n]


def measure(cell: Cell, number: int) -> Pair:
    """Draw one pair and compute every null."""
    of = _universe(*cell.shape)
    generator = numpy.random.default_rng([number, round(1000 * cell.share)])
    weights = of.weights(generator, cell.spread)
    n = round(cell.share * len(weights))
    a, b = (of.names[draw_circuit(cell.how, weights, n, generator)].tolist() for _ in range(2))
    degrees, layers = shared_by_chance(a, b, cell.draws, number), edges_by_layers(a, b, of.model)
    if layers is None:
        raise SystemExit("no null of layers, although the model's shape is known")
    saturated = [saturation(circuit) or 0.0 for circuit in (a, b)]
    hubs = shared_by_hubs(a, b)
    return Pair(sum(saturated) / 2, degrees.n_shared, degrees.p, layers.p, hubs.p)


def show_cells(found: Sequence[tuple[Cell, Sequence[Pair]]], n_edges: int) -> None:
    """Print a row for each way to draw."""
    print(
        f"{'drawn by':<9}{'hubs':>5}{'share':>7}{'edges':>6}{'shared':>8}{'saturation':>12}", end=""
    )
    print(_heading())
    for cell, pairs in found:
        shared = numpy.mean([pair.n_shared for pair in pairs])
        saturated = numpy.mean([pair.saturation for pair in pairs])
        spread = "" if cell.how == "uniform" else f"{cell.spread:g}"
        print(
            f"{cell.how:<9}{spread:>5}{cell.share:>7.1%}{round(cell.share * n_edges):>6,}"
            f"{shared:>8.1f}{saturated:>12.2f}{_figures(pairs)}"
        )


def show_saturation(pairs: Sequence[Pair]) -> None:
    """Print a row for each range of saturation."""
    print(f"{'saturation':<12}{'pairs':>6}", end="")
    print(_heading())
    for low, high in itertools.pairwise(_BINS):
        inside = [pair for pair in pairs if low <= pair.saturation < high]
        if inside:
            print(f"{low:.1f} to {high:.1f}  {len(inside):>6,}{_figures(inside)}")


def main() -> None:
    """Measure as the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--draws", type=int, default=199)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--spreads", type=float, nargs="+", default=SPREADS)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    shape = (options.layers, options.heads)
    # The null of degrees is least reliable for the strongest hubs.
    ways = [("odds", max(options.spreads)), *(("weights", one) for one in options.spreads)]
    ways.append(("uniform", 0.0))
    cells = [
        Cell(how, spread, share, shape, options.draws)
        for (how, spread), share in itertools.product(ways, options.shares)
    ]
    began = time.perf_counter()
    n_edges = len(_universe(*shape).names)
    with ProcessPoolExecutor(options.processes) as pool:
        each = [(cell, number) for cell in cells for number in range(options.pairs)]
        measured = list(pool.map(measure, *zip(*each, strict=True), chunksize=10))
    starts = range(0, len(measured), options.pairs)
    found = [
        (cell, measured[start : start + options.pairs])
        for cell, start in zip(cells, starts, strict=True)
    ]
    print(
        f"{shape[0]} layers of {shape[1]} heads, {n_edges:,} edges; {options.pairs} pairs a line,"
        f" {options.draws} draws; {time.perf_counter() - began:.0f} s\n"
    )
    show_cells(found, n_edges)
    print("\ndrawn by weights, of all sizes and hubs")
    show_saturation([one for cell, pairs in found if cell.how == "weights" for one in pairs])


def _heading() -> str:
    return "".join(f"   {name:>7} p{'< .05':>7}" for name in NULLS)


def _figures(pairs: Sequence[Pair]) -> str:
    columns = []
    for name in NULLS:
        values = numpy.array([getattr(pair, name) for pair in pairs])
        columns.append(f"   {values.mean():>9.2f}{(values < LEVEL).mean():>7.1%}")
    return "".join(columns)


@cache
def _universe(n_layers: int, n_heads: int) -> Universe:
    return Universe(n_layers, n_heads)


def _scale(weights: NDArray[numpy.float64], n: int) -> float:
    """Factor of the odds such that the expected number of edges is ``n``."""
    low, high = -50.0, 50.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        odds = weights * numpy.exp(middle)
        low, high = (low, middle) if (odds / (1 + odds)).sum() > n else (middle, high)
    return float(numpy.exp(low))


if __name__ == "__main__":
    main()
