"""Attribution graphs out, and in again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.attribution_graph.exporter import EXPORTER
from ingest.formats.attribution_graph.format import FORMAT, METHOD
from ingest.formats.attribution_graph.nodes import cantor
from ingest.formats.base import Context, Said, recognised
from ingest.formats.exporting import Exporting, find_exporter
from registry.errors import BadInput
from registry.identifiers import Kind, Local, never_feeds, node_key, parse_node_key
from registry.records import Circuit, Edge, Level, Model, Node
from tests.strategies import finite_floats, texts

SHARED = Path(__file__).parents[5] / "shared" / "fixtures" / "external" / "circuit-tracer"
SAID = Said(model="gemma-2-2b", task="completion")
MODEL = Model(slug="gemma-2-2b", n_layers=26)
# What the schema asks of each part; graph-schema.json 1.0.0 of Neuronpedia.
REQUIRED: dict[str, dict[str, Any]] = {
    "metadata": {"slug": str, "scan": str, "prompt_tokens": list, "prompt": str},
    "nodes": {
        "node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str,
        "jsNodeId": str, "clerp": str,
    },
    "links": {"source": str, "target": str, "weight": (int, float)},
}  # fmt: skip


def imported(folder: Path, content: bytes) -> tuple[Circuit, bytes]:
    path = folder / "graph.json"
    path.write_bytes(content)
    assert recognised(path) is FORMAT
    found = FORMAT.read(path, Context(SAID))
    (circuit,), (artifact,) = found.circuits, found.artifacts
    return circuit, artifact


def check_schema(content: bytes) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads(content)
    assert isinstance(graph["qParams"], dict)
    for part, fields in REQUIRED.items():
        for one in graph[part] if part != "metadata" else [graph[part]]:
            for field, type_ in fields.items():
                assert isinstance(one[field], type_), (part, field)
            assert not any(isinstance(one.get(f), bool) for f in ("feature", "weight"))
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    assert {end for one in graph["links"] for end in (one["source"], one["target"])} <= set(ids)
    return graph


maybe_share = st.one_of(st.none(), st.floats(0, 1))
labels = st.one_of(st.just(""), texts)
positions = st.integers(0, 3)


def place(key: tuple[Any, ...]) -> int:
    """Where a node stands among the layers, by its kind and its layer."""
    return {"token": -1, "logit": 99}.get(key[0]) or int(key[1])


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Files of both generations, with ids that features of layer 0 and errors share."""
    paired = draw(st.booleans())
    nodes: dict[tuple[Any, ...], dict[str, Any]] = {}
    small = st.integers(0, 4)
    for layer, index, at in draw(st.sets(st.tuples(small, small, positions), max_size=6)):
        nodes["feature", layer, index, at] = {
            "node_id": f"{layer}_{index}_{at}", "layer": str(layer), "ctx_idx": at,
            "feature": cantor(layer, index) if paired else layer * 100_000 + index,
            "feature_type": "cross layer transcoder", "activation": draw(maybe_share),
        }  # fmt: skip
    for layer, at in draw(st.sets(st.tuples(small, positions), max_size=4)):
        nodes["error", layer, at] = {
            "node_id": f"0_{layer}_{at}", "feature": -1, "layer": layer, "ctx_idx": at,
            "feature_type": "mlp reconstruction error",
        }  # fmt: skip
    for at in draw(st.sets(positions, max_size=3)):
        nodes["token", at] = {
            "node_id": f"E_{draw(small)}_{at}", "feature": at, "layer": "E", "ctx_idx": at,
            "feature_type": "embedding",
        }  # fmt: skip
    for index in draw(st.sets(small, max_size=3)):
        nodes["logit", index] = {
            "node_id": f"27_{index}_3", "feature": index, "layer": "27", "ctx_idx": 3,
            "feature_type": "logit", "is_target_logit": draw(st.booleans()),
            "token_prob": draw(maybe_share),
        }  # fmt: skip
    if not nodes:
        nodes["token", 0] = {
            "node_id": "E_0_0", "feature": 0, "layer": "E", "ctx_idx": 0,
            "feature_type": "embedding",
        }  # fmt: skip
    for node in nodes.values():
        node |= {"clerp": draw(labels), "influence": draw(maybe_share)}
    ids = sorted({node["node_id"] for node in nodes.values()})
    drawn = draw(st.sets(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=8))
    places = [(node["node_id"], place(key)) for key, node in nodes.items()]
    in_order = {(one, other) for one, at in places for other, to in places if at < to}
    pairs = drawn & in_order
    metadata = {
        "slug": draw(texts), "scan": "owner/set", "prompt": draw(texts),
        "prompt_tokens": draw(st.lists(texts, max_size=4)), "transcoder_list": [],
        **({"schema_version": 1} if paired else {}),
    }  # fmt: skip
    return {
        "metadata": metadata,
        "qParams": {"pinnedIds": ids[:2], "supernodes": [[draw(texts), *ids[:2]]]},
        "nodes": list(nodes.values()),
        "links": [
            {"source": source, "target": target, "weight": draw(finite_floats)}
            for source, target in sorted(pairs)
        ],
    }


