"""Bundles out of one registry and into another."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import Context, Limits, Said, recognised
from ingest.formats.bundle.reading import FORMAT
from ingest.formats.bundle.writing import ARTIFACTS, MANIFEST, RECORDS, VERSIONS, gather, write
from registry import Registry
from registry.errors import BadInput, StorageError
from registry.ledger.base import Batch, NewCircuit
from registry.records import (
    Circuit,
    CircuitLabels,
    CircuitState,
    PromptSet,
    Run,
    RunStatus,
    SourceFile,
)
from registry.settings.local import create_home, load_settings
from tests import examples, strategies
from tests.few import n_examples

_OLD = Path(__file__).parents[2] / "old"
Change = Callable[[dict[str, bytes]], object]

SCORES, PROMPTS, ROTATION, ORIGINAL = b"scores", b"prompts", b"rotation", b"an original"
OLD, NEW, OTHER = (examples.circuit(seed) for seed in (1, 2, 3))


def address(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def source(data: bytes, name: str = "graph.json") -> SourceFile:
    return SourceFile(name=name, sha256=address(data), format="eap-ig-json")


RUNS = strategies.runs().filter(lambda run: run.status is not RunStatus.RUNNING)
ROTATED = OTHER.model_copy(
    update={"scores": address(SCORES), "parameters": {"rotation": address(ROTATION)}}
)


def fill(registry: Registry) -> None:
    """Two circuits of which one superseded the other, and one with all that can hang on it."""
    for data in (SCORES, PROMPTS, ROTATION, ORIGINAL, b"edits", b"edits again", b"unrelated"):
        registry.store_artifact(data)
    run = Run(
        id="a" * 32, job="edge-attribution", version="1", status=RunStatus.FINISHED,
        started_at="2026-01-31T12:00:00Z", configuration={"top": 9},
    )  # fmt: skip
    prompts = PromptSet(
        id="b" * 64, task="ioi", n_prompts=8, model="gpt2", artifact=address(PROMPTS)
    )
    circuit = Circuit.model_validate(ROTATED.model_dump() | {"prompt_set": prompts.id})
    edit, outcome = examples.edit(circuit, "m2")
    labels = CircuitLabels(
        title="Überblick", tags=("final", "b"), notes=("one", "two"), author="Ada"
    )
    registry.record(examples.GPT2, *examples.TASKS, prompts, run)
    registry.record(
        NewCircuit(circuit, run.id, source(ORIGINAL), labels),
        NewCircuit(circuit, None, source(b"edits", "lost.json")),
        NEW,
        OLD,
        examples.faithfulness(circuit, 0.5),
        examples.faithfulness(circuit, 0.25),
    )
    registry.annotate(circuit.id, circuit.nodes[0].component, "mover", by="Ada", run=run.id,
                      scores={"copying": 0.5})  # fmt: skip
    registry.annotate(OLD.id, OLD.nodes[0].component, "先生", by="a paper")
    registry.retract(OLD.id, reason="a mistake in the prompts", superseded_by=NEW.id)
    registry.record(
        Batch(
            edits=[edit],
            outcomes=[outcome],
            edit_files={edit.id: [source(b"edits"), source(b"edits again")]},
            imported=[source(ROTATION, "r.pt"), source(b"unrelated", "u.json")],
        )
    )


MEASURING = Run(
    id="c" * 32, job="transfer", version="1", status=RunStatus.FINISHED,
    started_at="2026-02-01T12:00:00Z", configuration={"task": "ioi"},
)  # fmt: skip


def attach(registry: Registry) -> None:
    """Let what :func:`fill` recorded name runs, and attach files to a record of every kind."""
    ledger = registry.ledger
    (edit,), (prompts,) = ledger.edits(), ledger.prompt_sets()
    measured = ledger.evaluations(edit.circuits[0])
    registry.record(
        MEASURING,
        measured[0].model_copy(update={"run": MEASURING.id}),
        edit.model_copy(update={"run": MEASURING.id}),
    )
    for number, owner in enumerate((*edit.circuits, MEASURING.id, edit.id, prompts.id)):
        for name in ("plot.svg", "größe.csv"):
            content = io.BytesIO(f"{name} of {number % 2}".encode())
            registry.attach(owner, content, name=name, says="what it is")


def everything(registry: Registry) -> dict[str, Any]:
    """All that a bundle carries, as a registry has it."""
    ledger = registry.ledger
    entries = ledger.circuits()
    return {
        "models": ledger.models(),
        "tasks": ledger.tasks(),
        "prompt sets": ledger.prompt_sets(),
        "runs": ledger.runs(),
        "circuits": {entry.id: (entry.labels, entry.runs, entry.source_files) for entry in entries},
        "documents": {entry.id: registry.artifact(entry.id) for entry in entries},
        "evaluations": {entry.id: ledger.evaluations(entry.id) for entry in entries},
        "annotations": {entry.id: ledger.annotations(entry.id) for entry in entries},
        "edits": ledger.edits(),
        "edit files": [ledger.edit_files(edit.id) for edit in ledger.edits()],
        "outcomes": [ledger.outcomes(edit.id) for edit in ledger.edits()],
        "imported": ledger.imported_files(),
        "attachments": ledger.attachments(),
        "artifacts": {key: registry.artifact(key) for key in kept(registry)},
    }


def kept(registry: Registry) -> list[str]:
    named = registry.ledger.artifacts() | registry.ledger.source_files()
    return sorted(key for key in named if registry.has_artifact(key))


def bundled(registry: Registry, chosen: Sequence[str] | None = None) -> bytes:
    """A bundle of these circuits, or of everything."""
    ids = [entry.id for entry in registry.circuits()] if chosen is None else chosen
    file = io.BytesIO()
    write(file, registry, gather(registry, ids, everything=chosen is None))
    return file.getvalue()


def take_in(registry: Registry, data: bytes, **options: Any) -> FileReport:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.zip"
        path.write_bytes(data)
        (report,) = import_files(registry, [path], {}, format=FORMAT, **options)
    return report


def is_empty(registry: Registry) -> bool:
    unused = registry.gc(grace_seconds=0).addresses
    return registry.circuits() == [] and not registry.ledger.models() and unused == ()


def repacked(data: bytes, change: Change, *, sealed: bool = False) -> bytes:
    """The bundle with other members; ``sealed``: with a manifest that agrees with them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    if sealed:
        manifest = json.loads(members[MANIFEST])
        manifest["members"] = {n: address(d) for n, d in members.items() if n != MANIFEST}
        members[MANIFEST] = json.dumps(manifest).encode()
    return packed(list(members.items()))


