"""What discovery returns shows itself in one short line, however large it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from ingest import discovery
from ingest.discovery import (
    LogitDifference,
    Part,
    attribute_edges,
    changed_weights,
    compare_with_random,
    faithfulness_curves,
    logit_difference,
    named_weights,
    part_circuit,
    patch_effects,
    prepare_parts,
    prepare_setting,
    record_activations,
    subspace_circuit,
)
from ingest.discovery.evaluation.smallest import find_faithful
from ingest.models import wrap
from tests.ingest import tiny_models

CLEAN = ["when mary and john went", "when john and mary went"]
CORRUPT = ["when mary and mary went", "when john and john went"]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """One of every class, by its name."""
    tokenizer = tiny_models.tokenizer(prepends_bos=False)
    model = wrap(tiny_models.llama(), tokenizer=tokenizer, slug="tiny-words")
    metric = logit_difference(model, ["mary", "john"], ["john", "mary"])
    setting = prepare_setting(model, CLEAN, CORRUPT, metric)
    scores = attribute_edges(setting, method="eap-ig-inputs")
    circuit = scores.top(60)
    edges = [edge.id for edge in circuit.edges]
    curves = faithfulness_curves(setting, scores)
    compared = compare_with_random(setting, edges, n=3)
    patched = patch_effects(setting, edges=edges, nodes=["m0"])
    least = compared.found.faithfulness or 1.0
    faithful = find_faithful(
        scores.space.n_edges, abs(least) / 2, scores.top, lambda _: compared.found
    )
    ablation = prepare_parts(setting)
    heads = part_circuit(setting, ["a0.h0", "m0"])
    basis = torch.eye(model.cfg.d_model)[:, :2]
    subspaces = subspace_circuit(setting, {"l0.resid_post": [basis]})
    parts = Part("l0.resid_post", "name", basis)
    recorded = record_activations(model, CLEAN, ["m0", "l0.resid_post"])
    name, weight = next(iter(named_weights(model).items()))
    with changed_weights(model, added={name: torch.ones_like(weight)}) as changed:
        pass
    every = [
        ablation, ablation.effects([{"m0"}], metric), parts, recorded, changed,
        metric, scores, circuit, circuit.edges[0], circuit.nodes[0], curves, curves.signed,
        curves.signed.points[4], setting, setting.ends, compared, compared.found, patched, faithful,
        heads, subspaces,
    ]  # fmt: skip
    return {type(one).__name__: one for one in every}


def test_every_result_is_shown_in_a_line(results: dict[str, Any]) -> None:
    public = {name: getattr(discovery, name) for name in discovery.__all__}
    classes = {name for name, one in public.items() if dataclasses.is_dataclass(one)}
    assert classes <= set(results)
    for name, one in results.items():
        text = repr(one)
        assert name in text
        assert "\n" not in text
        assert len(text) < 200, text
        assert "tensor" not in text


def test_a_line_says_what_there_is_to_know(results: dict[str, Any]) -> None:
    scores, circuit = results["EdgeScores"], results["PrunedCircuit"]
    assert repr(scores) == (
        "<EdgeScores of 82 edges on 2 prompts by eap-ig-inputs in 5 steps, resample>"
    )
    assert repr(circuit) == (
        f"<PrunedCircuit of {len(circuit.edges)} edges and {len(circuit.nodes)} nodes, top 60 by"
        " absolute score>"
    )
    found = results["CircuitEvaluation"]
    assert repr(found).endswith(f" on 2 prompts: faithfulness {found.faithfulness:.3g}>")
    assert repr(LogitDifference(*[scores.clean_metric] * 2)) == "<LogitDifference of 2 prompts>"
