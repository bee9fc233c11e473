"""A circuit that is exported and imported again is another record, and the import says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.exchange.importing import FileReport, import_files
from ingest.formats.exporting import Exporting, find_exporter
from registry import Registry
from registry.circuits.copies import copies_among, fingerprint
from registry.records import Circuit, Level
from tests import examples

PROMPTS = examples.prompt_set("1" * 64)
FOUND = Circuit(**{**examples.circuit(1).model_dump(), "prompt_set": PROMPTS.id})
OTHER = Circuit(**{**examples.circuit(2).model_dump(), "prompt_set": PROMPTS.id})
EMPTY = Circuit(**{**FOUND.model_dump(), "nodes": (), "edges": (), "level": Level.NODE})


def exported(circuit: Circuit, to: str, folder: Path) -> Path:
    path = folder / f"{circuit.id[:12]}.{to}"
    path.write_bytes(find_exporter(to).write(circuit, Exporting(examples.GPT2)))
    return path


def imported(registry: Registry, *paths: Path, dry_run: bool = False) -> list[FileReport]:
    return list(import_files(registry, paths, {}, dry_run=dry_run))


@pytest.fixture
def filled(registry: Registry) -> Registry:
    registry.record(examples.GPT2, *examples.TASKS, PROMPTS, FOUND, OTHER)
    return registry


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("to", ["graphviz", "graphml", "parquet"])
def test_a_copy_is_said_to_be_stored_apart_from_its_prompts(
    filled: Registry, tmp_path: Path, to: str, dry_run: bool
) -> None:
    (report,) = imported(filled, exported(FOUND, to, tmp_path), dry_run=dry_run)
    (id,) = report.circuits
    assert id != FOUND.id
    (note,) = (note for note in report.notes if "they differ only in" in note)
    assert f"circuit {FOUND.id[:12]} is stored and has the same parts" in note
    assert f"effects as {id[:12]}; they differ only in their prompts" in note


def test_copies_of_one_import_are_told_of_too(registry: Registry, tmp_path: Path) -> None:
    first, second = imported(
        registry, exported(FOUND, "graphviz", tmp_path), exported(FOUND, "parquet", tmp_path)
    )
    assert not first.notes
    assert any(f"circuit {first.circuits[0][:12]} is stored and" in note for note in second.notes)


def test_roles_that_differ_are_named(registry: Registry, tmp_path: Path) -> None:
    said = {"model": "gpt2", "task": "ioi"}
    paths = [tmp_path / name for name in ("bare.csv", "roles.csv")]
    paths[0].write_text("layer,head,score\n9,9,1\n")
    paths[1].write_text("layer,head,score,role\n9,9,1,name mover\n")
    first, second = import_files(registry, paths, said)
    (note,) = (note for note in second.notes if "is stored and" in note)
    assert note.startswith(f"circuit {first.circuits[0][:12]} is stored and has the same parts")
    assert note.endswith("they differ only in roles of nodes")


def test_what_differs_in_an_edge_is_no_copy(filled: Registry, tmp_path: Path) -> None:
    edges = [*FOUND.edges]
    edges[3] = edges[3].model_copy(update={"effect": 0.123})
    changed = Circuit(**{**FOUND.model_dump(), "edges": edges})
    (report,) = imported(filled, exported(changed, "graphviz", tmp_path))
    assert not report.notes


def test_an_empty_circuit_is_said_to_be_empty(registry: Registry, tmp_path: Path) -> None:
    (report,) = imported(registry, exported(EMPTY, "graphviz", tmp_path))
    (id,) = report.circuits
    assert report.notes == (f"circuit {id[:12]} is empty: it has neither nodes nor edges",)


def test_nodes_tell_circuits_without_edges_apart() -> None:
    nodes = {"level": Level.NODE, "edges": ()}
    one, other = (
        Circuit(**{**circuit.model_dump(), **nodes}).model_dump(mode="json")
        for circuit in (FOUND, OTHER)
    )
    assert fingerprint(one) != fingerprint(other)
    unknown = {**one, "prompt_set": None}
    assert copies_among({"b": unknown, "c": unknown, "a": one}) == {"b": "a", "c": "a"}
    assert copies_among({"b": unknown, "c": unknown}) == {"c": "b"}
    assert copies_among({"a": one, "d": {**one, "prompt_set": "2" * 64}}) == {}
