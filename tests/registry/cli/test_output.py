"""How values are written."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.cli.failures import report
from registry.cli.logs import LogLevel, start_logging
from registry.cli.output import Format, Section, cell_text, notice, show_rows, show_sections
from registry.cli.values import assignments, value_of
from registry.errors import BadInput
from registry.rows import Rows
from registry.texts.csv_cells import guarded_cell, unguarded_cell


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (3, "3"),
        (0.123456, "0.1235"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        ("a" * 64, "a" * 12),
        ("gpt2/" + "b" * 64, "gpt2/" + "b" * 12),
        ("a" * 63, "a" * 63),
        (["x", 1.5, None], "x, 1.5, "),
        (
            [{"task": "ioi", "n": 2}, {"task": "capitals", "n": 1}],
            "task=ioi, n=2; task=capitals, n=1",
        ),
        (" Rome", " Rome"),
        ("two\nlines", "two lines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J\x07\x7f", "\\x9b2J\\x07\\x7f"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("a\u2028b\u200ec", "a b\\u200ec"),
        ("half \udc80", "half \\udc80"),
        ("naïve 日本語 🧠 a\u200db", "naïve 日本語 🧠 a\u200db"),
        ({"a\x1b": ["\x1b"]}, "a\x1b=\\x1b"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00+00:00"),
    ],
)
def test_a_cell_shows_a_value_in_one_short_line(value: object, text: str) -> None:
    assert cell_text(value) == text


def test_a_table_keeps_markup_and_other_scripts_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_rows(Rows(("title", "n"), (("[red]数字[/red]", 1), ("ab", 22))), Format.TABLE)
    assert (
        capsys.readouterr().out == "title             n\n[red]数字[/red]   1\nab               22\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["40", "100"])
def test_on_a_terminal_texts_are_folded_and_ids_and_short_values_are_not(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    row = ("ab" * 32, "sequence/number-words", 0.25, "many words " * 20)
    show_rows(Rows(("circuit", "task", "faithfulness", "title"), (row,)), Format.TABLE)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert len(lines) > 2
    assert lines[1].startswith("abababababab  sequence/number-words          0.25  many words ")
    assert max(map(len, lines)) <= max(int(columns), 12 + 21 + 12 + 24 + 4 * 2)


def test_json_holds_what_json_lacks_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(Rows(("x",), ((math.nan,), (math.inf,), (-math.inf,), (1.0,))), Format.JSON)
    values = [row["x"] for row in json.loads(capsys.readouterr().out)]
    assert values == ["NaN", "Infinity", "-Infinity", 1.0]


@pytest.mark.parametrize(
    ("format", "out"), [(Format.TABLE, ""), (Format.JSON, "[]\n"), (Format.CSV, "x,y\n")]
)
def test_no_rows_are_said_in_a_table_and_empty_for_programs(
    format: Format, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_rows(Rows(("x", "y")), format)
    written = capsys.readouterr()
    assert written.out == out
    assert written.err == ("nothing found\n" if format is Format.TABLE else "")


def test_csv_quotes_and_keeps_lists_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    row = ('say "a, b"', [1, None, "x"], None, True, 0.1)
    show_rows(Rows(("a", "b", "c", "d", "e"), (row,)), Format.CSV)
    assert capsys.readouterr().out == ('a,b,c,d,e\n"say ""a, b""","[1, null, ""x""]",,true,0.1\n')


def test_sections_become_one_object_and_csv_one_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sections = [
        Section("one", {"a": 1}),
        Section("none", Rows(("x",))),
        Section("b", Rows(("y",), ((2,),))),
    ]
    show_sections(sections, Format.TABLE, csv="b")
    assert capsys.readouterr().out == "one\na  1\n\nb\ny\n2\n"
    show_sections(sections, Format.CSV, csv="one")
    assert capsys.readouterr().out == "field,value\na,1\n"
    show_sections(sections, Format.JSON, csv="b")
    assert json.loads(capsys.readouterr().out) == {"one": {"a": 1}, "none": [], "b": [{"y": 2}]}


def test_a_notice_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    notice("some\nthing \x1b]0;x")
    assert capsys.readouterr() == ("", "some thing \\x1b]0;x\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("[1, 2]", [1, 2]), ('"3"', "3"), ("ioi", "ioi"), ("null", None), ("a=b", "a=b")],
)
def test_a_value_is_json_where_it_is_json(text: str, value: object) -> None:
    assert value_of(text) == value
    assert assignments([f"key={text}"], "--param") == {"key": value}


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_a_value_is_finite(text: str) -> None:
    with pytest.raises(BadInput, match="numbers are finite"):
        value_of(text)


def test_a_command_says_a_warning_once(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogLevel.WARNING)
    log = logging.getLogger("registry.upkeep.syncing")
    for _ in range(3):
        log.warning("behind by %d", 1)
        log.error("broken")
    log.warning("behind by %d", 2)
    assert capsys.readouterr().err.splitlines() == [
        "warning: behind by 1",
        *["error: broken"] * 3,
        "warning: behind by 2",
    ]


EVIL = "\x1b]0;owned\x07 \x9b2J \x7f \u202egnp \u2028 é"


def test_json_says_what_a_terminal_would_obey_with_its_own_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_rows(Rows((EVIL,), ((EVIL,), ({EVIL: [EVIL]},))), Format.JSON)
    written = capsys.readouterr().out
    assert not set("\x1b\x07\x9b\x7f\u202e\u2028") & set(written)
    assert "é" in written
    assert json.loads(written) == [{EVIL: EVIL}, {EVIL: {EVIL: [EVIL]}}]


def test_csv_keeps_text_in_a_file_and_escapes_it_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows(("title",), ((EVIL,),))
    show_rows(rows, Format.CSV)
    assert capsys.readouterr().out == f"title\n{EVIL}\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    show_rows(rows, Format.CSV)
    assert terminal.getvalue().startswith("title\n\\x1b]0;owned\\x07 \\x9b2J")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-a9.h6", "'-a9.h6"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("'=1", "''=1"),
        ("'tis", "'tis"),
        ("a=1", "a=1"),
        ("", ""),
        (-0.5, "-0.5"),
        (-3, "-3"),
        (["=1"], '["=1"]'),
        (None, ""),
    ],
)
def test_csv_holds_no_formula(value: object, cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(Rows(("=name", "value"), (("x", value),)), Format.CSV)
    written = capsys.readouterr().out
    assert list(csv.reader(io.StringIO(written, newline=""))) == [["'=name", "value"], ["x", cell]]


@given(st.text())
def test_what_guards_a_cell_can_be_taken_back(text: str) -> None:
    cell = guarded_cell(text)
    assert unguarded_cell(cell) == text
    assert not re.match("[=+\\-@\t\r\n]", cell)


def test_notices_logs_and_errors_obey_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(LogLevel.DEBUG)
    notice(EVIL)
    fault = BadInput(EVIL)
    assert report(fault) == 2
    logging.getLogger("registry").warning("about %s", EVIL, exc_info=fault)
    start_logging(LogLevel.WARNING)
    logging.getLogger("registry").warning("about %s\nmore", EVIL)
    said = capsys.readouterr().err
    assert said.count("owned") >= 4
    assert said.splitlines()[-1].startswith("warning: about \\x1b]0;owned")
    assert said.splitlines()[-1].endswith("more")
    assert not set("\x1b\x07\x9b\x7f\u202e\u2028") & set(said)
