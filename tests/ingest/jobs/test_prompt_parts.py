"""Jobs on prompts with several wrong answers and labels, and on one part of the prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError

from ingest.jobs import run_job
from ingest.jobs.edge_attribution.job import EdgeAttributionConfiguration
from ingest.jobs.transfer.job import JOB, TransferConfiguration
from ingest.tasks.prompts import read_kept, split_of_kept
from ingest.tasks.splits import Part, Split, part_of
from registry import Registry
from registry.errors import BadInput
from registry.records import PromptSet
from tests.ingest.jobs.discovering import discover, write_prompts

pytestmark = pytest.mark.seconds

MONTHS = ["January", "March", "May", "July", "August", "October"]


def _lines(*wrong: list[str]) -> str:
    """A prompt for each month and each list of wrong months."""
    return "".join(
        json.dumps(
            {
                "clean": f"{name} done in", "corrupt": "Hat done in", "correct": f" {month}",
                "wrong": [f" {other}" for other in others if other != month],
                "labels": {"name": name},
            }
        ) + "\n"
        for name in ("Van", "Hat")
        for month in MONTHS
        for others in wrong
    )  # fmt: skip


def _prompt_sets(registry: Registry) -> dict[str, PromptSet]:
    return {known.id: known for known in registry.ledger.prompt_sets()}


def _cleans(registry: Registry, prompt_set: str) -> set[str]:
    return {pair.text.clean for pair in read_kept(registry.artifact(prompt_set))}


def test_several_wrong_answers_are_measured_as_plain_pytorch_measures_them(
    registry: Registry, tiny_model: Path, tmp_path: Path
) -> None:
    file = write_prompts(tmp_path, _lines(["May", "July", "March"], ["August", "October"]))
    discover(registry, tiny_model, task=None, prompts=None, file=file, min_prompts=1)
    (entry,) = registry.circuits()
    (measured,) = registry.circuit(entry.id).evaluations
    pairs = read_kept(registry.artifact(entry.prompt_set or ""))
    assert {len(pair.all_wrong) for pair in pairs} == {1, 2, 3}
    model = transformers.LlamaForCausalLM.from_pretrained(tiny_model)
    differences = []
    with torch.no_grad():
        for pair in pairs:
            logits = model(torch.tensor([pair.clean])).logits[0, -1]
            wrong = [float(logits[token]) for token in pair.all_wrong]
            differences.append(float(logits[pair.correct]) - sum(wrong) / len(wrong))
            assert float(logits[pair.correct]) > max(wrong)
            assert str(pair.text.labels["name"]) in pair.text.clean
    assert measured.full == pytest.approx(sum(differences) / len(differences), rel=1e-4)


def test_the_parts_of_a_task_have_no_prompt_in_common(registry: Registry, tiny_model: Path) -> None:
    for part in ("train", "test"):
        discover(registry, tiny_model, split=part, split_seed=2)
    train, test = sorted(
        _prompt_sets(registry), key=lambda one: str(split_of_kept(registry.artifact(one)))
    )[::-1]
    splits = [split_of_kept(registry.artifact(one)) for one in (train, test)]
    assert splits == [Split(Part.TRAIN, 2), Split(Part.TEST, 2)]
    for prompt_set, split in ((train, Part.TRAIN), (test, Part.TEST)):
        assert {part_of(clean, 2) for clean in _cleans(registry, prompt_set)} == {split}
    assert len(registry.circuits()) == 2
    (first, second) = registry.ledger.runs()
    assert {first.configuration["split"], second.configuration["split"]} == {"train", "test"}


def test_a_configuration_without_a_split_is_recorded_as_before(
    registry: Registry, tiny_model: Path
) -> None:
    discover(registry, tiny_model)
    (run,) = registry.ledger.runs()
    assert not {"split", "split_seed", "split_by"} & run.configuration.keys()


def test_a_circuit_found_on_one_part_is_measured_on_another(
    registry: Registry, tiny_model: Path
) -> None:
    found = discover(registry, tiny_model, split="train").finding.summary
    (trained,) = _prompt_sets(registry)

    def measure(**told: str) -> PromptSet:
        told = {"task": "sequence/months", "device": "cpu", **told}
        configuration = TransferConfiguration(circuits=(found["circuit"],), prompts=8, **told)
        summary = run_job(JOB, configuration, registry).finding.summary
        return _prompt_sets(registry)[summary["prompt_set"]]

    tested = measure(split="test")
    assert not _cleans(registry, tested.id) & _cleans(registry, trained)
    assert measure(split="test") == tested
    assert measure(split="train").id == trained
    whole = measure()
    assert whole.id not in (trained, tested.id)
    assert split_of_kept(registry.artifact(whole.id)) is None
    assert measure() == whole


def test_a_file_is_divided_by_a_label(registry: Registry, tiny_model: Path, tmp_path: Path) -> None:
    file = write_prompts(tmp_path, _lines(["December"]))
    told: dict[str, Any] = {
        "file": file,
        "task": None,
        "prompts": None,
        "min_prompts": 1,
        "split": "train",
    }
    discover(registry, tiny_model, **told, split_by="name")
    (kept,) = _prompt_sets(registry)
    assert split_of_kept(registry.artifact(kept)) == Split(Part.TRAIN, 0, "name")
    with pytest.raises(BadInput, match=r"no prompt of prompts\.jsonl has the label 'place'"):
        discover(registry, tiny_model, **told, split_by="place")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"split_seed": 1}, "split_seed divides prompts; give split too"),
        ({"split_by": "name", "file": Path("x")}, "split_by divides prompts; give split too"),
        ({"split": "train", "split_by": "name"}, "split_by is a label of prompts in a file"),
    ],
)
def test_what_divides_prompts_needs_a_part(told: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EdgeAttributionConfiguration.model_validate({"model": "m", "task": "ioi", **told})


def test_a_recorded_prompt_set_is_measured_on_as_a_whole() -> None:
    with pytest.raises(ValidationError, match="omit the split"):
        TransferConfiguration(circuits=("a",), prompt_set="b", split="test")
