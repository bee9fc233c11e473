"""What every ledger owes, as tests; ``test_ledger.py`` runs them over both databases."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from registry.errors import BadInput, GraphBusy, LedgerError, NotFound
from registry.ledger.base import (
    Batch,
    Change,
    ChangeKind,
    CircuitFilter,
    Delta,
    Ledger,
    NewCircuit,
    OutcomeRow,
    Revision,
)
from registry.records import (
    CircuitLabels,
    CircuitState,
    Edit,
    Evaluation,
    Model,
    Outcome,
    Task,
)
from tests.conformance.ledger_examples import (
    DESCRIBED,
    GPT2,
    NOON,
    PROMPTS,
    RUN,
    alike,
    circuit,
    contents,
    everything,
    record_circuit,
)
from tests.conformance.ledger_provenance import ProvenanceContract
from tests.conformance.ledger_recording import RecordingContract


class LedgerContract(RecordingContract, ProvenanceContract):
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
            (CircuitFilter(prompt_set=PROMPTS.id), {0, 1}),
            (CircuitFilter(prompt_set="e" * 64), set()),
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

    def test_runs_of_some_ids_come_newest_first_too(self, ledger: Ledger) -> None:
        runs = [
            RUN.model_copy(update={"id": f"{n:032x}", "started_at": NOON + timedelta(hours=n % 7)})
            for n in range(1_200)
        ]
        ledger.record(Batch(runs=runs))
        wanted = {run.id for run in runs[100:]}
        found = ledger.runs([*wanted, "f" * 32, runs[100].id])
        assert found == tuple(run for run in ledger.runs() if run.id in wanted)
        assert ledger.runs(wanted, limit=3) == found[:3]
        assert ledger.runs([]) == ()

    def test_a_model_is_found_by_its_whole_slug(self, ledger: Ledger) -> None:
        with pytest.raises(NotFound, match="no model 'gpt2'; nothing is recorded yet"):
            ledger.model("gpt2")
        ledger.record(DESCRIBED)
        assert ledger.model("gpt2") == GPT2
        for name in ("gpt", "GPT2", "gpt2 "):
            with pytest.raises(NotFound, match=f"no model '{name}'; (nearest|recorded are): gpt2"):
                ledger.model(name)

    def test_runs_and_prompt_sets_are_found_by_any_prefix_of_four_digits(
        self, ledger: Ledger
    ) -> None:
        other = RUN.model_copy(update={"id": "0" * 31 + "1"})
        ledger.record(replace(DESCRIBED, runs=[RUN, other]))
        assert ledger.run(other.id.upper()) == other
        assert ledger.prompt_set("aaaa") == ledger.prompt_set(PROMPTS.id) == PROMPTS
        with pytest.raises(BadInput, match="several runs; give more digits: 0000"):
            ledger.run("0000")
        with pytest.raises(NotFound, match=r"no run '0001'; nearest: 0000.*'circuits runs'"):
            ledger.run("0001")
        with pytest.raises(
            NotFound, match=r"no prompt set 'aaab'; nearest: aaaa.*circuits prompts"
        ):
            ledger.prompt_set("aaab")
        for ask in (ledger.run, ledger.prompt_set):
            with pytest.raises(BadInput, match="4 to 64 hexadecimal digits"):
                ask("ioi")

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
            assert ledger.circuit(key[:n_digits]).id == ledger.circuit_id(key[:n_digits]) == key
        assert ledger.circuit(key[:12].upper()).id == key

    @pytest.mark.parametrize("prefix", ["", "abc", "xyzw", "%%%%", "____", "a" * 65, "ioi"])
    def test_what_is_no_prefix_is_refused_with_what_would_be(
        self, ledger: Ledger, prefix: str
    ) -> None:
        record_circuit(ledger)
        with pytest.raises(BadInput, match="4 to 64 hexadecimal digits"):
            ledger.circuit(prefix)
        with pytest.raises(BadInput, match="4 to 64 hexadecimal digits"):
            ledger.circuit_id(prefix)
        with pytest.raises(BadInput, match="4 to 64 hexadecimal digits"):
            ledger.edit(prefix)

    def test_an_unknown_prefix_names_the_nearest(self, ledger: Ledger) -> None:
        with pytest.raises(NotFound, match="no circuit 'abcd'; no circuit is stored yet"):
            ledger.circuit("abcd")
        key = record_circuit(ledger)
        mistyped = key[:7] + ("0" if key[7] != "0" else "1")
        with pytest.raises(NotFound, match=f"nearest: {key[:12]}.*'circuits list'"):
            ledger.circuit(mistyped)
        with pytest.raises(NotFound, match=f"nearest: {key[:12]}.*'circuits list'"):
            ledger.circuit_id(mistyped)

    def test_an_ambiguous_prefix_lists_the_matches(self, ledger: Ledger) -> None:
        first, second = alike(4)
        ledger.record(replace(DESCRIBED, circuits=[NewCircuit(first), NewCircuit(second)]))
        listed = ", ".join(sorted([first.id[:12], second.id[:12]]))
        with pytest.raises(BadInput, match=f"several circuits; give more digits: {listed}"):
            ledger.circuit(first.id[:4])
        with pytest.raises(BadInput, match=f"several circuits; give more digits: {listed}"):
            ledger.circuit_id(first.id[:4])

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

    def test_measurements_are_found_by_the_prompts_they_were_made_on(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        given = [
            Evaluation(circuit=key, task="ioi", measure="m", value=value, prompt_set=prompts)
            for value, prompts in ((3.0, PROMPTS.id), (1.0, None), (2.0, PROMPTS.id))
        ]
        ledger.record(Batch(evaluations=given))
        assert ledger.evaluations_on(PROMPTS.id) == (given[0], given[2])
        assert ledger.evaluations_on("e" * 64) == ()

    def test_many_edits_are_found_with_what_each_had(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        edits = [Edit(model="gpt2", editor="ROME", note=str(number)) for number in range(1_200)]
        measured = {edit.id: ("b", "a")[: at % 3] for at, edit in enumerate(edits)}
        outcomes = [Outcome(edit=key, metric=m) for key, some in measured.items() for m in some]
        ledger.record(Batch(edits=edits, outcomes=outcomes))
        wanted = [edit.id for edit in edits[100:]]
        asked = [*wanted, wanted[0], "0" * 64]
        assert sorted(edit.id for edit in ledger.edits(asked)) == sorted(wanted)
        found = ledger.outcomes_of(asked)
        assert {key: tuple(one.metric for one in some) for key, some in found.items()} == {
            key: measured[key] for key in wanted if measured[key]
        }
        assert (ledger.edits([]), dict(ledger.outcomes_of([]))) == ((), {})
        rows = list(ledger.outcome_rows(asked))
        read = [one for some in found.values() for one in some]
        assert sorted((r.edit, r.id, r.metric, r.protocol) for r in rows) == sorted(
            (one.edit, one.id, one.metric, one.protocol) for one in read
        )
        assert [row for row in rows if row.edit == wanted[1]] == [
            tuple(getattr(one, name) for name in OutcomeRow._fields) for one in found[wanted[1]]
        ]
        assert list(ledger.outcome_rows([])) == []

    def test_artifacts_are_documents_scores_and_prompts(self, ledger: Ledger) -> None:
        ledger.record(everything())
        found = circuit()
        assert ledger.artifacts() == {found.id, found.scores, PROMPTS.artifact, "9" * 64}

    # -- what graphs lack --------------------------------------------------------------------

    def test_every_change_is_named_in_the_order_of_reference(self, ledger: Ledger) -> None:
        batch = everything()
        ledger.record(batch)
        assert ledger.changes_since(0).changes == (
            Change(ChangeKind.MODEL, "gpt2"),
            Change(ChangeKind.TASK, "ioi"),
            Change(ChangeKind.TASK, "sequence/numerals"),
            Change(ChangeKind.PROMPT_SET, PROMPTS.id),
            Change(ChangeKind.RUN, RUN.id),
            Change(ChangeKind.CIRCUIT, circuit().id),
            Change(ChangeKind.EDIT, batch.edits[0].id),
            Change(ChangeKind.EVALUATION, batch.evaluations[0].id),
        )
        assert ledger.count_since(0) == 8

    def test_each_writing_transaction_is_a_revision(self, ledger: Ledger) -> None:
        assert ledger.revision() == Revision()
        ledger.record(everything())
        first = ledger.revision()
        ledger.record(everything())  # which changes nothing
        assert ledger.revision() == first
        ledger.relabel(circuit().id, CircuitLabels(title="new"))
        second = ledger.revision()
        assert (first.number, second.number) == (1, 2)
        assert len({first.token, second.token, ""}) == 3
        changed = (Change(ChangeKind.CIRCUIT, circuit().id),)
        assert ledger.changes_since(first.number) == Delta(changed, second)
        assert ledger.changes_since(second.number) == Delta((), second)
        assert (ledger.count_since(1), ledger.count_since(2)) == (1, 0)

    def test_a_record_that_changed_twice_is_named_once(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        ledger.relabel(key, CircuitLabels(title="new"))
        named = [change for change in ledger.changes_since(0).changes if change.key == key]
        assert named == [Change(ChangeKind.CIRCUIT, key)]

    def test_a_ledger_knows_the_revisions_it_went_through(self, ledger: Ledger) -> None:
        key = record_circuit(ledger)
        first = ledger.revision()
        ledger.relabel(key, CircuitLabels(title="new"))
        for revision in (Revision(), first, ledger.revision()):
            assert ledger.has_revision(revision)
        assert not ledger.has_revision(Revision(first.number, "another token"))
        assert not ledger.has_revision(Revision(99, first.token))

    def test_how_far_graphs_are_is_remembered_by_address(self, ledger: Ledger) -> None:
        assert ledger.projected("kglite:///a") == 0
        ledger.note_projected("kglite:///a", 3)
        ledger.note_projected("bolt://b#c", 1)
        ledger.note_projected("kglite:///a", 4)
        assert (ledger.projected("kglite:///a"), ledger.projected("bolt://b#c")) == (4, 1)

    def test_waiting_for_the_projector_ends_when_there_is_no_need(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        with reopen() as other, ledger.projecting(timeout_seconds=0) as held:
            assert held is not None
            held()
            asked = iter([False, False, True])
            with other.projecting(timeout_seconds=60, unless=lambda: next(asked)) as held:
                assert held is None
            assert next(asked, "asked until it said so") == "asked until it said so"
            with pytest.raises(GraphBusy), ledger.projecting(timeout_seconds=0):
                pytest.fail("who did not wait had taken the right away")
        with ledger.projecting(timeout_seconds=0, unless=lambda: True) as held:
            assert held is not None  # nobody to wait for

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

    def test_a_closed_ledger_stays_closed(self, reopen: Callable[[], Ledger]) -> None:
        closed = reopen()
        closed.close()
        closed.close()
        with pytest.raises(LedgerError, match="is closed"):
            closed.record(DESCRIBED)
        with pytest.raises(LedgerError, match="is closed"):
            closed.circuits()

    def test_a_dump_is_of_one_moment(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        record_circuit(ledger, 0)
        before = contents(ledger)
        rows = ledger.dump()
        first = next(rows)
        with reopen() as other:
            record_circuit(other, 1)
        assert [(table, dict(row)) for table, row in itertools.chain([first], rows)] == before
