"""Every registered exporter: out, in again, out again, in again."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.formats.base import Context, Said, SignConvention, recognised
from ingest.formats.exporting import Exporting, exporters, find_exporter
from registry.errors import BadInput
from registry.identifiers import PORTS, Port, can_feed, parse_node_key
from registry.records import Circuit, Edge, Level, Model, Node, Sign
from tests.few import n_examples
from tests.strategies import finite_floats

EXPORTERS = sorted(exporters())
MODEL = Model(slug="tiny", n_layers=2, n_heads=2, n_kv_heads=2, d_model=8, d_head=4, d_mlp=16)
PARTS = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
INPUTS = ["input@0", "input@1"]
FEATURES = ["m0.f7#plt@0", "m0.f7#plt@1", "m0.f90#plt@1", "m0.error#plt@1", "m1.f3#plt@1"]
LOGITS = ["logits[5]@1", "logits[8]@1"]
PROMPT = {"prompt": "a b", "prompt_tokens": ["a", " b"]}


@st.composite
def graphs(draw: st.DrawFn) -> Circuit:
    """A circuit as discovery gives it: edges of a small model, ranked by their effects."""
    return draw(_circuits(PARTS, None))


@st.composite
def feature_graphs(draw: st.DrawFn) -> Circuit:
    """A circuit as attribution graphs are: features of one prompt."""
    return draw(_circuits([*INPUTS, *FEATURES, *LOGITS], Level.FEATURE))


@st.composite
def _circuits(draw: st.DrawFn, parts: list[str], level: Level | None) -> Circuit:
    chosen = draw(st.lists(st.sampled_from(_possible(parts)), min_size=1, max_size=8, unique=True))
    sign = draw(st.sampled_from(Sign))
    effects = [draw(finite_floats.filter(bool)) for _ in chosen]
    if sign is Sign.UNSIGNED:
        effects = [abs(effect) for effect in effects]
    by_size = sorted(range(len(chosen)), key=lambda at: -abs(effects[at]))
    ranks = {at: rank for rank, at in enumerate(by_size, 1)}
    edges = [
        Edge(source=source, target=target, port=port, effect=effects[at], rank=ranks[at])
        for at, (source, target, port) in enumerate(chosen)
    ]
    parameters = PROMPT if level is Level.FEATURE else {}
    return _circuit(edges, level=level or Level.EDGE, sign=sign, parameters=parameters)


def _possible(parts: list[str]) -> list[tuple[str, str, Port | None]]:
    ports: tuple[Port | None, ...] = (None, *PORTS)
    return [
        (source, target, port)
        for source, target, port in itertools.product(parts, parts, ports)
        if can_feed(parse_node_key(source)[0], parse_node_key(target)[0], port)
    ]


def _circuit(edges: list[Edge], **more: Any) -> Circuit:
    ends = {end for edge in edges for end in (edge.source, edge.target)}
    return Circuit(
        **{
            "model": MODEL.slug, "task": "ioi", "method": "m", "level": Level.EDGE,
            "nodes": tuple(map(_node, ends)), "edges": tuple(edges), **more,
        }
    )  # fmt: skip


def _node(key: str) -> Node:
    component, at, position = key.partition("@")
    return Node(component=component, position=position if at else None)


def there_and_back(
    circuit: Circuit, name: str, folder: Path, kept: Mapping[str, bytes]
) -> tuple[Circuit, dict[str, bytes]]:
    """A circuit as it is read from what was written of it, and the files it names."""
    exporter = find_exporter(name)
    scores = None if circuit.scores is None else kept[circuit.scores]
    path = folder / f"circuit{exporter.suffix}"
    path.write_bytes(exporter.write(circuit, Exporting(MODEL, scores)))
    said = Said(
        model=circuit.model, task=circuit.task, method=circuit.method,
        sign=cast(SignConvention, str(circuit.sign)),
    )  # fmt: skip
    found = recognised(path).read(path, Context(said))
    (read,) = found.circuits
    return read, {hashlib.sha256(one).hexdigest(): one for one in found.artifacts}


def ends(circuit: Circuit) -> list[tuple[str, str, Port | None]]:
    return [(edge.source, edge.target, edge.port) for edge in circuit.edges]


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_exporter_takes_a_graph_of_parts_or_of_features(name: str, tmp_path: Path) -> None:
    graph = _circuit([Edge(source="input", target="m0", effect=0.5, rank=1)])
    features = _circuit(
        [
            Edge(source="input@0", target="m0.f7#plt@0", effect=0.5, rank=2),
            Edge(source="m0.f7#plt@0", target="logits[5]@1", effect=1.0, rank=1),
        ],
        level=Level.FEATURE,
        parameters=PROMPT,
    )
    taken = []
    for circuit in (graph, features):
        with contextlib.suppress(BadInput):
            taken.append(there_and_back(circuit, name, tmp_path, {}))
    assert taken


@pytest.mark.seconds
@pytest.mark.parametrize("name", EXPORTERS)
@settings(max_examples=n_examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(circuit=st.one_of(graphs(), feature_graphs()))
def test_what_was_imported_is_exported_and_imported_as_itself(
    name: str, circuit: Circuit, tmp_path: Path
) -> None:
    try:
        first, kept = there_and_back(circuit, name, tmp_path, {})
    except BadInput:
        return  # the format has no such nodes, and says so; that each takes some is tested above
    assert ends(first) == ends(circuit)
    again, _ = there_and_back(first, name, tmp_path, kept)
    assert again == first
