"""Which files of a folder are imported, and that it is said which are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.found_files import find_files
from ingest.importing import Outcome, import_files
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
    assert report.outcome is Outcome.STORED
    (report,) = import_files(registry, [written(hidden, graph(), ".hidden.json")], GPT2)
    assert report.outcome is Outcome.KNOWN


def test_what_is_hidden_further_down_or_a_link_is_told(
    registry: Registry, hidden: Path, tmp_path: Path
) -> None:
    folder = hidden.parent
    written(folder, graph(), ".own.json")
    (folder / "link").symlink_to(hidden)
    reports = list(import_files(registry, [folder], GPT2))
    assert [(report.path.name, report.outcome) for report in reports] == [
        (".own.json", Outcome.SKIPPED), (".run", Outcome.SKIPPED), ("link", Outcome.SKIPPED),
    ]  # fmt: skip
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
    assert f"folders passed over (hidden, links or not readable): {hidden}" in said.err
    assert "no files there" not in said.out + said.err


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.json", "a/z.json", "a.json", "a/b/c.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [one.path for one in find_files([tmp_path])]
    assert found == sorted(one for one in tmp_path.rglob("*") if one.is_file())


def test_a_path_where_nothing_is_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        list(find_files([tmp_path / "none"]))
