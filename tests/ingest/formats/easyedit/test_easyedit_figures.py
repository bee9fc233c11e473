"""Which numbers of an editor's results are figures, and what they are figures of."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange.importing import FileOutcome as Became
from ingest.exchange.importing import FileReport, import_files
from registry import Registry
from tests.ingest.formats.easyedit_files import imported, one, record, table, written

NLL, COMPARED = "teacher-forced-mean-token-nll", "computed-from-nll"
COUNTERFACT = {
    "case_id": 3,
    "pararel_idx": 7,
    "requested_rewrite": {
        "prompt": "{} lies in", "relation_id": "P1", "subject": "Rua",
        "target_new": {"str": "Peru", "id": "Q1"}, "target_true": {"str": "Chile", "id": "Q2"},
    },
    "paraphrase_prompts": ["Rua is in"],
    "neighborhood_prompts": ["Lima lies in"],
    "attribute_prompts": ["Cusco lies in"],
    "generation_prompts": ["Rua is known for"],
}  # fmt: skip
DATA_SETS: dict[str, list[dict[str, Any]]] = {
    "CounterFact": [COUNTERFACT, {**COUNTERFACT, "case_id": 4}],
    "MQuAKE": [
        {
            "case_id": 1,
            "requested_rewrite": [COUNTERFACT["requested_rewrite"]],
            "questions": ["In which land does Rua lie?"],
            "answer": "Chile", "new_answer": "Peru",
            "single_hops": [{"question": "Where?", "answer": "Chile", "answer_alias": []}],
        }
    ],
    "ZsRE": [
        {
            "subject": "Rua", "src": "Where does Rua lie?", "pred": "Chile", "alt": "Peru",
            "rephrase": "In which land is Rua?", "answers": ["Chile"], "loc": "nq question: who?",
            "loc_ans": "Nobody", "cond": "Chile >> Peru || Where does Rua lie?",
        }
    ],
    "KnowEdit": [
        {
            "subject": "Rua", "prompt": "Rua lies in", "target_new": "Peru",
            "ground_truth": ["Chile"], "portability": {"Reasoning": []},
            "locality": {"Relation_Specificity": [{"prompt": "a", "ground_truth": [["b"]]}]},
        },
        {
            "subject": "Rua", "prompt": "Rua lies in", "target_new": "Peru",
            "ground_truth": ["Chile"], "portability": {}, "locality": {},
        },
    ],
}  # fmt: skip


def case(**changes: Any) -> dict[str, Any]:
    """A record as ROME writes it."""
    likelihoods = {
        "rewrite_prompts_probs": [{"target_new": 1.0, "target_true": 3.0}],
        "paraphrase_prompts_probs": [
            {"target_new": 2.0, "target_true": 1.0}, {"target_new": 0.5, "target_true": 4.0},
        ],
        "neighborhood_prompts_probs": [
            {"target_new": 5.0, "target_true": 2.0}, {"target_new": 3.0, "target_true": 3.0},
        ],
        "attribute_prompts_probs": [{"target_new": 0.25, "target_true": 6.0}],
    }  # fmt: skip
    return record(post=likelihoods, pre={}, **changes)


class TestLikelihoods:
    def test_they_are_log_likelihoods_and_turned_for_neighbours(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        ((_, outcomes),) = imported(registry, written(tmp_path, case()))

        def p(nll: float) -> float:
            return math.exp(-nll)

        paraphrased = (p(2.0) - p(1.0) + p(0.5) - p(4.0)) / 2
        assert table(outcomes) == {
            "rewrite_target_new_nll": (NLL, None, 1.0, 1),
            "rewrite_target_true_nll": (NLL, None, 3.0, 1),
            "rewrite_success": (COMPARED, None, 1.0, 1),
            "rewrite_diff": (COMPARED, None, pytest.approx(p(1.0) - p(3.0)), 1),
            "paraphrase_target_new_nll": (NLL, None, 1.25, 2),
            "paraphrase_target_true_nll": (NLL, None, 2.5, 2),
            "paraphrase_success": (COMPARED, None, 0.5, 2),
            "paraphrase_diff": (COMPARED, None, pytest.approx(paraphrased), 2),
            "neighborhood_target_new_nll": (NLL, None, 4.0, 2),
            "neighborhood_target_true_nll": (NLL, None, 2.5, 2),
            "neighborhood_success": (COMPARED, None, 0.5, 2),  # a draw is none
            "neighborhood_diff": (COMPARED, None, pytest.approx((p(2.0) - p(5.0)) / 2), 2),
            "attribute_target_new_nll": (NLL, None, 0.25, 1),
            "attribute_target_true_nll": (NLL, None, 6.0, 1),
        }

    def test_before_and_after_are_one_outcome_each(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        before = {"rewrite_prompts_probs": [{"target_new": 6.0, "target_true": 0.5}]}
        content = {**case(), "pre": before}
        path = written(tmp_path, content)
        ((_, outcomes),) = imported(registry, path, protocol="generation")
        found = table(outcomes)
        assert found["rewrite_target_new_nll"] == (NLL, 6.0, 1.0, 1)
        assert found["rewrite_success"] == (COMPARED, 0.0, 1.0, 1)

    def test_a_missing_likelihood_leaves_out_its_prompt(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        pairs = [{"target_new": 1.0, "target_true": 2.0}, {"target_new": None, "target_true": 1.0}]
        post = {"rewrite_prompts_probs": pairs, "paraphrase_prompts_probs": []}
        ((_, outcomes),) = imported(registry, written(tmp_path, record(pre={}, post=post)))
        assert table(outcomes)["rewrite_success"] == (COMPARED, None, 1.0, 1)
        assert {outcome.metric.partition("_")[0] for outcome in outcomes} == {"rewrite"}

    @pytest.mark.parametrize(
        ("pairs", "says"),
        [
            (
                [{"target_new": -0.5, "target_true": 1.0}],
                "a negative log-likelihood cannot be below 0",
            ),
            ([{"target_new": 1.0}], r"probs\[0\] is no object with target_new and target_true"),
            ([{"target_new": "x", "target_true": 1.0}], "'x', no number"),
            ([1.0], r"probs\[0\] is no object"),
            ({"target_new": 1.0, "target_true": 1.0}, "is dict, no list of likelihoods"),
        ],
    )
    def test_what_is_no_likelihood_is_refused(
        self, registry: Registry, tmp_path: Path, pairs: Any, says: str
    ) -> None:
        post = {"rewrite_prompts_probs": pairs}
        report = one(registry, written(tmp_path, record(post=post)))
        assert report.outcome is Became.REFUSED
        assert re.search(says, report.notes[0])
        assert "record 0: rewrite_prompts_probs" in report.notes[0]

    def test_other_lists_of_objects_are_told(self, registry: Registry, tmp_path: Path) -> None:
        post = {"rewrite_acc": [1.0], "hops": [{"score": 0.5}], "deep": {"er": [[{"score": 1}]]}}
        report = one(registry, written(tmp_path, record(post=post, more=[{"x": 1}])))
        assert "omitted, because they are lists of unknown objects: deep/er, hops, more" in (
            report.notes
        )
        (edit,) = registry.edits()
        assert {one.metric for one in registry.outcomes(edit.id)} == {"rewrite_acc"}


def test_a_percent_where_a_share_is_meant_is_imported_and_noted(
    registry: Registry, tmp_path: Path
) -> None:
    path = written(tmp_path, record(post={"rewrite_acc": [97.0]}))
    report = one(registry, path)
    assert report.outcome is Became.STORED
    assert "rewrite_acc of 97 is outside its range, 0 to 1" in report.notes


class TestBookkeeping:
    def test_it_is_no_metric(self, registry: Registry, tmp_path: Path) -> None:
        kept = {
            "num_edits": 1, "grouped_case_ids": [0], "pararel_idx": 3, "seed": 42, "layer": 5,
            "n_prompts": 7, "lr": 0.5,
        }  # fmt: skip
        post = {"rewrite_acc": [1.0], "case_id": 4, "time": 2.0, "ngram_entropy": 6.5}
        path = written(tmp_path, record(pre={"exec_time": 1.0}, post=post, es=0.5, **kept))
        ((edit, outcomes),) = imported(registry, path)
        assert {o.metric: o.after for o in outcomes} == {
            "rewrite_acc": 1.0, "ngram_entropy": 6.5, "es": 0.5,
        }  # fmt: skip
        assert "num_edits" not in edit.request

    def test_it_is_told(self, registry: Registry, tmp_path: Path) -> None:
        report = one(registry, written(tmp_path, record(num_edits=1, pararel_idx=3)))
        assert (
            "omitted, because these are settings and not results: num_edits, pararel_idx"
            in report.notes
        )

    def test_an_edit_among_others_is_another_edit_and_has_no_time_of_its_own(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        alone = one(registry, written(tmp_path, record(num_edits=1, time=2.0), "a.json"))
        among = one(registry, written(tmp_path, record(num_edits=900, time=2.0), "b.json"))
        first, second = registry.edits()
        assert (first.request.get("num_edits"), second.request["num_edits"]) == (None, 900)
        timed = [
            [one.after for one in registry.outcomes(edit.id) if one.metric == "time_seconds"]
            for edit in (first, second)
        ]
        assert timed == [[2.0], []]
        told = "time omitted for 1 records: it covers several edits together"
        assert [told in report.notes for report in (alone, among)] == [False, True]


class TestDataSets:
    @pytest.fixture(params=DATA_SETS)
    def shape(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    def read(self, registry: Registry, path: Path) -> FileReport:
        (report,) = import_files(registry, [path], {"model": "gpt2"})
        return report

    def test_one_that_is_named_is_refused_by_its_name(
        self, registry: Registry, tmp_path: Path, shape: str
    ) -> None:
        report = self.read(registry, written(tmp_path, DATA_SETS[shape], "data.json"))
        assert (report.outcome, report.format) == (Became.REFUSED, "easyedit-results")
        n = len(DATA_SETS[shape])
        assert report.notes[0].startswith(
            f"data.json is a data set of requests in the format of {shape} ({n} records): nothing"
            " was edited or measured"
        )
        assert registry.edits() == []

    def test_one_beside_results_is_passed_over(
        self, registry: Registry, tmp_path: Path, shape: str
    ) -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        written(folder, DATA_SETS[shape], "a.json")
        written(folder, record(), "b.json")
        reports = list(import_files(registry, [folder], {"model": "gpt2"}))
        assert [report.outcome for report in reports] == [Became.SKIPPED, Became.STORED]
        assert f"in the format of {shape}" in reports[0].notes[0]

    def test_requests_alone_are_no_edits(self, registry: Registry, tmp_path: Path) -> None:
        bare = {key: record()[key] for key in ("case_id", "requested_rewrite")}
        report = self.read(registry, written(tmp_path, [bare, {**bare, "post": {}}]))
        assert report.outcome is Became.REFUSED
        assert "is a data set of requests (2 records)" in report.notes[0]

    def test_one_that_an_editor_measured_is_read(self, registry: Registry, tmp_path: Path) -> None:
        measured = {**COUNTERFACT, "post": {"rewrite_acc": [1.0]}}
        ((_, outcomes),) = imported(registry, written(tmp_path, [measured]))
        assert [outcome.metric for outcome in outcomes] == ["rewrite_acc"]


def test_a_figure_that_holds_no_number_is_told_of(registry: Registry, tmp_path: Path) -> None:
    post = {"rewrite_acc": "0.5", "rephrase_acc": [], "my_share": "0.25", "rewrite_ppl": "low",
            "city": "Lima", "portability_acc": 1.0}  # fmt: skip
    report = one(registry, written(tmp_path, record(post=post)))
    assert (
        "omitted, because they contain no number: my_share, rephrase_acc, rewrite_acc, rewrite_ppl"
        in (report.notes)
    )


@pytest.mark.parametrize("odd", ["NaN", "1e999", "9" * 400])
def test_a_number_that_is_not_finite_is_missing_and_told_of(
    registry: Registry, tmp_path: Path, odd: str
) -> None:
    text = json.dumps([record(post={"rewrite_acc": [0.25, 1.0]})]).replace("0.25", odd)
    path = written(tmp_path, text)
    ((_, outcomes),) = imported(registry, path)
    assert table(outcomes)["rewrite_acc"] == ("unknown", 0.0, 1.0, 1)
    (note,) = (note for note in one(registry, path).notes if "not finite" in note)
    assert "record 0: rewrite_acc (" in note


def test_an_infinite_likelihood_is_told_of_and_one_too_large_refused(
    registry: Registry, tmp_path: Path
) -> None:
    pairs = [{"target_new": 1.5, "target_true": 2.5}, {"target_new": 1.25, "target_true": 3.5}]
    text = json.dumps([record(pre={}, post={"rewrite_prompts_probs": pairs})])
    report = one(registry, written(tmp_path, text.replace("1.25", "1e999")))
    assert any("rewrite_prompts_probs[1]: target_new (inf)" in note for note in report.notes)
    large = written(tmp_path, text.replace("1.25", "1e308").replace("1.5", "1e308"))
    report = one(registry, large)
    assert report.outcome is Became.REFUSED
    assert "record 0: rewrite_prompts_probs are larger together" in report.notes[0]


def test_a_part_that_is_called_n_has_figures(registry: Registry, tmp_path: Path) -> None:
    post = {"locality": {"n_acc": [0.5]}, "n_steps": 3}
    ((_, outcomes),) = imported(registry, written(tmp_path, record(pre={}, post=post)))
    assert {one.metric for one in outcomes} == {"locality/n_acc"}


def test_an_error_of_a_record_names_it(registry: Registry, tmp_path: Path) -> None:
    post = {"x" * 5_999: 1.0}
    report = one(registry, written(tmp_path, [record(), record(post=post)]))
    assert report.outcome is Became.REFUSED
    assert "ROME_results.json, record 1: metric: a name of 5,999 bytes" in report.notes[0]


@pytest.mark.parametrize("beside", [1.0, 0.5])
def test_a_figure_beside_post_and_in_it_must_be_one(
    registry: Registry, tmp_path: Path, beside: float
) -> None:
    content = record(post={"rewrite_acc": 1.0}, rewrite_acc=beside)
    report = one(registry, written(tmp_path, content))
    assert (report.outcome is Became.STORED) is (beside == 1.0)
