"""Projection of any records in any order, on the embedded engine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.graph.embedded import EmbeddedGraph
from registry.graph.projection import project
from registry.graph.schema import begin_filling
from tests import strategies
from tests.conformance.graph_contract import Records, dump
from tests.few import n_examples


@settings(max_examples=n_examples(8), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_order_and_repetition_gives_the_graph_of_a_rebuild(data: st.DataObject) -> None:
    circuits = data.draw(
        st.lists(
            strategies.circuits(model="gpt2", task="ioi"),
            min_size=1, max_size=3, unique_by=lambda circuit: circuit.id,
        )
    )  # fmt: skip
    ids = tuple(circuit.id for circuit in circuits)
    edits = [data.draw(strategies.edits("gpt2", ids))]
    evaluations = [data.draw(strategies.evaluations(ids[0], "sequence/months"))]
    outcomes = [data.draw(strategies.outcomes(edits[0].id, "ioi"))]
    said = data.draw(strategies.annotations_of(circuits[0]))
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder))
        records.add(circuits, edits=edits, evaluations=evaluations, outcomes=outcomes,
                    annotations=said)  # fmt: skip
        for circuit in circuits:
            if data.draw(st.booleans()):
                records.ledger.relabel(circuit.id, data.draw(strategies.circuit_labels()))
        changes = records.changes()
        shuffled = data.draw(st.permutations([*changes, *changes]))
        with EmbeddedGraph(Path(folder) / "graph.kgl", writing=True) as store:
            marker = begin_filling(store, records.owner, None)
            cut = data.draw(st.integers(0, len(shuffled)))
            for part in (shuffled[:cut], shuffled[cut:]):
                project(store, part, records)
            in_any_order = dump(store)
            begin_filling(store, records.owner, marker)
            project(store, changes, records)
            assert dump(store) == in_any_order
        records.ledger.close()
