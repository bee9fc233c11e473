"""Patching chosen edges and nodes measures what an evaluation without them measures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.discovery.evaluation.patching import patch_effects
from ingest.discovery.model.anatomy import read_anatomy
from registry.errors import BadInput, NonFiniteScores
from tests.ingest.discovery.decoders import ALL, N_PROMPTS, bridge, clean_ids, corrupt_ids, metric

MODELS = sorted(ALL)
ABLATIONS: dict[str, dict[str, Any]] = {
    "resample": {"ablation": "resample"},
    "mean": {"ablation": "mean", "reference": clean_ids()},
    "zero": {"ablation": "zero"},
}


def _chosen(every: list[str]) -> list[str]:
    return [*every[:2], every[len(every) // 2], *every[-3:]]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_an_edge_has_the_effect_of_a_circuit_that_lacks_it_alone(name: str, ablation: str) -> None:
    model, options = bridge(name, torch.float64), ABLATIONS[ablation]
    space = read_anatomy(model).space
    every = [space.edge_id(row, column) for row, column in space.edges()]
    found = patch_effects(
        prepare_setting(model, clean_ids(), corrupt_ids(), metric(), **options),
        edges=_chosen(every),
    )
    assert list(found.edges) == _chosen(every)
    assert found.nodes == {}
    for edge, effect in found.edges.items():
        rest = [other for other in every if other != edge]
        measured = evaluate_circuit(
            prepare_setting(model, clean_ids(), corrupt_ids(), metric(), **options), rest
        )
        assert effect == pytest.approx(float((measured.full - measured.circuit).mean()), abs=1e-9)
    torch.testing.assert_close(found.full, measured.full)
    torch.testing.assert_close(found.empty, measured.empty)


@pytest.mark.parametrize("kv_heads", ["grouped", "per-query-head"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_node_has_the_effect_of_a_circuit_that_lacks_its_edges(name: str, kv_heads: str) -> None:
    model = bridge(name, torch.float64)
    space = read_anatomy(model, kv_heads).space
    every = [space.edge_id(row, column) for row, column in space.edges()]
    nodes = ["input", "a0.h1", "m0", "a1.h3", "m1"] + ["a1.kv1"] * space.grouped
    found = patch_effects(
        prepare_setting(
            model, clean_ids(), corrupt_ids(), metric(), kv_heads=kv_heads, batch_size=2
        ),
        nodes=nodes,
    )
    assert list(found.nodes) == nodes
    for node, effect in found.nodes.items():
        # A key/value head is patched where it reads, any other node where it writes.
        mine = f"->{node}<" if ".kv" in node else f"{node}->"
        rest = [edge for edge in every if mine not in edge]
        measured = evaluate_circuit(
            prepare_setting(model, clean_ids(), corrupt_ids(), metric(), kv_heads=kv_heads), rest
        )
        assert effect == pytest.approx(float((measured.full - measured.circuit).mean()), abs=1e-9)


def test_padding_and_batch_size_change_nothing_and_progress_counts_prompts() -> None:
    model = bridge("llama", torch.float64)
    asked: dict[str, Any] = {"edges": ["input->a0.h0<q>", "m0->logits"], "nodes": ["m0", "a1.kv0"]}
    plain = patch_effects(prepare_setting(model, clean_ids(), corrupt_ids(), metric()), **asked)
    pad = torch.ones(N_PROMPTS, 2, dtype=torch.long)
    seen: list[tuple[int, int]] = []
    padded = patch_effects(
        prepare_setting(
            model,
            torch.cat([pad, clean_ids()], 1),
            torch.cat([pad, corrupt_ids()], 1),
            metric(),
            attention_mask=torch.cat([0 * pad, torch.ones_like(clean_ids())], 1),
            batch_size=1,
        ),
        **asked,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert padded.edges == pytest.approx(plain.edges, abs=1e-9)
    assert padded.nodes == pytest.approx(plain.nodes, abs=1e-9)
    assert seen == [(done, N_PROMPTS) for done in range(1, N_PROMPTS + 1)]


def test_exact_scores_are_the_same_effects() -> None:
    model = bridge("gpt2", torch.float64)
    scores = attribute_edges(
        prepare_setting(model, clean_ids(), corrupt_ids(), metric()), method="exact"
    )
    every = scores.to_dict()
    found = patch_effects(prepare_setting(model, clean_ids(), corrupt_ids(), metric()), edges=every)
    assert found.edges == pytest.approx(every, abs=1e-9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"edges": ["input->a7.h0<q>"]},
            r"'input->a7\.h0<q>' is not an edge of a model with 2 layers",
        ),
        ({"nodes": ["a7.h0"]}, r"'a7\.h0' is no node of a model with 2 layers, 4 heads and 4"),
        ({"nodes": ["logits"]}, "'logits' writes nothing"),
    ],
)
def test_what_cannot_be_patched_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        patch_effects(
            prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), metric()), **asked
        )


def test_a_prompt_whose_metric_is_not_finite_is_named() -> None:
    def broken(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        values = logits[:, 0]
        return torch.where(index == 1, values / 0, values)

    with pytest.raises(NonFiniteScores, match="prompt 1 "):
        patch_effects(
            prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), broken), nodes=["m0"]
        )
