"""Several circuits of one task, and what they agree on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from ingest.discovery import EdgeScores, PrunedCircuit
from ingest.jobs.edge_attribution.consensus import CONSENSUS, agree, edge_frequencies
from registry import Registry
from registry.errors import BadInput
from registry.models.edge_space import EdgeSpace
from registry.records import Circuit, RunStatus
from tests.ingest.jobs.discovering import PAIR, discover, install_few_pairs, write_prompts
from tests.ingest.jobs.test_base import StopsWhile

SPACE = EdgeSpace(n_layers=1, n_heads=1, n_kv_heads=1)


def _scored(**values: float) -> EdgeScores:
    """Scores of the edges ``input->m0`` (``im``), ``m0->logits`` (``ml``), ``input->logits``."""
    names = {"im": "input->m0", "ml": "m0->logits", "il": "input->logits"}
    matrix = torch.zeros(len(SPACE.senders), len(SPACE.receivers), dtype=torch.float64)
    for name, value in values.items():
        matrix[SPACE.locate(names[name])] = value
    return EdgeScores(matrix, SPACE, torch.zeros(1), None)


def _found(n: int, **values: float) -> tuple[EdgeScores, PrunedCircuit]:
    scores = _scored(**values)
    return scores, scores.top(n)


class TestAgreement:
    SEVERAL = (
        _found(2, im=3.0, ml=2.0, il=1.0),
        _found(1, im=0.5, ml=1.0, il=-4.0),
        _found(3, im=1.0, ml=1.0, il=2.0),
        _found(1, im=0.5, ml=0.4, il=1.0),
    )

    def test_frequencies_count_the_circuits_that_an_edge_is_in(self) -> None:
        frequency = agree(self.SEVERAL, 0.5).frequency
        assert frequency[SPACE.locate("input->m0")] == 0.5
        assert frequency[SPACE.locate("m0->logits")] == 0.5
        assert frequency[SPACE.locate("input->logits")] == 0.75
        assert frequency.sum() == 1.75

    @pytest.mark.parametrize(
        ("share", "edges"),
        [
            (0.5, {"input->m0", "m0->logits", "input->logits"}),
            (0.51, {"input->logits"}),
            (0.75, {"input->logits"}),
            (0.76, set()),
        ],
    )
    def test_an_edge_belongs_if_it_is_in_that_share_of_circuits(
        self, share: float, edges: set[str]
    ) -> None:
        assert {edge.id for edge in agree(self.SEVERAL, share).chosen.edges} == edges

    def test_effects_are_mean_scores_of_all_circuits(self) -> None:
        found = agree(self.SEVERAL, 0.5)
        effects = {edge.id: edge.score for edge in found.chosen.edges}
        assert effects == {"input->m0": 1.25, "m0->logits": 1.1, "input->logits": 0.0}
        nodes = {node.id: node.effect for node in found.chosen.nodes}
        assert nodes == pytest.approx({"input": 1.25, "m0": 1.1, "logits": None})

    def test_frequent_edges_on_no_path_are_taken_out(self) -> None:
        several = (_found(2, im=3.0, ml=2.0), _found(2, im=3.0, ml=2.0), _found(1, il=1.0))
        dangling = (several[0][0], several[0][0].top(2))
        found = agree([dangling, _found(1, il=1.0)], 0.5)
        assert len(found.chosen.edges) == 3
        only_half = PrunedCircuit(dangling[1].edges[:1], dangling[1].nodes, "absolute", 1, 0)
        found = agree([(dangling[0], only_half), _found(1, il=1.0)], 0.5)
        assert [edge.id for edge in found.chosen.edges] == ["input->logits"]
        assert (found.chosen.n_selected, found.chosen.n_pruned) == (2, 1)

    def test_overlap_is_the_mean_over_pairs(self) -> None:
        # Pairs: {im, ml} {il}: 0, {im, ml} {all}: 2/3, {im, ml} {il}: 0, {il} {all}: 1/3,
        # {il} {il}: 1, {all} {il}: 1/3.
        assert agree(self.SEVERAL, 0.5).mean_overlap == pytest.approx((2 / 3 + 2 / 3 + 1) / 6)


def _by_method(registry: Registry) -> dict[str, list[Circuit]]:
    found: dict[str, list[Circuit]] = {}
    for entry in registry.circuits():
        found.setdefault(entry.method, []).append(registry.circuit(entry.id).circuit)
    return found


def _ids(circuit: Circuit) -> set[str]:
    return {edge.connection for edge in circuit.edges}


@pytest.mark.seconds
class TestSeeds:
    def test_each_seed_finds_the_circuit_that_it_finds_alone(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        alone = {
            discover(registry, tiny_model, task="ioi", seed=seed).finding.summary["circuit"]
            for seed in (4, 5, 6)
        }
        discover(registry, tiny_model, task="ioi", seed=4, seeds=3)
        found = _by_method(registry)
        assert {circuit.id for circuit in found["edge-attribution"]} == alone
        assert len(alone) == 3
        (consensus,) = found[CONSENSUS]
        assert set(consensus.parameters["of"]) == alone
        assert consensus.prompt_set is None
        assert {kept.seed for kept in registry.ledger.prompt_sets()} == {4, 5, 6}

    def test_the_consensus_has_the_edges_of_as_many_circuits(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        outcome = discover(registry, tiny_model, task="ioi", seeds=3, consensus=0.6, title="T")
        found = _by_method(registry)
        counts = Counter(edge for one in found["edge-attribution"] for edge in _ids(one))
        frequent = {edge for edge, count in counts.items() if count >= 2}
        (consensus,) = found[CONSENSUS]
        selection = consensus.selection or {}
        assert selection["frequency"] == 0.6
        assert _ids(consensus) <= frequent
        assert len(frequent) - len(_ids(consensus)) == selection["dangling_removed"]
        by_frequency = Counter(f"{counts[edge]}/3" for edge in _ids(consensus))
        assert consensus.parameters["edges_by_frequency"] == dict(by_frequency)

        frequency = edge_frequencies(registry, consensus)
        assert frequency == pytest.approx({edge: n / 3 for edge, n in counts.items()})
        with pytest.raises(BadInput, match="is no consensus, whose edges have frequencies"):
            edge_frequencies(registry, found["edge-attribution"][0])

        assert consensus.scores is not None
        path = tmp_path / "scores.safetensors"
        path.write_bytes(registry.artifact(consensus.scores))
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["circuits"])
            mean = file.get_tensor("scores")
        for link in consensus.edges:
            source, _, target = link.connection.partition("->")
            cell = about["senders"].index(source), about["receivers"].index(target)
            assert mean[cell].item() == pytest.approx(link.effect, rel=1e-5)

        assert [row["of"] for row in outcome.finding.rows] == [
            "seed 0", "seed 1", "seed 2", "consensus"
        ]  # fmt: skip
        titles = {entry.labels.title for entry in registry.circuits()}
        assert titles == {"T (seed 0)", "T (seed 1)", "T (seed 2)", "T (consensus)"}

    def test_the_consensus_is_measured_on_the_prompts_of_all(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        discover(registry, tiny_model, task="ioi", seeds=2)
        (consensus,) = _by_method(registry)[CONSENSUS]
        measured = {each.measure: each for each in registry.ledger.evaluations(consensus.id)}
        assert measured["faithfulness"].n_prompts == 16
        assert measured["faithfulness"].prompt_set is None
        kept = {prompts.id for prompts in registry.ledger.prompt_sets()}
        assert set(measured["faithfulness"].parameters["prompt_sets"]) == kept
        one, other = (_ids(circuit) for circuit in _by_method(registry)["edge-attribution"])
        assert measured["edge_overlap"].value == pytest.approx(len(one & other) / len(one | other))

    def test_a_run_stopped_at_its_second_seed_leaves_nothing(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            discover(
                registry,
                tiny_model,
                task="ioi",
                seeds=2,
                progress=StopsWhile("scoring edges on ioi (seed 1)"),
            )
        assert registry.ledger.runs()[0].status is RunStatus.INTERRUPTED
        assert registry.circuits() == []
        assert registry.ledger.prompt_sets() == ()
        assert registry.ledger.artifacts() == frozenset()

    def test_circuits_that_agree_on_nothing_are_recorded_without_a_consensus(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        outcome = discover(registry, tiny_model, task="ioi", seeds=4, edges=12, consensus=1)
        found = _by_method(registry)
        row = outcome.finding.rows[-1]
        assert CONSENSUS not in found
        assert len(found["edge-attribution"]) == 4
        assert (row["of"], row["circuit"], row["edges"]) == ("consensus", None, 0)

    def test_seeds_that_draw_the_same_pairs_count_as_one(
        self,
        registry: Registry,
        tiny_model: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        install_few_pairs(tmp_path, monkeypatch)
        told: dict[str, Any] = {"task": "few/pairs", "prompts": None, "min_prompts": 1}
        outcome = discover(registry, tiny_model, seeds=3, **told)
        n_pairs = outcome.finding.rows[0]["prompts"]
        line = (
            f"{n_pairs} of {n_pairs} prompt pairs of few/pairs were drawn with more than one seed;"
            " seeds 0, 1 and 2 drew the same pairs and count as one, so there is no consensus"
        )
        assert line in outcome.finding.notes
        assert [each.getMessage() for each in caplog.records].count(line) == 1
        assert [row["of"] for row in outcome.finding.rows] == ["seed 0", "seed 1", "seed 2"]
        assert set(_by_method(registry)) == {"edge-attribution"}
        assert len(registry.ledger.prompt_sets()) > 1

    def test_a_consensus_has_one_circuit_of_those_on_the_same_pairs(
        self,
        registry: Registry,
        tiny_model: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        install_few_pairs(tmp_path, monkeypatch)
        told: dict[str, Any] = {"task": "few/pairs", "prompts": 1, "min_prompts": 1}
        outcome = discover(registry, tiny_model, seeds=6, consensus=0.1, **told)
        found = _by_method(registry)
        # With one prompt each, equal pairs are equal prompt sets.
        different = {kept.id for kept in registry.ledger.prompt_sets()}
        assert 1 < len(different) < 6
        (consensus,) = found[CONSENSUS]
        assert consensus.parameters["circuits"] == len(different)
        of = consensus.parameters["of"]
        assert sorted(of) == sorted(circuit.id for circuit in found["edge-attribution"])
        assert outcome.finding.rows[-1]["prompts"] == len(different)
        assert any(note.endswith("and count as one") for note in outcome.finding.notes)


@pytest.mark.seconds
class TestBootstrap:
    def test_resamples_make_a_consensus_beside_the_circuit_of_all_prompts(
        self, registry: Registry, tiny_model: Path
    ) -> None:
        alone = discover(registry, tiny_model, task="ioi").finding.summary["circuit"]
        outcome = discover(registry, tiny_model, task="ioi", bootstrap=10)
        found = _by_method(registry)
        assert [circuit.id for circuit in found["edge-attribution"]] == [alone]
        (consensus,) = found[CONSENSUS]
        assert consensus.parameters["of"] == [alone]
        assert consensus.parameters["circuits"] == 10
        assert consensus.prompt_set == registry.circuit(alone).circuit.prompt_set
        assert [row["of"] for row in outcome.finding.rows] == ["all prompts", "consensus"]
        (again,) = {
            discover(registry, tiny_model, task="ioi", bootstrap=10).finding.summary["circuit"]
        }
        assert again == consensus.id

    def test_resampling_prompts_that_are_alike_finds_the_same_edges(
        self, registry: Registry, tiny_model: Path, tmp_path: Path
    ) -> None:
        lines = [PAIR.format("Van", "Hat", "January", "March")]
        lines += [PAIR.format("Van", "Hat", "March", "January")]
        discover(registry, tiny_model, task=None, prompts=None, min_prompts=1, bootstrap=5,
                 file=write_prompts(tmp_path, "".join(lines)))  # fmt: skip
        found = _by_method(registry)
        (whole,), (consensus,) = found["edge-attribution"], found[CONSENSUS]
        assert _ids(consensus) == _ids(whole)
        assert consensus.parameters["edges_by_frequency"] == {"5/5": len(whole.edges)}
        effects = {edge.connection: edge.effect for edge in whole.edges}
        assert {e.connection: e.effect for e in consensus.edges} == pytest.approx(effects, abs=1e-6)

    @pytest.mark.parametrize("rule", [{"faithfulness": 0.5}, {"threshold": 0.05}])
    def test_any_rule_chooses_from_resamples(
        self, registry: Registry, tiny_model: Path, rule: dict[str, Any]
    ) -> None:
        discover(registry, tiny_model, task="ioi", bootstrap=4, **rule)
        (consensus,) = _by_method(registry)[CONSENSUS]
        assert consensus.parameters["prompts"] == "resampled"
        assert consensus.edges
