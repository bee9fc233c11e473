"""Results of glassbox into a real registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from registry.records import Ablation, Circuit, Level, Sign

FILE = Path(__file__).parent / "files" / "glassbox" / "analysis.json"


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(FILE.read_text("utf-8")) | changes), "utf-8")
    return path


def imported(registry: Registry, path: Path, **said: Any) -> tuple[FileReport, Circuit]:
    (report,) = import_files(registry, [path], {"task": "ioi", **said})
    assert report.outcome is FileOutcome.STORED, report.notes
    assert report.format == "glassbox"
    return report, registry.circuit(report.circuits[0]).circuit


def test_its_heads_are_the_circuit_with_attributions_that_help(registry: Registry) -> None:
    _, circuit = imported(registry, FILE)
    assert (circuit.model, circuit.method, circuit.metric) == ("gpt2", "taylor", "logit_difference")
    assert (circuit.sign, circuit.ablation) == (Sign.HELPS_POSITIVE, Ablation.RESAMPLE)
    assert (circuit.level, circuit.edges, circuit.universe_size) == (Level.NODE, (), None)
    assert {n.component: (n.effect, n.rank) for n in circuit.nodes} == {
        "a9.h6": (2.0, 1), "a0.h1": (0.25, 2),
    }  # fmt: skip
    assert circuit.parameters["attributions"] == {"a0.h1": 0.25, "a9.h6": 2.0, "a10.h7": -1.5}
    assert circuit.parameters["mlp_attributions"] == {"0": 0.5, "1": -0.125}
    assert circuit.parameters["corr_prompt"].startswith("When Ann")


def test_its_faithfulness_is_three_evaluations_with_their_category(registry: Registry) -> None:
    report, circuit = imported(registry, FILE)
    found = {e.measure: e for e in registry.ledger.evaluations(circuit.id)}
    assert report.evaluations == 3
    assert {measure: one.value for measure, one in found.items()} == {
        "sufficiency": 0.75, "comprehensiveness": 0.25, "f1": 0.375,
    }  # fmt: skip
    assert {one.parameters["category"] for one in found.values()} == {"moderate"}
    assert {measure: one.parameters["estimated"] for measure, one in found.items()} == {
        "sufficiency": True, "comprehensiveness": False, "f1": True,
    }  # fmt: skip
    assert {one.n_prompts for one in found.values()} == {1}


def test_the_models_shape_is_recorded_and_heads_outside_it_refused(
    registry: Registry, tmp_path: Path
) -> None:
    (report,) = import_files(registry, [written(tmp_path, circuit=[[12, 0]])], {"task": "ioi"})
    assert report.outcome is FileOutcome.REFUSED
    assert "12 layers" in report.notes[0]
    imported(registry, FILE)
    (model,) = registry.ledger.models()
    assert (model.n_layers, model.n_heads, model.d_head) == (12, 12, 64)


def test_a_task_is_asked_for(registry: Registry) -> None:
    (report,) = import_files(registry, [FILE], {})
    assert report.outcome is FileOutcome.REFUSED
    assert "--task" in report.notes[0]


def test_another_name_of_the_model_than_was_said_is_told(registry: Registry) -> None:
    report, circuit = imported(registry, FILE, model="my-gpt2")
    assert circuit.model == "my-gpt2"
    assert "the file names the model gpt2; used is my-gpt2, as given by the user" in report.notes


def test_pooled_answers_have_another_metric(registry: Registry, tmp_path: Path) -> None:
    _, circuit = imported(registry, written(tmp_path, decision={"positive": {"variants": ["a"]}}))
    assert circuit.metric is None
    assert circuit.parameters["decision"] == {"positive": {"variants": ["a"]}}


def test_heads_may_go_by_their_names(registry: Registry, tmp_path: Path) -> None:
    path = written(tmp_path, circuit=["L9H6"], attributions={"L9H6": 2.0, "A0.1": 1})
    _, circuit = imported(registry, path)
    assert [(n.component, n.effect) for n in circuit.nodes] == [("a9.h6", 2.0)]


def test_no_heads_are_a_circuit_too(registry: Registry, tmp_path: Path) -> None:
    path = written(tmp_path, circuit=[], faithfulness={}, attributions={})
    report, circuit = imported(registry, path)
    assert (circuit.nodes, circuit.universe_size, report.evaluations) == ((), None, 0)


def test_a_missing_attribution_is_an_unknown_effect(registry: Registry, tmp_path: Path) -> None:
    _, circuit = imported(registry, written(tmp_path, attributions={"(9, 6)": None}))
    assert {(n.effect, n.rank) for n in circuit.nodes} == {(None, None)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"circuit": {"9": 6}}, "no circuit"),
        ({"circuit": [[9]]}, "no head such as"),
        ({"circuit": [[9, 6.5]]}, "no head such as"),
        ({"circuit": [[9, True]]}, "no head such as"),
        ({"circuit": [[9, 6], [9, 6]]}, "appears once"),
        ({"circuit": ["(9, x)"]}, "no head such as"),
        ({"circuit": ["m3"]}, "no head such as"),
        ({"circuit": ["A9.6.q"]}, "no head such as"),
        ({"attributions": {"L9H6": 1, "(9, 6)": 2}}, "appears before"),
        ({"attributions": [1]}, "attributions is no object"),
        ({"attributions": {"nine": 1}}, "no head such as"),
        ({"attributions": {"(9, 6)": "much"}}, "no number"),
        ({"faithfulness": {"f1": []}}, "no number"),
        ({"faithfulness": 1}, "faithfulness is no object"),
        ({"model_metadata": {"n_layers": -1}}, "n_layers"),
        ({"model_metadata": [1]}, "model_metadata is no object"),
        ({"corr_prompt": "\ud800"}, "not JSON"),
    ],
)
def test_a_malformed_result_is_refused_with_the_reason(
    registry: Registry, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    said = {"model": "gpt2", "task": "ioi"}
    (report,) = import_files(registry, [written(tmp_path, **changes)], said)
    assert report.outcome is FileOutcome.REFUSED
    assert says in report.notes[0]
    assert registry.circuits() == []
