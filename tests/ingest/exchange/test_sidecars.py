"""What a circuits-import.yaml says of which files, and what it says of none."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from ingest.exchange.globs import matches
from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from tests.ingest.formats.test_importing import graph, written

SIDECAR = "circuits-import.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``top.json``, ``mib/one.json``, ``mib/deep/two.json``: one graph of three shapes."""
    path = tmp_path / "results"
    (path / "mib" / "deep").mkdir(parents=True)
    for name in ("top.json", "mib/one.json", "mib/deep/two.json"):
        written(path, graph(name=name), name)
    return path


def imported(registry: Registry, folder: Path, text: str) -> dict[str, FileReport]:
    written(folder, text, SIDECAR)
    reports = import_files(registry, [folder], {"model": "toy"})
    return {report.path.relative_to(folder).as_posix(): report for report in reports}


@pytest.mark.parametrize(
    ("glob", "top", "one", "two"),
    [
        ("*", True, True, True),
        ("*.json", True, True, True),
        ("one.json", False, True, False),
        ("./*.json", True, False, False),
        ("/*.json", True, False, False),
        ("**/*.json", True, True, True),
        ("**", True, True, True),
        ("mib/*.json", False, True, False),
        ("mib/*", False, True, False),
        ("*/*.json", False, True, False),
        ("mib/**", False, True, True),
        ("mib/", False, True, True),
        ("mib/**/*.json", False, True, True),
        ("**/deep/*", False, False, True),
        ("**/**/two.json", False, False, True),
        ("mib/[a-z]?e.json", False, True, False),
        ("mib", False, False, False),
        ("MIB/*", False, False, False),
        ("../*", False, False, False),
    ],
)
def test_a_star_stays_in_its_folder_and_two_cross_any_number(
    glob: str, top: bool, one: bool, two: bool
) -> None:
    paths = [PurePosixPath(p) for p in ("top.json", "mib/one.json", "mib/deep/two.json")]
    assert [matches(glob, path) for path in paths] == [top, one, two]


def test_a_glob_of_many_stars_takes_no_time() -> None:
    assert not matches("/".join(["**", "a*"] * 40) + "/b", PurePosixPath("/".join(["aa"] * 80)))


class TestEntries:
    def test_a_glob_below_says_nothing_of_what_lies_deeper(
        self, registry: Registry, folder: Path
    ) -> None:
        text = "- {files: '**/*.json', task: first}\n- {files: 'mib/*.json', task: second}\n"
        reports = imported(registry, folder, text)
        assert {name: report.outcome for name, report in reports.items()} == {
            "mib/deep/two.json": FileOutcome.STORED,
            "mib/one.json": FileOutcome.STORED,
            "top.json": FileOutcome.KNOWN,
        }
        tasks = {
            name: registry.circuit(report.circuits[0]).circuit.task
            for name, report in reports.items()
        }
        assert tasks == {
            "top.json": "first", "mib/one.json": "second", "mib/deep/two.json": "first",
        }  # fmt: skip

    def test_several_globs_are_a_list(self, registry: Registry, folder: Path) -> None:
        reports = imported(registry, folder, "- {files: [./top.json, mib/*.json], task: ioi}\n")
        assert [reports[name].outcome for name in ("mib/one.json", "top.json")] == [
            FileOutcome.STORED, FileOutcome.KNOWN,
        ]  # fmt: skip
        assert "does not name its task" in reports["mib/deep/two.json"].notes[0]

    def test_one_that_means_no_file_is_told_once(self, registry: Registry, folder: Path) -> None:
        text = "- {files: '*', task: ioi}\n- {files: ['mib/*.jsn', 'top.json'], sign: unknown}\n"
        reports = imported(registry, folder, text)
        told = reports.pop(SIDECAR)
        assert (told.outcome, told.format) == (FileOutcome.SKIPPED, "circuits-import")
        assert told.notes == ("no file matches 'mib/*.jsn'",)
        assert FileOutcome.REFUSED not in {report.outcome for report in reports.values()}

    def test_one_of_a_file_that_no_format_knows_matches(
        self, registry: Registry, folder: Path
    ) -> None:
        written(folder, "thanks", "README")
        assert SIDECAR not in imported(registry, folder, "- {files: README, task: ioi}\n")

    def test_a_file_that_is_named_itself_need_not_be_meant(
        self, registry: Registry, folder: Path
    ) -> None:
        written(folder, "- {files: 'none/*', task: none}\n- {task: ioi}\n", SIDECAR)
        (report,) = import_files(registry, [folder / "top.json"], {"model": "toy"})
        assert report.outcome is FileOutcome.STORED


