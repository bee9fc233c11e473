"""A filled registry and the command line on it, in this process."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry import Registry
from registry.cli.main import main
from registry.ledger.base import Batch, NewCircuit
from registry.records import CircuitLabels, Run, RunStatus, SourceFile
from tests import examples
from tests.environment import without_settings

RUN = Run(
    id="c" * 32,
    job="edge-attribution",
    version="1",
    status=RunStatus.FINISHED,
    started_at=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
    finished_at=datetime(2026, 1, 31, 12, 5, tzinfo=UTC),
    device="cpu",
)
IOI = examples.circuit(1)
IOI_TOO = examples.circuit(2)
NUMERALS = examples.circuit(3, task="sequence/numerals")
EDIT, OUTCOME = examples.edit(IOI, "m5", "a9.h6")


@dataclass(frozen=True)
class Answer:
    """What a command wrote and returned."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All of it, with what differs between runs replaced."""
        parts = (
            f"exit code {self.code}\n--- standard output\n{self.out}--- standard error\n{self.err}"
        )
        parts = re.sub(r"--after \S+", "--after PLACE", parts)
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "TIME", parts)


Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - without_settings(os.environ).keys():
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = {name: logging.getLogger(name).level for name in ("registry", "ingest", "queries")}
    yield
    logging.captureWarnings(False)
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in ours.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Answer:
        code = main(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("filled") / ".circuits"
    with Registry.init(home) as registry:
        registry.record(examples.GPT2, *examples.TASKS, RUN)
        labels = CircuitLabels(title="Name movers", author="Ada", tags=("final",))
        registry.record(NewCircuit(IOI, run=RUN.id, labels=labels), examples.faithfulness(IOI))
        source = SourceFile(name="circuit.json", sha256="d" * 64, format="edges-json")
        registry.record(NewCircuit(IOI_TOO, source_file=source))
        registry.record(NUMERALS, examples.faithfulness(NUMERALS, 0.5))
        registry.attach_edit(EDIT, [OUTCOME])
        results = SourceFile(name="results.json", sha256="e" * 64, format="easyedit-results")
        registry.record(Batch(edit_files={EDIT.id: results}))
    return home


@pytest.fixture
def filled(filled_once: Path, tmp_path: Path) -> Path:
    """Home of a registry with two circuits of IOI, one of numerals, and an edit."""
    home = tmp_path / ".circuits"
    shutil.copytree(filled_once, home)
    return home
