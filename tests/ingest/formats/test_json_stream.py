"""Reading JSON piece by piece against reading it whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats import json_stream
from ingest.formats.base import Limits
from ingest.formats.json_stream import read_object
from ingest.formats.reading import read_json
from registry.errors import BadInput
from tests.patience import soon

texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ['"', "}", "]", "\\", "{},{", "}],[{", "ä\n", '":{"']
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
lists = st.lists(st.dictionaries(texts, scalars, max_size=3) | values, max_size=8)
objects = st.fixed_dictionaries(
    {}, optional={"whole": values, "items": lists, "others": lists | values, "} ]": values}
)


class Taken:
    """What is handed over of a file."""

    def __init__(self, path: Path, piece: int = 1 << 20) -> None:
        self.whole: list[Any] = []
        self.items: list[Any] = []
        self.told: list[tuple[int, int]] = []
        self.seen = read_object(
            path,
            {"whole": self.whole.append},
            {"items": self.items.extend},
            lambda done, total: self.told.append((done, total)),
            piece,
        )


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "graph.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@given(objects, st.integers(1, 40), st.sampled_from([None, 0, 1]), st.booleans(), st.randoms())
def test_pieces_of_any_size_give_what_the_whole_file_gives(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, Any],
    piece: int,
    indent: int | None,
    ascii_alone: bool,
    random: Any,
) -> None:
    fields = list(content.items())
    random.shuffle(fields)
    text = json.dumps(dict(fields), indent=indent, ensure_ascii=ascii_alone)
    path = written(tmp_path_factory.mktemp("pieces"), text)
    expected = read_json(path, Limits(), odd=True)
    taken = Taken(path, piece)
    assert taken.seen == set(content) & {"whole", "items"}
    assert repr(taken.whole) == repr([expected["whole"]] if "whole" in content else [])
    assert repr(taken.items) == repr(expected.get("items", []))
    assert taken.told[-1] == (path.stat().st_size, path.stat().st_size)


@given(objects, st.integers(1, 40), st.data())
def test_what_is_no_json_is_refused_in_pieces_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, Any],
    piece: int,
    data: st.DataObject,
) -> None:
    text = json.dumps(content)
    at = data.draw(st.integers(0, len(text)))
    changed = (
        text[:at] + data.draw(st.sampled_from([",", "]", "}", '"', "x", "1", "["])) + text[at:]
    )
    folder = tmp_path_factory.mktemp("pieces")
    path = written(folder, changed)
    try:
        expected = json.loads(changed)
    except ValueError:
        with pytest.raises(BadInput):
            Taken(path, piece)
    else:
        if isinstance(expected.get("items", []), list):
            assert Taken(path, piece).seen == set(expected) & {"whole", "items"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no object of JSON"),
        ("[{}]", "no object of JSON"),
        ("{", "no JSON: a name in double quotes is missing: character 1"),
        ('{"a": 1, }', "no JSON: a name in double quotes is missing: character 9"),
        ('{"a" 1}', "no JSON: : is missing: character 5"),
        ('{"a": tru}', "no JSON: Expecting value: character 6"),
        ('{"items": [1, 2', "no JSON: , or ] is missing: character 15"),
        ('{"items": [1, ]}', "no JSON: Expecting value: character 14"),
        ('{"items": [{"x": 1}, {"y" 2}]}', "no JSON: Expecting ':' delimiter: character 26"),
        ('{"items": {}}', "items is no list"),
        ('{"items": [], "items": []}', "'items' twice"),
        ('{"whole": 1, "whole": 2}', "'whole' twice"),
        ('{"whole": 1} 2', "there is text after its end"),
        ('{"whole": "a\nb"}', "Invalid control character"),
        ('{"whole": ' + "[" * 100_000, "nested too deeply"),
        ('{"items": [' + '{"a":' * 100_000, "nested too deeply"),
        ('{"others": ' + "1" * 5_000 + "}", "a number that cannot be read"),
        (b'{"whole": "\xff"}', "no text in UTF-8"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(
    tmp_path: Path, text: str | bytes, says: str
) -> None:
    with pytest.raises(BadInput) as refused:
        Taken(written(tmp_path, text))
    assert says in str(refused.value)


@pytest.mark.parametrize("number", ["1.5", "1e+5", "-12", "0.25E-7", "NaN", "-Infinity", "1e999"])
def test_a_number_that_a_piece_ends_in_is_read_whole(tmp_path: Path, number: str) -> None:
    path = written(tmp_path, f'{{"whole": {number}, "items": [{number},{number}]}}')
    expected = read_json(path, Limits(), odd=True)
    for piece in range(1, 40):
        taken = Taken(path, piece)
        whole, items = [expected["whole"]], expected["items"]
        assert repr((taken.whole, taken.items)) == repr((whole, items))  # NaN is not itself


@pytest.mark.parametrize("large", ["[" + "0," * 2_000 + "0]", '"' + "x" * 20_000 + '"'])
@pytest.mark.parametrize("text", ['{"whole": V}', '{"items": [{"a": V}]}', '{"others": [V]}'])
def test_one_value_that_takes_very_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, large: str
) -> None:
    path = written(tmp_path, text.replace("V", large))
    Taken(path, 100)
    monkeypatch.setattr(json_stream, "_LARGEST", 8_000)
    monkeypatch.setattr(json_stream, "_MOST_VALUES", 1_500)
    with pytest.raises(BadInput, match="one value of over"):
        Taken(path, 100)


@pytest.mark.parametrize("item", ["0", "[1,2]", '"}"', "{}", '{"a": {}}', '{"a": "},{"}'])
def test_a_list_of_any_length_is_soon_passed_over(tmp_path: Path, item: str) -> None:
    n_items = 4_000_000 // (len(item) + 1)
    path = written(tmp_path, '{"others": [' + f"{item}," * n_items + item + '], "whole": 3}')
    with soon():
        assert Taken(path).whole == [3]


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    assert Taken(written(tmp_path, b"\xef\xbb\xbf" + b'{"whole": 3}')).whole == [3]


@pytest.mark.parametrize("piece", range(1, 12))
@pytest.mark.parametrize("items", ["{}, ,{}", "{} , , {}", " ,{}", "{}, ", "1,  ,2", "[1], \n,[2]"])
def test_an_item_that_is_missing_between_commas_is_refused(
    tmp_path: Path, items: str, piece: int
) -> None:
    path = written(tmp_path, f'{{"others": [{items}], "whole": 3}}')
    with pytest.raises(BadInput, match="is no JSON"):
        Taken(path, piece)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Taken(tmp_path / "graph.json")
