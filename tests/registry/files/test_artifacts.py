"""Artifacts in folders and elsewhere: whole or absent, and checked when they are read."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import ArtifactCorrupt, ArtifactNotFound, BadInput, StorageError
from registry.files.artifacts import ArtifactStore
from registry.files.durability import CAN_SYNC_FILE_SYSTEM
from tests.few import n_examples

_LARGE = 3_000_000
ABSENT = "0" * 64


def address_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["path", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store in a folder that is not there yet, or in memory."""
    urls = {
        "path": str(tmp_path / "a folder" / "artifacts"),
        "file": f"file://{tmp_path}/artifacts",
        "memory": f"memory://{uuid.uuid4().hex}/artifacts",
    }
    return ArtifactStore(urls[request.param])


def _put(store: ArtifactStore, paths: list[Path]) -> list[str]:
    files = store.putting_files()
    try:
        for path in paths:
            files.put(path)
        return files.addresses()
    finally:
        files.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def local(folder: Path) -> ArtifactStore:
    return ArtifactStore(str(folder))


class TestAnyStore:
    @settings(
        max_examples=n_examples(20),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.binary(max_size=2000))
    def test_what_is_put_comes_back(self, store: ArtifactStore, data: bytes) -> None:
        address = store.put(data)
        assert address == address_of(data)
        assert store.get(address) == data
        assert store.size_bytes(address) == len(data)
        assert store.exists(address)
        with store.open(address) as file:
            assert file.read() == data

    def test_files_are_stored_as_their_content_is(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        data = os.urandom(_LARGE)
        (tmp_path / "scores.safetensors").write_bytes(data)
        address = store.put_file(tmp_path / "scores.safetensors")
        assert address == store.put(data)
        assert store.get(address) == data

    def test_many_files_are_stored_as_each_by_itself(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        contents = [str(number % 50).encode() for number in range(60)]
        paths = [tmp_path / f"{number}.json" for number in range(60)]
        for path, data in zip(paths, contents, strict=True):
            path.write_bytes(data)
        assert _put(store, paths) == [address_of(data) for data in contents]
        assert list(store.addresses()) == sorted({address_of(data) for data in contents})
        assert {store.get(address_of(data)) for data in contents} == set(contents)
        assert _put(store, []) == []

    def test_files_bear_their_names_only_once_all_are_on_the_disk(
        self, local: ArtifactStore, folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "a.json").write_bytes(b"a")
        (tmp_path / "large.json").write_bytes(os.urandom(_LARGE))
        given_up = local.putting_files()
        for path in (tmp_path / "a.json", tmp_path / "large.json", tmp_path / "absent.json"):
            given_up.put(path)
        with pytest.raises(StorageError, match=r"cannot read .*absent\.json"):
            given_up.addresses()
        if CAN_SYNC_FILE_SYSTEM:
            assert list(local.addresses()) == []
        given_up.close()
        assert not any((folder / ".unfinished").iterdir())
        assert len(_put(local, [tmp_path / "a.json", tmp_path / "large.json"])) == 2
        assert len(list(local.addresses())) == 2
        assert not any((folder / ".unfinished").iterdir())

    def test_addresses_come_in_order_and_once(self, store: ArtifactStore) -> None:
        assert list(store.addresses()) == []
        put = [store.put(bytes([number % 20])) for number in range(40)]
        assert list(store.addresses()) == sorted(set(put))

    def test_what_is_not_there_is_named(self, store: ArtifactStore) -> None:
        store.put(b"something else")
        assert not store.exists(ABSENT)
        with pytest.raises(ArtifactNotFound, match=f"no artifact {ABSENT[:12]} in "):
            store.get(ABSENT)
        with pytest.raises(ArtifactNotFound, match="no artifact"), store.open(ABSENT):
            pass
        with pytest.raises(ArtifactNotFound, match="no artifact"):
            store.size_bytes(ABSENT)
        with pytest.raises(ArtifactNotFound, match="no artifact"):
            store.age_seconds(ABSENT)

    def test_removing_is_harmless_to_repeat(self, store: ArtifactStore) -> None:
        address = store.put(b"data")
        kept = store.put(b"other")
        assert store.remove(address)
        assert not store.remove(address)
        assert list(store.addresses()) == [kept]

    def test_a_young_artifact_survives_removal_with_grace(self, store: ArtifactStore) -> None:
        address = store.put(b"data")
        assert 0 <= store.age_seconds(address) < 60
        assert not store.remove(address, grace_seconds=3600)
        assert store.get(address) == b"data"

    @pytest.mark.parametrize("address", ["", "abc", "../../etc/passwd", "A" * 64, "0" * 63 + "/"])
    def test_what_is_no_address_is_refused(self, store: ArtifactStore, address: str) -> None:
        attempts: list[Callable[[str], object]] = [store.get, store.exists, store.size_bytes]
        for attempt in (*attempts, store.remove):
            with pytest.raises(BadInput, match="64 hexadecimal digits"):
                attempt(address)

    def test_nothing_unfinished_is_left_behind(self, store: ArtifactStore) -> None:
        store.put(b"data")
        assert store.remove_leftovers(grace_seconds=0) == ()


class TestLocalStore:
    def test_files_lie_in_folders_of_two_digits(self, local: ArtifactStore, folder: Path) -> None:
        address = local.put(b"data")
        assert (folder / address[:2] / address[2:]).read_bytes() == b"data"

    def test_what_is_there_is_not_written_again_but_counts_as_young(
        self, local: ArtifactStore, folder: Path
    ) -> None:
        address = local.put(b"data")
        path = folder / address[:2] / address[2:]
        os.utime(path, (0, 0))
        inode = path.stat().st_ino
        assert local.age_seconds(address) > 1e9
        assert local.put(b"data") == address
        assert path.stat().st_ino == inode
        assert local.age_seconds(address) < 60

    @pytest.mark.parametrize("damaged", [b"", b"datA", b"data and more"])
    def test_a_changed_file_is_never_read_as_the_artifact(
        self, local: ArtifactStore, folder: Path, damaged: bytes
    ) -> None:
        address = local.put(b"data")
        (folder / address[:2] / address[2:]).write_bytes(damaged)
        with pytest.raises(ArtifactCorrupt, match=f"{address[:12]} .*has been changed"):
            local.get(address)
        with pytest.raises(ArtifactCorrupt, match="has been changed"), local.open(address):
            pytest.fail("a changed file was handed out")

    def test_a_truncated_file_is_put_right_by_putting_it_again(
        self, local: ArtifactStore, folder: Path
    ) -> None:
        address = local.put(b"data")
        (folder / address[:2] / address[2:]).write_bytes(b"da")
        assert local.put(b"data") == address
        assert local.get(address) == b"data"

    def test_other_files_in_the_folder_are_no_artifacts(
        self, local: ArtifactStore, folder: Path
    ) -> None:
        address = local.put(b"data")
        (folder / "README").write_text("hands off")
        (folder / address[:2] / "notes.txt").write_text("hands off")
        assert list(local.addresses()) == [address]

    def test_a_file_in_the_place_of_the_folder_is_one_clear_error(self, folder: Path) -> None:
        folder.write_text("I am a file")
        with pytest.raises(StorageError, match=f"cannot write .* in {folder}: ") as caught:
            ArtifactStore(str(folder)).put(b"data")
        assert "\n" not in str(caught.value)
        assert folder.read_text() == "I am a file"

    def test_a_source_that_cannot_be_read_is_named(
        self, local: ArtifactStore, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageError, match=r"cannot read .*absent\.pt: No such file"):
            local.put_file(tmp_path / "absent.pt")
        with pytest.raises(StorageError, match=r"cannot read .*absent\.pt: No such file"):
            _put(local, [tmp_path / "absent.pt"])

    def test_processes_that_put_the_same_at_once_agree(self, folder: Path) -> None:
        code = (
            "import sys; from registry.files.artifacts import ArtifactStore\n"
            "store = ArtifactStore(sys.argv[1])\n"
            "for n in range(40): store.put(bytes([n]) * 100_000)\n"
        )
        command = [sys.executable, "-c", code, str(folder)]
        writers = [subprocess.Popen(command) for _ in range(3)]
        assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
        store = ArtifactStore(str(folder))
        assert len(list(store.addresses())) == 40
        for address in store.addresses():
            store.get(address)
        assert store.remove_leftovers(grace_seconds=0) == ()


class TestFailures:
    """Real ones: a full file system, a limit of the system, a killed process."""

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of one megabyte."""
        place = tmp_path / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode != 0:
            pytest.skip(f"only root may make a small disk: {done.stderr.strip()}")
        yield place
        subprocess.run(["umount", str(place)], check=True)

    def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
        self, small_disk: Path, tmp_path: Path
    ) -> None:
        store = ArtifactStore(str(small_disk / "artifacts"))
        kept = store.put(b"small")
        data = os.urandom(_LARGE)
        (tmp_path / "large").write_bytes(data)
        attempts: list[Callable[[], str]] = [
            lambda: store.put(data),
            lambda: store.put_file(tmp_path / "large"),
        ]
        for attempt in attempts:
            with pytest.raises(StorageError, match=r"the disk is full; free some space") as caught:
                attempt()
            assert "\n" not in str(caught.value)
        self.check_nothing_of(store, address_of(data))
        assert store.get(kept) == b"small"
        store.put(b"there is room again")

    def test_a_limit_of_the_system_is_one_clear_line_and_leaves_nothing(
        self, folder: Path, local: ArtifactStore
    ) -> None:
        code = (
            "import resource, sys; from registry.files.artifacts import ArtifactStore\n"
            "from registry.errors import StorageError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            "try: ArtifactStore(sys.argv[1]).put(b'x' * 3_000_000)\n"
            "except StorageError as error: print(error)\n"
        )
        command = [sys.executable, "-c", code, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        (line,) = done.stdout.splitlines()
        address = address_of(b"x" * _LARGE)
        assert line.startswith(f"cannot write {address[:12]} in {folder}: the file would be larger")
        self.check_nothing_of(local, address)

    def test_a_killed_process_leaves_nothing_but_what_gc_removes(
        self, folder: Path, local: ArtifactStore
    ) -> None:
        code = (
            "import os, sys; from registry.files.artifacts import ArtifactStore\n"
            "store = ArtifactStore(sys.argv[1])\n"
            "for n in range(100_000):\n"
            "    print(store.put(n.to_bytes(4) * 500_000), flush=True)\n"
        )
        acknowledged: set[str] = set()
        for milliseconds in (1, 5, 9, 14):
            command = [sys.executable, "-c", code, str(folder)]
            writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert writer.stdout is not None
            acknowledged.add(writer.stdout.readline().strip())
            time.sleep(milliseconds / 1000)
            writer.kill()
            printed, _ = writer.communicate()
            acknowledged.update(line for line in printed.split("\n")[:-1] if line)
        stored = set(local.addresses())
        assert acknowledged <= stored
        for address in stored:
            local.get(address)
        assert local.remove_leftovers(grace_seconds=3600) == ()
        unfinished = sorted(path.name for path in (folder / ".unfinished").iterdir())
        assert local.remove_leftovers(grace_seconds=0) == tuple(unfinished)
        assert list((folder / ".unfinished").iterdir()) == []
        assert set(local.addresses()) == stored

    def check_nothing_of(self, store: ArtifactStore, address: str) -> None:
        assert not store.exists(address)
        assert address not in set(store.addresses())
        assert store.remove_leftovers(grace_seconds=0) == ()


class TestWhereArtifactsAre:
    def test_an_unknown_protocol_is_refused(self) -> None:
        with pytest.raises(BadInput, match=r"cannot be stored at nowhere://x: .*nowhere"):
            ArtifactStore("nowhere://x")

    def test_secrets_in_the_url_are_never_shown(self) -> None:
        secret = f"memory://user:s3cret@{uuid.uuid4().hex}/artifacts?key=s3cret"
        store = ArtifactStore(secret)
        assert "s3cret" not in repr(store)
        with pytest.raises(ArtifactNotFound) as caught:
            store.get(ABSENT)
        assert "s3cret" not in str(caught.value)

    def test_secrets_in_a_chain_of_urls_are_never_shown(self, tmp_path: Path) -> None:
        chain = f"simplecache::memory://user:s3cret@{uuid.uuid4().hex}/artifacts?key=s3cret"
        assert "s3cret" not in repr(ArtifactStore(chain))
        archive = f"zip://inner::ftp://user:s3cret@{uuid.uuid4().hex}.invalid/all.zip"
        with pytest.raises((BadInput, StorageError)) as caught:
            ArtifactStore(archive).get(ABSENT)
        assert "s3cret" not in str(caught.value)
