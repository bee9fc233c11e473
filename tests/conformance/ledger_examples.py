"""Records for tests of ledgers: one described model and task, and as many circuits as wanted."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from registry.files.attachments import Attachment, AttachmentOwner
from registry.ledger.base import Batch, Ledger, NewCircuit
from registry.records import (
    Ablation,
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
    RunStatus,
    Sign,
    SourceFile,
    Task,
)

GPT2 = Model(slug="gpt2", weights_sha256="1" * 64, n_layers=12, n_heads=12, d_model=768)
IOI = Task(slug="ioi", family="ioi", description="Who was given the drink")
NUMERALS = Task(slug="sequence/numerals", family="sequence")
PROMPTS = PromptSet(
    id="a" * 64,
    task="ioi",
    seed=7,
    n_prompts=80,
    bos=False,
    tokenizer="GPT2TokenizerFast",
    model="gpt2",
    share_correct=0.96,
    share_top1=0.5,
    artifact="b" * 64,
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = Run(
    id="0" * 32,
    job="edge-attribution",
    version="0.1.0",
    configuration={"model": "gpt2", "top": 200},
    status=RunStatus.FINISHED,
    started_at=NOON,
    finished_at=NOON + timedelta(seconds=90.25),
    device="cpu",
    packages={"torch": "2.9.0"},
)
FILE = SourceFile(name="ioi.json", sha256="c" * 64, format="acdc")
EDITS_FILE = SourceFile(name="réécrit.json", sha256="e" * 64, format="easyedit")
MEASURED_FILE = SourceFile(name="evaluations.json", sha256="f" * 64, format="seqcont")
DESCRIBED = Batch(models=[GPT2], tasks=[IOI, NUMERALS], prompt_sets=[PROMPTS], runs=[RUN])


def circuit(number: int = 0, **fields: Any) -> Circuit:
    """A circuit of the described model and task; another one for each number."""
    given: dict[str, Any] = {
        "model": "gpt2",
        "task": "ioi",
        "prompt_set": PROMPTS.id,
        "method": "edge-attribution",
        "parameters": {"number": number},
        "metric": "logit_difference",
        "higher_is_better": True,
        "ablation": Ablation.RESAMPLE,
        "sign": Sign.HELPS_POSITIVE,
        "level": Level.EDGE,
        "universe_size": 32_491,
        "nodes": (Node(component="a9.h6", effect=0.5, rank=1), Node(component="a10.h7")),
        "edges": (Edge(source="a9.h6", target="a10.h7", port="k", effect=-0.25, rank=1),),
        "scores": f"{number:064x}",
        **fields,
    }
    return Circuit(**given)


def record_circuit(ledger: Ledger, number: int = 0, /, **labels: Any) -> str:
    """Record one circuit with the given labels and return its id."""
    new = NewCircuit(circuit(number), labels=CircuitLabels(**labels))
    ledger.record(replace(DESCRIBED, circuits=[new]))
    return new.circuit.id


def everything() -> Batch:
    """A batch with a record of every kind."""
    found = circuit()
    edit = Edit(
        model="gpt2",
        editor="ROME",
        components=("m5",),
        circuits=(found.id,),
        note="été",
        run=RUN.id,
    )
    return replace(
        DESCRIBED,
        circuits=[NewCircuit(found, RUN.id, FILE, CircuitLabels(title="IOI", tags=("b", "a")))],
        evaluations=[
            Evaluation(circuit=found.id, task="ioi", measure="faithfulness", value=0.8, run=RUN.id)
        ],
        annotations=[
            Annotation(
                circuit=found.id,
                node="a9.h6",
                role="mouvement",
                said_by="Zoë",
                run=RUN.id,
                scores={"copying": 0.9},
            )
        ],
        edits=[edit],
        edit_files={edit.id: EDITS_FILE},
        imported=[FILE, MEASURED_FILE],
        outcomes=[Outcome(edit=edit.id, metric="efficacy", task="ioi", before=0.1, after=0.9)],
        attachments=[
            Attachment(
                owner_kind=AttachmentOwner.EDIT,
                owner=edit.id,
                name="Δw.safetensors",
                size_bytes=12,
                sha256="9" * 64,
                says="the change of the weights",
            )
        ],
    )


def contents(ledger: Ledger) -> list[tuple[str, dict[str, Any]]]:
    """All rows, to compare before and after."""
    return [(table, dict(row)) for table, row in ledger.dump()]


def alike(n_digits: int) -> tuple[Circuit, Circuit]:
    """Two circuits whose ids begin alike, the first that there are."""
    seen: dict[str, Circuit] = {}
    for number in itertools.count():
        one = circuit(number)
        if other := seen.get(one.id[:n_digits]):
            return other, one
        seen[one.id[:n_digits]] = one
    raise AssertionError("unreachable")
