"""Measures and metrics: each has one name, a unit, a direction and a range."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.catalog import catalogue
from ingest.discovery.model.metrics import LogitDifference
from queries.circuits.transfers import MEASURED
from registry import Registry
from registry.catalogue import load_catalogue
from registry.errors import MeasureOutOfRange
from registry.known_measures import (
    NOT_REGISTERED,
    all_measures,
    direction_of,
    find_measure,
    notes_on_values,
    refuse_values,
    title_of,
    unit_of,
)
from registry.measures import (
    CMD,
    EDGE_OVERLAP,
    FAITHFULNESS,
    LOGIT_DIFFERENCE,
    MEASURES,
    PERCENT_OF_METRIC,
    Direction,
    Measure,
)
from registry.records import Evaluation, Outcome
from tests import examples

OTHERS = """
from registry.measures import Direction, Measure

def _measure(name):
    return Measure(
        name=name, of="circuit", definition="Something", source="here",
        direction=Direction.LOWER, unit="pears", lowest=0,
    )

SOUND = (_measure("pears"), _measure("pears: *"))
TAKING = (_measure("apples"), _measure("faithfulness"))
"""


def _evaluation(measure: str, value: float) -> Evaluation:
    return Evaluation(circuit="a" * 64, task="ioi", measure=measure, value=value)


def _outcome(metric: str, before: float | None, after: float | None) -> Outcome:
    return Outcome(edit="b" * 64, metric=metric, before=before, after=after)


# -- the table -------------------------------------------------------------------------------------


def test_a_name_is_registered_once() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_a_definition_is_one_sentence_with_a_source(measure: Measure) -> None:
    assert re.fullmatch(r"[A-Z][^.]*[^.]", measure.definition.replace("et al.", "et al"))
    assert measure.source
    assert measure.name.count("*") <= 1
    if measure.lowest is not None and measure.highest is not None:
        assert measure.lowest < measure.highest


@pytest.mark.parametrize("name", catalogue())
def test_figures_of_published_circuits_are_registered_and_within_their_ranges(name: str) -> None:
    entry = catalogue()[name]
    assert entry.metric is None or find_measure(entry.metric)
    for figure in entry.figures:
        measure = find_measure(figure.measure)
        assert measure is not None, figure.measure
        assert measure.holds(figure.value)
        assert figure.unit != "percent" or measure.is_percent


def test_a_published_circuit_and_the_table_agree_on_what_is_better() -> None:
    for entry in catalogue().values():
        if entry.metric is not None and entry.higher_is_better is not None:
            measure = find_measure(entry.metric)
            assert measure is not None
            assert measure.higher_is_better is entry.higher_is_better


def test_the_algorithms_metric_has_the_registered_name() -> None:
    assert LogitDifference.name == LOGIT_DIFFERENCE.name


def test_named_queries_ask_for_registered_measures() -> None:
    asked = load_catalogue()["transfers"].text
    (listed,) = re.findall(r"evaluation\.measure IN \[(.*?)\]", asked)
    names = re.findall(r"'(.*?)'", listed)
    assert set(MEASURED) < set(names)
    assert all(find_measure(name) for name in names)


# -- ranges and labels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "legal", "illegal"),
    [
        (EDGE_OVERLAP, (0.0, 1.0, 1.0 + 1e-9), (-0.01, 1.01)),
        (CMD, (0.0, 7.5), (-0.01,)),
        (FAITHFULNESS, (-3.0, 0.5, 2.17), ()),
    ],
)
def test_a_value_is_legal_within_the_bounds_to_rounding(
    measure: Measure, legal: tuple[float, ...], illegal: tuple[float, ...]
) -> None:
    assert all(measure.holds(value) for value in legal)
    assert not any(measure.holds(value) for value in illegal)


def test_an_axis_is_labelled_with_title_and_unit() -> None:
    assert FAITHFULNESS.label == "Faithfulness"
    assert PERCENT_OF_METRIC.label == "F, percent of the whole model's metric"
    assert LOGIT_DIFFERENCE.label == "Logit difference, logits"
    assert CMD.label == "CMD"


def test_ranges_are_told_in_words() -> None:
    assert [one.range for one in (EDGE_OVERLAP, CMD, FAITHFULNESS)] == [
        "0 to 1", "0 or more", "any",
    ]  # fmt: skip


# -- names -----------------------------------------------------------------------------------------


def test_a_star_stands_for_any_text_and_a_name_that_is_written_out_counts_first() -> None:
    removed = find_measure("F: one-head-removed-from-circuit")
    assert removed is not None
    assert removed.name == "F: *"
    assert find_measure("F: ") is None
    true = find_measure("neighborhood_target_true_nll")
    assert true is not None
    assert true.direction is Direction.LOWER
    other = find_measure("attribute_target_true_nll")
    assert other is not None
    assert other.name == "*_nll"


def test_nothing_is_known_of_a_name_that_nobody_registered() -> None:
    assert find_measure("my_own") is None
    assert (unit_of("my_own"), direction_of("my_own")) == (NOT_REGISTERED, NOT_REGISTERED)
    assert title_of("my_own") == "my own"
    assert (unit_of("random_faithfulness"), direction_of("random_faithfulness")) == (None, None)


# -- values ----------------------------------------------------------------------------------------


def test_a_computed_value_outside_its_range_is_refused() -> None:
    refuse_values([_evaluation("faithfulness", 2.0), _evaluation("my_own", -7.0)])
    with pytest.raises(MeasureOutOfRange, match=r"edge_overlap was .* 1\.5, but its range is 0 to"):
        refuse_values([_evaluation("edge_overlap", 1.5)])
    with pytest.raises(MeasureOutOfRange, match="efficacy"):
        refuse_values((), [_outcome("efficacy", None, 97.0)])


def test_values_from_elsewhere_outside_their_range_are_noted_once_for_a_measure() -> None:
    outcomes = [_outcome("efficacy", 0.1, 97.0), _outcome("efficacy", 2.0, 0.5)]
    assert notes_on_values(
        [_evaluation("cmd", -1.0), _evaluation("faithfulness", -1)], outcomes
    ) == [
        "cmd of -1 is outside its range, 0 or more",
        "efficacy of 97 and of 1 more records is outside its range, 0 to 1",
    ]


# -- what packages add, and the command ------------------------------------------------------------


def _circuits(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).resolve().parents[2])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CIRCUITS_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), root])
    return subprocess.run(
        [sys.executable, "-m", "registry", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with two packages that register measures; one takes a name that is taken."""
    (tmp_path / "fruit.py").write_text(OTHERS)
    for package, what in (("sound", "SOUND"), ("taking", "TAKING")):
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        entry = f"[circuits.measures]\n{package} = fruit:{what}\n"
        (metadata / "entry_points.txt").write_text(entry)
    return tmp_path


