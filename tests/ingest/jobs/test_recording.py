"""What discovery returns is recorded from Python as the job records it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.discovery import EdgeScores, attribute_edges, evaluate_circuit, prepare_setting
from ingest.jobs.answering import PromptTensors, as_tensors
from ingest.models import describe, load
from ingest.tasks.prompts import read_kept
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.files.score_files import read_score_file
from registry.records import Circuit, Model, PromptSet, Sign
from tests.ingest.discovery.asking import attribute
from tests.ingest.jobs.discovering import discover, only_circuit

pytestmark = pytest.mark.seconds


class Found:
    """The tiny model, the prompts a job kept, and their scores."""

    def __init__(self, registry: Registry, folder: Path, **told: Any) -> None:
        self.job = only_circuit(registry)
        (self.prompts,) = registry.ledger.prompt_sets()
        assert self.prompts.artifact is not None
        self.pairs = as_tensors(read_kept(registry.artifact(self.prompts.artifact)))
        self.model = load(str(folder), device="cpu")
        self.scores = attribute(
            self.model, self.pairs.clean, self.pairs.corrupt, Named(self.pairs),
            attention_mask=self.pairs.attention_mask, **told,
        )  # fmt: skip


class Named:
    """The job's metric, with a name."""

    name = "logit_difference"

    def __init__(self, pairs: PromptTensors) -> None:
        self._pairs = pairs

    def __call__(self, logits: Any, index: Any) -> Any:
        return self._pairs.logit_difference(logits, index)


@pytest.fixture
def found(registry: Registry, tiny_model: Path) -> Found:
    discover(registry, tiny_model)
    return Found(registry, tiny_model)


def test_what_the_job_finds_has_the_same_id_when_it_is_found_and_recorded_by_hand(
    registry: Registry, found: Found
) -> None:
    recorded = registry.record(
        found.scores.top(30), task="sequence/months", prompts=found.prompts, title="Again"
    )
    assert not recorded.anything
    assert only_circuit(registry) == found.job


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "eap-ig-inputs", "steps": 3}, {"method": "eap-ig-inputs", "steps": 3}),
        ({"ablation": "zero"}, {"ablation": "zero"}),
        ({"kv_heads": "per-query-head"}, {"kv_heads": "per-query-head"}),
    ],
)
@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        (lambda scores: scores.greedy(30, "signed"), {"choose": "greedy", "select": "signed"}),
        (lambda scores: scores.threshold(0.001), {"threshold": 0.001}),
    ],
)
def test_so_does_every_method_ablation_and_choice(
    registry: Registry,
    tiny_model: Path,
    options: dict[str, Any],
    told: dict[str, Any],
    choice: Any,
    asked: dict[str, Any],
) -> None:
    discover(registry, tiny_model, **told, **asked)
    found = Found(registry, tiny_model, **options)
    registry.record(choice(found.scores), task="sequence/months", prompts=found.prompts.id)
    assert only_circuit(registry) == found.job


def test_a_description_says_what_the_scores_do_not(registry: Registry, found: Found) -> None:
    chosen = found.scores.top(20, by="signed")
    measured = evaluate_circuit(
        prepare_setting(
            found.model,
            found.pairs.clean,
            found.pairs.corrupt,
            Named(found.pairs),
            attention_mask=found.pairs.attention_mask,
        ),
        [edge.id for edge in chosen.edges],
    )
    (id,) = registry.record(
        chosen, task="own/task", title="Mine", tags=["b", "a"], author="me", model="tiny@two",
        metric="probability", evaluation=measured,
    ).circuits  # fmt: skip
    stored = registry.circuit(id)
    assert (stored.id, stored.model, stored.task) == (id, "tiny@two", "own/task")
    assert (stored.title, stored.tags, stored.entry.labels.author) == ("Mine", ("a", "b"), "me")
    assert stored.faithfulness == pytest.approx(measured.faithfulness)
    (evaluation,) = stored.evaluations
    assert evaluation.n_prompts == 8
    assert evaluation.ablation == "resample"
    assert evaluation.full == pytest.approx(float(measured.full.mean()))
    circuit = stored.circuit
    assert (circuit.metric, circuit.prompt_set) == ("probability", None)
    assert (circuit.sign, circuit.universe_size) == (Sign.HELPS_POSITIVE, 82)
    assert circuit.selection == chosen.selection
    assert circuit.selection["top"] == 20
    assert (len(stored.edges), len(stored.nodes)) == (len(chosen.edges), len(chosen.nodes))
    assert circuit.scores is not None
    kept = read_score_file(registry.artifact(circuit.scores))
    assert kept.matrix == pytest.approx(found.scores.matrix.numpy(), abs=1e-6)
    (model,) = (one for one in registry.ledger.models() if one.slug == "tiny@two")
    assert (model.n_layers, model.n_kv_heads) == (2, 2)


