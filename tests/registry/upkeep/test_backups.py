"""Backups that somebody changed, and mending from files that are not what they seem."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.errors import ArtifactCorrupt, BadInput, LedgerError, StorageError
from registry.ledger.base import Batch
from registry.records import SourceFile
from tests import examples

Members = dict[str, bytes]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.init(tmp_path / "first") as registry:
        registry.record(examples.GPT2, *examples.TASKS, *map(examples.circuit, range(2)))
        yield registry


@pytest.fixture
def backup(registry: Registry, tmp_path: Path) -> Path:
    path = tmp_path / "all.zip"
    registry.backup(path)
    return path


def rewritten(backup: Path, change: Callable[[Members], object]) -> Path:
    with zipfile.ZipFile(backup) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    path = backup.with_name("changed.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def manifest(**changed: Any) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        said = {**json.loads(members["manifest.json"]), **changed}
        kept = {name: value for name, value in said.items() if value is not ...}
        members["manifest.json"] = json.dumps(kept).encode()

    return change


def content(name: str, data: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: data})


def row(data: bytes) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members["ledger.jsonl"] += data + b"\n"

    return change


def without(table: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        lines = members["ledger.jsonl"].splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)[0] != table]
        members["ledger.jsonl"] = b"".join(kept)

    return change


def both(*changes: Callable[[Members], object]) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        for one in changes:
            one(members)

    return change


DEEP = b"[" * 100_000 + b"]" * 100_000


class TestChangedBackups:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (manifest(registry=...), "is damaged: .*registry"),
            (manifest(registry=5), "is damaged: .*registry"),
            (manifest(left_out=5), "is damaged: .*left_out"),
            (manifest(artifacts="2"), "is damaged: .*artifacts"),
            (manifest(artifacts=3), "is incomplete: it holds 2 of the 3"),
            (manifest(format="other/1"), "of another version"),
            (manifest(registry="0" * 12), "not of the registry that its manifest.json names"),
            (content("manifest.json", b"[]"), "is damaged"),
            (content("manifest.json", b"\xff"), "is damaged"),
            (content("manifest.json", DEEP), "is damaged"),
            (content("manifest.json", b"9" * 5_000), "is damaged"),
            (lambda members: members.pop("manifest.json"), "not a backup of a registry"),
            (lambda members: members.pop("ledger.jsonl"), "not a backup of a registry"),
            (content("ledger.jsonl", b""), "is incomplete"),
            (row(b"{"), "line .* is not a row"),
            (row(b"5"), "line .* is not a row"),
            (row(b'["tasks"]'), "line .* is not a row"),
            (row(b'["tasks", 5]'), "line .* is not a row"),
            (row(b'["tasks", {}, 1]'), "line .* is not a row"),
            (row(b'[["tasks"], {}]'), "line .* is not a row"),
            (row(b"[\xff]"), "line .* is not a row"),
            (row(DEEP), "line .* is not a row"),
            (row(b'["tasks", ' + b"9" * 5_000 + b"]"), "line .* is not a row"),
            (both(row(b'["passwords", {}]'), manifest(rows=9)), "that this program does not know"),
            (row(b'["tasks", {}]'), "is incomplete: it holds 9 of the 8 rows"),
            (without("circuits"), "is incomplete: it holds 6 of the 8 rows"),
            (both(without("models"), manifest(rows=7)), "(?i)foreign key"),
            (content("artifacts/" + "a" * 64, b"x"), "is incomplete: it holds 3 of the 2"),
        ],
    )
    def test_one_is_refused_in_a_sentence_and_leaves_no_record(
        self, backup: Path, tmp_path: Path, change: Callable[[Members], object], why: str
    ) -> None:
        with pytest.raises((BadInput, LedgerError), match=why):
            Registry.restore(rewritten(backup, change), tmp_path / "new")
        made = {path.name for path in (tmp_path / "new").glob("*")}
        assert not {"ledger.sqlite", "artifacts", "graph.kgl"} & made
        with Registry.restore(backup, tmp_path / "new") as restored:
            assert len(restored.circuits()) == 2

    def test_an_artifact_that_records_name_is_missed(self, backup: Path, tmp_path: Path) -> None:
        def change(members: Members) -> None:
            members.pop(f"artifacts/{examples.circuit(1).id}")
            manifest(artifacts=1)(members)

        with pytest.raises(BadInput, match="its records name 1 artifact it lacks"):
            Registry.restore(rewritten(backup, change), tmp_path / "new")

    def test_a_restore_that_was_broken_off_and_synced_is_finished_by_the_next(
        self, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("registry.upkeep.backup.Backup.load_artifacts", killed)
            with pytest.raises(KeyboardInterrupt):
                Registry.restore(backup, tmp_path / "new")
        with Registry.open(tmp_path / "new") as unfinished:
            assert unfinished.cypher("MATCH (c:Circuit) RETURN count(c) AS n").values == ((0,),)
        with Registry.restore(backup, tmp_path / "new") as restored:
            assert restored.cypher("MATCH (c:Circuit) RETURN count(c) AS n").values == ((2,),)

    def test_an_artifact_of_other_content_is_not_stored(self, backup: Path, tmp_path: Path) -> None:
        name = f"artifacts/{examples.circuit(1).id}"
        with pytest.raises(BadInput, match="does not have the content it names"):
            Registry.restore(rewritten(backup, content(name, b"x")), tmp_path / "new")
        files = (tmp_path / "new" / "artifacts").rglob("*")
        assert examples.circuit(1).id[2:] not in {path.name for path in files}

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BadInput, match="not a regular file"):
            Registry.restore(tmp_path / "pipe", tmp_path / "new")
        assert not (tmp_path / "new").exists()


class TestMending:
    def test_artifacts_that_are_all_lost_come_from_the_backup_restored_once_more(
        self, backup: Path, tmp_path: Path
    ) -> None:
        Registry.restore(backup, tmp_path / "new").close()
        shutil.rmtree(tmp_path / "new" / "artifacts")
        with Registry.restore(backup, tmp_path / "new") as restored:
            assert restored.damage() == []

    @pytest.mark.parametrize("folders_remain", [True, False])
    def test_artifacts_that_are_all_lost_are_mended(
        self, registry: Registry, backup: Path, tmp_path: Path, folders_remain: bool
    ) -> None:
        artifacts = tmp_path / "first" / "artifacts"
        for path in [path for path in artifacts.rglob("*") if path.is_file()]:
            path.unlink()
        if not folders_remain:
            shutil.rmtree(artifacts)
        registry.close()
        with Registry.open(tmp_path / "first") as lost:
            mended, left = lost.mend(backup)
            assert (len(mended), left) == (2, ())
            assert lost.damage() == []

    def test_an_original_is_damage_when_changed_and_not_stored_when_absent(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        data, never = b"an original", "f" * 64
        lost = registry.store_artifact(data)
        files = [
            SourceFile(name=name, sha256=sha256, format="table")
            for name, sha256 in (("here.csv", lost), ("elsewhere.csv", never))
        ]
        registry.record(Batch(imported=files))
        assert registry.damage() == []
        (absent,) = registry.damage(not_stored=True)
        assert (absent.address, absent.fault, absent.is_certain) == (never, "not stored", False)
        (tmp_path / "here.csv").write_bytes(data)
        path = tmp_path / "first" / "artifacts" / lost[:2] / lost[2:]
        path.write_bytes(b"bad")
        (changed,) = registry.damage()
        assert (changed.fault, changed.use) == ("damaged", "the original of here.csv")
        with pytest.raises(StorageError, match=r"the original of here\.csv"):
            registry.backup(tmp_path / "original.zip")
        path.unlink()
        report = registry.backup(tmp_path / "original.zip")
        assert [one.use for one in report.left_out] == [
            f"the original of {name}"
            for _, name in sorted([(lost, "here.csv"), (never, "elsewhere.csv")])
        ]
        with Registry.restore(tmp_path / "original.zip", tmp_path / "new") as restored:
            assert restored.damage() == []
            assert len(restored.damage(not_stored=True)) == 2
        mended, left = registry.mend(tmp_path / "here.csv")
        assert ([one.address for one in mended], left) == ([lost], (absent,))
        assert path.read_bytes() == data

    def test_a_link_to_nothing_is_not_replaced_by_a_backup(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        (tmp_path / "link.zip").symlink_to("nowhere")
        with pytest.raises(BadInput, match="exists already"):
            registry.backup(tmp_path / "link.zip")

    def test_a_source_that_cannot_be_read_does_not_stop_the_next(
        self, registry: Registry, backup: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        lost = examples.circuit(1).id
        registry.close()
        (tmp_path / "first" / "artifacts" / lost[:2] / lost[2:]).unlink()
        whole = backup.read_bytes()
        with zipfile.ZipFile(backup) as archive:
            start = archive.getinfo(f"artifacts/{lost}").header_offset + 120
        broken = tmp_path / "broken.zip"
        broken.write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
        liar = rewritten(backup, content(f"artifacts/{lost}", b"x"))
        cut = tmp_path / "cut.zip"
        cut.write_bytes(whole[:-30] + whole[-22:])
        with Registry.open(tmp_path / "first") as registry:
            with pytest.raises(BadInput, match=r"nowhere\.zip does not exist"):
                registry.mend(backup, tmp_path / "nowhere.zip")
            mended, left = registry.mend(broken, liar, cut, backup)
        assert ([one.address for one in mended], left) == ([lost], ())
        assert "broken.zip" in caplog.text

    def test_a_pipe_in_place_of_an_artifact_is_damage_and_is_mended(
        self, registry: Registry, backup: Path, tmp_path: Path
    ) -> None:
        lost = examples.circuit(1).id
        registry.close()
        path = tmp_path / "first" / "artifacts" / lost[:2] / lost[2:]
        path.unlink()
        os.mkfifo(path)
        with Registry.open(tmp_path / "first") as registry:
            assert [one.fault for one in registry.damage()] == ["damaged"]
            mended, left = registry.mend(backup)
            assert (len(mended), left) == (1, ())

    @pytest.mark.parametrize("is_folder", [True, False])
    def test_what_stands_in_an_artifact_s_way_is_damage_and_stops_no_other(
        self,
        registry: Registry,
        backup: Path,
        tmp_path: Path,
        is_folder: bool,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        first, second = sorted(one.id for one in registry.circuits())
        registry.close()
        home = tmp_path / "first"
        for lost in (first, second):
            (home / "artifacts" / lost[:2] / lost[2:]).unlink()
        if is_folder:
            (home / "artifacts" / first[:2] / first[2:] / "full").mkdir(parents=True)
        else:
            (home / "artifacts" / first[:2]).rmdir()
            (home / "artifacts" / first[:2]).write_text("in the way")
        with Registry.open(home) as registry:
            assert {one.address for one in registry.damage()} == {first, second}
            registry.backup(tmp_path / "some.zip", skip_damaged=True)
            mended, left = registry.mend(backup)
        assert [one.address for one in mended] == [second]
        assert [one.address for one in left] == [first]
        assert "move the file or folder away" in caplog.text

    def test_links_out_of_the_artifacts_are_not_followed(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        lost = examples.circuit(1).id
        path = tmp_path / "first" / "artifacts" / lost[:2] / lost[2:]
        path.rename(tmp_path / "outside")
        path.symlink_to(tmp_path / "outside")
        with pytest.raises(ArtifactCorrupt, match="link out of the artifacts"):
            registry.circuit(lost)
        path.unlink()
        path.parent.rmdir()
        path.parent.symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "outside").rename(tmp_path / "elsewhere" / path.name)
        with pytest.raises(ArtifactCorrupt, match="link out of the artifacts"):
            registry.circuit(lost)

    def test_a_pipe_or_a_folder_in_place_of_a_store_is_told(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        home = tmp_path / "first"
        registry.close()
        (home / "graph.kgl").unlink()
        os.mkfifo(home / "graph.kgl")
        with Registry.open(home) as registry:
            status = registry.status()
            assert "not changed, because it is not a regular file" in status.graph
            assert not status.sync_helps
        (home / "artifacts" / "registry.json").unlink()
        os.mkfifo(home / "artifacts" / "registry.json")
        with Registry.open(home) as registry, pytest.raises(StorageError, match="not a regular"):
            registry.gc()
        (home / "ledger.sqlite").rename(home / "other")
        os.mkfifo(home / "ledger.sqlite")
        with pytest.raises(LedgerError, match="not a regular file"):
            Registry.open(home)
