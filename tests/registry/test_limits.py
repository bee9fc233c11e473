"""How long texts may be: refused where they are made, read whatever their length."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry import Registry
from registry.files.documents import read_circuit
from registry.identifiers import Connection, node_key, parse_local
from registry.ledger.base import NewCircuit
from registry.limits import LIMITS, MOST_TAGS, STORED, check_length
from registry.records import (
    Annotation,
    Circuit,
    CircuitLabels,
    Edit,
    Evaluation,
    Model,
    Node,
    Outcome,
    PromptSet,
    Record,
    Run,
    SourceFile,
    Task,
)
from tests import examples
from tests.longest import longest, longest_records

HASH = "a" * 64
CIRCUIT = {"model": "m", "task": "t", "method": "x", "level": "node"}
RUN = {"id": "b" * 32, "job": "j", "version": "1", "started_at": datetime(2026, 1, 1, tzinfo=UTC)}
FIELDS: list[tuple[type[Record], dict[str, Any], str, str]] = [
    (Model, {}, "slug", "model's name"),
    *((Model, {"slug": "m"}, name, "name") for name in ("source", "revision", "architecture")),
    (Task, {"family": "f"}, "slug", "task's name"),
    (Task, {"slug": "t"}, "family", "name"),
    (Task, {"slug": "t", "family": "f"}, "description", "text"),
    (PromptSet, {"id": HASH, "n_prompts": 1}, "task", "task's name"),
    (PromptSet, {"id": HASH, "n_prompts": 1, "task": "t"}, "model", "model's name"),
    (PromptSet, {"id": HASH, "n_prompts": 1, "task": "t"}, "tokenizer", "name"),
    *((Run, RUN, name, "name") for name in ("job", "version", "device")),
    (SourceFile, {"sha256": HASH, "format": "f"}, "name", "name"),
    (SourceFile, {"sha256": HASH, "name": "f"}, "format", "name"),
    (Node, {"component": "m0"}, "position", "position"),
    (Node, {"component": "m0"}, "role", "role"),
    (Circuit, CIRCUIT, "model", "model's name"),
    (Circuit, CIRCUIT, "task", "task's name"),
    (Circuit, CIRCUIT, "method", "name"),
    (Circuit, CIRCUIT, "metric", "name"),
    (CircuitLabels, {}, "title", "title"),
    (CircuitLabels, {}, "author", "name"),
    (CircuitLabels, {}, "reason", "text"),
    (Evaluation, {"circuit": HASH, "measure": "x", "value": 1}, "task", "task's name"),
    (Evaluation, {"circuit": HASH, "task": "t", "value": 1}, "measure", "name"),
    (Edit, {"editor": "ROME"}, "model", "model's name"),
    (Edit, {"model": "m"}, "editor", "name"),
    (Edit, {"model": "m", "editor": "ROME"}, "note", "text"),
    (Annotation, {"circuit": HASH, "node": "m0", "said_by": "x"}, "role", "role"),
    (Annotation, {"circuit": HASH, "node": "m0", "role": "x"}, "said_by", "name"),
    (Outcome, {"edit": HASH}, "metric", "name"),
    (Outcome, {"edit": HASH, "metric": "x"}, "protocol", "name"),
    (Outcome, {"edit": HASH, "metric": "x"}, "task", "task's name"),
]


@pytest.mark.parametrize(("kind", "fields", "field", "what"), FIELDS)
def test_one_byte_more_than_is_allowed_is_refused_unless_it_is_stored(
    kind: type[Record], fields: dict[str, Any], field: str, what: str
) -> None:
    text, most = longest(what), LIMITS[what]
    assert getattr(kind(**fields | {field: text}), field) == text
    says = f"an? {what} of {most + 1:,} bytes is too long; {most:,} are allowed"
    with pytest.raises(ValidationError, match=rf"{field}\n.*{says}"):
        kind(**fields | {field: text + "x"})
    kept = kind.model_validate({**fields, field: text + "x"}, context=STORED)
    assert getattr(kept, field) == text + "x"


def test_every_text_of_every_record_is_tried_above() -> None:
    elsewhere = {
        ("Edge", "source"), ("Edge", "target"),  # names of the circuit's nodes
        ("Node", "component"), ("Edit", "components"),  # tried below
        ("CircuitLabels", "tags"), ("CircuitLabels", "notes"),
        ("Run", "configuration"), ("Circuit", "parameters"), ("Circuit", "selection"),
        ("Evaluation", "parameters"), ("Edit", "hyperparameters"), ("Edit", "request"),
        ("Annotation", "node"), ("Annotation", "scores"),  # tried where annotations are
            ("Run", "packages"),  # what pip says, in the ledger alone
        ("Run", "error"),  # that a run failed is recorded whatever it says
    }  # fmt: skip
    texts = {
        (kind.__name__, name)
        for kind in Record.__subclasses__()
        if kind.__module__ == Record.__module__
        for name, field in kind.model_fields.items()
        for said in [f"{field.annotation} {field.metadata}"]
        if re.search(r"\bstr\b", said) and "[0-9a-f]" not in said  # hashes
    }
    assert texts == {(kind.__name__, field) for kind, _, field, _ in FIELDS} | elsewhere


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), st.data())
def test_lengths_are_counted_in_bytes_not_in_characters(letters: str, data: st.DataObject) -> None:
    most = LIMITS["position"]
    text = letters * (most // len(letters.encode()))
    check_length("position", text)
    more = data.draw(st.text(min_size=1, max_size=8).filter(lambda one: one.isprintable()))
    room = most - len(text.encode())
    if len(more.encode()) <= room:
        check_length("position", text + more)
    else:
        with pytest.raises(ValueError, match=f"{most} are allowed"):
            check_length("position", text + more)


@pytest.mark.parametrize("what", ["set of parameters", "request or set of hyperparameters"])
def test_json_is_limited_as_a_whole(what: str) -> None:
    large = {"text": "x" * LIMITS[what]}
    said = f"a {what} of .* bytes is too long"
    if what == "set of parameters":
        for field in ("parameters", "selection"):
            with pytest.raises(ValidationError, match=said):
                Circuit(**CIRCUIT, **{field: large})
        assert Circuit.model_validate({**CIRCUIT, "parameters": large}, context=STORED)
    else:
        for field in ("request", "hyperparameters"):
            with pytest.raises(ValidationError, match=said):
                Edit(model="m", editor="ROME", **{field: large})


def test_parts_and_lists_of_texts_are_limited_one_by_one() -> None:
    part = longest("part's name", begins="m0#")[:-3] + "[1]"
    assert Node(component=part).component == part
    for component in (part.replace("#", "#b"), "m0#" + "b" * 8_300 + "[2]"):
        with pytest.raises(ValidationError, match=r"a part's name of .* bytes is too long"):
            Node(component=component)
        with pytest.raises(ValidationError, match=r"a part's name of .* bytes is too long"):
            Edit(model="m", editor="ROME", components=(component,))
        assert Node.model_validate({"component": component}, context=STORED).component == component
    with pytest.raises(ValidationError, match="a tag of 201 bytes"):
        CircuitLabels(tags=("short", "x" * 201))
    with pytest.raises(ValidationError, match=r"a text of .* bytes"):
        CircuitLabels(notes=("x" * 100_001,))
    tags = tuple(map(str, range(MOST_TAGS + 1)))
    with pytest.raises(ValidationError, match="1,001 are too many; 1,000 are allowed"):
        CircuitLabels(tags=tags)
    assert CircuitLabels.model_validate({"tags": tags}, context=STORED).tags == tags


def test_the_page_names_every_limit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "graph-schema.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    for what, most in LIMITS.items():
        assert [n for said, n in rows if re.match(rf"{re.escape(what)}\b", said)] == [f"{most:,}"]
    assert f"tag ({MOST_TAGS:,} of a circuit)" in page


def test_the_longest_ids_fit_the_indexes_of_every_store() -> None:
    """Neo4j takes 8,000 bytes and some, PostgreSQL 2,704."""
    part = parse_local(longest("part's name", begins="a0.h0.z.f1#"))
    connection = Connection(longest("model's name"), part, part, None)
    key = node_key(part, longest("position"))
    for id in (str(connection) + "<q>", f"{HASH}/{key}"):
        assert len(id.encode()) < 2_000
    assert max(LIMITS["model's name"], LIMITS["task's name"]) < 2_000


def test_what_is_stored_longer_than_is_allowed_now_is_still_read_shown_and_tagged(
    tmp_path: Path,
) -> None:
    position = "x" * 8_300
    circuit = Circuit.model_validate(
        {**CIRCUIT, "metric": "y" * 5_000, "nodes": [{"component": "m0", "position": position}]},
        context=STORED,
    )
    labels = CircuitLabels.model_validate(
        {"title": "z" * 5_000, "tags": ["t" * 500]}, context=STORED
    )
    with pytest.raises(ValidationError):
        read_circuit(circuit.document)
    with Registry.init(tmp_path / "one") as registry:
        registry.record(NewCircuit(circuit, labels=labels))
        assert registry.document(circuit.id) == circuit
        registry.tag(circuit.id, add=["final"], remove=["t" * 500])
        registry.note(circuit.id, "old, and long")
        stored = registry.circuit(circuit.id)
        assert stored.entry.labels.tags == ("final",)
        assert stored.entry.labels.title == "z" * 5_000
        for wrong in (["t" * 201], list(map(str, range(2_000)))):
            with pytest.raises(ValidationError):
                registry.tag(circuit.id, add=wrong)
        with pytest.raises(ValidationError, match="a text of 100,001 bytes"):
            registry.note(circuit.id, "n" * 100_001)
        registry.backup(tmp_path / "backup.zip")
    with Registry.restore(tmp_path / "backup.zip", tmp_path / "two") as restored:
        assert restored.document(circuit.id) == circuit
        registry_rows = restored.cypher("MATCH (n:Node) RETURN size(n.position) AS n").values
        assert registry_rows == ((8_300,),)


def test_records_as_long_as_may_be_are_recorded_and_answered(tmp_path: Path) -> None:
    with Registry.init(tmp_path / ".circuits") as registry:
        registry.record(longest_records())
        registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1))
        assert registry.status().pending == 0
        found = registry.cypher("MATCH (n:Node)-[:INSTANCE_OF]->(c) RETURN count(c) AS n").values
        assert found[0][0] == 2 + len(examples.circuit(1).nodes)
