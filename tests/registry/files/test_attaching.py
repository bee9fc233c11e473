"""Files attached to records: kept, given back, backed up, mended, never held in memory whole."""

from __future__ import annotations

import io
import json
import shutil
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.errors import BadInput, LedgerError, NotFound, StorageError
from registry.files.attachments import AttachmentOwner
from registry.ledger.base import Batch
from tests import examples
from tests.conformance.ledger_examples import PROMPTS, RUN

CIRCUIT = examples.circuit(1)
EDIT = examples.edit(CIRCUIT, "m3")[0]
LARGE = 48 << 20


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.init(tmp_path / "registry") as registry:
        prompts = PROMPTS.model_copy(update={"artifact": None})
        registry.record(examples.GPT2, *examples.TASKS, CIRCUIT, EDIT, RUN, prompts)
        yield registry


@pytest.fixture
def plot(tmp_path: Path) -> Path:
    path = tmp_path / "größe (1).svg"
    path.write_bytes(b"<svg/>\r\n\xff")
    return path


def test_a_file_is_attached_to_each_kind_of_record_and_given_back(
    registry: Registry, plot: Path, tmp_path: Path
) -> None:
    owners = {
        CIRCUIT.id[:10]: AttachmentOwner.CIRCUIT, RUN.id: AttachmentOwner.RUN,
        EDIT.id: AttachmentOwner.EDIT, PROMPTS.id[:40].upper(): AttachmentOwner.PROMPT_SET,
    }  # fmt: skip
    for owner, kind in owners.items():
        made = registry.attach(owner, plot, says="Effects, 層")
        assert made.attachment.owner_kind is kind
        (found,) = registry.attachments(owner)
        assert found == made
        assert (found.name, found.media_type) == (plot.name, "image/svg+xml")
        assert (found.size_bytes, found.says) == (9, "Effects, 層")
        with found.open() as file:
            assert file.read() == plot.read_bytes()
        path = found.save(tmp_path / "new" / kind.value)
        assert path == tmp_path / "new" / kind.value / plot.name
        assert path.read_bytes() == plot.read_bytes()
        assert [one.name for one in path.parent.iterdir()] == [plot.name]


def test_an_open_file_is_attached_from_where_it_stands(registry: Registry, plot: Path) -> None:
    with plot.open("rb") as file:
        assert registry.attach(CIRCUIT.id, file).name == plot.name
    stream = io.BytesIO(b"12345")
    stream.seek(2)
    made = registry.attach(CIRCUIT.id, stream, name="rest.bin", media_type="Text/Plain")
    assert (made.size_bytes, made.media_type) == (3, "text/plain")
    with made.open() as given:
        assert given.read() == b"345"
    assert [one.name for one in registry.attachments(CIRCUIT.id)] == [plot.name, "rest.bin"]


