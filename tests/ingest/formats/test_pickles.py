"""Pickles of no format are refused, unread, with what they are and what to do instead."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingest.exchange.importing import FileOutcome, import_files
from ingest.formats.base import recognised
from ingest.formats.pickles import classes_and_texts
from registry import Registry

SHARED = Path(__file__).parents[4] / "shared" / "fixtures" / "external" / "acdc"
needs_files = pytest.mark.skipif(
    not SHARED.is_dir(), reason="other tools' files are not beside this checkout"
)
SAID = {"model": "gpt2", "task": "ioi"}


class Bomb:
    """Unpickling one leaves a trace."""

    trace: Path

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def refusal(registry: Registry, path: Path) -> str:
    (report,) = import_files(registry, [path], SAID)
    assert (report.outcome, report.format) == (FileOutcome.REFUSED, "pickle")
    return report.notes[0]


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_of_a_pickle_is_run(registry: Registry, tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "result.pkl"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "trace"), protocol=protocol))
    said = refusal(registry, path)
    assert "reading it could run any code" in said
    assert "pathlib.Path" in said
    assert not (tmp_path / "trace").exists()


def test_graphs_of_networkx_are_to_be_written_as_graphs(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "final_circuit.pkl"
    path.write_bytes(pickle.dumps(networkx.DiGraph([("m0", "m1")])))
    said = refusal(registry, path)
    assert "a graph of networkx" in said
    assert "networkx.write_graphml" in said


def test_results_of_mib_are_named(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "ioi_gpt2_test_abs-True.pkl"
    path.write_bytes(pickle.dumps({"weighted_edge_counts": [1.0], "area_under": 0.7}))
    assert "a result file of the MIB circuit track" in refusal(registry, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_are_of_no_format_run_nothing_and_are_called_so(
    registry: Registry, tmp_path: Path, zipped: bool
) -> None:
    folder = tmp_path / "tensors"
    folder.mkdir()
    path = folder / "cache.pt"
    held = {"a": torch.ones(2), "b": [torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))]}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    said = refusal(registry, path)
    if zipped:
        assert "cache.pt holds plain tensors, not a known kind of circuit" in said
        assert "run" not in said
        (report,) = import_files(registry, [folder], SAID)
        assert (report.outcome, report.notes) == (FileOutcome.SKIPPED, (said,))
    else:  # several pickles, one behind the other
        assert "torch._utils._rebuild_tensor_v2" in said


def test_values_without_a_class_are_called_plain(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickle.dumps({"m0": [0.5, 1]}))
    assert "scores.pkl holds plain values, not a known kind of circuit" in refusal(registry, path)


@pytest.mark.parametrize("end", [b"cos\nsystem\n.", b"x"])
def test_what_stands_behind_plain_values_is_not_overlooked(
    registry: Registry, tmp_path: Path, end: bytes
) -> None:
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickle.dumps({"m0": 0.5}) + end)
    assert "reading it could run any code" in refusal(registry, path)


@pytest.mark.parametrize("whole", [torch.nn.Linear(2, 2), {"a": torch.ones(1), "b": Path()}])
def test_an_archive_with_another_class_is_said_to_run_it(
    registry: Registry, tmp_path: Path, whole: Any
) -> None:
    path = tmp_path / "model.pt"
    torch.save(whole, path)
    assert "reading it could run any code (it requires" in refusal(registry, path)


def test_a_damaged_archive_is_one_reason(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "cache.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl.txt", "nothing")
    assert "damaged archive" in refusal(registry, path)


def test_only_the_beginning_of_a_large_pickle_is_looked_at(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "large.pkl"
    path.write_bytes(pickle.dumps([Path(), bytes(2**23), 1]))
    assert "pathlib" in refusal(registry, path)


@given(data=st.binary(max_size=200), cut=st.integers(0, 60))
def test_any_bytes_are_walked_to_their_end(data: bytes, cut: int) -> None:
    classes, texts = classes_and_texts(pickle.dumps({"a": Path(), "b": [1.5]})[:cut] + data)
    assert all(isinstance(one, str) for one in [*classes, *texts])


def test_a_pickle_is_the_last_resort(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    torch.save({"cfg": {"n_layers": 1}, "edges_scores": 0, "edges_in_graph": 0}, path)
    assert recognised(path).name == "eap-ig-pt"


@needs_files
@pytest.mark.parametrize("file", ["docstring_another_final_edges.pkl", "docstring_edges_v831.pth"])
def test_edges_saved_by_acdc_are_refused_and_their_table_is_asked_for(
    registry: Registry, file: str
) -> None:
    said = refusal(registry, SHARED / file)
    assert "edges that ACDC's save_edges wrote" in said
    assert "(it requires acdc.acdc_utils.TorchIndex, builtins.slice)" in said
    assert "save_subgraph writes a .pth that is imported" in said
    assert "CSV or JSON Lines: source, target, effect; hook points with the head" in said
