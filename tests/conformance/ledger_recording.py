"""The half of the ledger's contract that is about writing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import BadInput, CircuitsError, IncompatibleModel, NotFound
from registry.ledger.base import (
    Batch,
    Change,
    ChangeKind,
    Delta,
    Ledger,
    NewCircuit,
    Recorded,
    Revision,
)
from registry.records import (
    Annotation,
    CircuitLabels,
    CircuitState,
    Edit,
    Evaluation,
    Model,
    Outcome,
    Run,
    RunStatus,
    SourceFile,
    Task,
)
from tests import strategies
from tests.conformance.ledger_examples import (
    DESCRIBED,
    EDITS_FILE,
    FILE,
    GPT2,
    IOI,
    MEASURED_FILE,
    NOON,
    NUMERALS,
    PROMPTS,
    RUN,
    circuit,
    contents,
    everything,
    record_circuit,
)
from tests.few import n_examples
from tests.longest import longest_records

# A ledger is filled further by each example; every example asks only for what it recorded.
anything = settings(
    max_examples=n_examples(15),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.differing_executors,
    ],
)

_numbers = itertools.count(1)


def _said(**fields: Any) -> Annotation:
    """What Ada says of a node of the first circuit."""
    given = {"circuit": circuit().id, "node": "a9.h6", "role": "name mover", "said_by": "Ada"}
    return Annotation.model_validate({**given, **fields})


class RecordingContract:
    # -- recording ---------------------------------------------------------------------------

    def test_a_new_ledger_has_an_id_and_no_records(self, ledger: Ledger) -> None:
        assert len(ledger.registry_id) == 32
        assert int(ledger.registry_id, 16) > 0
        assert (ledger.models(), ledger.tasks(), ledger.prompt_sets(), ledger.runs()) == ((),) * 4
        assert (ledger.circuits(), ledger.evaluations(), ledger.edits()) == ((),) * 3
        assert ledger.changes_since(0) == Delta((), Revision())
        assert ledger.artifacts() == frozenset()

    def test_records_as_long_as_may_be_come_back_equal(self, ledger: Ledger) -> None:
        batch = longest_records()
        recorded = ledger.record(batch)
        assert ledger.models() == tuple(batch.models)
        assert ledger.tasks() == tuple(batch.tasks)
        assert ledger.prompt_sets() == tuple(batch.prompt_sets)
        assert ledger.runs() == tuple(batch.runs)
        (new,) = batch.circuits
        entry = ledger.circuit(recorded.circuits[0])
        assert (entry.model, entry.task) == (new.circuit.model, new.circuit.task)
        assert entry.labels == new.labels
        assert entry.source_files == (new.source_file,)
        assert ledger.evaluations() == tuple(batch.evaluations)
        assert ledger.edits() == tuple(batch.edits)
        assert ledger.outcomes(batch.edits[0].id) == tuple(batch.outcomes)
        assert ledger.annotations() == tuple(batch.annotations)

    def test_every_kind_of_record_comes_back_equal(self, ledger: Ledger) -> None:
        batch = everything()
        recorded = ledger.record(batch)
        entry = ledger.circuit(recorded.circuits[0])
        found = batch.circuits[0].circuit
        assert ledger.models() == (GPT2,)
        assert ledger.tasks() == (IOI, NUMERALS)
        assert ledger.prompt_sets() == (PROMPTS,)
        assert ledger.runs() == (RUN,)
        assert ledger.evaluations() == tuple(batch.evaluations)
        assert ledger.edits() == tuple(batch.edits)
        assert ledger.edit_files(batch.edits[0].id) == (EDITS_FILE,)
        assert ledger.outcomes(batch.edits[0].id) == tuple(batch.outcomes)
        assert ledger.attachments() == tuple(batch.attachments)
        assert ledger.annotations(found.id) == ledger.annotations() == tuple(batch.annotations)
        shared = ("id", "model", "task", "prompt_set", "method", "metric", "ablation", "sign")
        for name in (*shared, "level", "universe_size", "scores"):
            assert getattr(entry, name) == getattr(found, name), name
        assert (entry.n_nodes, entry.n_edges) == (2, 1)
        assert entry.labels == batch.circuits[0].labels
        assert (entry.runs, entry.source_files) == ((RUN.id,), (FILE,))
        assert entry.faithfulness == 0.8
        assert entry.recorded_at.tzinfo is UTC

    def test_what_is_new_is_reported_once(self, ledger: Ledger) -> None:
        batch = everything()
        assert ledger.record(batch) == Recorded(
            (batch.circuits[0].circuit.id,),
            (batch.evaluations[0].id,),
            (batch.edits[0].id,),
            (batch.outcomes[0].id,),
            (batch.attachments[0],),
            (batch.annotations[0].id,),
            models=tuple(one.slug for one in batch.models),
            tasks=tuple(one.slug for one in batch.tasks),
            prompt_sets=tuple(one.id for one in batch.prompt_sets),
            runs=tuple(one.id for one in batch.runs),
        )
        assert ledger.record(batch) == Recorded()

    @pytest.mark.parametrize("kind", ["models", "tasks", "prompt_sets", "runs"])
    def test_a_new_record_of_any_kind_is_something(self, ledger: Ledger, kind: str) -> None:
        ledger.record(
            replace(
                everything(),
                circuits=(),
                evaluations=(),
                edits=(),
                outcomes=(),
                attachments=(),
                annotations=(),
                edit_files={},
                imported=(),
            )
        )
        (first, *_) = getattr(everything(), kind)
        name = "slug" if kind in {"models", "tasks"} else "id"
        new = first.model_copy(update={name: "9" * len(getattr(first, name))})
        recorded = ledger.record(Batch.of(new))
        assert getattr(recorded, kind) == (getattr(new, name),)
        assert recorded.anything
        assert not ledger.record(Batch.of(new)).anything

    def test_recording_twice_changes_nothing(self, ledger: Ledger) -> None:
        ledger.record(everything())
        once, revision = contents(ledger), ledger.revision()
        ledger.record(everything())
        assert contents(ledger) == once
        assert ledger.revision() == revision

    def test_a_batch_may_repeat_itself(self, ledger: Ledger) -> None:
        batch = everything()
        ledger.record(
            replace(
                batch,
                models=[*batch.models, *batch.models],
                circuits=[*batch.circuits, *batch.circuits],
                evaluations=[*batch.evaluations, *batch.evaluations],
            )
        )
        assert len(ledger.models()) == len(ledger.circuits()) == len(ledger.evaluations()) == 1

    @anything
    @given(data=st.data())
    def test_any_records_come_back_equal(self, ledger: Ledger, data: st.DataObject) -> None:
        unused = f"{next(_numbers):032x}"  # other examples' records are still there
        model, task = data.draw(strategies.models()), data.draw(strategies.tasks())
        model = model.model_copy(update={"slug": unused + model.slug})
        task = task.model_copy(update={"slug": unused + task.slug})
        prompts = data.draw(strategies.prompt_sets(task.slug, model.slug))
        prompts = prompts.model_copy(update={"id": unused + prompts.id[32:]})
        run = data.draw(strategies.runs()).model_copy(update={"id": unused})
        found = data.draw(strategies.circuits(model.slug, task.slug, prompts.id))
        labels = data.draw(strategies.circuit_labels())
        file = data.draw(strategies.maybe(strategies.source_files()))
        measured = data.draw(strategies.evaluations(found.id, task.slug))
        edit = data.draw(strategies.edits(model.slug, (found.id,)))
        edited = data.draw(strategies.source_files())
        outcome = data.draw(strategies.outcomes(edit.id, task.slug))
        said = data.draw(strategies.annotations_of(found, run.id))
        ledger.record(
            Batch(
                [model],
                [task],
                [prompts],
                [run],
                [NewCircuit(found, run.id, file, labels)],
                [measured],
                [edit],
                [outcome],
                {edit.id: edited},
                [edited],
                annotations=said,
            )
        )
        assert ledger.annotations(found.id) == tuple(said)
        assert model in ledger.models()
        assert task in ledger.tasks()
        assert prompts in ledger.prompt_sets(task.slug)
        assert run in ledger.runs()
        entry = ledger.circuit(found.id)
        assert (entry.labels, entry.runs) == (labels, (run.id,))
        assert entry.source_files == ((file,) if file else ())
        assert [one.id for one in ledger.evaluations(found.id)] == [measured.id]
        assert ledger.evaluations(found.id) == (measured,)
        assert ledger.edit(edit.id) == edit
        assert ledger.edit(edit.id).id == edit.id
        assert ledger.edit_files(edit.id) == (edited,)
        assert edited.sha256 in ledger.source_files()
        assert ledger.outcomes(edit.id) == (outcome,)

    def test_a_circuit_found_again_gains_the_run_and_keeps_its_labels(self, ledger: Ledger) -> None:
        ledger.record(everything())
        before = ledger.revision().number
        again = RUN.model_copy(update={"id": "1" * 32, "started_at": NOON - timedelta(days=1)})
        new = NewCircuit(circuit(), again.id, labels=CircuitLabels(title="another"))
        assert ledger.record(Batch(runs=[again], circuits=[new])).circuits == ()
        entry = ledger.circuit(circuit().id)
        assert entry.runs == (RUN.id, again.id)
        assert entry.labels.title == "IOI"
        assert ledger.changes_since(before).changes == (
            Change(ChangeKind.RUN, again.id),
            Change(ChangeKind.CIRCUIT, entry.id),
        )

    def test_a_circuit_imported_again_gains_the_file_once(self, ledger: Ledger) -> None:
        ledger.record(everything())
        other = SourceFile(name="../ioi (1).json", sha256="d" * 64, format="acdc")
        for _ in range(2):
            ledger.record(Batch(circuits=[NewCircuit(circuit(), source_file=other)]))
        assert ledger.circuit(circuit().id).source_files == (FILE, other)

    def test_an_edit_imported_again_gains_the_file_once(self, ledger: Ledger) -> None:
        batch = everything()
        ledger.record(batch)
        before, revision = contents(ledger), ledger.revision()
        (edit,) = batch.edits
        renamed = EDITS_FILE.model_copy(update={"name": "copy.json"})
        ledger.record(Batch(edits=[edit], edit_files={edit.id: renamed}))
        assert contents(ledger) == before
        other = SourceFile(name="later.json", sha256="0" * 64, format="easyedit")
        ledger.record(Batch(edit_files={edit.id: other}))
        assert ledger.edit_files(edit.id) == (EDITS_FILE, other)
        third = other.model_copy(update={"sha256": "a" * 64})
        ledger.record(Batch(edit_files={edit.id: [other, third, third]}))
        assert ledger.edit_files(edit.id) == (EDITS_FILE, other, third)
        assert ledger.edit_files("0" * 64) == ()
        assert ledger.revision() == revision

    def test_every_imported_file_is_known_by_its_hash(self, ledger: Ledger) -> None:
        assert ledger.source_files() == frozenset()
        ledger.record(everything())
        assert ledger.source_files() == {f.sha256 for f in (FILE, EDITS_FILE, MEASURED_FILE)}

    def test_an_imported_file_keeps_the_first_name_it_came_by(self, ledger: Ledger) -> None:
        names = [MEASURED_FILE.model_copy(update={"name": name}) for name in ("a", "b")]
        ledger.record(Batch(imported=[names[0], FILE, names[1]]))
        ledger.record(Batch(imported=names[1:]))
        assert ledger.imported_files() == (names[0], FILE)
        rows = [row["name"] for table, row in contents(ledger) if table == "imported_files"]
        assert sorted(rows) == ["a", FILE.name]

    def test_a_run_is_brought_up_to_date(self, ledger: Ledger) -> None:
        begun = RUN.model_copy(update={"status": RunStatus.RUNNING, "finished_at": None})
        ledger.record(Batch(runs=[begun]))
        failed = begun.model_copy(
            update={"status": RunStatus.FAILED, "finished_at": NOON, "error": "out of memory"}
        )
        ledger.record(Batch(runs=[failed]))
        assert ledger.runs() == (failed,)

    def test_a_moment_in_another_zone_comes_back_as_the_same_moment(self, ledger: Ledger) -> None:
        there = datetime.fromisoformat("2026-03-01T23:30:00.000001+05:45")
        ledger.record(Batch(runs=[Run(id="2" * 32, job="j", version="1", started_at=there)]))
        (run,) = ledger.runs()
        assert run.started_at == there
        assert run.started_at.utcoffset() == timedelta(0)

    # -- models ------------------------------------------------------------------------------

    def test_a_model_is_filled_in_where_nothing_was_said(self, ledger: Ledger) -> None:
        ledger.record(Batch(models=[Model(slug="gpt2", n_layers=12, source="hub")]))
        fuller = GPT2.model_copy(update={"source": "a folder", "parallel_attn_mlp": True})
        ledger.record(Batch(models=[fuller]))
        expected = fuller.model_copy(update={"source": "hub"})
        assert ledger.models() == (expected,)
        ledger.record(Batch(models=[Model(slug="gpt2")]))
        assert ledger.models() == (expected,)

    @pytest.mark.parametrize(
        ("field", "other", "name"),
        [
            ("weights_sha256", "fedcba98" + "0" * 56, "gpt2@fedcba98"),
            ("n_layers", 13, "gpt2@11111111"),
            ("d_vocab", 50_304, "gpt2@11111111"),
        ],
    )
    def test_other_weights_or_shape_are_refused_with_a_name_to_use(
        self, ledger: Ledger, field: str, other: Any, name: str
    ) -> None:
        stored = GPT2.model_copy(update={"d_vocab": 50_257})
        ledger.record(Batch(models=[stored]))
        impostor = stored.model_copy(update={field: other})
        with pytest.raises(IncompatibleModel, match=f"{field} .*{other}.*'{name}'"):
            ledger.record(Batch(models=[impostor], tasks=[IOI]))
        assert ledger.models() == (stored,)
        assert ledger.tasks() == ()
        ledger.record(Batch(models=[impostor.model_copy(update={"slug": name})]))
        assert len(ledger.models()) == 2

    # -- refusals ----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("kind", "batch"),
        [
            ("task", Batch(prompt_sets=[PROMPTS.model_copy(update={"task": "nowhere"})])),
            ("model", Batch(prompt_sets=[PROMPTS.model_copy(update={"model": "nowhere"})])),
            ("model", Batch(circuits=[NewCircuit(circuit(model="nowhere"))])),
            ("task", Batch(circuits=[NewCircuit(circuit(task="nowhere"))])),
            ("prompt set", Batch(circuits=[NewCircuit(circuit(prompt_set="e" * 64))])),
            ("run", Batch(circuits=[NewCircuit(circuit(), run="e" * 32)])),
            (
                "circuit",
                Batch(
                    circuits=[NewCircuit(circuit(), labels=CircuitLabels(superseded_by="e" * 64))]
                ),
            ),
            (
                "circuit",
                Batch(evaluations=[Evaluation(circuit="e" * 64, task="ioi", measure="m", value=1)]),
            ),
            ("model", Batch(edits=[Edit(model="nowhere", editor="ROME")])),
            ("circuit", Batch(edits=[Edit(model="gpt2", editor="ROME", circuits=("e" * 64,))])),
            ("edit", Batch(edit_files={"e" * 64: FILE})),
            ("edit", Batch(outcomes=[Outcome(edit="e" * 64, metric="m")])),
            ("circuit", Batch(annotations=[_said(circuit="e" * 64)])),
            ("run", Batch(circuits=[NewCircuit(circuit())], annotations=[_said(run="e" * 32)])),
        ],
    )
    def test_a_record_that_refers_to_nothing_is_refused_with_its_whole_batch(
        self, ledger: Ledger, kind: str, batch: Batch
    ) -> None:
        ledger.record(DESCRIBED)
        before, revision = contents(ledger), ledger.revision()
        added = replace(batch, tasks=[Task(slug="capitals", family="capitals")])
        with pytest.raises(NotFound, match=f"no {kind} '(nowhere|e+)'"):
            ledger.record(added)
        assert contents(ledger) == before
        assert ledger.revision() == revision

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_a_number_that_is_none_is_refused_however_it_got_into_a_record(
        self, ledger: Ledger, value: float
    ) -> None:
        ledger.record(everything())
        before = contents(ledger)
        measured = Evaluation(circuit=circuit().id, task="ioi", measure="m", value=1)
        smuggled = measured.model_copy(update={"value": value})
        run = RUN.model_copy(update={"id": "3" * 32, "configuration": {"rate": [value]}})
        for batch in (Batch(evaluations=[smuggled]), Batch(runs=[run])):
            with pytest.raises((CircuitsError, ValueError), match=r"finite|JSON compliant"):
                ledger.record(batch)
        assert contents(ledger) == before

    @pytest.mark.parametrize(
        ("batch", "text"),
        [
            (Batch(tasks=[Task(slug="t", family="t", description="a\x00b")]), "NUL"),
            (Batch(models=[Model(slug="m", n_layers=2**63)]), "64 bits"),
            (
                replace(
                    DESCRIBED,
                    models=[GPT2],
                    circuits=[NewCircuit(circuit())],
                    annotations=[_said(said_by="a\x00b")],
                ),
                "said_by contains a NUL",
            ),
            (Batch(imported=[FILE.model_copy(update={"name": "a\x00b"})]), "name contains a NUL"),
        ],
    )
    def test_what_not_every_database_can_hold_is_refused_by_all(
        self, ledger: Ledger, batch: Batch, text: str
    ) -> None:
        with pytest.raises(BadInput, match=text):
            ledger.record(batch)
        assert (ledger.tasks(), ledger.models()) == ((), ())

    # -- annotations -------------------------------------------------------------------------

    def test_what_a_source_says_of_a_node_is_replaced_and_the_change_waits(
        self, ledger: Ledger
    ) -> None:
        record_circuit(ledger)
        mine, theirs = _said(), _said(said_by="a paper")
        elsewhere, more = _said(node="a10.h7"), _said(role="copier")
        assert ledger.annotate([mine, theirs, elsewhere])
        assert ledger.annotate([more], also=True)
        assert ledger.annotations(circuit().id) == (mine, theirs, elsewhere, more)
        before = ledger.revision().number
        changed = _said(role="inhibitor", scores={"copying": -0.5})
        assert ledger.annotate([changed])
        assert ledger.annotations(circuit().id) == (theirs, elsewhere, changed)
        waits = (Change(ChangeKind.CIRCUIT, circuit().id),)
        assert ledger.changes_since(before).changes == waits

    def test_a_role_that_is_said_again_has_the_new_scores(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        ledger.annotate([_said(scores={"copying": 0.5}), _said(role="copier")], also=True)
        again = _said(scores={"copying": 0.75}, run=RUN.id)
        assert ledger.annotate([_said(), again], also=True)
        assert ledger.annotations() == (_said(role="copier"), again)
        ledger.record(Batch(annotations=[_said()]))
        assert ledger.annotations() == (_said(role="copier"), _said())

    def test_saying_the_same_again_makes_no_revision(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        ledger.annotate([_said()])
        revision = ledger.revision()
        assert not ledger.annotate([_said()])
        assert not ledger.annotate([_said()], also=True)
        assert not ledger.annotate([])
        assert ledger.revision() == revision

    def test_what_is_taken_back_is_gone_and_the_change_waits(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        roles = [_said(role=role) for role in ("one", "two", "three")]
        ledger.annotate([*roles, _said(said_by="a paper")])
        before = ledger.revision().number
        at = circuit().id, "a9.h6"
        assert ledger.take_back(*at, said_by="Ada", role="two") == 1
        assert ledger.annotations() == (roles[0], roles[2], _said(said_by="a paper"))
        assert ledger.changes_since(before).changes == (Change(ChangeKind.CIRCUIT, at[0]),)
        assert ledger.take_back(*at, said_by="Ada") == 2
        revision = ledger.revision()
        assert ledger.take_back(*at, said_by="Ada") == 0
        assert ledger.annotations() == (_said(said_by="a paper"),)
        assert ledger.revision() == revision

    def test_annotations_are_no_part_of_a_circuit_that_comes_again(self, ledger: Ledger) -> None:
        ledger.record(everything())
        before = contents(ledger)
        ledger.record(replace(everything(), annotations=[]))
        assert contents(ledger) == before

    # -- labels ------------------------------------------------------------------------------

    def test_labels_are_replaced_and_the_change_waits(self, ledger: Ledger) -> None:
        old = record_circuit(ledger, 0, title="first", tags=("x", "y"))
        new = record_circuit(ledger, 1)
        before = ledger.revision().number
        labels = CircuitLabels(
            tags=("z", "x"),
            notes=("注記", "נ"),
            author="Σωκράτης",
            state=CircuitState.SUPERSEDED,
            superseded_by=new,
            reason="corrupt prompts",
        )
        ledger.relabel(old, labels)
        assert ledger.circuit(old).labels == labels
        assert ledger.changes_since(before).changes == (Change(ChangeKind.CIRCUIT, old),)

    def test_labels_of_or_by_an_unknown_circuit_are_refused(self, ledger: Ledger) -> None:
        known = record_circuit(ledger, 0, title="first")
        revision = ledger.revision()
        with pytest.raises(NotFound, match="no circuit 'ffff"):
            ledger.relabel("f" * 64, CircuitLabels())
        with pytest.raises(NotFound, match="no circuit 'eeee"):
            ledger.relabel(known, CircuitLabels(superseded_by="e" * 64))
        with pytest.raises(BadInput, match="cannot supersede itself"):
            ledger.relabel(known, CircuitLabels(superseded_by=known))
        assert ledger.circuit(known).labels == CircuitLabels(title="first")
        assert ledger.revision() == revision

    def test_circuits_of_one_batch_may_supersede_each_other(self, ledger: Ledger) -> None:
        newer = circuit(1)
        older = NewCircuit(
            circuit(0),
            labels=CircuitLabels(state=CircuitState.SUPERSEDED, superseded_by=newer.id),
        )
        ledger.record(replace(DESCRIBED, circuits=[older, NewCircuit(newer)]))
        assert ledger.circuit(circuit(0).id).labels.superseded_by == newer.id