def packed(members: Sequence[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.init(tmp_path / "here") as opened:
        yield opened


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Registry]:
    with Registry.init(tmp_path / "elsewhere") as opened:
        yield opened


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that stays empty, as every test of it asserts."""
    with Registry.init(tmp_path_factory.mktemp("empty")) as opened:
        yield opened


@pytest.fixture(scope="module")
def with_attachments(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of everything in a filled registry, with runs that measured and attached files."""
    with Registry.init(tmp_path_factory.mktemp("attached")) as filled:
        fill(filled)
        attach(filled)
        return bundled(filled)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of everything in a filled registry."""
    with Registry.init(tmp_path_factory.mktemp("filled")) as filled:
        fill(filled)
        return bundled(filled)


class TestOldBundles:
    """Files that earlier versions wrote; ``make old`` keeps one of each version."""

    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_bundle_written_before_is_read_and_written_again_without_change(
        self, elsewhere: Registry, version: str
    ) -> None:
        data = (_OLD / f"bundle_{version.rpartition('/')[2]}.zip").read_bytes()
        assert _version(data) == version
        assert take_in(elsewhere, data).outcome is FileOutcome.STORED
        assert len(elsewhere.circuits()) == 3
        assert bundled(elsewhere) == data


class TestRoundTrip:
    def test_everything_arrives_as_it_was(self, registry: Registry, elsewhere: Registry) -> None:
        fill(registry)
        report = take_in(elsewhere, bundled(registry))
        assert (report.outcome, len(report.circuits)) == (FileOutcome.STORED, 3)
        assert (report.evaluations, report.edits, report.notes) == (2, 1, ())
        assert everything(elsewhere) == everything(registry)
        assert elsewhere.gc(grace_seconds=0).addresses == ()

    def test_the_other_registry_answers_questions_at_once(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        take_in(elsewhere, bundled(registry))
        (edit,) = registry.edits()
        for name, parameters in (
            ("circuits-of-task", {"task": "ioi"}),
            ("edits-touching", {"circuit": edit.circuits[0]}),
        ):
            there, here = (
                [{**row, "recorded_at": None} for row in one.query(name, **parameters)]
                for one in (elsewhere, registry)
            )
            assert there == here != []

    def test_taking_it_in_twice_adds_nothing_and_says_so(
        self, elsewhere: Registry, bundle: bytes
    ) -> None:
        take_in(elsewhere, bundle)
        before = everything(elsewhere)
        assert take_in(elsewhere, bundle).outcome is FileOutcome.KNOWN
        assert everything(elsewhere) == before

    def test_a_bundle_that_only_adds_a_run_is_stored(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        take_in(elsewhere, bundled(registry))
        at = datetime(2026, 2, 1, tzinfo=UTC)
        run = Run(id="9" * 32, job="plain", version="1", status=RunStatus.FINISHED,
                  started_at=at, finished_at=at)  # fmt: skip
        registry.record(run)
        assert take_in(elsewhere, bundled(registry)).outcome is FileOutcome.STORED
        assert run in elsewhere.ledger.runs()

    def test_the_same_records_give_the_same_bytes(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        data = bundled(registry)
        assert bundled(registry) == data
        take_in(elsewhere, data)
        assert bundled(elsewhere) == data

    def test_a_dry_run_stores_nothing(self, elsewhere: Registry, bundle: bytes) -> None:
        report = take_in(elsewhere, bundle, dry_run=True)
        assert (report.outcome, len(report.circuits)) == (FileOutcome.READABLE, 3)
        assert is_empty(elsewhere)

    def test_it_is_recognised_and_says_everything_itself(
        self, tmp_path: Path, bundle: bytes
    ) -> None:
        path = tmp_path / "copy"
        path.write_bytes(bundle)
        assert recognised(path) is FORMAT
        found = FORMAT.read(path, Context(Said(model="pythia-70m")))
        assert "the user's statements are not used" in found.notes[0]
        assert found.batch is not None
        assert {model.slug for model in found.batch.models} == {"gpt2"}

    @pytest.mark.seconds
    @settings(
        max_examples=n_examples(12),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_whatever_a_registry_holds_arrives_as_it_was(
        self, data: st.DataObject, tmp_path: Path
    ) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            homes = [create_home(Path(folder) / name) for name in ("one", "two")]
            with (
                Registry.init(settings=load_settings(homes[0])) as one,
                Registry.init(settings=load_settings(homes[1])) as two,
            ):
                _record_anything(one, data)
                held = everything(one)
                before = bundled(one)
                take_in(two, before)
                assert everything(two) == held
                assert bundled(two) == before


def _record_anything(registry: Registry, data: st.DataObject) -> None:
    """A registry of any content that hangs together, and no two models or tasks of one name."""
    files = [b"one file", b"another", b"a third"]
    for content in (SCORES, PROMPTS, *files):
        registry.store_artifact(content)
    model = data.draw(strategies.models())
    shapeless = dict.fromkeys(("n_layers", "n_heads", "n_kv_heads", "d_mlp", "d_vocab"))
    model = model.model_copy(update=shapeless)
    task = data.draw(strategies.tasks())
    prompts = data.draw(strategies.prompt_sets(task.slug, model.slug))
    prompts = prompts.model_copy(update={"artifact": address(PROMPTS)})
    run = data.draw(RUNS)
    drawn = data.draw(st.lists(strategies.circuits(model.slug, task.slug, prompts.id), max_size=3))
    circuits = [
        circuit.model_copy(update={"scores": circuit.scores and address(SCORES)})
        for circuit in drawn
    ]
    circuits = [Circuit.model_validate(circuit.model_dump()) for circuit in circuits]
    source_files = st.builds(
        SourceFile, name=strategies.texts, sha256=st.sampled_from([*map(address, files)]),
        format=strategies.texts,
    )  # fmt: skip
    new = [
        NewCircuit(
            circuit,
            data.draw(st.sampled_from([None, run.id])),
            data.draw(strategies.maybe(source_files)),
            data.draw(strategies.circuit_labels()),
        )
        for circuit in circuits
    ]
    ids = tuple(circuit.id for circuit in circuits)
    evaluations = [data.draw(strategies.evaluations(key, task.slug)) for key in ids]
    edits = data.draw(st.lists(strategies.edits(model.slug, ids), max_size=2))
    said = [one for c in circuits for one in data.draw(strategies.annotations_of(c))]
    outcomes = [data.draw(strategies.outcomes(edit.id, task.slug)) for edit in edits]
    registry.record(
        Batch(
            models=[model],
            tasks=[task],
            prompt_sets=[prompts] if circuits else [],
            runs=[run] if any(one.run for one in new) else [],
            circuits=new,
            evaluations=evaluations,
            annotations=said,
            edits=edits,
            outcomes=outcomes,
            edit_files={e.id: data.draw(st.lists(source_files, max_size=2)) for e in edits},
            imported=data.draw(st.lists(source_files, max_size=2)),
        )
        if circuits
        else Batch()
    )


class TestChoosing:
    def test_a_bundle_brings_what_its_records_refer_to(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        contents = gather(registry, [OLD.id])
        assert contents.brought == (NEW.id,)
        take_in(elsewhere, bundled(registry, [OLD.id]))
        assert {entry.id for entry in elsewhere.circuits()} == {OLD.id, NEW.id}
        assert elsewhere.circuit(OLD.id).entry.labels.superseded_by == NEW.id

    def test_edits_that_touch_a_circuit_come_with_what_they_were_aimed_at(
        self, registry: Registry
    ) -> None:
        fill(registry)
        (edit,) = registry.edits()
        (aimed_at,) = edit.circuits
        touched = [c for c in (OLD, NEW) if any(n.component == "m2" for n in c.nodes)]
        for circuit in (OLD, NEW):
            contents = gather(registry, [circuit.id])
            assert (edit in contents.batch.edits) is (circuit in touched)
            assert (aimed_at in contents.circuits) is (circuit in touched)
        assert gather(registry, [aimed_at]).batch.edits == [edit]

    def test_files_that_a_circuit_names_by_hash_come_along(self, registry: Registry) -> None:
        fill(registry)
        (edit,) = registry.edits()
        contents = gather(registry, edit.circuits)
        assert {address(ROTATION), address(ORIGINAL)} < set(contents.artifacts)
        assert address(b"unrelated") not in contents.artifacts

    def test_an_original_that_is_lost_is_told(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        gone = source(b"was never kept")
        registry.record(NewCircuit(OLD, source_file=gone))
        assert gather(registry, [OLD.id]).lost == (gone.sha256,)
        take_in(elsewhere, bundled(registry))
        assert elsewhere.circuit(OLD.id).entry.source_files == (gone,)

    def test_an_original_that_is_damaged_is_left_out_and_named(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        at = Path(registry.settings.artifacts) / address(ORIGINAL)[:2] / address(ORIGINAL)[2:]
        at.write_bytes(b"x")
        ids = [entry.id for entry in registry.circuits()]
        contents = gather(registry, ids, skip_damaged=True)
        assert [damage.use for damage in contents.left_out] == ["the original of graph.json"]
        assert contents.lost == ()
        file = io.BytesIO()
        write(file, registry, contents)
        take_in(elsewhere, file.getvalue())
        assert elsewhere.damage() == []
        assert address(ORIGINAL) in {one.address for one in elsewhere.damage(not_stored=True)}

    def test_scores_that_are_lost_are_an_error(self, registry: Registry) -> None:
        registry.record(Circuit.model_validate(OLD.model_dump() | {"scores": "0" * 64}))
        with pytest.raises(StorageError, match="0000"):
            bundled(registry)

    def test_what_is_damaged_is_left_out_with_what_refers_to_it(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        folder = Path(registry.settings.artifacts)
        (folder / NEW.id[:2] / NEW.id[2:]).write_bytes(b"x")
        (folder / address(ORIGINAL)[:2] / address(ORIGINAL)[2:]).unlink()
        everything_ = [entry.id for entry in registry.circuits()]
        with pytest.raises(StorageError, match="has been changed"):
            gather(registry, everything_, everything=True)
        contents = gather(registry, everything_, everything=True, skip_damaged=True)
        assert [damage.address for damage in contents.left_out] == [NEW.id]
        # OLD names NEW as the one that superseded it, so it would hang in the air.
        (kept_,) = contents.circuits
        assert kept_ not in (NEW.id, OLD.id)
        assert address(ORIGINAL) in contents.lost
        file = io.BytesIO()
        write(file, registry, contents)
        take_in(elsewhere, file.getvalue())
        assert [entry.id for entry in elsewhere.circuits()] == [kept_]
        assert elsewhere.edits() == registry.edits()

    def test_an_edit_of_a_circuit_that_is_damaged_is_left_out(self, registry: Registry) -> None:
        fill(registry)
        folder = Path(registry.settings.artifacts)
        (folder / address(SCORES)[:2] / address(SCORES)[2:]).unlink()
        ids = [entry.id for entry in registry.circuits()]
        contents = gather(registry, ids, everything=True, skip_damaged=True)
        assert set(contents.circuits) == {NEW.id, OLD.id}
        assert contents.batch.edits == []

    def test_nothing_of_this_registry_s_settings_is_in_it(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", "hunter2hunter2")
        fill(registry)
        with zipfile.ZipFile(io.BytesIO(bundled(registry))) as archive:
            held = b"\n".join(archive.read(name) for name in archive.namelist())
        stores = {str(registry.settings.home), registry.ledger.registry_id, "hunter2hunter2"}
        stores |= set(registry.settings.describe().values())
        assert [text for text in stores if text.encode() in held] == []


class TestIntoARegistryThatHasSome:
    def test_what_is_new_is_added_and_what_is_known_is_counted(
        self, elsewhere: Registry, bundle: bytes
    ) -> None:
        elsewhere.record(examples.GPT2, examples.IOI, OLD)
        elsewhere.note(OLD.id, "looks right to me")
        report = take_in(elsewhere, bundle)
        assert report.outcome is FileOutcome.STORED
        assert report.notes == ("1 of 3 circuits were already stored",)
        labels = elsewhere.circuit(OLD.id).entry.labels
        assert (labels.state, labels.notes) == (CircuitState.ACTIVE, ("looks right to me",))

    def test_a_known_circuit_gains_runs_files_and_evaluations(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        full = next(e for e in registry.circuits() if e.runs)
        elsewhere.record(*registry.ledger.prompt_sets(), registry.document(full.id))
        take_in(elsewhere, bundled(registry))
        stored = elsewhere.circuit(full.id)
        assert (stored.entry.runs, stored.entry.source_files) == (full.runs, full.source_files)
        assert stored.evaluations == registry.circuit(full.id).evaluations

    def test_a_known_run_is_not_rewritten(self, registry: Registry, elsewhere: Registry) -> None:
        fill(registry)
        (run,) = registry.ledger.runs()
        mine = run.model_copy(update={"device": "mine"})
        elsewhere.record(mine)
        take_in(elsewhere, bundled(registry))
        assert elsewhere.ledger.runs() == (mine,)

    def test_what_is_said_here_is_not_rewritten(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        elsewhere.record(examples.GPT2, examples.IOI, OLD)
        node = OLD.nodes[0].component
        mine = [elsewhere.annotate(OLD.id, node, role, by=by, also=True, scores={"s": 1.0})
                for by in ("a paper", "Ada") for role in ("先生", "mover")]  # fmt: skip
        take_in(elsewhere, bundled(registry))
        assert elsewhere.annotations(OLD.id) == mine

    def test_another_model_of_the_same_name_is_refused(
        self, elsewhere: Registry, bundle: bytes
    ) -> None:
        elsewhere.record(examples.GPT2.model_copy(update={"n_layers": 6}))
        report = take_in(elsewhere, bundle)
        assert report.outcome is FileOutcome.REFUSED
        assert "'gpt2' is stored with n_layers 6, not 12" in report.notes[0]
        assert elsewhere.circuits() == []


def _document(members: Mapping[str, bytes], circuit: Circuit = OLD) -> str:
    name = f"{ARTIFACTS}{circuit.id}"
    assert name in members
    return name


def _without(name: Callable[[Mapping[str, bytes]], str]) -> Change:
    return lambda members: members.pop(name(members))


def _set(name: Callable[[Mapping[str, bytes]], str], content: bytes) -> Change:
    return lambda members: members.update({name(members): content})


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Change:
    def changed(members: dict[str, bytes]) -> None:
        manifest = json.loads(members[MANIFEST])
        change(manifest)
        members[MANIFEST] = json.dumps(manifest).encode()

    return changed


def _lines(change: Callable[[list[dict[str, Any]]], Any]) -> Change:
    """Change the records, each an object."""

    def changed(members: dict[str, bytes]) -> None:
        lines = [json.loads(line) for line in members[RECORDS].splitlines()]
        change(lines)
        members[RECORDS] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    return changed


def _first(lines: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == kind)


def _only(*kinds: str) -> Change:
    return _lines(
        lambda lines: lines.__setitem__(slice(None), [x for x in lines if x["kind"] not in kinds])
    )


TAMPERED: dict[str, tuple[Change, str]] = {
    "another content": (_set(_document, b"{}"), "does not have the content it should"),
    "another content, whose hash the manifest states": (
        lambda m: (_set(_document, b"{}")(m), _manifest(
            lambda x: x["members"].update({_document(m): address(b"{}")}))(m)),
        "does not have the content it should",
    ),
    "other records": (_set(lambda _: RECORDS, b""), "records.jsonl does not have the content"),
    "no circuit": (_without(_document), "is incomplete: artifacts/"),
    "no records": (_without(lambda _: RECORDS), "is incomplete: records.jsonl is missing"),
    "records that nobody names": (
        lambda m: (m.pop(RECORDS), _manifest(lambda x: x["members"].pop(RECORDS))(m)),
        "it has no records.jsonl",
    ),
    "no manifest": (_without(lambda _: MANIFEST), "it has no manifest.json"),
    "one member more": (
        _set(lambda _: ARTIFACTS + address(b"x"), b"x"), "which its manifest does not name"
    ),
    "a path upwards": (_set(lambda _: "artifacts/../../x", b"x"), "is no part of a bundle"),
    "an absolute path": (_set(lambda _: "/tmp/x", b"x"), "is no part of a bundle"),
    "a folder": (_set(lambda _: "artifacts/", b""), "is no part of a bundle"),
    "a later version": (
        _manifest(lambda x: x.update(format="circuit-registry-bundle/3")),
        "of a version that this program reads",
    ),
    "a version that is no text": (_manifest(lambda x: x.update(format=[1])), "no bundle of a ver"),
    "a backup": (
        _manifest(lambda x: x.update(format="circuit-registry-backup/1")), "circuits restore"
    ),
    "hashes that are none": (
        _manifest(lambda x: x["members"].update({RECORDS: 1})), "does not state the members' hashes"
    ),
    "a manifest that is no JSON": (_set(lambda _: MANIFEST, b"{"), "manifest.json: no JSON"),
    "a manifest nested too deeply": (_set(lambda _: MANIFEST, b"[" * 99_999), "no JSON"),
    "a manifest that is a list": (_set(lambda _: MANIFEST, b"[]"), "no object"),
}  # fmt: skip

SEALED: dict[str, tuple[Change, str]] = {
    "a circuit that is there twice, and would be read twice": (
        _lines(lambda lines: lines.append(_first(lines, "circuit"))), "is there already"
    ),
    "a line that is no JSON": (
        lambda m: m.update({RECORDS: m[RECORDS] + b"{"}), "line 18: no JSON"
    ),
    "text that is none": (lambda m: m.update({RECORDS: b"\xff"}), "line 1: no JSON"),
    "nesting": (lambda m: m.update({RECORDS: b"[" * 99_999}), "line 1: no JSON"),
    "an unknown kind": (_lines(lambda x: x.append({"kind": "wish"})), "unknown kind of record"),
    "a kind that is no text": (_lines(lambda x: x.append({"kind": []})), "unknown kind of record"),
    "an unknown field": (
        _lines(lambda x: _first(x, "model")["record"].update(colour="red")), "colour: there is no"
    ),
    "a field of another type": (
        _lines(lambda x: _first(x, "evaluation")["record"].update(value="x")), "value: must be a n"
    ),
    "a number that is none": (
        lambda m: m.update({RECORDS: m[RECORDS].replace(b'"value":0.5', b'"value":NaN')}),
        "value: must be a finite number",
    ),
    "a time before the first": (
        _lines(lambda x: _first(x, "run")["record"].update(started_at="0001-01-01T00:00+14:00")),
        "must be a moment between 0001-01-02",
    ),
    "no record": (_lines(lambda x: _first(x, "edit").pop("record")), "must have fields"),
    "no files": (_lines(lambda x: _first(x, "edit").pop("files")), "must be a list"),
    "labels of another shape": (
        _lines(lambda x: _first(x, "circuit").update(labels={"tags": 1})), "labels.tags|tags: must"
    ),
    "runs that are no list": (
        _lines(lambda x: _first(x, "circuit").update(runs={"a": 1})), "must be a list"
    ),
    "a circuit that is not there": (
        _lines(lambda x: _first(x, "circuit").update(id="0" * 64)), "is not in the bundle"
    ),
    "a circuit's id that is no text": (
        _lines(lambda x: _first(x, "circuit").update(id=["x"])), "is not in the bundle"
    ),
    "no model": (_only("model"), "refers to the model 'gpt2', which is not in it"),
    "no task": (_only("task"), "refers to the task"),
    "no prompts": (_only("prompt_set"), "to which no record refers|refers to the prompt set"),
    "no run": (_only("run"), "refers to the run"),
    "an annotation of a node that the circuit does not have": (
        _lines(lambda x: _first(x, "annotation")["record"].update(node="m77")),
        "no node of this circuit 'm77'",
    ),
    "an annotation by a run that is not in it": (
        _lines(lambda x: _first(x, "annotation")["record"].update(run="f" * 32)),
        "refers to the run",
    ),
    "an annotation of a circuit that is not in it": (
        _lines(lambda x: _first(x, "annotation")["record"].update(circuit="0" * 64)),
        "refers to the circuit",
    ),
    "no edit": (_only("edit"), "to which no record refers|refers to the edit"),
    "superseded by one that is not in it": (
        _lines(lambda x: [c["labels"].update(superseded_by="0" * 64) for c in x if "labels" in c]),
        "refers to the circuit '0000",
    ),
    "a file that no record names": (
        lambda m: m.update({ARTIFACTS + address(b"x"): b"x"}), "to which no record refers"
    ),
    "scores that are lost": (
        _without(lambda _: ARTIFACTS + address(SCORES)), "a record refers to artifacts/"
    ),
}  # fmt: skip


def _attachment(**change: Any) -> Change:
    return _lines(lambda lines: _first(lines, "attachment")["record"].update(change))


ATTACHED: dict[str, tuple[Change, str]] = {
    "a path for a name": (_attachment(name="../plot.svg"), "name: contains '/'"),
    "a backslash": (_attachment(name="..\\plot.svg"), "name: contains"),
    "a hidden name": (_attachment(name=".plot"), "name: begins or ends with a dot"),
    "a name that redraws a terminal": (_attachment(name="a\x1b[2J"), "which does not print"),
    "a name that is too long": (_attachment(name="x" * 201), "201 bytes is too long"),
    "an owner that is not in it": (_attachment(owner="0" * 64), "refers to the circuit '0000"),
    "an owner of another kind": (_attachment(owner_kind="edit"), "refers to the edit"),
    "a kind of owner that is none": (_attachment(owner_kind="model"), "owner_kind: must be"),
    "another size": (_attachment(size_bytes=3), "is of another size"),
    "a content that is not there": (_attachment(sha256="0" * 64), "refers to artifacts/0000|no re"),
    "two of one name": (_attachment(name="größe.csv"), "holds two attachments 'größe.csv'"),
    "a line of two": (_attachment(says="a\nb"), "says: must be one line"),
    "no measuring run": (
        _lines(lambda x: x.remove(next(y for y in x if y.get("record", {}).get("id") == "c" * 32))),
        "refers to the run 'cccc",
    ),
}  # fmt: skip


class TestAttachments:
    def test_everything_arrives_as_it_was(self, registry: Registry, elsewhere: Registry) -> None:
        fill(registry)
        attach(registry)
        data = bundled(registry)
        assert _version(data) == "circuit-registry-bundle/2"
        assert take_in(elsewhere, data).outcome is FileOutcome.STORED
        assert everything(elsewhere) == everything(registry)
        assert len(elsewhere.ledger.attachments()) == 8
        assert bundled(elsewhere) == data
        assert take_in(elsewhere, data).outcome is FileOutcome.KNOWN
        assert everything(elsewhere) == everything(registry)
        assert elsewhere.gc(grace_seconds=0).addresses == ()

    def test_what_names_no_run_and_has_neither_files_nor_annotations_is_of_the_first_version(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        assert _version(bundled(registry)) == "circuit-registry-bundle/2"
        for said in registry.ledger.annotations():
            registry.take_back(said.circuit, said.node, by=said.said_by)
        data = bundled(registry)
        assert _version(data) == "circuit-registry-bundle/1"
        assert take_in(elsewhere, data).outcome is FileOutcome.STORED
        assert elsewhere.ledger.attachments() == ()

    def test_of_chosen_circuits_their_own_files_come_and_runs_that_measured(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        attach(registry)
        io_ = io.BytesIO(b"of the old one")
        registry.attach(OLD.id, io_, name="old.txt")
        take_in(elsewhere, bundled(registry, [OLD.id]))
        edits = [edit.id for edit in elsewhere.edits()]
        names = {one.name for one in elsewhere.ledger.attachments()}
        assert names == {"old.txt"} | ({"plot.svg", "größe.csv"} if edits else set())
        (edit,) = registry.edits()
        found = gather(registry, edit.circuits).batch
        assert MEASURING in found.runs
        assert len(found.attachments) == 8

    def test_a_name_that_is_taken_becomes_another_one_once(
        self, elsewhere: Registry, with_attachments: bytes
    ) -> None:
        take_in(elsewhere, with_attachments)
        (edit,) = elsewhere.edits()
        other = repacked(with_attachments, _other_content, sealed=True)
        for outcome in (FileOutcome.STORED, FileOutcome.KNOWN):
            assert take_in(elsewhere, other).outcome is outcome
            names = [one.name for one in elsewhere.attachments(edit.id)]
            assert names == ["plot.svg", "größe.csv", f"plot-{address(b'another')[:8]}.svg"]
        with elsewhere.attachments(edit.id)[2].open() as file:
            assert file.read() == b"another"

    def test_attachments_alone_are_news(
        self, elsewhere: Registry, bundle: bytes, with_attachments: bytes
    ) -> None:
        take_in(elsewhere, bundle)
        fewer = repacked(with_attachments, _without_runs, sealed=True)
        assert take_in(elsewhere, fewer).outcome is FileOutcome.STORED

    def test_a_damaged_attachment_is_left_out(
        self, registry: Registry, elsewhere: Registry
    ) -> None:
        fill(registry)
        attach(registry)
        lost = registry.ledger.attachments()[0].sha256
        registry._artifacts.remove(lost)
        with pytest.raises(StorageError, match=lost[:12]):
            bundled(registry)
        ids = [entry.id for entry in registry.circuits()]
        contents = gather(registry, ids, everything=True, skip_damaged=True)
        assert "attachment 'plot.svg'" in contents.left_out[0].use
        file = io.BytesIO()
        write(file, registry, contents)
        assert take_in(elsewhere, file.getvalue()).outcome is FileOutcome.STORED
        assert len(elsewhere.circuits()) == 3
        assert len(elsewhere.ledger.attachments()) == 6

    def test_large_files_are_never_in_memory_whole(
        self, registry: Registry, elsewhere: Registry, tmp_path: Path
    ) -> None:
        size = 48 << 20
        with (tmp_path / "large.bin").open("wb") as file:
            file.truncate(size)
        registry.record(examples.GPT2, *examples.TASKS, OLD)
        registry.attach(OLD.id, tmp_path / "large.bin")
        tracemalloc.start()
        try:
            take_in(elsewhere, bundled(registry))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert elsewhere.attachments(OLD.id)[0].size_bytes == size
        assert peak < size / 2

    @pytest.mark.parametrize("what", ATTACHED)
    def test_what_is_hostile_is_refused(
        self, empty: Registry, with_attachments: bytes, what: str
    ) -> None:
        change, says = ATTACHED[what]
        _refused(empty, repacked(with_attachments, change, sealed=True), says)


def _version(data: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found: str = json.loads(archive.read(MANIFEST))["format"]
        return found


def _other_content(members: dict[str, bytes]) -> None:
    members[ARTIFACTS + address(b"another")] = b"another"
    _lines(
        lambda lines: next(
            line for line in lines
            if line["kind"] == "attachment" and line["record"]["owner_kind"] == "edit"
        )["record"].update(sha256=address(b"another"), size_bytes=len(b"another"))
    )(members)  # fmt: skip


def _without_runs(members: dict[str, bytes]) -> None:
    def change(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["kind"] in ("evaluation", "edit"):
                line["record"].pop("run", None)

    _lines(change)(members)


class TestTampering:
    @pytest.mark.parametrize("what", TAMPERED)
    def test_is_refused_with_one_line_and_nothing_stored(
        self, empty: Registry, bundle: bytes, what: str
    ) -> None:
        change, says = TAMPERED[what]
        _refused(empty, repacked(bundle, change), says)

    @pytest.mark.parametrize("what", SEALED)
    def test_records_are_checked_whatever_the_manifest_says(
        self, empty: Registry, bundle: bytes, what: str
    ) -> None:
        change, says = SEALED[what]
        _refused(empty, repacked(bundle, change, sealed=True), says)

    def test_a_circuit_written_in_other_words_is_refused(
        self, empty: Registry, bundle: bytes
    ) -> None:
        spaced = json.dumps(json.loads(OLD.document)).encode()

        def respelled(members: dict[str, bytes]) -> None:
            members[ARTIFACTS + address(spaced)] = spaced
            del members[_document(members)]
            members[RECORDS] = members[RECORDS].replace(OLD.id.encode(), address(spaced).encode())

        _refused(empty, repacked(bundle, respelled, sealed=True), "not written as its id says")

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_member_that_is_there_twice(self, empty: Registry, bundle: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        _refused(empty, packed([*members, members[1]]), "holds records.jsonl twice")

    def test_a_bomb_is_refused_by_the_sizes_it_states(self, empty: Registry, bundle: bytes) -> None:
        bomb = repacked(bundle, _set(lambda _: ARTIFACTS + "0" * 64, bytes(50_000_000)))
        report = take_in(empty, bomb, limits=Limits(max_bytes=1_000_000))
        assert (report.outcome, len(bomb) < 100_000) == (FileOutcome.REFUSED, True)
        assert "1,000,000 are allowed; --max-bytes raises that" in report.notes[0]

    def test_a_bomb_that_understates_its_size_is_not_unpacked(
        self, empty: Registry, bundle: bytes
    ) -> None:
        huge = bytes(50_000_000)
        bomb = repacked(bundle, _set(_document, huge))
        said = struct.pack("<L", len(huge))
        assert bomb.count(said) == 2  # before the member, and in the directory
        lying = bomb.replace(said, struct.pack("<L", 9))
        report = take_in(empty, lying, limits=Limits(max_bytes=1_000_000))
        assert report.outcome is FileOutcome.REFUSED
        assert "is damaged" in report.notes[0]
        assert is_empty(empty)

    def test_a_large_file_and_a_large_circuit_are_refused(
        self, empty: Registry, bundle: bytes
    ) -> None:
        for limits, says in (
            (Limits(max_bytes=9), "--max-bytes"),
            (Limits(max_edges=3), "--max-edges"),
        ):
            report = take_in(empty, bundle, limits=limits)
            assert report.outcome is FileOutcome.REFUSED
            assert says in report.notes[0]

    def test_a_directory_that_would_fill_the_memory(self, empty: Registry, bundle: bytes) -> None:
        end = bytearray(bundle[-22:])
        end[12:16] = struct.pack("<L", 2**31)
        _refused(empty, bundle[:-22] + bytes(end), "more files than a bundle can hold")
        elsewhere = b"PK\x06\x07" + bytes(16)
        _refused(empty, bundle[:-22] + elsewhere + bundle[-22:], "more files than a bundle can")

    def test_what_is_packed_otherwise_is_refused(self, empty: Registry, bundle: bytes) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr(MANIFEST, "{}")
        _refused(empty, file.getvalue(), "encrypted or packed in an unusual way")
        at = bundle.index(b"PK\x01\x02")
        locked = bundle[: at + 8] + b"\x01" + bundle[at + 9 :]
        _refused(empty, locked, "encrypted or packed in an unusual way")

    def test_a_backup_is_told_from_a_bundle(self, registry: Registry, tmp_path: Path) -> None:
        path = tmp_path / "all.zip"
        registry.backup(path)
        (report,) = import_files(registry, [path], {}, format=recognised(path))
        assert "'circuits restore' reads it" in report.notes[0] or "no part" in report.notes[0]

    @settings(
        max_examples=n_examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_damaged_bytes_give_the_same_records_or_one_error(
        self, data: st.DataObject, bundle: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "bundle.zip"
        path.write_bytes(bundle)
        whole = FORMAT.read(path, Context()).batch
        damaged = bytearray(bundle)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(damaged) - 1))
            width = data.draw(st.integers(0, 9))
            damaged[at : at + width] = data.draw(st.binary(max_size=9))
            damaged = damaged or bytearray(b"x")
        path.write_bytes(bytes(damaged))
        try:
            found = FORMAT.read(path, Context())
            for _, pieces in found.addressed:
                list(pieces)
        except BadInput:
            return
        assert found.batch == whole


def _refused(registry: Registry, data: bytes, says: str) -> None:
    report = take_in(registry, data)
    assert report.outcome is FileOutcome.REFUSED
    assert len(report.notes) == 1
    assert "\n" not in report.notes[0]
    assert any(one in report.notes[0] for one in says.split("|")), report.notes[0]
    assert is_empty(registry)


def test_more_files_than_a_plain_zip_holds_are_refused(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.record(OLD, NEW)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    with pytest.raises(BadInput, match="choose fewer, or copy the whole registry"):
        bundled(registry)
