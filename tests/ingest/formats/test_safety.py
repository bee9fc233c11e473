"""What files can ask for, and do not get: memory, other files, code."""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import Limits, find_format, formats
from registry import Registry
from tests.few import each_once
from tests.ingest.formats.mutations import replaced
from tests.ingest.formats.seeds import SAID, Seed, seeds

FORMATS = sorted(formats())
PATHS = ["whole", "relative", "address"]
SECRET = "the content of another file"
Sown = dict[str, list[Seed]]


@pytest.fixture(scope="module")
def sown(tmp_path_factory: pytest.TempPathFactory) -> Sown:
    found: Sown = defaultdict(list)
    for seed in seeds(tmp_path_factory.mktemp("seeds")):
        found[seed.format].append(seed)
    return found


def imported(registry: Registry, path: Path, format: str, limits: Limits) -> FileReport:
    said = {"model": "some-model", "task": "some-task"} | SAID.get(format, {})
    (report,) = import_files(registry, [path], said, format=find_format(format), limits=limits)
    return report


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_more_bytes_than_allowed_is_refused(
    format: str, sown: Sown, registry: Registry, tmp_path: Path
) -> None:
    for number, seed in enumerate(sown[format]):
        path = seed.written(tmp_path / str(number))
        report = imported(registry, path, format, Limits(max_bytes=path.stat().st_size - 1))
        assert report.outcome is FileOutcome.REFUSED, seed
        assert "--max-bytes" in report.notes[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_more_edges_than_allowed_is_refused(
    format: str, sown: Sown, registry: Registry, tmp_path: Path
) -> None:
    for number, seed in enumerate(sown[format]):
        path = seed.written(tmp_path / str(number))
        whole = imported(registry, path, format, Limits())
        if whole.edges == 0:
            continue
        report = imported(registry, path, format, Limits(max_edges=whole.edges - 1))
        assert report.outcome is FileOutcome.REFUSED, seed
        assert "--max-edges" in report.notes[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_pickle_that_would_run_code_is_refused_and_does_not(
    format: str, sown: Sown, registry: Registry, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    for number, seed in enumerate(sown[format]):
        for content in _pickles(proof, tmp_path):
            path = seed.written(tmp_path / str(number), {seed.main: content})
            report = imported(registry, path, format, Limits())
            assert report.outcome in {FileOutcome.REFUSED, FileOutcome.SKIPPED}, seed
    assert not proof.exists()


class _Touching:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._path,)


def _pickles(proof: Path, folder: Path) -> list[bytes]:
    plain = pickle.dumps(_Touching(proof))
    try:
        import torch
    except ImportError:
        return [plain]
    contents = [plain]
    for zipped in (True, False):
        path = folder / "made.pt"
        torch.save({"edges": _Touching(proof)}, path, _use_new_zipfile_serialization=zipped)
        contents.append(path.read_bytes())
    return contents


_WATCHED: list[str] = []
_OPENED: list[str] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _WATCHED and any(one in str(arguments[0]) for one in _WATCHED):
        _OPENED.append(str(arguments[0]))


@contextlib.contextmanager
def watched(name: str) -> Iterator[list[str]]:
    """Collect what is opened whose path holds ``name``."""
    if not _WATCHED:
        sys.addaudithook(_watch)  # for good: Python removes none
    _WATCHED.append(name)
    _OPENED.clear()
    try:
        yield _OPENED
    finally:
        _WATCHED.remove(name)
        _WATCHED.append("no file has this name")


@pytest.mark.seconds
@pytest.mark.parametrize(("format", "written_as"), each_once(FORMATS, PATHS, "every format"))
def test_a_path_that_stands_in_a_file_is_not_followed(
    format: str, written_as: str, sown: Sown, registry: Registry, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"secret": SECRET}))
    for number, seed in enumerate(sown[format]):
        for name, content in seed.files.items():
            for at, changed in enumerate(_naming(name, content, secret, written_as)):
                path = seed.written(tmp_path / f"{number}-{at}", {name: changed})
                with watched(secret.name) as opened:
                    report = imported(registry, path, format, Limits())
                assert opened == []
                assert SECRET not in " ".join(report.notes)


def test_opening_a_file_is_noticed(tmp_path: Path) -> None:
    with watched("noticed.json") as opened:
        (tmp_path / "noticed.json").write_text("")
    assert opened == [str(tmp_path / "noticed.json")]


def _naming(name: str, content: bytes, secret: Path, written_as: str) -> Iterator[bytes]:
    """A JSON or YAML file with one text after the other replaced by a path."""
    forms = {"whole": str(secret), "relative": f"../{secret.name}", "address": secret.as_uri()}
    value = json.dumps(forms[written_as]).encode()
    if name.endswith(".json"):
        yield from replaced(content, value)
    elif name.endswith((".yaml", ".yml")):
        lines = content.split(b"\n")
        for at, line in enumerate(lines):
            key, colon, _ = line.partition(b": ")
            if colon:
                yield b"\n".join([*lines[:at], key + b": " + value, *lines[at + 1 :]])


class TestLinks:
    def test_links_in_a_folder_are_not_followed(self, registry: Registry, tmp_path: Path) -> None:
        outside, folder = tmp_path / "outside", tmp_path / "folder"
        outside.mkdir()
        folder.mkdir()
        (outside / "edges.csv").write_text("source,target\nm0,m1\n")
        (folder / "own.csv").write_text("source,target\nm0,m2\n")
        (folder / "link.csv").symlink_to(outside / "edges.csv")
        (folder / "deeper").symlink_to(outside)
        with watched("outside") as opened:
            reports = list(import_files(registry, [folder], {"model": "gpt2", "task": "ioi"}))
        assert [(report.path.name, report.outcome) for report in reports] == [
            ("deeper", FileOutcome.SKIPPED),
            ("link.csv", FileOutcome.SKIPPED),
            ("own.csv", FileOutcome.STORED),
        ]
        assert opened == []

    def test_links_beside_a_file_are_not_followed(
        self, registry: Registry, sown: Sown, tmp_path: Path
    ) -> None:
        seen = 0
        for number, seed in enumerate(seed for found in sown.values() for seed in found):
            for name in set(seed.files) - {seed.main}:
                outside = tmp_path / f"outside-{number}"
                outside.write_bytes(seed.files[name])
                path = seed.written(tmp_path / f"{number}-{seen}")
                path.with_name(name).unlink()
                path.with_name(name).symlink_to(outside)
                with watched(outside.name) as opened, watched(name) as too:
                    imported(registry, path, seed.format, Limits())
                assert not [one for one in (*opened, *too) if Path(one).is_symlink()], seed
                seen += 1
        assert seen > 2
