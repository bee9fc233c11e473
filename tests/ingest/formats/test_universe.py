"""From how many parts a circuit was chosen is told only by files that list all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ingest.formats.base import Context, Imported, Said, find_format
from ingest.formats.universe import whole_model
from registry.models.edge_space import EdgeSpace
from registry.models.known_models import common_model
from registry.records import Level
from tests.ingest.formats import attribution_graphs

GPT2 = EdgeSpace(12, 12, 12)
CFG = {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": False, "d_model": 768}


def read(path: Path, name: str, content: Any, **said: Any) -> Imported:
    file = path / "file.json"
    file.write_text(json.dumps(content), "utf-8")
    about = {"model": "gpt2", "task": "ioi", **said}
    return find_format(name).read(file, Context(Said(**about)))


def universe(found: Imported) -> int | None:
    (circuit,) = found.circuits
    return circuit.universe_size


def eap(edges: dict[str, float], nodes: dict[str, Any] | None = None) -> dict[str, Any]:
    listed = {name: {"score": score, "in_graph": True} for name, score in edges.items()}
    return {"cfg": CFG, "nodes": nodes or {}, "edges": listed}


class TestEapIg:
    def test_two_edges_of_a_model_of_twelve_layers_do_not_say_of_how_many(
        self, tmp_path: Path
    ) -> None:
        found = read(tmp_path, "eap-ig-json", eap({"input->m0": 1.0, "m0->logits": 2.0}))
        assert universe(found) is None
        assert found.notes[-1] == (
            "the file lists 2 of the 32,491 edges of its model: the number to select from is"
            " unknown"
        )

    def test_a_choice_by_size_from_some_edges_does_not_say_of_how_many(
        self, tmp_path: Path
    ) -> None:
        edges = {"input->m0": 1.0, "m0->logits": 2.0, "a0.h0->logits": 3.0}
        assert universe(read(tmp_path, "eap-ig-json", eap(edges), top=2)) is None

    def test_all_edges_of_gpt2_are_the_universe(self, tmp_path: Path) -> None:
        every = {GPT2.edge_id(*place): float(at) for at, place in enumerate(GPT2.edges())}
        found = read(tmp_path, "eap-ig-json", eap(every), top=3)
        assert universe(found) == 32_491
        assert not any("unknown" in note for note in found.notes)
        del every["input->logits"]
        assert universe(read(tmp_path, "eap-ig-json", eap(every), top=3)) is None

    def test_a_whole_graph_of_mlps_alone_is_one(self, tmp_path: Path) -> None:
        parts = ["input", *(f"m{layer}" for layer in range(12)), "logits"]
        edges = {
            f"{source}->{target}": float(at + later)
            for at, source in enumerate(parts)
            for later, target in enumerate(parts[at + 1 :])
        }
        assert universe(read(tmp_path, "eap-ig-json", eap(edges))) == len(edges) == 91
        del edges["m3->m4"]
        assert universe(read(tmp_path, "eap-ig-json", eap(edges))) is None

    def test_two_nodes_do_not_say_of_how_many(self, tmp_path: Path) -> None:
        nodes = {"a0.h0": {"in_graph": True, "score": 1.0}, "m0": {"in_graph": True, "score": 2.0}}
        found = read(tmp_path, "eap-ig-json", eap({}, nodes))
        assert (found.circuits[0].level, universe(found)) == (Level.NODE, None)
        every = {
            name: {"in_graph": True, "score": 1.0 * at} for at, name in enumerate(GPT2.senders)
        }
        assert universe(read(tmp_path, "eap-ig-json", eap({}, every))) == 157

    def test_some_coordinates_do_not_say_of_how_many(self, tmp_path: Path) -> None:
        nodes = {"m0.17": {"in_graph": True, "score": 1.0}, "m0": True}
        found = read(tmp_path, "eap-ig-json", eap({}, nodes))
        assert (found.circuits[0].level, universe(found)) == (Level.SUBSPACE, None)

    def test_a_tensor_of_some_senders_does_not_say_of_how_many(self, tmp_path: Path) -> None:
        content = {
            "cfg": {"n_layers": 1, "n_heads": 1}, "src_nodes": ["input", "m0"],
            "dst_nodes": ["m0", "logits"], "edges_scores": torch.tensor([[1.0, 2.0], [0.0, 3.0]]),
            "edges_in_graph": torch.tensor([[True, True], [False, True]]),
            "nodes_in_graph": torch.tensor([True, True]),
        }  # fmt: skip
        path = tmp_path / "graph.pt"
        said = Context(Said(model="tiny", task="ioi"))
        for cfg, known in (
            ({"n_layers": 1, "n_heads": 1}, 3),
            ({"n_layers": 2, "n_heads": 1}, None),
        ):
            torch.save({**content, "cfg": cfg}, path)
            assert universe(find_format("eap-ig-pt").read(path, said)) == known


class TestOthers:
    def test_scores_of_some_nodes_do_not_say_of_how_many(self, tmp_path: Path) -> None:
        scores = {"A0.0": 0.5, "A0.1": 0.25, "MLP 0": 2.0}
        content: dict[str, Any] = {"model": "gpt2", "task": "ioi", "node_scores": scores}
        assert universe(read(tmp_path, "circuitkit", content, top=1)) is None
        content["node_scores"] = {
            f"A{layer}.{head}": layer + 1.0 for layer in range(12) for head in range(12)
        }
        assert universe(read(tmp_path, "circuitkit", content, top=1)) == 144
        assert universe(read(tmp_path, "circuitkit", content, top=1, model="tiny")) is None

    def test_attributions_of_some_heads_do_not_say_of_how_many(self, tmp_path: Path) -> None:
        content: dict[str, Any] = {
            "circuit": [[0, 1]], "attributions": {"(0, 1)": 1.0, "(1, 0)": 2.0},
            "model_metadata": {"n_layers": 2, "n_heads": 2},
        }  # fmt: skip
        assert universe(read(tmp_path, "glassbox", content, model="tiny")) is None
        content["attributions"] |= {"(0, 0)": 0.5, "(1, 1)": 0.0}
        assert universe(read(tmp_path, "glassbox", content, model="tiny")) == 4

    def test_links_that_a_tool_left_of_a_graph_are_not_all_there_were(self, tmp_path: Path) -> None:
        found = read(tmp_path, "attribution-graph", attribution_graphs.graph(), top=1)
        assert universe(found) is None

    @pytest.mark.parametrize("name", ["edges.csv", "heads.csv"])
    def test_rows_of_a_table_do_not_say_of_how_many(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        rows = {"edges.csv": "source,target,effect\nm0,m1,1\nm0,m2,2\n",
                "heads.csv": "layer,head,effect\n0,1,1\n0,2,2\n"}  # fmt: skip
        path.write_text(rows[name])
        said = Context(Said(model="gpt2", task="ioi", top=1))
        assert universe(find_format("table").read(path, said)) is None


def test_a_whole_model_is_all_parts_of_the_kinds_that_are_listed() -> None:
    gpt2 = common_model("gpt2")
    heads = [f"a{layer}.h{head}" for layer in range(12) for head in range(12)]
    mlps = [f"m{layer}" for layer in range(12)]
    assert whole_model(heads, gpt2) == 144
    assert whole_model([*heads, *mlps], gpt2) == 156
    assert whole_model([*heads, *mlps, "input", "logits"], gpt2) == 158
    assert whole_model([*heads, "m3"], gpt2) is None
    assert whole_model(heads[1:], gpt2) is None
    assert whole_model(heads, None) is None
    assert whole_model([], gpt2) is None
