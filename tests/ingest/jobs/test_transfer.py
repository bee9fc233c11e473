"""Circuits measured on the prompts of another task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ingest import models
from ingest.discovery import Part, ablate_parts, evaluate_circuit, prepare_setting
from ingest.discovery.model.anatomy import read_anatomy
from ingest.exchange.importing import import_files
from ingest.jobs import FinishedRun, run_job
from ingest.jobs.answering import PromptTensors, as_tensors
from ingest.jobs.transfer.job import JOB, TransferConfiguration
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
from tests.ingest.formats.pyvene_folders import config, rotated, saved, state_of
from tests.ingest.jobs.discovering import PAIR, discover, write_prompts

OTHER = "sequence/numerals"


def _find(registry: Registry, model: Path, **told: Any) -> Circuit:
    return registry.circuit(discover(registry, model, **told).finding.summary["circuit"]).circuit


def _measure(registry: Registry, *circuits: str, **told: Any) -> FinishedRun:
    told = {"device": "cpu", **told}
    return run_job(JOB, TransferConfiguration(circuits=circuits, **told), registry)


def _measured_on(registry: Registry, circuit: Circuit, task: str) -> dict[str, Evaluation]:
    on_task = [each for each in registry.ledger.evaluations(circuit.id) if each.task == task]
    by_measure = {each.measure: each for each in on_task}
    assert len(by_measure) == len(on_task)
    return by_measure


def _prompts(registry: Registry, prompt_set: str | None) -> PromptTensors:
    return as_tensors(read_kept(registry.artifact(prompt_set or "")))


def _parts_like(circuit: Circuit, level: Level, names: list[str]) -> Circuit:
    """A circuit of parts without edges, of a found one's model and found as it was."""
    facts = circuit.model_dump() | {"level": level, "edges": (), "scores": None}
    nodes = tuple(Node(component=name) for name in names)
    return Circuit(**facts | {"nodes": nodes, "selection": None})


def _all_parts(universe: dict[str, int]) -> list[str]:
    """Names of all parts of the tiny model's two blocks that a universe counts."""
    each = {
        "heads": [f"a{layer}.h{head}" for layer in range(2) for head in range(4)],
        "kv_heads": [f"a{layer}.kv{head}" for layer in range(2) for head in range(2)],
        "mlps": ["m0", "m1"] if universe.get("mlps") == 2 else ["m0"],
        "neurons of m0": [f"m0.n{index}" for index in range(48)],
        "neurons of m1": [f"m1.n{index}" for index in range(48)],
        "ln1": ["l0.ln1", "l1.ln1"],
        "ln2": ["l0.ln2", "l1.ln2"],
        "ln_final": ["ln_final"],
    }
    assert {kind: len(each[kind]) for kind in universe} == universe
    return [name for kind in universe for name in each[kind]]


def _prompt_sets(registry: Registry) -> set[str]:
    return {known.id for known in registry.ledger.prompt_sets()}


