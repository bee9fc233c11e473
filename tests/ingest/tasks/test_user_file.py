"""A user's own prompts: what is read, and what is refused at which line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest.tasks import PromptPair, read_prompt_file
from ingest.tasks.prompts import with_opening
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


def test_several_wrong_answers_and_labels_of_json_lines(tmp_path: Path) -> None:
    several = _LINE.replace('" bye"', '[" bye", " no"], "labels": {"n": 3, "x": true, "t": "ABBA"}')
    found = read_prompt_file(_write(tmp_path, _HEADER + several))
    pair = PromptPair(
        "at dawn", "at dusk", " hi", " bye", (" no",), {"n": 3, "x": True, "t": "ABBA"}
    )
    assert found.pairs == ((4, pair),)
    assert found.pairs[0][1].all_wrong == (" bye", " no")


def test_a_list_of_one_wrong_answer_is_that_answer(tmp_path: Path) -> None:
    found = read_prompt_file(_write(tmp_path, _HEADER + _LINE.replace('" bye"', '[" bye"]')))
    assert found.pairs == ((4, _PAIR),)


def test_columns_of_labels_in_csv_are_texts_and_may_be_empty(tmp_path: Path) -> None:
    text = "clean,corrupt,correct,wrong,label:hour\nat dawn,at dusk, hi, bye,6\na,b, c, d,\n"
    found = read_prompt_file(_write(tmp_path, _HEADER + text))
    assert [pair.labels for _, pair in found.pairs] == [{"hour": "6"}, {}]


def test_further_wrong_answers_in_csv_stand_in_columns_of_their_own(tmp_path: Path) -> None:
    columns = "wrong:3,clean,corrupt,correct,wrong,wrong:2,wrong:10,label:x\n"
    rows = (
        " c,at dawn,at dusk, hi, a, b, d,1\n"
        " c,at noon,at dusk, hi, a,,,\n"
        ",at one,at dusk, hi, a,,,\n"
    )
    found = read_prompt_file(_write(tmp_path, _HEADER + columns + rows))
    assert [pair.all_wrong for _, pair in found.pairs] == [
        (" a", " b", " c", " d"), (" a", " c"), (" a",),
    ]  # fmt: skip
    assert found.pairs[0][1].labels == {"x": "1"}
    in_json = (
        '{"clean": "at noon", "corrupt": "at dusk", "correct": " hi", "wrong": [" a", " c"]}\n'
    )
    assert read_prompt_file(_write(tmp_path, _HEADER + in_json)).pairs[0][1] == found.pairs[1][1]


@pytest.mark.parametrize(
    ("columns", "row", "said"),
    [
        ("wrong:1", " b", "line 5: unknown field 'wrong:1'"),
        ("wrong:b", " b", "line 5: unknown field 'wrong:b'"),
        ("wrong:2,wrong:2", " b, c", "line 4: the column 'wrong:2' appears twice"),
    ],
)
def test_columns_of_wrong_answers_count_from_two(
    tmp_path: Path, columns: str, row: str, said: str
) -> None:
    text = f"clean,corrupt,correct,wrong,{columns}\nat dawn,at dusk, hi, a,{row}\n"
    with pytest.raises(BadInput, match=said):
        read_prompt_file(_write(tmp_path, _HEADER + text))


def test_the_first_wrong_answer_in_csv_is_needed_beside_others(tmp_path: Path) -> None:
    text = "clean,corrupt,correct,wrong,wrong:2\nat dawn,at dusk, hi,, b\n"
    with pytest.raises(BadInput, match="line 5: 'wrong' must be a text that is not empty"):
        read_prompt_file(_write(tmp_path, _HEADER + text))


def test_wrong_answers_that_are_one_token_are_refused_with_their_line(tmp_path: Path) -> None:
    line = _LINE.replace('" bye"', '[" bye", " bye"]')
    found = read_prompt_file(_write(tmp_path, _HEADER + line))
    with pytest.raises(BadInput, match=r"line 4: the wrong answer ' bye' is given twice"):
        found.stream(0, WholeWords())


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
        (_HEADER + "clean,corrupt,correct,wrong\na,b, c\n", r"line 5: 3 columns.*names 4"),
        (_HEADER + 'clean,corrupt,correct,wrong\n"a,b, c, d\n', r"line 5: unexpected end"),
        (_HEADER + _LINE.replace('" bye"', "[]"), r"line 4: 'wrong' is an empty list"),
        (_HEADER + _LINE.replace('" bye"', '[" bye", 5]'), r"line 4: 'wrong' must be a text"),
        (_HEADER + _LINE.replace('" hi"', '[" hi"]'), r"line 4: 'correct' must be a text"),
        (_HEADER + _LINE.replace("}", ', "labels": 5}'), r"line 4: 'labels' must be an object"),
        (_HEADER + _LINE.replace("}", ', "labels": {"a": NaN}}'), r"line 4: the label 'a' must"),
        (_HEADER + _LINE.replace("}", ', "labels": {"a": null}}'), r"line 4: the label 'a' must"),
        (_HEADER + _LINE.replace("}", ', "labels": {"": 1}}'), r"line 4: the label '' must have"),
        (
            _HEADER + _LINE + _LINE.replace("}", ', "labels": {"a": 1}}'),
            r"line 5: the same prompt as on line 4",
        ),
        ("---\ntask: x\n" + _LINE, r"has no end line"),
        ("---\ntask: [\n---\n" + _LINE, r"the header is no YAML that can be read: line 2"),
        ("---\ntask: x\ntask: y\n---\n" + _LINE, r"own.txt: the header, line 3: 'task' appears"),
        ("---\ntask: 2024-13-45\n---\n" + _LINE, r"the header is no YAML that can be read"),
        (_HEADER + '{"clean": ' + "[" * 100_000 + "\n", r"line 4: nested too deeply"),
        (_HEADER + _LINE.replace("dawn", "\\ud800"), r"line 4: 'clean' holds half a character"),
        (_HEADER + _LINE.replace('"wrong"', '"clean"'), r"line 4: has 'clean' twice"),
        (_HEADER + '{"clean": ' + "9" * 5_000 + "}\n", r"line 4: Exceeds the limit"),
        (_HEADER + '{"clean": "' + "a" * 200_000 + '"}\n', r"line 4: the field 'corrupt' is"),
        (
            _HEADER + "clean,corrupt,correct,wrong,wrong\na,b,c,d,e\n",
            r"the column 'wrong' appears twice",
        ),
        ("---\n- task\n---\n" + _LINE, r"must be YAML fields"),
        ("---\ntask: x\nauthor: me\n---\n" + _LINE, r"field 'author' is unknown"),
        ("---\ntask: 5\n---\n" + _LINE, r"task must be text; got 5"),
        ('---\ntask: x\ndescription: "\\ud800"\n---\n' + _LINE, r"description must be text"),
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


@pytest.mark.parametrize("opening", [("<s>",), ("<s>", "<t>")])
def test_a_pair_is_compared_with_what_the_tokenizer_puts_before_it(
    tmp_path: Path, opening: tuple[str, ...]
) -> None:
    words = WholeWords()
    words.ids |= {mark: at for at, mark in enumerate(opening)}
    encode = with_opening(lambda text: _with_marks(words, text), tuple(range(len(opening))))
    start = "".join(opening)
    same = _LINE.replace("at dawn", f"{start} at dawn")
    (pair,) = read_prompt_file(_write(tmp_path, _HEADER + same)).stream(0, encode)
    (plain,) = read_prompt_file(_write(tmp_path, _HEADER + _LINE)).stream(0, encode)
    assert (pair.clean, pair.corrupt) == (plain.clean, plain.corrupt)
    assert pair.clean[: len(opening) + 1].count(0) == 1
    longer = same.replace("at dusk", "at the dusk")  # as long, but for the tokens put before it
    found = read_prompt_file(_write(tmp_path, _HEADER + _LINE.replace("at d", "by d") + longer))
    n = 2 + len(opening)
    with pytest.raises(BadInput, match=rf"line 5: .*{n} tokens, the corrupt one {n + 1}"):
        found.stream(0, encode)


def test_a_part_of_what_the_tokenizer_puts_before_texts_is_refused_with_its_line(
    tmp_path: Path,
) -> None:
    words = WholeWords()
    words.ids |= {"<s>": 0, "<t>": 1}
    encode = with_opening(lambda text: _with_marks(words, text), (0, 1))
    part = _LINE.replace("at dawn", "<s> at dawn")
    found = read_prompt_file(_write(tmp_path, _HEADER + part))
    with pytest.raises(BadInput, match=r"own.txt, line 4: a prompt begins with token 0"):
        found.stream(0, encode)


def _with_marks(words: WholeWords, text: str) -> list[int]:
    """Ids of a text in which special tokens stand as they are written."""
    ids: list[int] = []
    for piece in re.split(r"(<[st]>)", text):
        ids += [words.ids[piece]] if piece in words.ids else words(piece)
    return ids
