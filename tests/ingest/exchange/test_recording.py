"""Many files with an edit each into a real registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange import recording
from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from registry.errors import LedgerError, StorageError
from tests.ingest.formats.easyedit_files import record, written
from tests.ingest.formats.test_importing import graph

SAID = {"model": "gpt2", "method": "ROME"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run_000"
    path.mkdir()
    return path


def case(number: int, **changes: Any) -> dict[str, Any]:
    return record(case_id=number, **changes)


def cases(folder: Path, n: int) -> None:
    for number in range(n):
        written(folder, case(number), f"case_{number}.json")


def became(reports: list[FileReport]) -> dict[str, FileOutcome]:
    return {report.path.name: report.outcome for report in reports}


class TestManyFiles:
    def test_every_file_has_a_report_in_order_and_its_original(
        self, registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recording, "_MOST_FILES", 4)
        cases(folder, 11)
        (folder / "log.txt").write_text("nothing")
        reports = list(import_files(registry, [folder], SAID))
        assert [report.path for report in reports] == sorted(folder.iterdir())
        assert became(reports) == {
            **{f"case_{number}.json": FileOutcome.STORED for number in range(11)},
            "log.txt": FileOutcome.SKIPPED,
        }
        assert {report.edits for report in reports if report.format} == {1}
        for edit in registry.edits():
            (file,) = registry.ledger.edit_files(edit.id)
            assert file.name == f"case_{edit.request['case_id']}.json"
            assert registry.artifact(file.sha256) == (folder / file.name).read_bytes()
            assert len(registry.outcomes(edit.id)) == 1

    def test_again_they_are_there_already(self, registry: Registry, folder: Path) -> None:
        cases(folder, 3)
        list(import_files(registry, [folder], SAID))
        known = registry.edits()
        assert set(became(list(import_files(registry, [folder], SAID))).values()) == {
            FileOutcome.KNOWN
        }
        assert registry.edits() == known

    def test_one_that_is_refused_keeps_no_other_out(self, registry: Registry, folder: Path) -> None:
        cases(folder, 4)
        written(folder, case(2, post={"a\x00b": 1.0}), "case_2.json")
        reports = list(import_files(registry, [folder], SAID))
        assert became(reports) == {
            "case_0.json": FileOutcome.STORED, "case_1.json": FileOutcome.STORED,
            "case_2.json": FileOutcome.REFUSED, "case_3.json": FileOutcome.STORED,
        }  # fmt: skip
        assert "NUL" in reports[2].notes[0]
        assert [edit.request["case_id"] for edit in registry.edits()] == [0, 1, 3]

    def test_one_among_circuits_is_recorded_in_its_turn(
        self, registry: Registry, folder: Path
    ) -> None:
        cases(folder, 2)
        written(folder, graph(), "b_graph.json")
        written(folder, case(7), "c_case.json")
        reports = list(import_files(registry, [folder], {**SAID, "model": "toy", "task": "ioi"}))
        assert [report.path for report in reports] == sorted(folder.iterdir())
        assert {report.outcome for report in reports} == {FileOutcome.STORED}
        assert (len(registry.edits()), len(registry.ledger.circuits())) == (3, 1)

    def test_a_dry_run_says_so_of_each_and_stores_none(
        self, registry: Registry, folder: Path
    ) -> None:
        cases(folder, 3)
        reports = list(import_files(registry, [folder], SAID, dry_run=True))
        assert set(became(reports).values()) == {FileOutcome.READABLE}
        assert registry.edits() == []

    def test_the_same_edit_in_two_files_is_new_in_the_first(
        self, registry: Registry, folder: Path
    ) -> None:
        for name in ("a.json", "b.json"):
            written(folder, case(0), name)
        reports = list(import_files(registry, [folder], SAID))
        assert [report.outcome for report in reports] == [FileOutcome.STORED, FileOutcome.KNOWN]
        (edit,) = registry.edits()
        assert len(registry.ledger.edit_files(edit.id)) == 1  # of one content

    def test_all_of_them_are_in_the_graph(self, registry: Registry, folder: Path) -> None:
        cases(folder, 5)
        list(import_files(registry, [folder], SAID))
        rows = registry.cypher(
            "MATCH (e:Edit)-[:MEASURED]->(o:Outcome) RETURN e.id AS edit, count(o) AS n"
        ).to_dicts()
        assert {row["edit"]: row["n"] for row in rows} == {edit.id: 1 for edit in registry.edits()}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_name_that_is_not_utf_8_is_refused_as_the_files(
    registry: Registry, folder: Path, dry_run: bool
) -> None:
    cases(folder, 1)
    table = folder / os.fsdecode(b"a\xff.csv")
    table.write_text("source,target,effect\nm0,m1,1\n")
    edit = folder / os.fsdecode(b"b\xff.json")
    (folder / "case_0.json").rename(edit)
    reports = list(import_files(registry, [folder], {**SAID, "task": "ioi"}, dry_run=dry_run))
    assert {report.path: report.notes for report in reports} == {
        table: (r"the file's name is not UTF-8 text: b'a\xff.csv'; rename the file",),
        edit: (r"the file's name is not UTF-8 text: b'b\xff.json'; rename the file",),
    }
    assert {report.outcome for report in reports} == {FileOutcome.REFUSED}
    assert (registry.circuits(), list(registry.edits())) == ([], [])


class TestContradictions:
    """Files of two learning rates hold the same requests and do not say the rate."""

    @pytest.fixture
    def rates(self, folder: Path) -> tuple[Path, Path]:
        paths = []
        for name, figure in (("lr_1", 1.0), ("lr_5", 0.25)):
            (folder / name).mkdir()
            post = {"rewrite_acc": [figure]}
            records = [case(0, post=post), case(1, post=post), case(2)]
            paths.append(written(folder / name, records))
        return paths[0], paths[1]

    def test_other_figures_of_one_request_are_another_edit(
        self, registry: Registry, rates: tuple[Path, Path]
    ) -> None:
        reports = list(import_files(registry, [rates[0].parents[1]], SAID))
        assert [report.outcome for report in reports] == [FileOutcome.STORED] * 2
        assert "2 of 3 edits have other results" in reports[1].notes[-1]
        found = [
            (edit.request["case_id"], [one.after for one in registry.outcomes(edit.id)])
            for edit in registry.edits()
        ]
        assert sorted(found) == [(0, [0.25]), (0, [1.0]), (1, [0.25]), (1, [1.0]), (2, [1.0])]
        apart = [edit for edit in registry.edits() if edit.note]
        for edit in apart:
            (file,) = registry.ledger.edit_files(edit.id)
            assert file.sha256[:12] in (edit.note or "")
            assert registry.artifact(file.sha256) == rates[1].read_bytes()

    def test_whichever_comes_first_each_file_gives_the_same_edits_again(
        self, registry: Registry, rates: tuple[Path, Path], tmp_path: Path
    ) -> None:
        for path in reversed(rates):
            list(import_files(registry, [path], SAID))
        known = registry.edits()
        assert len(known) == 5
        copy = tmp_path / "elsewhere.json"
        copy.write_bytes(rates[0].read_bytes())
        for path in (*rates, copy, *rates):
            (report,) = import_files(registry, [path], SAID)
            assert report.outcome is FileOutcome.KNOWN
        assert registry.edits() == known

    def test_edits_that_nothing_contradicts_keep_the_id_of_their_content(
        self, registry: Registry, rates: tuple[Path, Path], tmp_path: Path
    ) -> None:
        with Registry.init(tmp_path / "other") as other:
            list(import_files(other, [rates[0]], SAID))
            alone = {edit.id for edit in other.edits()}
        list(import_files(registry, [*rates], SAID))
        assert alone < {edit.id for edit in registry.edits()}

    def test_another_protocol_follows_its_file(
        self, registry: Registry, rates: tuple[Path, Path]
    ) -> None:
        list(import_files(registry, [*rates], SAID))
        n_edits = len(registry.edits())
        (report,) = import_files(registry, [rates[1]], {**SAID, "protocol": "teacher-forced"})
        assert (report.outcome, len(registry.edits())) == (FileOutcome.STORED, n_edits)
        figures = [
            {(one.protocol, one.after) for one in registry.outcomes(edit.id)}
            for edit in registry.edits()
            if edit.request["case_id"] == 0
        ]
        assert {("unknown", 1.0)} in figures
        assert {("unknown", 0.25), ("teacher-forced", 0.25)} in figures

    def test_a_run_that_only_took_longer_is_the_same_edit(
        self, registry: Registry, folder: Path
    ) -> None:
        for name, seconds in (("a.json", 1.0), ("b.json", 2.0)):
            written(folder, case(0, time=seconds), name)
        list(import_files(registry, [folder], SAID))
        assert len(registry.edits()) == 1

    def test_files_recorded_one_by_one_are_told_apart_alike(
        self, registry: Registry, folder: Path, tmp_path: Path
    ) -> None:
        for number, figure in enumerate((1.0, 0.5, 0.25, 0.5)):
            written(folder, case(0, post={"rewrite_acc": [figure]}), f"{number}.json")
        list(import_files(registry, [folder], SAID))
        with Registry.init(tmp_path / "other") as other:
            for path in sorted(folder.iterdir()):
                list(import_files(other, [path], SAID))
            assert {edit.id for edit in other.edits()} == {edit.id for edit in registry.edits()}
        assert len(registry.edits()) == 3


@pytest.mark.parametrize("n", [1, 3])
def test_other_figures_that_are_recorded_meanwhile_make_other_edits(
    registry: Registry, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    cases(folder, n)
    others = tmp_path / "others"
    others.mkdir()
    for number in range(n):
        written(others, case(number, post={"rewrite_acc": 0.125}), f"case_{number}.json")
    told_apart = recording.Recorder._told_apart
    seen: list[int] = []

    def with_another_importer(self: Any, *files: Any) -> Any:
        found = told_apart(self, *files)
        if not seen:
            seen.append(len(found))
            with Registry.open(registry.settings.home) as another:
                list(import_files(another, [others], SAID))
        return found

    monkeypatch.setattr(recording.Recorder, "_told_apart", with_another_importer)
    assert set(became(list(import_files(registry, [folder], SAID))).values()) == {
        FileOutcome.STORED
    }
    assert seen == [n]
    assert len(registry.edits()) == 2 * n
    for edit in registry.edits():
        assert len(registry.outcomes(edit.id)) == 1


@pytest.mark.parametrize(
    "error",
    [
        StorageError("cannot write 12ab in artifacts: the disk is full; free some space"),
        LedgerError("ledger.db: the disk is full; free some space"),
    ],
)
def test_nothing_more_is_tried_once_a_disk_is_full(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tried = 0

    def record(*_: Any) -> Any:
        nonlocal tried
        tried += 1
        raise error

    cases(folder, 5)
    monkeypatch.setattr(registry, "record_at", record)
    with pytest.raises(type(error), match="the disk is full"):
        list(import_files(registry, [folder], SAID))
    assert tried == 1
