from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ingest.models.names import BUILT_IN, PlaceKind, locate, model_slug, resolve
from registry.errors import BadInput, NotFound
from registry.identifiers import parse_model
from registry.models.aliases import MODEL_ALIASES
from registry.records import Model


@pytest.mark.parametrize(
    ("name", "revision", "slug"),
    [
        ("smollm2", None, "smollm2-135m-instruct-q4_1"),
        ("SmolLM2", None, "smollm2-135m-instruct-q4_1"),
        ("smollm2-135m-instruct-q4_1", None, "smollm2-135m-instruct-q4_1"),
        ("gemma3", None, "gemma-3-270m-q4_k_m"),
        ("google/gemma3", None, "gemma3@other"),
        ("google/gemma3", "v1", "gemma3@v1"),
        ("models/SmolLM2.gguf", None, "smollm2@other"),
        ("openai-community/gpt2", None, "gpt2"),
        ("gpt2", None, "gpt2"),
        ("EleutherAI/pythia-70m", "step1000", "pythia-70m@step1000"),
        ("EleutherAI/pythia-70m@step1000", None, "pythia-70m@step1000"),
        ("owner/name", "refs/pr/3", "name@refs-pr-3"),
        ("models/SmolLM2-135M.Q4_1.gguf", None, "smollm2-135m.q4_1"),
    ],
)
def test_every_name_has_its_slug(name: str, revision: str | None, slug: str) -> None:
    assert resolve(name, revision) == slug
    assert parse_model(slug) == slug
    assert resolve(slug) == slug


def test_a_folder_gives_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My Llama (v1.5)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert resolve(str(folder)) == resolve(".") == "my-llama-v1.5-"


def test_a_folder_is_never_the_model_built_in_that_its_name_is_short_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "gemma3"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for name in ("./gemma3", "gemma3/", str(folder)):
        place = locate(name)
        assert (place.kind, place.slug) == (PlaceKind.FOLDER, "gemma3@other")
        assert Model(slug=place.slug).slug == model_slug(name.rstrip("/") + "/") == place.slug
    assert locate("gemma3").kind is PlaceKind.BUILT_IN
    assert model_slug("gemma3") == "gemma3"
    assert model_slug("google/gemma3") == "gemma3@other"


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "run@home"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    place = locate(str(folder))
    assert (place.kind, place.source, place.slug) == (PlaceKind.FOLDER, str(folder), "run-home")


@pytest.mark.parametrize("name", ["", "///", "@", "..."])
def test_a_name_without_letters_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a model's name"):
        resolve(name)


@pytest.mark.parametrize("name", ["two words", "a/b/c", "https://host/model", "-x"])
def test_what_cannot_be_on_the_hub_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"not a model's name; .*a folder with config\.json"):
        locate(name)


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "~/nothing", "nothing.gguf"])
def test_a_path_where_nothing_is_is_not_sought_on_the_hub(name: str) -> None:
    with pytest.raises(NotFound, match="this file or folder does not exist"):
        locate(name)


def test_other_files_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(BadInput, match=r"give a \.gguf file or a folder with config\.json"):
        locate(str(tmp_path / "weights.bin"))


def test_only_hub_models_have_revisions(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    for name in ("smollm2", str(tmp_path / "m.gguf")):
        with pytest.raises(BadInput, match="has no revision 'v1': only models on the hub"):
            locate(name, "v1")


def test_two_different_revisions_are_refused() -> None:
    assert locate("a/b@v1", "v1").revision == "v1"
    with pytest.raises(BadInput, match="give one of them"):
        locate("a/b@v1", "v2")


def test_names_built_in_are_slugs() -> None:
    for entry in BUILT_IN:
        assert parse_model(entry.slug) == entry.slug
        assert entry.package in entry.install
        assert entry.version in entry.install


def test_names_are_resolved_without_torch() -> None:
    program = (
        "import sys; from ingest.models.names import resolve; resolve('smollm2');"
        "print(any(name in sys.modules for name in ('torch', 'transformers', 'transformer_lens')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_every_alias_stands_for_a_model_built_in() -> None:
    assert sorted(MODEL_ALIASES.values()) == sorted(entry.slug for entry in BUILT_IN)
