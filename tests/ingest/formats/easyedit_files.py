"""Files of EasyEdit for tests, and their import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest.exchange.importing import FileOutcome as Became
from ingest.exchange.importing import FileReport, import_files
from registry import Registry
from registry.records import Edit, Outcome
from tests.ingest.formats.test_importing import SHARED

FILES = Path(__file__).parent / "files" / "easyedit"
ROME = FILES / "hparams" / "ROME" / "gpt2.yaml"
REAL = SHARED / "easyedit"


def record(**changes: Any) -> dict[str, Any]:
    """A record of a version that names no protocol."""
    return {
        "pre": {"rewrite_acc": [0.0], "portability": {}},
        "case_id": 0,
        "requested_rewrite": {"prompt": "Rua lies in", "target_new": "Peru", "subject": "Rua"},
        "post": {"rewrite_acc": [1.0], "locality": {}, "portability": {}},
        **changes,
    }


def written(folder: Path, content: Any, name: str = "ROME_results.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def one(registry: Registry, path: Path, **said: Any) -> FileReport:
    (report,) = import_files(registry, [path], {"model": "gpt2", **said})
    return report


def imported(registry: Registry, path: Path, **said: Any) -> list[tuple[Edit, list[Outcome]]]:
    report = one(registry, path, **said)
    assert report.outcome is Became.STORED, report.notes
    return [(edit, registry.outcomes(edit.id)) for edit in registry.edits()]


def table(outcomes: list[Outcome]) -> dict[str, tuple[Any, ...]]:
    return {o.metric: (o.protocol, o.before, o.after, o.n_prompts) for o in outcomes}
