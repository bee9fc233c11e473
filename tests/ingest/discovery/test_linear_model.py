"""In an exactly linear model a first-order estimate is the effect itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.models import wrap
from tests.ingest import tiny_models
from tests.ingest.discovery.decoders import clean_ids, corrupt_ids, metric


def linear_llama() -> Any:
    """Llama without norms, with even attention, and MLPs whose gate always stands half open."""
    model = tiny_models.llama()
    model.model.norm = torch.nn.Identity()
    for block in model.model.layers:
        block.input_layernorm = block.post_attention_layernorm = torch.nn.Identity()
        block.mlp.act_fn = torch.nn.Sigmoid()
        with torch.no_grad():
            block.self_attn.q_proj.weight.zero_()
            block.mlp.gate_proj.weight.zero_()
            block.self_attn.v_proj.weight.mul_(0.5)
    return wrap(model)


def test_scores_are_the_effects_of_patching() -> None:
    model = linear_llama()
    scores = attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), metric()))
    found = scores.to_dict()
    full = float(scores.clean_metric.mean())
    largest = max(map(abs, found.values()))
    for edge in list(found)[::5]:
        others = evaluate_circuit(
            prepare_setting(model, clean_ids(), corrupt_ids(), metric()), found.keys() - {edge}
        )
        effect = full - float(others.circuit.mean())
        assert found[edge] == pytest.approx(effect, abs=1e-4 * largest), edge


def test_what_reaches_the_logits_adds_up_to_the_whole_effect() -> None:
    scores = attribute_edges(prepare_setting(linear_llama(), clean_ids(), corrupt_ids(), metric()))
    assert scores.corrupt_metric is not None
    whole = float((scores.clean_metric - scores.corrupt_metric).mean())
    assert abs(whole) > 0.1
    assert float(scores.matrix[:, -1].sum()) == pytest.approx(whole, rel=1e-4)
    assert scores.node_effects()["input"] == pytest.approx(whole, rel=1e-4)


def test_queries_and_keys_do_not_matter_to_even_attention() -> None:
    found = attribute_edges(
        prepare_setting(linear_llama(), clean_ids(), corrupt_ids(), metric())
    ).to_dict()
    assert {abs(score) for edge, score in found.items() if edge.endswith("<k>")} == {0.0}
    assert any(abs(score) > 0.01 for edge, score in found.items() if edge.endswith("<v>"))
