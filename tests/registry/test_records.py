"""Records: nothing NaN, nothing guessed, and ids that are content and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.canonical import canonical_json, content_hash
from registry.errors import BadIdentifier
from registry.identifiers import parse_local, parse_node_key, sort_key
from registry.records import (
    Ablation,
    Circuit,
    CircuitLabels,
    Edge,
    Edit,
    Evaluation,
    Level,
    Model,
    Node,
    Outcome,
    PromptSet,
    Record,
    Run,
    Sign,
    Task,
)
from tests import strategies

NOT_NUMBERS = [math.nan, math.inf, -math.inf]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOWEST_SURE = datetime.fromisoformat("0001-01-03")
HIGHEST_SURE = datetime.fromisoformat("9999-12-29")
CIRCUIT: dict[str, Any] = {
    "model": "gpt2",
    "task": "ioi",
    "method": "edge-attribution",
    "level": Level.EDGE,
    "nodes": (
        Node(component="input"),
        Node(component="a9.h6", position="END", effect=0.5),
        Node(component="a9.h6"),
        Node(component="logits"),
    ),
    "edges": (
        Edge(source="input", target="a9.h6", port="q", effect=1.0),
        Edge(source="input", target="a9.h6", port="k", effect=-0.5),
        Edge(source="a9.h6", target="logits"),
        Edge(source="a9.h6@END", target="logits"),
    ),
}


class TestIdsAreContent:
    @given(circuit=strategies.circuits(), seed=st.integers())
    def test_the_order_of_nodes_and_edges_is_no_content(self, circuit: Circuit, seed: int) -> None:
        mixed = random.Random(seed)
        again = Circuit(
            **{
                **fields_of(circuit),
                "nodes": tuple(mixed.sample(circuit.nodes, len(circuit.nodes))),
                "edges": tuple(mixed.sample(circuit.edges, len(circuit.edges))),
            }
        )
        assert again == circuit
        assert again.id == circuit.id

    @given(circuit=strategies.circuits())
    def test_nodes_and_edges_stand_in_the_order_of_the_forward_pass(self, circuit: Circuit) -> None:
        places = [(sort_key(parse_local(n.component)), n.position or "") for n in circuit.nodes]
        assert places == sorted(places)
        sources = [sort_key(parse_node_key(edge.source)[0]) for edge in circuit.edges]
        assert sources == sorted(sources)

    @given(circuit=strategies.circuits())
    def test_a_document_reads_back_as_the_circuit(self, circuit: Circuit) -> None:
        again = Circuit.model_validate_json(circuit.document)
        assert again == circuit
        assert again.document == circuit.document
        assert again.id == hashlib.sha256(circuit.document).hexdigest()

    @given(circuit=strategies.circuits())
    def test_a_document_is_plain_json_without_what_nobody_said(self, circuit: Circuit) -> None:
        content = json.loads(circuit.document, parse_constant=refuse)
        assert canonical_json(content).encode() == circuit.document
        assert None not in content.values()

    def test_run_time_and_labels_are_no_content(self) -> None:
        fields = set(Circuit.model_fields)
        assert not fields & {
            "run",
            "recorded_at",
            "started_at",
            "host",
            *CircuitLabels.model_fields,
        }

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("model", "gpt2-medium"),
            ("task", "capitals"),
            ("prompt_set", "a" * 64),
            ("method", "published"),
            ("parameters", {"steps": 5}),
            ("metric", "kl"),
            ("higher_is_better", True),
            ("ablation", Ablation.ZERO),
            ("sign", Sign.UNSIGNED),
            ("level", Level.NODE),
            ("kv_heads", "grouped"),
            ("selection", {"top": 3}),
            ("universe_size", 7),
            ("edges", ()),
            ("nodes", (*CIRCUIT["nodes"], Node(component="m3"))),
            ("nodes", (*CIRCUIT["nodes"][:3], Node(component="logits", density=0.5))),
            ("scores", "b" * 64),
        ],
    )
    def test_every_part_of_the_content_makes_another_circuit(self, field: str, value: Any) -> None:
        other = Circuit(**{**CIRCUIT, field: value})
        assert other.id != Circuit(**CIRCUIT).id

    def test_ids_are_what_they_were_in_the_first_release(self) -> None:
        """Renamed circuits would be recorded twice; see ``tests/old`` for whole ledgers."""
        assert Circuit(**CIRCUIT).id == _FIRST_ID

    def test_a_density_that_is_not_said_is_no_content(self) -> None:
        nodes = tuple(
            Node.model_validate(node.model_dump() | {"density": None}) for node in CIRCUIT["nodes"]
        )
        assert Circuit(**{**CIRCUIT, "nodes": nodes}).id == _FIRST_ID

    def test_equal_numbers_make_equal_ids(self) -> None:
        zeros = [Node(component="m3", effect=zero) for zero in (0, 0.0, -0.0)]
        assert len({Circuit(**{**CIRCUIT, "nodes": (n,), "edges": ()}).id for n in zeros}) == 1
        measured = {"circuit": "a" * 64, "task": "ioi", "measure": "m"}
        assert Evaluation(**measured, value=-0.0).id == Evaluation(**measured, value=0).id

    @given(data=st.data())
    def test_a_record_read_from_json_keeps_its_id(self, data: st.DataObject) -> None:
        drawn: list[Evaluation | Edit | Outcome] = [
            data.draw(strategies.evaluations("a" * 64, "ioi")),
            data.draw(strategies.edits("gpt2", ("b" * 64, "c" * 64))),
            data.draw(strategies.outcomes("d" * 64)),
        ]
        for record in drawn:
            again = type(record).model_validate_json(record.model_dump_json())
            assert again == record
            assert again.id == record.id

    def test_a_changed_copy_has_an_id_of_its_own(self) -> None:
        edit = Edit(model="gpt2", editor="ROME")
        assert len(edit.id) == 64
        changed = edit.model_copy(update={"note": "again"})
        assert changed.id == Edit(model="gpt2", editor="ROME", note="again").id != edit.id

    def test_an_edit_is_the_same_however_its_parts_are_listed(self) -> None:
        one = Edit(model="gpt2", editor="ROME", components=("m5", "a9.h6", "m5"), circuits=())
        other = Edit(model="gpt2", editor="ROME", components=("a9.h6", "m5"))
        assert one.components == ("m5", "a9.h6")
        assert one.id == other.id

    def test_runs_that_would_compute_the_same_have_one_configuration(self) -> None:
        one = {"id": "0" * 32, "job": "j", "version": "1", "started_at": NOON}
        first = Run(**one, configuration={"a": 1, "b": (2, 3)})
        second = Run(**one, configuration={"b": [2, 3], "a": 1}, device="cuda")
        assert first.configuration_sha256 == second.configuration_sha256
        assert Run(**one).configuration_sha256 != first.configuration_sha256


class TestRefusals:
    @pytest.mark.parametrize("value", NOT_NUMBERS)
    @pytest.mark.parametrize(
        ("kind", "fields", "field"),
        [
            (Node, {"component": "m3"}, "effect"),
            (Node, {"component": "m3"}, "density"),
            (Edge, {"source": "m3", "target": "m4"}, "effect"),
            (Evaluation, {"circuit": "a" * 64, "task": "t", "measure": "m"}, "value"),
            (Evaluation, {"circuit": "a" * 64, "task": "t", "measure": "m", "value": 0}, "full"),
            (Evaluation, {"circuit": "a" * 64, "task": "t", "measure": "m", "value": 0}, "empty"),
            (Outcome, {"edit": "a" * 64, "metric": "m"}, "before"),
            (Outcome, {"edit": "a" * 64, "metric": "m"}, "after"),
            (PromptSet, {"id": "a" * 64, "task": "t", "n_prompts": 1}, "share_correct"),
            (PromptSet, {"id": "a" * 64, "task": "t", "n_prompts": 1}, "share_top1"),
        ],
    )
    def test_nan_and_infinity_are_refused_in_every_number(
        self, kind: type[Record], fields: dict[str, Any], field: str, value: float
    ) -> None:
        kind(**fields, **{field: 0.5})
        with pytest.raises(ValidationError, match=rf"{field}\n.*(finite|less than|greater than)"):
            kind(**fields, **{field: value})

    def test_every_float_of_every_record_is_tried_above(self) -> None:
        floats = {
            (kind.__name__, name)
            for kind in Record.__subclasses__()
            if kind.__module__ == Record.__module__  # other modules may have records of their own
            for name, field in kind.model_fields.items()
            if "float" in str(field.annotation)
        }
        floats -= {("Annotation", "scores")}  # several in one field: tried where annotations are
        marks = type(self).test_nan_and_infinity_are_refused_in_every_number.pytestmark
        (table,) = [mark.args[1] for mark in marks if mark.args[0] != "value"]
        assert floats == {(kind.__name__, field) for kind, _, field in table}

    @pytest.mark.parametrize("value", NOT_NUMBERS)
    @pytest.mark.parametrize("field", ["parameters", "selection"])
    def test_nan_and_infinity_are_refused_deep_in_json(self, field: str, value: float) -> None:
        with pytest.raises(ValidationError, match=rf"{field}\n.*is not JSON"):
            Circuit(**CIRCUIT, **{field: {"deep": [{"er": value}]}})

    @pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), "\ud800", {("a", "b"): 1}])
    def test_what_json_cannot_say_is_refused(self, value: Any) -> None:
        with pytest.raises(ValidationError, match="is not JSON"):
            Edit(model="gpt2", editor="ROME", request={"prompt": value})

    def test_json_is_nested_no_deeper_than_it_can_be_written(self) -> None:
        def nested(levels: int) -> dict[str, Any]:
            value: Any = 1
            for _ in range(levels - 1):
                value = [value]
            return {"deep": value}

        Edit(model="gpt2", editor="ROME", request=nested(200)).id  # noqa: B018 - written to be hashed
        for levels in (201, 300, 5000):
            with pytest.raises(ValidationError, match=r"nested deeper than 200|is not JSON"):
                Edit(model="gpt2", editor="ROME", request=nested(levels))

    @pytest.mark.parametrize("value", NOT_NUMBERS)
    def test_nan_is_never_hashed(self, value: float) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            content_hash({"x": value})

    def test_records_cannot_be_changed(self) -> None:
        model = Model(slug="gpt2")
        with pytest.raises(ValidationError, match="frozen"):
            model.n_layers = 12  # type: ignore[misc]

    def test_a_json_field_is_a_copy(self) -> None:
        parameters = {"steps": [1, 2]}
        circuit = Circuit(**CIRCUIT, parameters=parameters)
        before = circuit.id
        parameters["steps"].append(3)
        assert circuit.parameters == {"steps": [1, 2]}
        assert Circuit(**fields_of(circuit)).id == before

    def test_unknown_fields_are_refused_by_name(self) -> None:
        with pytest.raises(ValidationError, match=r"colour\n.*not permitted"):
            Task(slug="ioi", family="ioi", colour="red")  # type: ignore[call-arg]

    def test_a_time_without_a_zone_is_refused(self) -> None:
        with pytest.raises(ValidationError, match=r"started_at\n.*timezone"):
            Run(id="0" * 32, job="j", version="1", started_at=NOON.replace(tzinfo=None))

    def test_times_are_kept_in_utc(self) -> None:
        there = datetime.fromisoformat("2026-03-01T17:45:00+05:45")
        run = Run(id="0" * 32, job="j", version="1", started_at=there)
        assert run.started_at == NOON
        assert run.started_at.utcoffset() == timedelta(0)

    @given(
        moment=st.datetimes(max_value=LOWEST_SURE) | st.datetimes(min_value=HIGHEST_SURE),
        minutes=st.integers(-1439, 1439),
    )
    def test_a_time_that_some_zone_cannot_write_is_refused(
        self, moment: datetime, minutes: int
    ) -> None:
        there = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
        for given_as in (there, there.isoformat()):
            run = {"id": "0" * 32, "job": "j", "version": "1", "started_at": given_as}
            try:
                kept = Run.model_validate(run).started_at
            except ValidationError as error:
                (fault,) = error.errors()
                assert "must be a moment between 0001-01-02 and 9999-12-30" in fault["msg"]
                continue
            assert kept == there
            for hours in (-23, 23):
                assert kept.astimezone(timezone(timedelta(hours=hours))) == there

    @pytest.mark.parametrize("moment", [LOWEST_SURE, HIGHEST_SURE])
    @pytest.mark.parametrize("hours", [-23, 0, 23])
    def test_a_time_two_days_from_the_limits_is_kept(self, moment: datetime, hours: int) -> None:
        there = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
        assert Run(id="0" * 32, job="j", version="1", started_at=there).started_at == there

    def test_a_time_before_the_first_is_a_fault_of_one_field(self) -> None:
        there = datetime.fromisoformat("0001-01-01T00:00+14:00")
        with pytest.raises(ValidationError, match=r"1 validation error for Run\nstarted_at\n"):
            Run(id="0" * 32, job="j", version="1", started_at=there)

    @pytest.mark.parametrize("slug", ["", "IOI", "sequence/", "/ioi", "a b", "日本"])
    def test_a_tasks_name_is_a_slug(self, slug: str) -> None:
        with pytest.raises(ValidationError, match=r"slug\n.*pattern"):
            Task(slug=slug, family="f")

    @given(title=strategies.texts, note=strategies.texts, description=strategies.texts)
    def test_titles_notes_and_descriptions_take_any_script(
        self, title: str, note: str, description: str
    ) -> None:
        labels = CircuitLabels(title=title, notes=(note,))
        assert CircuitLabels.model_validate_json(labels.model_dump_json()) == labels
        assert Task(slug="t", family="t", description=description).description == description


class TestCircuitsHangTogether:
    def test_an_edge_joins_nodes_of_the_circuit(self) -> None:
        stray = Edge(source="m3", target="logits")
        with pytest.raises((BadIdentifier, ValidationError), match="'m3' is not a node of the"):
            Circuit(**{**CIRCUIT, "edges": (stray,)})

    def test_a_position_is_part_of_a_nodes_name(self) -> None:
        stray = Edge(source="a9.h6@S1", target="logits")
        with pytest.raises((BadIdentifier, ValidationError), match=r"'a9\.h6@S1' is not a node"):
            Circuit(**{**CIRCUIT, "edges": (stray,)})

    @pytest.mark.parametrize(
        ("target", "port", "hint"),
        [("a9.kv6", "q", "needs one of <k>, <v>"), ("logits", "q", "takes no port")],
    )
    def test_an_edge_reaches_an_input_that_is_there(
        self, target: str, port: Any, hint: str
    ) -> None:
        edge = Edge(source="input", target=target, port=port)
        nodes = (Node(component="input"), Node(component=target))
        with pytest.raises((BadIdentifier, ValidationError), match=hint):
            Circuit(**{**CIRCUIT, "nodes": nodes, "edges": (edge,)})

    def test_an_edge_into_a_head_may_leave_open_which_input(self) -> None:
        edges = tuple(Edge(source="input", target="a9.h6", port=port) for port in (None, "q"))
        circuit = Circuit(**{**CIRCUIT, "edges": edges})
        assert [edge.connection for edge in circuit.edges] == ["input->a9.h6", "input->a9.h6<q>"]

    @pytest.mark.parametrize("what", ["nodes", "edges"])
    def test_nothing_is_listed_twice(self, what: str) -> None:
        twice = (*CIRCUIT[what], CIRCUIT[what][0].model_copy(update={"effect": 9.0}))
        with pytest.raises((BadIdentifier, ValidationError), match=r"appears (once|twice)"):
            Circuit(**{**CIRCUIT, what: twice})

    def test_connections_are_named_without_positions(self) -> None:
        names = [edge.connection for edge in Circuit(**CIRCUIT).edges]
        assert names == ["input->a9.h6<k>", "input->a9.h6<q>", "a9.h6->logits", "a9.h6->logits"]

    @pytest.mark.parametrize("component", ["a9", "l9.resid_pre", "gpt2/a9.h6", ""])
    def test_a_node_is_a_component_of_the_grammar(self, component: str) -> None:
        with pytest.raises((BadIdentifier, ValidationError), match="is not a component"):
            Node(component=component)


def fields_of(record: Record) -> dict[str, Any]:
    """The values a record was built from."""
    return {name: getattr(record, name) for name in type(record).model_fields}


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


_FIRST_ID = "674fcbcee741e3e18d0e6522b746f80f2b3e8f7a13f51e76ec3ab8119354cd75"


def test_a_rank_that_no_database_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="rank"):
        Node(component="m0", rank=2**63)


RUN_ID = "0" * 32


def test_evaluations_and_edits_keep_the_ids_that_they_had_before_they_named_runs() -> None:
    evaluation = Evaluation(
        circuit="a" * 64, task="ioi", measure="faithfulness", value=0.5, full=3.0,
        ablation=Ablation.MEAN, n_prompts=8, parameters={"metric": "logit_difference"},
    )  # fmt: skip
    edit = Edit(
        model="gpt2", editor="ROME", request={"subject": "Zoë"}, components=("m5",),
        circuits=("a" * 64,), note="n",
    )  # fmt: skip
    for named in (None, RUN_ID):
        again = evaluation.model_copy(update={"run": named})
        assert again.id == "a20499b277a5e22d687d03cd0eb69bff7d27e8ce8f8dac94a0a1b4fb315fe933"
        made = edit.model_copy(update={"run": named})
        assert made.id == "265c64064a83687e5c0d82c479e89207785c28c91040bed78bbdc1787618b881"
    with pytest.raises(ValidationError, match="run"):
        Evaluation.model_validate({**evaluation.model_dump(), "run": "no id"})


@pytest.mark.parametrize("share", [-0.001, 1.001, math.nan, math.inf])
def test_a_density_is_a_share(share: float) -> None:
    assert [Node(component="m0", density=known).density for known in (0, 1, 0.25)] == [0, 1, 0.25]
    with pytest.raises(ValidationError, match="density"):
        Node(component="m0", density=share)
