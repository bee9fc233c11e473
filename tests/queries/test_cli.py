"""The command shared, as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from registry import Registry
from tests.queries import small_registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("commands") / "registry"
    with Registry.init(home) as registry:
        small_registry.fill(registry)
    return home


def circuits(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry", "--home", home, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_shared_shows_components_and_connections_with_an_effect_per_task(home: Path) -> None:
    ran = circuits(home, "shared", "--task", "ioi,sequence/numerals", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert set(answer) == {"components", "connections"}
    (first,) = (row for row in answer["connections"] if row["port"] == "v")
    assert first["connection"] == "gpt2/input->a0.h1<v>"
    assert (first["ioi"], first["sequence/numerals"]) == (0.375, -0.25)
    assert {row["component"] for row in answer["components"]} == {
        "gpt2/input", "gpt2/a0.h1", "gpt2/a9.h6", "gpt2/m9", "gpt2/logits"
    }  # fmt: skip


def test_shared_as_a_table_names_the_tasks_and_as_csv_holds_connections(home: Path) -> None:
    asked = ("shared", "--task", "ioi", "--task", "sequence/months", "--method", "edge-attribution")
    table = circuits(home, *asked)
    assert "components" in table.stdout
    assert "sequence/months" in table.stdout
    rows = list(csv.DictReader(io.StringIO(circuits(home, *asked, "--format", "csv").stdout)))
    assert [row["connection"] for row in rows] == ["gpt2/m9->logits", "gpt2/input->a0.h1<v>"]


def test_fewer_tasks_of_those_given_may_be_enough(home: Path) -> None:
    tasks = ("--task", "ioi,sequence/numerals,sequence/months")
    counts = []
    for least in ("1", "2", "3"):
        ran = circuits(home, "shared", *tasks, "--min-tasks", least, "--format", "json")
        counts.append(len(json.loads(ran.stdout)["connections"]))
    assert counts == [9, 4, 2]


def test_shared_draws_where_asked(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.svg"
    ran = circuits(
        home, "shared", "--task", "ioi,sequence/numerals", "--model", "gpt2", "--out", out
    )
    assert ran.returncode == 0, ran.stderr
    assert "drawn to" in ran.stderr
    drawing = out.read_text(encoding="utf-8")
    assert "a9.h6" in drawing
    assert "What all 2 tasks share in gpt2" in drawing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "ioi"], "shared needs two or more tasks, got 1"),
        (["--task", "ioi,ioi"], "shared needs two or more tasks, got 1"),
        (["--task", "ioi,capitals", "--min-tasks", "3"], "--min-tasks is 3, but only 2 tasks"),
        (["--task", "ioi,nope"], "no task 'nope'; recorded are: capitals, ioi"),
        (["--task", "ioi,capitals", "--model", "gpt9"], "no model 'gpt9'; nearest: gpt2"),
        (["--task", "ioi,capitals", "--out", "a.gif"], "name a file that ends in .svg"),
        (["--task", "ioi,capitals", "--out", "a.svg"], "choose one with --model"),
    ],
)
def test_bad_input_to_shared_is_one_line(
    home: Path, arguments: list[str], message: str, tmp_path: Path
) -> None:
    given = [str(tmp_path / text) if text.startswith("a.") else text for text in arguments]
    ran = circuits(home, "shared", *given)
    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_tasks_that_share_nothing_are_said_to(home: Path) -> None:
    ran = circuits(home, "shared", "--task", "ioi,capitals", "--model", "smollm2")
    assert ran.returncode == 0
    assert "share nothing" in ran.stderr
