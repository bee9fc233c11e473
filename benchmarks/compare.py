"""Measure how long random circuits with the degrees of found ones take to draw.

Circuits are synthetic: edges of GPT-2 small drawn so that some parts are hubs, as in real circuits.
Time is that of one call as ``circuits compare A B --draws N`` makes it.

    python benchmarks/compare.py [--edges 100 500 1000] [--draws 1000]
"""

from __future__ import annotations

import argparse
import random
import time

from queries.chance import shared_by_chance
from registry.identifiers import can_feed, parse_connection

LAYERS = HEADS = 12


def universe() -> list[str]:
    """All 32,491 edges of GPT-2 small."""
    heads = [f"a{layer}.h{head}" for layer in range(LAYERS) for head in range(HEADS)]
    mlps = [f"m{layer}" for layer in range(LAYERS)]
    receivers = [f"{head}<{port}>" for head in heads for port in "qkv"] + [*mlps, "logits"]
    edges = (f"{s}->{r}" for s in ("input", *heads, *mlps) for r in receivers)
    return [edge for edge in edges if _leads_forward(edge)]


def circuit(edges: list[str], n: int, seed: int) -> set[str]:
    """Edges between hubs, most of them."""
    generator = random.Random(seed)
    ends = {end for edge in edges for end in edge.split("->")}
    weight = {end: generator.lognormvariate(0, 1) for end in sorted(ends)}
    keys = {}
    for edge in edges:
        source, target = edge.split("->")
        keys[edge] = generator.random() ** (1 / (weight[source] * weight[target]))
    return set(sorted(edges, key=keys.__getitem__)[-n:])


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[100, 500, 1000])
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    edges = universe()
    print(f"{len(edges):,} edges in the model, {options.draws:,} draws of both circuits")
    for n in options.edges:
        a, b = (circuit(edges, n, seed) for seed in (0, 1))
        began = time.perf_counter()
        found = shared_by_chance(a, b, options.draws, seed=0)
        seconds = time.perf_counter() - began
        print(
            f"{n:>6,} edges {seconds:6.2f} s   shared {found.n_shared}, by chance"
            f" {found.expected:.1f} ({found.low:.0f} to {found.high:.0f}), p {found.p:.3f}"
        )


def _leads_forward(edge: str) -> bool:
    named = parse_connection(f"gpt2/{edge}")
    return can_feed(named.source, named.target, named.port)


if __name__ == "__main__":
    main()
