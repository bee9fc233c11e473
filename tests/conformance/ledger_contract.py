"""What every ledger owes, as tests; ``test_ledger.py`` runs them over both databases."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import BadInput, CircuitsError, GraphBusy, IncompatibleModel, NotFound
from registry.ledger.base import Batch, ChangeKind, CircuitFilter, Ledger, NewCircuit, Recorded
from registry.records import (
    Ablation,
    Circuit,
    CircuitLabels,
    CircuitState,
    Edge,
    Edit,
    Evaluation,
    Level,
    Model,
    Node,
    Outcome,
    PromptSet,
    Run,
    RunStatus,
    Sign,
    SourceFile,
    Task,
)
from tests import strategies

# A ledger is filled further by each example; every example asks only for what it recorded.
anything = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.differing_executors,
    ],
)

_numbers = itertools.count(1)

GPT2 = Model(slug="gpt2", weights_sha256="1" * 64, n_layers=12, n_heads=12, d_model=768)
IOI = Task(slug="ioi", family="ioi", description="Who was given the drink")
NUMERALS = Task(slug="sequence/numerals", family="sequence")
PROMPTS = PromptSet(
    id="a" * 64,
    task="ioi",
    seed=7,
    n_prompts=80,
    bos=False,
    tokenizer="GPT2TokenizerFast",
    model="gpt2",
    share_correct=0.96,
    share_top1=0.5,
    artifact="b" * 64,
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = Run(
    id="0" * 32,
    job="edge-attribution",
    version="0.1.0",
    configuration={"model": "gpt2", "top": 200},
    status=RunStatus.FINISHED,
    started_at=NOON,
    finished_at=NOON + timedelta(seconds=90.25),
    device="cpu",
    packages={"torch": "2.9.0"},
)
FILE = SourceFile(name="ioi.json", sha256="c" * 64, format="acdc")
DESCRIBED = Batch(models=[GPT2], tasks=[IOI, NUMERALS], prompt_sets=[PROMPTS], runs=[RUN])


def circuit(number: int = 0, **fields: Any) -> Circuit:
    """A circuit of the described model and task; another one for each number."""
    given: dict[str, Any] = {
        "model": "gpt2",
        "task": "ioi",
        "prompt_set": PROMPTS.id,
        "method": "edge-attribution",
        "parameters": {"number": number},
        "metric": "logit_difference",
        "higher_is_better": True,
        "ablation": Ablation.RESAMPLE,
        "sign": Sign.HELPS_POSITIVE,
        "level": Level.EDGE,
        "universe_size": 32_491,
        "nodes": (Node(component="a9.h6", effect=0.5, rank=1), Node(component="a10.h7")),
        "edges": (Edge(source="a9.h6", target="a10.h7", port="k", effect=-0.25, rank=1),),
        "scores": f"{number:064x}",
        **fields,
    }
    return Circuit(**given)


def record_circuit(ledger: Ledger, number: int = 0, /, **labels: Any) -> str:
    """Record one circuit with the given labels and return its id."""
    new = NewCircuit(circuit(number), labels=CircuitLabels(**labels))
    ledger.record(replace(DESCRIBED, circuits=[new]))
    return new.circuit.id


def everything() -> Batch:
    """A batch with a record of every kind."""
    found = circuit()
    edit = Edit(model="gpt2", editor="ROME", components=("m5",), circuits=(found.id,), note="été")
    return replace(
        DESCRIBED,
        circuits=[NewCircuit(found, RUN.id, FILE, CircuitLabels(title="IOI", tags=("b", "a")))],
        evaluations=[Evaluation(circuit=found.id, task="ioi", measure="faithfulness", value=0.8)],
        edits=[edit],
        outcomes=[Outcome(edit=edit.id, metric="efficacy", task="ioi", before=0.1, after=0.9)],
    )


def contents(ledger: Ledger) -> list[tuple[str, dict[str, Any]]]:
    """All rows, to compare before and after."""
    return [(table, dict(row)) for table, row in ledger.dump()]


class LedgerContract:
    # -- recording ---------------------------------------------------------------------------

    def test_a_new_ledger_has_an_id_and_no_records(self, ledger: Ledger) -> None:
        assert len(ledger.registry_id) == 32
        assert int(ledger.registry_id, 16) > 0
        assert (ledger.models(), ledger.tasks(), ledger.prompt_sets(), ledger.runs()) == ((),) * 4
        assert (ledger.circuits(), ledger.evaluations(), ledger.edits()) == ((),) * 3
        assert (ledger.pending(), ledger.pending_count()) == ((), 0)
        assert ledger.artifacts() == frozenset()

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
        assert ledger.outcomes(batch.edits[0].id) == tuple(batch.outcomes)
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
        )
        assert ledger.record(batch) == Recorded()

    def test_recording_twice_changes_nothing(self, ledger: Ledger) -> None:
        ledger.record(everything())
        once, waiting = contents(ledger), ledger.pending()
        ledger.record(everything())
        assert contents(ledger) == once
        assert ledger.pending() == waiting

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
        outcome = data.draw(strategies.outcomes(edit.id, task.slug))
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
            )
        )
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
        assert ledger.outcomes(edit.id) == (outcome,)

    def test_a_circuit_found_again_gains_the_run_and_keeps_its_labels(self, ledger: Ledger) -> None:
        ledger.record(everything())
        ledger.acknowledge(ledger.pending())
        again = RUN.model_copy(update={"id": "1" * 32, "started_at": NOON - timedelta(days=1)})
        new = NewCircuit(circuit(), again.id, labels=CircuitLabels(title="another"))
        assert ledger.record(Batch(runs=[again], circuits=[new])).circuits == ()
        entry = ledger.circuit(circuit().id)
        assert entry.runs == (RUN.id, again.id)
        assert entry.labels.title == "IOI"
        assert [(c.kind, c.key) for c in ledger.pending()] == [
            (ChangeKind.RUN, again.id),
            (ChangeKind.CIRCUIT, entry.id),
        ]

    def test_a_circuit_imported_again_gains_the_file_once(self, ledger: Ledger) -> None:
        ledger.record(everything())
        other = SourceFile(name="../ioi (1).json", sha256="d" * 64, format="acdc")
        for _ in range(2):
            ledger.record(Batch(circuits=[NewCircuit(circuit(), source_file=other)]))
        assert ledger.circuit(circuit().id).source_files == (FILE, other)

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
            ("edit", Batch(outcomes=[Outcome(edit="e" * 64, metric="m")])),
        ],
    )
    def test_a_record_that_refers_to_nothing_is_refused_with_its_whole_batch(
        self, ledger: Ledger, kind: str, batch: Batch
    ) -> None:
        ledger.record(DESCRIBED)
        before, waiting = contents(ledger), ledger.pending()
        added = replace(batch, tasks=[Task(slug="capitals", family="capitals")])
        with pytest.raises(NotFound, match=f"no {kind} '(nowhere|e+)'"):
            ledger.record(added)
        assert contents(ledger) == before
        assert ledger.pending() == waiting

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
        ],
    )
    def test_what_not_every_database_can_hold_is_refused_by_all(
        self, ledger: Ledger, batch: Batch, text: str
    ) -> None:
        with pytest.raises(BadInput, match=text):
            ledger.record(batch)
        assert (ledger.tasks(), ledger.models()) == ((), ())

    # -- labels ------------------------------------------------------------------------------

    def test_labels_are_replaced_and_the_change_waits(self, ledger: Ledger) -> None:
        old = record_circuit(ledger, 0, title="first", tags=("x", "y"))
        new = record_circuit(ledger, 1)
        ledger.acknowledge(ledger.pending())
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
        assert [(c.kind, c.key) for c in ledger.pending()] == [(ChangeKind.CIRCUIT, old)]

    def test_labels_of_or_by_an_unknown_circuit_are_refused(self, ledger: Ledger) -> None:
        known = record_circuit(ledger, 0, title="first")
        ledger.acknowledge(ledger.pending())
        with pytest.raises(NotFound, match="no circuit 'ffff"):
            ledger.relabel("f" * 64, CircuitLabels())
        with pytest.raises(NotFound, match="no circuit 'eeee"):
            ledger.relabel(known, CircuitLabels(superseded_by="e" * 64))
        with pytest.raises(BadInput, match="cannot supersede itself"):
            ledger.relabel(known, CircuitLabels(superseded_by=known))
        assert ledger.circuit(known).labels == CircuitLabels(title="first")
        assert ledger.pending_count() == 0

    def test_circuits_of_one_batch_may_supersede_each_other(self, ledger: Ledger) -> None:
        newer = circuit(1)
        older = NewCircuit(
            circuit(0),
            labels=CircuitLabels(state=CircuitState.SUPERSEDED, superseded_by=newer.id),
        )
        ledger.record(replace(DESCRIBED, circuits=[older, NewCircuit(newer)]))
        assert ledger.circuit(circuit(0).id).labels.superseded_by == newer.id

    # -- finding -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("which", "found"),
        [
            (CircuitFilter(), {0, 1, 2}),
            (CircuitFilter(task="ioi"), {0, 1}),
            (CircuitFilter(task="sequence"), {2}),
            (CircuitFilter(task="sequence/numerals"), {2}),
            (CircuitFilter(task="seq"), set()),
            (CircuitFilter(task="%"), set()),
            (CircuitFilter(model="gpt2"), {0, 1, 2}),
            (CircuitFilter(model="gpt"), set()),
            (CircuitFilter(method="published"), {2}),
            (CircuitFilter(tag="final"), {0, 2}),
            (CircuitFilter(tag="fin"), set()),
            (CircuitFilter(author="Ada"), {1}),
            (CircuitFilter(state=CircuitState.RETRACTED), {1}),
            (CircuitFilter(text="STRASSE"), {0}),
            (CircuitFilter(text="straße movers"), {0}),
            (CircuitFilter(text="movers missing"), set()),
            (CircuitFilter(text="100%"), {2}),
            (CircuitFilter(text="0_"), set()),
            (CircuitFilter(text="ΑΘΗΝΑ"), {1}),
            (CircuitFilter(text="cafe\u0301"), {1}),
            (CircuitFilter(text=""), {0, 1, 2}),
            (CircuitFilter(tag="final", task="ioi", text="name"), {0}),
        ],
    )
    def test_circuits_are_found_by_filter(
        self, ledger: Ledger, which: CircuitFilter, found: set[int]
    ) -> None:
        circuits = [
            circuit(0),
            circuit(1),
            circuit(2, task="sequence/numerals", method="published", prompt_set=None),
        ]
        labels = [
            CircuitLabels(title="Name movers of the Straße", tags=("final", "Ω")),
            CircuitLabels(
                notes=("seen in αθηνα", "at the caf\u00e9"),
                author="Ada",
                state=CircuitState.RETRACTED,
            ),
            CircuitLabels(title="100% of it", tags=("final",), author="ada"),
        ]
        new = [NewCircuit(c, labels=said) for c, said in zip(circuits, labels, strict=True)]
        ledger.record(replace(DESCRIBED, circuits=new))
        ids = {entry.id for entry in ledger.circuits(which)}
        assert ids == {circuits[number].id for number in found}

    def test_circuits_come_newest_first_and_as_many_as_asked(self, ledger: Ledger) -> None:
        ids = [record_circuit(ledger, number) for number in range(4)]
        assert [entry.id for entry in ledger.circuits()] == ids[::-1]
        newest = ledger.circuits(CircuitFilter(limit=2))
        assert [entry.id for entry in newest] == [ids[3], ids[2]]
        assert ledger.circuits(CircuitFilter(limit=0)) == ()

    def test_runs_come_newest_first_and_as_many_as_asked(self, ledger: Ledger) -> None:
        runs = [
            RUN.model_copy(
                update={"id": f"{hour:032x}", "started_at": NOON + timedelta(hours=hour)}
            )
            for hour in (2, 0, 1)
        ]
        ledger.record(Batch(runs=runs))
        assert [int(run.id, 16) for run in ledger.runs()] == [2, 1, 0]
        assert [int(run.id, 16) for run in ledger.runs(limit=1)] == [2]

    def test_models_and_tasks_come_by_slug(self, ledger: Ledger) -> None:
        slugs = ["b", "a-c", "a.b", "a", "aa", "0"]
        ledger.record(
            Batch(
                models=[Model(slug=slug) for slug in slugs],
                tasks=[Task(slug=slug, family=slug) for slug in slugs],
            )
        )
        assert [model.slug for model in ledger.models()] == sorted(slugs)
        assert [task.slug for task in ledger.tasks()] == sorted(slugs)

    def test_a_circuit_is_found_by_any_prefix_of_four_digits(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        for n_digits in (4, 12, 63, 64):
            assert ledger.circuit(key[:n_digits]).id == key
        assert ledger.circuit(key[:12].upper()).id == key

    @pytest.mark.parametrize("prefix", ["", "abc", "xyzw", "%%%%", "____", "a" * 65, "ioi"])
    def test_what_is_no_prefix_is_refused_with_what_would_be(
        self, ledger: Ledger, prefix: str
    ) -> None:
        record_circuit(ledger)
        with pytest.raises(BadInput, match="4 to 64 hexadecimal digits"):
            ledger.circuit(prefix)
        with pytest.raises(BadInput, match="4 to 64 hexadecimal digits"):
            ledger.edit(prefix)

    def test_an_unknown_prefix_names_the_nearest(self, ledger: Ledger) -> None:
        with pytest.raises(NotFound, match="no circuit 'abcd'; no circuit is stored yet"):
            ledger.circuit("abcd")
        key = record_circuit(ledger)
        mistyped = key[:7] + ("0" if key[7] != "0" else "1")
        with pytest.raises(NotFound, match=f"nearest: {key[:12]}.*'circuits list'"):
            ledger.circuit(mistyped)

    def test_an_ambiguous_prefix_lists_the_matches(self, ledger: Ledger) -> None:
        first, second = _alike(4)
        ledger.record(replace(DESCRIBED, circuits=[NewCircuit(first), NewCircuit(second)]))
        listed = ", ".join(sorted([first.id[:12], second.id[:12]]))
        with pytest.raises(BadInput, match=f"several circuits; give more digits: {listed}"):
            ledger.circuit(first.id[:4])

    def test_faithfulness_is_the_latest_on_the_circuits_own_task(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        assert ledger.circuit(key).faithfulness is None
        measured = [("ioi", 0.1), ("ioi", 0.7), ("sequence/numerals", 0.9)]
        for task, value in measured:
            one = Evaluation(circuit=key, task=task, measure="faithfulness", value=value)
            other = one.model_copy(update={"measure": "completeness", "value": 0.2})
            ledger.record(Batch(evaluations=[one, other]))
        assert ledger.circuit(key).faithfulness == 0.7

    def test_measurements_come_in_the_order_of_recording(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        values = [3.0, 1.0, 2.0, 0.5, -1e300, 5e-324]
        given = [Evaluation(circuit=key, task="ioi", measure="m", value=v) for v in values]
        ledger.record(Batch(evaluations=given[:4]))
        ledger.record(Batch(evaluations=given[4:]))
        assert [one.value for one in ledger.evaluations(key)] == values
        edit = Edit(model="gpt2", editor="ROME")
        outcomes = [Outcome(edit=edit.id, metric=name) for name in "cab"]
        ledger.record(Batch(edits=[edit], outcomes=outcomes))
        assert [one.metric for one in ledger.outcomes(edit.id)] == ["c", "a", "b"]

    def test_artifacts_are_documents_scores_and_prompts(self, ledger: Ledger) -> None:
        ledger.record(everything())
        found = circuit()
        assert ledger.artifacts() == {found.id, found.scores, PROMPTS.artifact}

    # -- the outbox --------------------------------------------------------------------------

    def test_every_change_waits_in_the_order_of_reference(self, ledger: Ledger) -> None:
        batch = everything()
        ledger.record(batch)
        waiting = ledger.pending()
        assert [(c.kind, c.key) for c in waiting] == [
            (ChangeKind.MODEL, "gpt2"),
            (ChangeKind.TASK, "ioi"),
            (ChangeKind.TASK, "sequence/numerals"),
            (ChangeKind.PROMPT_SET, PROMPTS.id),
            (ChangeKind.RUN, RUN.id),
            (ChangeKind.CIRCUIT, circuit().id),
            (ChangeKind.EVALUATION, batch.evaluations[0].id),
            (ChangeKind.EDIT, batch.edits[0].id),
        ]
        assert ledger.pending(limit=3) == waiting[:3]
        assert ledger.pending_count() == len(waiting)

    def test_acknowledging_takes_precisely_what_is_named(self, ledger: Ledger) -> None:
        ledger.record(everything())
        waiting = ledger.pending()
        ledger.acknowledge(waiting[2:4])
        assert ledger.pending() == (*waiting[:2], *waiting[4:])
        ledger.acknowledge(waiting[2:4])
        ledger.acknowledge([])
        assert ledger.pending() == (*waiting[:2], *waiting[4:])

    def test_a_change_during_projection_is_not_acknowledged_with_it(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        projected = ledger.pending()
        ledger.relabel(key, CircuitLabels(title="meanwhile"))
        ledger.acknowledge(projected)
        assert [change.key for change in ledger.pending()] == [key]

    def test_a_number_is_never_given_to_a_second_change(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        stale = ledger.pending()
        ledger.acknowledge(stale)
        ledger.relabel(key, CircuitLabels(title="new"))
        ledger.acknowledge(stale)
        assert [change.key for change in ledger.pending()] == [key]

    def test_requeueing_makes_every_record_wait_once(self, ledger: Ledger) -> None:
        ledger.record(everything())
        waiting = [(change.kind, change.key) for change in ledger.pending()]
        assert ledger.requeue_everything() == len(waiting)
        ledger.acknowledge(ledger.pending()[:3])
        assert ledger.requeue_everything() == len(waiting)
        assert [(change.kind, change.key) for change in ledger.pending()] == waiting

    def test_one_projects_at_a_time(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        with reopen() as other:
            with ledger.projecting(timeout_seconds=0):
                with (
                    pytest.raises(GraphBusy, match=r"for 0\.1 s; .*'circuits sync'"),
                    other.projecting(timeout_seconds=0.1),
                ):
                    pytest.fail("two processes were projecting at once")
                other.record(everything())
            with other.projecting(timeout_seconds=0):
                pass

    # -- backup ------------------------------------------------------------------------------

    def test_a_dump_is_of_one_moment(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        record_circuit(ledger, 0)
        before = contents(ledger)
        rows = ledger.dump()
        first = next(rows)
        with reopen() as other:
            record_circuit(other, 1)
        assert [(table, dict(row)) for table, row in itertools.chain([first], rows)] == before


def _alike(n_digits: int) -> tuple[Circuit, Circuit]:
    """Two circuits whose ids begin alike, the first that there are."""
    seen: dict[str, Circuit] = {}
    for number in itertools.count():
        one = circuit(number)
        if other := seen.get(one.id[:n_digits]):
            return other, one
        seen[one.id[:n_digits]] = one
    raise AssertionError("unreachable")
