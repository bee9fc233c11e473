"""From records to rows, without a store."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given

from registry.graph.rows import (
    circuit_row,
    circuit_rows,
    component_row,
    connection_row,
    edit_row,
    evaluation_row,
    model_row,
    prompt_set_row,
    run_row,
)
from registry.graph.statements import LABEL_COMPONENTS
from registry.identifiers import Kind, parse_component, parse_connection
from registry.ledger.base import CircuitEntry
from registry.records import Circuit, CircuitLabels, Edge, Level, Node, PromptSet, Run, Sign
from tests import examples, strategies


@given(strategies.circuits())
def test_rows_hold_every_node_and_edge_and_nothing_else(circuit: Circuit) -> None:
    rows = circuit_rows(circuit.id, circuit)
    assert [row.id for row in rows.nodes] == [f"{circuit.id}/{n.key}" for n in circuit.nodes]
    assert [(row.source, row.target, row.port) for row in rows.edges] == [
        (f"{circuit.id}/{e.source}", f"{circuit.id}/{e.target}", e.port) for e in circuit.edges
    ]
    assert rows.locals == {node.component for node in circuit.nodes}
    assert rows.connections == {f"{circuit.model}/{edge.connection}" for edge in circuit.edges}
    assert sum(use.positions for use in rows.uses) == len(circuit.edges)
    assert {use.connection for use in rows.uses} == rows.connections


@given(strategies.circuits())
def test_rows_are_as_many_as_they_say_and_the_same_each_time(circuit: Circuit) -> None:
    rows = circuit_rows(circuit.id, circuit)
    for part in (rows.nodes, rows.edges, rows.uses):
        assert len(list(part)) == len(part)
        assert list(part) == list(part)


@given(strategies.circuits())
def test_rows_are_finite_json(circuit: Circuit) -> None:
    rows = circuit_rows(circuit.id, circuit)
    for part in (rows.nodes, rows.edges, rows.uses):
        json.dumps(list(part), allow_nan=False)


@given(strategies.circuits())
def test_references_carry_the_ids_of_the_grammar(circuit: Circuit) -> None:
    rows = circuit_rows(circuit.id, circuit)
    for name in rows.locals:
        row = component_row(circuit.model, name)
        assert str(parse_component(row["id"])) == row["id"]
        assert row["properties"]["kind"] in LABEL_COMPONENTS
    for key in rows.connections:
        row, connection = connection_row(key), parse_connection(key)
        assert row["id"] == f"{row['model']}/{row['local']}" == str(connection)
        assert row["source"] == f"{circuit.model}/{connection.source}"
        assert row["target"] == f"{circuit.model}/{connection.target}"
        assert row["port"] == connection.port


def test_every_kind_of_component_has_a_label() -> None:
    assert set(LABEL_COMPONENTS) == {kind.value for kind in Kind}


def test_effects_that_overflow_together_stay_finite() -> None:
    circuit = Circuit(
        model="gpt2", task="ioi", method="x", level=Level.EDGE,
        nodes=(Node(component="m0", position="1"), Node(component="m0", position="2"),
               Node(component="logits")),
        edges=(Edge(source="m0@1", target="logits", effect=1.7e308),
               Edge(source="m0@2", target="logits", effect=1.7e308)),
    )  # fmt: skip
    (use,) = circuit_rows(circuit.id, circuit).uses
    assert use.effect is not None
    assert math.isfinite(use.effect)
    assert use.effect > 1.7e308


def entry(**changes: Any) -> CircuitEntry:
    values: dict[str, Any] = {
        "id": "0" * 64, "model": "gpt2", "task": "ioi", "prompt_set": None, "method": "hand",
        "metric": None, "ablation": None, "sign": Sign.UNKNOWN, "level": Level.NODE, "n_nodes": 1,
        "n_edges": 0, "universe_size": None, "scores": None, "labels": CircuitLabels(),
        "runs": (), "source_files": (), "faithfulness": None,
        "recorded_at": datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))),
    }  # fmt: skip
    return CircuitEntry(**values | changes)


def test_times_are_text_in_utc() -> None:
    assert circuit_row(entry())["properties"]["recorded_at"] == "2026-01-02T01:04:00+00:00"
    naive = datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001 - a database without zones gives these
    moment = circuit_row(entry(recorded_at=naive))["properties"]["recorded_at"]
    assert moment == "2026-01-02T03:04:00+00:00"


def test_a_circuit_without_a_title_has_an_empty_one() -> None:
    assert circuit_row(entry())["properties"]["title"] == ""


def test_a_label_that_is_gone_is_written_as_null() -> None:
    properties = circuit_row(entry())["properties"]
    assert properties["author"] is None
    assert properties["superseded_by"] is None


def test_a_seed_beyond_64_bits_is_kept_as_text() -> None:
    for seed, kept in ((2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (2**63, str(2**63))):
        prompts = PromptSet(id="a" * 64, task="ioi", n_prompts=1, seed=seed)
        assert prompt_set_row(prompts)["properties"]["seed"] == kept


def test_notes_and_errors_of_runs_stay_in_the_ledger() -> None:
    run = Run(id="0" * 32, job="j", version="1", error="secret", started_at=datetime.now(UTC))
    assert "secret" not in json.dumps(run_row(run))


def test_inner_structure_becomes_json_text() -> None:
    edit, _ = examples.edit(examples.circuit(1))
    row = edit_row(edit)
    assert json.loads(row["properties"]["request"]) == dict(edit.request)
    others = (model_row(examples.GPT2), evaluation_row(examples.faithfulness(examples.circuit(1))))
    values = [value for made in (row, *others) for value in made["properties"].values()]
    for value in values:
        assert value is None or isinstance(value, (str, int, float, bool))