def test_attaching_again_keeps_what_was_said_first(registry: Registry, plot: Path) -> None:
    first = registry.attach(CIRCUIT.id, plot, says="first")
    again = registry.attach(CIRCUIT.id, plot, says="second", media_type="a/b")
    assert again == first
    assert registry.attachments(CIRCUIT.id) == (first,)
    plot.write_bytes(b"other")
    with pytest.raises(BadInput, match=r"another file 'größe .1..svg' attached; give this"):
        registry.attach(CIRCUIT.id, plot)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "../x"}, "contains '/'"), ({"name": ".x"}, "dot"), ({"name": "a\x07"}, "print"),
        ({"name": "x" * 201}, "an attachment's name of 201 bytes is too long; 200 are allowed"),
        ({"name": ""}, "empty"),
        ({"says": "two\nlines"}, "one line"), ({"says": "x" * 1_001}, "1,000 are allowed"),
        ({"media_type": "svg"}, "not a media type"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_of_a_file_is_refused_before_it_is_stored(
    registry: Registry, plot: Path, given: dict[str, Any], said: str
) -> None:
    kept = set(registry._artifacts.addresses())
    with pytest.raises(BadInput, match=said):
        registry.attach(CIRCUIT.id, plot, **given)
    assert set(registry._artifacts.addresses()) == kept
    assert registry.attachments(CIRCUIT.id) == ()


def test_what_is_no_file_is_refused(registry: Registry, tmp_path: Path) -> None:
    for source, said in [(tmp_path, "not a regular file"), (tmp_path / "none", "does not exist")]:
        with pytest.raises(BadInput, match=said):
            registry.attach(CIRCUIT.id, source)
    with pytest.raises(BadInput, match="needs one: name="):
        registry.attach(CIRCUIT.id, io.BytesIO(b"x"))
    text: Any = io.StringIO("x")
    with pytest.raises(BadInput, match="open it for reading bytes"):
        registry.attach(CIRCUIT.id, text, name="x")
    data: Any = b"x"
    with pytest.raises(BadInput, match=r"not an object of type bytes; wrap bytes in io\.BytesIO"):
        registry.attach(CIRCUIT.id, data, name="x")
    with pytest.raises(NotFound):
        registry.attachments("ffff")


class Failing(io.RawIOBase):
    """A file that gives two bytes, and then what it was made with."""

    def __init__(self, then: OSError | ValueError | None) -> None:
        self._given = False
        self._then = then

    def read(self, _size: int = -1, /) -> bytes | None:
        if not self._given:
            self._given = True
            return b"ab"
        if self._then is not None:
            raise self._then
        return None


@pytest.mark.parametrize(
    ("then", "kind", "said"),
    [
        (None, BadInput, r"its read\(\) returned None"),
        (OSError(5, "Input/output error"), StorageError, "cannot be read: Input/output error"),
        (ValueError("I/O operation on closed file"), BadInput, "cannot be read: .*closed file"),
    ],
)
def test_a_file_that_ends_before_its_end_is_not_attached(
    registry: Registry, then: OSError | ValueError | None, kind: type[Exception], said: str
) -> None:
    kept = set(registry._artifacts.addresses())
    source: Any = Failing(then)
    with pytest.raises(kind, match=said):
        registry.attach(CIRCUIT.id, source, name="x")
    assert set(registry._artifacts.addresses()) == kept
    assert registry.attachments(CIRCUIT.id) == ()


def test_two_threads_may_save_one_file_into_one_folder(
    registry: Registry, plot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = registry.attach(CIRCUIT.id, plot)
    both_write = threading.Barrier(2, timeout=30)
    copy = shutil.copyfileobj

    def copy_together(*arguments: Any) -> None:
        both_write.wait()
        copy(*arguments)
        both_write.wait()

    monkeypatch.setattr("registry.files.attachments.shutil.copyfileobj", copy_together)
    with ThreadPoolExecutor(2) as threads:
        saves = [threads.submit(made.save, tmp_path / "out") for _ in range(2)]
        assert [save.result().read_bytes() for save in saves] == [plot.read_bytes()] * 2
    assert [one.name for one in (tmp_path / "out").iterdir()] == [plot.name]


def test_saving_overwrites_only_where_asked(registry: Registry, plot: Path, tmp_path: Path) -> None:
    made = registry.attach(CIRCUIT.id, plot, name="x")
    there = tmp_path / "x"
    there.write_bytes(b"mine")
    with pytest.raises(BadInput, match="exists already"):
        made.save(tmp_path)
    assert there.read_bytes() == b"mine"
    assert made.save(tmp_path, overwrite=True).read_bytes() == plot.read_bytes()
    there.unlink()
    outside = tmp_path / "outside"
    there.symlink_to(outside)
    with pytest.raises(BadInput, match="exists already"):
        made.save(tmp_path)
    made.save(tmp_path, overwrite=True)
    assert not outside.exists()
    there.unlink()
    there.mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        made.save(tmp_path, overwrite=True)
    with pytest.raises(StorageError, match="cannot write"):
        made.save(plot)


def test_a_large_file_is_never_in_memory_whole(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(LARGE)
    tracemalloc.start()
    try:
        made = registry.attach(CIRCUIT.id, path)
        with path.open("rb") as file:
            registry.attach(RUN.id, file)
        made.save(tmp_path / "out")
        registry.backup(tmp_path / "all.zip")
        with Registry.restore(tmp_path / "all.zip", tmp_path / "restored") as restored:
            assert restored.attachments(RUN.id)[0].size_bytes == LARGE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LARGE / 2
    assert (tmp_path / "out" / "large.bin").stat().st_size == LARGE


def test_gc_keeps_what_is_attached(registry: Registry, plot: Path) -> None:
    kept = registry.attach(RUN.id, plot)
    loose = registry.store_artifact(b"nobody's")
    assert registry.gc(grace_seconds=0).addresses == (loose,)
    registry.gc(apply=True, grace_seconds=0)
    with kept.open() as file:
        assert file.read() == plot.read_bytes()


def test_a_backup_holds_what_is_attached(registry: Registry, plot: Path, tmp_path: Path) -> None:
    for owner in (CIRCUIT.id, RUN.id, EDIT.id, PROMPTS.id):
        registry.attach(owner, plot, says=owner[:4])
    registry.backup(tmp_path / "all.zip")
    with Registry.restore(tmp_path / "all.zip", tmp_path / "restored") as restored:
        for owner in (CIRCUIT.id, RUN.id, EDIT.id, PROMPTS.id):
            (found,) = restored.attachments(owner)
            assert found.attachment == registry.attachments(owner)[0].attachment
            with found.open() as file:
                assert file.read() == plot.read_bytes()
        assert restored.gc(grace_seconds=0).addresses == ()


@pytest.mark.parametrize("change", [{"name": "../x"}, {"name": ".x"}, {"owner": "0" * 64}])
def test_a_backup_with_a_hostile_attachment_makes_nothing(
    registry: Registry, plot: Path, tmp_path: Path, change: dict[str, str]
) -> None:
    registry.attach(CIRCUIT.id, plot)
    registry.backup(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    rows = [json.loads(line) for line in members["ledger.jsonl"].splitlines()]
    changed = [[table, row | (change if table == "attachments" else {})] for table, row in rows]
    members["ledger.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in changed)
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(LedgerError, match="the backup has"):
        Registry.restore(tmp_path / "hostile.zip", tmp_path / "restored")
    assert not (tmp_path / "restored" / "ledger.db").exists()


def test_what_is_missing_is_named_and_mended(
    registry: Registry, plot: Path, tmp_path: Path
) -> None:
    made = registry.attach(CIRCUIT.id, plot)
    registry.backup(tmp_path / "all.zip")
    registry._artifacts.remove(made.sha256)
    (damage,) = registry.damage()
    assert damage.use == f"the attachment {plot.name!r} of circuit {CIRCUIT.id[:12]}"
    registry.mend(plot)
    assert registry.damage() == []


def test_attachments_are_recorded_with_other_records(registry: Registry, plot: Path) -> None:
    other = examples.circuit(2)
    address = registry.store_file(plot)
    made = registry.attach(CIRCUIT.id, plot).attachment
    new = made.model_copy(update={"owner": other.id, "sha256": address})
    recorded = registry.record(other, new)
    assert recorded.attachments == (new,)
    assert registry.attachments(other.id)[0].attachment == new
    assert registry.record(Batch(attachments=[new])).attachments == ()
    with pytest.raises(NotFound, match=r"no artifact '0000.*store the content of 'lost' first"):
        registry.record(new.model_copy(update={"name": "lost", "sha256": "0" * 64}))
