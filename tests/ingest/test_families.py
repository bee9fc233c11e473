"""The table of families, early refusals by config.json, and what the doctor says of one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from ingest.families import families, family_of, require_edges
from ingest.model_checks import check_model
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_that_can_is_not_refused_by_its_config(name: str) -> None:
    found = family_of(config_of(FAMILIES[name]))
    assert found is not None
    assert found.edges


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_family_that_cannot_is_refused_by_its_config(name: str) -> None:
    found = family_of(config_of(REFUSED[name][0]))
    assert found is not None
    assert not found.edges


def test_some_models_of_a_family_are_told_from_the_others() -> None:
    falcon = {"model_type": "falcon", "alibi": False}
    assert family_of(falcon) != family_of({**falcon, "alibi": True})
    assert family_of({"model_type": "lfm2", "layer_types": ["conv"]}) != family_of(
        {"model_type": "lfm2", "layer_types": ["full_attention"]}
    )
    assert family_of({"model_type": "never-heard-of"}) is None


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
        "from ingest.jobs.model_place import ModelPlace, load_place\n"
        "from registry.errors import UnsupportedModel\n"
        "try:\n"
        f"    load_place(ModelPlace({str(folder)!r}), None)\n"
        "except UnsupportedModel as error:\n"
        "    print(error, 'torch' in sys.modules)\n"
    )
    found = run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "is a deepseek_v3, which cannot be split into edges: latent attention" in found.stdout
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
    checks = list(check_model(folder))
    assert [(check.part, check.state) for check in checks] == [
        (part, State.OK) for part in ("model", "family", "wrapping", "edges")
    ]
    assert "82 edges" in checks[-1].finding


def test_the_doctor_proves_a_model_of_a_family_that_was_not_tried(tmp_path: Path) -> None:
    build(Family("modernbert-decoder")).save_pretrained(tmp_path / "new")
    checks = list(check_model(str(tmp_path / "new")))
    assert [check.state for check in checks] == [State.OK, State.WARN, State.OK, State.OK]


def test_an_absent_model_is_one_line_of_the_doctor(tmp_path: Path) -> None:
    (check,) = check_model(str(tmp_path / "none"))
    assert check.state is State.FAIL
    assert "no such file or folder" in check.finding


def test_wrapping_names_the_model_that_it_changes(tmp_path: Path) -> None:
    from ingest import models

    family, _ = REFUSED["gpt2 without scaled scores"]
    build(family).save_pretrained(tmp_path / "unscaled")
    with pytest.raises(UnsupportedModel, match=r"^unscaled \(GPT2LMHeadModel\) becomes another"):
        models.load(str(tmp_path / "unscaled"))
