"""The command import on folders of many files, as a user meets it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.formats.tables.table import EdgeTable
from registry import Registry
from registry.cli.main import main

SAID = ("--model", "gpt2", "--task", "ioi")


@pytest.fixture
def home(tmp_path: Path) -> str:
    Registry.init(tmp_path / ".circuits").close()
    return str(tmp_path / ".circuits")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tables, of which the middle one is malformed, and a file that is none."""
    folder = tmp_path / "results"
    folder.mkdir()
    for name, target in (("a", "m1"), ("b", "x"), ("c", "m2")):
        (folder / f"{name}.csv").write_text(f"source,target\nm0,{target}\n")
    (folder / "readme.txt").write_text("thanks")
    return folder


def test_every_file_is_told_of_as_it_is_done(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--home", home, "import", str(folder), *SAID, "--format", "json"])
    answer = capsys.readouterr()
    told = answer.err.splitlines()
    assert code == 1
    assert [line.partition(":")[0] for line in told] == [
        "stored", "refused", "stored", "1 of 4 files refused"
    ]  # fmt: skip
    assert "b.csv: b.csv, line 2: 'x' is not a part of a model" in told[1]
    outcomes = [row["outcome"] for row in json.loads(answer.out)]
    assert outcomes == ["stored", "refused", "stored", "skipped"]


@pytest.fixture
def without_graph(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's graph is a server that is not there."""
    monkeypatch.setenv("CIRCUITS_GRAPH", "bolt://127.0.0.1:1")


@pytest.mark.usefixtures("without_graph")
@pytest.mark.parametrize("names", [["b.csv"], ["b.csv", "readme.txt"]])
def test_where_every_file_is_refused_nothing_is_said_to_be_recorded(
    home: str, folder: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(folder / name) for name in names]
    assert main(["--home", home, "import", *files, *SAID]) == 1
    answer = capsys.readouterr()
    assert "recorded" not in answer.err
    assert "pending" not in answer.err
    assert answer.err.splitlines()[-1] == f"{len(names)} of {len(names)} files refused"


@pytest.mark.usefixtures("without_graph")
def test_a_dry_run_says_nothing_of_the_graph(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", home, "import", str(folder / "a.csv"), *SAID, "--dry-run"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("without_graph")
def test_what_is_stored_beside_a_refused_file_is_said_to_be_pending_once(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", home, "import", str(folder), *SAID]) == 1
    answer = capsys.readouterr()
    assert answer.err.count("is pending") == 1
    assert "1 of 4 files refused" in answer.err
    with Registry.open(home) as registry:
        assert len(registry.circuits()) == 2


def test_a_position_too_long_for_the_graph_is_refused_and_the_rest_goes_on(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.csv").write_text(f"source,target,source_position\nm0,m1,{'x' * 8300}\n")
    assert main(["--home", home, "import", str(folder), *SAID, "--format", "json"]) == 1
    rows = {Path(row["file"]).name: row for row in json.loads(capsys.readouterr().out)}
    assert rows["b.csv"]["notes"] == [
        "b.csv, line 2: a position of 8,300 bytes is too long; 500 are allowed"
    ]
    with Registry.open(home) as registry:
        assert (len(registry.circuits()), registry.status().pending) == (2, 0)


def test_a_table_of_a_folder_that_is_skipped_is_told_of_with_its_reason(
    home: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "tables"
    results.mkdir()
    (results / "semi.csv").write_text("layer;head;score\n9;9;1\n")
    (results / "log.txt").write_text("nothing")
    assert main(["--home", home, "import", str(results), *SAID]) == 0
    answer = capsys.readouterr()
    assert "skipped: " in answer.err
    assert "semi.csv: its values are separated by ';'" in answer.err
    assert "1 other files skipped; --format json gives the reason" in answer.err


def test_a_table_leaves_out_files_that_are_none_of_ours(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", home, "import", str(folder), *SAID]) == 1
    answer = capsys.readouterr()
    assert "a.csv" in answer.out
    assert "readme.txt" not in answer.out
    assert "1 other files skipped; --format json gives the reason" in answer.err


def test_one_file_needs_no_line_of_its_own(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", home, "import", str(folder / "a.csv"), *SAID]) == 0
    assert capsys.readouterr().err == ""


def test_the_graph_knows_all_of_them_at_the_end(home: str, folder: Path) -> None:
    assert main(["--home", home, "import", str(folder), *SAID]) == 1
    with Registry.open(home) as registry:
        assert registry.status().pending == 0
        rows = registry.cypher("MATCH (c:Circuit) RETURN c.id AS id ORDER BY id")
        assert [row["id"] for row in rows] == sorted(entry.id for entry in registry.circuits())
        assert len(rows) == 2


def test_a_terminal_shows_a_bar_and_what_was_refused(home: str, folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "registry", "--home", home, "import", str(folder), *SAID]
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # how a pseudo-terminal says that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    text = shown.decode()
    assert ran.returncode == 1
    assert "importing" in text
    assert "/4" in text
    assert "refused: " in text
    assert "stored: " not in text


def test_what_was_stored_before_an_interruption_is_told(
    home: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = tmp_path / "package"
    (package / "halting-1.dist-info").mkdir(parents=True)
    (package / "halting-1.dist-info" / "METADATA").write_text("Name: halting\nVersion: 1\n")
    (package / "halting-1.dist-info" / "entry_points.txt").write_text(
        "[circuits.formats]\nhalting = halting_format:FORMAT\n"
    )
    (package / "halting_format.py").write_text(
        "from ingest.formats.tables.table import EdgeTable\n"
        "class Halting(EdgeTable):\n"
        "    def read(self, path, context):\n"
        "        if path.name == 'b.csv':\n"
        "            raise KeyboardInterrupt\n"
        "        return super().read(path, context)\n"
        "FORMAT = Halting()\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(package)])
    command = ["--home", home, "import", str(folder), *SAID, "--as", "halting"]
    assert main([*command, "--format", "json"]) == 130
    answer = capsys.readouterr()
    assert [row["outcome"] for row in json.loads(answer.out)] == ["stored"]
    assert answer.err.splitlines()[-1] == "interrupted"
    with Registry.open(home) as registry:
        assert (len(registry.circuits()), registry.status().pending) == (1, 0)


def test_a_path_that_is_not_there_is_one_line(
    home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", home, "import", "nowhere", *SAID]) == 2
    answer = capsys.readouterr()
    assert (answer.out, answer.err) == ("", "error: nowhere does not exist\n")


def test_the_cause_is_told_first_and_once_and_then_how_many_files_it_concerns(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "circuits-import.yaml").write_text("- {modle: gpt2}\n")
    code = main(["--home", home, "import", str(folder)])
    answer = capsys.readouterr()
    cause, count, last = answer.err.splitlines()[:3]
    assert code == 1
    assert cause.startswith(f"refused: {folder / 'circuits-import.yaml'}: ")
    assert "'modle' is no field" in cause
    assert (
        count == "refused: 3 files in or below the folder of"
        f" {folder / 'circuits-import.yaml'}, for its error"
    )
    assert answer.err.count("modle") == 1
    assert answer.out.count("so its statements about this file are unknown") == 3
    assert "other files skipped" in last


def test_the_cause_is_told_of_a_single_file_too(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "circuits-import.yaml").write_text("- {modle: gpt2}\n")
    for name in ("b.csv", "c.csv", "readme.txt"):
        (folder / name).unlink()
    main(["--home", home, "import", str(folder)])
    cause, count, _ = capsys.readouterr().err.splitlines()
    assert "'modle' is no field" in cause
    assert count.startswith("refused: 1 file in or below")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--top", "1", "--threshold", "0.5"), "alternatives"),
        (("--column", "effect=a", "--column", "effect=b"), "effect to both 'a' and 'b'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    home: str, folder: Path, options: tuple[str, ...], says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["--home", home, "import", str(folder), *SAID, *options]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("method", ["read", "sniff"])
def test_a_fault_at_one_file_is_reported_and_the_others_imported(
    home: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:  # fmt: skip
    whole = getattr(EdgeTable, method)

    def faulty(self: EdgeTable, path: Path, more: Any) -> Any:
        if path.name == "a.csv":
            raise TypeError("oops")
        return whole(self, path, more)

    monkeypatch.setattr(EdgeTable, method, faulty)
    options = ("--home", home, "--log-level", "debug")
    assert main([*options, "import", str(folder), *SAID, "--format", "json"]) == 1
    printed = capsys.readouterr()
    rows = {Path(row["file"]).name: row for row in json.loads(printed.out)}
    assert rows["a.csv"]["outcome"] == "refused"
    assert "a fault of this program: TypeError: oops" in rows["a.csv"]["notes"][0]
    assert rows["c.csv"]["outcome"] == "stored"
    assert "Traceback" in printed.err
