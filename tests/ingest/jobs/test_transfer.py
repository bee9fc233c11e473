"""Circuits measured on the prompts of another task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ingest import models
from ingest.discovery import evaluate_circuit
from ingest.jobs import Outcome, run_job
from ingest.jobs.answering import PromptTensors, as_tensors
from ingest.jobs.transfer import JOB, TransferConfiguration
from ingest.tasks.prompts import read_kept
from registry import Registry
from registry.cli.main import main
from registry.errors import BadInput, IncompatibleModel, NotFound, TooFewPrompts
from registry.ledger.base import Batch
from registry.records import (
    Ablation,
    Circuit,
    Edge,
    Evaluation,
    Level,
    Model,
    Node,
    PromptSet,
    RunStatus,
    Sign,
)
from tests.ingest.jobs.discovering import PAIR, discover, write_prompts

OTHER = "sequence/numerals"


def _find(registry: Registry, model: Path, **told: Any) -> Circuit:
    return registry.circuit(discover(registry, model, **told).finding.summary["circuit"]).circuit


def _measure(registry: Registry, *circuits: str, **told: Any) -> Outcome:
    told = {"device": "cpu", **told}
    return run_job(JOB, TransferConfiguration(circuits=circuits, **told), registry)


def _measured_on(registry: Registry, circuit: Circuit, task: str) -> dict[str, Evaluation]:
    on_task = [each for each in registry.ledger.evaluations(circuit.id) if each.task == task]
    by_measure = {each.measure: each for each in on_task}
    assert len(by_measure) == len(on_task)
    return by_measure


def _prompts(registry: Registry, prompt_set: str | None) -> PromptTensors:
    return as_tensors(read_kept(registry.artifact(prompt_set or "")))


def _prompt_sets(registry: Registry) -> set[str]:
    return {known.id for known in registry.ledger.prompt_sets()}


@pytest.mark.slow
class TestMeasuring:
    @pytest.mark.parametrize("kv_heads", ["grouped", "per-query-head"])
    @pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
    def test_faithfulness_is_that_of_the_circuit_on_the_other_tasks_prompts(
        self, registry: Registry, tiny_model: Path, ablation: str, kv_heads: str
    ) -> None:
        circuit = _find(registry, tiny_model, ablation=ablation, kv_heads=kv_heads)
        other = _find(registry, tiny_model, task=OTHER)
        outcome = _measure(registry, circuit.id, task=OTHER)
        prompts = _prompts(registry, other.prompt_set)
        options: dict[str, Any] = {"attention_mask": prompts.attention_mask, "kv_heads": kv_heads}
        if ablation == "mean":
            options |= {"reference": prompts.clean, "reference_mask": prompts.attention_mask}
        expected = evaluate_circuit(
            models.load(str(tiny_model), device="cpu"),
            [edge.connection for edge in circuit.edges],
            prompts.clean,
            prompts.corrupt,
            prompts.logit_difference,
            ablation=ablation,  # type: ignore[arg-type]
            **options,
        )
        (stored,) = _measured_on(registry, circuit, OTHER).values()
        assert stored.value == pytest.approx(expected.faithfulness, abs=1e-5)
        assert stored.full == pytest.approx(float(expected.full.mean()), abs=1e-5)
        assert stored.empty == pytest.approx(float(expected.empty.mean()), abs=1e-5)
        assert (stored.prompt_set, stored.n_prompts) == (other.prompt_set, 8)
        assert (stored.measure, stored.ablation) == ("faithfulness", Ablation(ablation))
        assert stored.parameters == {"metric": "logit_difference"}
        assert outcome.finding.summary == {
            "circuit": circuit.id,
            "found_on": "sequence/months",
            "task": OTHER,
            "prompt_set": other.prompt_set,
            "prompts": 8,
            "faithfulness": stored.value,
        }

    def test_circuits_measured_together_keep_what_each_keeps_alone(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        both = [_find(registry, tiny_model, edges=n).id for n in (20, 40)]
        _find(registry, tiny_model, task=OTHER)
        together = _measure(registry, *both, task=OTHER).finding.rows
        assert [row["circuit"] for row in together] == sorted(both)
        for row in together:
            alone = _measure(registry, row["circuit"], task=OTHER).finding.summary
            assert row["faithfulness"] == pytest.approx(alone["faithfulness"], abs=1e-5)
        assert together[0]["faithfulness"] != pytest.approx(together[1]["faithfulness"], abs=1e-3)

    def test_controls_are_the_random_circuits_that_attribution_draws(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = _find(registry, tiny_model, controls=4, seed=5)
        drawn = _measured_on(registry, circuit, circuit.task)["random_faithfulness"]
        outcome = _measure(registry, circuit.id, prompt_set=circuit.prompt_set, seed=5, controls=4)
        assert outcome.finding.summary["random_faithfulness"] == pytest.approx(drawn.value)
        _measure(registry, circuit.id, task=OTHER, seed=5, controls=4)
        elsewhere = _measured_on(registry, circuit, OTHER)
        assert set(elsewhere) == {"faithfulness", "random_faithfulness"}
        control = elsewhere["random_faithfulness"]
        assert set(control.parameters) == set(drawn.parameters)
        assert control.value == control.parameters["deciles"][4]
        for name in ("circuits", "seed", "mean_share_of_edges_kept", "metric"):
            assert control.parameters[name] == drawn.parameters[name]
        assert control.value != pytest.approx(drawn.value, abs=1e-3)
        assert (control.full, control.empty) == (
            elsewhere["faithfulness"].full,
            elsewhere["faithfulness"].empty,
        )

    def test_what_is_measured_again_is_not_recorded_again(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = _find(registry, tiny_model)
        told = {"prompt_set": circuit.prompt_set, "batch_size": 3}
        (known,) = registry.ledger.evaluations(circuit.id)
        assert _measure(registry, circuit.id, **told).finding.summary[
            "faithfulness"
        ] == pytest.approx(known.value, abs=1e-5)
        assert registry.ledger.evaluations(circuit.id) == (known,)
        _measure(registry, circuit.id, **told, controls=3)
        _measure(registry, circuit.id, **told, controls=3)
        assert len(registry.ledger.evaluations(circuit.id)) == 2
        _measure(registry, circuit.id, **told, controls=4)
        _measure(registry, circuit.id, **told, controls=4, seed=1)
        assert len(registry.ledger.evaluations(circuit.id)) == 4

    def test_the_mean_over_a_files_prompts_stays_the_ablation_on_another_task(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        lines = [
            PAIR.format("Van", "Hat", "March", "May"),
            PAIR.format("Key", "Box", "May", "June"),
        ]
        file = write_prompts(tmp_path, "".join(lines), "---\ntask: own/means\n---\n")
        circuit = _find(registry, tiny_model, ablation="mean", reference=file)
        reference = _prompts(registry, circuit.parameters["reference"])
        other = _find(registry, tiny_model, task=OTHER)
        _measure(registry, circuit.id, task=OTHER)
        (stored,) = _measured_on(registry, circuit, OTHER).values()
        assert stored.parameters["reference"] == circuit.parameters["reference"]
        prompts = _prompts(registry, other.prompt_set)
        expected = evaluate_circuit(
            models.load(str(tiny_model), device="cpu"),
            [edge.connection for edge in circuit.edges],
            prompts.clean,
            None,
            prompts.logit_difference,
            ablation="mean",
            reference=reference.clean,
            reference_mask=reference.attention_mask,
            attention_mask=prompts.attention_mask,
        )
        assert stored.value == pytest.approx(expected.faithfulness, abs=1e-5)
        own = _find(registry, tiny_model, ablation="mean")
        with pytest.raises(BadInput, match="differ in prompts of the ablation's mean"):
            _measure(registry, circuit.id, own.id, task=OTHER)

    def test_the_run_is_told_whole_ids_in_one_order(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        one, other = (_find(registry, tiny_model, edges=n).id for n in (20, 40))
        told = [
            _measure(registry, *given, task=OTHER).run
            for given in ((one[:9], other[:10]), (other, one, other[:12]))
        ]
        assert told[0].configuration["circuits"] == sorted((one, other))
        assert told[0].configuration_sha256 == told[1].configuration_sha256
        first, second = registry.ledger.runs()[:2]
        assert first.configuration_sha256 == second.configuration_sha256

    def test_a_consensus_can_be_measured_too(self, registry: Registry, tiny_model: Path) -> None:
        consensus = _find(registry, tiny_model, seeds=2, share="50%")
        assert consensus.prompt_set is None
        _measure(registry, consensus.id, task=OTHER)
        assert set(_measured_on(registry, consensus, OTHER)) == {"faithfulness"}


@pytest.mark.slow
class TestPrompts:
    def test_kept_prompts_of_the_seed_are_taken_again(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = _find(registry, tiny_model)
        sets = {seed: _find(registry, tiny_model, task=OTHER, seed=seed) for seed in (0, 1)}
        before = _prompt_sets(registry)
        for seed, other in sets.items():
            measured = _measure(registry, circuit.id, task=OTHER, seed=seed).finding.summary
            assert measured["prompt_set"] == other.prompt_set
        assert _prompt_sets(registry) == before

    def test_of_several_sets_the_one_asked_for_or_the_largest_is_taken(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = _find(registry, tiny_model)
        sets = {n: _find(registry, tiny_model, task=OTHER, prompts=n) for n in (8, 10, 9)}
        for asked, n in ((None, 10), (8, 8)):
            measured = _measure(registry, circuit.id, task=OTHER, prompts=asked).finding.summary
            assert (measured["prompts"], measured["prompt_set"]) == (n, sets[n].prompt_set)
        with_bos = _find(registry, tiny_model, task=OTHER, prompts=12, bos=True)
        measured = _measure(registry, circuit.id, task=OTHER, bos=True).finding.summary
        assert measured["prompt_set"] == with_bos.prompt_set

    def test_where_none_are_kept_they_are_drawn_as_attribution_draws_them(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = _find(registry, tiny_model, bos=True)
        drawn = _measure(registry, circuit.id, task=OTHER, seed=4, prompts=8).finding.summary
        (stored,) = registry.ledger.prompt_sets(OTHER)
        assert (stored.id, stored.seed, stored.n_prompts) == (drawn["prompt_set"], 4, 8)
        # As the circuit's own prompts.
        assert stored.bos is True
        assert len(read_kept(registry.artifact(stored.id))) == 8
        assert OTHER in {task.slug for task in registry.ledger.tasks()}
        found = _find(registry, tiny_model, task=OTHER, seed=4, bos=True)
        assert found.prompt_set == stored.id

    def test_a_users_own_task_is_measured_on_by_its_kept_prompts(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        lines = [PAIR.format(a, b, "May", "June") for a, b in (("Van", "Hat"), ("Key", "Box"))]
        lines += [PAIR.format(a, b, "June", "May") for a, b in (("Van", "Hat"), ("Key", "Box"))]
        file = write_prompts(tmp_path, "".join(lines))
        own = _find(registry, tiny_model, task=None, prompts=None, file=file, min_prompts=1)
        circuit = _find(registry, tiny_model)
        measured = _measure(registry, circuit.id, task="own/test").finding.summary
        assert measured["prompt_set"] == own.prompt_set

    def test_too_few_prompts_fail_the_run_and_leave_nothing(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = _find(registry, tiny_model)
        with pytest.raises(TooFewPrompts, match="at least 3000 are needed"):
            _measure(registry, circuit.id, task="capitals", prompts=3000, min_prompts=3000)
        run = registry.ledger.runs()[0]
        assert (run.job, run.status) == ("transfer", RunStatus.FAILED)
        assert registry.ledger.prompt_sets("capitals") == ()


def _circuit(**told: Any) -> Circuit:
    """A circuit that could be measured but for what is told."""
    facts: dict[str, Any] = {
        "model": "m",
        "task": "t",
        "method": "by hand",
        "metric": "logit_difference",
        "higher_is_better": True,
        "ablation": Ablation.RESAMPLE,
        "sign": Sign.HELPS_POSITIVE,
        "level": Level.EDGE,
        "nodes": (Node(component="input"), Node(component="logits")),
        "edges": (Edge(source="input", target="logits"),),
    }
    return Circuit(**(facts | told))


def _prompt_set(of: int, **told: Any) -> PromptSet:
    facts: dict[str, Any] = {"task": "t", "model": "m", "n_prompts": 8, "seed": 0}
    return PromptSet(id=f"{of:064x}", **(facts | told))


class TestRefusals:
    @pytest.mark.parametrize(
        ("facts", "text"),
        [
            ({"edges": (), "level": Level.NODE}, "has no edges"),
            ({"metric": "kl_divergence"}, "was measured by kl_divergence"),
            ({"ablation": None}, "is unknown; only resample, mean, zero"),
            ({"level": Level.FEATURE}, "is one of features"),
        ],
    )
    def test_what_cannot_be_measured_again_is_named(
        self, registry: Registry, facts: dict[str, Any], text: str
    ) -> None:
        circuit = _circuit(**facts)
        registry.record(circuit)
        with pytest.raises(BadInput, match=f"circuit {circuit.id[:12]} {text}"):
            _measure(registry, circuit.id, task="ioi")
        assert registry.ledger.runs() == ()

    @pytest.mark.parametrize(
        ("facts", "what", "values"),
        [
            ({"model": "other"}, "model", {"m", "other"}),
            ({"ablation": Ablation.ZERO}, "ablation", {"resample", "zero"}),
            ({"kv_heads": "per-query-head"}, "key/value heads", {"grouped", "per-query-head"}),
            ({"prompt_set": f"{1:064x}"}, "BOS policy", {"unknown", "True"}),
        ],
    )
    def test_circuits_that_have_no_common_run_are_named_with_what_differs(
        self, registry: Registry, facts: dict[str, Any], what: str, values: set[str]
    ) -> None:
        both = _circuit(), _circuit(**facts)
        registry.record(Batch.of(*both, _prompt_set(1, bos=True)))
        with pytest.raises(BadInput) as refused:
            _measure(registry, *(circuit.id for circuit in both), task="ioi")
        said = re.match(
            r"circuits (\w+) and (\w+) differ in (.+) \((.+) and (.+)\); measure",
            str(refused.value),
        )
        assert said is not None
        assert {*said.group(1, 2)} == {circuit.id[:12] for circuit in both}
        assert said[3] == what
        assert {*said.group(4, 5)} == values
        assert registry.ledger.runs() == ()

    def test_signs_need_not_be_known(self, registry: Registry) -> None:
        circuit = _circuit(sign=Sign.UNKNOWN)
        registry.record(circuit)
        with pytest.raises(BadInput, match="does not know where the model m is"):
            _measure(registry, circuit.id, task="ioi")

    @pytest.mark.parametrize(
        ("told", "kind", "text"),
        [
            ({"task": "iou"}, NotFound, "did you mean 'ioi'"),
            ({"prompt_set": "ffff"}, NotFound, "no prompt set 'ffff'"),
            ({"prompt_set": "00"}, BadInput, "2 prompt sets start with '00'"),
            ({"prompt_set": f"{2:064x}"}, BadInput, "holds what other answers"),
        ],
    )
    def test_wrong_prompts_are_named(
        self, registry: Registry, told: dict[str, Any], kind: type[Exception], text: str
    ) -> None:
        circuit = _circuit()
        sets = _prompt_set(1), _prompt_set(2, model="other")
        registry.record(Batch.of(circuit, Model(slug="other"), *sets))
        with pytest.raises(kind, match=text):
            _measure(registry, circuit.id, **told)
        assert registry.ledger.runs() == ()

    def test_an_unknown_circuit_is_named(self, registry: Registry) -> None:
        with pytest.raises(NotFound, match="no circuit 'abcd'"):
            _measure(registry, "abcd", task="ioi")

    @pytest.mark.parametrize(
        ("told", "text"),
        [
            ({}, "give either a task or a prompt set"),
            ({"task": "ioi", "prompt_set": "00"}, "give either a task or a prompt set"),
            ({"prompt_set": "00", "prompts": 8}, "leave the number out"),
            ({"task": "ioi", "device_map": "auto"}, "device and device_map contradict"),
            ({"task": "ioi", "controls": 0}, "greater than or equal to 1"),
        ],
    )
    def test_what_contradicts_itself_is_no_configuration(
        self, told: dict[str, Any], text: str
    ) -> None:
        with pytest.raises(ValueError, match=text):
            TransferConfiguration(circuits=("abcd",), device="cpu", **told)
        with pytest.raises(ValueError, match="at least 1 item"):
            TransferConfiguration(circuits=(), task="ioi")

    @pytest.mark.slow
    def test_another_model_than_the_circuits_is_refused(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        from tests.ingest.tiny_models import llama, save

        circuit = _find(registry, tiny_model)
        elsewhere = save(tmp_path / "tiny-words", llama())
        with pytest.raises(IncompatibleModel, match="is not the model tiny-words"):
            _measure(registry, circuit.id, task=circuit.task, model=elsewhere)


@pytest.mark.slow
def test_the_command_shows_a_row_for_each_circuit(
    registry: Registry, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = sorted(_find(registry, tiny_model, edges=n).id for n in (20, 40))
    given = [word for circuit in both for word in ("--circuit", circuit[:12])]
    command = ["discover", "transfer", *given, "--task", OTHER, "--prompts", "8",
               "--controls", "3", "--device", "cpu", "--format", "json"]  # fmt: skip
    assert main(["--home", str(registry.settings.home), *command]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["circuit"] for row in rows] == both
    for row in rows:
        measured = {
            each.measure: each.value
            for each in registry.ledger.evaluations(row["circuit"])
            if each.task == OTHER
        }
        assert {name: row[name] for name in measured} == measured
        assert len(measured) == 2
