"""Texts in DOT and XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.graphs.dot_facts import decoded
from registry.texts.markup import NOT_XML, dot_escaped, dot_quoted


@given(st.text())
def test_what_is_escaped_for_dot_ends_neither_text_nor_line_and_is_read_back(text: str) -> None:
    escaped = dot_escaped(text)
    assert not set('"\\<>\n\r\x00') & set(escaped)
    assert len(escaped.splitlines()) <= 1
    assert decoded(escaped) == text
    assert dot_quoted(text) == f'"{escaped}"'


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_characters_that_xml_has_not_are_found_and_parsers_refuse_them(character: str) -> None:
    assert NOT_XML.search(f"a{character}b")
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(f"<a>{character}</a>")


@pytest.mark.parametrize("character", ["\t", "\n", " ", "\ue000", "\U0001f600", "é"])
def test_characters_that_xml_has_are_none_of_them(character: str) -> None:
    assert not NOT_XML.search(character)
    assert ElementTree.fromstring(f"<a>{character}</a>").text == character
