"""Results and hyperparameters that EasyEdit published, with the facts their source states."""

from __future__ import annotations

import hashlib

import pytest

from ingest.exchange.importing import FileOutcome as Became
from ingest.exchange.importing import import_files
from ingest.formats.easyedit.hyperparameters import read_hyperparameters
from registry import Registry
from tests.ingest.formats.easyedit_files import (
    REAL,
    imported,
    one,
    table,
)
from tests.ingest.formats.test_importing import needs_files

# -- real files -----------------------------------------------------------------------------------

ULTRA = "gpt-j-6b_UltraEdit_N=10_Sequential=True.json"
WISE, FIRST, SECOND = (
    "wise_zsre_first-record.json", "rome_gpt2-xl_results.json",
    "memit_llama-2-7b_2023-07_results.json",
)  # fmt: skip
PAIRS = {
    ULTRA: "UltraEdit/gpt-j.yaml",
    WISE: "WISE/llama-7b.yaml",
    FIRST: "ROME/gpt2-xl.yaml",
    SECOND: "MEMIT/llama-7b.yaml",
}
CASES: dict[str, list[tuple[str | None, str | None, float | None, float]]] = {
    ULTRA: [
        ("Journal of Clinical Microbiology", "American Society for Microbiology", None, 0.8),
        ("Sling Blade", "Arkansas", None, 0.0),
        ("Jaguar R-D6", "Jaguar Cars", None, 0.5),
        ("Bad Channels", "Full Moon Features", None, 0.6666666666666666),
        ("Apsus Vallis", "Mars", None, 0.0),
        ("Gabb's snail", "Micrarionta", None, 0.75),
        ("Adnan Saleem", "cricketer", None, 0.6666666666666666),
        ("KQIZ-FM", "Amarillo", None, 0.5),
        ("Mihailo Janković", "Serbia", None, 1.0),
        ("Bottled Passion", "Television Broadcasts Limited", None, 0.75),
    ],
    WISE: [("Watts Humphrey", "University of Michigan", 0.3333333333333333, 1.0)],
    FIRST: [
        ("Ray Charles", "violinist", 0.5, 1.0),
        ("Grant Hill", "soccer", 0.0, 1.0),
        ("Ikaalinen", "Swedish", 0.0, 1.0),
    ],
    SECOND: [(None, None, 0.0, 0.5), (None, None, 0.0, 1.0), (None, None, 0.0, 0.5)],
}
MEANS = {
    ULTRA: {
        ("rephrase_acc", "after"): 0.46333333333333326,
        ("rewrite_acc", "after"): 0.5633333333333332,
    },
    WISE: {
        ("rephrase_acc", "before"): 0.3333333333333333,
        ("rewrite_acc", "before"): 0.3333333333333333,
        ("rephrase_acc", "after"): 1.0,
        ("rewrite_acc", "after"): 1.0,
    },
    FIRST: {("rewrite_acc", "before"): 0.16666666666666666, ("rewrite_acc", "after"): 1.0},
    SECOND: {("rewrite_acc", "before"): 0.0, ("rewrite_acc", "after"): 0.6666666666666666},
}
TIMED = {ULTRA: 10, WISE: 1, FIRST: 0, SECOND: 3}
DIGESTS = {
    ULTRA: "03c33e8770275481", WISE: "d72b070e138be18d", FIRST: "205b2310f1a46868",
    SECOND: "b19982e13db9756d",
}  # fmt: skip


