"""Activations are what plain hooks see, are kept whole or not at all, and within their budgets."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery.activations import cache as activations
from ingest.discovery.activations.cache import (
    Activations,
    open_activations,
    record_activations,
)
from ingest.discovery.model.weights import named_weights
from ingest.discovery.model.weights_in_place import changed_weights
from ingest.models import wrap
from registry.errors import ArtifactCorrupt, BadInput, NotFound, StorageError
from tests.few import every_nth
from tests.ingest import tiny_models
from tests.ingest.discovery.families import FAMILIES, build
from tests.ingest.discovery.plain_parts import PlainParts

SITES = [
    "l0.resid_pre", "l0.resid_mid", "l0.resid_post", "l1.resid_post", "l0.attn_out", "l1.mlp_out",
    "m0", "m1.hidden", "m0.n5", "a0.h2.z", "a1.h1.q", "a0.kv1.k", "a1.kv0.v", "l1.ln1", "ln_final",
]  # fmt: skip
MASK = torch.ones(5, 7, dtype=torch.long)
MASK[1, 5:] = MASK[4, :3] = 0


def prompts(seed: int = 0) -> Tensor:
    return torch.randint(2, 24, (5, 7), generator=torch.Generator().manual_seed(seed))


def tiny(dtype: torch.dtype = torch.float64) -> Any:
    return wrap(tiny_models.llama().to(dtype))


def recorded(model: Any, **more: Any) -> Activations:
    options = {"attention_mask": MASK, **more}
    return record_activations(model, prompts(), options.pop("sites", SITES), **options)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sites_of(model: Any) -> list[str]:
    grouped = (model.cfg.n_key_value_heads or model.cfg.n_heads) < model.cfg.n_heads
    parts = model.blocks[0].submodules
    found = ["l0.resid_pre", "l0.resid_post", "l1.resid_post", "l1.attn_out", "m0", "a0.h1.z"]
    found += ["a1.h2.q", "ln_final", *(["a0.kv0.k", "a1.kv0.v"] if grouped else ["a0.h1.v"])]
    if "q_norm" in parts["attn"].submodules:
        found += ["l1.q_norm", "l0.k_norm"]
    found += [f"l1.{norm}" for norm in ("ln1", "ln1_post") if norm in parts]
    if "out" in getattr(parts["mlp"], "submodules", {}):
        found += ["m0.hidden", "m0.n3"]
    return found


@pytest.mark.seconds
@pytest.mark.parametrize(
    "name", every_nth(sorted(FAMILIES), 3, "the last third of the families", first=2)
)
def test_a_family_is_recorded_as_plain_hooks_on_the_plain_model_see(name: str) -> None:
    family = FAMILIES[name]
    dtype = torch.float32 if name == "xglm" else torch.float64  # its forward pass knows no other
    model = wrap(build(family, dtype))
    cfg = model.cfg
    plain = PlainParts(
        build(family, dtype), family.names, cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads,
        cfg.d_head,
    )  # fmt: skip
    sites = sites_of(model)
    found = record_activations(model, prompts(), sites)
    for site in sites:
        (place,) = plain.find(site)
        expected = plain.values(place, prompts()).flatten(0, 1)
        if site in ("m0", "l1.attn_out"):  # what the block multiplies it by is outside its module
            expected = expected * family.names.scale
        torch.testing.assert_close(found.of(site), expected, atol=1e-5, rtol=1e-5, msg=site)


def test_prompts_of_several_lengths_are_kept_without_padding_in_the_order_given() -> None:
    model = tiny()
    found = recorded(model)
    assert found.lengths == (7, 5, 7, 7, 4)
    for prompt, row in enumerate(prompts()):
        alone = record_activations(model, row[MASK[prompt].bool()][None], SITES)
        for site in SITES:
            own = found.of_prompt(site, prompt)
            torch.testing.assert_close(own, alone.of(site), atol=1e-12, rtol=1e-12)
            first = sum(found.lengths[:prompt])
            assert torch.equal(found.of(site)[first : first + len(own)], own)


def test_the_embedding_is_kept_without_learned_positions() -> None:
    plain = tiny_models.gpt2()
    expected = plain.transformer.wte(prompts()).flatten(0, 1).detach()
    found = record_activations(wrap(plain), prompts(), ["input"])
    torch.testing.assert_close(found.of("input"), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("memory_bytes", [2**30, 70_000, 40_000])
def test_what_is_on_disk_is_what_is_in_memory_whatever_the_budget(
    tmp_path: Path, memory_bytes: int
) -> None:
    model = tiny()
    expected = recorded(model, batch_size=1)
    found = recorded(model, folder=tmp_path, memory_bytes=memory_bytes, batch_size=1)
    assert found.sha256 == expected.sha256
    assert expected.key is None
    for site in SITES:
        assert torch.equal(found.of(site), expected.of(site))
    assert {path.parent.name for path in files(tmp_path)} == {found.key}


def test_a_second_run_reads_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    first = recorded(model, folder=tmp_path)
    monkeypatch.setattr(activations._Run, "record", None)  # whoever runs the model now fails
    second = recorded(model, folder=tmp_path)
    assert (second.key, second.sha256, second.folder) == (first.key, first.sha256, first.folder)
    assert second.folder is not None
    opened = open_activations(second.folder)
    assert torch.equal(opened.of("m0"), first.of("m0"))


def test_whatever_activations_are_made_from_is_in_their_key(tmp_path: Path) -> None:
    model = tiny()
    keys = [recorded(model, folder=tmp_path).key]
    keys.append(recorded(model, folder=tmp_path, sites=SITES[:-1]).key)
    keys.append(recorded(model, folder=tmp_path, dtype=torch.float32).key)
    keys.append(recorded(model, folder=tmp_path, attention_mask=MASK.flip(0)).key)
    keys.append(record_activations(model, prompts(1), SITES, folder=tmp_path).key)
    keys.append(recorded(tiny(torch.float32), folder=tmp_path, dtype=torch.float64).key)
    weight = next(iter(named_weights(model)))
    with changed_weights(model, added={weight: torch.ones_like(named_weights(model)[weight])}):
        keys.append(recorded(model, folder=tmp_path).key)
    assert len(set(keys)) == len(keys) == 7
    assert recorded(model, folder=tmp_path).key == keys[0]


@pytest.mark.parametrize("damage", ["turn a bit", "cut", "remove", "no manifest", "bad manifest"])
def test_damage_is_found_and_what_is_damaged_made_anew(tmp_path: Path, damage: str) -> None:
    model = tiny()
    first = recorded(model, folder=tmp_path)
    assert first.folder is not None
    expected = {site: first.of(site) for site in SITES}
    shard = next(path for path in files(first.folder) if path.suffix == ".safetensors")
    manifest = first.folder / "manifest.json"
    data = shard.read_bytes()
    match damage:
        case "turn a bit":
            shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "cut":
            shard.write_bytes(data[:-8])
        case "remove":
            shard.unlink()
        case "no manifest":
            manifest.unlink()
        case _:
            manifest.write_text(manifest.read_text("utf-8")[:-20], encoding="utf-8")
    with pytest.raises(NotFound, match="no whole set of activations"):
        open_activations(first.folder)
    if damage in ("turn a bit", "cut"):
        with pytest.raises(ArtifactCorrupt, match="has changed since it was written"):
            [first.of(site) for site in SITES]
    again = recorded(model, folder=tmp_path)
    assert again.sha256 == first.sha256
    assert all(torch.equal(again.of(site), expected[site]) for site in SITES)
    assert {path.parent for path in files(tmp_path)} == {again.folder}


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded(tiny(), folder=tmp_path, batch_size=1, memory_bytes=40_000, progress=stop)
    assert list(tmp_path.iterdir()) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.ingest.discovery.test_activations import recorded, tiny
folder = Path(sys.argv[1])

def die(done, total):
    if any(folder.rglob("*.safetensors")) and done > 3:
        os.kill(os.getpid(), signal.SIGKILL)

recorded(tiny(), folder=folder, batch_size=1, memory_bytes=40_000, progress=die)
"""