def test_the_model_may_be_its_record(registry: Registry, found: Found) -> None:
    record = describe(found.model).model_copy(update={"slug": "tiny@three"})
    registry.record(found.scores.top(30), task="sequence/months", model=record)
    assert record in registry.ledger.models()


def test_a_metric_without_a_name_stays_without(registry: Registry, found: Found) -> None:
    scores = attribute_edges(
        prepare_setting(
            found.model,
            found.pairs.clean,
            found.pairs.corrupt,
            lambda logits, _: logits[:, 3],
            attention_mask=found.pairs.attention_mask,
        )
    )
    (id,) = registry.record(scores.top(30), task="sequence/months").circuits
    assert registry.document(id).metric is None


def test_records_and_what_was_found_go_together_or_not_at_all(
    registry: Registry, found: Found
) -> None:
    other = Circuit(model="gpt2", task="ioi", method="by hand", level="edge")
    before = registry.status().counts
    with pytest.raises(NotFound):
        registry.record(other, found.scores.top(9), task="x", prompts="f" * 64)
    assert registry.status().counts == before
    registry.record(other, found.scores.top(29), found.scores.top(28), task="sequence/months")
    assert len(registry.circuits()) == 4


@pytest.mark.parametrize(
    ("what", "description", "message"),
    [
        (
            lambda f: f.scores,
            {"task": "ioi"},
            "not a circuit yet; choose some first, such as scores.t",
        ),
        (
            lambda f: f.scores.top(30),
            {},
            r"needs its task, such as record\(scores.top\(500\), task=",
        ),
        (
            lambda f: f.scores.top(30),
            {"task": "ioi", "titel": "x"},
            "does not know 'titel'; .* task, ti",
        ),
        (lambda f: f.job, {"task": "ioi"}, "^task describe results of ingest.discovery; records"),
        (lambda f: f.scores.top(1), {"task": "ioi"}, "no chosen edge is on a path from input"),
        (
            lambda f: bare(f.scores).top(30),
            {"task": "ioi"},
            "does not show how its edges were scored, as attribute_edges does",
        ),
        (
            lambda f: f.scores.top(30),
            {"task": "ioi", "model": "Some/Model"},
            "is called 'Some/Model'; give the name to store it under, such as model='gpt2'",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_in_a_line_and_nothing_is_stored(
    registry: Registry, found: Found, what: Any, description: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        registry.record(what(found), **description)
    assert "\n" not in str(raised.value)
    assert only_circuit(registry) == found.job


def bare(scores: EdgeScores) -> EdgeScores:
    """The same scores without a word on where they come from."""
    return EdgeScores(scores.matrix, scores.space, scores.clean_metric, scores.corrupt_metric)


def test_an_evaluation_is_of_one_circuit_and_known(registry: Registry, found: Found) -> None:
    chosen = found.scores.top(30)
    same = evaluate_circuit(
        prepare_setting(
            found.model,
            found.pairs.clean,
            found.pairs.clean,
            Named(found.pairs),
            attention_mask=found.pairs.attention_mask,
        ),
        [],
    )
    with pytest.raises(BadInput, match="faithfulness is unknown, because ablation changes nothing"):
        registry.record(chosen, task="ioi", evaluation=same)
    with pytest.raises(BadInput, match="an evaluation is of one circuit, and 2 are given"):
        registry.record(chosen, found.scores.top(29), task="ioi", evaluation=same)


def test_models_and_prompt_sets_are_recorded_as_before(registry: Registry) -> None:
    registry.record(
        Model(slug="gpt2"), PromptSet(id="a" * 64, task="ioi", n_prompts=3),
        Circuit(model="gpt2", task="ioi", method="by hand", level="edge"),
    )  # fmt: skip
    assert registry.status().counts["circuits"] == 1
