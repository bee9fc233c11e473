"""Circuits as graphviz drawings, out and in again."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings

from ingest.formats.base import Context, Said, recognised
from ingest.formats.exporting import Exporting
from ingest.formats.graphs.dot_facts import decoded
from ingest.formats.graphs.graphviz_exporter import EXPORTER
from registry.records import Circuit, Edge, Level, Model, Node, Sign
from registry.texts.markup import dot_escaped
from tests.strategies import circuits, texts

CIRCUIT = Circuit(
    model="gpt2", task="ioi", method="m", level=Level.EDGE, metric="logit_difference",
    higher_is_better=True, sign=Sign.HELPS_POSITIVE, parameters={"steps": [5, "a\\"]},
    selection={"top": 2}, universe_size=9, kv_heads="grouped",
    nodes=(
        Node(component="m0", position="END", effect=0.5, rank=1, role='a "b" <c>\r\n\\'),
        Node(component="a1.h0"),
        Node(component="logits"),
    ),
    edges=(
        Edge(source="m0@END", target="a1.h0", port="q", effect=-0.5, rank=2),
        Edge(source="m0@END", target="a1.h0", port="k", effect=1.0),
        Edge(source="m0@END", target="a1.h0"),
        Edge(source="a1.h0", target="logits", effect=1e-300, rank=3),
    ),
)  # fmt: skip


def export(circuit: Circuit) -> bytes:
    return EXPORTER.write(circuit, Exporting(Model(slug=circuit.model)))


def read_back(content: bytes, path: Path) -> Circuit:
    path.write_bytes(content)
    (circuit,) = recognised(path).read(path, Context(Said())).circuits
    return circuit


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(circuit=circuits())
def test_all_but_prompts_and_scores_survives(tmp_path: Path, circuit: Circuit) -> None:
    kept = circuit.model_copy(update={"scores": None, "prompt_set": None})
    back = read_back(export(circuit), tmp_path / "circuit.gv")
    assert back == kept
    assert back.id == kept.id


@given(text=texts)
def test_any_text_stands_between_quotes_and_comes_back(text: str) -> None:
    written = dot_escaped(text)
    assert not set(written) & set('"\\\n\r<>\x00')
    assert decoded(written) == text


def test_the_user_has_the_last_word_on_what_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "circuit.gv"
    path.write_bytes(export(CIRCUIT))
    said = Said(task="other", sign="hurts-positive")
    (circuit,) = recognised(path).read(path, Context(said)).circuits
    effects = {edge.connection: edge.effect for edge in circuit.edges}
    assert (circuit.task, effects["m0->a1.h0<q>"]) == ("other", 0.5)


def test_a_drawing_shows_ports_strength_and_direction() -> None:
    lines = export(CIRCUIT).decode().splitlines()
    merged, key, query, faint = (line for line in lines if "->" in line)
    assert 'port="q"' in query
    assert 'penwidth="2.8", color="#bb4433"' in query
    assert 'penwidth="5", color="#3366aa"' in key
    assert 'penwidth="0.6", color="#777777"' in merged
    assert "port" not in merged
    assert 'effect="1e-300"' in faint


def test_signs_that_are_unknown_have_no_colour() -> None:
    unsigned = CIRCUIT.model_copy(update={"sign": Sign.UNSIGNED})
    assert {line.count("#777777") for line in export(unsigned).decode().splitlines()} == {0, 1}
    assert b"#bb4433" not in export(unsigned)
