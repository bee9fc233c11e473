"""The part of the ledger's contract about runs that measured, and about attachments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from registry.errors import BadInput, LedgerError, NotFound
from registry.files.attachments import Attachment, AttachmentOwner
from registry.ledger.base import Batch, Change, ChangeKind, Ledger, Recorded
from registry.records import Edit, Evaluation
from tests.conformance.ledger_examples import (
    DESCRIBED,
    PROMPTS,
    RUN,
    circuit,
    contents,
    everything,
    record_circuit,
)

OTHER = RUN.model_copy(update={"id": "1" * 32})
MEASURED = Evaluation(circuit=circuit().id, task="ioi", measure="completeness", value=0.25)
MADE = Edit(model="gpt2", editor="MEMIT", circuits=(circuit().id,))


def by(record: Any, run: str | None) -> Any:
    return record.model_copy(update={"run": run})


def attached(number: int = 1, **fields: Any) -> Attachment:
    given: dict[str, Any] = {
        "owner_kind": AttachmentOwner.CIRCUIT,
        "owner": circuit().id,
        "name": "plot.svg",
        "media_type": "image/svg+xml",
        "size_bytes": 2**40,
        "sha256": f"{number:064x}",
        "says": "Effects by layer, 層",
        **fields,
    }
    return Attachment(**given)


OF_LIVES = (
    "host", "pid", "process_started", "boot", "beats", "beat_at", "seen_beats", "seen_at", "stages",
)  # fmt: skip
"""Columns of runs that ledgers before revision 0004 lack."""


class ProvenanceContract:
    # -- runs --------------------------------------------------------------------------------

    def test_a_run_is_no_part_of_what_it_measured_or_made(self, ledger: Ledger) -> None:
        assert by(MEASURED, RUN.id).id == MEASURED.id
        assert by(MADE, RUN.id).id == MADE.id
        record_circuit(ledger)
        batch = Batch(evaluations=[by(MEASURED, RUN.id)], edits=[by(MADE, RUN.id)])
        ledger.record(batch)
        assert (ledger.evaluations(), ledger.edits()) == (
            tuple(batch.evaluations),
            tuple(batch.edits),
        )

    def test_what_another_run_measures_alike_is_no_second_record(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        ledger.record(
            Batch(runs=[OTHER], evaluations=[by(MEASURED, RUN.id)], edits=[by(MADE, RUN.id)])
        )
        before, revision = contents(ledger), ledger.revision()
        again = Batch(evaluations=[by(MEASURED, OTHER.id)], edits=[by(MADE, OTHER.id)])
        assert ledger.record(again) == Recorded()
        assert ledger.record(Batch(evaluations=[MEASURED], edits=[MADE])) == Recorded()
        assert (contents(ledger), ledger.revision()) == (before, revision)

    def test_a_record_without_a_run_gains_the_first_that_it_comes_with(
        self, ledger: Ledger
    ) -> None:
        record_circuit(ledger)
        ledger.record(Batch(runs=[OTHER], evaluations=[MEASURED], edits=[MADE]))
        before = ledger.revision()
        named = Batch(
            evaluations=[MEASURED, by(MEASURED, RUN.id), by(MEASURED, OTHER.id)],
            edits=[by(MADE, RUN.id), MADE],
        )
        assert ledger.record(named) == Recorded()
        assert [one.run for one in ledger.evaluations()] == [RUN.id]
        assert [edit.run for edit in ledger.edits()] == [RUN.id]
        assert ledger.changes_since(before.number).changes == (
            Change(ChangeKind.EDIT, MADE.id),
            Change(ChangeKind.EVALUATION, MEASURED.id),
        )

    def test_of_records_that_come_twice_at_once_the_run_is_kept(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        ledger.record(
            Batch(
                runs=[OTHER],
                evaluations=[MEASURED, by(MEASURED, OTHER.id), by(MEASURED, RUN.id)],
                edits=[by(MADE, RUN.id), by(MADE, OTHER.id)],
            )
        )
        assert [one.run for one in ledger.evaluations()] == [OTHER.id]
        assert [one.run for one in ledger.edits()] == [RUN.id]

    @pytest.mark.parametrize("field", ["evaluations", "edits"])
    def test_a_run_that_is_not_there_is_refused(self, ledger: Ledger, field: str) -> None:
        record_circuit(ledger)
        record = by(MEASURED if field == "evaluations" else MADE, "e" * 32)
        batch = Batch.of(record)
        assert getattr(batch, field) == [record]
        before = contents(ledger)
        with pytest.raises(NotFound, match="no run 'eeee"):
            ledger.record(batch)
        assert contents(ledger) == before

    # -- attachments -------------------------------------------------------------------------

    def test_attachments_come_back_equal_and_in_order(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        ledger.record(Batch(edits=[MADE]))
        owners = {
            AttachmentOwner.CIRCUIT: circuit().id,
            AttachmentOwner.RUN: RUN.id,
            AttachmentOwner.EDIT: MADE.id,
            AttachmentOwner.PROMPT_SET: PROMPTS.id,
        }
        batch = Batch.of(
            *(
                attached(number, owner_kind=kind, owner=owner, name=name)
                for number, (kind, owner) in enumerate(owners.items())
                for name in ("größe.png", "a.png")
            )
        )
        assert ledger.attachments() == ()
        recorded = ledger.record(batch)
        assert recorded == Recorded(attachments=tuple(batch.attachments))
        assert recorded.anything
        assert ledger.attachments() == tuple(batch.attachments)
        for owner in owners.values():
            mine = tuple(one for one in batch.attachments if one.owner == owner)
            assert ledger.attachments(owner) == mine
        assert ledger.attachments("0" * 64) == ()

    def test_attaching_again_changes_nothing_and_makes_no_revision(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        revision = ledger.revision()
        ledger.record(Batch(attachments=[attached(), attached(says="said later")]))
        before = contents(ledger)
        assert ledger.record(Batch(attachments=[attached(media_type="text/css")])) == Recorded()
        assert contents(ledger) == before
        assert ledger.attachments() == (attached(),)
        assert ledger.revision() == revision

    def test_another_content_under_a_name_is_refused_with_its_whole_batch(
        self, ledger: Ledger
    ) -> None:
        record_circuit(ledger)
        ledger.record(Batch(attachments=[attached()]))
        before = contents(ledger)
        for batch in (
            Batch(attachments=[attached(2, name="new.svg"), attached(2)]),
            Batch(attachments=[attached(2, name="two.svg"), attached(3, name="two.svg")]),
        ):
            with pytest.raises(BadInput, match=r"another file '(plot|two).svg' attached"):
                ledger.record(batch)
        assert contents(ledger) == before
        ledger.record(replace(DESCRIBED, attachments=[attached(2, owner_kind="run", owner=RUN.id)]))
        assert len(ledger.attachments()) == 2

    @pytest.mark.parametrize("kind", list(AttachmentOwner))
    def test_an_owner_that_is_not_there_is_refused(
        self, ledger: Ledger, kind: AttachmentOwner
    ) -> None:
        record_circuit(ledger)
        digits = 32 if kind is AttachmentOwner.RUN else 64
        lost = attached(owner_kind=kind, owner="e" * digits)
        with pytest.raises(NotFound, match=f"no {kind.words} 'e+'"):
            ledger.record(Batch(attachments=[lost]))
        # An id of one kind is none of another.
        wrong = attached(owner_kind="edit")
        with pytest.raises(NotFound, match="no edit"):
            ledger.record(Batch(attachments=[wrong]))

    def test_contents_of_attachments_are_among_the_artifacts(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        before = ledger.artifacts()
        ledger.record(Batch(attachments=[attached(77)]))
        assert ledger.artifacts() - before == {f"{77:064x}"}

    def test_owners_are_found_by_the_start_of_their_ids(self, ledger: Ledger) -> None:
        record_circuit(ledger)
        ledger.record(Batch(edits=[MADE], runs=[OTHER.model_copy(update={"id": "a" * 32})]))
        assert ledger.owner(circuit().id[:8].upper()) == (AttachmentOwner.CIRCUIT, circuit().id)
        assert ledger.owner(RUN.id) == (AttachmentOwner.RUN, RUN.id)
        assert ledger.owner(MADE.id[:10]) == (AttachmentOwner.EDIT, MADE.id)
        assert ledger.owner(PROMPTS.id[:40]) == (AttachmentOwner.PROMPT_SET, PROMPTS.id)
        with pytest.raises(BadInput, match=r"give more digits: run a+, prompt set a+"):
            ledger.owner("aaaa")
        with pytest.raises(NotFound, match="no circuit, run, edit or prompt set 'ffff'"):
            ledger.owner("ffff")
        with pytest.raises(BadInput, match="4 to 64 hexadecimal digits"):
            ledger.owner("abc")

    # -- moving ------------------------------------------------------------------------------

    def test_rows_of_revision_0003_are_taken_without_runs(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        ledger.record(everything())
        later = ("attachments", "annotations")
        rows = [(table, dict(row)) for table, row in ledger.dump() if table not in later]
        rows[0][1]["version_num"] = "0003"
        for table, row in rows:
            if table in ("evaluations", "edits"):
                del row["run"]
            if table == "runs":
                for column in OF_LIVES:
                    del row[column]
        other.load(rows)
        assert [by(one, None) for one in ledger.evaluations()] == list(other.evaluations())
        assert [by(one, None) for one in ledger.edits()] == list(other.edits())
        assert other.attachments() == ()
        assert other.annotations() == ()

    def test_rows_of_the_present_revision_have_to_name_their_runs(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        ledger.record(everything())
        rows = [(table, dict(row)) for table, row in ledger.dump()]
        for table, row in rows:
            if table == "evaluations":
                del row["run"]
        with pytest.raises(LedgerError, match="does not know"):
            other.load(rows)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "../x"}, {"name": "a\\b"}, {"name": ".bashrc"}, {"name": "a\nb"},
            {"name": "C:x"}, {"name": "x" * 201}, {"name": ""}, {"owner": "e" * 64},
            {"owner_kind": "model"}, {"sha256": "../" + "0" * 61}, {"media_type": "text"},
            {"size_bytes": -1},
        ],
    )  # fmt: skip
    def test_a_hostile_attachment_of_a_backup_is_refused(
        self, ledger: Ledger, other: Ledger, change: dict[str, Any]
    ) -> None:
        record_circuit(ledger)
        ledger.record(Batch(attachments=[attached()]))
        rows = [
            (table, {**row, **change} if table == "attachments" else row)
            for table, row in ledger.dump()
        ]
        with pytest.raises(LedgerError, match="the backup has"):
            other.load(rows)
        assert other.attachments() == ()
