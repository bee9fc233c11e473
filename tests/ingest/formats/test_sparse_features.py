"""Sparse feature circuits: files in the tool's shape, made here, and a real one."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load

from ingest.exchange.importing import FileOutcome, import_files
from ingest.formats.base import Context, Imported, Limits, Said, recognised
from ingest.formats.sparse_features.format import FORMAT
from registry import Registry
from registry.errors import BadInput, CircuitsError, MissingExtra
from registry.records import Circuit, Level, Sign
from tests.ingest.formats.sparse_features_files import (
    SomethingElse,
    SparseAct,
    act,
    features,
    neurons,
    saved,
    sparse,
)

FILES = Path(__file__).parent / "files" / "sparse-features"
Save = Callable[[Any], Path]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    return lambda content: saved(content, tmp_path_factory.mktemp("saved") / "circuit.pt")


def said(**more: Any) -> Said:
    return Said(**{"model": "pythia-70m-deduped", "task": "rc", "top": 100, **more})


def read(path: Path, **more: Any) -> Imported:
    return FORMAT.read(path, Context(said(**more)))


def only(imported: Imported) -> Circuit:
    (circuit,) = imported.circuits
    return circuit


class TestNodesOnly:
    def test_the_strongest_units_are_the_circuit(self, registry: Registry, save: Save) -> None:
        (report,) = import_files(
            registry, [save(neurons())], {"model": "gemma-2-2b", "task": "rc", "top": 4}
        )
        assert (report.outcome, report.format) == (FileOutcome.STORED, "sparse-features")
        circuit = registry.circuit(report.circuits[0]).circuit
        assert {n.key: (n.effect, n.rank) for n in circuit.nodes} == {
            "l0.attn_out.f0#neurons@0": (0.5, 4), "l0.attn_out.f2#neurons@0": (-1.5, 2),
            "l0.mlp_out.f0#neurons@1": (-0.75, 3), "l0.resid_post.f1#neurons@0": (3.0, 1),
        }  # fmt: skip
        assert (circuit.level, circuit.sign, circuit.edges) == (Level.NEURON, Sign.UNKNOWN, ())
        assert (circuit.universe_size, circuit.method) == (14, "sparse-feature-circuit")
        assert circuit.selection == {"top": 4, "of": "units", "by": "absolute"}
        assert circuit.parameters == {
            "aggregation": "none", "units": "neurons", "n_examples": 1,
        }  # fmt: skip
        assert (
            "14 effects in 3 places, 7 of them 0 and 1 missing, from -1.5 to 3" in (report.notes[0])
        )
        assert "heads' outputs before the output projection" in report.notes[2]

    def test_a_size_may_be_asked_for_and_zeros_are_never_taken(self, save: Save) -> None:
        path = save(neurons())
        assert len(only(read(path, top=None, threshold=0.5)).nodes) == 4
        assert len(only(read(path, top=None, threshold=0.0)).nodes) == 6

    def test_all_effects_are_kept(self, save: Save) -> None:
        found = read(save(neurons()), sign="hurts-positive", top=1)
        tensors = load(next(iter(found.artifacts)))
        assert set(tensors) == {"l0.attn_out", "l0.mlp_out", "l0.resid_post"}
        assert tensors["l0.attn_out"].tolist() == [[-0.5, 0.0, 1.5], [0.0, -0.25, 0.0]]
        assert np.isnan(tensors["l0.resid_post"][1, 0])

    def test_a_sign_that_says_hurts_is_turned(self, save: Save) -> None:
        circuit = only(read(save(neurons()), sign="hurts-positive", top=1))
        assert [node.effect for node in circuit.nodes] == [-3.0]
        assert circuit.sign is Sign.HELPS_POSITIVE

    def test_prompts_are_kept_as_a_set(self, registry: Registry, save: Save) -> None:
        (report,) = import_files(
            registry, [save(neurons())], {"model": "gemma-2-2b", "task": "rc", "top": 4}
        )
        (prompts,) = registry.ledger.prompt_sets()
        assert (prompts.n_prompts, prompts.task) == (1, "rc")
        assert registry.circuit(report.circuits[0]).circuit.prompt_set == prompts.id
        assert prompts.artifact is not None
        assert b'"text":"The girls that the boy sees"' in registry.artifact(prompts.artifact)

    def test_prompts_of_another_shape_do_no_harm(self, save: Save) -> None:
        for examples in (None, 3, [3], [{"prompt": "a"}]):
            assert read(save(neurons(examples=examples))).prompt_sets == []

    def test_the_same_file_twice_adds_nothing(self, registry: Registry, save: Save) -> None:
        paths, what = [save(neurons())], {"model": "gemma-2-2b", "task": "rc", "top": 4}
        outcomes = [next(import_files(registry, paths, what)).outcome for _ in range(2)]
        assert outcomes == [FileOutcome.STORED, FileOutcome.KNOWN]


class TestFeatures:
    NODES = (
        "l0.resid_pre.f0#sae", "l0.resid_pre.f1#sae", "l0.resid_pre.error#sae",
        "l0.mlp_out.f1#sae", "l0.resid_post.f0#sae", "l0.resid_post.error#sae",
    )  # fmt: skip
    EDGES = (
        ("l0.resid_pre.f0#sae", "l0.mlp_out.f1#sae", 0.5),
        ("l0.resid_pre.error#sae", "l0.mlp_out.f1#sae", -0.25),
        ("l0.mlp_out.f1#sae", "l0.resid_post.f0#sae", 0.125),
        ("l0.mlp_out.f1#sae", "l0.resid_post.error#sae", 7.0),
        ("l0.resid_post.f0#sae", "logits", 6.0),
        ("l0.resid_post.error#sae", "logits", -3.0),
    )

    def test_edges_join_the_units_that_are_taken(self, save: Save) -> None:
        circuit = only(read(save(features(summed=True)), dictionary="sae"))
        assert {node.key for node in circuit.nodes} == {*self.NODES, "logits"}
        assert {(e.source, e.target, e.effect) for e in circuit.edges} == set(self.EDGES)
        assert [e.effect for e in sorted(circuit.edges, key=lambda e: e.rank or 0)] == [
            7.0, 6.0, -3.0, 0.5, -0.25, 0.125,
        ]  # fmt: skip
        assert (circuit.level, circuit.parameters["aggregation"]) == (Level.FEATURE, "sum")

    def test_positions_stay_apart_where_the_file_has_them(self, save: Save) -> None:
        circuit = only(read(save(features()), dictionary="sae"))
        at = {"l0.resid_pre": "@0", "l0.mlp_out": "@1", "l0.resid_post": "@1", "logits": ""}

        def key(name: str) -> str:
            return name + at[re.sub(r"\.(f\d+|error)#sae", "", name)]

        assert {node.key for node in circuit.nodes} == {*map(key, self.NODES), "logits"}
        assert {(e.source, e.target, e.effect) for e in circuit.edges} == {
            (key(source), key(target), effect) for source, target, effect in self.EDGES
        }
        assert circuit.parameters["aggregation"] == "none"

    def test_edges_of_units_that_are_not_taken_are_left_out(self, save: Save) -> None:
        circuit = only(read(save(features(summed=True)), dictionary="sae", top=2))
        assert {(e.source, e.target) for e in circuit.edges} == {
            ("l0.resid_post.f0#sae", "logits"), ("l0.resid_post.error#sae", "logits"),
        }  # fmt: skip

    def test_signs_of_edges_are_turned_too(self, save: Save) -> None:
        circuit = only(read(save(features(True)), dictionary="sae", sign="hurts-positive"))
        assert {(e.source, e.target, -(e.effect or 0)) for e in circuit.edges} == set(self.EDGES)

    def test_a_place_given_twice_counts_as_the_sum(self, save: Save) -> None:
        content = features(summed=True)
        content["edges"]["resid_0"]["y"] = sparse([[0, 0]], [1.0, 2.0], (3,))
        circuit = only(read(save(content), dictionary="sae"))
        assert [e.effect for e in circuit.edges if e.target == "logits"] == [3.0]

    def test_dense_edges_are_read_alike(self, save: Save) -> None:
        content = features()
        content["edges"] = {
            source: {target: tensor.to_dense() for target, tensor in targets.items()}
            for source, targets in content["edges"].items()
        }
        dense = only(read(save(content), dictionary="sae"))
        assert dense == only(read(save(features()), dictionary="sae"))

    def test_the_dictionary_is_asked_for(self, save: Save) -> None:
        path = save(features())
        with pytest.raises(BadInput, match="--dictionary"):
            read(path)
        with pytest.raises(BadInput, match="'a b' is no name of letters"):
            read(path, dictionary="a b")

    def test_errors_that_are_vectors_are_unknown(self, save: Save) -> None:
        nodes = {"resid_0": SparseAct(torch.ones(2, 3), None, torch.ones(2, 4))}
        found = read(save({"examples": [], "nodes": nodes, "edges": None}), dictionary="sae")
        assert {node.component for node in only(found).nodes} == {
            f"l0.resid_post.f{unit}#sae" for unit in range(3)
        }
        assert "at 1 places the dictionary's error is not a single number" in found.notes[2]

    def test_too_many_edges_are_refused(self, save: Save) -> None:
        context = Context(said(dictionary="sae"), Limits(max_edges=5))
        with pytest.raises(BadInput, match="more than 5 edges"):
            FORMAT.read(save(features()), context)


class TestRefusing:
    def test_how_many_units_must_be_said(self, save: Save) -> None:
        with pytest.raises(BadInput, match="--top N or a smallest size"):
            read(save(neurons()), top=None)

    def test_model_and_task_must_be_said(self, save: Save) -> None:
        for missing in ("model", "task"):
            with pytest.raises(BadInput, match=f"--{missing}"):
                read(save(neurons()), **{missing: None})

    def test_another_class_is_never_made(self, save: Save) -> None:
        content = neurons(examples=[SomethingElse()])
        with pytest.raises(BadInput, match=r"it requires activation_utils\.SomethingElse"):
            read(save(content))

    def test_code_in_a_pickle_never_runs(self, save: Save, tmp_path: Path) -> None:
        marker = tmp_path / "ran"

        class Runs:
            def __reduce__(self) -> Any:
                return Path.touch, (marker,)

        with pytest.raises(BadInput, match="only tensors and plain containers"):
            read(save(neurons(examples=[Runs()])))
        assert not marker.exists()

    def test_fields_cannot_reach_beyond_the_object(self, save: Save) -> None:
        odd = act([[1.0]])
        odd.__dict__["to"] = "anything"
        assert len(only(read(save(neurons(nodes={"mlp_0": odd})))).nodes) == 1

    def test_a_tensor_larger_than_what_is_stored_is_refused(self, save: Save) -> None:
        huge = SparseAct(torch.ones(1).expand(10**6, 10**6), None)
        with pytest.raises(BadInput, match="claims more numbers than the file holds"):
            read(save(neurons(nodes={"mlp_0": huge})))

    def test_many_tensors_of_one_storage_are_refused(self, save: Save) -> None:
        shared = SparseAct(torch.ones(10, 1000), None)
        path = save(neurons(nodes={f"mlp_{layer}": shared for layer in range(10)}))
        with pytest.raises(BadInput, match="claims more numbers than the file holds"):
            FORMAT.read(path, Context(said(), Limits(max_bytes=200_000)))

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ([1, 2], "holds no nodes"),
            ({"nodes": {}}, "holds no nodes of attention"),
            (neurons(nodes={"y": torch.ones(2)}), "holds no nodes of attention"),
            (neurons(nodes={"conv_0": act([[1.0]])}), "'conv_0' is none of embed, attn_0"),
            (neurons(nodes={3: act([[1.0]])}), "3 is none of embed"),
            (neurons(nodes={"mlp_0": torch.ones(2, 2)}), "mlp_0 is no SparseAct"),
            (neurons(nodes={"mlp_0": SparseAct([1.0])}), "mlp_0.act is no tensor"),
            (neurons(nodes={"mlp_0": SparseAct(torch.ones(2, 2, 2))}), "not [position, unit]"),
            (neurons(nodes={"mlp_0": SparseAct(torch.ones(2, 0))}), "not [position, unit]"),
            (neurons(nodes={"mlp_0": SparseAct(torch.tensor(1.0))}), "not [position, unit]"),
            (neurons(nodes={"mlp_0": SparseAct(torch.ones(2, 2), torch.ones(3))}), "3 positions"),
            (neurons(nodes={"mlp_0": SparseAct(torch.ones(1, 2) * 1j)}), "no real numbers"),
            (
                neurons(nodes={"mlp_0": act([[1.0]]), "mlp_1": act([[1.0], [2.0]])}),
                "differ in their numbers of positions",
            ),
            (
                neurons(nodes={"mlp_0": act([[1.0]]), "mlp_1": act([1.0])}),
                "differ in their numbers of positions",
            ),
            (neurons(edges=[1]), "edges is neither None nor"),
            (neurons(edges={"mlp_0": torch.ones(2)}), "from 'mlp_0' are no dictionary"),
            (neurons(edges={"mlp_0": {"mlp_9": torch.ones(2)}}), "to 'mlp_9', which have no nodes"),
            (neurons(edges={"mlp_0": {"resid_0": torch.ones(2, 2)}}), "not [2, 3, 2, 3]"),
            (neurons(edges={"mlp_0": {"y": torch.ones(2, 2)}}), "not [2, 3]"),
            (neurons(edges={"mlp_0": {"y": 3}}), "is no tensor"),
            (neurons(edges={"mlp_0": {"y": torch.tensor(1.0)}}), "is a single number"),
            (neurons(edges={"mlp_0": {"y": torch.tensor(0.0)}}), "is a single number"),
            (
                neurons(edges={"mlp_0": {"y": sparse([[0]], [[1.0, 2, 3]], (2, 3))}}),
                "no single number at each place",
            ),
        ],
    )
    def test_a_malformed_file_is_refused_with_the_reason(
        self, save: Save, content: Any, says: str
    ) -> None:
        with pytest.raises(BadInput, match=re.escape(says)):
            read(save(content))

    def test_what_is_no_archive_is_refused(self, save: Save, tmp_path: Path) -> None:
        path = tmp_path / "x.pt"
        path.write_bytes(save(neurons()).read_bytes()[:300])
        with pytest.raises(BadInput, match=r"no archive as torch\.save writes"):
            read(path)


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "level"),
    [
        ("neurons", 6, 0, Level.NEURON),
        ("positions", 7, 6, Level.FEATURE),
        ("summed", 7, 6, Level.FEATURE),
    ],
)
def test_files_that_are_kept_are_read(name: str, nodes: int, edges: int, level: Level) -> None:
    circuit = only(read(FILES / f"{name}.pt", dictionary="sae"))
    assert (len(circuit.nodes), len(circuit.edges), circuit.level) == (nodes, edges, level)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.serialization", None)
    with pytest.raises(MissingExtra, match=r"reading \.pt files needs the extra 'discover'"):
        read(FILES / "neurons.pt")


def test_entries_outside_a_sparse_tensor_are_refused(save: Save) -> None:
    content = features(summed=True)
    content["edges"]["resid_0"]["y"] = torch.sparse_coo_tensor(
        torch.tensor([[5]]), torch.tensor([1.0]), (3,), check_invariants=False
    )
    with pytest.raises(BadInput, match=r"cannot be read: .* indices"):
        read(save(content), dictionary="sae")


def test_it_is_recognised_by_its_class_or_its_prompts(save: Save) -> None:
    assert recognised(save(neurons())) is FORMAT
    plain = save({"cfg": {"n_layers": 1}})
    assert FORMAT.sniff(plain, plain.read_bytes()[:65_536]) == 0


@given(st.data())
def test_mutated_files_give_records_or_one_clear_error(
    save: Save, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mutated = bytearray(save(features(summed=data.draw(st.booleans()))).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        mutated = mutated or bytearray(b"x")
    path = tmp_path_factory.mktemp("mutated") / "circuit.pt"
    path.write_bytes(bytes(mutated))
    with contextlib.suppress(CircuitsError, ValidationError):
        assert read(path, dictionary="sae").circuits