@pytest.mark.seconds
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and locks of files")
def test_what_a_killed_writer_leaves_is_not_taken_for_whole_and_is_removed(tmp_path: Path) -> None:
    found = _run(_KILLED, tmp_path)
    assert found.returncode == -signal.SIGKILL, found.stderr
    left = files(tmp_path)
    assert [path for path in left if path.suffix == ".safetensors"]
    assert not [path for path in left if path.name == "manifest.json"]
    again = recorded(tiny(), folder=tmp_path, batch_size=1)
    assert again.sha256 == recorded(tiny(), batch_size=1).sha256
    assert {path.parent for path in files(tmp_path)} == {again.folder}


def test_the_folder_of_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    model = tiny()
    inner: list[Activations] = []

    def another(done: int, total: int) -> None:
        if not inner:
            inner.append(recorded(model, folder=tmp_path))

    outer = recorded(model, folder=tmp_path, batch_size=1, progress=another)
    assert outer.folder == inner[0].folder
    assert torch.equal(outer.of("m0"), inner[0].of("m0"))
    assert {path.parent for path in files(tmp_path)} == {outer.folder}


_MEASURED = """
import resource, sys
import torch, transformers
from ingest.discovery.activations.cache import record_activations
from ingest.models import wrap
from tests.ingest import tiny_models

config = tiny_models.llama().config
config.intermediate_size = 8192
model = wrap(transformers.LlamaForCausalLM(config).eval())
prompts = torch.randint(2, 24, (96, 48))
sites = ["m0.hidden", "m1.hidden"]
options = {"folder": sys.argv[1], "memory_bytes": 16 * 2**20, "batch_size": 2}
record_activations(model, prompts[:4], sites, **options)
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
found = record_activations(model, prompts, sites, **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before)
print(sum(found.lengths) * 2 * 8192 * 4, len(list(found.pieces("m0.hidden"))))
"""


