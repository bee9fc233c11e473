"""Records whose texts are all as long as they may be, of letters that do not compress."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

from registry.ledger.base import Batch, NewCircuit
from registry.limits import LIMITS, MOST_SCORES, MOST_TAGS
from registry.records import (
    Annotation,
    Circuit,
    CircuitLabels,
    Edge,
    Edit,
    Evaluation,
    Level,
    Model,
    Node,
    Outcome,
    PromptSet,
    Run,
    SourceFile,
    Task,
)

__all__ = ["longest", "longest_records", "longest_text"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def longest(what: str, *, begins: str = "a", letters: str = _LETTERS) -> str:
    """A text of exactly so many bytes as that kind may have."""
    return longest_text(LIMITS[what], begins=begins, letters=letters)


def longest_text(n_bytes: int, *, begins: str = "a", letters: str = _LETTERS) -> str:
    """A text of so many bytes; of letters with several, what is left over is filled with x."""
    left = n_bytes - len(begins.encode())
    size = len(letters[0].encode())
    drawn = "".join(random.Random(begins).choices(letters, k=left // size))
    return begins + drawn + "x" * (left % size)


def longest_records() -> Batch:
    """One of every kind, each referring to the others."""
    faces = [chr(code) for code in range(0x1F600, 0x1F640)]
    model, task = longest("model's name"), longest("task's name")
    wide = {kind: longest(kind, letters="".join(faces)) for kind in LIMITS if kind[0] not in "mp"}
    nodes = [
        Node(
            component=longest("part's name", begins=f"m{layer}.f{layer}#"),
            position=longest("position", begins=str(layer), letters="".join(faces)),
            role=wide["role"], effect=0.5, rank=layer,
        )
        for layer in (1, 2)
    ]  # fmt: skip
    prompts = PromptSet(id="a" * 64, task=task, n_prompts=1, model=model, tokenizer=wide["name"])
    run = Run(
        id="b" * 32, job=wide["name"], version=wide["name"], device=wide["name"],
        started_at=datetime(2026, 1, 2, tzinfo=UTC), configuration=_json("set of parameters"),
    )  # fmt: skip
    circuit = Circuit(
        model=model, task=task, prompt_set=prompts.id, method=wide["name"], metric=wide["name"],
        level=Level.FEATURE, nodes=tuple(nodes), edges=(Edge(source=nodes[0].key,
        target=nodes[1].key, effect=1.0),), parameters=_json("set of parameters"),
    )  # fmt: skip
    labels = CircuitLabels(
        title=wide["title"], author=wide["name"], notes=(wide["text"], "short"),
        tags=tuple(longest("tag", begins=str(number)) for number in range(MOST_TAGS)),
    )  # fmt: skip
    annotation = Annotation(
        circuit=circuit.id, node=nodes[0].key, role=wide["role"], said_by=wide["name"], run=run.id,
        scores={longest("name", begins=str(number)): 0.5 for number in range(MOST_SCORES)},
    )  # fmt: skip
    edit = Edit(
        model=model, editor=wide["name"], note=wide["text"], circuits=(circuit.id,),
        components=(nodes[0].component,),
        request=_json("request or set of hyperparameters"),
        hyperparameters=_json("request or set of hyperparameters"),
    )  # fmt: skip
    name = longest("name")
    return Batch(
        models=[Model(slug=model, source=wide["name"], architecture=wide["name"])],
        tasks=[Task(slug=task, family=wide["name"], description=wide["text"])],
        prompt_sets=[prompts],
        runs=[run],
        circuits=[
            NewCircuit(circuit, run.id, SourceFile(name=name, sha256="c" * 64, format=name), labels)
        ],
        evaluations=[Evaluation(circuit=circuit.id, task=task, measure=wide["name"], value=1.0)],
        annotations=[annotation],
        edits=[edit],
        outcomes=[Outcome(edit=edit.id, metric=wide["name"], protocol=wide["name"], task=task)],
    )


def _json(what: str) -> dict[str, str]:
    frame = len(json.dumps({"text": ""}, separators=(",", ":")))
    return {"text": longest_text(LIMITS[what] - frame)}