@pytest.mark.seconds
class TestMeasuring:
    @pytest.mark.parametrize("kv_heads", ["grouped", "per-query-head"])
    @pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
    def test_faithfulness_is_that_of_the_circuit_on_the_other_tasks_prompts(
        self, registry: Registry, tiny_model: Path, ablation: Any, kv_heads: str
    ) -> None:
        circuit = _find(registry, tiny_model, ablation=ablation, kv_heads=kv_heads)
        other = _find(registry, tiny_model, task=OTHER)
        outcome = _measure(registry, circuit.id, task=OTHER)
        prompts = _prompts(registry, other.prompt_set)
        options: dict[str, Any] = {"attention_mask": prompts.attention_mask, "kv_heads": kv_heads}
        if ablation == "mean":
            options |= {"reference": prompts.clean, "reference_mask": prompts.attention_mask}
        expected = evaluate_circuit(
            prepare_setting(
                models.load(str(tiny_model), device="cpu"),
                prompts.clean,
                prompts.corrupt,
                prompts.logit_difference,
                ablation=ablation,
                **options,
            ),
            [edge.connection for edge in circuit.edges],
        )
        (stored,) = _measured_on(registry, circuit, OTHER).values()
        assert stored.value == pytest.approx(expected.faithfulness, abs=1e-5)
        assert stored.full == pytest.approx(float(expected.full.mean()), abs=1e-5)
        assert stored.empty == pytest.approx(float(expected.empty.mean()), abs=1e-5)
        assert (stored.prompt_set, stored.n_prompts) == (other.prompt_set, 8)
        assert (stored.measure, stored.ablation) == ("faithfulness", Ablation(ablation))
        assert stored.parameters == {"metric": "logit_difference"}
        assert stored.run == outcome.run.id
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

    def test_a_circuit_of_nodes_is_measured_with_every_other_head_and_mlp_ablated(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        of_edges = _find(registry, tiny_model)
        other = _find(registry, tiny_model, task=OTHER)
        named = [n for n in of_edges.nodes if n.component[0] in "am" and ".kv" not in n.component]
        facts = of_edges.model_dump() | {"level": Level.NODE, "edges": (), "scores": None}
        alone = Circuit(**facts | {"nodes": tuple(named), "selection": None})
        registry.record(alone)
        rows = _measure(registry, alone.id, of_edges.id, task=OTHER).finding.rows
        assert {row["circuit"] for row in rows} == {alone.id, of_edges.id}
        prompts = _prompts(registry, other.prompt_set)
        bridge = models.load(str(tiny_model), device="cpu")
        space = read_anatomy(bridge, "grouped").space
        expected = evaluate_circuit(
            prepare_setting(
                bridge,
                prompts.clean,
                prompts.corrupt,
                prompts.logit_difference,
                attention_mask=prompts.attention_mask,
            ),
            space.edges_from(["input", *(node.component for node in named)]),
        )
        (stored,) = _measured_on(registry, alone, OTHER).values()
        assert stored.value == pytest.approx(expected.faithfulness, abs=1e-5)
        assert stored.parameters == {
            "metric": "logit_difference",
            "ablated": "nodes",
            "universe": {"heads": 8, "mlps": 2},
        }
        (theirs,) = _measured_on(registry, of_edges, OTHER).values()
        assert (stored.full, stored.empty) == (theirs.full, theirs.empty)
        assert stored.value != pytest.approx(theirs.value, abs=1e-3)
        again = _measure(registry, alone.id, prompt_set=stored.prompt_set)
        assert again.finding.summary["faithfulness"] == pytest.approx(stored.value, abs=1e-6)
        assert len(_measured_on(registry, alone, OTHER)) == 1

    @pytest.mark.parametrize(
        ("level", "names", "universe"),
        [
            (Level.NODE, ["a0.h1", "a1.h2", "m0"], {"heads": 8, "mlps": 2}),
            (
                Level.NODE,
                ["a0.h1", "a0.kv0", "a1.h2", "a1.kv1", "m0", "input", "logits"],
                {"heads": 8, "kv_heads": 4, "mlps": 2},
            ),
            (Level.NEURON, ["m0.n3", "m0.n40", "m0.n7"], {"neurons of m0": 48}),
            (
                Level.NEURON,
                ["m1.n3", "m1.n9", "a0.h1", "m0"],
                {"heads": 8, "mlps": 1, "neurons of m1": 48},
            ),
            (Level.PARAMETER, ["l1.ln1", "l0.ln2", "unembed"], {"ln1": 2, "ln2": 2}),
            (Level.PARAMETER, ["l1.ln1", "ln_final"], {"ln1": 2, "ln_final": 1}),
        ],
    )
    def test_a_circuit_of_parts_is_measured_with_every_part_outside_it_ablated(
        self,
        registry: Registry,
        tiny_model: Path,
        level: Level,
        names: list[str],
        universe: dict[str, int],
    ) -> None:
        other = _find(registry, tiny_model, task=OTHER)
        circuit = _parts_like(other, level, names)
        registry.record(circuit)
        told: dict[str, Any] = {"prompt_set": other.prompt_set, "controls": 3, "seed": 1}
        summary = _measure(registry, circuit.id, **told).finding.summary
        ends = {"input", "logits", "unembed"}
        prompts = _prompts(registry, other.prompt_set)
        setting = prepare_setting(
            models.load(str(tiny_model), device="cpu"),
            prompts.clean,
            prompts.corrupt,
            prompts.logit_difference,
            attention_mask=prompts.attention_mask,
        )
        every = _all_parts(universe)
        outside = [part for part in every if part not in names]
        found = ablate_parts(setting, [outside, every])
        assert len(outside) == len(every) - len(set(names) - ends)
        kept, empty = (float(each.mean()) for each in found.ablated)
        full = float(found.full.mean())
        if level is Level.NODE:  # as circuits with edges
            empty = float(setting.ends.empty.mean())
        stored = _measured_on(registry, circuit, OTHER)
        assert set(stored) == {"faithfulness", "random_faithfulness"}
        assert stored["faithfulness"].value == pytest.approx(
            (kept - empty) / (full - empty), abs=1e-4
        )
        for each in stored.values():
            assert each.parameters["ablated"] == f"{level}s"
            assert each.parameters["universe"] == universe
            assert (each.full, each.empty) == pytest.approx((full, empty), abs=1e-5)
        control = stored["random_faithfulness"]
        assert (control.parameters["circuits"], control.parameters["seed"]) == (3, 1)
        assert 0 <= control.parameters["mean_share_of_parts_kept"] <= 1
        assert control.value == control.parameters["deciles"][4]
        assert summary["random_faithfulness"] == control.value
        _measure(registry, circuit.id, **told)
        assert len(_measured_on(registry, circuit, OTHER)) == 2

    def test_subspaces_imported_with_their_rotation_are_measured_at_their_place(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        other = _find(registry, tiny_model, task=OTHER)
        state, rotation = rotated(32, 6)
        row = {"layer": 0, "low_rank_dimension": 6, "subspace_partition": [[0, 4], [4, 6]]}
        key = "layer_0_comp_block_output_unit_pos_nunit_1#0"
        folder = saved(tmp_path / "das", config([row]), {key: state_of(32, state)})
        said = {"model": other.model, "task": OTHER, "metric": "logit_difference"}
        (report,) = import_files(registry, [folder], said | {"ablation": "resample"})
        whole = registry.circuit(report.circuits[0]).circuit
        facts = whole.model_dump() | {"nodes": (Node(component=whole.nodes[1].component),)}
        part = Circuit(**facts)
        registry.record(part)
        told: dict[str, Any] = {"prompt_set": other.prompt_set, "controls": 3}
        _measure(registry, whole.id, part.id, **told)
        prompts = _prompts(registry, other.prompt_set)
        setting = prepare_setting(
            models.load(str(tiny_model), device="cpu"),
            prompts.clean,
            prompts.corrupt,
            prompts.logit_difference,
            attention_mask=prompts.attention_mask,
        )
        complete = torch.linalg.qr(rotation.double(), mode="complete").Q
        for circuit, kept in ((whole, range(6)), (part, range(4, 6))):
            rest = [column for column in range(32) if column not in kept]
            outside = Part("l0.resid_post", None, complete[:, rest])
            found = ablate_parts(setting, [[outside], ["l0.resid_post"]])
            left, empty = (float(each.mean()) for each in found.ablated)
            stored = _measured_on(registry, circuit, OTHER)
            assert set(stored) == {"faithfulness", "random_faithfulness"}
            assert stored["faithfulness"].value == pytest.approx(
                (left - empty) / (float(found.full.mean()) - empty), abs=1e-4
            )
            for each in stored.values():
                assert each.parameters["ablated"] == "subspaces"
                assert each.parameters["universe"] == {"directions of l0.resid_post": 32}
            share = stored["random_faithfulness"].parameters["mean_share_of_parts_kept"]
            assert 0 < share < 1

    def test_circuits_of_several_levels_are_measured_together_as_each_alone(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        of_edges = _find(registry, tiny_model)
        _find(registry, tiny_model, task=OTHER)
        finer = [
            _parts_like(of_edges, Level.NODE, ["a0.h1", "a1.h2", "m0"]),
            _parts_like(of_edges, Level.NEURON, ["m0.n3", "m1.n4"]),
            _parts_like(of_edges, Level.PARAMETER, ["l1.ln1"]),
        ]
        registry.record(Batch.of(*finer))
        every = sorted([of_edges.id, *(circuit.id for circuit in finer)])
        rows = _measure(registry, ",".join(every), task=OTHER, controls=2).finding.rows
        assert [row["circuit"] for row in rows] == every
        for row in rows:
            alone = _measure(registry, row["circuit"], task=OTHER, controls=2).finding.summary
            for name in ("faithfulness", "random_faithfulness"):
                assert row[name] == pytest.approx(alone[name], abs=1e-5)

    def test_a_part_that_the_model_lacks_is_named(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = _parts_like(_find(registry, tiny_model), Level.PARAMETER, ["l0.q_norm"])
        registry.record(circuit)
        with pytest.raises(BadInput, match=r"this model has no l0\.q_norm: its attention has no"):
            _measure(registry, circuit.id, task=circuit.task)

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
            prepare_setting(
                models.load(str(tiny_model), device="cpu"),
                prompts.clean,
                None,
                prompts.logit_difference,
                ablation="mean",
                reference=reference.clean,
                reference_mask=reference.attention_mask,
                attention_mask=prompts.attention_mask,
            ),
            [edge.connection for edge in circuit.edges],
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


@pytest.mark.seconds
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

    def test_kept_prompts_are_taken_of_a_task_whose_package_is_gone(
        self,
        registry: Registry,
        tiny_model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "gone_task.py").write_text(
            "from dataclasses import replace\n"
            "from ingest.tasks.sequence import SEQUENCES\n"
            "TASK = replace(SEQUENCES[0], slug='gone/numerals')\n"
        )
        info = tmp_path / "gone-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: gone\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[circuits.tasks]\ngone = gone_task:TASK\n")
        with monkeypatch.context() as installed:
            installed.syspath_prepend(str(tmp_path))
            sets = {n: _find(registry, tiny_model, task="gone/numerals", seed=n) for n in (0, 3)}
        circuit = _find(registry, tiny_model)
        for seed, other in sets.items():
            measured = _measure(registry, circuit.id, task="gone/numerals", seed=seed)
            assert measured.finding.summary["prompt_set"] == other.prompt_set
        with pytest.raises(NotFound, match=r"no task 'gone/numerals'; .*prompts with --prompt-set"):
            _measure(registry, circuit.id, task="gone/numerals", seed=1)

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
            ({"level": Level.FEATURE}, "has features"),
            ({"level": Level.FEATURE, "edges": ()}, "has features, and the dictionary"),
            ({"level": Level.SUBSPACE, "edges": ()}, "has no edges, and names no subspace to keep"),
            (
                {
                    "edges": (),
                    "level": Level.SUBSPACE,
                    "nodes": (Node(component="l0.resid_post#das[0]"),),
                },
                r"names l0.resid_post#das\[0\], and which directions that has is not recorded",
            ),
            (
                {
                    "edges": (),
                    "level": Level.SUBSPACE,
                    "nodes": (Node(component=f"m0#pyvene-{'a' * 12}[0]"),),
                    "parameters": {"interventions": [{"rotation": "a" * 64}, 3]},
                },
                r"names m0#pyvene-a+\[0\], and which directions that has is not recorded",
            ),
            ({"level": Level.PARAMETER, "edges": ()}, "has no edges, and names no norm to keep"),
            ({"level": Level.NEURON, "edges": ()}, "has no edges, and names no neuron to keep"),
            ({"level": Level.NEURON}, "has edges between neurons; edges are ablated between"),
            ({"edges": ()}, "has no edges, and names no head or MLP to keep"),
            (
                {
                    "edges": (),
                    "level": Level.NODE,
                    "nodes": (Node(component="a0.kv0"), Node(component="input")),
                },
                "has no edges, and names no head or MLP to keep",
            ),
            (
                {
                    "edges": (),
                    "level": Level.NODE,
                    "nodes": (Node(component="a0.h0"), Node(component="l0.ln1")),
                },
                "has no edges and names l0.ln1; in circuits of nodes, only heads, MLPs",
            ),
            (
                {
                    "edges": (),
                    "level": Level.NEURON,
                    "nodes": (Node(component="m0.n1"), Node(component="l0.resid_post#sae[3]")),
                },
                r"has no edges and names l0.resid_post#sae\[3\]; in circuits of neurons",
            ),
            (
                {
                    "edges": (),
                    "level": Level.PARAMETER,
                    "nodes": (Node(component="l0.ln1"), Node(component="m1")),
                },
                "has no edges and names m1; in circuits of parameters, only norms can be kept",
            ),
            (
                {
                    "edges": (),
                    "level": Level.PARAMETER,
                    "nodes": (Node(component="l0.ln1", density=0.25),),
                },
                "keeps 25 % of the weights of l0.ln1, and which is not recorded",
            ),
            (
                {
                    "edges": (),
                    "level": Level.NODE,
                    "nodes": (Node(component="m0", position="END"),),
                },
                "is bound to token positions",
            ),
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
        with pytest.raises(BadInput, match="the location of the model m is unknown"):
            _measure(registry, circuit.id, task="ioi")

    @pytest.mark.parametrize(
        ("told", "kind", "text"),
        [
            ({"task": "iou"}, NotFound, "did you mean 'ioi'"),
            ({"prompt_set": "ffff"}, NotFound, "no prompt set 'ffff'"),
            ({"prompt_set": "00"}, BadInput, "2 prompt sets start with '00'"),
            ({"prompt_set": f"{2:064x}"}, BadInput, "is of other, but the circuits"),
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
            ({"prompt_set": "00", "prompts": 8}, "omit the number"),
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

    @pytest.mark.seconds
    def test_another_model_than_the_circuits_is_refused(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        from tests.ingest.tiny_models import llama, save

        circuit = _find(registry, tiny_model)
        elsewhere = save(tmp_path / "tiny-words", llama())
        with pytest.raises(IncompatibleModel, match="is not the model tiny-words"):
            _measure(registry, circuit.id, task=circuit.task, model=elsewhere)


@pytest.mark.seconds
def test_the_command_shows_a_row_for_each_circuit(
    registry: Registry, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = sorted(_find(registry, tiny_model, edges=n).id for n in (20, 40))
    given = ",".join(circuit[:12] for circuit in both)
    command = ["discover", "transfer", "--circuit", given, "--task", OTHER, "--prompts", "8",
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
