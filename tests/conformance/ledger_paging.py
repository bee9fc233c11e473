"""The part of the ledger's contract that is about lists by pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from registry.errors import BadInput
from registry.ledger import tables
from registry.ledger.base import (
    Batch,
    CircuitFilter,
    EditFilter,
    Ledger,
    NewCircuit,
    Page,
    PromptSetFilter,
)
from registry.ledger.engine import writing
from registry.ledger.sql import SqlLedger
from registry.records import CircuitLabels, Edit, Evaluation, Outcome, Run, RunStatus
from tests.conformance.ledger_examples import DESCRIBED, NOON, PROMPTS, RUN, circuit, contents

FIRST = circuit()
EDIT = Edit(model="gpt2", editor="ROME", circuits=(FIRST.id,))
Record = Callable[[Ledger, int], str]
Ask = Callable[..., Page[Any]]


def add_circuit(ledger: Ledger, number: int) -> str:
    labels = CircuitLabels(tags=("even",) if number % 2 == 0 else ())
    ledger.record(Batch(circuits=[NewCircuit(circuit(number), labels=labels)]))
    return circuit(number).id


def add_run(ledger: Ledger, number: int) -> str:
    # Two runs of each moment.
    at = NOON + timedelta(hours=number // 2)
    run = Run(id=f"{number * 7919 % 4093:032x}", job="plain", version="1", started_at=at)
    ledger.record(Batch(runs=[run]))
    return run.id


def add_evaluation(ledger: Ledger, number: int) -> str:
    one = Evaluation(circuit=FIRST.id, task="ioi", measure="m", value=float(number))
    ledger.record(Batch(evaluations=[one]))
    return one.id


def add_edit(ledger: Ledger, number: int) -> str:
    edit = EDIT.model_copy(update={"note": str(number)})
    ledger.record(Batch(edits=[edit]))
    return edit.id


def add_outcome(ledger: Ledger, number: int) -> str:
    one = Outcome(edit=EDIT.id, metric=f"m{number}")
    ledger.record(Batch(outcomes=[one]))
    return one.id


def add_prompt_set(ledger: Ledger, number: int) -> str:
    key = f"{number * 7919 % 4093:064x}"
    ledger.record(Batch(prompt_sets=[PROMPTS.model_copy(update={"id": key, "artifact": None})]))
    return key


LISTS: dict[str, tuple[Record, Callable[[Ledger], Ask]]] = {
    "circuits": (add_circuit, lambda ledger: ledger.circuits_page),
    "runs": (add_run, lambda ledger: ledger.runs_page),
    "evaluations": (add_evaluation, lambda ledger: ledger.evaluations_page),
    "edits": (add_edit, lambda ledger: ledger.edits_page),
    "outcomes": (add_outcome, lambda ledger: ledger.outcomes_page),
    "prompt sets": (add_prompt_set, lambda ledger: ledger.prompt_sets_page),
}


def relabel(ledger: Ledger, key: str) -> None:
    ledger.relabel(key, CircuitLabels(title="Seen again"))


def end_run(ledger: Ledger, key: str) -> None:
    (run,) = ledger.runs([key])
    changes = {"status": RunStatus.FINISHED, "finished_at": NOON + timedelta(days=9)}
    ledger.record(Batch(runs=[run.model_copy(update=changes)]))


def give_evaluation_a_run(ledger: Ledger, key: str) -> None:
    (one,) = (each for each in ledger.evaluations() if each.id == key)
    ledger.record(Batch(runs=[RUN], evaluations=[one.model_copy(update={"run": RUN.id})]))


def give_edit_a_run(ledger: Ledger, key: str) -> None:
    edit = ledger.edit(key).model_copy(update={"run": RUN.id})
    ledger.record(Batch(runs=[RUN], edits=[edit]))


def record_outcome_again(ledger: Ledger, key: str) -> None:
    (one,) = (each for each in ledger.outcomes(EDIT.id) if each.id == key)
    ledger.record(Batch(outcomes=[one]))


CHANGES: dict[str, Callable[[Ledger, str], None]] = {
    "circuits": relabel,
    "runs": end_run,
    "evaluations": give_evaluation_a_run,
    "edits": give_edit_a_run,
    "outcomes": record_outcome_again,
}
"""How a record of each kind changes after it was recorded. Prompt sets that are filled in move."""
MOMENTS = ("circuits", "evaluations", "edits", "outcomes")


def pages(ask: Ask, limit: int) -> Iterator[list[str]]:
    """The ids on each page."""
    after: str | None = None
    while True:
        page = ask(limit=limit, after=after)
        assert len(page.items) <= limit
        yield [one.id for one in page.items]
        if page.after is None:
            return
        after = page.after


def forged(own: str) -> list[str]:
    """Positions like one of a list, with values that no row has."""
    name, *values = json.loads(base64.urlsafe_b64decode(own + "=" * (-len(own) % 4)))
    written = [json.dumps([name, *values[:-1], last]) for last in ("\ud800", "a\x00", None, 7)]
    out_of_range = [["0001-01-01T00:00:00+23:00", *values[1:]], [2**63, *values[1:]]]
    written += [json.dumps([name, *some]) for some in out_of_range if len(some) > 1]
    return [base64.urlsafe_b64encode(one.encode()).decode() for one in (*written, "[" * 90_000)]


def at_one_moment(ledger: Ledger) -> None:
    """As if all had been recorded within one tick of the clock."""
    assert isinstance(ledger, SqlLedger)
    with writing(ledger._engine) as connection:
        for name in MOMENTS:
            connection.execute(update(tables.metadata.tables[name]).values(recorded_at=NOON))
        connection.execute(update(tables.runs).values(started_at=NOON))


class PagingContract:
    @pytest.fixture
    def described(self, ledger: Ledger) -> Ledger:
        """A ledger with a circuit and an edit, which the lists of these begin with."""
        ledger.record(replace(DESCRIBED, runs=[], circuits=[NewCircuit(FIRST)], edits=[EDIT]))
        return ledger

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    @pytest.mark.parametrize("kind", LISTS)
    def test_pages_give_all_once_newest_first(
        self, described: Ledger, kind: str, limit: int
    ) -> None:
        add, of = LISTS[kind]
        ask = of(described)
        there = [one.id for one in ask().items]
        added = [add(described, number) for number in range(1, 8)]
        found = [key for page in pages(ask, limit) for key in page]
        assert found == [one.id for one in ask().items]
        assert sorted(found) == sorted({*there, *added})
        if kind != "runs":  # of which two are of one moment here
            assert found == [*added[::-1], *there]

    @pytest.mark.parametrize("kind", LISTS)
    def test_what_is_of_one_moment_is_given_once_too(self, described: Ledger, kind: str) -> None:
        add, of = LISTS[kind]
        for number in range(1, 8):
            add(described, number)
        at_one_moment(described)
        for limit in (1, 2, 3):
            found = [key for page in pages(of(described), limit) for key in page]
            assert found == [one.id for one in of(described)().items]
            assert len(found) == len(set(found)) >= 7

    @pytest.mark.parametrize("kind", LISTS)
    def test_what_comes_between_two_pages_moves_nothing(
        self, described: Ledger, kind: str, reopen: Callable[[], Ledger]
    ) -> None:
        add, of = LISTS[kind]
        for number in range(1, 8):
            add(described, number)
        before = [one.id for one in of(described)().items]
        found: list[str] = []
        with reopen() as elsewhere:
            for number, page in enumerate(pages(of(described), 2)):
                found += page
                add(elsewhere, 100 + number)
        assert found == before

    @pytest.mark.parametrize("place", ["on a page that was read", "on a later page"])
    @pytest.mark.parametrize("kind", CHANGES)
    def test_what_changes_between_two_pages_stays_in_its_place(
        self, described: Ledger, kind: str, place: str, reopen: Callable[[], Ledger]
    ) -> None:
        add, of = LISTS[kind]
        for number in range(1, 8):
            add(described, number)
        before = [one.id for one in of(described)().items]
        found: list[str] = []
        with reopen() as elsewhere:
            for page in pages(of(described), 2):
                found += page
                seen, later = before[: len(found)], before[len(found) :]
                for key in seen[-1:] if place == "on a page that was read" else later[:1]:
                    CHANGES[kind](elsewhere, key)
        assert found == before

    def test_filters_hold_on_every_page(self, described: Ledger) -> None:
        keys = [add_circuit(described, number) for number in range(1, 8)]
        even = CircuitFilter(tag="even", limit=1)

        def ask(**place: Any) -> Page[Any]:
            return described.circuits_page(even, **place)

        assert list(pages(ask, 2)) == [[keys[5], keys[3]], [keys[1]]]
        for number in range(1, 4):
            add_edit(described, number)
            add_prompt_set(described, number)
        other = Edit(model="gpt2", editor="MEMIT")
        described.record(Batch(edits=[other]))
        aimed = described.edits_page(EditFilter(circuit=FIRST.id, model="gpt2")).items
        assert len(aimed) == 4
        assert other not in aimed
        assert described.edits_page(EditFilter(circuit=keys[0])).items == ()
        assert described.edits_page(EditFilter(model="pythia-70m")).items == ()
        assert len(described.prompt_sets_page(PromptSetFilter(task="ioi", model="gpt2")).items) == 4
        assert described.prompt_sets_page(PromptSetFilter(task="sequence")).items == ()
        assert described.prompt_sets_page(PromptSetFilter(model="pythia-70m")).items == ()
        add_evaluation(described, 1)
        assert len(described.evaluations_page(FIRST.id).items) == 1
        assert described.evaluations_page(keys[0]).items == ()
        add_outcome(described, 1)
        assert len(described.outcomes_page(EDIT.id).items) == 1
        assert described.outcomes_page(other.id).items == ()

    def test_prompt_sets_of_a_restored_ledger_are_all_given(
        self, described: Ledger, other: Ledger
    ) -> None:
        for number in range(1, 6):
            add_prompt_set(described, number)
        other.load(contents(described))
        found = [key for page in pages(other.prompt_sets_page, 2) for key in page]
        assert sorted(found) == sorted(one.id for one in other.prompt_sets())

    @pytest.mark.parametrize("kind", LISTS)
    def test_a_place_that_is_none_is_refused(self, described: Ledger, kind: str) -> None:
        add, of = LISTS[kind]
        other = "runs" if kind != "runs" else "circuits"
        for number in range(1, 4):
            add(described, number)
            LISTS[other][0](described, number + 20)
        foreign = LISTS[other][1](described)(limit=1).after
        own = of(described)(limit=1).after
        assert foreign is not None
        assert own is not None
        wrong = (
            "",
            "x",
            "=",
            "é",
            "e30",
            "W10",
            own[:-3],
            own + "AAAA",
            foreign,
            "WyJydW5zIiwxLDJd",
            *forged(own),
        )
        for place in wrong:
            with pytest.raises(BadInput, match=f"is not a position in the list of {kind}"):
                of(described)(limit=1, after=place)
        for limit in (0, -1):
            with pytest.raises(BadInput, match="at least 1 row"):
                of(described)(limit=limit)
