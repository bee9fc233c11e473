"""Files of more edges than are allowed are refused before memory is spent on any of them."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ingest.formats.base import Context, Limits, Said, find_format
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from tests.ingest.formats import attribution_graphs

SPACE = EdgeSpace(12, 12, 12)
EDGES = [
    (SPACE.senders[row], SPACE.receivers[column], 1.0 / (number + 1))
    for number, (row, column) in enumerate(SPACE.edges())
]
SAID = Said(model="gpt2", task="ioi")


def _csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("source", "target", "port", "effect"))
        rows.writerows((source, to.node, to.port, effect) for source, to, effect in EDGES)


def _json_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(_link(*edge)) + "\n" for edge in EDGES))


def _parquet(path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([_link(*edge) for edge in EDGES]), path)


def _eap_ig(path: Path) -> None:
    edges = {f"{source}->{to.name}": {"score": effect} for source, to, effect in EDGES}
    cfg = {"n_layers": 12, "n_heads": 12}
    path.write_text(json.dumps({"cfg": cfg, "nodes": {}, "edges": edges}))


def _node_link(path: Path) -> None:
    nodes = [{"id": name} for name in (*SPACE.senders, "logits")]
    links = [_link(*edge) for edge in EDGES]
    path.write_text(
        json.dumps({"directed": True, "multigraph": True, "nodes": nodes, "links": links})
    )


def _graphml(path: Path) -> None:
    text = io.StringIO()
    text.write('<graphml xmlns="http://graphml.graphdrawing.org/xmlns">')
    text.write('<key id="p" for="edge" attr.name="port"/><graph edgedefault="directed">')
    text.writelines(f'<node id="{name}"/>' for name in (*SPACE.senders, "logits"))
    text.writelines(
        f'<edge source="{one}" target="{to.node}"><data key="p">{to.port or ""}</data></edge>'
        for one, to, _ in EDGES
    )
    text.write("</graph></graphml>")
    path.write_text(text.getvalue())


def _graphviz(path: Path) -> None:
    lines = (f'"{one}" -> "{to.node}" [label="-> {effect}"];' for one, to, effect in EDGES)
    path.write_text("digraph {\n" + "\n".join(lines) + "\n}")


def _attribution_graph(path: Path) -> None:
    links = [{"source": "E_2_1", "target": f"9_{at}_1", "weight": 1.0} for at in range(len(EDGES))]
    path.write_text(json.dumps(attribution_graphs.graph(links=links)))


def _link(source: str, to: Any, effect: float) -> dict[str, Any]:
    return {"source": source, "target": to.node, "port": to.port, "effect": effect}


FILES: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "CSV": ("table", "edges.csv", _csv),
    "JSON Lines": ("table", "edges.jsonl", _json_lines),
    "Parquet": ("parquet", "edges.parquet", _parquet),
    "EAP-IG": ("eap-ig-json", "graph.json", _eap_ig),
    "node-link": ("node-link", "graph.json", _node_link),
    "GraphML": ("graphml", "graph.graphml", _graphml),
    "graphviz": ("graphviz", "graph.gv", _graphviz),
    "attribution graph": ("attribution-graph", "graph.json", _attribution_graph),
}
MIB = 2**20


@pytest.mark.parametrize("kind", FILES)
def test_edges_are_counted_before_they_are_read(kind: str, tmp_path: Path) -> None:
    format_name, name, write = FILES[kind]
    path, format = tmp_path / name, find_format(format_name)
    write(path)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="--max-edges"):
            format.read(path, Context(SAID, Limits(max_edges=len(EDGES) - 1)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The text, and the bytes it is decoded from. Edges that were read take over three times that.
    assert peak_bytes < 2.5 * path.stat().st_size + MIB


@pytest.mark.parametrize("kind", ["CSV", "JSON Lines", "graphviz", "GraphML"])
def test_exactly_as_many_as_are_allowed_are_read(kind: str, tmp_path: Path) -> None:
    format_name, name, write = FILES[kind]
    path = tmp_path / name
    write(path)
    text = path.read_text()
    path.write_text(text + "\n\n\n" if kind != "GraphML" else text)
    found = find_format(format_name).read(path, Context(SAID, Limits(max_edges=len(EDGES))))
    assert found.circuits[0].edges


@pytest.mark.parametrize(
    "text", ["[" + "[]," * 600_000 + "[]]", '{"a": [' + "1," * 1_000_001 + "1]}"]
)
def test_json_of_very_many_values_is_refused_before_they_are_made(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"values and 1,000,000 are allowed; --max-edges"):
        find_format("node-link").read(path, Context(SAID, Limits(max_edges=10)))
