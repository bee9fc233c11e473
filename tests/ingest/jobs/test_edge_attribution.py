"""From a configuration to a recorded circuit, on a tiny model of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors import safe_open

from ingest.jobs.edge_attribution.job import EdgeAttributionConfiguration
from registry import Registry
from registry.errors import BadInput, CircuitsError, NotFound, TooFewPrompts
from registry.records import Ablation, Level, RunStatus, Sign
from tests.ingest.jobs.discovering import PAIR, discover, write_prompts

pytestmark = pytest.mark.seconds


def test_a_circuit_is_recorded_with_all_that_it_came_from(
    registry: Registry, tiny_model: Path
) -> None:
    outcome = discover(registry, tiny_model, title="Mine", tags=("a", "b"), author="me")
    (entry,) = registry.circuits()
    stored = registry.circuit(entry.id)
    circuit = stored.circuit
    assert outcome.finding.summary["circuit"] == circuit.id
    assert (circuit.model, circuit.task) == ("tiny-words", "sequence/months")
    assert (circuit.method, circuit.metric) == ("edge-attribution", "logit_difference")
    assert (circuit.ablation, circuit.sign) == (Ablation.RESAMPLE, Sign.HELPS_POSITIVE)
    assert (circuit.level, circuit.kv_heads) == (Level.EDGE, "grouped")
    assert circuit.universe_size == 82
    assert circuit.parameters == {
        "method": "eap",
        "gradient": "clean",
        "positions": "summed",
        "version": "2",
    }
    assert circuit.selection is not None
    assert circuit.selection["top"] == 30
    assert circuit.selection["dangling_removed"] == 30 - len(circuit.edges)
    assert entry.labels.title == "Mine"
    assert (entry.labels.tags, entry.labels.author) == (("a", "b"), "me")
    (model,) = registry.ledger.models()
    assert (model.slug, model.n_layers, model.n_kv_heads) == ("tiny-words", 2, 2)


def test_edges_and_nodes_are_ranked_from_the_strongest(
    registry: Registry, tiny_model: Path
) -> None:
    discover(registry, tiny_model)
    circuit = registry.circuit(registry.circuits()[0].id).circuit
    by_rank = sorted(circuit.edges, key=lambda edge: edge.rank or 0)
    effects = [abs(edge.effect or 0.0) for edge in by_rank]
    assert [edge.rank for edge in by_rank] == list(range(1, len(circuit.edges) + 1))
    assert effects == sorted(effects, reverse=True)
    (logits,) = (node for node in circuit.nodes if node.component == "logits")
    assert (logits.effect, logits.rank) == (None, None)
    ranked = sorted((node for node in circuit.nodes if node.rank), key=lambda node: node.rank or 0)
    sizes = [abs(node.effect or 0.0) for node in ranked]
    assert sizes == sorted(sizes, reverse=True)


def test_the_score_matrix_is_kept_and_holds_the_edges_effects(
    registry: Registry, tiny_model: Path, tmp_path: Path
) -> None:
    discover(registry, tiny_model)
    circuit = registry.circuit(registry.circuits()[0].id).circuit
    assert circuit.scores is not None
    path = tmp_path / "scores.safetensors"
    path.write_bytes(registry.artifact(circuit.scores))
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["circuits"])
        matrix = file.get_tensor("scores")
    for edge in circuit.edges:
        receiver = edge.target + (f"<{edge.port}>" if edge.port else "")
        row, column = about["senders"].index(edge.source), about["receivers"].index(receiver)
        assert matrix[row, column].item() == pytest.approx(edge.effect, rel=1e-5)


def test_the_prompt_set_is_a_file_named_by_its_content(
    registry: Registry, tiny_model: Path
) -> None:
    discover(registry, tiny_model)
    (prompts,) = registry.ledger.prompt_sets()
    assert prompts.artifact == prompts.id
    header, *lines = map(json.loads, registry.artifact(prompts.id).decode().splitlines())
    assert header["task"] == "sequence/months"
    assert header["bos"] is prompts.bos is False
    assert len(lines) == prompts.n_prompts == 8
    for line in lines:
        assert len(line["clean_ids"]) == len(line["corrupt_ids"])
    assert prompts.share_correct is not None
    assert 0 < prompts.share_correct < 1


def test_faithfulness_is_recorded_with_both_baselines(registry: Registry, tiny_model: Path) -> None:
    discover(registry, tiny_model, edges=82)
    (found,) = registry.ledger.evaluations()
    assert found.measure == "faithfulness"
    assert found.value == pytest.approx(1.0, abs=1e-3)  # all edges: the model itself
    assert found.full is not None
    assert found.full > 0  # only prompts answered rightly were kept
    assert found.empty is not None
    assert (found.n_prompts, found.ablation) == (8, Ablation.RESAMPLE)


def test_the_same_again_adds_a_run_and_no_circuit(registry: Registry, tiny_model: Path) -> None:
    discover(registry, tiny_model)
    discover(registry, tiny_model)
    (entry,) = registry.circuits()
    assert len(entry.runs) == 2
    assert len(registry.ledger.evaluations()) == 1


def test_the_bos_policy_makes_another_prompt_set(registry: Registry, tiny_model: Path) -> None:
    for bos in (True, False):
        discover(registry, tiny_model, bos=bos)
    with_bos, without = sorted(registry.ledger.prompt_sets(), key=lambda found: not found.bos)
    assert with_bos.id != without.id
    first = json.loads(registry.artifact(with_bos.id).decode().splitlines()[1])
    assert first["clean_ids"][0] == first["corrupt_ids"][0]
    assert len(registry.circuits()) == 2


def test_a_users_own_file_is_used_whole(
    registry: Registry, tiny_model: Path, tmp_path: Path
) -> None:
    # Either answer of a pair is the correct one once, so that just half are answered rightly.
    months = ["January", "March", "May", "July", "August", "October"]
    lines = [
        PAIR.format("Van", "Hat", *answers)
        for a, b in pairwise(months)
        for answers in ((a, b), (b, a))
    ]
    file = write_prompts(tmp_path, "".join(lines))
    discover(registry, tiny_model, task=None, prompts=None, file=file, min_prompts=5)
    (prompts,) = registry.ledger.prompt_sets()
    assert (prompts.task, prompts.seed, prompts.n_prompts) == ("own/test", None, 5)
    assert prompts.share_correct == 0.5
    with pytest.raises(TooFewPrompts, match=r"5 of 10 prompts of own/test; at least 6"):
        discover(registry, tiny_model, task=None, prompts=None, file=file, min_prompts=6)
    failed = registry.ledger.runs()[0]
    assert failed.status is RunStatus.FAILED
    assert failed.error is not None
    assert failed.error.startswith("TooFewPrompts: tiny-words puts")
    assert len(registry.circuits()) == 1


@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        ({"task": "sequence/moths"}, NotFound, "did you mean 'sequence/months'"),
        ({"model": "./nowhere/at-all"}, NotFound, "no model './nowhere/at-all'"),
        ({"edges": 83}, BadInput, "83 edges are requested, but the model has 82"),
        ({"dtype": "int8"}, BadInput, "'int8' is not a dtype"),
        ({"device": "abacus"}, BadInput, "no device 'abacus'"),
    ],
)
def test_wrong_input_ends_in_one_line_and_nothing_is_recorded(
    registry: Registry,
    tiny_model: Path,
    told: dict[str, Any],
    error: type[CircuitsError],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        discover(registry, **{"model": tiny_model, **told})
    assert "\n" not in str(caught.value)
    _nothing_is_recorded(registry)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda good: good + "{oops}\n", "prompts.jsonl, line 5: .*double quotes"),
        (lambda good: good + good, "line 5: the same prompt as on line 4"),
        (lambda _: "", "holds no prompts"),
        (lambda _: PAIR.format("Van", "Hat", "May 3", "June"), "line 4: .*one last token"),
        (lambda _: PAIR.format("Van", "Red Hat", "May", "June"), "line 4: .*3 tokens, .* 4;"),
        (
            lambda _: PAIR.format("Van " * 70, "Hat " * 70, "May", "June"),
            "line 4: .*72 tokens, but .* most 64",
        ),
    ],
)
def test_a_broken_file_is_refused_by_line_and_nothing_is_recorded(
    registry: Registry,
    tiny_model: Path,
    tmp_path: Path,
    make: Callable[[str], str],
    message: str,
) -> None:
    file = write_prompts(tmp_path, make(PAIR.format("Van", "Hat", "May", "June")))
    with pytest.raises(BadInput, match=message):
        discover(registry, tiny_model, task=None, prompts=None, file=file)
    _nothing_is_recorded(registry)


def test_too_few_edges_to_reach_the_output_fail_the_run(
    registry: Registry, tiny_model: Path
) -> None:
    with pytest.raises(BadInput, match=r"none of the best 1 edges .* choose a larger number"):
        discover(registry, tiny_model, edges=1)
    assert registry.ledger.runs()[0].status is RunStatus.FAILED
    assert registry.circuits() == []


def test_a_task_or_a_file_is_needed() -> None:
    with pytest.raises(ValidationError, match="a task is required"):
        EdgeAttributionConfiguration(model="smollm2")


@pytest.mark.model
@pytest.mark.seconds
def test_smollm2_has_a_faithful_ioi_circuit(registry: Registry) -> None:
    outcome = discover(
        registry, Path("smollm2"), task="ioi", prompts=8, edges=None, select="signed"
    )
    (prompts,) = registry.ledger.prompt_sets()
    assert prompts.share_correct is not None
    assert prompts.share_correct > 0.9
    assert outcome.finding.summary["faithfulness"] > 0.7


def _nothing_is_recorded(registry: Registry) -> None:
    assert registry.ledger.runs() == ()
    assert registry.ledger.models() == ()
    assert registry.ledger.prompt_sets() == ()
    assert registry.circuits() == []
    files = [path for path in (registry.settings.home / "artifacts").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["registry.json"]  # which says whose they are


UNKNOWN = PAIR.format("Zorg", "Blip", "June", "May")
"""Two words that the tokenizer does not know: to the model both prompts are the same."""


def test_prompts_of_unknown_words_and_a_faithfulness_without_a_value_are_reported(
    registry: Registry, tiny_model: Path, tmp_path: Path
) -> None:
    pairs = [UNKNOWN, PAIR.format("Zorg", "Blip", "May", "June")]  # one of them is right
    file = write_prompts(tmp_path, "".join(pairs))
    found = discover(
        registry, tiny_model, file=file, task=None, min_prompts=1, edges=82, ablation="resample"
    )
    assert found.finding.summary["faithfulness"] is None
    first, second = found.finding.notes
    assert "faithfulness is unknown: on these prompts the whole model does no better" in first
    assert "1 of 1 prompts hold a word that the model's tokenizer does not know" in second
    assert "'Zorg done in'" in second


def test_an_answer_that_the_tokenizer_does_not_know_is_refused_with_its_line(
    registry: Registry, tiny_model: Path, tmp_path: Path
) -> None:
    for answers in (("Zurk", "May"), ("May", "Zurk")):
        good = PAIR.format("June", "May", "June", "May")
        file = write_prompts(tmp_path, good + PAIR.format("June", "May", *answers))
        with pytest.raises(
            BadInput, match=r"line 5: the model's tokenizer does not know the answer ' Zurk'"
        ):
            discover(registry, tiny_model, file=file, task=None)
    assert registry.circuits() == []
