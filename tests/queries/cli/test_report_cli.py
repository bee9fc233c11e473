"""The command report, as a user runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from registry import Registry
from tests.queries import measured_tasks
from tests.queries.measured_tasks import FOUR_TASKS
from tests.servers.neo4j import Neo4jServer

pytestmark = pytest.mark.seconds

TASKS = ("--task", ",".join(FOUR_TASKS), "--draws", "30")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("report") / "registry"
    with Registry.init(home) as registry:
        measured_tasks.fill(registry)
    return home


def circuits(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry", "--home", home, "report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_one_page_and_says_where(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a report.html"
    ran = circuits(home, *TASKS, "--out", out)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert f"written to {out}" in ran.stderr
    text = out.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<svg ") == 2
    assert list(tmp_path.iterdir()) == [out]
    assert circuits(home, *TASKS, "--out", tmp_path / "again.html").returncode == 0
    assert (tmp_path / "again.html").read_bytes() == out.read_bytes()


def test_markdown_has_its_pictures_in_a_folder_beside_it(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "what is (not) shared.md"
    ran = circuits(home, *TASKS, "--min-tasks", "2", "--out", out)
    assert ran.returncode == 0, ran.stderr
    folder = tmp_path / "what is (not) shared_files"
    assert sorted(path.name for path in folder.iterdir()) == ["matrix.svg", "shared.svg"]
    text = out.read_text(encoding="utf-8")
    assert "](what%20is%20%28not%29%20shared_files/matrix.svg)" in text
    assert "A part is shared if 2 of 4 tasks use it." in text


def test_what_is_there_is_replaced(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    out.write_text("older", encoding="utf-8")
    named = circuits(home, *TASKS, "--circuits", "all", "--out", out)
    assert named.returncode == 0, named.stderr
    text = out.read_text(encoding="utf-8")
    assert "older" not in text
    assert "8 circuits represent 4 tasks in gpt2" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "ioi", "--out", "r.html"], "report needs two or more tasks, got 1"),
        (["--task", "ioi,nope", "--out", "r.html"], "no task 'nope'"),
        ([*TASKS, "--out", "r.docx"], "name a file that ends in .html or .md"),
        ([*TASKS, "--out", "no/r.html"], "there is no folder"),
        ([*TASKS, "--min-tasks", "9", "--out", "r.html"], "--min-tasks is 9, but 4 tasks"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    home: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [str(tmp_path / one) if one.endswith((".html", ".docx")) else one for one in arguments]
    ran = circuits(home, *given)
    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_to_write_to_is_needed(home: Path) -> None:
    ran = circuits(home, *TASKS)
    assert ran.returncode == 2
    assert "--out" in ran.stderr


@pytest.mark.neo4j
def test_both_engines_give_the_same_report(
    home: Path, neo4j_server: Neo4jServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*TASKS, "--min-tasks", "2", "--out")
    embedded = circuits(home, *asked, tmp_path / "embedded.html")
    assert embedded.returncode == 0, embedded.stderr
    with neo4j_server.open() as store:
        store.clear()
    served = tmp_path / "served"
    shutil.copytree(home, served)
    monkeypatch.setenv("CIRCUITS_GRAPH", neo4j_server.url)
    monkeypatch.setenv("CIRCUITS_GRAPH_USER", neo4j_server.user)
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", neo4j_server.password.get_secret_value())
    with Registry.open(served) as registry:
        registry.rebuild()
    ran = circuits(served, *asked, tmp_path / "served.html")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "served.html").read_bytes() == (tmp_path / "embedded.html").read_bytes()
