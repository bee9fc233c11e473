"""Circuits of several tasks with all that was measured of them, made from a seed.

Every task has circuits found on two sets of prompts. All lie over the same hubs; tasks of a family
share a core besides. Circuits found on the first prompts are measured on every task but one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from registry import Registry
from registry.canonical import content_hash
from registry.identifiers import can_feed, parse_local
from registry.ledger.base import NewCircuit
from registry.records import (
    Ablation,
    Circuit,
    CircuitLabels,
    Edge,
    Evaluation,
    Level,
    Model,
    Node,
    PromptSet,
    Run,
    RunStatus,
    Sign,
    Task,
)

MODEL = Model(
    slug="gpt2", architecture="GPT2LMHeadModel", weights_sha256="1" * 64, n_layers=12, n_heads=12,
    n_kv_heads=12,
)  # fmt: skip
FOUR_TASKS = ("ioi", "sequence/numerals", "sequence/number-words", "capitals")
NOT_MEASURED = ("ioi", "capitals")
"""The circuit of the first was never measured on the second."""
N_SEEDS = 2
_N_EDGES = 60
_N_CORE = 24
Key = tuple[str, str, str | None]


def fill(
    registry: Registry,
    tasks: Sequence[str] = FOUR_TASKS,
    *,
    labels: CircuitLabels | None = None,
    cores: Mapping[str, str] | None = None,
    without_edges: Collection[str] = (),
) -> None:
    """Record models, tasks, prompts, runs, circuits and measurements.

    Args:
        registry: Where to.
        tasks: Slugs.
        labels: Of the first circuit.
        cores: By task, the name of the core that it shares with other tasks, to which its circuits
            transfer as well; its family by default.
        without_edges: Tasks whose circuits have only nodes.
    """
    core_of = {slug: slug.partition("/")[0] for slug in tasks} | {**(cores or {})}
    prompts = {(slug, seed): _prompts(slug, seed) for slug in tasks for seed in range(N_SEEDS)}
    circuits = {
        (slug, seed): circuit_of(slug, seed, core_of[slug], prompts[slug, seed].id)
        for slug, seed in prompts
    }
    circuits |= {key: nodes_of(one) for key, one in circuits.items() if key[0] in without_edges}
    runs = [_run(number, *key) for number, key in enumerate(circuits)]
    labelled = [labels or CircuitLabels(), *([CircuitLabels()] * (len(circuits) - 1))]
    new = [
        NewCircuit(circuit, run=run.id, labels=named)
        for circuit, run, named in zip(circuits.values(), runs, labelled, strict=True)
    ]
    measured = [
        one
        for (found_on, seed), circuit in circuits.items()
        for slug in tasks
        if (found_on, slug) != NOT_MEASURED and (seed == 0 or slug == found_on)
        for one in _measured(circuit, prompts[slug, seed], core_of)
    ]
    described = [Task(slug=slug, family=slug.partition("/")[0]) for slug in tasks]
    registry.record(MODEL, *described, *prompts.values(), *runs, *new, *measured)


def circuit_of(task: str, seed: int, core: str, prompt_set: str) -> Circuit:
    """A circuit over hubs, with a core of that name."""
    edges = [*_core(core)]
    draw = random.Random(f"{task} {seed}")
    while len(edges) < _N_EDGES:
        (edge,) = draw.choices(_UNIVERSE, cum_weights=_WEIGHTS)
        if edge not in edges:
            edges.append(edge)
    effects = {edge: draw.gauss(0.1, 1.0) for edge in edges}
    ranked = sorted(edges, key=lambda edge: -abs(effects[edge]))
    return Circuit(
        model=MODEL.slug, task=task, prompt_set=prompt_set, method="edge-attribution",
        parameters={"method": "eap-ig-inputs", "version": "2"}, metric="logit_difference",
        higher_is_better=True, ablation=Ablation.RESAMPLE, sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE, kv_heads="grouped", selection={"top": _N_EDGES, "by": "absolute"},
        universe_size=len(_UNIVERSE),
        nodes=tuple(
            Node(component=name, effect=draw.gauss(0, 1))
            for name in sorted({name for edge in edges for name in edge[:2]})
        ),
        edges=tuple(
            Edge(source=source, target=target, port=port, effect=effects[source, target, port],
                 rank=rank)
            for rank, (source, target, port) in enumerate(ranked, start=1)
        ),
    )  # fmt: skip


def nodes_of(circuit: Circuit) -> Circuit:
    """A circuit with the same nodes and no edges."""
    changes = {"edges": (), "level": Level.NODE, "universe_size": None}
    return Circuit.model_validate(circuit.model_dump() | changes)


def _edges_of_model() -> list[Key]:
    heads = [f"a{layer}.h{head}" for layer in range(12) for head in range(12)]
    names = ["input", *heads, *(f"m{layer}" for layer in range(12)), "logits"]
    return [
        (source, target, port)
        for source in names
        for target in names
        for port in (("q", "k", "v") if target.startswith("a") else (None,))
        if can_feed(parse_local(source), parse_local(target), port)
    ]


def _hubs(edges: Sequence[Key]) -> list[float]:
    """Weights of edges, summed up: a part is as much of a hub in every circuit."""
    draw = random.Random(0)
    of = {name: draw.paretovariate(1.2) for name in sorted({n for edge in edges for n in edge[:2]})}
    return list(itertools.accumulate(of[source] * of[target] for source, target, _ in edges))


_UNIVERSE = _edges_of_model()
_WEIGHTS = _hubs(_UNIVERSE)


def _core(name: str) -> list[Key]:
    return random.Random(f"core of {name}").sample(_UNIVERSE, _N_CORE)


def _prompts(task: str, seed: int) -> PromptSet:
    return PromptSet(
        id=content_hash(["prompts", task, seed]), task=task, seed=seed, n_prompts=32, bos=False,
        tokenizer="gpt2", model=MODEL.slug, share_correct=0.875, share_top1=0.5,
    )  # fmt: skip


def _run(number: int, task: str, seed: int) -> Run:
    started = datetime(2026, 3, 1, 12, number, tzinfo=UTC)
    return Run(
        id=f"{number:032x}", job="edge-attribution", version="2",
        configuration={"task": task, "seed": seed}, status=RunStatus.FINISHED,
        started_at=started, finished_at=started.replace(second=30), device="cpu",
        packages={"torch": "2.6.0", "transformer_lens": "4.3.0"},
    )  # fmt: skip


def _measured(
    circuit: Circuit, prompts: PromptSet, core_of: Mapping[str, str]
) -> tuple[Evaluation, Evaluation]:
    draw = random.Random(f"{circuit.task} {prompts.task} {prompts.seed}")
    related = core_of[circuit.task] == core_of[prompts.task]
    value = draw.uniform(0.7, 0.95) if related else draw.uniform(0.1, 0.4)
    found = Evaluation(
        circuit=circuit.id, task=prompts.task, prompt_set=prompts.id, measure="faithfulness",
        value=value, full=3.25, empty=-2.5, ablation=Ablation.RESAMPLE, n_prompts=32,
        parameters={"metric": "logit_difference"},
    )  # fmt: skip
    beside = {
        "metric": "logit_difference", "deciles": [0.05] * 9, "circuits": 10, "seed": 0,
        "mean_share_of_edges_kept": 0.5,
    }  # fmt: skip
    random_ones = {"measure": "random_faithfulness", "value": 0.05, "parameters": beside}
    return found, found.model_copy(update=random_ones)