@pytest.mark.seconds
@pytest.mark.skipif(sys.platform == "win32", reason="measures resident memory")
def test_memory_stays_within_its_budget_however_much_goes_to_disk(tmp_path: Path) -> None:
    found = _run(_MEASURED, tmp_path)
    assert found.returncode == 0, found.stderr
    grown, in_all, n_shards = map(int, found.stdout.split())
    assert in_all > 300_000_000
    assert n_shards > 10
    assert grown < 40_000_000


def _run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(folder)], cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
        timeout=500,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"sites": ["l0.resid"]}, "is no part whose numbers can be read"),
        ({"sites": []}, "sites must be a list of names"),
        ({"sites": "m0"}, "sites must be a list of names"),
        ({"sites": ["a0.kv0"]}, r"name only one site: a0\.kv0\.k"),
        ({"memory_bytes": 1000}, "take .* bytes, but 1000 are allowed; give a folder"),
        ({"memory_bytes": 1000, "folder": "."}, "the sites of layer 0 over one prompt of 7 tokens"),
        ({"disk_bytes": 1000, "folder": "."}, "1000 are allowed; ask for fewer sites"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_runs(
    options: Any, reason: str, tmp_path: Path
) -> None:
    if "folder" in options:
        options = {**options, "folder": tmp_path}
    with pytest.raises(BadInput, match=reason):
        recorded(tiny(), **options)
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_asked_for_is_not_there() -> None:
    found = recorded(tiny(), sites=["m0"])
    with pytest.raises(NotFound, match="no activations of 'm1'; kept are those of m0"):
        found.of("m1")
    with pytest.raises(NotFound, match="no prompt '9'; they are 0 to 4"):
        found.of_prompt("m0", 9)


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write activations"):
        recorded(tiny(), folder=tmp_path / "file")


def test_texts_and_half_precision_do_as_well(tmp_path: Path) -> None:
    model = wrap(
        tiny_models.llama().to(torch.bfloat16), tokenizer=tiny_models.tokenizer(prepends_bos=True)
    )
    texts = ["when mary went", "mary and john went to the store"]
    found = record_activations(model, texts, ["m0", "a0.kv1.v"], folder=tmp_path)
    assert found.lengths == (4, 8)
    assert found.of("m0").dtype == torch.bfloat16
    assert found.of_prompt("a0.kv1.v", 1).shape == (8, 8)
    shutil.rmtree(tmp_path)
