"""What a circuits-import.yaml says of which files, and what it says of none."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from ingest.globs import matches
from ingest.importing import FileReport, Outcome, import_files
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
            "mib/deep/two.json": Outcome.STORED,
            "mib/one.json": Outcome.STORED,
            "top.json": Outcome.KNOWN,
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
            Outcome.STORED, Outcome.KNOWN,
        ]  # fmt: skip
        assert "does not name its task" in reports["mib/deep/two.json"].notes[0]

    def test_one_that_means_no_file_is_told_once(self, registry: Registry, folder: Path) -> None:
        text = "- {files: '*', task: ioi}\n- {files: ['mib/*.jsn', 'top.json'], sign: unknown}\n"
        reports = imported(registry, folder, text)
        told = reports.pop(SIDECAR)
        assert (told.outcome, told.format) == (Outcome.SKIPPED, "circuits-import")
        assert told.notes == ("no file matches 'mib/*.jsn'",)
        assert Outcome.REFUSED not in {report.outcome for report in reports.values()}

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
        assert report.outcome is Outcome.STORED


class TestMalformed:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("- {modle: gpt2}", "entry 1: 'modle' is no field; 'model' may be meant. There are"),
            ("- {task: ioi}\n- {zzzzzz: 1}", "entry 2: 'zzzzzz' is no field. There are files, mod"),
            ("- {sign: maybe}", "entry 1: sign: Input should be 'helps-positive'"),
            ("- {files: 7}", "entry 1: files is '7', no glob"),
            ("- {files: []}", "entry 1: files is '[]', no glob"),
            ("- {files: [a, {b: c}]}", "entry 1: files is"),
            ("- {files: ''}", "entry 1: files is '', no glob"),
            ("- {hyperparameters: ../up.yaml}", "names ../up.yaml, which is not under"),
            ("model: gpt2", "is no list of entries"),
        ],
    )
    def test_it_is_told_once_with_its_place_and_what_there_is(
        self, registry: Registry, folder: Path, text: str, says: str
    ) -> None:
        reports = imported(registry, folder, text)
        told = reports.pop(SIDECAR)
        assert (told.outcome, told.format) == (Outcome.REFUSED, "circuits-import")
        assert str(folder / SIDECAR) in told.notes[0]
        assert says in told.notes[0]
        for report in reports.values():
            assert report.outcome is Outcome.REFUSED
            assert report.notes == (f"what {SIDECAR} says of it is not known, as that is refused",)

    def test_one_further_down_refuses_what_lies_there_alone(
        self, registry: Registry, folder: Path
    ) -> None:
        written(folder / "mib", "- {modle: x}\n", SIDECAR)
        reports = imported(registry, folder, "- {task: ioi}\n")
        assert {name: report.outcome for name, report in reports.items()} == {
            f"mib/{SIDECAR}": Outcome.REFUSED, "mib/one.json": Outcome.REFUSED,
            "mib/deep/two.json": Outcome.REFUSED, "top.json": Outcome.STORED,
        }  # fmt: skip
