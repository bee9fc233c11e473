"""A small registry in which every named query has something to return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Registry
from registry.records import (
    Ablation,
    Circuit,
    Edge,
    Edit,
    Level,
    Model,
    Node,
    Outcome,
    Sign,
    Task,
)
from tests import examples

SMOLLM2 = Model(
    slug="smollm2-135m-instruct-q4_1",
    architecture="LlamaForCausalLM",
    n_layers=30,
    n_heads=9,
    n_kv_heads=3,
)
CAPITALS = Task(slug="capitals", family="capitals")

Effects = Mapping[str, float | None]


def _circuit(task: str, nodes: Effects, edges: Effects, **fields: Any) -> Circuit:
    """A circuit from effects by node key and by edge, written ``a0.h1->a9.h6@END<k>``."""
    defaults: dict[str, Any] = {
        "model": "gpt2",
        "method": "edge-attribution",
        "metric": "logit_difference",
        "higher_is_better": True,
        "ablation": Ablation.RESAMPLE,
        "sign": Sign.HELPS_POSITIVE,
        "level": Level.EDGE,
        "kv_heads": "grouped",
    }
    return Circuit(
        task=task,
        nodes=tuple(_node(key, effect, rank) for rank, (key, effect) in _ranked(nodes)),
        edges=tuple(_edge(text, effect, rank) for rank, (text, effect) in _ranked(edges)),
        **{**defaults, **fields},
    )


def _ranked(effects: Effects) -> enumerate[tuple[str, float | None]]:
    return enumerate(sorted(effects.items(), key=lambda item: -abs(item[1] or 0.0)), start=1)


def _node(key: str, effect: float | None, rank: int) -> Node:
    component, _, position = key.partition("@")
    role = {"a9.h6": "name mover", "a0.h1": "duplicate token"}.get(component)
    return Node(component=component, position=position or None, effect=effect, rank=rank, role=role)


def _edge(text: str, effect: float | None, rank: int) -> Edge:
    source, _, target = text.partition("->")
    target, _, port = target.rstrip(">").partition("<")
    return Edge.model_validate(
        {"source": source, "target": target, "port": port or None, "effect": effect, "rank": rank}
    )


IOI = _circuit(
    "ioi",
    {"input": None, "a0.h1": 0.25, "a9.h6": 1.5, "m9": -0.5, "logits": None},
    {
        "input->a0.h1<v>": 0.25,
        "a0.h1->a9.h6<k>": 0.75,
        "a9.h6->m9": -0.25,
        "a9.h6->logits": 1.25,
        "m9->logits": -0.5,
    },
    parameters={"seed": 1},
)
IOI_AT_POSITIONS = _circuit(
    "ioi",
    {"input@S2": 0.1, "a0.h1@S2": 0.5, "a9.h6@END": 0.75, "a9.h6@S2": 0.125, "logits@END": None},
    {
        "input@S2->a0.h1@S2<v>": 0.5,
        "a0.h1@S2->a9.h6@END<k>": 0.25,
        "a0.h1@S2->a9.h6@S2<k>": 0.125,
        "a9.h6@END->logits@END": 0.75,
    },
    method="published",
)
NUMERALS = _circuit(
    "sequence/numerals",
    {"input": None, "a0.h1": -0.25, "a9.h6": 0.5, "m9": 2.0, "logits": None},
    {
        "input->a0.h1<v>": -0.25,
        "a0.h1->a9.h6<k>": 0.5,
        "m9->logits": 2.0,
        "a9.h6->logits": None,
    },
)
MONTHS = _circuit(
    "sequence/months",
    {"input": 0.1, "a0.h1": 0.5, "m9": 1.0, "logits": 0.0},
    {"input->a0.h1<v>": 0.5, "a0.h1->logits": 0.25, "m9->logits": 1.0},
    sign=Sign.UNSIGNED,
)
NODES_ONLY = _circuit(
    "sequence/months",
    {"a9.h6": None, "a0.h1": None, "a4.h4": None},
    {},
    method="published",
    level=Level.NODE,
    metric=None,
    ablation=None,
    sign=Sign.UNKNOWN,
)
SUPERSEDED = _circuit(
    "capitals",
    {"input": None, "a0.h1": 4.0, "a9.h6": 4.0, "logits": None},
    {"input->a0.h1<v>": 4.0, "a0.h1->a9.h6<k>": 4.0, "a9.h6->logits": 4.0},
)
CAPITALS_CIRCUIT = _circuit(
    "capitals",
    {"input": None, "m9": 1.0, "a9.h6": 0.5, "logits": None},
    {"input->m9": 0.75, "m9->logits": 1.0, "a9.h6->logits": 0.5},
)
RETRACTED = _circuit(
    "capitals", {"a0.h1": 8.0, "a9.h6": 8.0}, {"a0.h1->a9.h6<k>": 8.0}, parameters={"seed": 9}
)
GROUPED = _circuit(
    "ioi",
    {"input": None, "a3.h5": 0.5, "a4.kv2": 0.25, "a4.h7": 0.75, "logits": None},
    {"input->a3.h5<q>": 0.5, "a3.h5->a4.kv2<k>": 0.25, "a4.h7->logits": 0.75},
    model=SMOLLM2.slug,
)
CIRCUITS = (
    IOI,
    IOI_AT_POSITIONS,
    NUMERALS,
    MONTHS,
    NODES_ONLY,
    SUPERSEDED,
    CAPITALS_CIRCUIT,
    RETRACTED,
    GROUPED,
)

_ELSEWHERE = examples.faithfulness(IOI, 0.25).model_copy(update={"task": "sequence/numerals"})
MEASURED = (
    examples.faithfulness(IOI, 0.875),
    _ELSEWHERE,
    _ELSEWHERE.model_copy(update={"measure": "random_faithfulness", "value": 0.125}),
    _ELSEWHERE.model_copy(update={"measure": "completeness", "value": 0.5}),
)

EDIT = Edit(
    model="gpt2",
    editor="ROME",
    request={"subject": "Eiffel Tower"},
    restriction="layers",
    components=("m9", "a9.h6"),
    circuits=(CAPITALS_CIRCUIT.id,),
)
AIMED = Edit(model="gpt2", editor="fine-tuning", components=("m2",), circuits=(IOI.id,))
OUTCOMES = (
    Outcome(edit=EDIT.id, metric="specificity", task="ioi", before=0.75, after=0.5),
    Outcome(
        edit=EDIT.id, metric="efficacy", protocol="generation", task="capitals", before=0.0,
        after=0.5,
    ),
    Outcome(
        edit=EDIT.id, metric="efficacy", protocol="teacher-forced", task="capitals", after=0.75
    ),
)  # fmt: skip

TASKS = ["ioi", "sequence/numerals", "sequence/months"]
EXAMPLES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "shared-components": (
        {"tasks": TASKS},
        {"tasks": TASKS, "min_tasks": 2, "model": "gpt2"},
        {"tasks": TASKS[:2], "circuits": [IOI_AT_POSITIONS.id, NUMERALS.id[:9]]},
        {"tasks": TASKS, "min_tasks": 1, "max_tasks": 1},
        {"tasks": ["ioi"]},  # circuits of two models
    ),
    "shared-connections": (
        {"tasks": TASKS},
        {"tasks": TASKS, "min_tasks": 1},
        {"tasks": TASKS[:2], "circuits": [IOI_AT_POSITIONS.id, NUMERALS.id[:9]]},
        {"tasks": TASKS, "min_tasks": 1, "max_tasks": 1},
        {"tasks": ["ioi"]},
    ),
    "reused-connections": (
        {},
        {"min_circuits": 4, "limit": 2},
        {"min_circuits": 1, "model": "smollm2"},
    ),
    "pair-intersection": ({"a": IOI.id[:8], "b": IOI_AT_POSITIONS.id[:8]},),
    "where-used": ({"component": "gpt2/a9.h6"}, {"component": "smollm2/a4.kv2"}),
    "circuits-of-task": ({"task": "ioi"}, {"task": "ioi", "model": "smollm2"}),
    "nearest-circuits": (
        {"circuit": IOI.id},
        {"circuit": NUMERALS.id[:6], "limit": 1},
        {"circuit": IOI.id, "task": "ioi", "method": "published"},
    ),
    "components-by-role": (
        {"role": "Name Mover"},
        {"role": "token", "part": True, "model": "gpt2", "task": "ioi", "method": "published"},
    ),
    "circuit-overlaps": ({"circuits": [IOI.id, NUMERALS.id[:6], MONTHS.id]},),
    "circuit-overlaps-of-components": (
        {"circuits": [IOI_AT_POSITIONS.id, NUMERALS.id, NODES_ONLY.id]},
        {"circuits": [IOI.id, NODES_ONLY.id], "kind": "head"},
    ),
    "transfers": ({"circuits": [IOI.id, NUMERALS.id]},),
    "tasks-using-components": ({"circuits": [IOI.id, IOI_AT_POSITIONS.id, NUMERALS.id[:6]]},),
    "tasks-using-connections": (
        {"circuits": [IOI.id, IOI_AT_POSITIONS.id, NUMERALS.id[:6]]},
        {"circuits": [IOI.id, MONTHS.id], "ports": False},
    ),
    "connection-frequency": (
        {"circuits": [NUMERALS.id, IOI_AT_POSITIONS.id, MONTHS.id, IOI.id]},
        {"circuits": [IOI.id, MONTHS.id], "ports": False},
    ),
    "component-frequency": (
        {"circuits": [NUMERALS.id, IOI_AT_POSITIONS.id, MONTHS.id, NODES_ONLY.id[:9]]},
    ),
    "nearest-by-components": (
        {"circuit": NODES_ONLY.id},
        {"circuit": IOI.id, "task": "ioi", "method": "published", "limit": 1},
    ),
    "circuits-using-connections": (
        {"connections": ["gpt2/a0.h1->a9.h6<k>", "smollm2/a3.h5->a4.kv2<k>"]},
    ),
    "edits-of-components": ({"components": ["gpt2/m9", "gpt2/a9.h6", "gpt2/m2"]},),
    "circuit-differences": (
        {"a": IOI.id[:8], "b": IOI_AT_POSITIONS.id},
        {"a": IOI.id, "b": IOI.id},
    ),
    "circuit-differences-of-components": (
        {"a": IOI_AT_POSITIONS.id, "b": NODES_ONLY.id},
        {"a": IOI_AT_POSITIONS.id, "b": IOI_AT_POSITIONS.id},
    ),
    "edits-touching": ({"circuit": IOI.id}, {"circuit": CAPITALS_CIRCUIT.id}),
    "tasks-at-risk": ({"edit": EDIT.id[:8]},),
}
"""Parameters under which each query returns rows."""


def fill(registry: Registry) -> None:
    """Record everything above."""
    registry.record(examples.GPT2, SMOLLM2, *examples.TASKS, CAPITALS, *CIRCUITS)
    registry.record(*MEASURED, EDIT, AIMED, *OUTCOMES)
    registry.tag(IOI.id, add=["final"])
    registry.retract(SUPERSEDED.id, reason="few prompts", superseded_by=CAPITALS_CIRCUIT.id)
    registry.retract(RETRACTED.id, reason="wrong prompts")
