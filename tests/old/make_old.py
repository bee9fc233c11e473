"""Keep a ledger and a bundle as this version writes them, for later versions to read and use.

``make old`` runs ``python -m tests.old.make_old`` at each release and with each new revision of the
ledger or version of bundles. It writes ``ledger_REVISION.sql``, the whole database as SQL text, and
``bundle_VERSION.zip`` into this folder. It never changes existing files, because files of users do
not change either.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ingest.formats.bundle.writing import VERSIONS
from registry import Registry
from registry.files.attachments import Attachment, AttachmentOwner
from registry.ledger.base import Batch, Ledger, NewCircuit
from registry.ledger.sql import migrate_ledger, open_ledger
from registry.ledger.tables import REVISION
from registry.records import (
    Ablation,
    Annotation,
    Circuit,
    CircuitLabels,
    CircuitState,
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
from tests.ingest.formats import test_bundle

__all__ = ["fill", "main"]

_FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Write the ledger of the present revision and the newest bundle, unless they exist."""
    _keep_bundle()
    frozen = _FOLDER / f"ledger_{REVISION}.sql"
    if frozen.exists():
        sys.stderr.write(f"{frozen.name} exists already\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        migrate_ledger(f"sqlite:///{path}")
        with open_ledger(f"sqlite:///{path}") as ledger:
            fill(ledger)
        with closing(sqlite3.connect(path)) as database:
            # A table that SQLite makes for itself once numbers were drawn, and takes from nobody.
            lines = (line for line in database.iterdump() if "sqlite_sequence" not in line)
            frozen.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _keep_bundle() -> None:
    number = VERSIONS[-1].rpartition("/")[2]
    kept = _FOLDER / f"bundle_{number}.zip"
    if kept.exists():
        sys.stderr.write(f"{kept.name} exists already\n")
        return
    with tempfile.TemporaryDirectory() as folder, Registry.init(Path(folder) / "r") as registry:
        test_bundle.fill(registry)
        test_bundle.attach(registry)
        kept.write_bytes(test_bundle.bundled(registry))


def fill(ledger: Ledger, revision: str = REVISION) -> None:
    """Record at least one row of every kind, some of them changed afterwards.

    Args:
        ledger: Where to; of the present revision.
        revision: Only what ledgers of that revision could hold already.
    """
    moment = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
    prompts = PromptSet(
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
    run = Run(
        id="0" * 32,
        job="edge-attribution",
        version="0.1.0",
        configuration={"model": "gpt2", "task": "ioi", "top": 2},
        status=RunStatus.FINISHED,
        started_at=moment,
        finished_at=moment.replace(minute=31),
        device="cpu",
        packages={"torch": "2.9.0"},
    )
    found, published = _found(prompts.id), _published()
    edit = Edit(
        model="gpt2",
        editor="ROME",
        hyperparameters={"layers": [5]},
        request={"prompt": "{} lives in", "subject": "Zoë", "target_new": "Kraków"},
        restriction="circuit",
        components=("m5",),
        circuits=(found.id,),
        run=run.id if revision >= "0004" else None,
    )
    ledger.record(
        Batch(
            models=[Model(slug="gpt2", weights_sha256="1" * 64, n_layers=12, n_heads=12)],
            tasks=[
                Task(slug="ioi", family="ioi", description="Indirect object identification"),
                Task(slug="sequence/numerals", family="sequence"),
            ],
            prompt_sets=[prompts],
            runs=[run],
            circuits=[
                NewCircuit(found, run.id, labels=CircuitLabels(title="IOI, 名前", tags=("old",))),
                NewCircuit(
                    published,
                    source_file=SourceFile(name="ioi.json", sha256="c" * 64, format="acdc"),
                    labels=CircuitLabels(author="Ada", notes=("from the appendix",)),
                ),
            ],
            evaluations=[
                Evaluation(
                    circuit=found.id,
                    task="ioi",
                    measure="faithfulness",
                    value=0.875,
                    run=run.id if revision >= "0004" else None,
                ),
            ],
            annotations=[
                Annotation(
                    circuit=found.id,
                    node="a10.h7",
                    role="S-inhibition",
                    said_by="Ada",
                    run=run.id,
                    scores={"inhibition": 0.5},
                )
            ],
            edits=[edit],
            edit_files={edit.id: SourceFile(name="éd.json", sha256="e" * 64, format="easyedit")},
            imported=[SourceFile(name="values.json", sha256="f" * 64, format="seqcont")],
            outcomes=[
                Outcome(edit=edit.id, metric="efficacy", task="ioi", before=0.125, after=0.75)
            ],
            attachments=_attached(found.id, run.id, edit.id, prompts.id)
            if revision >= "0004"
            else (),
        )
    )
    superseded = CircuitLabels(
        state=CircuitState.SUPERSEDED, superseded_by=found.id, reason="made by hand"
    )
    ledger.relabel(published.id, superseded)


def _attached(circuit: str, run: str, edit: str, prompts: str) -> list[Attachment]:
    owners = {
        AttachmentOwner.CIRCUIT: circuit,
        AttachmentOwner.RUN: run,
        AttachmentOwner.EDIT: edit,
        AttachmentOwner.PROMPT_SET: prompts,
    }
    return [
        Attachment(
            owner_kind=kind,
            owner=owner,
            name=f"größen-{kind}.csv",
            media_type="text/csv",
            size_bytes=number,
            sha256=f"{number:064x}",
            says="Sizes, 大きさ",
        )
        for number, (kind, owner) in enumerate(owners.items(), 1)
    ]


def _found(prompt_set: str) -> Circuit:
    return Circuit(
        model="gpt2",
        task="ioi",
        prompt_set=prompt_set,
        method="edge-attribution",
        metric="logit_difference",
        higher_is_better=True,
        ablation=Ablation.RESAMPLE,
        sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE,
        universe_size=32_491,
        nodes=(Node(component="a9.h6", rank=1), Node(component="a10.h7"), Node(component="logits")),
        edges=(
            Edge(source="a9.h6", target="a10.h7", port="k", effect=-0.25, rank=2),
            Edge(source="a10.h7", target="logits", effect=1.5, rank=1),
        ),
        scores="d" * 64,
    )


def _published() -> Circuit:
    return Circuit(
        model="gpt2",
        task="ioi",
        method="published",
        level=Level.NODE,
        nodes=(Node(component="a9.h9", role="name mover", position="END"),),
    )


if __name__ == "__main__":
    main()
