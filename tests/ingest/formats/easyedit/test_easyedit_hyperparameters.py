"""EasyEdit's hyperparameters: what they name, and which parts of a model those are."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from ingest.exchange.importing import FileOutcome as Became
from ingest.exchange.importing import import_files
from ingest.formats.base import Limits
from ingest.formats.easyedit.hyperparameters import parts_of, read_hyperparameters
from registry import Registry
from registry.errors import BadInput
from registry.records import Model
from tests.ingest.formats.easyedit_files import (
    FILES,
    ROME,
    imported,
    one,
    record,
    written,
)

# Seven lists of ten, each of the one before: ten million values in a few lines.
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in itertools.pairwise("abcdefg")
)


class TestHyperparameters:
    def test_layers_with_a_template_name_modules(self) -> None:
        found = read_hyperparameters(ROME)
        assert (found.alg_name, found.model_name) == ("ROME", "./models/gpt2")
        assert (found.layers, found.rewrite_module_tmp) == ((5,), "transformer.h.{}.mlp.c_proj")
        assert found.edited_modules == ("transformer.h.5.mlp.c_proj",)
        assert found.given_by == "layers"
        assert found.values["context_template_length_params"] == [[5, 10], [10, 10]]

    def test_a_file_without_any_field_of_an_editor_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, "hello: 1\nlr: 0.5\n", "h.yaml")
        with pytest.raises(BadInput, match=r"no hyperparameters of an editor: .* alg_name"):
            read_hyperparameters(path)

    @pytest.mark.parametrize("field", ["inner_params", "edit_modules"])
    def test_modules_may_be_listed(self, tmp_path: Path, field: str) -> None:
        text = f"layers: []\nname_or_path: a/gpt2\n{field}:\n- transformer.h[3].mlp.c_fc.weight\n"
        found = read_hyperparameters(written(tmp_path, text, "h.yaml"))
        assert (found.edited_modules, found.given_by) == (
            ("transformer.h[3].mlp.c_fc.weight",), field,
        )  # fmt: skip
        assert (found.alg_name, found.model_name, found.layers) == (None, "a/gpt2", ())

    def test_some_editors_rewrite_nothing(self, registry: Registry, tmp_path: Path) -> None:
        told = written(tmp_path, "alg_name: IKE\nmodel_name: gpt2\nk: 16\n", "ike.yaml")
        report = one(registry, FILES / "results.json", hyperparameters=told)
        assert "ike.yaml names no edited module" in report.notes
        assert [(e.editor, e.components) for e in registry.edits()] == [("IKE", ())]

    @pytest.mark.parametrize(
        ("module", "parts"),
        [
            ("transformer.h.17.mlp.c_proj", ["m17"]),
            ("transformer.h.3.mlp.fc_out.weight", ["m3"]),
            ("model.layers[27].mlp.down_proj.weight", ["m27"]),
            ("gpt_neox.layers.2.mlp.dense_4h_to_h", ["m2"]),
            ("transformer.encoder.layers.4.mlp.dense_h_to_4h.weight", ["m4"]),
            ("model.decoder.layers.9.fc2.weight", ["m9"]),
            ("model.layers.1.self_attn.q_proj", ["a1.h0", "a1.h1", "a1.h2", "a1.h3"]),
            ("model.layers.1.self_attn.o_proj.weight", ["a1.h0", "a1.h1", "a1.h2", "a1.h3"]),
            ("model.layers.1.self_attn.v_proj", ["a1.kv0", "a1.kv1"]),
            (
                "gpt_neox.layers.0.attention.query_key_value",
                ["a0.h0", "a0.h1", "a0.h2", "a0.h3", "a0.kv0", "a0.kv1"],
            ),
            ("model.layers.1.input_layernorm", []),
            ("model.visual.blocks.5.mlp.fc1", []),
            ("decoder.block.3.layer.2.DenseReluDense.wo", []),
            ("model.layers.-1.mlp.down_proj", []),
            ("lm_head", []),
        ],
    )
    def test_modules_are_parts_of_the_model(self, module: str, parts: list[str]) -> None:
        model = Model(slug="grouped", n_heads=4, n_kv_heads=2)
        assert list(parts_of(module, model)) == parts
        if parts and not parts[0].startswith("m"):
            assert parts_of(module) == ()

    def test_heads_are_linked_where_their_number_is_known(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        text = "alg_name: FT\nlayers: [1]\nrewrite_module_tmp: transformer.h.{}.attn.c_proj\n"
        told = written(tmp_path, text, "ft.yaml")
        known = one(registry, FILES / "results.json", hyperparameters=told)
        unknown = one(registry, FILES / "results.json", hyperparameters=told, model="toy")
        heads = tuple(f"a1.h{head}" for head in range(12))
        assert [edit.components for edit in registry.edits()] == [heads, ()]
        assert "transformer.h.1.attn.c_proj read as a1.h0 ... a1.h11 (12)" in known.notes
        assert any("c_proj not linked" in note for note in unknown.notes)

    def test_keys_of_a_model_without_groups_are_its_heads(self) -> None:
        model = Model(slug="plain", n_heads=2, n_kv_heads=2)
        assert parts_of("h.0.attn.k_proj", model) == ("a0.h0", "a0.h1")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("- 1\n", "holds no hyperparameters"),
            ("alg_name: [\n", "no YAML"),
            ("alg_name: ROME\nlayers: [5]\n v_lr: 0.5\n", "no YAML that can be read: line 3: "),
            ("alg_name: !!python/object/apply:os.getcwd []\n", "no YAML"),
            ("alg_name: &a [*a]\n", "holds more values, or nests them deeper"),
            ("[" * 5000, "no YAML"),
            ("when: 2001-99-99\n", "no YAML"),
            ("a: " + "9" * 5000, "holds a number of 5,000 digits"),
            ("alg_name: a\x00b", "no YAML"),
            (
                BOMB,
                "holds more values, or nests them deeper",
            ),
        ],
    )  # fmt: skip
    def test_malformed_hyperparameters_are_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, text: str, says: str
    ) -> None:
        path = written(tmp_path, text, "h.yaml")
        report = one(registry, FILES / "results.json", hyperparameters=path)
        assert report.outcome is Became.REFUSED
        assert says in report.notes[0]
        assert registry.edits() == []

    def test_values_that_json_has_not_are_kept_as_what_comes_nearest(self, tmp_path: Path) -> None:
        text = (
            "alg_name: FT\nlr: 1e-3\na: .nan\nb: 2024-05-06\n"
            "1: !!set {y: , x: }\nc: !!binary aGk=\n"
        )
        assert read_hyperparameters(written(tmp_path, text, "h.yml")).values == {
            "alg_name": "FT", "lr": 0.001, "a": None, "b": "2024-05-06", "1": ["x", "y"],
            "c": "6869",
        }  # fmt: skip

    def test_large_files_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="are allowed"):
            read_hyperparameters(written(tmp_path, "a: " + "b" * 2**20, "h.yaml"))
        with pytest.raises(BadInput, match="are allowed"):
            read_hyperparameters(ROME, Limits(max_bytes=10))


class TestFolders:
    def test_a_sidecar_names_the_hyperparameters_beside_it(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        told = tmp_path / "h.yaml"
        told.write_bytes(ROME.read_bytes())
        written(tmp_path, record())
        written(tmp_path, "- {files: '*.json', hyperparameters: h.yaml}\n", "circuits-import.yaml")
        for path in (tmp_path, tmp_path / "ROME_results.json"):
            reports = {r.path.name: r for r in import_files(registry, [path], {})}
            assert reports["ROME_results.json"].outcome in {Became.STORED, Became.KNOWN}
        assert [edit.components for edit in registry.edits()] == [("m5",)]

    def test_a_sidecar_may_not_name_a_file_elsewhere(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        folder = tmp_path / "theirs"
        folder.mkdir()
        written(tmp_path, ROME.read_text(), "secret.yaml")
        (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
        path = written(folder, record())
        for name in ("../secret.yaml", str(tmp_path / "secret.yaml"), "link.yaml"):
            sidecar = f"- {{model: gpt2, hyperparameters: {name}}}\n"
            written(folder, sidecar, "circuits-import.yaml")
            report = one(registry, path)
            assert report.outcome is Became.REFUSED
            assert "give it with --hyperparameters" in report.notes[0]

    def test_hyperparameters_in_a_folder_are_skipped_with_what_they_are_for(
        self, registry: Registry
    ) -> None:
        reports = {r.path.name: r for r in import_files(registry, [FILES], {"model": "gpt2"})}
        skipped = reports["gpt2.yaml"]
        assert (skipped.outcome, skipped.format) == (Became.SKIPPED, "easyedit-hyperparameters")
        assert (
            "hyperparameters of ROME for ./models/gpt2 (transformer.h.5.mlp.c_proj)"
            in (skipped.notes[0])
        )
        assert reports["results.json"].outcome is Became.STORED

    def test_results_and_their_hyperparameters_outlive_gc_and_travel_in_backups(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        imported(registry, FILES / "results.json", hyperparameters=ROME)
        registry.gc(apply=True, grace_seconds=0)
        registry.backup(tmp_path / "all.zip")
        with Registry.restore(tmp_path / "all.zip", tmp_path / "elsewhere") as restored:
            for path in (FILES / "results.json", ROME):
                data = path.read_bytes()
                assert restored.artifact(hashlib.sha256(data).hexdigest()) == data
            (edit,) = restored.edits()
            files = restored.ledger.edit_files(edit.id)
            assert [file.name for file in files] == ["results.json", "gpt2.yaml"]
            assert {file.format for file in files} == {"easyedit-results"}

    def test_the_same_bytes_twice_add_nothing(self, registry: Registry) -> None:
        became = [one(registry, FILES / "results.json").outcome for _ in range(2)]
        assert became == [Became.STORED, Became.KNOWN]

    def test_a_dry_run_says_what_names_were_read_as(self, registry: Registry) -> None:
        said = {"hyperparameters": ROME}
        (report,) = import_files(registry, [FILES / "results.json"], said, dry_run=True)
        assert (report.outcome, report.edits) == (Became.READABLE, 1)
        assert "transformer.h.5.mlp.c_proj read as m5" in report.notes
        assert registry.edits() == []
