"""Columns of tables by the names that people use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest.formats.base import Context, Imported, Said, UnknownFormat, find_format
from ingest.formats.tables.columns import USUAL, find_columns
from registry.errors import BadInput

SAID = Said(model="gpt2", task="ioi")


def read(folder: Path, text: str, name: str = "edges.csv", said: Said = SAID) -> Imported:
    path = folder / name
    path.write_text(text, "utf-8")
    return find_format("table").read(path, Context(said))


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("from,to,weight", "from as source, to as target, weight as effect"),
        ("source,target,score", "score as effect"),
        ("src,dst,effect", "src as source, dst as target"),
        ("Sender,Receiver,Effect Size",
         "Sender as source, Receiver as target, Effect Size as effect"),
        ("Source,Target,Value", "Source as source, Target as target, Value as effect"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_usual_names_are_read_without_options_and_said(
    tmp_path: Path, header: str, note: str, kind: str
) -> None:
    first, second, third = header.split(",")
    text = f"{header}\nm0,m1,0.5\n"
    if kind == "jsonl":
        text = f'{{"{first}": "m0", "{second}": "m1", "{third}": 0.5}}\n'
    found = read(tmp_path, text, f"edges.{kind}")
    (edge,) = found.circuits[0].edges
    assert (edge.connection, edge.effect) == ("m0->m1", 0.5)
    columns = "column" if note.count(" as ") == 1 else "columns"
    assert found.notes == [f"{columns} read by the usual names: {note}"]


def test_our_own_names_are_taken_without_a_word(tmp_path: Path) -> None:
    found = read(tmp_path, "source,target,effect,weight,from\nm0,m1,0.5,9,m2\n")
    assert [(e.connection, e.effect) for e in found.circuits[0].edges] == [("m0->m1", 0.5)]
    assert found.notes == []


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("source,target,score,weight", "'score' and 'weight' may each be the column 'effect';"
         " choose one with --column effect=score"),
        ("from,src,to,effect", "'from' and 'src' may each be the column 'source'"),
        ("from,to,dst,effect", "'to' and 'dst' may each be the column 'target'"),
    ],
)  # fmt: skip
def test_columns_that_may_be_the_same_are_refused(tmp_path: Path, header: str, says: str) -> None:
    with pytest.raises(BadInput, match=re.escape(says)):
        read(tmp_path, f"{header}\nm0,m1,m2,1\n")


def test_an_option_decides_between_them(tmp_path: Path) -> None:
    said = SAID.model_copy(update={"columns": {"effect": "weight"}})
    found = read(tmp_path, "source,target,score,weight\nm0,m1,1,2\n", said=said)
    assert [edge.effect for edge in found.circuits[0].edges] == [2.0]
    assert found.notes == []


def test_a_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    said = SAID.model_copy(update={"columns": {"effect": "wieght"}})
    with pytest.raises(BadInput, match="no column 'wieght'"):
        read(tmp_path, "source,target,weight\nm0,m1,1\n", said=said)


def test_parents_and_children_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="no column 'source'"):
        read(tmp_path, "parent,child,weight\nm0,m1,1\n")


def test_lines_of_json_may_lack_what_is_unknown_and_not_change_names(tmp_path: Path) -> None:
    lines = '{"from": "m0", "to": "m1"}\n{"from": "m0", "to": "m2", "weight": 2}\n'
    found = read(tmp_path, lines, "edges.jsonl")
    assert {e.connection: e.effect for e in found.circuits[0].edges} == {
        "m0->m1": None, "m0->m2": 2.0,
    }  # fmt: skip
    assert "weight as effect" in found.notes[0]
    with pytest.raises(BadInput, match="line 3: 'weight' of other lines and 'score' may each be"):
        read(tmp_path, lines + '{"from": "m1", "to": "m2", "score": 2}\n', "edges.jsonl")
    with pytest.raises(BadInput, match="some lines are edges and some are nodes"):
        read(tmp_path, lines + '{"layer": 1, "head": 2}\n', "edges.jsonl")


def test_no_usual_name_is_two_of_one_kind_of_table() -> None:
    assert find_columns(["source", "target"], Said(), "t").of_edges
    assert not find_columns(["layer", "head"], Said(), "t").of_edges
    assert find_columns(["source", "target", "layer", "head"], Said(), "t").of_edges
    for names in (("source", "target", "port", "effect"), ("node", "layer", "head", "effect")):
        every = [one for name in names for one in USUAL[name]]
        assert len(every) == len(set(every))
