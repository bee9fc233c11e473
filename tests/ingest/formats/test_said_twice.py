"""A file that says something twice, or in a way that swallows what follows, is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.formats.base import Context, Imported, Said, find_format
from ingest.formats.json_stream import read_object
from ingest.formats.plain_yaml import read_yaml
from registry.errors import BadInput

SAID = Said(model="gpt2", task="ioi", dictionary="d")
NODE_LINK = """{"directed": true, "multigraph": false, "nodes": [{"id": "m0"}, {"id": "m1"}],
 "links": [{"source": "m0", "target": "m1", "effect": 1, "effect": 2}]}"""
GRAPH = """{"metadata": {}, "nodes": [
 {"node_id": "0_1_0", "feature_type": "cross layer transcoder", "ctx_idx": 0, "layer": "0",
  "clerp": "a: b"},
 {"node_id": "1_1_0", "feature_type": "cross layer transcoder", "ctx_idx": 0, "layer": "1"}],
 "links": [{"source": "0_1_0", "target": "1_1_0", "weight": 1}]}"""


def read(folder: Path, text: str, name: str, format: str, said: Said = SAID) -> Imported:
    path = folder / name
    path.write_text(text, "utf-8")
    return find_format(format).read(path, Context(said))


@pytest.mark.parametrize(
    "text",
    [
        'source,target,effect\nm0,m1,1\nm0,"m2,2\nm1,m2,3\nm1,m3,4\n',
        'layer,head,effect\n0,1,1\n0,"2,2\n1,1,3\n',
    ],
)
def test_a_quote_that_is_not_closed_does_not_swallow_the_rows_below(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(BadInput, match=r"t\.csv, line 3: a quote is not closed"):
        read(tmp_path, text, "t.csv", "table")


def test_a_quoted_text_may_hold_lines(tmp_path: Path) -> None:
    text = 'source,target,comment\nm0,m1,"one\ntwo"\nm1,m2,three\n'
    assert len(read(tmp_path, text, "t.csv", "table").circuits[0].edges) == 2


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("source,target,effect,effect", "effect"),
        ("layer,head,head,effect", "head"),
        ("source,target,score,score", "score"),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str, column: str) -> None:
    with pytest.raises(BadInput, match=rf"t\.csv has two columns '{column}'"):
        read(tmp_path, f"{header}\n0,1,2,3\n", "t.csv", "table")


def test_two_columns_of_one_name_that_nobody_reads_are_none_of_our_business(
    tmp_path: Path,
) -> None:
    found = read(tmp_path, "source,target,x,x\nm0,m1,1,2\n", "t.csv", "table")
    assert len(found.circuits[0].edges) == 1


@pytest.mark.parametrize(
    ("format", "name", "text", "says"),
    [
        ("table", "t.jsonl", '{"source": "m0", "target": "m1", "target": "m2"}', "line 1, has"),
        ("node-link", "g.json", NODE_LINK, "'effect' twice"),
        ("circuitkit", "c.json", '{"node_scores": {"A0.1": 0.1, "A0.1": 0.9}}', "'A0.1' twice"),
        ("edge-pruning", "e.json", '{"edges": [["m0", "m1"]], "edges": []}', "'edges' twice"),
        (
            "easyedit-results", "r.json",
            '[{"post": {"rewrite_acc": 0.0, "rewrite_acc": 1.0}}]', "'rewrite_acc' twice",
        ),
        (
            "easyedit-results", "r.jsonl",
            '{"post": {"rewrite_acc": 0}}\n{"post": {"rewrite_acc": 1, "rewrite_acc": 0}}',
            "line 2, has 'rewrite_acc' twice",
        ),
        ("attribution-graph", "a.json", GRAPH.replace("1}]", '1, "weight": 2}]'), "'weight' twice"),
        (
            "attribution-graph", "a.json", GRAPH.replace('"a: b"', '"a: b", "layer": "1"'),
            "'layer' twice",
        ),
    ],
)  # fmt: skip
def test_a_name_that_stands_twice_in_an_object_is_refused(
    tmp_path: Path, format: str, name: str, text: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        read(tmp_path, text, name, format, SAID.model_copy(update={"top": 1}))


def test_a_graph_with_colons_in_its_texts_is_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, GRAPH, "a.json", "attribution-graph").circuits[0].edges) == 1


def test_a_name_is_found_twice_wherever_a_piece_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    links = [{"a": at, "b": at} for at in range(20)]
    path.write_text(json.dumps({"items": links}).replace('"a": 7,', '"a": 7, "a": 7,'), "utf-8")
    for piece in range(1, 60):
        with pytest.raises(BadInput, match="has 'a' twice in one object"):
            read_object(path, {}, {"items": lambda _: None}, piece=piece)


def test_an_attribute_of_graphml_that_stands_twice_is_refused(tmp_path: Path) -> None:
    data = '<data key="effect">1</data><data key="effect">2</data>'
    text = (
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        '<key id="effect" for="edge" attr.name="effect" attr.type="double"/>'
        '<graph edgedefault="directed"><node id="m0"/><node id="m1"/>'
        f'<edge source="m0" target="m1">{data}</edge></graph></graphml>'
    )
    with pytest.raises(BadInput, match="line 1: 'effect' appears twice in one element"):
        read(tmp_path, text, "g.graphml", "graphml")


def test_a_field_of_yaml_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "circuits-import.yaml"
    path.write_text('- files: "*"\n  model: gpt2\n  "model": pythia\n', "utf-8")
    with pytest.raises(BadInput, match=r"line 3: 'model' appears twice"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("," * 2_000_000, r"line 1 has 2,000,001 columns and 1,000 are allowed"),
        ("source,target\n" + "," * 2_000_000, r"line 2 has 2,000,001 values and 100,000 are"),
    ],
)
def test_a_line_of_millions_of_values_is_counted_before_it_is_taken_apart(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        read(tmp_path, text, "t.csv", "table")
