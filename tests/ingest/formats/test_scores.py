"""What every format does with scores that are negative where they are sizes, or not finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

from ingest.formats.base import Context, Imported, Said, find_format
from registry.errors import BadInput
from tests.ingest.formats import attribution_graphs
from tests.ingest.formats.sparse_features_files import act, neurons, saved
from tests.ingest.formats.test_importing import graph

SAID = {"model": "gpt2", "task": "ioi"}
FORMATS = [
    "acdc-like csv", "jsonl", "parquet", "eap-ig-json", "eap-ig-pt", "node-link", "graphml",
    "graphviz", "attribution-graph", "glassbox", "sequence-continuation", "heads", "circuitkit",
]  # fmt: skip


def written(folder: Path, kind: str, score: float) -> tuple[str, Path, dict[str, Any]]:
    """A file with one such score; its format, and what is to be said of it."""
    text = json.dumps(score)  # NaN and Infinity, as Python's json writes them
    said: dict[str, Any] = {}
    match kind:
        case "acdc-like csv":
            name, content = "edges.csv", f"source,target,effect\nm0,m1,1\nm0,a3.h2.q,{score}\n"
        case "heads":
            name, content = "heads.csv", f"layer,head,score\n0,1,1\n3,2,{score}\n"
        case "jsonl":
            rows = '{{"source": "m0", "target": "{}", "effect": {}}}\n'
            name, content = "edges.jsonl", rows.format("m1", 1) + rows.format("a3.h2<q>", text)
        case "eap-ig-json":
            name = "graph.json"
            edges = {**graph()["edges"]}
            edges = {k: {**v, "score": abs(v["score"])} for k, v in edges.items()}
            edges["input->a0.h0<q>"] = {"score": score, "in_graph": True}
            content = json.dumps(graph(edges=edges))
        case "node-link":
            name = "graph.json"
            links = [{"source": "m0", "target": "m1", "effect": score}]
            content = json.dumps(
                {"directed": True, "multigraph": False, "graph": {}, "links": links,
                 "nodes": [{"id": "m0"}, {"id": "m1"}]}
            )  # fmt: skip
        case "graphml":
            name = "graph.graphml"
            content = (
                '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><key id="e" for="edge"'
                ' attr.name="effect" attr.type="double"/><graph edgedefault="directed"><node'
                ' id="m0"/><node id="m1"/><edge source="m0" target="m1"><data key="e">'
                f"{score}</data></edge></graph></graphml>"
            )
        case "graphviz":
            name, content = "graph.gv", f'digraph {{ m0 -> m1 [effect="{score}"] }}'
        case "attribution-graph":
            links = attribution_graphs.graph()["links"]
            links = [{**one, "weight": abs(one["weight"] or 0)} for one in links]
            links[0]["weight"] = score
            name, content = "graph.json", json.dumps(attribution_graphs.graph(links=links))
        case "glassbox":
            name = "analysis.json"
            content = json.dumps({"circuit": [[3, 2]], "attributions": {"(3, 2)": score}})
        case "sequence-continuation":
            ratio = 1 - score
            rows_ = [{"source": "m0", "target": "m1", "ratio": ratio}]
            content = json.dumps({"task": "numerals", "keep_rule": "x", "edges": rows_})
            name = "edges.json"
        case "circuitkit":
            name, said = "scores.json", {"top": 2}
            content = json.dumps({"node_scores": {"A3.2": score, "MLP 0": 1.0, "MLP 1": 2.0}})
        case "parquet":
            path = folder / "edges.parquet"
            columns = {"source": ["m0", "m0"], "target": ["m1", "a3.h2<q>"], "effect": [1.0, score]}
            parquet.write_table(pyarrow.table(columns), path)
            return "parquet", path, said
        case _:
            path = folder / "graph.pt"
            scores = torch.ones(3, 5)
            scores[0, 0] = score
            marks = torch.ones(3, 5, dtype=torch.bool)
            torch.save(
                {"cfg": {"n_layers": 1, "n_heads": 1}, "edges_scores": scores,
                 "edges_in_graph": marks, "nodes_in_graph": torch.ones(3, dtype=torch.bool)},
                path,
            )  # fmt: skip
            return kind, path, said
    path = folder / name
    path.write_text(content, "utf-8")
    table = kind in ("acdc-like csv", "heads", "jsonl")
    return "table" if table else kind, path, said


NAMED = {
    "acdc-like csv": "line 3, m0->a3.h2<q>", "jsonl": "line 2, m0->a3.h2<q>",
    "parquet": "row 2, m0->a3.h2<q>", "heads": "line 3, a3.h2", "node-link": "edge 1, m0->m1",
    "graphml": "edge 1, m0->m1", "graphviz": "edge 1, m0->m1", "glassbox": "a3.h2",
    "eap-ig-json": "input->a0.h0<q>", "eap-ig-pt": "input->a0.h0<q>",
    "sequence-continuation": "m0->m1", "circuitkit": "A3.2",
    "attribution-graph": "'E_2_1' -> '0_3_1'",
}  # fmt: skip


def read(folder: Path, kind: str, score: float, **more: Any) -> Imported:
    name, path, said = written(folder, kind, score)
    return find_format(name).read(path, Context(Said(**{**SAID, **said, **more})))


@pytest.mark.parametrize("score", [float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", FORMATS)
def test_an_infinite_score_is_missing_and_named_in_every_format(
    tmp_path: Path, kind: str, score: float
) -> None:
    found = read(tmp_path, kind, score)
    (note,) = (note for note in found.notes if "not finite, read as missing" in note)
    assert note.startswith("1 score that is not finite, read as missing: ")
    assert NAMED[kind] in note
    assert "inf)" in note
    (circuit,) = found.circuits
    effects = [edge.effect for edge in circuit.edges] + [node.effect for node in circuit.nodes]
    assert None in effects or kind == "circuitkit"  # which leaves out what it cannot choose
    assert all(effect is None or abs(effect) < 100 for effect in effects)


@pytest.mark.parametrize("kind", FORMATS)
def test_nan_is_missing_in_every_format(tmp_path: Path, kind: str) -> None:
    infinite = read(tmp_path, kind, float("inf"))
    assert read(tmp_path, kind, float("nan")).circuits == infinite.circuits


@pytest.mark.parametrize("kind", [k for k in FORMATS if k != "sequence-continuation"])
def test_a_negative_score_among_sizes_is_refused_by_name_in_every_format(
    tmp_path: Path, kind: str
) -> None:
    assert read(tmp_path, kind, 0.5, sign="unsigned").circuits
    with pytest.raises(
        BadInput, match=r"score.* -0\.5.* unsigned scores cannot be negative"
    ) as raised:
        read(tmp_path, kind, -0.5, sign="unsigned")
    place = NAMED[kind].rpartition(", ")[2]
    assert place in str(raised.value) or kind == "attribution-graph"


def test_a_negative_effect_of_a_unit_among_sizes_is_refused(tmp_path: Path) -> None:
    path = saved(neurons(), tmp_path / "circuit.pt")
    said = {"model": "tiny", "task": "ioi", "top": 2, "sign": "unsigned"}
    with pytest.raises(BadInput, match=r"attn_0, position 0, unit 2 is -1\.5"):
        find_format("sparse-features").read(path, Context(Said(**said)))


def test_an_infinite_effect_of_a_unit_is_missing_and_counted(tmp_path: Path) -> None:
    nodes = {**neurons()["nodes"], "mlp_0": act([[float("inf"), 0.125], [-0.75, 0.0]])}
    path = saved(neurons(nodes=nodes), tmp_path / "circuit.pt")
    said = {"model": "tiny", "task": "ioi", "top": 9}
    found = find_format("sparse-features").read(path, Context(Said(**said)))
    assert "infinite effects read as missing: 1 in mlp_0" in found.notes


def test_many_odd_scores_are_counted_and_the_first_named(tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    rows = "".join(f"m0,m{at},inf\n" for at in range(1, 6))
    path.write_text(f"source,target,effect\n{rows}")
    found = find_format("table").read(path, Context(Said(**SAID)))
    assert found.notes == [
        "5 scores that are not finite, read as missing: line 2, m0->m1 (inf), line 3,"
        " m0->m2 (inf), line 4, m0->m3 (inf) and 2 more"
    ]


@pytest.mark.parametrize("width", ["nan", "inf"])
def test_a_pen_of_no_finite_width_says_no_effect(tmp_path: Path, width: str) -> None:
    path = tmp_path / "graph.gv"
    path.write_text(f"digraph {{ m0 -> m1 [penwidth={width}]; m0 -> m2 [penwidth=2]; m0 -> m3"
                    " [penwidth=1] }")  # fmt: skip
    found = find_format("graphviz").read(path, Context(Said(**SAID)))
    effects = {edge.target: edge.effect for edge in found.circuits[0].edges}
    assert effects == {"m1": None, "m2": 2.0, "m3": None}
    assert any(f"penwidth of m0 -> m1 ({width})" in note for note in found.notes)


@pytest.mark.parametrize(
    "kind",
    ["jsonl", "acdc-like csv", "node-link", "attribution-graph", "circuitkit", "eap-ig-json",
     "glassbox"],
)  # fmt: skip
def test_a_whole_number_beyond_all_floats_is_missing_as_an_infinity_is(
    tmp_path: Path, kind: str
) -> None:
    infinite = read(tmp_path, kind, float("inf"))
    name, path, said = written(tmp_path, kind, float("inf"))
    text = path.read_text("utf-8")
    infinity = "inf" if path.suffix == ".csv" else "Infinity"
    path.write_text(text.replace(infinity, "9" * 400), "utf-8")
    found = find_format(name).read(path, Context(Said(**{**SAID, **said})))
    assert (found.circuits, found.notes) == (infinite.circuits, infinite.notes)


@pytest.mark.parametrize("text", ["1_000", "١٢", "1,5"])
def test_what_only_python_reads_as_a_number_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edges.csv"
    for column in ("effect", "rank"):
        path.write_text(f'source,target,{column}\nm0,m1,"{text}"\n', "utf-8")
        with pytest.raises(BadInput, match=f"line 2: {column} '{text}' is no"):
            find_format("table").read(path, Context(Said(**SAID)))
    path = tmp_path / "graph.gv"
    path.write_text(f'digraph {{ m0 -> m1 [penwidth="{text}"] }}', "utf-8")
    with pytest.raises(BadInput, match="is no width"):
        find_format("graphviz").read(path, Context(Said(**SAID)))


@pytest.mark.parametrize("type", ["int", "double"])
def test_numbers_of_graphml_are_those_of_xml(tmp_path: Path, type: str) -> None:
    path = tmp_path / "graph.graphml"
    path.write_text(
        f'<graphml><key id="e" for="edge" attr.name="effect" attr.type="{type}"/>'
        '<graph edgedefault="directed"><node id="m0"/><node id="m1"/>'
        '<edge source="m0" target="m1"><data key="e">1_000</data></edge></graph></graphml>'
    )
    with pytest.raises(BadInput, match=f"effect is '1_000', no {type}"):
        find_format("graphml").read(path, Context(Said(**SAID)))


def test_odd_numbers_of_nodes_and_of_figures_are_told_of(tmp_path: Path) -> None:
    graph = attribution_graphs.graph()
    graph["nodes"][0] |= {"influence": float("nan"), "activation": float("inf")}
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph))
    notes = find_format("attribution-graph").read(path, Context(Said(**SAID))).notes
    assert any("influence of '0_3_1' (nan), activation of '0_3_1' (inf)" in one for one in notes)
    figures = {"sufficiency": float("nan"), "comprehensiveness": 0.5}
    content = {"circuit": [[3, 2]], "attributions": {"(3, 2)": 1.0}, "faithfulness": figures}
    path.write_text(json.dumps(content))
    notes = find_format("glassbox").read(path, Context(Said(**SAID))).notes
    assert any("read as missing: sufficiency (nan)" in note for note in notes)