class TestMalformed:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("- {modle: gpt2}", "entry 1: 'modle' is no field (did you mean 'model'?); fields:"),
            ("- {task: ioi}\n- {zzzzzz: 1}", "entry 2: 'zzzzzz' is no field; fields: files, mod"),
            ("- {sign: maybe}", "entry 1: sign: must be 'helps-positive'"),
            ("- {files: 7}", "entry 1: files is '7', not a glob"),
            ("- {files: []}", "entry 1: files is '[]', not a glob"),
            ("- {files: [a, {b: c}]}", "entry 1: files is"),
            ("- {files: ''}", "entry 1: files is '', not a glob"),
            ("- {hyperparameters: ../up.yaml}", "names ../up.yaml, which is not under"),
            ("model: gpt2", "is not a list of entries"),
        ],
    )
    def test_it_is_told_once_with_its_place_and_what_there_is(
        self, registry: Registry, folder: Path, text: str, says: str
    ) -> None:
        reports = imported(registry, folder, text)
        told = reports.pop(SIDECAR)
        assert (told.outcome, told.format) == (FileOutcome.REFUSED, "circuits-import")
        assert str(folder / SIDECAR) in told.notes[0]
        assert says in told.notes[0]
        for report in reports.values():
            assert report.outcome is FileOutcome.REFUSED
            assert report.notes == (
                f"{SIDECAR} has an error, so its statements about this file are unknown",
            )

    def test_one_further_down_refuses_what_lies_there_alone(
        self, registry: Registry, folder: Path
    ) -> None:
        written(folder / "mib", "- {modle: x}\n", SIDECAR)
        reports = imported(registry, folder, "- {task: ioi}\n")
        assert {name: report.outcome for name, report in reports.items()} == {
            f"mib/{SIDECAR}": FileOutcome.REFUSED, "mib/one.json": FileOutcome.REFUSED,
            "mib/deep/two.json": FileOutcome.REFUSED, "top.json": FileOutcome.STORED,
        }  # fmt: skip


def test_a_later_choice_takes_the_place_of_one_of_the_other_kind(
    registry: Registry, folder: Path
) -> None:
    text = '- {files: "*", task: x, top: 1}\n- {files: "one.json", threshold: 0.1}\n'
    found = imported(registry, folder, text)
    rules = {
        name: registry.circuit(found[name].circuits[0]).circuit.selection
        for name in ("top.json", "mib/one.json")
    }
    assert rules == {
        "top.json": {"top": 1, "by": "absolute"},
        "mib/one.json": {"threshold": 0.1, "by": "absolute"},
    }


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("top: yes", "top: is true, no number"),
        ("threshold: false", "threshold: is false, no number"),
        ("node_threshold: true", "node_threshold: is true, no number"),
        ("top: 3, threshold: 0.5", "give only one of them"),
    ],
)
def test_what_is_no_number_or_two_choices_in_one_entry_is_refused(
    registry: Registry, folder: Path, field: str, says: str
) -> None:
    found = imported(registry, folder, f'- {{files: "*", task: x, {field}}}\n')
    assert says in found[SIDECAR].notes[0]
    assert {report.outcome for report in found.values()} == {FileOutcome.REFUSED}
