"""Running the job on the tiny model, with little to do unless told otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingest.jobs import FinishedRun, run_job
from ingest.jobs.edge_attribution.job import JOB, EdgeAttributionConfiguration
from ingest.jobs.progress import Progress
from registry import Registry
from registry.records import Circuit

__all__ = ["PAIR", "discover", "only_circuit", "write_prompts"]

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


def only_circuit(registry: Registry) -> Circuit:
    """The one circuit there is."""
    (entry,) = registry.circuits()
    return registry.circuit(entry.id).circuit


def write_prompts(folder: Path, text: str, header: str = "---\ntask: own/test\n---\n") -> Path:
    """A file of prompts under a header."""
    path = folder / "prompts.jsonl"
    path.write_text(header + text, encoding="utf-8")
    return path
