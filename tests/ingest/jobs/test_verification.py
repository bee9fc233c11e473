"""Verifying measures what attribution estimates, on the circuit's own model and prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingest import models
from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.jobs import FinishedRun, run_job
from ingest.jobs.answering import PromptTensors, as_tensors
from ingest.jobs.verification import (
    JOB,
    MEASURE,
    VerificationConfiguration,
)
from ingest.tasks.prompts import read_kept
from registry import Registry
from registry.cli.main import main
from registry.errors import BadInput, IncompatibleModel, NotFound
from registry.ledger.base import Batch
from registry.records import Ablation, Circuit, Edge, Evaluation, Level, Node, RunStatus, Sign
from tests.ingest.jobs.discovering import PAIR, discover, write_prompts
from tests.ingest.jobs.test_base import StopsWhile


def _verify(registry: Registry, circuit: str, **told: Any) -> FinishedRun:
    told = {"device": "cpu", "top": 3, **told}
    return run_job(JOB, VerificationConfiguration(circuit=circuit, **told), registry)


def _evaluations(registry: Registry, circuit: str) -> dict[str, Evaluation]:
    return {
        each.parameters["of"]: each
        for each in registry.ledger.evaluations(circuit)
        if each.measure == MEASURE
    }


def _prompts(registry: Registry, prompt_set: str | None) -> PromptTensors:
    return as_tensors(read_kept(registry.artifact(prompt_set or "")))


@pytest.mark.seconds
class TestEffects:
    @pytest.mark.parametrize("options", [{}, {"ablation": "mean"}, {"ablation": "zero"}], ids=str)
    @pytest.mark.parametrize("kv_heads", ["grouped", "per-query-head"])
    def test_each_is_what_a_circuit_without_that_edge_loses(
        self, registry: Registry, tiny_model: Path, options: dict[str, Any], kv_heads: str
    ) -> None:
        found = discover(registry, tiny_model, kv_heads=kv_heads, **options)
        circuit = registry.circuit(found.finding.summary["circuit"]).circuit
        outcome = _verify(registry, circuit.id)
        stored = _evaluations(registry, circuit.id)["edges"]
        prompts = _prompts(registry, circuit.prompt_set)
        bridge = models.load(str(tiny_model), device="cpu")
        told: dict[str, Any] = {
            "attention_mask": prompts.attention_mask, "kv_heads": kv_heads, **options
        }  # fmt: skip
        if options.get("ablation") == "mean":
            told |= {"reference": prompts.clean, "reference_mask": prompts.attention_mask}
        given = (prompts.clean, prompts.corrupt, prompts.logit_difference)
        every = attribute_edges(prepare_setting(bridge, *given, **told)).to_dict()
        assert len(stored.parameters["effects"]) == 3
        for row in stored.parameters["effects"]:
            rest = [edge for edge in every if edge != row["part"]]
            measured = evaluate_circuit(prepare_setting(bridge, *given, **told), rest)
            lost = float((measured.full - measured.circuit).mean())
            assert row["exact"] == pytest.approx(lost, abs=1e-5)
            assert row["attributed"] == pytest.approx(every[row["part"]], abs=1e-5)
        assert outcome.finding.summary["edges"] == stored.parameters["effects"]

    def test_the_strongest_are_patched_and_their_rank_correlation_is_stored(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        circuit = registry.circuit(
            discover(registry, tiny_model).finding.summary["circuit"]
        ).circuit
        outcome = _verify(registry, circuit.id[:10], top=5)
        stored = _evaluations(registry, circuit.id)
        assert set(stored) == {"edges", "nodes"}
        strongest = sorted(circuit.edges, key=lambda edge: edge.rank or 0)[:5]
        parts = [row["part"] for row in stored["edges"].parameters["effects"]]
        assert parts == [edge.connection for edge in strongest]
        nodes = sorted((n for n in circuit.nodes if n.rank), key=lambda node: node.rank or 0)[:5]
        parts = [row["part"] for row in stored["nodes"].parameters["effects"]]
        assert parts == [node.component for node in nodes]
        for of, evaluation in stored.items():
            rows = evaluation.parameters["effects"]
            by_exact = sorted(rows, key=lambda row: -row["exact"])
            by_attributed = sorted(rows, key=lambda row: -row["attributed"])
            moved = sum((by_exact.index(row) - by_attributed.index(row)) ** 2 for row in rows)
            expected = 1 - 6 * moved / (5 * (5**2 - 1))  # Spearman's, where there are no ties
            assert evaluation.value == pytest.approx(expected)
            assert evaluation.parameters["n"] == 5
            assert outcome.finding.summary["rank_correlation"][of] == evaluation.value
            assert (evaluation.n_prompts, evaluation.ablation) == (8, Ablation.RESAMPLE)
        run = registry.ledger.runs()[0]
        assert (run.job, run.status) == ("verification", RunStatus.FINISHED)
        assert {evaluation.run for evaluation in stored.values()} == {run.id}
        _verify(registry, circuit.id, top=5)
        assert len(_evaluations(registry, circuit.id)) == 2  # the same again adds none

    def test_exact_scores_are_verified_as_they_are(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        found = discover(registry, tiny_model, method="exact").finding.summary["circuit"]
        _verify(registry, found, top=10)
        edges = _evaluations(registry, found)["edges"]
        assert edges.value == pytest.approx(1.0)
        for row in edges.parameters["effects"]:
            assert row["exact"] == pytest.approx(row["attributed"], abs=1e-5)

    def test_a_reference_file_is_read_from_the_registry(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        file = write_prompts(tmp_path, PAIR.format("Van", "Hat", "May", "June"))
        found = discover(
            registry, tiny_model, method="exact", ablation="mean", reference=file
        ).finding.summary["circuit"]
        file.unlink()
        _verify(registry, found, top=10)
        for row in _evaluations(registry, found)["edges"].parameters["effects"]:
            assert row["exact"] == pytest.approx(row["attributed"], abs=1e-5)

    def test_ctrl_c_leaves_no_evaluations(self, registry: Registry, tiny_model: Path) -> None:
        found = discover(registry, tiny_model).finding.summary["circuit"]
        told = VerificationConfiguration(circuit=found, device="cpu", top=2)
        with pytest.raises(KeyboardInterrupt):
            run_job(
                JOB,
                told,
                registry,
                progress=StopsWhile("patching 4 edges and nodes of sequence/months"),
            )
        assert registry.ledger.runs()[0].status is RunStatus.INTERRUPTED
        assert _evaluations(registry, found) == {}


@pytest.mark.seconds
class TestRefusals:
    def test_a_model_with_other_weights_is_refused(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        found = discover(registry, tiny_model).finding.summary["circuit"]
        other = Path(shutil.copytree(tiny_model, tmp_path / "tiny-words"))
        with pytest.raises(NotFound, match="gone"):
            _verify(registry, found, model="./gone")
        _verify(registry, found, model=str(other))  # elsewhere, but the same
        _change_weights(other)
        with pytest.raises(
            IncompatibleModel, match=r"is not the model tiny-words .* other weights"
        ):
            _verify(registry, found, model=str(other))

    def test_a_consensus_of_seeds_has_no_prompts_of_its_own(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        found = discover(registry, tiny_model, task="ioi", seeds=2).finding.summary["circuit"]
        with pytest.raises(BadInput, match="not found on one set of prompts") as caught:
            _verify(registry, found)
        assert "\n" not in str(caught.value)

    def test_a_consensus_of_resamples_is_verified(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        found = discover(registry, tiny_model, task="ioi", bootstrap=3).finding.summary["circuit"]
        _verify(registry, found)
        assert set(_evaluations(registry, found)) == {"edges", "nodes"}


def _change_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.01
    save_file(weights, path, {"format": "pt"})


def _stored(registry: Registry, **changes: Any) -> str:
    """Record a circuit that somebody else made."""
    circuit = Circuit(
        **{
            "model": "m",
            "task": "t",
            "method": "by hand",
            "metric": "logit_difference",
            "ablation": Ablation.RESAMPLE,
            "sign": Sign.HELPS_POSITIVE,
            "level": Level.EDGE,
            "nodes": (Node(component="m0", effect=1.0), Node(component="logits")),
            "edges": (Edge(source="m0", target="logits", effect=1.0),),
            **changes,
        }
    )
    registry.record(Batch.of(circuit))
    return circuit.id


def test_a_mean_over_unknown_prompts_cannot_be_taken_again(
    registry: Registry, tiny_model: Path
) -> None:
    found = discover(registry, tiny_model, ablation="mean").finding.summary["circuit"]
    known = registry.circuit(found).circuit.model_dump(exclude={"id"})
    known["parameters"].pop("reference")
    circuit = Circuit.model_validate(known)
    registry.record(Batch.of(circuit))
    with pytest.raises(BadInput, match="does not give the prompts for its ablation's mean"):
        _verify(registry, circuit.id)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "was not found on one set of prompts"),
        ({"metric": "probability"}, "was measured by probability; only logit_difference"),
        ({"metric": None}, "was measured by an unknown metric"),
        ({"ablation": Ablation.OTHER}, "is other; only resample, mean, zero can be repeated"),
        ({"ablation": None}, "is unknown; only resample"),
        ({"sign": Sign.UNSIGNED}, "the signs of circuit .* are unsigned"),
        ({"level": Level.FEATURE}, "has features"),
        (
            {"nodes": (Node(component="m0", position="END", effect=1.0),), "edges": ()},
            "is bound to token positions",
        ),
        ({"nodes": (Node(component="m0"),), "edges": ()}, "has no effects"),
    ],
)
def test_a_circuit_that_cannot_be_measured_again_is_refused_in_one_line(
    registry: Registry,
    changes: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    circuit = _stored(registry, **changes)
    with pytest.raises(BadInput, match=message) as caught:
        _verify(registry, circuit)
    assert registry.ledger.runs() == ()
    assert main(["--home", str(registry.settings.home), "verify", circuit[:12]]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"error: {caught.value}\n")


@pytest.mark.seconds
def test_the_command_shows_attributed_beside_exact(
    registry: Registry, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = discover(registry, tiny_model).finding.summary["circuit"]
    command = ["--home", str(registry.settings.home), "verify", found[:12], "--top", "4"]
    assert main([*command, "--device", "cpu", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [len(shown[of]) for of in ("edges", "nodes")] == [4, 4]
    assert set(shown["edges"][0]) == {"edge", "attributed", "exact"}
    assert set(shown["nodes"][0]) == {"node", "attributed", "exact"}
    stored = _evaluations(registry, found)
    assert shown["rank correlation"] == {of: stored[of].value for of in ("edges", "nodes")}
    assert main([*command, "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    assert "attributed" in table
    assert "rank correlation" in table


def test_an_unknown_circuit_is_named(registry: Registry) -> None:
    with pytest.raises(NotFound, match="no circuit 'abcd'"):
        _verify(registry, "abcd")
