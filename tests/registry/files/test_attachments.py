"""Attachments: what their records refuse."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from registry.files.attachments import media_type_of, other_name
from tests.conformance.ledger_provenance import attached


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", ".hidden", "a/b", "/etc/passwd", "..\\x", "a\\b", "C:x", "x:stream",
        "a\x00b", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u2028b", "a\u200bb", "nul", "COM1.txt", "a.",
        " a", "a ", "a?", "x" * 201, "é" * 101, "\ud800",
    ],
)  # fmt: skip
def test_a_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        attached(name=name)


@pytest.mark.parametrize("name", ["a", "plot.svg", "é" * 100, "x" * 200, "a b (1).tar.gz", "名前"])
def test_a_plain_file_name_is_taken(name: str) -> None:
    assert attached(name=name).name == name


@pytest.mark.parametrize("says", ["two\nlines", "a\x1b[2J", "a\u2028b", "x" * 1_001])
def test_what_an_attachment_is_is_one_line(says: str) -> None:
    with pytest.raises(ValidationError):
        attached(says=says)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.svg", "image/svg+xml"), ("a.PNG", "image/png"), ("a.csv", "text/csv"),
        ("a.json", "application/json"), ("a.parquet", "application/vnd.apache.parquet"),
        ("a.csv.gz", "application/gzip"), ("a.safetensors", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)  # fmt: skip
def test_a_media_type_is_told_by_the_ending(name: str, expected: str) -> None:
    assert media_type_of(name) == expected
    assert attached(name=name, media_type=expected.upper()).media_type == expected


@pytest.mark.parametrize("wrong", ["", "png", "image/", "image/png; charset=x", "a/b\n", "/" * 3])
def test_what_is_no_media_type_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        attached(media_type=wrong)


def test_another_name_is_the_same_each_time_and_fits() -> None:
    assert other_name(attached(7)).name == "plot-00000000.svg"
    for name in ("x" * 200, "é" * 100, "é" * 98 + ".svg", "plot"):
        one = attached(sha256="3f9a02c4" * 8, name=name)
        assert "-3f9a02c4" in other_name(one).name
        assert other_name(one).name.endswith(name.rpartition(".")[2] if "." in name else "c4")
        assert other_name(one) == other_name(one)
