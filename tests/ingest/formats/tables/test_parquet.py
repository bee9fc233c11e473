"""Tables of edges as Parquet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ingest.formats.base import Context, Imported, Limits, Said, UnknownFormat, recognised
from ingest.formats.tables.parquet import FORMAT
from registry.errors import BadInput, MissingExtra
from tests.patience import soon

GPT2 = Said(model="gpt2", task="ioi")
ROWS = {
    "source": ["A9.6", "embed", "m0"],
    "target": ["L10H7", "<m0>", "a9.h6"],
    "port": ["K", None, "q"],
    "effect": [0.5, float("nan"), -2.0],
}


def written(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = folder / "edges.parquet"
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def read(path: Path, said: Said = GPT2, limits: Limits | None = None) -> Imported:
    return recognised(path).read(path, Context(said, limits or Limits()))


def edges(path: Path, said: Said = GPT2) -> dict[str, tuple[float | None, int | None]]:
    (circuit,) = read(path, said).circuits
    return {edge.connection: (edge.effect, edge.rank) for edge in circuit.edges}


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("text", [pyarrow.string(), pyarrow.large_string()])
def test_rows_are_edges_named_in_any_spelling(
    tmp_path: Path, dictionary: bool, text: pyarrow.DataType
) -> None:
    columns = {**ROWS, "source": pyarrow.array(ROWS["source"], text)}
    path = written(tmp_path, columns, use_dictionary=dictionary)
    assert edges(path) == {
        "a9.h6->a10.h7<k>": (0.5, 2), "input->m0": (None, None), "m0->a9.h6<q>": (-2.0, 1),
    }  # fmt: skip
    assert "A9.6 read as a9.h6" in read(path).notes


def test_categories_of_pandas_are_texts(tmp_path: Path) -> None:
    source = pyarrow.array(ROWS["source"]).dictionary_encode()
    assert len(edges(written(tmp_path, {**ROWS, "source": source}))) == 3


def test_columns_are_mapped_and_others_never_read(tmp_path: Path) -> None:
    columns = {"from": ["m0"], "to": ["m1"], "weight": [3], "deep": [{"more": [1, 2]}]}
    said = Said(
        model="gpt2", task="ioi", columns={"source": "from", "target": "to", "effect": "weight"}
    )
    assert edges(written(tmp_path, columns), said) == {"m0->m1": (3.0, 1)}


def test_ranks_and_positions_are_read_where_there_are_columns(tmp_path: Path) -> None:
    columns = {
        "source": ["m0", "m0"], "target": ["m1", "m1"], "rank": [7.0, float("nan")],
        "source_position": [3, 4], "target_position": ["END", None],
    }  # fmt: skip
    (circuit,) = read(written(tmp_path, columns)).circuits
    assert [(e.source, e.target, e.rank) for e in circuit.edges] == [
        ("m0@3", "m1@END", 7),
        ("m0@4", "m1", None),
    ]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"source": ["m0"]}, "no column 'target'"),
        ({"source": ["m0"], "target": [["m1"]]}, "holds list"),
        ({"source": ["m0"], "target": ["m1"], "effect": [True]}, "holds bool"),
        ({"source": [0], "target": [1]}, "row 1: 0 is no name"),
        ({"source": ["m0"], "target": [None]}, "row 1: None is no name"),
        ({"source": ["m0"], "target": ["m1"], "effect": ["much"]}, "effect 'much' is no number"),
        ({"source": ["m0"], "target": ["m1"], "rank": [0.5]}, "rank 0.5"),
        ({"source": [], "target": []}, "holds no edge"),
    ],
)
def test_a_malformed_table_is_refused_with_the_reason(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        read(written(tmp_path, columns))


def test_a_table_of_something_else_is_of_no_format_that_we_know(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": ["A"], "target": ["B"]})
    with pytest.raises(UnknownFormat, match="no column 'source'; it has 'prompt', 'target'"):
        read(path)
    with pytest.raises(BadInput, match="no column 'source'") as raised:
        read(path, Said(model="gpt2", task="ioi", columns={"effect": "weight"}))
    assert not isinstance(raised.value, UnknownFormat)


def test_a_file_that_only_begins_as_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edges.parquet"
    path.write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(BadInput, match="cannot be read as Parquet"):
        read(path)


def test_a_small_file_cannot_unfold_beyond_the_limits(tmp_path: Path) -> None:
    columns = {"source": ["m0" * 50_000] * 9, "target": ["m1"] * 9}
    path = written(tmp_path, columns, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 10_000
    with pytest.raises(BadInput, match="expands to"):
        read(path, limits=Limits(max_bytes=100_000))
    with pytest.raises(BadInput, match="9 edges and 8 are allowed; --max-edges"):
        read(path, limits=Limits(max_edges=8))


def test_a_text_of_many_rows_is_held_once(tmp_path: Path) -> None:
    import tracemalloc

    columns = {"source": ["m0"] * 60_000, "target": ["x" * 1_000_000] * 60_000}
    schema = pyarrow.array(columns["target"][:1]).dictionary_encode()
    target = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 60_000, pyarrow.int32()), schema.dictionary
    )
    path = written(tmp_path, {"source": columns["source"], "target": target})
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    with pytest.raises(BadInput, match="row 1"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    assert pyarrow.total_allocated_bytes() - before < 50_000_000
    tracemalloc.stop()


def test_an_absent_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"reading Parquet needs the extra 'parquet'"):
        read(path)


def test_a_million_rows_of_one_edge_are_refused_at_the_second(tmp_path: Path) -> None:
    n = 1_000_000
    table = pyarrow.table({"source": ["m0"] * n, "target": ["m1"] * n, "effect": [1.0] * n})
    path = tmp_path / "edges.parquet"
    parquet.write_table(table, path)
    twice = r"edges.parquet, row 2: the edge m0 -> m1 appears twice"
    with soon(), pytest.raises(BadInput, match=twice):
        FORMAT.read(path, Context(Said(model="gpt2", task="ioi")))


@pytest.mark.parametrize("names", [("a0.h1", "A0.1"), ("embed", "embed")])
def test_an_edge_is_there_twice_in_whatever_spelling(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    path = tmp_path / "edges.parquet"
    parquet.write_table(pyarrow.table({"source": names, "target": ["m1", "m1"]}), path)
    with pytest.raises(BadInput, match=r"row 2: the edge (a0\.h1|input) -> m1 appears twice"):
        FORMAT.read(path, Context(Said(model="gpt2", task="ioi")))
