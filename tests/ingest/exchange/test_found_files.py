"""Which files of a folder are imported, and that it is said which are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.exchange.found_files import find_files
from ingest.exchange.importing import FileOutcome, import_files
from registry import Registry
from registry.cli.main import main
from registry.errors import BadInput
from tests.ingest.formats.test_importing import GPT2, graph, written


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """``results/.run/graph.json``."""
    path = tmp_path / "results" / ".run"
    path.mkdir(parents=True)
    written(path, graph())
    return path


def test_what_a_user_names_is_imported_though_it_is_hidden(
    registry: Registry, hidden: Path
) -> None:
    (report,) = import_files(registry, [hidden], GPT2)
    assert report.outcome is FileOutcome.STORED
    (report,) = import_files(registry, [written(hidden, graph(), ".hidden.json")], GPT2)
    assert report.outcome is FileOutcome.KNOWN


def test_what_is_hidden_further_down_or_a_link_is_told(
    registry: Registry, hidden: Path, tmp_path: Path
) -> None:
    folder = hidden.parent
    written(folder, graph(), ".own.json")
    (folder / "link").symlink_to(hidden)
    reports = list(import_files(registry, [folder], GPT2))
    assert [(report.path.name, report.outcome) for report in reports] == [
        (".own.json", FileOutcome.SKIPPED),
        (".run", FileOutcome.SKIPPED),
        ("link", FileOutcome.SKIPPED),
    ]
    assert [report.notes[0].split(";")[0] for report in reports] == [
        "it is hidden", "it is hidden", "it is a link",
    ]  # fmt: skip
    assert registry.circuits() == []


def test_the_command_names_the_folders_it_passed_over(
    registry: Registry, hidden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(registry.settings.home)
    assert main(["--home", home, "import", str(hidden.parent), "--dry-run"]) == 0
    said = capsys.readouterr()
    assert f"skipped folders (hidden, links or not readable): {hidden}" in said.err
    assert "no files found" not in said.out + said.err


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.json", "a/z.json", "a.json", "a/b/c.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [one.path for one in find_files([tmp_path])]
    assert found == sorted(one for one in tmp_path.rglob("*") if one.is_file())


def test_a_path_where_nothing_is_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        list(find_files([tmp_path / "none"]))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
def test_a_pipe_is_passed_over_and_said_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (one,) = find_files([tmp_path])
    assert (one.path.name, one.passed_over) == ("pipe.json", "it is neither a file nor a folder")


def test_a_file_that_is_named_twice_is_read_once(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    path = written(folder, graph())
    paths = [path, folder, folder / ".." / "twice" / path.name]
    for dry_run, outcome in ((True, FileOutcome.READABLE), (False, FileOutcome.STORED)):
        reports = list(import_files(registry, paths, GPT2, dry_run=dry_run))
        assert [report.outcome for report in reports] == [outcome, *[FileOutcome.SKIPPED] * 2]
        assert {report.notes for report in reports[1:]} == {("it is named twice",)}
