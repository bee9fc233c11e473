"""Circuits as GraphML, out and in again."""

from __future__ import annotations

import io
from pathlib import Path

import networkx
import pytest
from hypothesis import HealthCheck, given, settings

from ingest.formats.base import Context, Said, recognised
from ingest.formats.exporting import Exporting
from ingest.formats.graphs.graphml_exporter import EXPORTER
from registry.errors import BadInput
from registry.records import Circuit, Edge, Model, Node
from tests.strategies import circuits

CIRCUIT = Circuit(
    model="gpt2", task="ioi", method="m", level="edge", metric="logit_difference",
    higher_is_better=True, ablation="mean", sign="helps-positive", parameters={"steps": 5},
    selection={"top": 2}, universe_size=9, kv_heads="grouped",
    nodes=[
        Node(component="m0", position="END", effect=0.5, rank=1, role="a & <b>\r\n\tc"),
        Node(component="a1.h0"),
        Node(component="logits"),
    ],
    edges=[
        Edge(source="m0@END", target="a1.h0", port="q", effect=-0.5, rank=2),
        Edge(source="m0@END", target="a1.h0", port="k"),
        Edge(source="a1.h0", target="logits", effect=1e-300, rank=3),
    ],
)  # fmt: skip


def export(circuit: Circuit) -> bytes:
    return EXPORTER.write(circuit, Exporting(Model(slug=circuit.model)))


def read_back(content: bytes, path: Path) -> Circuit:
    path.write_bytes(content)
    (circuit,) = recognised(path).read(path, Context(Said())).circuits
    return circuit


def has_no_xml(circuit: Circuit) -> bool:
    texts = [circuit.method, circuit.metric, *(node.role for node in circuit.nodes)]
    return any(
        (character < " " and character not in "\t\r\n") or character in "\ufffe\uffff"
        for text in texts
        for character in text or ""
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(circuit=circuits())
def test_all_but_prompts_and_scores_survives(tmp_path: Path, circuit: Circuit) -> None:
    if has_no_xml(circuit):
        with pytest.raises(BadInput, match="XML has no character"):
            export(circuit)
        return
    back = read_back(export(circuit), tmp_path / "circuit.graphml")
    assert back == circuit.model_copy(update={"prompt_set": None, "scores": None})
    assert export(back) == export(circuit)


def test_networkx_reads_all_of_it() -> None:
    graph = networkx.read_graphml(io.BytesIO(export(CIRCUIT)))
    assert graph.is_directed()
    assert graph.graph["ablation"] == "mean"
    assert graph.graph["higher_is_better"] is True
    assert graph.nodes["m0@END"] == {
        "label": "m0@END", "component": "m0", "kind": "mlp", "layer": 0, "position": "END",
        "effect": 0.5, "rank": 1, "role": "a & <b>\r\n\tc",
    }  # fmt: skip
    edges = {(s, t, values.get("port")): values for s, t, values in graph.edges(data=True)}
    assert len(edges) == 3
    assert edges["a1.h0", "logits", None]["effect"] == 1e-300


def test_what_networkx_writes_of_it_is_the_same_circuit(tmp_path: Path) -> None:
    graph = networkx.read_graphml(io.BytesIO(export(CIRCUIT)))
    path = tmp_path / "again.graphml"
    graph.nodes["m0@END"]["role"] = "name mover"  # networkx writes a bare carriage return
    networkx.write_graphml(graph, path)
    nodes = [
        node.model_copy(update={"role": "name mover"}) if node.role else node
        for node in CIRCUIT.nodes
    ]
    assert read_back(path.read_bytes(), path) == CIRCUIT.model_copy(update={"nodes": tuple(nodes)})


def test_an_empty_circuit_is_a_circuit(tmp_path: Path) -> None:
    empty = CIRCUIT.model_copy(update={"nodes": (), "edges": ()})
    assert read_back(export(empty), tmp_path / "empty.graphml") == empty
