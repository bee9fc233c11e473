"""The part of the ledger's contract that is about finding runs and what they made."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from registry.ledger.base import Batch, Ledger, NewCircuit, RunFilter
from registry.processes import this_process
from registry.records import Evaluation, Run, RunStatus
from tests.conformance.ledger_examples import DESCRIBED, NOON, RUN, circuit

HOUR = timedelta(hours=1)


def run(number: int, **fields: Any) -> Run:
    given = {"job": "plain", "version": "1", "started_at": NOON + number * HOUR, **fields}
    return Run(id=f"{number:032x}", **given)


class RunsContract:
    @pytest.mark.parametrize(
        ("which", "found"),
        [
            (RunFilter(), {1, 2, 3, 4}),
            (RunFilter(status=RunStatus.RUNNING), {3, 4}),
            (RunFilter(job="plain"), {1, 3, 4}),
            (RunFilter(job="pla"), set()),
            (RunFilter(models=frozenset({"gpt2"})), {1, 2}),
            (RunFilter(models=frozenset({"pythia", "x"})), {3}),
            (RunFilter(task="ioi"), {1, 2}),
            (RunFilter(task="IOI"), {1, 2}),
            (RunFilter(task="sequence"), {2, 3}),
            (RunFilter(task="sequence/months"), {3}),
            (RunFilter(task="seq"), set()),
            (RunFilter(task="%"), set()),
            (RunFilter(since=NOON + 3 * HOUR), {3, 4}),
            (RunFilter(since=NOON + 3 * HOUR, status=RunStatus.RUNNING, task="sequence"), {3}),
        ],
    )
    def test_runs_are_found_by_what_they_were_told_and_made(
        self, ledger: Ledger, which: RunFilter, found: set[int]
    ) -> None:
        ended = {"status": RunStatus.FINISHED}
        runs = [
            run(1, configuration={"model": "gpt2", "task": "ioi"}, **ended),
            run(2, job="transfer", **ended),
            run(3, configuration={"model": "pythia", "task": "sequence/months", "top": [1]}),
            run(4, configuration={"model": ["gpt2"], "task": None, "tasks": ["ioi"]}),
        ]
        made = [circuit(), circuit(1, task="sequence/numerals")]
        new = [NewCircuit(one, runs[1].id) for one in made]
        ledger.record(replace(DESCRIBED, runs=runs, circuits=new))
        page = ledger.runs_page(which, limit=10)
        assert [int(one.id, 16) for one in page.items] == sorted(found, reverse=True)
        assert page.after is None

    def test_what_a_run_made_is_what_names_it(self, ledger: Ledger) -> None:
        begun = RUN.model_copy(update={"status": RunStatus.RUNNING})
        other = run(9)
        ledger.record(replace(DESCRIBED, runs=[begun, other], processes={begun.id: this_process()}))
        found, unrelated = circuit(), circuit(1)

        def measured(value: float, by: str | None = None) -> Evaluation:
            return Evaluation(
                circuit=found.id, task="ioi", measure="faithfulness", value=value, run=by
            )

        ledger.record(
            Batch(
                runs=[RUN],
                circuits=[NewCircuit(found, RUN.id), NewCircuit(unrelated)],
                evaluations=[measured(0.75, RUN.id), measured(0.5)],
            )
        )
        ledger.record(Batch(evaluations=[measured(0.25)]))
        made = ledger.made_by(RUN.id)
        assert [entry.id for entry in made.circuits] == [found.id]
        assert made.evaluations == (measured(0.75, RUN.id),)
        assert made.edits == ()
        assert ledger.made_by(other.id) == replace(made, circuits=(), evaluations=())
