"""Roles that are found later: said of a circuit's nodes, changed, taken back, found, carried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from registry import Registry
from registry.errors import BadIdentifier, NotFound
from registry.limits import MOST_SCORES
from registry.records import Annotation, Circuit, Level, Node, Run
from registry.settings.local import create_home, load_settings
from tests import examples

BY_HAND = Circuit(
    model="gpt2", task="ioi", method="published", level=Level.NODE,
    nodes=(Node(component="a9.h6", position="END", role="name mover"),
           Node(component="a9.h6", position="S2"), Node(component="a5.h5")),
)  # fmt: skip
LATER = Run(id="ab" * 16, job="head-functions", version="1", started_at="2026-03-01T12:00:00Z")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.init(tmp_path / "registry") as opened:
        opened.record(examples.GPT2, *examples.TASKS, LATER, BY_HAND)
        yield opened


def said(registry: Registry) -> list[tuple[str, str, str]]:
    """Node, role and source of what is said of the circuit."""
    return [(one.node, one.role, one.said_by) for one in registry.annotations(BY_HAND.id)]


def in_graph(registry: Registry) -> list[tuple[str, str, str]]:
    """Component, role and source of what the graph says was said later."""
    rows = registry.query("components-by-role", origin="annotation")
    return [(row["component"], row["role"], source) for row in rows for source in row["said_by"]]


class TestSaying:
    def test_a_role_is_said_and_found(self, registry: Registry) -> None:
        one = registry.annotate(
            BY_HAND.id[:8], "gpt2/a5.h5", "induction", by="Ada", run="abab", scores={"match": 1}
        )
        assert one.run == LATER.id
        assert registry.annotations(BY_HAND.id[:8]) == [one]
        (row,) = registry.query("components-by-role", role="Induction")
        assert (row["component"], row["origin"]) == ("gpt2/a5.h5", "annotation")
        assert (row["said_by"], row["circuits"]) == (["Ada"], [BY_HAND.id])

    def test_the_circuit_is_the_same_one(self, registry: Registry) -> None:
        registry.annotate(BY_HAND.id, "a5.h5", "induction", by="Ada")
        assert registry.record(BY_HAND).circuits == ()
        assert registry.circuit(BY_HAND.id).circuit == BY_HAND
        assert len(registry.circuits()) == 1

    def test_a_source_that_speaks_again_is_heard_again(self, registry: Registry) -> None:
        registry.annotate(BY_HAND.id, "a9.h6", "mover", by="Ada")
        registry.annotate(BY_HAND.id, "a9.h6", "copier", by="a paper")
        registry.annotate(BY_HAND.id, "a9.h6", "backup mover", by="Ada")
        registry.annotate(BY_HAND.id, "a9.h6", "inhibitor", by="Ada", also=True)
        registry.annotate(BY_HAND.id, "a9.h6@END", "mover", by="Ada")
        assert said(registry) == [
            ("a9.h6", "copier", "a paper"), ("a9.h6", "backup mover", "Ada"),
            ("a9.h6", "inhibitor", "Ada"), ("a9.h6@END", "mover", "Ada"),
        ]  # fmt: skip
        assert sorted(in_graph(registry)) == sorted(
            (f"gpt2/{node.partition('@')[0]}", role, by) for node, role, by in said(registry)
        )

    def test_what_is_taken_back_is_gone(self, registry: Registry) -> None:
        for role in ("mover", "copier", "inhibitor"):
            registry.annotate(BY_HAND.id, "a9.h6", role, by="Ada", also=True)
        assert registry.take_back(BY_HAND.id, "a9.h6", by="Ada", role="copier") == 1
        assert [role for _, role, _ in in_graph(registry)] == ["inhibitor", "mover"]
        assert registry.take_back(BY_HAND.id, "a9.h6", by="Bob") == 0
        assert registry.take_back(BY_HAND.id, "a9.h6", by="Ada") == 2
        assert said(registry) == in_graph(registry) == []

    def test_circuits_are_recorded_with_what_is_said_of_them(self, registry: Registry) -> None:
        other = examples.circuit(1)
        annotation = Annotation(circuit=other.id, node="input", role="start", said_by="a job")
        with registry.projecting_later():
            recorded = registry.record(other, annotation)
        assert recorded.annotations == (annotation.id,)
        assert in_graph(registry) == [("gpt2/input", "start", "a job")]

    def test_it_is_gone_with_a_retracted_circuit_and_kept_in_the_record(
        self, registry: Registry
    ) -> None:
        registry.annotate(BY_HAND.id, "a9.h6", "mover", by="Ada")
        registry.retract(BY_HAND.id, reason="a mistake")
        assert in_graph(registry) == []
        assert said(registry) == [("a9.h6", "mover", "Ada")]
        registry.annotate(BY_HAND.id, "a9.h6", "copier", by="Ada")
        assert registry.cypher("MATCH (a:Annotation) RETURN count(a) AS n").values == ((0,),)

    def test_it_comes_back_from_a_backup(self, registry: Registry, tmp_path: Path) -> None:
        registry.annotate(BY_HAND.id, "a9.h6", "mover", by="Ada", run=LATER.id, scores={"s": 0.5})
        registry.backup(tmp_path / "all.zip")
        with Registry.restore(tmp_path / "all.zip", tmp_path / "restored") as restored:
            assert restored.annotations(BY_HAND.id) == registry.annotations(BY_HAND.id)
            assert in_graph(restored) == in_graph(registry) != []


class TestRefusals:
    @pytest.mark.parametrize(
        ("component", "text"),
        [
            ("a9.h7", "no node of this circuit 'a9.h7'; nearest: a9.h6; see 'circuits show'"),
            ("a9.h6@S1", "no node of this circuit 'a9.h6@S1'; nearest: a9.h6@S2"),
            ("gpt2/m3", "no node of this circuit 'm3'"),
        ],
    )
    def test_what_the_circuit_does_not_have(
        self, registry: Registry, component: str, text: str
    ) -> None:
        with pytest.raises(NotFound, match=text):
            registry.annotate(BY_HAND.id, component, "mover", by="Ada")
        with pytest.raises(NotFound, match=text):
            registry.take_back(BY_HAND.id, component, by="Ada")
        node = component.removeprefix("gpt2/")
        loose = Annotation(circuit=BY_HAND.id, node=node, role="mover", said_by="Ada")
        with pytest.raises(NotFound, match=text):
            registry.record(loose)
        assert said(registry) == []

    def test_what_is_no_part_of_any_model_and_unknown_circuits_and_runs(
        self, registry: Registry
    ) -> None:
        with pytest.raises(BadIdentifier, match=r"did you mean 'a9\.h6'"):
            registry.annotate(BY_HAND.id, "L9H6", "mover", by="Ada")
        with pytest.raises(NotFound, match="no circuit 'ffff"):
            registry.annotate("ffff", "a9.h6", "mover", by="Ada")
        lost = Annotation(circuit="f" * 64, node="a9.h6", role="mover", said_by="Ada")
        with pytest.raises(NotFound, match="no circuit 'ffff"):
            registry.record(lost)
        for run in ("cdcd", "a", ""):
            with pytest.raises(NotFound, match=f"no run '{run}'"):
                registry.annotate(BY_HAND.id, "a9.h6", "mover", by="Ada", run=run)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("role", ""),
            ("said_by", ""),
            ("role", "x" * 10_001),
            ("said_by", "x" * 1_001),
            ("node", "m3@"),
            ("node", "m3@" + "x" * 501),
            ("scores", {"": 1.0}),
            ("scores", {"a\x00": 1.0}),
            ("scores", {"a": float("nan")}),
            ("scores", {"a": float("inf")}),
            ("scores", {str(number): 1.0 for number in range(MOST_SCORES + 1)}),
            ("run", "abab"),
        ],
    )
    def test_what_no_annotation_says(self, field: str, value: object) -> None:
        given = {"circuit": BY_HAND.id, "node": "m3", "role": "mover", "said_by": "Ada"}
        Annotation.model_validate(given)
        with pytest.raises(ValidationError, match=field):
            Annotation.model_validate({**given, field: value})


def test_a_registry_without_a_graph_keeps_what_is_said(tmp_path: Path) -> None:
    """The record stands; the graph follows when it can be written again."""
    settings = load_settings(create_home(tmp_path / "registry"))
    broken = settings.model_copy(update={"graph": "bolt://127.0.0.1:1"})
    with Registry.init(settings=settings) as registry:
        registry.record(examples.GPT2, *examples.TASKS, BY_HAND)
    with Registry.open(settings=broken) as registry:
        registry.annotate(BY_HAND.id, "a9.h6", "mover", by="Ada")
    with Registry.open(settings=settings) as registry:
        registry.sync()
        assert in_graph(registry) == [("gpt2/a9.h6", "mover", "Ada")]
