"""Running the job on the tiny model, with little to do unless told otherwise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.jobs import FinishedRun, run_job
from ingest.jobs.edge_attribution.job import JOB, EdgeAttributionConfiguration
from ingest.jobs.progress import Progress
from registry import Registry
from registry.records import Circuit

__all__ = ["PAIR", "discover", "install_few_pairs", "only_circuit", "write_prompts"]

PAIR = '{{"clean": "{} done in", "corrupt": "{} done in", "correct": " {}", "wrong": " {}"}}\n'


def discover(
    registry: Registry, model: Path | str, *, progress: Progress | None = None, **told: Any
) -> FinishedRun:
    """Find a circuit of 30 edges on 8 prompts of ``sequence/months``, or what is told."""
    chosen = {"share", "threshold", "faithfulness"}.intersection(told)
    size = {} if chosen else {"edges": 30}
    device = {} if "device_map" in told else {"device": "cpu"}
    told = {"task": "sequence/months", "prompts": 8, **size, **device, **told}
    configuration = EdgeAttributionConfiguration(**{"model": str(model), **told})
    return run_job(JOB, configuration, registry, progress=progress)


_FEW_PAIRS = """
from ingest.tasks.base import PromptPair, TaskSpec

MONTHS = ("May", "June", "July", "March")
ANSWERS = ((" May", " June"), (" June", " May"))


def draw(choose, encode):
    # The wrong answer depends on the prompt only, so that the model keeps the same pairs.
    texts = [f"{name} done in {month}. Hat done in" for name in ("Van", "Box") for month in MONTHS]
    while True:
        place = choose.randrange(len(texts))
        text, (correct, wrong) = texts[place], ANSWERS[place % 2]
        yield PromptPair(text, text.replace("Hat", "Key"), correct, wrong)


TASK = TaskSpec("few/pairs", "few", "Eight pairs, in an order that the seed determines.", draw)
"""


def install_few_pairs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with the task ``few/pairs``, of which all seeds draw the same pairs."""
    info = folder / "site" / "few_pairs-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: few-pairs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[circuits.tasks]\nfew-pairs = few_pairs_task:TASK\n")
    (folder / "site" / "few_pairs_task.py").write_text(_FEW_PAIRS)
    monkeypatch.syspath_prepend(str(folder / "site"))
    monkeypatch.delitem(sys.modules, "few_pairs_task", raising=False)


def only_circuit(registry: Registry) -> Circuit:
    """The one circuit there is."""
    (entry,) = registry.circuits()
    return registry.circuit(entry.id).circuit


def write_prompts(folder: Path, text: str, header: str = "---\ntask: own/test\n---\n") -> Path:
    """A file of prompts under a header."""
    path = folder / "prompts.jsonl"
    path.write_text(header + text, encoding="utf-8")
    return path
