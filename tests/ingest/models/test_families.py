"""The table of families, early refusals by config.json, and what the doctor says of one model."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import torch

from ingest import models
from ingest.discovery.model.anatomy import read_anatomy
from ingest.models.checks import check_model
from ingest.models.config_values import require_usable_values
from ingest.models.families import families, family_of, require_edges
from registry.cli.doctor import State
from registry.cli.main import main
from registry.errors import UnsupportedModel
from tests.ingest import tiny_models
from tests.ingest.discovery.families import FAMILIES, Family, build
from tests.ingest.discovery.refused import REFUSED


def config_of(family: Family) -> Mapping[str, Any]:
    found: Mapping[str, Any] = build(family).config.to_dict()
    return found


def test_each_family_that_can_is_tested_against_the_plain_model() -> None:
    listed = {family.name for family in families() if family.edges}
    assert listed == {family.kind for family in FAMILIES.values()}


@pytest.mark.seconds
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_that_can_is_not_refused_by_its_config(name: str) -> None:
    config = config_of(FAMILIES[name])
    require_usable_values(name, config)
    found = family_of(config)
    assert found is not None
    assert found.edges


@pytest.mark.seconds
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_family_that_cannot_is_refused_by_its_config(name: str) -> None:
    found = family_of(config_of(REFUSED[name][0]))
    assert found is not None
    assert not found.edges


@pytest.mark.seconds
def test_families_counted_by_grouped_heads_alone_are_told() -> None:
    refused = set()
    for family in FAMILIES.values():
        bridge = models.wrap(build(family))
        try:
            anatomy = read_anatomy(bridge, "per-query-head")
            anatomy.run(bridge, torch.tensor([[3, 5, 7]]), [])
        except UnsupportedModel as error:
            if "cannot be counted per query head; use kv_heads='grouped'" in str(error):
                refused.add(family.kind)
    told = {one.name for one in families() if "grouped key/value heads alone" in one.note}
    assert told == refused


def test_some_models_of_a_family_are_told_from_the_others() -> None:
    falcon = {"model_type": "falcon", "alibi": False}
    assert family_of(falcon) != family_of({**falcon, "alibi": True})
    assert family_of({"model_type": "lfm2", "layer_types": 5}) != family_of(
        {"model_type": "lfm2", "layer_types": ["conv"]}
    )
    assert family_of({"model_type": "lfm2", "layer_types": ["conv"]}) != family_of(
        {"model_type": "lfm2", "layer_types": ["full_attention"]}
    )
    opt = {"model_type": "opt", "hidden_size": 8}
    assert family_of(opt) == family_of({**opt, "word_embed_proj_dim": 8})
    assert family_of(opt) != family_of({**opt, "word_embed_proj_dim": 4})
    assert family_of({"model_type": "never-heard-of"}) is None


def test_no_line_has_more_columns_than_its_header() -> None:
    """A note with a comma and without quotes would lose its end."""
    text = Path(models.__file__).with_name("families.csv").read_text("utf-8")
    header, *rows = csv.reader(text.splitlines(), strict=True)
    assert [row for row in rows if len(row) != len(header)] == []
    (falcon,) = [one for one in families() if one.which == "falcon with alibi=true"]
    assert "Falcon RW 1B" in falcon.note


@pytest.mark.parametrize("name", ["olmo2", "falcon 7b", "gpt_bigcode", "cohere", "gemma3"])
def test_a_model_in_memory_is_wrapped_by_its_own_class(name: str) -> None:
    """Its config.json names its architecture only once it is saved."""
    model = build(FAMILIES[name])
    model.config.architectures = None
    assert models.wrap(model).cfg.architecture == type(model).__name__


def test_every_line_says_why_or_what() -> None:
    assert all(family.note for family in families())
    keys = [(family.name, family.where) for family in families()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"model_type": 3}'])
def test_what_is_no_configuration_is_left_to_whoever_loads_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    require_edges(tmp_path, "mine")


def refused_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "deepseek_v3"}))
    return folder


def test_a_job_refuses_a_family_before_torch_is_imported(tmp_path: Path) -> None:
    folder = refused_folder(tmp_path / "ds")
    program = (
        "import sys\n"
        "from ingest.jobs.places import ModelPlace, load_place\n"
        "from registry.errors import UnsupportedModel\n"
        "try:\n"
        f"    load_place(ModelPlace({str(folder)!r}), None)\n"
        "except UnsupportedModel as error:\n"
        "    print(error, 'torch' in sys.modules)\n"
    )
    found = run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    says = "is of the family deepseek_v3, which cannot be split into edges: latent attention"
    assert says in found.stdout
    assert found.stdout.rstrip().endswith("False")


def test_the_doctor_says_why_a_family_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = refused_folder(tmp_path / "ds")
    assert main(["doctor", "--model", str(folder), "--format", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["ok", "fail"]
    assert "latent attention" in rows[1]["finding"]


def test_the_doctor_proves_a_model(tmp_path: Path) -> None:
    folder = tiny_models.save(tmp_path / "tiny", tiny_models.llama())
    tiny_models.tokenizer(prepends_bos=True).save_pretrained(folder)
    checks = list(check_model(folder))
    assert [(check.part, check.state) for check in checks] == [
        (part, State.OK) for part in ("model", "family", "wrapping", "edges", "tokenizer")
    ]
    assert "82 edges" in checks[-2].finding


def test_the_doctor_reports_code_of_the_authors_that_is_not_run(tmp_path: Path) -> None:
    folder = tiny_models.save(tmp_path / "tiny", tiny_models.llama())
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config))
    found = {check.part: check for check in check_model(folder)}
    assert found["code"].state is State.WARN
    assert "modeling_mine.MineForCausalLM" in found["code"].finding
    assert found["wrapping"].finding == "its logits equal those of LlamaForCausalLM in transformers"
    assert models.authors_code(models.load(folder)) == "modeling_mine.MineForCausalLM"


def test_the_doctor_misses_a_tokenizer_as_discovery_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_models.save(tmp_path / "tiny", tiny_models.llama())
    assert main(["doctor", "--model", folder, "--format", "json"]) == 1
    *others, last = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in others} == {"ok"}
    assert (last["part"], last["state"]) == ("tokenizer", "fail")
    assert "cannot read prompts" in last["finding"]
    assert "tokenizer.json" in last["advice"]


def unreadable_folder(folder: Path) -> str:
    tiny_models.save(folder, tiny_models.llama())
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    return str(folder)


def test_the_doctor_calls_nothing_ok_that_cannot_be_read_and_blames_no_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    for name in ("owner/absent", "smolm2x", unreadable_folder(tmp_path / "broken")):
        (check,) = check_model(name)
        assert (check.part, check.state, check.advice) == ("model", State.FAIL, "")


def test_the_doctor_names_the_page_of_families_where_one_is_refused(tmp_path: Path) -> None:
    family, _ = REFUSED["gpt2 without scaled scores"]
    build(family).save_pretrained(tmp_path / "unscaled")
    *_, last = check_model(str(tmp_path / "unscaled"))
    assert last.state is State.FAIL
    assert "docs/models.md" in last.advice


def test_the_doctor_proves_a_model_of_a_family_that_was_not_tried(tmp_path: Path) -> None:
    build(Family("modernbert-decoder")).save_pretrained(tmp_path / "new")
    checks = list(check_model(str(tmp_path / "new")))
    states = [check.state for check in checks if check.part != "tokenizer"]
    assert states == [State.OK, State.WARN, State.OK, State.OK]


def test_an_absent_model_is_one_line_of_the_doctor(tmp_path: Path) -> None:
    (check,) = check_model(str(tmp_path / "none"))
    assert check.state is State.FAIL
    assert "file or folder does not exist" in check.finding


def test_wrapping_names_the_model_that_it_changes(tmp_path: Path) -> None:
    family, _ = REFUSED["gpt2 without scaled scores"]
    build(family).save_pretrained(tmp_path / "unscaled")
    with pytest.raises(UnsupportedModel, match=r"^unscaled \(GPT2LMHeadModel\) becomes another"):
        models.load(str(tmp_path / "unscaled"))