@needs_files
class TestRealResults:
    @pytest.fixture(params=CASES, ids=["ultra", "wise", "rome", "memit"])
    def name(self, request: pytest.FixtureRequest) -> str:
        chosen: str = request.param
        return chosen

    def test_every_record_is_an_edit_with_its_case(self, registry: Registry, name: str) -> None:
        found = imported(registry, REAL / name)
        cases = []
        for edit, outcomes in found:
            (rewrite,) = [o for o in outcomes if o.metric == "rewrite_acc"]
            request = edit.request
            case = (request.get("subject"), request.get("target_new"))
            cases.append((*case, rewrite.before, rewrite.after))
        assert cases == CASES[name]
        assert [edit.request["case_id"] for edit, _ in found] == list(range(len(found)))

    def test_figures_have_the_means_and_no_protocol(self, registry: Registry, name: str) -> None:
        outcomes = [o for _, some in imported(registry, REAL / name) for o in some]
        figures = [o for o in outcomes if o.protocol == "unknown"]
        means = {}
        for metric in {o.metric for o in figures}:
            for side in ("before", "after"):
                values = [getattr(o, side) for o in figures if o.metric == metric]
                given = [value for value in values if value is not None]
                if given:
                    assert len(given) == len(CASES[name])
                    means[metric, side] = sum(given) / len(given)
        assert means == pytest.approx(MEANS[name], abs=1e-15)
        timed = [o for o in outcomes if o.metric == "time_seconds"]
        assert len(timed) == TIMED[name]
        assert {o.protocol for o in outcomes} <= {"unknown", "wall-clock", "computed-token-match"}

    def test_lists_have_a_length_and_scalars_have_none(self, registry: Registry, name: str) -> None:
        outcomes = [o for _, some in imported(registry, REAL / name) for o in some]
        lengths = {o.n_prompts for o in outcomes if o.metric == "rewrite_acc"}
        assert lengths == ({None} if name == SECOND else {1})

    def test_the_original_and_its_hash_are_kept(self, registry: Registry, name: str) -> None:
        ((edit, _), *_) = imported(registry, REAL / name)
        (file,) = registry.ledger.edit_files(edit.id)
        assert file.sha256.startswith(DIGESTS[name])
        assert registry.artifact(file.sha256) == (REAL / name).read_bytes()

    def test_locality_is_matched_where_it_was_taken_twice(self, registry: Registry) -> None:
        ((_, outcomes),) = imported(registry, REAL / WISE)
        assert table(outcomes)["locality/neighborhood"] == ("computed-token-match", None, 1.0, 1)
        report = one(registry, REAL / ULTRA)
        assert any("locality/neighborhood is not scored" in note for note in report.notes)
        assert any("scored all of them on the last" in note for note in report.notes)
        assert any("10 of 10 records have no pre" in note for note in report.notes)

    @pytest.mark.parametrize(
        ("name", "model", "editor", "components"),
        [
            (ULTRA, "gpt-j-6b", "UltraEdit", [f"m{layer}" for layer in range(18, 27)]),
            (WISE, "llama-2-7b", "WISE", ["m27"]),
            (FIRST, "gpt2-xl", "ROME", ["m17"]),
            (SECOND, "llama-2-7b", "MEMIT", ["m4", "m5", "m6", "m7", "m8"]),
        ],
    )
    def test_hyperparameters_name_model_editor_and_parts(
        self, registry: Registry, name: str, model: str, editor: str, components: list[str]
    ) -> None:
        said = {"hyperparameters": REAL / "hparams" / PAIRS[name]}
        (report,) = import_files(registry, [REAL / name], said)
        assert report.outcome is Became.STORED
        for edit in registry.edits():
            assert (edit.model, edit.editor) == (model, editor)
            assert list(edit.components) == components
            assert edit.restriction == "layers"

    def test_a_model_that_the_user_corrects_is_uncertain(self, registry: Registry) -> None:
        ((edit, _),) = imported(
            registry,
            REAL / WISE,
            model="llama-3.1-8b-instruct",
            hyperparameters=REAL / "hparams" / PAIRS[WISE],
        )
        assert "model uncertain" in (edit.note or "")
        assert edit.model == "llama-3.1-8b-instruct"

    def test_a_whole_folder_imports(self, registry: Registry) -> None:
        reports = list(import_files(registry, [REAL], {"model": "gpt2"}))
        became = {report.path.relative_to(REAL).as_posix(): report.outcome for report in reports}
        assert {n for n, what in became.items() if what is Became.STORED} == set(CASES)
        skipped = {n for n, what in became.items() if what is Became.SKIPPED}
        assert skipped == {f"hparams/{n}" for n in PAIRS.values()} | {"LICENSE", "SOURCE.md"}


@needs_files
@pytest.mark.parametrize(
    ("name", "digest", "alg", "model", "layers", "template", "modules", "given_by"),
    [
        (
            "MEMIT/llama-7b.yaml", "f7b27babb80d3c78", "MEMIT", "./hugging_cache/llama-2-7b",
            (4, 5, 6, 7, 8), "model.layers.{}.mlp.down_proj",
            [f"model.layers.{layer}.mlp.down_proj" for layer in (4, 5, 6, 7, 8)], "layers",
        ),
        (
            "ROME/gpt2-xl.yaml", "04995cf82cc5172f", "ROME", "./hugging_cache/gpt2-xl",
            (17,), "transformer.h.{}.mlp.c_proj", ["transformer.h.17.mlp.c_proj"], "layers",
        ),
        (
            "UltraEdit/gpt-j.yaml", "5248934cdaa67af2", None, "your/path/gpt-j-6b", None, None,
            [f"transformer.h.{layer}.mlp.fc_out" for layer in range(18, 27)], "edit_modules",
        ),
        (
            "WISE/llama-7b.yaml", "0b55bf7338a8f573", "WISE", "./hugging_cache/llama-2-7b",
            None, None, ["model.layers[27].mlp.down_proj.weight"], "inner_params",
        ),
    ],
)  # fmt: skip
def test_real_hyperparameters_have_the_facts_their_source_states(
    name: str, digest: str, alg: str | None, model: str, layers: tuple[int, ...] | None,
    template: str | None, modules: list[str], given_by: str,
) -> None:  # fmt: skip
    path = REAL / "hparams" / name
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest)
    found = read_hyperparameters(path)
    assert (found.alg_name, found.model_name, found.layers) == (alg, model, layers)
    assert (found.rewrite_module_tmp, found.given_by) == (template, given_by)
    assert list(found.edited_modules) == modules
