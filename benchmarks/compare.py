"""Measure the time to draw random circuits with the degrees of found circuits.

Circuits are synthetic: random edges of a model such that some parts are hubs, as in real circuits.
Sizes are those of GPT-2 small's circuits, and 2 % of all edges of SmolLM2-135M, in which three
query heads share one key/value head. The time is shown for each of the two nulls of
``circuits compare A B``.

    python benchmarks/compare.py [--edges 100 500 1000] [--draws 1000]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence

from queries.chance.degrees import saturation, shared_by_chance
from queries.chance.layers import edges_by_layers
from registry.identifiers import can_feed, parse_connection
from registry.records import Model

GPT2 = Model(slug="gpt2", n_layers=12, n_heads=12, n_kv_heads=12)
SMOLLM2 = Model(slug="smollm2-135m", n_layers=30, n_heads=9, n_kv_heads=3)
_SHARE_OF_SMOLLM2 = 0.02


def universe(n_layers: int, n_heads: int, n_kv_heads: int) -> list[str]:
    """All edges of a model; 32,491 of GPT-2 small, 70,651 of SmolLM2-135M."""
    layers = range(n_layers)
    heads = [f"a{layer}.h{head}" for layer in layers for head in range(n_heads)]
    grouped = [f"a{layer}.kv{group}" for layer in layers for group in range(n_kv_heads)]
    read = heads if n_kv_heads == n_heads else grouped
    mlps = [f"m{layer}" for layer in layers]
    receivers = [f"{head}<q>" for head in heads] + [
        f"{one}<{port}>" for one in read for port in "kv"
    ]
    edges = (
        f"{sender}->{receiver}"
        for sender in ("input", *heads, *mlps)
        for receiver in (*receivers, *mlps, "logits")
    )
    return [edge for edge in edges if _leads_forward(edge)]


def circuit(edges: Sequence[str], n: int, seed: int) -> set[str]:
    """Draw edges, most of them between hubs."""
    generator = random.Random(seed)
    ends = {end for edge in edges for end in edge.split("->")}
    weight = {end: generator.lognormvariate(0, 1) for end in sorted(ends)}
    keys = {}
    for edge in edges:
        source, target = edge.split("->")
        keys[edge] = generator.random() ** (1 / (weight[source] * weight[target]))
    return set(sorted(edges, key=keys.__getitem__)[-n:])


def measure(model: Model, edges: Sequence[str], n: int, draws: int) -> None:
    """Print the time for two circuits of ``n`` edges, and the results."""
    a, b = (circuit(edges, n, seed) for seed in (0, 1))
    began = time.perf_counter()
    degrees = shared_by_chance(a, b, draws, seed=0)
    drawn = time.perf_counter()
    layers = edges_by_layers(a, b, model)
    counted = time.perf_counter()
    by_layers = "unknown" if layers is None else f"{layers.expected:.1f}"
    print(
        f"{n:>6,} edges   degrees {drawn - began:5.2f} s, layers {counted - drawn:4.2f} s   shared"
        f" {degrees.n_shared}, by degrees {degrees.expected:.1f} ({degrees.low:.0f} to"
        f" {degrees.high:.0f}, p {degrees.p:.3f}), by layers {by_layers},"
        f" saturation {saturation(a) or 0:.2f} and {saturation(b) or 0:.2f}"
    )


def main() -> None:
    """Measure as the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[100, 500, 1000])
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    for model in (GPT2, SMOLLM2):
        edges = universe(model.n_layers or 0, model.n_heads or 0, model.n_kv_heads or 0)
        print(f"{model.slug}: {len(edges):,} edges, {options.draws:,} draws of both circuits")
        sizes = options.edges if model is GPT2 else [round(_SHARE_OF_SMOLLM2 * len(edges))]
        for n in sizes:
            measure(model, edges, n, options.draws)


def _leads_forward(edge: str) -> bool:
    named = parse_connection(f"model/{edge}")
    return can_feed(named.source, named.target, named.port)


if __name__ == "__main__":
    main()
