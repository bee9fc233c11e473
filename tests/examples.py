"""Small, deterministic records on GPT-2's shape for tests that need a filled registry."""

from __future__ import annotations

import random

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

GPT2 = Model(
    slug="gpt2",
    architecture="GPT2LMHeadModel",
    weights_sha256="1" * 64,
    n_layers=12,
    n_heads=12,
    n_kv_heads=12,
    d_model=768,
    d_head=64,
    d_mlp=3072,
    d_vocab=50257,
)
IOI = Task(slug="ioi", family="ioi", description="Indirect object identification")
NUMERALS = Task(slug="sequence/numerals", family="sequence")
MONTHS = Task(slug="sequence/months", family="sequence")
TASKS = (IOI, NUMERALS, MONTHS)


def circuit(
    seed: int, *, task: str = "ioi", n_heads: int = 8, model: str = "gpt2", n_layers: int = 12
) -> Circuit:
    """A connected circuit of ``n_heads`` heads in a chain with MLPs; equal for equal arguments."""
    draw = random.Random(seed)
    layers = sorted(draw.sample(range(n_layers), min(n_heads, n_layers)))
    heads = [f"a{layer}.h{draw.randrange(12)}" for layer in layers]
    mlps = [f"m{layer}" for layer in layers[::2]]
    edges: dict[tuple[str, str, str | None], float] = {}
    previous = "input"
    for head in heads:
        edges[previous, head, draw.choice("qkv")] = draw.uniform(-1, 1)
        edges["input", head, "v"] = draw.uniform(-1, 1)
        edges[head, "logits", None] = draw.uniform(-1, 1)
        previous = head
    for mlp in mlps:
        edges["input", mlp, None] = draw.uniform(-1, 1)
        edges[mlp, "logits", None] = draw.uniform(-1, 1)
    strongest = sorted(edges, key=lambda key: -abs(edges[key]))
    rank = {key: place for place, key in enumerate(strongest, start=1)}
    return Circuit(
        model=model,
        task=task,
        method="edge-attribution",
        parameters={"seed": seed},
        metric="logit_difference",
        higher_is_better=True,
        ablation=Ablation.RESAMPLE,
        sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE,
        kv_heads="grouped",
        selection={"top": len(edges), "by": "absolute"},
        universe_size=32491,
        nodes=tuple(
            Node(component=name, effect=draw.uniform(-1, 1))
            for name in ("input", *heads, *mlps, "logits")
        ),
        edges=tuple(
            Edge(source=s, target=t, port=p, effect=effect, rank=rank[s, t, p])
            for (s, t, p), effect in edges.items()
        ),
    )


def prompt_set(id: str, task: str = "ioi") -> PromptSet:
    """A set of prompts of which nothing is kept."""
    return PromptSet(id=id, task=task, n_prompts=32)


def faithfulness(of: Circuit, value: float = 0.85) -> Evaluation:
    """An evaluation of a circuit on its own task."""
    return Evaluation(
        circuit=of.id,
        task=of.task,
        measure="faithfulness",
        value=value,
        full=3.2,
        empty=-3.0,
        ablation=Ablation.RESAMPLE,
        n_prompts=32,
    )


def edit(of: Circuit, *components: str) -> tuple[Edit, Outcome]:
    """An edit aimed at a circuit, with one outcome on another task."""
    made = Edit(
        model=of.model,
        editor="ROME",
        hyperparameters={"layers": [5]},
        request={"prompt": "The Eiffel Tower is in", "target_new": " Rome"},
        restriction="layers",
        components=components or (of.nodes[1].component,),
        circuits=(of.id,),
    )
    outcome = Outcome(
        edit=made.id,
        metric="efficacy",
        protocol="teacher-forced",
        task=NUMERALS.slug,
        before=0.02,
        after=0.97,
        n_prompts=10,
    )
    return made, outcome
