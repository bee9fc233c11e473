"""Circuits as tables, out and in again."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas
import pytest
from hypothesis import HealthCheck, assume, given, settings

from ingest.formats.base import Context, Said, recognised
from ingest.formats.exporting import Exporter, Exporting, find_exporter
from registry.errors import BadInput, MissingExtra
from registry.identifiers import Kind, parse_node_key
from registry.records import Circuit, Edge, Level, Model, Node
from tests.strategies import circuits

FOLDED = {Kind.EMBED, Kind.POS_EMBED, Kind.UNEMBED}  # files of others mean input and logits
CIRCUIT = Circuit(
    model="gpt2", task="ioi", method="m", level="edge", metric="logit_difference",
    sign="helps-positive",
    nodes=[Node(component=name) for name in ("m0", "a1.h0", "logits")],
    edges=[
        Edge(source="m0", target="a1.h0", port="q", effect=-0.5, rank=2),
        Edge(source="a1.h0", target="logits", effect=1e-300, rank=3),
        Edge(source="m0", target="logits", effect=2.0, rank=1),
    ],
)  # fmt: skip


def export(circuit: Circuit, name: str) -> bytes:
    exporter: Exporter = find_exporter(name)
    return exporter.write(circuit, Exporting(Model(slug=circuit.model)))


def read_back(content: bytes, path: Path, said: Said) -> Circuit:
    path.write_bytes(content)
    (circuit,) = recognised(path).read(path, Context(said)).circuits
    return circuit


def test_csv_has_a_row_for_each_edge_and_no_columns_without_a_word() -> None:
    assert export(CIRCUIT, "csv").decode() == (
        "source,target,port,effect,rank\n"
        "m0,a1.h0,q,-0.5,2\nm0,logits,,2.0,1\na1.h0,logits,,1e-300,3\n"
    )


def test_parquet_is_read_by_pandas(tmp_path: Path) -> None:
    path = tmp_path / "edges.parquet"
    path.write_bytes(export(CIRCUIT, "parquet"))
    frame = pandas.read_parquet(path)
    assert list(frame["target"]) == ["a1.h0", "logits", "logits"]
    assert list(frame["effect"]) == [-0.5, 2.0, 1e-300]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(circuit=circuits())
def test_all_but_single_nodes_prompts_and_scores_survives_parquet(
    tmp_path: Path, circuit: Circuit
) -> None:
    assume(circuit.edges)
    back = read_back(export(circuit, "parquet"), tmp_path / "edges.parquet", Said())
    ends = {end for edge in circuit.edges for end in (edge.source, edge.target)}
    assert {node.key for node in back.nodes} == ends
    same = {"nodes": back.nodes, "prompt_set": None, "scores": None}
    assert back == circuit.model_copy(update=same)
    again = read_back(export(back, "parquet"), tmp_path / "edges.parquet", Said())
    assert again.id == back.id


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(circuit=circuits())
def test_edges_survive_csv(tmp_path: Path, circuit: Circuit) -> None:
    assume(circuit.edges)
    # Tools call the model's input an embedding, so a table's embeddings are read as the input.
    kinds = {parse_node_key(node.key)[0].kind for node in circuit.nodes}
    assume(not kinds & FOLDED)
    said = Said(model=circuit.model, task=circuit.task, method=circuit.method)
    path = tmp_path / "edges.csv"
    back = read_back(export(circuit, "csv"), path, said)
    if any(edge.rank is not None for edge in circuit.edges):
        assert back.edges == circuit.edges
    unranked = [edge.model_copy(update={"rank": None}) for edge in circuit.edges]
    assert [edge.model_copy(update={"rank": None}) for edge in back.edges] == unranked
    assert read_back(export(back, "csv"), path, said).id == back.id


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_circuit_of_nothing_is_no_table(name: str) -> None:
    with pytest.raises(BadInput, match="neither edges nor nodes"):
        export(CIRCUIT.model_copy(update={"edges": (), "nodes": ()}), name)


HEADS = Circuit(
    model="gpt2", task="ioi", method="m", level="node", sign="helps-positive",
    nodes=[
        Node(component="a9.h9", effect=2.5, rank=1),
        Node(component="a10.h0", effect=-0.5, rank=2),
        Node(component="a0.h1"),
    ],
)  # fmt: skip


def test_heads_are_a_table_of_layers_and_heads() -> None:
    assert export(HEADS, "csv").decode() == (
        "layer,head,effect,rank\n0,1,,\n9,9,2.5,1\n10,0,-0.5,2\n"
    )


def test_other_nodes_are_named_and_keep_positions_and_roles() -> None:
    nodes = [*HEADS.nodes, Node(component="m3", position="END", role="=copies", effect=1.0)]
    circuit = HEADS.model_copy(update={"nodes": tuple(nodes)})
    assert export(circuit, "csv").decode().splitlines()[0::4] == [
        "node,effect,rank,position,role", "m3,1.0,,END,'=copies",
    ]  # fmt: skip


def test_densities_have_a_column_where_one_is_known() -> None:
    nodes = (Node(component="l3.ln1", density=0.25, rank=1), Node(component="ln_final", rank=2))
    circuit = HEADS.model_copy(update={"nodes": nodes, "level": Level.PARAMETER})
    assert export(circuit, "csv").decode().splitlines() == [
        "node,effect,rank,density", "l3.ln1,,1,0.25", "ln_final,,2,",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_table_of_heads_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    said = Said(model="gpt2", task="ioi", method="m", sign="helps-positive")
    path = tmp_path / f"heads.{name}"
    assert read_back(export(HEADS, name), path, said) == HEADS


def test_a_table_of_heads_is_read_by_pandas(tmp_path: Path) -> None:
    path = tmp_path / "heads.parquet"
    path.write_bytes(export(HEADS, "parquet"))
    frame = pandas.read_parquet(path)
    assert list(zip(frame["layer"], frame["head"], strict=True)) == [(0, 1), (9, 9), (10, 0)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(circuit=circuits())
def test_nodes_without_edges_survive_parquet_and_csv(tmp_path: Path, circuit: Circuit) -> None:
    alone = circuit.model_copy(update={"edges": (), "prompt_set": None, "scores": None})
    assume(alone.nodes)
    assert read_back(export(alone, "parquet"), tmp_path / "nodes.parquet", Said()) == alone
    kinds = {parse_node_key(node.key)[0].kind for node in alone.nodes}
    assume(not kinds & FOLDED)
    texts = [text for node in alone.nodes for text in (node.role, node.position) if text]
    assume(not any(mark in text for text in texts for mark in "\r\0"))
    said = Said(model=alone.model, task=alone.task, method=alone.method)
    back = read_back(export(alone, "csv"), tmp_path / "nodes.csv", said)
    if any(node.rank is not None for node in alone.nodes):
        assert back.nodes == alone.nodes
    else:
        unranked = [node.model_copy(update={"rank": None}) for node in back.nodes]
        assert tuple(unranked) == alone.nodes


def test_csv_refuses_a_position_that_readers_would_change() -> None:
    nodes = [Node(component="m0", position="a\rb"), Node(component="m1")]
    edges = [Edge(source="m0@a\rb", target="m1")]
    circuit = Circuit(model="m", task="t", method="m", level="edge", nodes=nodes, edges=edges)
    with pytest.raises(BadInput, match="CSV cannot hold the position"):
        export(circuit, "csv")


@pytest.mark.parametrize(
    ("position", "cell"),
    [("=1+1", "'=1+1"), ("-3", "'-3"), ("@a", "'@a"), ("'=x", "''=x"), ("'tis", "'tis")],
)
def test_a_position_is_no_formula_and_comes_back_as_it_was(
    position: str, cell: str, tmp_path: Path
) -> None:
    nodes = [Node(component="m0", position=position), Node(component="m1")]
    edges = [Edge(source=nodes[0].key, target="m1", effect=-0.5)]
    circuit = Circuit(model="gpt2", task="t", method="m", level="edge", nodes=nodes, edges=edges)
    content = export(circuit, "csv")
    assert content.decode().splitlines()[1] == f"m0,m1,,-0.5,,{cell},"
    back = read_back(content, tmp_path / "edges.csv", Said(model="gpt2", task="t"))
    assert [node.position for node in back.nodes] == [position, None]


def test_an_absent_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="writing Parquet needs the extra 'parquet'"):
        export(CIRCUIT, "parquet")
