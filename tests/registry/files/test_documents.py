"""Circuits read from their documents piece by piece."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.files.documents import read_circuit
from registry.records import Circuit, Edge, Level, Node
from tests import strategies

# What ends a piece, and what looks as if it did.
MARKS = ["}", "{", "]", '"', ",", "\\", '},{"a', '}],"level', "a"]


@given(strategies.circuits(), st.integers(0, 200))
def test_a_circuit_is_what_its_document_says_however_it_is_cut(circuit: Circuit, n: int) -> None:
    again = read_circuit(circuit.document, piece_bytes=n)
    assert again == circuit
    assert again.document == circuit.document


@given(st.lists(st.lists(st.sampled_from(MARKS), min_size=1).map("".join), unique=True, min_size=1))
def test_marks_within_texts_cut_nothing(positions: list[str]) -> None:
    nodes = [Node(component="m0", position=one) for one in positions]
    edges = [Edge(source=node.key, target="logits", rank=3) for node in nodes]
    circuit = Circuit(
        model="gpt2", task="ioi", method="}],", level=Level.EDGE, edges=tuple(edges),
        nodes=(*nodes, Node(component="logits")),
    )  # fmt: skip
    assert read_circuit(circuit.document, piece_bytes=1) == circuit


@given(strategies.circuits())
def test_json_in_another_form_is_read_as_well(circuit: Circuit) -> None:
    spaced = json.dumps(json.loads(circuit.document), indent=1).encode()
    assert read_circuit(spaced, piece_bytes=1) == circuit


def test_a_document_that_is_none_is_refused_in_pieces_too() -> None:
    circuit = Circuit(
        model="gpt2", task="ioi", method="x", level=Level.EDGE,
        nodes=(Node(component="m0"), Node(component="m1"), Node(component="logits")),
        edges=(Edge(source="m0", target="logits"), Edge(source="m1", target="logits")),
    )  # fmt: skip
    for wrong, right in (
        (b'"m1","target"', b'"m7","target"'),
        (b'"m1","target"', b'"m1","tarmac"'),
    ):
        damaged = circuit.document.replace(wrong, right)
        with pytest.raises(ValidationError):
            read_circuit(damaged, piece_bytes=1)
