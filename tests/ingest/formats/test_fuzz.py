"""Damaged files of every registered format: records or one clear error, soon and in little memory.

``make slow`` damages ten times as many files of each format. A new format brings a sound file
to start from (:mod:`tests.ingest.formats.seeds`), or these tests fail.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import UnknownFormat, find_format, formats, recognised
from registry import Registry
from registry.errors import CircuitsError
from tests.few import every_nth, n_examples
from tests.ingest.formats.mutations import damaged, nested_documents
from tests.ingest.formats.seeds import SAID, Seed, real_seeds, seeds
from tests.patience import soon

FORMATS = sorted(formats())
EXAMPLES = n_examples(12)
MODELS = itertools.count()
BYTES = 400 * 2**20
BACKSTOP_BYTES = 8 * 2**30
READ_NOTHING = {"pickle"}
EMPTY_CIRCUITS = {("edge-pruning", b"[]")}
NOT_STORED = {FileOutcome.REFUSED, FileOutcome.SKIPPED}
Sown = dict[str, list[Seed]]


@pytest.fixture(scope="module")
def sown(tmp_path_factory: pytest.TempPathFactory) -> Sown:
    found: Sown = defaultdict(list)
    for seed in (*seeds(tmp_path_factory.mktemp("seeds")), *real_seeds()):
        found[seed.format].append(seed)
    if find_spec("torch") is not None:
        import torch  # noqa: F401 - its own memory is not that of a file
    return found


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("home") / "home") as opened:
        yield opened


def imported(registry: Registry, path: Path, format: str) -> FileReport:
    model = f"some-model-{next(MODELS)}"  # one model has one shape, and files tell many
    said = {"model": model, "task": "some-task", "method": "m"} | SAID.get(format, {})
    (report,) = import_files(registry, [path], said, format=find_format(format))
    return report


@contextlib.contextmanager
def bounded(what: object) -> Iterator[None]:
    """Fail if what is done takes long or much memory; far more memory than that is not given."""
    _forget_peak()
    held = _resident("VmRSS")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_resident("VmSize") + BACKSTOP_BYTES, limits[1]))
    try:
        with soon(what=what):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert _resident("VmHWM") - held < BYTES, f"{what} took too much memory"


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    """A figure of this process's memory in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def check(report: FileReport, path: Path) -> None:
    """A file is stored, known, or passed over or refused with one reason that names something."""
    assert report.outcome is not FileOutcome.READABLE
    if report.outcome in NOT_STORED:
        (reason,) = report.notes
        assert len(reason) > 5
        assert "Traceback" not in reason
        assert len(reason) < 20_000, f"{path.name}: {len(reason)} characters are no clear reason"


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_a_seed_of_our_own_that_is_read(
    format: str, registry: Registry, tmp_path: Path
) -> None:
    own = [seed for seed in seeds(tmp_path) if seed.format == format]
    assert own, f"put a small file of our own making into files/{format}/"
    reports = []
    for number, seed in enumerate(own):
        path = seed.written(tmp_path / str(number))
        reports.append(imported(registry, path, format))
    # Files that only others are read with hold nothing of their own and are passed over.
    read = {report.outcome for report in reports} - {FileOutcome.REFUSED}
    assert bool(read) is (format not in READ_NOTHING), reports


def test_every_seed_belongs_to_a_format(tmp_path: Path) -> None:
    assert {seed.format for seed in seeds(tmp_path)} <= set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_every_seed_is_recognised_as_its_own_format_and_less_surely_as_any_other(
    format: str, sown: Sown, tmp_path: Path
) -> None:
    for number, seed in enumerate(sown[format]):
        path = seed.written(tmp_path / str(number))
        head = seed.files[seed.main][: 1 << 16]
        sure = {name: one.sniff(path, head) for name, one in formats().items()}
        own = sure.pop(format)
        assert all(0 <= value <= 1 for value in (own, *sure.values()))
        assert own > max(sure.values()), f"{seed} is {own} {format} but {sure}"


@pytest.mark.seconds
@pytest.mark.parametrize("format", FORMATS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.generate],  # a smaller number is no smaller damage
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)  # fmt: skip
@given(which=st.integers(0, 999), beside=st.booleans(), damage=st.integers(0, 2**64))
def test_damaged_files_give_records_or_one_clear_error(
    which: int, beside: bool, damage: int, format: str, sown: Sown, registry: Registry
) -> None:
    seed = sown[format][which % len(sown[format])]
    choose = Random(damage)
    name = choose.choice(list(seed.files)) if beside else seed.main
    changed = damaged(choose, seed.files[name], Path(name).suffix)
    with TemporaryDirectory() as folder:
        path = seed.written(Path(folder), {name: changed})
        with bounded(seed):
            with contextlib.suppress(UnknownFormat):
                recognised(path)
            check(imported(registry, path, format), path)


@pytest.mark.seconds
@pytest.mark.parametrize(
    "depth", every_nth([60, 500, 900, 950, 980, 5000], 5, "a sound depth, and one far too deep")
)
def test_deep_nesting_anywhere_gives_records_or_one_clear_error(
    depth: int, sown: Sown, registry: Registry, tmp_path: Path
) -> None:
    for seed, name in _smallest_json(sown):
        for content in nested_documents(seed.files[name], depth):
            path = seed.written(tmp_path, {name: content})
            with contextlib.suppress(CircuitsError):
                recognised(path)
            check(imported(registry, path, seed.format), path)


def _smallest_json(sown: Sown) -> Iterator[tuple[Seed, str]]:
    """Of each format with JSON its smallest seed, and the JSON file in it."""
    for found in sown.values():
        of_json = [(seed, name) for seed in found for name in seed.files if name.endswith(".json")]
        if of_json:
            yield min(of_json, key=lambda one: len(one[0].files[one[1]]))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff\xfe", b"{}", b"[]", b"null", b"\n" * 99])
def test_a_file_of_next_to_nothing_is_refused(
    format: str, content: bytes, sown: Sown, registry: Registry, tmp_path: Path
) -> None:
    for number, seed in enumerate(sown[format]):
        path = seed.written(tmp_path / str(number), {seed.main: content})
        report = imported(registry, path, format)
        check(report, path)
        refused = report.outcome in NOT_STORED
        assert refused is ((format, content) not in EMPTY_CIRCUITS), (
            f"{seed}: {content!r}: {report}"
        )
