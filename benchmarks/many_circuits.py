"""Many circuits with measurements for benchmarks, and a registry filled with them.

There are ten tasks on GPT-2 small. Edges are drawn such that some components are hubs, as in real
circuits, and circuits of one task share more. Only functions that exist in every version of the
package are used. So two versions make the same records, each in its own registry:

    python benchmarks/many_circuits.py HOME [--circuits 1000]

It prints the ids of the circuits, one per line, in the order in which they were made.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from registry import Registry
from registry.identifiers import can_feed, parse_local
from registry.records import (
    Ablation,
    Circuit,
    Edge,
    Edit,
    Evaluation,
    Level,
    Model,
    Node,
    Outcome,
    PromptSet,
    Sign,
    Task,
)

__all__ = ["METHODS", "MODEL", "N_EDGES", "TASKS", "fill", "make_circuits", "make_records"]

METHODS = ("eap", "eap-ig-inputs", "clean-corrupted", "exact")
_AT_ONCE = 100
MODEL = Model(slug="gpt2", n_layers=12, n_heads=12, n_kv_heads=12, d_model=768, d_head=64)
TASKS = tuple(Task(slug=f"synthetic/t{number}", family="synthetic") for number in range(10))
N_EDGES = 500
UNIVERSE = 32_491
Key = tuple[str, str, str | None]


def universe() -> list[Key]:
    """Every edge of GPT-2 small."""
    heads = [f"a{layer}.h{head}" for layer in range(12) for head in range(12)]
    names = ["input", *heads, *(f"m{layer}" for layer in range(12)), "logits"]
    edges: list[Key] = [
        (source, target, port)
        for source, target in itertools.product(names, names)
        for port in (("q", "k", "v") if target.startswith("a") else (None,))
        if can_feed(parse_local(source), parse_local(target), port)
    ]
    if len(edges) != UNIVERSE:
        raise SystemExit(f"expected {UNIVERSE} edges, made {len(edges)}")
    return edges


def make_circuits(n: int) -> list[Circuit]:
    """Make ``n`` circuits that cycle through the tasks; equal for equal ``n``."""
    draw, edges = random.Random(0), universe()
    names = sorted({name for edge in edges for name in edge[:2]})
    everywhere = {name: draw.paretovariate(1.5) for name in names}
    weights = []
    for _ in TASKS:
        hubs = {name: everywhere[name] * draw.paretovariate(1.5) for name in names}
        weights.append(list(itertools.accumulate(hubs[s] * hubs[t] for s, t, _ in edges)))
    return [
        _circuit(draw, edges, weights[number % len(TASKS)], number, TASKS[number % len(TASKS)])
        for number in range(n)
    ]


def _circuit(
    draw: random.Random, edges: list[Key], weights: list[float], number: int, task: Task
) -> Circuit:
    chosen: set[Key] = set()
    while len(chosen) < N_EDGES:
        chosen.update(draw.choices(edges, cum_weights=weights, k=N_EDGES - len(chosen)))
    ordered = sorted(chosen, key=str)
    return Circuit(
        model=MODEL.slug, task=task.slug, method="synthetic", parameters={"number": number},
        sign=Sign.HELPS_POSITIVE, level=Level.EDGE, universe_size=UNIVERSE,
        nodes=tuple(
            Node(component=name, effect=draw.gauss(0, 1))
            for name in sorted({name for edge in ordered for name in edge[:2]})
        ),
        edges=tuple(
            Edge(source=source, target=target, port=port, effect=draw.gauss(0, 1), rank=rank)
            for rank, (source, target, port) in enumerate(ordered, start=1)
        ),
    )  # fmt: skip


def make_records(n: int) -> tuple[list[PromptSet], list[Circuit], list[Evaluation]]:
    """Make ``n`` circuits that cycle through tasks, then methods, then sets of prompts."""
    draw, prompts, circuits = random.Random(1), {}, []
    for number, bare in enumerate(make_circuits(n)):
        of_task = number // len(TASKS)
        seed, method = of_task // len(METHODS), METHODS[of_task % len(METHODS)]
        name = hashlib.sha256(f"{bare.task} {seed}".encode()).hexdigest()
        prompts[name] = PromptSet(id=name, task=bare.task, seed=seed, n_prompts=100)
        found = {
            "prompt_set": name, "method": "edge-attribution", "parameters": {"method": method},
            "metric": "logit_difference", "higher_is_better": True, "kv_heads": "grouped",
            "ablation": Ablation.RESAMPLE, "selection": {"top": N_EDGES, "by": "absolute"},
        }  # fmt: skip
        circuits.append(bare.model_copy(update=found))
    measured = [one for circuit in circuits for one in _measurements(circuit, draw)]
    return [*prompts.values()], circuits, measured


def _measurements(circuit: Circuit, draw: random.Random) -> Iterator[Evaluation]:
    """Evaluations on its own task; for one method also on all others, with random circuits."""
    everywhere = circuit.parameters["method"] == METHODS[0]
    for task in TASKS:
        own = task.slug == circuit.task
        for measure in ("faithfulness", "random_faithfulness"):
            if own or everywhere:
                yield Evaluation(
                    circuit=circuit.id, task=task.slug, measure=measure, value=draw.random(),
                    full=3.0, empty=-3.0, ablation=Ablation.RESAMPLE, n_prompts=100,
                    parameters={"metric": "logit_difference"},
                )  # fmt: skip


def fill(home: Path, circuits: Sequence[Circuit], others: Sequence[PromptSet | Evaluation]) -> None:
    """Record everything, and an edit of parts that many circuits use."""
    edit = Edit(model=MODEL.slug, editor="ROME", components=("m5", "a9.h6"),
                circuits=(circuits[0].id,))  # fmt: skip
    outcomes = [
        Outcome(edit=edit.id, metric="accuracy", task=task.slug, before=1.0, after=0.5)
        for task in TASKS
    ]
    prompts = [one for one in others if isinstance(one, PromptSet)]
    measured = [one for one in others if isinstance(one, Evaluation)]
    with Registry.init(home) as registry, registry.projecting_later():
        registry.record(MODEL, *TASKS, *prompts)
        for start in range(0, len(circuits), _AT_ONCE):
            registry.record(*circuits[start : start + _AT_ONCE])
        registry.record(*measured, edit, *outcomes)


def main() -> None:
    """Fill the registry that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("--circuits", type=int, default=1000)
    options = parser.parse_args()
    prompts, circuits, measured = make_records(options.circuits)
    fill(options.home, circuits, [*prompts, *measured])
    sys.stdout.write("".join(f"{circuit.id}\n" for circuit in circuits))


if __name__ == "__main__":
    main()
