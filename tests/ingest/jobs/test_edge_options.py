"""Every way to score, ablate, count, choose and place, from the option to the record."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ingest import models
from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.jobs.answering import as_tensors
from ingest.tasks.prompts import read_kept
from registry import Registry
from registry.errors import BadInput
from registry.records import Ablation, Circuit, Evaluation, RunStatus
from tests.ingest.jobs.discovering import PAIR, discover, only_circuit, write_prompts

pytestmark = pytest.mark.seconds

MONTHS = ["January", "March", "May", "July", "August", "October"]
METHODS = ["eap", "eap-ig-inputs", "eap-ig-activations", "clean-corrupted", "exact"]


def _effects(circuit: Circuit) -> dict[str, float]:
    return {edge.connection: edge.effect or 0.0 for edge in circuit.edges}


def _measured(registry: Registry, measure: str) -> Evaluation:
    (found,) = [each for each in registry.ledger.evaluations() if each.measure == measure]
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_circuit_says_its_method_and_has_its_scores(
    registry: Registry, tiny_model: Path, method: Any
) -> None:
    integrated = method.startswith("eap-ig")
    discover(registry, tiny_model, method=method, steps=3 if integrated else None)
    circuit = only_circuit(registry)
    assert circuit.method == "edge-attribution"
    assert circuit.parameters["method"] == method
    assert circuit.parameters.get("steps") == (3 if integrated else None)
    prompts = as_tensors(read_kept(registry.artifact(circuit.prompt_set or "")))
    scores = attribute_edges(
        prepare_setting(
            models.load(str(tiny_model), device="cpu"),
            prompts.clean,
            prompts.corrupt,
            prompts.logit_difference,
            attention_mask=prompts.attention_mask,
        ),
        method=method,
        steps=3,
    ).to_dict()
    effects = _effects(circuit)
    assert effects == pytest.approx({edge: scores[edge] for edge in effects}, abs=1e-6)


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_scores_and_faithfulness_share_their_ablation(
    registry: Registry, tiny_model: Path, ablation: Any
) -> None:
    discover(registry, tiny_model, ablation=ablation)
    circuit = only_circuit(registry)
    assert circuit.ablation is Ablation(ablation)
    assert circuit.parameters.get("reference") == (
        circuit.prompt_set if ablation == "mean" else None
    )
    prompts = as_tensors(read_kept(registry.artifact(circuit.prompt_set or "")))
    told: dict[str, Any] = {"ablation": ablation, "attention_mask": prompts.attention_mask}
    if ablation == "mean":
        told |= {"reference": prompts.clean, "reference_mask": prompts.attention_mask}
    measured = evaluate_circuit(
        prepare_setting(
            models.load(str(tiny_model), device="cpu"),
            prompts.clean,
            None,
            prompts.logit_difference,
            **told,
        ),
        _effects(circuit),
    )
    found = _measured(registry, "faithfulness")
    assert found.ablation is Ablation(ablation)
    assert found.value == pytest.approx(measured.faithfulness, rel=1e-4)


def test_a_reference_of_other_prompts_is_kept_and_named(
    registry: Registry, tiny_model: Path, tmp_path: Path
) -> None:
    lines = [PAIR.format("Van", "Hat", a, b) for a, b in pairwise(MONTHS)]
    file = write_prompts(tmp_path, "".join(lines), "---\ntask: own/means\n---\n")
    discover(registry, tiny_model, ablation="mean", reference=file)
    circuit = only_circuit(registry)
    (means,) = registry.ledger.prompt_sets("own/means")
    assert circuit.parameters["reference"] == means.id != circuit.prompt_set
    assert (means.n_prompts, means.share_correct) == (5, None)
    assert [pair.text.correct for pair in read_kept(registry.artifact(means.id))] == [
        f" {month}" for month in MONTHS[:-1]
    ]
    discover(registry, tiny_model, ablation="mean")
    assert len(registry.circuits()) == 2  # another mean, other scores


def test_key_value_heads_are_counted_as_asked_for(registry: Registry, tiny_model: Path) -> None:
    discover(registry, tiny_model, kv_heads="per-query-head", share=1.0)
    circuit = only_circuit(registry)
    assert circuit.kv_heads == "per-query-head"
    assert circuit.universe_size == 110
    assert not any(".kv" in node.component for node in circuit.nodes)
    assert any(edge.port == "k" for edge in circuit.edges)


@pytest.mark.parametrize(("share", "top"), [("50%", 41), (0.25, 20)])
def test_a_share_finds_the_circuit_of_as_many_edges(
    registry: Registry, tiny_model: Path, share: Any, top: int
) -> None:
    by_share = discover(registry, tiny_model, share=share).finding.summary["circuit"]
    by_number = discover(registry, tiny_model, edges=top).finding.summary["circuit"]
    assert by_share == by_number
    selection = only_circuit(registry).selection or {}
    assert selection == {
        "top": top, "by": "absolute", "dangling_removed": top - len(only_circuit(registry).edges)
    }  # fmt: skip


def test_a_threshold_keeps_what_scores_as_much(registry: Registry, tiny_model: Path) -> None:
    discover(registry, tiny_model, edges=82)
    effects = _effects(only_circuit(registry))
    threshold = sorted(map(abs, effects.values()))[-20]
    found = discover(registry, tiny_model, threshold=threshold).finding.summary["circuit"]
    circuit = registry.circuit(found).circuit
    assert circuit.selection is not None
    assert circuit.selection["threshold"] == threshold
    assert circuit.selection["selected"] == 20
    assert all(abs(effect) >= threshold for effect in _effects(circuit).values())


def test_a_threshold_beyond_all_scores_says_the_best(registry: Registry, tiny_model: Path) -> None:
    with pytest.raises(BadInput, match=r"no edge scores 1e\+06 or more .* the best scores"):
        discover(registry, tiny_model, threshold=1e6)
    assert registry.ledger.runs()[0].status is RunStatus.FAILED


def test_a_greedy_circuit_needs_no_pruning_at_its_end(registry: Registry, tiny_model: Path) -> None:
    discover(registry, tiny_model, choose="greedy", edges=12, select="signed")
    circuit = only_circuit(registry)
    assert circuit.selection is not None
    assert circuit.selection["greedy"] == 12
    assert circuit.selection["by"] == "signed"
    ranked = sorted(circuit.edges, key=lambda edge: edge.rank or 0)
    effects = [edge.effect or 0.0 for edge in ranked]
    assert effects == sorted(effects, reverse=True)


@pytest.mark.parametrize("choose", ["top", "greedy"])
def test_the_smallest_circuit_found_is_as_faithful_as_asked_for(
    registry: Registry, tiny_model: Path, choose: Any
) -> None:
    outcome = discover(registry, tiny_model, faithfulness=0.6, choose=choose)
    circuit, found = only_circuit(registry), _measured(registry, "faithfulness")
    selection = dict(circuit.selection or {})
    assert selection["faithfulness"] == 0.6
    assert selection["rule"] == "smallest found"
    assert found.value == outcome.finding.summary["faithfulness"] >= 0.6
    tried = dict(found.parameters["tried"])
    assert tried[selection[choose]] == found.value
    assert all(value < 0.6 for size, value in tried.items() if size < selection[choose])
    assert len(tried) > 1


def test_a_faithfulness_that_none_reaches_ends_in_one_line(
    registry: Registry, tiny_model: Path
) -> None:
    with pytest.raises(BadInput, match=r"no circuit keeps 50 of the behaviour: the best") as caught:
        discover(registry, tiny_model, faithfulness=50.0)
    assert "\n" not in str(caught.value)
    assert registry.circuits() == []


def test_curve_completeness_and_controls_are_stored_beside(
    registry: Registry, tiny_model: Path
) -> None:
    outcome = discover(registry, tiny_model, curve=True, completeness=True, controls=5)
    cpr, cmd = _measured(registry, "cpr"), _measured(registry, "cmd")
    assert (cpr.parameters["by"], cmd.parameters["by"]) == ("signed", "absolute")
    for area in (cpr, cmd):
        assert area.parameters["shares"][-1] == 1.0
        assert area.parameters["faithfulness"][-1] == pytest.approx(1.0, abs=1e-3)
    summary = outcome.finding.summary
    assert (summary["cpr"], summary["cmd"]) == (cpr.value, cmd.value)

    circuit = only_circuit(registry)
    prompts = as_tensors(read_kept(registry.artifact(circuit.prompt_set or "")))
    bridge = models.load(str(tiny_model), device="cpu")
    told = (prompts.clean, prompts.corrupt, prompts.logit_difference)
    every = attribute_edges(
        prepare_setting(bridge, *told, attention_mask=prompts.attention_mask)
    ).to_dict()
    rest = [edge for edge in every if edge not in _effects(circuit)]
    measured = evaluate_circuit(
        prepare_setting(bridge, *told, attention_mask=prompts.attention_mask), rest
    )
    assert _measured(registry, "completeness").value == pytest.approx(measured.faithfulness)

    controls = _measured(registry, "random_faithfulness")
    assert controls.parameters["circuits"] == 5
    assert controls.parameters["seed"] == 0
    deciles = controls.parameters["deciles"]
    assert deciles == sorted(deciles)
    assert controls.value == deciles[4]


def test_any_batch_size_finds_the_same_edges(registry: Registry, tiny_model: Path) -> None:
    found = []
    for size in ("auto", 1, 3):
        circuit = discover(registry, tiny_model, batch_size=size).finding.summary["circuit"]
        found.append(_effects(registry.circuit(circuit).circuit))
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-5)


def test_a_device_map_finds_what_a_device_finds(registry: Registry, tiny_model: Path) -> None:
    by_device = discover(registry, tiny_model, device="cpu")
    by_map = discover(registry, tiny_model, device_map="cpu")
    assert by_map.run.device == by_device.run.device == "cpu"
    assert by_map.finding.summary == by_device.finding.summary
    assert by_map.run.configuration["device_map"] == "cpu"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"device_map": "nowhere"}, "cannot be read: .*device"),
        ({"reference": Path("gone.jsonl"), "ablation": "mean"}, "cannot read gone.jsonl"),
        ({"edges": 111, "kv_heads": "per-query-head"}, "111 edges are requested.* has 110"),
    ],
)
def test_wrong_options_end_in_one_line_and_nothing_is_recorded(
    registry: Registry, tiny_model: Path, told: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        discover(registry, tiny_model, **told)
    assert "\n" not in str(caught.value)
    assert registry.ledger.runs() == ()
    assert registry.circuits() == []
