from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.spelling import SPELLINGS, read_name
from registry.errors import BadIdentifier
from registry.identifiers import parse_local

ALL = [(ours, theirs) for ours, spelled in SPELLINGS.items() for theirs in spelled]


@pytest.mark.parametrize(("ours", "theirs"), ALL)
def test_every_spelling_of_the_table_is_read_as_ours(ours: str, theirs: str) -> None:
    local, port = read_name(theirs)
    assert local + (f"<{port}>" if port else "") == ours


@given(layer=st.integers(0, 200), head=st.integers(0, 200))
def test_a_head_is_one_component_in_every_spelling(layer: int, head: int) -> None:
    spelled = [
        theirs.replace("9", "L#").replace("6", "H#").replace("L#", str(layer))
        .replace("H#", str(head))
        for theirs in SPELLINGS["a9.h6"]
    ]  # fmt: skip
    assert {read_name(text) for text in spelled} == {(f"a{layer}.h{head}", None)}


@pytest.mark.parametrize(
    "text", ["a0.h1", "a4.kv2", "m3.n17", "l8.resid_post#pca[2]", "m3.f12#scope", "logits[7]"]
)
def test_our_own_names_are_read_as_they_are(text: str) -> None:
    assert read_name(text) == (str(parse_local(text)), None)


@pytest.mark.parametrize(
    "text", ["", "a", "9.6", "L9", "head.9", "x9.6", "a9.h6<z>", "m", "a-1.h2"]
)
def test_what_no_tool_writes_is_refused(text: str) -> None:
    with pytest.raises(BadIdentifier, match="in a spelling we know"):
        read_name(text)
