"""Formats claim files by what stands outermost in them: what wraps such a file is another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.exchange.importing import FileOutcome, import_files
from ingest.formats.base import recognised
from ingest.formats.reading import outer_keys
from registry import Registry
from tests.ingest.formats.easyedit_files import record
from tests.ingest.formats.test_importing import GPT2, graph, written

SHAPES: dict[str, Any] = {
    "sequence-continuation": {"heads": [[9, 9]], "mlps": [0]},
    "circuitkit": {"node_scores": {"A0.1": 0.5}},
    "glassbox": {"circuit": [[9, 6]], "attributions": {"(9, 6)": 0.5}},
    "pyvene": {"representations": [], "intervention_types": []},
    "node-link": {"directed": True, "multigraph": False, "nodes": [], "links": []},
    "eap-ig-json": graph(),
    "edge-pruning": {"original": [], "extra": []},
    "attribution-graph": {"metadata": {}, "qParams": {}, "nodes": [], "links": []},
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_wraps_a_file_is_no_such_file(registry: Registry, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    path = written(folder, SHAPES[name], "own.json")
    assert recognised(path).name == name
    path.unlink()
    for inner in ({"run": SHAPES[name]}, [SHAPES[name]]):
        written(folder, inner, "wrapped.json")
        (report,) = import_files(registry, [folder], GPT2)
        assert (report.outcome, report.notes) == (FileOutcome.SKIPPED, ("its format is unknown",))


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(data=st.dictionaries(st.text(), _JSON), bom=st.sampled_from(["", "\ufeff", " \n"]))
def test_the_outer_names_are_those_of_the_object(data: dict[str, Any], bom: str) -> None:
    text = (bom + json.dumps(data, ensure_ascii=False)).encode("utf-8", "surrogatepass")
    assert set(filter(_is_plain, outer_keys(text))) == set(filter(_is_plain, data))


def _is_plain(key: str) -> bool:
    """Whether a key is written without escapes: of a part of a file, others are not decoded."""
    return json.dumps(key, ensure_ascii=False) == f'"{key}"'


@given(data=st.binary(max_size=300))
def test_any_bytes_have_some_names_or_none(data: bytes) -> None:
    assert all(isinstance(key, str) for key in outer_keys(b"{" + data))


class TestTheFilesOwnModel:
    def test_a_refused_part_is_told_with_both_models(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        content = {
            "model": "gpt2-medium", "task": "ioi", "algorithm": "eap",
            "node_scores": {"A20.3": 0.5, "MLP 3": 0.25},
        }  # fmt: skip
        (report,) = import_files(registry, [written(tmp_path, content)], {**GPT2, "top": 2})
        assert report.outcome is FileOutcome.REFUSED
        (why,) = report.notes
        assert "a20.h3" in why
        assert "gpt2" in why.replace("gpt2-medium", "")
        assert "the file names the model gpt2-medium; used is gpt2@toy, as given by the user" in why

    def test_edited_parts_are_told_with_both_models(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        told = tmp_path / "h.yaml"
        told.write_text(
            "alg_name: ROME\nmodel_name: gpt2-xl\nlayers: [40]\n"
            "rewrite_module_tmp: transformer.h.{}.mlp.c_proj\n"
        )
        said = {"model": "gpt2", "hyperparameters": told}
        (report,) = import_files(registry, [written(tmp_path, record())], said)
        assert report.outcome is FileOutcome.REFUSED
        assert "gpt2/m40" in report.notes[0]
        assert "the hyperparameters are for gpt2-xl, not gpt2" in report.notes[0]


def test_a_note_of_many_names_is_a_short_line(registry: Registry, tmp_path: Path) -> None:
    rows = "".join(f"A{layer}.{head},MLP 11\n" for layer in range(10) for head in range(12))
    path = written(tmp_path, f"source,target\n{rows}", "edges.csv")
    (report,) = import_files(registry, [path], GPT2)
    assert report.outcome is FileOutcome.STORED
    (many,) = [note for note in report.notes if "names read as ours" in note]
    assert many.startswith("121 names read as ours: A0.0 as a0.h0, ")
    assert many.endswith(" and 113 more")
    assert max(map(len, report.notes)) < 500


def test_many_special_parts_are_a_short_line(registry: Registry, tmp_path: Path) -> None:
    written(tmp_path, 'digraph { "<m0>" -> "<a1.0>"; }', "graph.gv")
    names = [f"a{layer}.{head}" for layer in range(2, 12) for head in range(12)]
    written(tmp_path, "\n".join([*names, *(f"stranger {n}" for n in range(99))]), "specialNode.txt")
    reports = {r.path.name: r for r in import_files(registry, [tmp_path / "graph.gv"], GPT2)}
    notes = reports["graph.gv"].notes
    assert any("and 112 more of specialNode.txt" in note for note in notes)
    assert any("and 91 more, which are no parts" in note for note in notes)
    assert max(map(len, notes)) < 500
