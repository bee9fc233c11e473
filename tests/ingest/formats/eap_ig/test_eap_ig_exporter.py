"""Circuits as graph JSON of EAP-IG: what its loader asks for, and out and in again."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.formats.base import Context, Imported, Said, recognised
from ingest.formats.eap_ig.exporter import EXPORTER
from ingest.formats.exporting import Exporting, find_exporter
from registry.errors import BadInput
from registry.files.score_files import score_file
from registry.models.edge_space import EdgeSpace
from registry.records import Circuit, Edge, Level, Model, Node, Sign
from tests.ingest.formats.test_importing import SHARED, needs_files

MODEL = Model(slug="tiny", n_layers=2, n_heads=2, n_kv_heads=2, d_model=8)
SPACE = EdgeSpace(2, 2, 2)


def circuit(**changes: Any) -> Circuit:
    """Three edges of a model with two layers of two heads; one of them of unknown effect."""
    edges = [
        Edge(source="input", target="a0.h1", port="k", effect=-0.5),
        Edge(source="a0.h1", target="m1", effect=0.25),
        Edge(source="m1", target="logits"),
    ]
    ends = {end for edge in edges for end in (edge.source, edge.target)}
    fields: dict[str, Any] = {
        "model": "tiny", "task": "t", "method": "m", "level": Level.EDGE,
        "nodes": [Node(component=name, effect=1.5 if name == "m1" else None) for name in ends],
        "edges": edges, **changes,
    }  # fmt: skip
    return Circuit(**fields)


def node_circuit(*names: str) -> Circuit:
    nodes = [Node.model_validate(dict(zip(("component", "position"), n.split("@"), strict=False)))
             for n in names]  # fmt: skip
    return circuit(nodes=nodes, edges=[], level=Level.NODE)


def export(one: Circuit, model: Model = MODEL, scores: bytes | None = None) -> Any:
    return json.loads(EXPORTER.write(one, Exporting(model, scores)))


def read_back(content: bytes, path: Path, sign: Sign) -> Imported:
    path.write_bytes(content)
    said = Said(model="tiny", task="t", method="m", sign=sign.value)
    return recognised(path).read(path, Context(said))


def load_strictly(graph: Any) -> tuple[int, int]:
    """What the tool's own loader asks of a file, and nothing it would not.

    It takes the shape from ``cfg``, makes all nodes and edges of such a model, and sets by name
    what the file says of each; a name it has not made, a field that is missing or a value that no
    tensor of numbers or marks takes is an error there.

    Returns:
        Edges and nodes in the graph, without ``logits``, of which it keeps no mark.
    """
    cfg = graph["cfg"]
    assert set(cfg) >= {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"}
    nodes, edges = ["input"], set()
    for layer in range(cfg["n_layers"]):
        heads = [f"a{layer}.h{head}" for head in range(cfg["n_heads"])]
        before_mlp = nodes if cfg["parallel_attn_mlp"] else [*nodes, *heads]
        edges |= {f"{s}->{h}<{p}>" for s, h, p in itertools.product(nodes, heads, "qkv")}
        edges |= {f"{source}->m{layer}" for source in before_mlp}
        nodes = [*nodes, *heads, f"m{layer}"]
    edges |= {f"{source}->logits" for source in nodes}
    assert set(graph["edges"]) == edges
    assert set(graph["nodes"]) == {*nodes, "logits"}
    for node in graph["nodes"].values():
        assert type(node["in_graph"]) is bool
        assert type(node.get("score", 0.0)) is float
        assert set(node) <= {"in_graph", "score"}
    for edge in graph["edges"].values():
        assert type(edge["in_graph"]) is bool
        assert type(edge["score"]) is float
    return (
        sum(edge["in_graph"] for edge in graph["edges"].values()),
        sum(graph["nodes"][name]["in_graph"] for name in nodes),
    )


class TestTheLoader:
    def test_every_edge_of_the_model_is_there(self) -> None:
        graph = export(circuit())
        assert load_strictly(graph) == (3, 3)
        assert len(graph["edges"]) == SPACE.n_edges
        assert graph["cfg"] == {
            "n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8,
        }  # fmt: skip

    def test_a_parallel_model_has_its_own_edges(self) -> None:
        model = MODEL.model_copy(update={"parallel_attn_mlp": True})
        graph = export(circuit(), model)
        assert load_strictly(graph) == (3, 3)
        assert "a0.h1->m0" not in graph["edges"]

    def test_scores_outside_the_circuit_come_from_the_kept_ones(self) -> None:
        matrix = numpy.full((len(SPACE.senders), len(SPACE.receivers)), numpy.nan)
        matrix[SPACE.locate("input->m0")] = 0.75
        matrix[SPACE.locate("a0.h1->m1")] = 9.0
        receivers = [receiver.name for receiver in SPACE.receivers]
        kept = score_file(matrix, SPACE.senders, receivers, None, Sign.UNKNOWN)
        edges = export(circuit(), scores=kept)["edges"]
        assert edges["input->m0"] == {"score": 0.75, "in_graph": False}
        assert edges["a0.h1->m1"] == {"score": 0.25, "in_graph": True}
        assert edges["m0->logits"] == {"score": 0.0, "in_graph": False}

    def test_an_unknown_effect_is_nan_beside_known_ones(self) -> None:
        assert math.isnan(export(circuit())["edges"]["m1->logits"]["score"])

    def test_nothing_is_nan_where_nothing_is_known(self) -> None:
        edges = [edge.model_copy(update={"effect": None}) for edge in circuit().edges]
        graph = export(circuit(edges=edges))
        assert {edge["score"] for edge in graph["edges"].values()} == {0.0}

    def test_nodes_bring_their_own_effects(self) -> None:
        nodes = export(circuit())["nodes"]
        assert nodes["m1"] == {"in_graph": True, "score": 1.5}
        assert nodes["m0"] == {"in_graph": False}

    def test_grouped_heads_fit_where_there_are_as_many_of_both(self) -> None:
        edges = [Edge(source="input", target="a0.kv1", port="v", effect=1.0)]
        nodes = [Node(component="input"), Node(component="a0.kv1")]
        graph = export(circuit(kv_heads="grouped", nodes=nodes, edges=edges))
        assert graph["edges"]["input->a0.h1<v>"] == {"score": 1.0, "in_graph": True}
        assert graph["nodes"]["a0.h1"]["in_graph"]

    def test_it_is_found_by_its_name(self) -> None:
        assert find_exporter("eap-ig-json") is EXPORTER


def with_edge(source: str, target: str, port: Any = None) -> Circuit:
    edge = Edge(source=source, target=target, port=port)
    return circuit(nodes=[Node(component=source), Node(component=target)], edges=[edge])


@pytest.mark.parametrize(
    ("one", "model", "says"),
    [
        (circuit(), Model(slug="tiny"), "n_layers, n_heads, d_model of tiny"),
        (circuit(), Model(slug="tiny", n_layers=2, n_heads=2), "needs d_model"),
        (circuit(kv_heads="grouped"), MODEL.model_copy(update={"n_kv_heads": 1}), "per query head"),
        (circuit(kv_heads="grouped"), MODEL.model_copy(update={"n_kv_heads": None}), "per query"),
        (
            with_edge("input", "a0.kv0", "k"),
            MODEL.model_copy(update={"n_kv_heads": 1}),
            "the same number",
        ),
        (node_circuit("m0@END"), MODEL, "m0@END is bound to a position"),
        (node_circuit("m0.n3"), MODEL, "m0.n3 is a part that a graph does not have"),
        (node_circuit("m0#coordinate[1]"), MODEL, "only input, heads, MLPs and logits"),
        (node_circuit("a7.h0"), MODEL, "a7.h0 is no node of tiny"),
        (with_edge("m1", "m0"), MODEL, "writes only after"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(one: Circuit, model: Model, says: str) -> None:
    with pytest.raises(BadInput, match=says.replace("[", r"\[")):
        EXPORTER.write(one, Exporting(model))


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput, match="not a file of edge scores"):
        EXPORTER.write(circuit(), Exporting(MODEL, b"x"))


# 0 says in this format that something was never scored.
scores = st.floats(allow_nan=False, allow_infinity=False).filter(bool)


@st.composite
def fitting(draw: st.DrawFn) -> tuple[Circuit, Model]:
    """A circuit that the format can hold, with its model."""
    heads, parallel = draw(st.integers(1, 3)), draw(st.booleans())
    space = EdgeSpace(draw(st.integers(1, 3)), heads, heads, parallel)
    model = Model(
        slug="tiny", n_layers=space.n_layers, n_heads=heads, parallel_attn_mlp=parallel,
        d_model=heads * draw(st.integers(1, 9)),
    )  # fmt: skip
    names = st.sampled_from([*space.senders, "logits"])
    sign = draw(st.sampled_from(Sign))
    effects = st.none() | (scores.map(abs) if sign is Sign.UNSIGNED else scores)
    own = draw(st.dictionaries(names, effects, max_size=4))
    places = draw(st.lists(st.sampled_from(list(space.edges())), max_size=8, unique=True))
    edges = [
        Edge(
            source=space.senders[row], target=space.receivers[column].node,
            port=space.receivers[column].port, effect=draw(effects),
        )
        for row, column in places
    ]  # fmt: skip
    joined = {end for edge in edges for end in (edge.source, edge.target)}
    if not joined and set(own) <= {"logits"}:
        own["input"] = None
    nodes = [Node(component=name, effect=own.get(name)) for name in {*own, *joined}]
    return circuit(nodes=nodes, edges=edges, sign=sign), model


def held(one: Circuit) -> Any:
    """All that the format can hold."""
    return (
        one.sign,
        {node.component: node.effect for node in one.nodes},
        {edge.connection: edge.effect for edge in one.edges},
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=fitting())
def test_what_it_holds_survives_out_and_in_again(
    tmp_path: Path, drawn: tuple[Circuit, Model]
) -> None:
    one, model = drawn
    content = EXPORTER.write(one, Exporting(model))
    load_strictly(json.loads(content))
    found = read_back(content, tmp_path / "graph.json", one.sign)
    (again,) = found.circuits
    assert held(again) == held(one)
    kept = next(iter(found.artifacts), None)
    assert EXPORTER.write(again, Exporting(found.models[0], kept)) == content
    (thrice,) = read_back(content, tmp_path / "graph.json", one.sign).circuits
    assert thrice == again


@needs_files
@pytest.mark.parametrize(
    "name",
    [
        "mib-circuit-track/ioi-eap-ig.json",
        "query-circuit-discovery/ioi_gpt2_canonical_circuit.json",
    ],
)
def test_a_real_file_comes_out_as_it_went_in(name: str) -> None:
    path = SHARED / name
    found = recognised(path).read(path, Context(Said(model="gpt2", task="ioi")))
    kept = next(iter(found.artifacts), None)
    content = export(found.circuits[0], found.models[0], kept)
    assert content == json.loads(path.read_bytes())
    load_strictly(content)
