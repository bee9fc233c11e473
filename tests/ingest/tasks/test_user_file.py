"""A user's own prompts: what is read, and what is refused at which line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.tasks import PromptPair, read_prompt_file
from registry.errors import BadInput
from tests.ingest.tasks.words import WholeWords

_HEADER = "---\ntask: own/greetings\n---\n"
_LINE = '{"clean": "at dawn", "corrupt": "at dusk", "correct": " hi", "wrong": " bye"}\n'
_PAIR = PromptPair("at dawn", "at dusk", " hi", " bye")


def _write(folder: Path, text: str) -> Path:
    path = folder / "own.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_under_a_header(tmp_path: Path) -> None:
    header = "---\ntask: own/greetings\ndescription: Which greeting?\n---\n"
    found = read_prompt_file(_write(tmp_path, header + "\n" + _LINE))
    assert (found.slug, found.family) == ("own/greetings", "own")
    assert found.description == "Which greeting?"
    assert found.pairs == ((6, _PAIR),)


def test_csv_with_columns_in_any_order_and_quoted_line_breaks(tmp_path: Path) -> None:
    text = 'wrong,correct,corrupt,clean\n bye, hi,at dusk,at dawn\n b, h,"x,\ny","z,\nw"\n'
    found = read_prompt_file(_write(tmp_path, _HEADER + text))
    assert found.pairs == ((5, _PAIR), (6, PromptPair("z,\nw", "x,\ny", " h", " b")))


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + (_HEADER + _LINE).replace("\n", "\r\n").encode())
    assert read_prompt_file(path).pairs == ((4, _PAIR),)


def test_separators_inside_a_text_do_not_end_its_line(tmp_path: Path) -> None:
    line = _LINE.replace("at dawn", "at\u2028dawn")
    found = read_prompt_file(_write(tmp_path, _HEADER + line))
    assert found.pairs[0][1].clean == "at\u2028dawn"


def test_without_a_header_the_caller_names_the_task(tmp_path: Path) -> None:
    assert read_prompt_file(_write(tmp_path, _LINE), "mine").slug == "mine"


def test_prompts_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [_LINE.replace("at dawn", f"at {n}") for n in ("nine", "one", "five")]
    found = read_prompt_file(_write(tmp_path, _HEADER + "".join(lines)))
    streamed = [pair.text.clean for pair in found.stream(3, WholeWords())]
    assert streamed == ["at nine", "at one", "at five"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"does not name its task"),
        (_LINE, r"does not name its task"),
        (_HEADER, r"holds no prompts"),
        (_HEADER + "clean,corrupt,correct,wrong\n", r"holds no prompts below"),
        (_HEADER + _LINE + "{oops}\n", r"own.txt, line 5: Expecting property name"),
        (_HEADER + "[1]\n", r"line 4: not a JSON object"),
        (_HEADER + _LINE.replace('"wrong"', '"false"'), r"line 4: unknown field 'false'"),
        (_HEADER + '{"clean": "a"}\n', r"line 4: the field 'corrupt' is missing"),
        (_HEADER + _LINE.replace('" hi"', "5"), r"line 4: 'correct' must be a text"),
        (_HEADER + _LINE + "\n" + _LINE, r"line 6: the same prompt as on line 4"),
        (_HEADER + "clean,corrupt,correct,wrong\na,b, c\n", r"line 5: 3 columns .* names 4"),
        (_HEADER + 'clean,corrupt,correct,wrong\n"a,b, c, d\n', r"line 5: unexpected end"),
        ("---\ntask: x\n" + _LINE, r"never ends"),
        ("---\ntask: [\n---\n" + _LINE, r"line 3?2?: the header is no YAML"),
        ("---\n- task\n---\n" + _LINE, r"must be YAML fields"),
        ("---\ntask: x\nauthor: me\n---\n" + _LINE, r"field 'author' is unknown"),
        ("---\ntask: 5\n---\n" + _LINE, r"task must be text; got 5"),
        ("---\ntask: Own Task\n---\n" + _LINE, r"'Own Task' is no task's name"),
    ],
)
def test_what_is_malformed_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_prompt_file(_write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_names_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="names the task 'own/greetings', not 'other'"):
        read_prompt_file(_write(tmp_path, _HEADER + _LINE), "other")


def test_a_default_task_counts_where_the_header_names_none(tmp_path: Path) -> None:
    assert read_prompt_file(_write(tmp_path, _LINE), default_task="other").slug == "other"
    named = read_prompt_file(_write(tmp_path, _HEADER + _LINE), default_task="other")
    assert named.slug == "own/greetings"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*gone.jsonl: No such file"):
        read_prompt_file(tmp_path / "gone.jsonl", "x")
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(BadInput, match="latin is not UTF-8 text"):
        read_prompt_file(tmp_path / "latin", "x")


def test_a_pair_that_does_not_fit_the_tokenizer_is_named_by_line_before_any_is_given(
    tmp_path: Path,
) -> None:
    longer = _LINE.replace("at dusk", "at the dusk").replace("at dawn", "at noon")
    found = read_prompt_file(_write(tmp_path, _HEADER + _LINE + longer))
    with pytest.raises(BadInput, match=r"own.txt, line 5: .*2 tokens, the corrupt one 3"):
        found.stream(0, WholeWords())
