"""EasyEdit's results into a real registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.exchange.importing import FileOutcome as Became
from ingest.exchange.importing import import_files
from ingest.formats.base import Context, Said
from ingest.formats.easyedit.results import FORMAT
from registry import Registry
from registry.cli.main import main
from registry.records import Circuit, Level, Node
from tests.few import n_examples
from tests.ingest.formats.easyedit_files import (
    FILES,
    ROME,
    imported,
    one,
    record,
    table,
    written,
)


class TestRecords:
    def test_every_figure_is_an_outcome_with_its_protocol(self, registry: Registry) -> None:
        ((edit, outcomes),) = imported(
            registry, FILES / "results.json", hyperparameters=ROME, task="capitals"
        )
        forced = "decoder_only_teacher_forcing"
        assert table(outcomes) == {
            "rewrite_acc": (forced, 0.0, 1.0, 1),
            "rephrase_acc": ("unknown", 0.25, 0.75, 1),
            "locality/neighborhood_acc": ("pre_post_argmax_token_match", None, 0.75, 2),
            "portability/one_hop_acc": ("unknown", 0.25, 0.75, 2),
            "fluency/ngram_entropy": ("unknown", None, 6.25, None),
            "time_seconds": ("wall-clock", None, 1.5, None),
        }
        assert {outcome.task for outcome in outcomes} == {"capitals"}
        assert (edit.model, edit.editor, edit.restriction) == ("gpt2", "ROME", "layers")
        assert (edit.components, edit.note) == (("m5",), None)
        assert edit.request["subject"] == "The lighthouse of Rua"
        assert (edit.request["target_new"], edit.request["case_id"]) == ("Peru", 0)
        assert edit.hyperparameters["v_lr"] == 0.5

    def test_the_users_protocol_stands_where_the_file_has_none(self, registry: Registry) -> None:
        ((_, outcomes),) = imported(registry, FILES / "results.json", protocol="generation")
        protocols = {outcome.metric: outcome.protocol for outcome in outcomes}
        assert protocols["rewrite_acc"] == "decoder_only_teacher_forcing"
        assert protocols["rephrase_acc"] == "generation"

    def test_figures_of_two_protocols_are_not_before_and_after(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        content = record()
        for side, protocol in (("pre", "icl"), ("post", "judge")):
            content[side]["metric_meta"] = {"rewrite": {"protocol": protocol}}
        ((_, outcomes),) = imported(registry, written(tmp_path, content))
        assert [(o.protocol, o.before, o.after) for o in outcomes] == [
            ("icl", 0.0, None), ("judge", None, 1.0),
        ]  # fmt: skip

    def test_scalars_and_lists_are_read_alike(self, registry: Registry, tmp_path: Path) -> None:
        post = {"rewrite_acc": 0.5, "rephrase_acc": [1.0, [0.0, None]], "portability": None}
        ((_, outcomes),) = imported(registry, written(tmp_path, record(post=post)))
        assert table(outcomes) == {
            "rewrite_acc": ("unknown", 0.0, 0.5, None), "rephrase_acc": ("unknown", None, 0.5, 2),
        }  # fmt: skip

    @pytest.mark.parametrize("nothing", ["NaN", "null", "[]", "[null]", "[NaN]", '"none"'])
    def test_what_is_no_number_is_missing(
        self, registry: Registry, tmp_path: Path, nothing: str
    ) -> None:
        text = json.dumps(record(post={"rewrite_acc": "HERE"})).replace('"HERE"', nothing)
        ((_, outcomes),) = imported(registry, written(tmp_path, text))
        assert table(outcomes) == {"rewrite_acc": ("unknown", 0.0, None, 1)}

    @pytest.mark.parametrize("missing", ["requested_rewrite", "pre", "post", "case_id"])
    def test_any_part_may_be_missing(
        self, registry: Registry, tmp_path: Path, missing: str
    ) -> None:
        content = record()
        del content[missing]
        report = one(registry, written(tmp_path, [content]))
        assert (report.outcome, report.edits) == (Became.STORED, 1)
        told = [note for note in report.notes if f"have no {missing}" in note]
        assert len(told) == (missing != "case_id")

    def test_figures_beside_pre_and_post_are_kept(self, registry: Registry, tmp_path: Path) -> None:
        path = written(tmp_path, record(es=0.75, texts=["a"], post={"rewrite_gen_content": "b"}))
        ((_, outcomes),) = imported(registry, path)
        assert table(outcomes) == {
            "rewrite_acc": ("unknown", 0.0, None, 1), "es": ("unknown", None, 0.75, None),
        }  # fmt: skip

    def test_equal_records_stay_two_edits(self, registry: Registry, tmp_path: Path) -> None:
        report = one(registry, written(tmp_path, [record(), record()]))
        assert (report.edits, len(registry.edits())) == (2, 2)

    def test_edits_that_name_no_request_are_told_apart_by_file(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        bare = record()
        del bare["requested_rewrite"]
        first = written(tmp_path, [bare], "a.json")
        (tmp_path / "b.json").write_bytes(first.read_bytes())
        other = written(tmp_path, [{**bare, "time": 2.0}], "c.json")
        became = [one(registry, path).outcome for path in (first, tmp_path / "b.json", other)]
        assert became == [Became.STORED, Became.KNOWN, Became.STORED]
        assert len(registry.edits()) == 2

    def test_the_same_edit_measured_again_gains_outcomes_and_the_file(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        one(registry, written(tmp_path, record(), "a.json"), method="ROME")
        again = record(post={"rewrite_acc": [0.5]})
        ((edit, outcomes),) = imported(
            registry, written(tmp_path, again, "b.json"), method="ROME", protocol="generation"
        )
        assert [(o.protocol, o.after) for o in outcomes] == [("unknown", 1.0), ("generation", 0.5)]
        assert [file.name for file in registry.ledger.edit_files(edit.id)] == ["a.json", "b.json"]

    @pytest.mark.parametrize("name", ["ROME_log.json", "ROME_log.jsonl"])
    def test_records_may_stand_one_a_line(
        self, registry: Registry, tmp_path: Path, name: str
    ) -> None:
        records = [record(case_id=0), record(case_id=1, post={"rewrite_acc": [0.5]})]
        lines = "\n".join(map(json.dumps, records)) + "\n\n"
        found = imported(registry, written(tmp_path, lines, name))
        figures = {edit.request["case_id"]: table(outcomes) for edit, outcomes in found}
        assert figures[0]["rewrite_acc"] == ("unknown", 0.0, 1.0, 1)
        assert figures[1]["rewrite_acc"] == ("unknown", 0.0, 0.5, 1)
        alike = one(registry, written(tmp_path, records))
        assert alike.edits == 2
        assert len(registry.edits()) == 2

    def test_records_may_lie_in_metrics(self, registry: Registry, tmp_path: Path) -> None:
        records = [record(case_id=0), record(case_id=1)]
        plain = one(registry, written(tmp_path, records))
        assert (plain.outcome, plain.edits) == (Became.STORED, 2)
        known = registry.edits()
        for around in (
            {"method": "ROME", "metrics": records},
            [{"case_id": "a", "metrics": inside} for inside in records],
        ):
            report = one(registry, written(tmp_path, around, "ROME_again.json"))
            assert report.edits == 2
        assert registry.edits() == known

    @pytest.mark.parametrize("metrics", [7, [7], [], {}, {"loss": 0.5}, [[]], [{"metrics": []}]])
    def test_metrics_of_something_else_are_refused(
        self, registry: Registry, tmp_path: Path, metrics: Any
    ) -> None:
        report = one(registry, written(tmp_path, {"rewrite_acc": 1, "metrics": metrics}))
        assert report.outcome is Became.REFUSED
        assert "pre, post" in report.notes[0] or "no record" in report.notes[0]

    def test_a_line_that_breaks_off_is_named(self, registry: Registry, tmp_path: Path) -> None:
        lines = json.dumps(record()) + '\n{"pre": {"rewrite_acc"'
        report = one(registry, written(tmp_path, lines))
        assert report.outcome is Became.REFUSED
        assert "ROME_results.json, line 2, is no JSON" in report.notes[0]


class TestLocality:
    @pytest.mark.parametrize(
        ("before", "after", "share"),
        [
            ([[1, 2, 3, 4]], [[1, 9, 3, 4]], 0.75),
            ([1, 2], [1, 3], 0.5),
            ([[1, 2], [3]], [[1, 2], [4]], 0.5),
            ([[1, 2]], [[1, 2, 3, 4]], 0.5),
            ([[]], [[]], 1.0),
            (["Lima", "Oslo"], ["Lima", "Rome"], 0.5),
        ],
    )
    def test_outputs_before_and_after_are_matched(
        self, registry: Registry, tmp_path: Path, before: Any, after: Any, share: float
    ) -> None:
        content = record(
            pre={"locality": {"neighborhood_output": before}},
            post={"locality": {"neighborhood_output": after}},
        )
        ((_, outcomes),) = imported(registry, written(tmp_path, content))
        n_prompts = len(before) if isinstance(before[0], list | str) else 1
        assert table(outcomes) == {
            "locality/neighborhood": ("computed-token-match", None, share, n_prompts)
        }

    @pytest.mark.parametrize("before", [None, [], [[1], [2]], 7, "text"])
    def test_outputs_that_do_not_pair_are_not_scored(
        self, registry: Registry, tmp_path: Path, before: Any
    ) -> None:
        content = record(
            pre={"locality": {"neighborhood_output": before}},
            post={"rewrite_acc": [1.0], "locality": {"neighborhood_output": [[1, 2]]}},
        )
        report = one(registry, written(tmp_path, content))
        assert any("locality/neighborhood is not scored" in note for note in report.notes)
        (edit,) = registry.edits()
        assert [outcome.metric for outcome in registry.outcomes(edit.id)] == ["rewrite_acc"]

    def test_a_figure_in_the_file_goes_before_a_computed_one(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        outputs = {"neighborhood_output": [[1, 2]]}
        content = record(
            pre={"locality": outputs},
            post={"locality": {**outputs, "neighborhood_acc": 0.25}},
        )
        ((_, outcomes),) = imported(registry, written(tmp_path, content))
        assert table(outcomes) == {"locality/neighborhood_acc": ("unknown", None, 0.25, None)}


class TestModelAndEditor:
    def test_the_model_is_that_of_the_hyperparameters(self, registry: Registry) -> None:
        (report,) = import_files(registry, [FILES / "results.json"], {"hyperparameters": ROME})
        assert report.outcome is Became.STORED
        assert [edit.model for edit in registry.edits()] == ["gpt2"]
        assert "transformer.h.5.mlp.c_proj read as m5" in report.notes

    def test_without_either_the_model_is_asked_for(self, registry: Registry) -> None:
        (report,) = import_files(registry, [FILES / "results.json"], {})
        assert report.outcome is Became.REFUSED
        assert "--model" in report.notes[0]

    def test_another_model_than_the_hyperparameters_is_uncertain(self, registry: Registry) -> None:
        ((edit, _),) = imported(
            registry, FILES / "results.json", model="gpt2-xl", hyperparameters=ROME
        )
        assert edit.model == "gpt2-xl"
        assert edit.note == "model uncertain: the hyperparameters are for gpt2, not gpt2-xl"

    @pytest.mark.parametrize(
        ("name", "editor"),
        [
            ("rome_results.json", "ROME"),
            ("R-ROME_gpt2.json", "R-ROME"),
            ("gpt2_UltraEdit_N=10.json", "UltraEdit"),
            ("chrome.json", "unknown"),
        ],
    )
    def test_an_editor_nobody_names_is_read_from_the_files_name(
        self, registry: Registry, tmp_path: Path, name: str, editor: str
    ) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        ((edit, _),) = imported(registry, written(folder, record(), name))
        assert edit.editor == editor

    def test_an_editor_is_read_from_a_folders_name_last(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        (tmp_path / "MEMIT").mkdir()
        ((edit, _),) = imported(registry, written(tmp_path / "MEMIT", record(), "results.json"))
        assert edit.editor == "MEMIT"

    def test_what_the_user_says_of_the_editor_wins(self, registry: Registry) -> None:
        report = one(registry, FILES / "results.json", method="MEMIT", hyperparameters=ROME)
        assert [edit.editor for edit in registry.edits()] == ["MEMIT"]
        assert any("editor MEMIT, but" in note for note in report.notes)

    def test_without_hyperparameters_no_part_is_linked(self, registry: Registry) -> None:
        report = one(registry, FILES / "results.json")
        (edit,) = registry.edits()
        assert (edit.components, edit.restriction) == ((), None)
        assert any("no hyperparameters are given" in note for note in report.notes)


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ([], "holds no record"),
            ([1], "record 0 is no object"),
            ([record(), {"case_id": 1}], "record 1 is no object"),
            ([{"pre": {"rewrite_acc": [0.0]}}], "only results from before an edit"),
            (record(post=[1]), "post is list, no object"),
            (record(pre="x"), "pre is str, no object"),
            (record(requested_rewrite=["a"]), "requested_rewrite is list"),
            (record(case_id=[1]), "case_id is list"),
            (record(post={"locality": [1]}), "locality is list"),
            (record(post={"metric_meta": {"rewrite": 1}}), "metric_meta of rewrite"),
            (record(post={"rewrite_acc": 1.0}, rewrite_acc=0.5), "0.5 next to post and 1 in it"),
            (record(post={"rewrite_acc": [1e308, 1e308]}), "larger than a number can be"),
            (record(post={"": 1.0}), "metric"),
            (record(requested_rewrite={"prompt": "\ud800"}), "is not JSON"),
            ('{"rewrite_acc": ' + "[" * 3000, "nested too deeply"),
            ('[{"rewrite_acc": 1', "no JSON"),
        ],
    )
    def test_malformed_results_are_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, content: Any, says: str
    ) -> None:
        path = written(tmp_path, content)
        (report,) = import_files(registry, [path], {"model": "gpt2"}, format=FORMAT)
        assert report.outcome is Became.REFUSED
        assert says in report.notes[0]
        assert registry.edits() == []

    @pytest.mark.parametrize("depth", [300, 600, 900, 960, 980])
    def test_deep_nesting_is_read_or_refused(
        self, registry: Registry, tmp_path: Path, depth: int
    ) -> None:
        deep = "[" * depth + "]" * depth
        text = json.dumps(record(requested_rewrite={"prompt": "DEEP"}, post={"x": "DEEP"}))
        report = one(registry, written(tmp_path, text.replace('"DEEP"', deep)))
        assert report.outcome in {Became.STORED, Became.REFUSED}
        assert len(registry.edits()) == (report.outcome is Became.STORED)


@settings(
    max_examples=n_examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_files_give_records_or_one_clear_reason(
    data: st.DataObject, tmp_path: Path, registry: Registry
) -> None:
    contents = [(FILES / "results.json").read_bytes(), ROME.read_bytes()]
    changed = data.draw(st.sampled_from([0, 1]))
    mutated = bytearray(contents[changed])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=8))
        mutated = mutated or bytearray(b"x")
    contents[changed] = bytes(mutated)
    paths = [tmp_path / "r.json", tmp_path / "h.yaml"]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    said = {"model": "gpt2", "hyperparameters": paths[1]}
    (report,) = import_files(registry, paths[:1], said, format=FORMAT, dry_run=True)
    assert report.outcome in {Became.READABLE, Became.REFUSED}
    assert (report.edits == 1) is (report.outcome is Became.READABLE)


class TestGraph:
    def test_an_imported_edit_is_found_by_the_parts_it_modified(
        self, registry: Registry, capsys: pytest.CaptureFixture[str]
    ) -> None:
        circuit = Circuit(
            model="gpt2", task="capitals", method="published", level=Level.NODE,
            nodes=(Node(component="m5", effect=0.5), Node(component="a9.h6")),
        )  # fmt: skip
        registry.record(circuit)
        ((edit, _),) = imported(
            registry, FILES / "results.json", hyperparameters=ROME, task="capitals"
        )
        (touching,) = registry.query("edits-touching", circuit=circuit.id).to_dicts()
        assert (touching["edit"], touching["editor"]) == (edit.id, "ROME")
        assert touching["components"] == ["gpt2/m5"]
        (risk,) = registry.query("tasks-at-risk", edit=edit.id).to_dicts()
        assert (risk["task"], risk["components"]) == ("capitals", ["gpt2/m5"])
        assert {outcome["metric"] for outcome in risk["outcomes"]} >= {"rewrite_acc"}
        home = str(registry.settings.home)
        assert main(["--home", home, "edits", "show", edit.id, "--format", "json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["edit"]["components"] == ["m5"]
        assert [file["name"] for file in shown["files"]] == ["results.json", "gpt2.yaml"]
        assert main(["--home", home, "edits", "list", "--format", "json"]) == 0
        assert [row["edit"] for row in json.loads(capsys.readouterr().out)] == [edit.id]

    def test_an_attached_edit_and_an_imported_one_bear_the_same_fields(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """What import stores of an edit is what ``edits attach`` stores of the same."""
        ((edit, outcomes),) = imported(registry, FILES / "results.json", hyperparameters=ROME)
        fields = edit.model_dump(mode="json", exclude={"run"})  # nobody attaches for a run
        fields["outcomes"] = [outcome.model_dump(exclude={"edit"}) for outcome in outcomes]
        path = written(tmp_path, fields, "edit.json")
        home = str(registry.settings.home)
        assert main(["--home", home, "edits", "attach", "--file", str(path)]) == 0
        assert registry.edits() == [edit]
        assert registry.outcomes(edit.id) == outcomes


def test_a_file_is_hashed_once_however_many_of_its_records_lack_their_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ROME_results.json"
    path.write_text(json.dumps([{"post": {"rewrite_acc": at / 50}} for at in range(50)]))
    read: list[Path] = []
    whole = Path.read_bytes

    def counted(file: Path) -> bytes:
        read.append(file)
        return whole(file)

    monkeypatch.setattr(Path, "read_bytes", counted)
    found = FORMAT.read(path, Context(Said(model="gpt2", method="ROME")))
    assert len(found.edits) == 50
    assert "record 49 of file" in str(found.edits[49].note)
    assert read == [path]