@given(graphs())
def test_a_graph_that_comes_in_goes_out_and_comes_in_the_same(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("graph")
    circuit, artifact = imported(folder, json.dumps(content).encode())
    out = EXPORTER.write(circuit, Exporting(MODEL, artifact))
    check_schema(out)
    again, values = imported(folder, out)
    # Two nodes of one id get two on the way out, so what was left ambiguous has no place.
    expected = {k: v for k, v in circuit.parameters.items() if k != "ambiguous_links"}
    assert again == circuit.model_copy(update={"parameters": expected})
    assert values == artifact
    assert EXPORTER.write(again, Exporting(MODEL, values)) == out


@st.composite
def feature_circuits(draw: st.DrawFn) -> Circuit:
    """Circuits from elsewhere, of parts that the format holds."""
    index = st.integers(0, 999_999_999)
    layer = st.integers(0, 40)
    locals_ = draw(
        st.lists(
            st.one_of(
                st.builds(
                    lambda at, n: Local(Kind.FEATURE, index=n, site=f"m{at}", basis="d"),
                    layer,
                    index,
                ),
                st.builds(lambda at: Local(Kind.ERROR, site=f"m{at}", basis="d"), layer),
                st.just(Local(Kind.INPUT)),
                st.builds(lambda n: Local(Kind.LOGIT, index=n), index),
            ),
            min_size=1,
            max_size=6,
        )
    )
    keys = sorted({node_key(local, str(draw(positions))) for local in locals_})
    drawn = draw(st.sets(st.tuples(st.sampled_from(keys), st.sampled_from(keys)), max_size=6))
    pairs = [ends for ends in drawn if not never_feeds(*(parse_node_key(end)[0] for end in ends))]
    return Circuit(
        model="gemma-2-2b", task="completion", method=METHOD, level=Level.FEATURE,
        parameters={"prompt": draw(texts), "prompt_tokens": draw(st.lists(texts, max_size=3))},
        nodes=tuple(
            Node(component=key.partition("@")[0], position=key.partition("@")[2],
                 role=draw(st.one_of(st.none(), texts)) if ".f" in key else None)
            for key in keys
        ),
        edges=tuple(Edge(source=s, target=t, effect=draw(finite_floats)) for s, t in pairs),
    )  # fmt: skip


@given(feature_circuits())
def test_a_circuit_from_elsewhere_keeps_its_nodes_and_edges(
    tmp_path_factory: pytest.TempPathFactory, circuit: Circuit
) -> None:
    out = EXPORTER.write(circuit, Exporting(MODEL))
    graph = check_schema(out)
    again, _ = imported(tmp_path_factory.mktemp("graph"), out)
    assert again.nodes == circuit.nodes
    assert [edge.model_copy(update={"rank": None}) for edge in again.edges] == list(circuit.edges)
    assert graph["metadata"]["slug"] == f"completion-{circuit.id[:12]}"
    assert again.parameters["metadata"]["prompt"] == circuit.parameters["prompt"]


def small(**changes: Any) -> Circuit:
    nodes = (
        Node(component="m1.f2#d", position="0"), Node(component="logits[3]", position="0"),
    )  # fmt: skip
    edges = (Edge(source="m1.f2#d@0", target="logits[3]@0", effect=1.0),)
    return Circuit(
        **{
            "model": "gemma-2-2b", "task": "completion", "method": "x", "level": Level.FEATURE,
            "parameters": {"prompt": "a", "prompt_tokens": ["a"]}, "nodes": nodes, "edges": edges,
            **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parameters": {}}, "needs the graph's prompt and prompt_tokens"),
        ({"parameters": {"metadata": {"prompt": 3, "prompt_tokens": []}}}, "needs the graph's pr"),
        ({"nodes": [Node(component="m1.f2#d")], "edges": ()}, "needs a position"),
        ({"nodes": [Node(component="m1.f2#d", position="END")], "edges": ()}, "needs a position"),
        ({"nodes": [Node(component="a1.h2", position="0")], "edges": ()}, "cannot hold a1.h2@0"),
        (
            {"nodes": [Node(component="l1.resid_post.f2#d", position="0")], "edges": ()},
            "cannot hold l1.resid_post.f2#d@0",
        ),
        (
            {
                "nodes": [
                    Node(component="m1.f2#d", position="0"), Node(component="m1.f2#e", position="0")
                ],
                "edges": (),
            },
            "one dictionary; the circuit has d, e",
        ),
        ({"edges": [Edge(source="m1.f2#d@0", target="logits[3]@0")]}, "1 edges have no effect"),
    ],
)  # fmt: skip
def test_what_the_format_cannot_hold_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says.replace("[", r"\[")):
        EXPORTER.write(small(**changes), Exporting(MODEL))


def test_logits_stand_one_layer_beyond_the_last() -> None:
    def layer(model: Model) -> str:
        graph = check_schema(EXPORTER.write(small(), Exporting(model)))
        return str(graph["nodes"][-1]["layer"])

    assert layer(MODEL) == "27"
    assert layer(Model(slug="gemma-2-2b")) == "3"


def test_it_is_found_by_its_name() -> None:
    assert find_exporter("neuronpedia") is EXPORTER


@pytest.mark.skipif(not SHARED.is_dir(), reason="other tools' files are not beside this checkout")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.json")), ids=lambda path: path.stem[:8])
def test_real_files_keep_their_ids_numbers_and_weights(tmp_path: Path, path: Path) -> None:
    circuit, artifact = imported(tmp_path, path.read_bytes())
    out = EXPORTER.write(circuit, Exporting(MODEL, artifact))
    theirs, ours = json.loads(path.read_bytes()), check_schema(out)
    assert imported(tmp_path, out) == (circuit, artifact)
    assert ours["metadata"] == theirs["metadata"]
    assert ours["qParams"] == theirs["qParams"]

    def links(graph: dict[str, Any]) -> set[tuple[str, str, float]]:
        return {(one["source"], one["target"], one["weight"]) for one in graph["links"]}

    def fields(graph: dict[str, Any]) -> dict[str, Any]:
        # Tokens carry numbers that differ from one version of the tool to the next.
        kept = [n for n in graph["nodes"] if n["layer"] != "E"]
        return {n["node_id"]: n for n in kept}

    assert links(ours) == links(theirs)
    assert fields(ours) == fields(theirs)
