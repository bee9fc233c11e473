"""The steps of docs/production.md: from the defaults to PostgreSQL and Neo4j, by commands alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from tests import examples
from tests.environment import without_settings
from tests.servers.neo4j import Neo4jServer

pytestmark = [pytest.mark.neo4j, pytest.mark.postgres, pytest.mark.seconds]

CIRCUITS = Path(sys.executable).with_name("circuits")
QUESTIONS = (
    ["list", "--format", "json"],
    ["edits", "list", "--format", "json"],
    ["query", "shared-components", "tasks=ioi,sequence/numerals", "--format", "json"],
    ["shared", "--task", "ioi,sequence/numerals", "--format", "json"],
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in a folder, with the given additions to the environment."""

    def run_in(folder: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        kept = without_settings(os.environ)
        return subprocess.run(
            [CIRCUITS, *arguments],
            cwd=tmp_path / folder,
            env=kept | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run_in


def _answers(run: Run, folder: str) -> list[Any]:
    answers = []
    for question in QUESTIONS:
        answer = run(folder, *question)
        assert answer.returncode == 0, answer.stderr
        answers.append(json.loads(answer.stdout))
    return answers


def test_a_registry_moves_to_the_servers_and_answers_as_before(
    run: Run, tmp_path: Path, empty_neo4j: Neo4jServer, empty_postgres: str
) -> None:
    with Registry.init(tmp_path / "here" / ".circuits") as registry:
        circuits = examples.circuit(1), examples.circuit(3, task="sequence/numerals")
        edit, outcome = examples.edit(circuits[0], "m5")
        registry.record(examples.GPT2, *examples.TASKS, *circuits, edit, outcome)
    before = _answers(run, "here")
    assert all(before)

    backup = run("here", "backup", "../moved.zip")
    assert backup.returncode == 0, backup.stderr
    stores = ["--ledger", empty_postgres, "--graph", empty_neo4j.url]
    secret = empty_neo4j.password.get_secret_value()
    moved = run(
        "here", *stores, "restore", "../moved.zip", "../there", CIRCUITS_GRAPH_PASSWORD=secret
    )
    assert moved.returncode == 0, moved.stderr

    home = tmp_path / "there" / ".circuits"
    assert secret not in (home / "circuits.toml").read_text(encoding="utf-8")
    (home / "graph-password").touch(mode=0o600)
    (home / "graph-password").write_text(f"{secret}\n", encoding="utf-8")
    assert _answers(run, "there") == before
    assert run("there", "doctor").returncode == 0
    assert run("there", "migrate", "--check").returncode == 0


def test_a_second_registry_joins_the_ledger_and_the_graph_of_the_first(
    run: Run, tmp_path: Path, empty_neo4j: Neo4jServer, empty_postgres: str
) -> None:
    stores = ["--ledger", empty_postgres, "--graph", empty_neo4j.url]
    secret = {"CIRCUITS_GRAPH_PASSWORD": empty_neo4j.password.get_secret_value()}
    for folder in ("mine", "yours"):
        made = run(folder, *stores, "init", **secret)
        assert made.returncode == 0, made.stderr
        assert made.stderr.count("\n") == 1, "init warned"
    asked = [run(folder, "status", "--format", "json", **secret) for folder in ("mine", "yours")]
    ids = {json.loads(answer.stdout)["registry"]["registry"] for answer in asked}
    assert len(ids) == 1


def test_a_registry_made_without_the_graphs_password_warns_and_catches_up_once_it_is_given(
    run: Run, empty_neo4j: Neo4jServer, empty_postgres: str
) -> None:
    stores = ["--ledger", empty_postgres, "--graph", empty_neo4j.url]
    made = run("mine", *stores, "init")
    assert made.returncode == 0, made.stderr
    secret = {"CIRCUITS_GRAPH_PASSWORD": empty_neo4j.password.get_secret_value()}
    assert run("mine", "sync", **secret).returncode == 0
    answer = run("mine", "cypher", "MATCH (c:Circuit) RETURN count(c) AS n", **secret)
    assert answer.returncode == 0, answer.stderr
