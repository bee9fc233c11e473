"""Small files that would take long, much memory, or another reader of them elsewhere."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import find_format
from ingest.formats.graphs.dot import read_dot
from ingest.formats.spelling import read_name
from registry import Registry
from registry.errors import BadIdentifier
from tests.ingest.formats import attribution_graphs
from tests.patience import soon

GPT2 = {"model": "gpt2", "task": "ioi"}
EDITED = [{"requested_rewrite": {"prompt": "x"}, "post": {"rewrite_acc": 1.0}}]


def refused(registry: Registry, path: Path, format: str | None = None, **said: Any) -> str:
    """Why a file is refused, which must not take long."""
    chosen = None if format is None else find_format(format)
    with soon():
        reports = list(import_files(registry, [path], {**GPT2, **said}, format=chosen))
    found: FileReport = next(report for report in reports if report.outcome is FileOutcome.REFUSED)
    assert len(found.notes) == 1
    return found.notes[0]


def _aliases(of: str, each: str) -> str:
    lines = [f"a0: &a0 {of}"]
    for level in range(14):
        again = ", ".join([f"*a{level}"] * 9)
        lines.append(f"a{level + 1}: &a{level + 1} {each.format(again)}")
    return "\n".join(lines)


_YAML = {
    "aliases": _aliases("[x]", "[{}]"),
    "merged keys": _aliases("{x: 1}", "{{<<: [{}]}}"),
    "a number to the base of 60": "protocol: 1" + ":1" * 300_000,
    "a number of many digits": "protocol: " + "9" * 5_000,
    "a hexadecimal number": "protocol: 0x" + "9" * 5_000,
    "no date": "protocol: 2001-99-99",
    "no time": "protocol: !!timestamp x",
    "no truth": "protocol: !!bool x",
    "no number": "protocol: !!int ''",
    "lists in lists": "protocol: " + "[" * 5_000 + "]" * 5_000,
}


class TestYaml:
    @pytest.mark.parametrize("what", _YAML)
    def test_a_sidecar_that_unfolds_or_is_no_yaml_is_refused(
        self, registry: Registry, tmp_path: Path, what: str
    ) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(EDITED))
        entry = "\n".join(f"  {line}" for line in _YAML[what].splitlines())
        (folder / "circuits-import.yaml").write_text(f"- files: '*'\n{entry}\n")
        assert "circuits-import.yaml" in refused(registry, folder)

    @pytest.mark.parametrize("what", _YAML)
    def test_hyperparameters_that_unfold_or_are_no_yaml_are_refused(
        self, registry: Registry, tmp_path: Path, what: str
    ) -> None:
        path, told = tmp_path / "results.json", tmp_path / "told.yaml"
        path.write_text(json.dumps(EDITED))
        told.write_text(f"alg_name: ROME\n{_YAML[what]}\n")
        assert "told.yaml" in refused(registry, path, hyperparameters=told)

    def test_a_glob_that_unfolds_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(EDITED))
        lines = _aliases("[x]", "[{}]").splitlines()
        entry = "".join(f"  {line}\n" for line in (*lines, "files: *a14"))
        (folder / "circuits-import.yaml").write_text(f"-\n{entry}")
        assert "more values" in refused(registry, folder)

    @pytest.mark.parametrize("name", ["loop", "a\\0b", "../outside.yaml", "/etc/hostname"])
    def test_a_sidecar_names_no_file_elsewhere_nor_none_at_all(
        self, registry: Registry, tmp_path: Path, name: str
    ) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        (tmp_path / "outside.yaml").write_text("alg_name: ROME")
        (folder / "loop").symlink_to("loop")
        (folder / "results.json").write_text(json.dumps(EDITED))
        sidecar = folder / "circuits-import.yaml"
        sidecar.write_text(f'- files: "*"\n  hyperparameters: "{name}"\n')
        assert "is not under" in refused(registry, folder)

    def test_a_sidecar_names_no_pipe(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        os.mkfifo(folder / "pipe")
        (folder / "results.json").write_text(json.dumps(EDITED))
        (folder / "circuits-import.yaml").write_text("- files: '*'\n  hyperparameters: pipe\n")
        assert "no plain file" in refused(registry, folder)

    def test_a_sidecar_that_is_a_link_is_none(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        (tmp_path / "outside.yaml").write_text("- files: '*'\n  task: other\n")
        (folder / "edges.csv").write_text("source,target\nm0,m1\n")
        (folder / "circuits-import.yaml").symlink_to(tmp_path / "outside.yaml")
        assert "does not name its task" in refused(registry, folder, task=None)


def _archive(pickled: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"a/{name}", content)
    return made.getvalue()


def _tuples_as_a_key(depth: int) -> bytes:
    """A pickle of a dictionary whose only key holds one empty tuple 2 ** depth times."""
    twice = b"".join(b"h" + bytes([at]) + b"\x86q" + bytes([at + 1]) for at in range(depth))
    return b"\x80\x02ccollections\nOrderedDict\n)R)q\x00" + twice + b"K\x01s."


def _two_directories() -> bytes:
    """A zip whose end names one directory by place, while another stands right before it.

    The first has the members as they are, packed; the second says that they are stored.
    """
    content = bytes(10_000_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    name, crc = b"a/data/0", zlib.crc32(content)
    sizes = crc, len(packed), len(content), len(name), 0
    out = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, *sizes) + name + packed
    directories = [
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, method, 0, 33, crc, size, unpacked,
                    len(name), 0, 0, 0, 0, 0, 0) + name
        for method, size, unpacked in ((8, len(packed), len(content)), (0, 1, 1))
    ]  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directories[0]), len(out), 0)
    return out + b"".join(directories) + end


def _tar_that_ends_as_a_zip() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo("pickle")
        content = pickle.dumps(print)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(made, "a") as packed:
        packed.writestr("a/data.pkl", b"N.")
    return made.getvalue()


class _WithAttributes:
    """Pickled as an ordered dictionary that carries attributes of its own."""

    def __init__(self, values: dict[str, Any], attributes: dict[str, Any]) -> None:
        self._values, self._attributes = values, attributes

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), self._attributes, None, iter(self._values.items())


_ARCHIVES = {
    "a key of tuples in tuples": (_archive(_tuples_as_a_key(100)), "expands"),
    "two directories": (_two_directories(), "directory is not at the stated offset"),
    "a tar that ends as a zip": (_tar_that_ends_as_a_zip(), "no archive as torch.save"),
    "a comment behind it": (_archive(b"N.")[:-2] + b"\x01\x00x", "does not end as a zip"),
}


class TestTorchFiles:
    @pytest.mark.parametrize("format", ["eap-ig-pt", "acdc-subgraph", "sparse-features"])
    @pytest.mark.parametrize("what", _ARCHIVES)
    def test_what_torch_would_unfold_is_refused_before(
        self, registry: Registry, tmp_path: Path, what: str, format: str
    ) -> None:
        pytest.importorskip("torch")
        path = tmp_path / "graph.pt"
        content, says = _ARCHIVES[what]
        path.write_bytes(content)
        assert says in refused(registry, path, format, top=3)

    def test_lists_that_hold_each_other_over_and_over_are_refused(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        torch = pytest.importorskip("torch")
        layers: list[Any] = []
        for _ in range(60):
            layers = [layers, layers]
        path = tmp_path / "graph.pt"
        torch.save({"cfg": {"n_layers": layers, "n_heads": 1}, "edges_scores": torch.ones(1)}, path)
        assert "expands" in refused(registry, path, "eap-ig-pt")

    def test_attributes_do_not_take_the_place_of_methods(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        torch = pytest.importorskip("torch")
        path = tmp_path / "graph.pt"
        graph = {"cfg": {"n_layers": 1, "n_heads": 1}, "edges_scores": torch.ones(1)}
        torch.save(_WithAttributes(graph, {"get": 5, "items": 5}), path)
        assert "other than plain" in refused(registry, path, "eap-ig-pt")
        tensor = torch.ones(1)
        tensor.detach = 5
        torch.save({**graph, "edges_scores": tensor}, path)
        assert "other than plain" in refused(registry, path, "eap-ig-pt")


class TestTexts:
    def test_a_table_of_very_many_columns_is_refused(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = tmp_path / "edges.csv"
        more = ",".join(f"c{at}" for at in range(20_000))
        rows = "".join(f"m{at},m{at + 1}\n" for at in range(20_000))
        path.write_text(f"source,target,{more}\n{rows}")
        assert "20,002 columns" in refused(registry, path)

    def test_lines_shorter_than_a_wide_header_cost_what_they_hold(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = tmp_path / "edges.csv"
        more = ",".join(f"c{at}" for at in range(990))
        rows = "".join(f"a0.h{at},m1\n" for at in range(60_000))
        path.write_text(f"source,target,{more}\n{rows}m0,nothing\n")
        assert "nothing" in refused(registry, path)

    @pytest.mark.parametrize("column", ["port", "effect", "rank", "source_position"])
    @pytest.mark.parametrize("value", [" " * 2**20, "0" * 2**20])
    def test_a_long_text_that_every_row_shares_is_looked_at_once(
        self, registry: Registry, tmp_path: Path, column: str, value: str
    ) -> None:
        path = tmp_path / "edges.parquet"
        n_rows = 20_000
        places = pyarrow.array([0] * n_rows, pyarrow.int32())
        texts = {"target": "m1", column: value}
        columns: dict[str, Any] = {
            name: pyarrow.DictionaryArray.from_arrays(places, [text])
            for name, text in texts.items()
        }
        columns["source"] = [f"a0.h{at}" for at in range(n_rows)]
        parquet.write_table(pyarrow.table(columns), path)
        assert path.stat().st_size < 2**18
        assert len(refused(registry, path)) < 500

    @pytest.mark.parametrize(
        "text",
        [
            "digraph { {ALL} -> {ALL} }",
            "digraph { {ALL} -> a -> {ALL} -> {{ALL}} }",
            "strict graph { subgraph one {{ALL}} -- {ALL} }",
        ],
    )
    def test_groups_that_unfold_are_refused(
        self, registry: Registry, tmp_path: Path, text: str
    ) -> None:
        path = tmp_path / "graph.gv"
        path.write_text(text.replace("ALL", " ".join(f"m{at}" for at in range(700))))
        assert "700 by 700 nodes" in refused(registry, path)

    def test_groups_nested_as_deep_as_may_be_are_read_soon(self) -> None:
        names = " ".join(f"n{at}" for at in range(30_000))
        text = "digraph { r -> " + "{" * 40 + names + "}" * 40 + "}"
        with soon():
            graph = read_dot(text, "graph.gv", keep=(), max_edges=5_000_000)
        assert len(graph.edges) == 30_000

    def test_names_of_much_space_are_read_soon(self) -> None:
        with soon():
            for at in range(200):
                with pytest.raises(BadIdentifier):
                    read_name("hook_a[" + " " * 900 + f"x{at}")

    def test_one_long_token_of_xml_is_read_soon(self, registry: Registry, tmp_path: Path) -> None:
        path = tmp_path / "graph.graphml"
        path.write_text("<graphml><!--" + "x" * 60_000_000)
        assert "is no XML" in refused(registry, path)

    def test_a_long_chain_of_features_is_not_followed_to_its_end(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        chain: list[dict[str, Any]] = [
            {"node_id": f"{at}_1_0", "feature_type": "cross layer transcoder", "layer": str(at),
             "ctx_idx": 0, "feature": None}
            for at in range(20_000)
        ]  # fmt: skip
        last: dict[str, Any] = {
            "node_id": "20000_5_0", "feature_type": "logit", "layer": "20000", "ctx_idx": 0,
            "feature": 5, "token_prob": 1.0,
        }  # fmt: skip
        ids = [node["node_id"] for node in (*chain, last)]
        for weight in (1.0, 0.0):  # with and without influence
            links = [
                {"source": one, "target": other, "weight": weight}
                for one, other in itertools.pairwise(ids)
            ]
            graph = {"metadata": {"scan": "m"}, "qParams": {}, "nodes": [*chain, last]}
            path = tmp_path / "graph.json"
            path.write_text(json.dumps({**graph, "links": links}))
            assert "one behind the other" in refused(registry, path, edge_threshold=0.9)

    def test_nodes_that_share_an_id_are_not_all_tried_for_each_link(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        content = attribution_graphs.graph()
        content["nodes"] += [
            attribution_graphs.feature(1, at, at, node_id="0_3_1") for at in range(3_000)
        ]
        content["links"] = [attribution_graphs.link("0_3_1", "0_3_1")] * 3_000
        path = attribution_graphs.written(tmp_path, content)
        with soon():
            (report,) = import_files(registry, [path], GPT2, dry_run=True)
        assert "3,000 links fit two nodes with one id" in " ".join(report.notes)

    def test_many_special_nodes_that_are_none_are_told_in_one_note(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = tmp_path / "graph.gv"
        path.write_text('digraph { "<m0>" -> "<m1>" [penwidth=2]; "<m1>" -> "<m2>" [penwidth=1] }')
        (tmp_path / "specialNode.txt").write_text("".join(f"x{at}\n" for at in range(50_000)))
        (report,) = import_files(registry, [path], GPT2)
        assert report.outcome is FileOutcome.STORED
        (note,) = (note for note in report.notes if "specialNode.txt" in note)
        assert "and 49,992 more" in note


def test_a_dry_run_tells_of_a_model_that_is_stored_with_another_shape(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "graph.json"
    said = {**GPT2, "model": "gpt2@toy"}
    edges = {"input->m0": {"score": 1.0, "in_graph": True}}
    for layers, outcome in ((1, FileOutcome.STORED), (2, FileOutcome.REFUSED)):
        cfg = {"n_layers": layers, "n_heads": 1, "d_model": 8}
        path.write_text(json.dumps({"cfg": cfg, "nodes": {}, "edges": edges}))
        for dry_run in (True, False):
            (report,) = import_files(registry, [path], said, dry_run=dry_run)
            known = FileOutcome.READABLE if dry_run and outcome is FileOutcome.STORED else outcome
            assert report.outcome is known
    assert "stored with n_layers 1, not 2" in report.notes[0]


def test_many_files_that_each_may_have_others_beside_them_are_told_apart_soon(
    registry: Registry, tmp_path: Path
) -> None:
    for at in range(6_000):
        (tmp_path / f"{at}.gv").write_text("digraph { }")
    with soon():
        next(iter(import_files(registry, [tmp_path], GPT2)))
