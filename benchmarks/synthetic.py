"""Small synthetic circuits with GPT-2's shape, for programs that write many of them.

Only the public interface of records is used, so that other versions of the package make the same
circuits.
"""

from __future__ import annotations

import random

from registry.records import Circuit, Edge, Level, Model, Node, Sign

MODEL = Model(slug="gpt2", n_layers=12, n_heads=12, n_kv_heads=12, d_model=768, d_head=64)
_N_HUBS = 40
Key = tuple[str, str, str | None]


def make_circuit(
    seed: int, *, task: str, n_edges: int, method: str = "synthetic", scores: str | None = None
) -> Circuit:
    """Make a circuit of heads, input and logits; equal for equal arguments."""
    draw = random.Random(seed)
    edges = _draw_edges(draw, n_edges)
    return Circuit(
        model=MODEL.slug,
        task=task,
        method=method,
        parameters={"seed": seed},
        sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE,
        scores=scores,
        nodes=tuple(
            Node(component=name, effect=draw.gauss(0, 1))
            for name in sorted({name for edge in edges for name in edge[:2]})
        ),
        edges=tuple(
            Edge(source=source, target=target, port=port, effect=draw.gauss(0, 1), rank=rank)
            for rank, (source, target, port) in enumerate(edges, start=1)
        ),
    )


def _draw_edges(draw: random.Random, n_edges: int) -> list[Key]:
    # Circuits of a model share many of their parts: most heads are drawn from a few hubs.
    hubs = [f"a{number % 12}.h{number // 12}" for number in range(_N_HUBS)]
    edges: set[Key] = set()
    while len(edges) < n_edges:
        lower, upper = sorted(draw.sample(range(12), 2))
        source = draw.choice([hubs[lower], f"a{lower}.h{draw.randrange(12)}", "input"])
        target = draw.choice([hubs[upper], f"a{upper}.h{draw.randrange(12)}", "logits"])
        edges.add((source, target, None if target == "logits" else draw.choice("qkv")))
    return sorted(edges, key=str)