def test_measures_of_another_package_are_listed_unless_a_name_is_taken(site: Path) -> None:
    answer = _circuits(site, "measures", "--format", "csv")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert len(lines) == 1 + len(MEASURES) + 2
    assert lines[-2] == "pears,circuit,pears,lower,0 or more,,Something,here"
    assert "the measure 'taking' of the package 'taking' cannot be used" in answer.stderr
    assert "there is another measure 'faithfulness'" in answer.stderr


def test_a_stored_measure_of_another_package_is_shown_with_its_unit(site: Path) -> None:
    circuit = examples.circuit(1)
    with Registry.init(site / ".circuits") as registry:
        registry.record(examples.GPT2, *examples.TASKS, circuit)
        for measure in ("pears: green", "plums"):
            evaluation = _evaluation(measure, 3.0).model_copy(update={"circuit": circuit.id})
            registry.record(evaluation)
    shown = _circuits(site, "show", circuit.id[:8]).stdout
    assert re.search(r"pears: green +3 +pears +lower", shown)
    assert re.search(r"plums +3 +not registered +not registered", shown)


def test_the_command_lists_what_is_asked_for(tmp_path: Path) -> None:
    answer = _circuits(tmp_path, "measures", "--of", "prompt")
    assert "logit_difference" in answer.stdout
    assert "faithfulness" not in answer.stdout
    refused = _circuits(tmp_path, "measures", "--of", "fruit")
    assert refused.returncode == 2
    assert "it must be one of prompt, circuit, part, model, edit" in refused.stderr


def test_all_measures_are_those_of_the_table_where_no_package_adds_any() -> None:
    assert list(all_measures()) == [measure.name for measure in MEASURES]
