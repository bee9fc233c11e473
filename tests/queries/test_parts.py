"""A notebook and a web page say what a command says: parts of answers equal its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from queries import circuit_matrix, compare_circuits, differences, reuse, stability
from registry import Registry
from registry.cli.main import main
from registry.rows import plain_parts
from tests.queries import small_registry
from tests.queries.small_registry import IOI, NUMERALS

TASKS = ("ioi", "sequence/numerals")
ANSWERS: Mapping[str, Callable[[Registry], Any]] = {
    f"compare {IOI.id} {NUMERALS.id} --draws 20": lambda registry: compare_circuits(
        registry, IOI.id, NUMERALS.id, draws=20
    ),
    f"diff {IOI.id} {NUMERALS.id} --limit 0": lambda registry: differences(
        registry, IOI.id, NUMERALS.id
    ),
    f"matrix --task {','.join(TASKS)} --draws 20": lambda registry: circuit_matrix(
        registry, TASKS, draws=20
    ),
    f"reuse --task {','.join(TASKS)} --draws 20 --limit 0": lambda registry: reuse(
        registry, TASKS, draws=20
    ),
    "stability ioi --limit 0": lambda registry: stability(registry, "ioi"),
}
OF_THE_REGISTRY = {"circuits"}
"""Parts that a command adds from the record."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("parts") / "registry"
    with Registry.init(home) as registry:
        small_registry.fill(registry)
    return home


@pytest.mark.parametrize("line", ANSWERS)
def test_parts_are_what_the_command_writes(
    home: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(home), *line.split(), "--format", "json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    with Registry.open(home) as registry:
        parts = plain_parts(ANSWERS[line](registry).parts())
    assert parts
    assert {title: told[title] for title in parts} == parts
    assert told.keys() - parts.keys() <= OF_THE_REGISTRY
