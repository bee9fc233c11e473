from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.spelling import SPELLINGS, read_head, read_name
from registry.errors import BadIdentifier
from registry.identifiers import parse_local

ALL = [(ours, theirs) for ours, spelled in SPELLINGS.items() for theirs in spelled]


@pytest.mark.parametrize(("ours", "theirs"), ALL)
def test_every_spelling_of_the_table_is_read_as_ours(ours: str, theirs: str) -> None:
    local, port = read_name(theirs)
    assert local + (f"<{port}>" if port else "") == ours


def _with_numbers(text: str, layer: int, head: int) -> str:
    """A spelling of the table's head 9.6, or MLP 3, for another one."""
    numbers = {"9": str(layer), "3": str(layer), "6": str(head)}
    return re.sub(r"[369]", lambda found: numbers[found[0]], text)


INDICES = st.integers(0, 999_999_999)


@given(layer=INDICES, head=INDICES)
def test_a_head_is_one_component_in_every_spelling(layer: int, head: int) -> None:
    spelled = [_with_numbers(text, layer, head) for text in SPELLINGS["a9.h6"]]
    assert len(spelled) >= 8
    assert {read_name(text) for text in spelled} == {(f"a{layer}.h{head}", None)}


@given(layer=INDICES, head=INDICES, port=st.sampled_from(["q", "k", "v"]))
def test_a_port_of_a_head_is_one_in_every_spelling(layer: int, head: int, port: str) -> None:
    of_keys = [_with_numbers(text, layer, head) for text in SPELLINGS["a9.h6<k>"]]
    spelled = [
        re.sub(r"(?<=[<._])k(?=[>._\[]|\Z)", port, text).replace(".K", f".{port.upper()}")
        for text in of_keys
    ]
    assert port == "k" or not set(spelled) & set(of_keys)
    assert {read_name(text) for text in spelled} == {(f"a{layer}.h{head}", port)}


@given(layer=INDICES)
def test_an_mlp_is_one_component_in_every_spelling(layer: int) -> None:
    spelled = [_with_numbers(text, layer, 0) for text in SPELLINGS["m3"]]
    assert {read_name(text) for text in spelled} == {(f"m{layer}", None)}


@given(layer=st.integers(0, 11), head=st.integers(0, 11))
def test_no_two_heads_of_a_model_share_a_spelling(layer: int, head: int) -> None:
    others = [(layer + 1, head), (layer, head + 1), (head, layer)]
    for other in others:
        if other != (layer, head):
            for text in SPELLINGS["a9.h6"]:
                assert read_name(_with_numbers(text, *other)) != (f"a{layer}.h{head}", None)


@pytest.mark.parametrize(
    "text", ["a0.h1", "a4.kv2", "m3.n17", "l8.resid_post#pca[2]", "m3.f12#scope", "logits[7]"]
)
def test_our_own_names_are_read_as_they_are(text: str) -> None:
    assert read_name(text) == (str(parse_local(text)), None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "9.6",
        "L9",
        "L9..H6",
        "l9h",
        "L9-H6",
        "LH",
        "L9.MLP.3",
        "mlp__3",
        "head.9",
        "x9.6",
        "a9.h6<z>",
        "Head 9.6.Z",
        "a9.h6<q",
        "a9.h6_q>",
        "m",
        "a-1.h2",
        "blocks.9.attn.hook_result",
        "blocks.9.attn.hook_result[6, 6]",
        "blocks.9.hook_mlp_out[6]",
        "('blocks.9.attn.hook_result', (6, None))",
        "hook_embed[3]",
        "<a9.6_o>",
        "A9.h",
        "1e3",
    ],
)
def test_what_no_tool_writes_is_refused(text: str) -> None:
    with pytest.raises(BadIdentifier, match="in a known spelling"):
        read_name(text)


def test_a_text_too_long_for_a_name_is_refused_at_once() -> None:
    with pytest.raises(BadIdentifier, match=r"'hook_embed +\.\.\.' is not a part's name"):
        read_name("hook_embed" + " " * 1_000_000 + "!")


@pytest.mark.parametrize("text", ["9.6", "9, 6", "(9, 6)", "[9, 6]", "(9,6)", " (9, 6) "])
def test_a_layer_and_a_number_are_a_head_where_only_heads_are_named(text: str) -> None:
    assert read_head(text) == "a9.h6"


@pytest.mark.parametrize("text", ["9", "9.", "(9, 6", "9, 6)", "[9, 6)", "9.6.1", "L9H6", "-9.6"])
def test_what_is_no_layer_and_number_is_no_head(text: str) -> None:
    assert read_head(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "hook_result[[:, :, 6]]",  # of which layer?
        "blocks.9.attn.hook_result[[:, :, 6]",
        "blocks.9.attn.hook_result[:, :, 6]]",
        "blocks.9.attn.hook_result[[[:, :, 6]]]",
        "blocks.9.attn.hook_result[[:, 3, 6]]",
    ],
)
def test_an_index_that_names_no_head_is_refused(text: str) -> None:
    with pytest.raises(BadIdentifier):
        read_name(text)
