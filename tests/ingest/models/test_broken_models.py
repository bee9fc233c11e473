"""Folders whose weights, config.json or tokenizer are not one model's: each is refused by name."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from ingest import models
from ingest.discovery.model.anatomy import read_anatomy
from ingest.jobs.prompts import opening_tokens
from ingest.models.checks import check_model
from ingest.models.config_values import require_usable_values
from ingest.models.fit import require_plausible_layers
from ingest.models.proof import not_finite
from ingest.tokens.token_ids import token_ids
from registry.cli.doctor import State
from registry.errors import BadInput, CircuitsError, IncompatibleModel, NotFound, UnsupportedModel
from tests.ingest import tiny_models

Weights = dict[str, torch.Tensor]


def folder_of(place: Path, model: Any = None, **config: Any) -> str:
    """A tiny model's folder, whose config.json says something else."""
    folder = tiny_models.save(place / "m", tiny_models.gpt2() if model is None else model)
    path = place / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def change_weights(folder: str, change: Callable[[Weights], object]) -> None:
    file = Path(folder) / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def save_as_pickle(folder: str, thing: object) -> None:
    (Path(folder) / "model.safetensors").unlink()
    torch.save(thing, Path(folder) / "pytorch_model.bin")


class TestFit:
    @pytest.mark.parametrize("n_layers", [10**9, 40])
    def test_more_layers_than_weights_are_refused_at_once(
        self, tmp_path: Path, n_layers: int
    ) -> None:
        folder = folder_of(tmp_path, n_layer=n_layers)
        with pytest.raises(BadInput, match=f"config.json has n_layer: {n_layers}, and "):
            models.load(folder)

    def test_layers_of_a_part_of_the_configuration_count_too(self) -> None:
        config = {"text_config": {"num_hidden_layers": 10**6}}
        with pytest.raises(BadInput, match="has num_hidden_layers: 1000000"):
            require_plausible_layers("mine", config, None)

    def test_the_configuration_of_another_family_makes_no_weights(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, model_type="llama", architectures=["LlamaForCausalLM"])
        with pytest.raises(BadInput, match=r"\(llama\): they hold 'transformer\.h\.0\.attn"):
            models.load(folder)

    @pytest.mark.parametrize("sharded", [True, False])
    def test_another_shape_is_told_with_the_weight(self, tmp_path: Path, sharded: bool) -> None:
        model = tiny_models.gpt2()
        model.save_pretrained(tmp_path / "m", max_shard_size="5KB" if sharded else "1GB")
        config = tmp_path / "m" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 40}))
        text = r"requires 'transformer\.wte\.weight' of shape 40x16, and its files hold 24x16;"
        with pytest.raises(BadInput, match=text):
            models.load(str(tmp_path / "m"))

    def test_another_shape_of_converted_weights_is_told_with_the_weight(
        self, tmp_path: Path
    ) -> None:
        sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2}
        model = MixtralForCausalLM(MixtralConfig(vocab_size=24, **sizes, **heads))
        folder = folder_of(tmp_path, model, intermediate_size=12)
        with pytest.raises(BadInput, match=r"requires '.*experts\..*' of shape \d+x\d+x\d+, and"):
            models.load(folder)

    def test_pickles_too_small_for_the_configuration_make_no_weights(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, n_embd=1600)
        save_as_pickle(folder, tiny_models.gpt2().state_dict())
        with pytest.raises(BadInput, match=r"requires [\d,]+ numbers, and its files hold [\d,]+ b"):
            models.load(folder)

    def test_weights_of_the_bare_model_are_found(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path)
        tiny_models.gpt2().transformer.save_pretrained(folder)
        config = Path(folder) / "config.json"
        config.write_text(
            json.dumps(json.loads(config.read_text()) | {"architectures": ["GPT2LMHeadModel"]})
        )
        assert models.load(folder).cfg.n_layers == 2

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[" * 100_000, r"is not JSON \(RecursionError\)"),
            ("{", r"is not JSON \(JSONDecodeError\)"),
            ("[]", "has no weight_map from"),
            ("{}", "has no weight_map from"),
            ('{"weight_map": 3}', "has no weight_map from"),
            ('{"weight_map": ["a"], "metadata": {}}', "has no weight_map from"),
            ('{"weight_map": {}, "metadata": {}}', "has no weight_map from"),
            ('{"weight_map": {"a": "b.safetensors"}}', "has no metadata, which"),
            ('{"weight_map": {"a": 3}, "metadata": {}}', r"says weight_map\.a: 3, which must be"),
        ],
        ids=lambda text: text[:40],
    )
    @pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
    def test_an_index_that_is_none_is_named(
        self, tmp_path: Path, file: str, text: str, says: str
    ) -> None:
        folder = folder_of(tmp_path)
        (tmp_path / "m" / "model.safetensors").unlink()
        (tmp_path / "m" / f"{file}.index.json").write_text(text)
        with pytest.raises(BadInput, match=f"cannot be read: its {file}.index.json {says}"):
            models.load(folder)

    @pytest.mark.parametrize(
        "file", ["../other/model.safetensors", "{}/model.safetensors", "..\\x"]
    )
    @pytest.mark.parametrize("named", [{}, {"transformers_weights": "own.safetensors.index.json"}])
    def test_an_index_that_names_files_elsewhere_is_refused(
        self, tmp_path: Path, file: str, named: dict[str, str]
    ) -> None:
        other = tiny_models.save(tmp_path / "other", tiny_models.gpt2())
        folder = folder_of(tmp_path, **named)
        names = load_file(tmp_path / "m" / "model.safetensors")
        (tmp_path / "m" / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, file.format(other))}
        name = named.get("transformers_weights", "model.safetensors.index.json")
        (tmp_path / "m" / name).write_text(json.dumps(index))
        with pytest.raises(BadInput, match=r"index\.json takes '.*' from .* outside the model's"):
            models.load(folder)

    def test_an_index_that_is_not_read_is_none_of_our_business(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path)
        (tmp_path / "m" / "model.safetensors.index.json").write_text("[]")
        assert models.load(folder).cfg.n_layers == 2


class TestLeftOut:
    def test_a_layer_that_the_configuration_leaves_out_is_missed(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, n_layer=1)
        with pytest.raises(BadInput, match=r"omits \d+ of the .* such as 'transformer\.h\.1\."):
            models.load(folder)

    def test_a_bias_of_a_matrix_is_missed(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, tiny_models.llama())
        bias = "model.layers.0.self_attn.q_proj.bias"
        change_weights(folder, lambda found: found.update({bias: torch.ones(32)}))
        with pytest.raises(
            BadInput, match=r"1 of the weights in its files, such as .*q_proj\.bias"
        ):
            models.load(folder)

    @pytest.mark.parametrize(
        ("make", "buffer"),
        [
            (tiny_models.gpt2, "transformer.h.0.attn.bias"),
            (tiny_models.gpt2, "transformer.h.0.attn.masked_bias"),
            (tiny_models.neox, "gpt_neox.layers.0.attention.bias"),
            (tiny_models.llama, "model.layers.0.self_attn.rotary_emb.inv_freq"),
            (tiny_models.llama, "model.layers.0.self_attn.rotary_emb.cos_cached"),
            (tiny_models.llama, "model.embed_positions.weights"),
        ],
    )
    def test_buffers_of_old_checkpoints_are_not(
        self, tmp_path: Path, make: Callable[[], Any], buffer: str
    ) -> None:
        folder = folder_of(tmp_path, make())
        change_weights(folder, lambda found: found.update({buffer: torch.ones(2)}))
        assert models.unused_weights(models.load(folder)) == ()

    def test_a_head_of_another_task_is_told(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path)
        change_weights(folder, lambda found: found.update({"score.weight": torch.ones(2, 16)}))
        assert models.unused_weights(models.load(folder)) == ("score.weight",)
        (row,) = [check for check in check_model(folder) if check.part == "weights"]
        assert row.state is State.WARN
        assert "parts that it lacks, such as 'score.weight'" in row.finding

    def test_layers_that_foretell_later_tokens_are_told(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path, tiny_models.llama(), num_nextn_predict_layers=1)
        name = "model.layers.2.mlp.up_proj.weight"
        change_weights(folder, lambda found: found.update({name: torch.ones(48, 32)}))
        assert models.unused_weights(models.load(folder)) == (name,)


class TestNotFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.h.1.mlp.c_fc.bias"])
    def test_the_weight_is_named(self, tmp_path: Path, name: str, value: float) -> None:
        folder = folder_of(tmp_path)
        change_weights(folder, lambda found: found[name].view(-1)[-1].fill_(value))
        with pytest.raises(UnsupportedModel, match=rf"^m \(GPT2LM.* not finite in its .*'{name}'"):
            models.load(folder)
        assert State.FAIL in [check.state for check in check_model(folder)]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_it_is_found_in_any_dtype(self, dtype: torch.dtype) -> None:
        values = torch.ones(9, dtype=dtype)
        broken = values.clone()
        broken[5] = float("nan")
        assert not_finite([("whole", values), ("broken", broken)]) == "broken"

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
    def test_packed_numbers_pass(self, dtype: torch.dtype) -> None:
        assert not_finite([("packed", torch.ones(9).to(dtype))]) is None

    def test_values_too_large_for_a_dtype_are_told(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path)
        change_weights(folder, lambda found: found["transformer.wpe.weight"][-1].fill_(1e6))
        models.load(folder)
        with pytest.raises(UnsupportedModel, match=r"'transformer\.wpe.*or use float32"):
            models.load(folder, dtype="float16")

    def test_logits_that_grow_too_large_are_told(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path)
        change_weights(folder, lambda found: [each.fill_(1e30) for each in found.values()])
        with pytest.raises(UnsupportedModel, match=r"logits that are not finite .* float64"):
            models.load(folder)

    def test_a_setting_that_makes_them_no_numbers_is_told(self, tmp_path: Path) -> None:
        rope = {"rope_type": "default", "rope_theta": -1.0}
        folder = folder_of(tmp_path, tiny_models.llama(), rope_parameters=rope)
        with pytest.raises(
            UnsupportedModel, match=r"config\.json is wrong, such as its rope_theta"
        ):
            models.load(folder)

    def test_sums_that_overflow_do_not_mislead(self) -> None:
        model = tiny_models.gpt2()
        with torch.no_grad():
            model.transformer.wpe.weight[-2:] = 3e38  # positions past the short prompt
        models.wrap(model)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("config", "text"),
        [
            ({"activation_function": "nope"}, "it has activation_function: 'nope', which"),
            ({"n_head": 0}, "config.json says n_head: 0, which must be at least 1"),
            ({"n_positions": -5}, "config.json says n_positions: -5, which must be at least 1"),
            ({"vocab_size": 0}, "config.json says vocab_size: 0, which must be at least 1"),
            ({"n_layer": -1}, "config.json says n_layer: -1, which must be at least 1"),
            ({"text_config": {"head_dim": 0}}, r"says text_config\.head_dim: 0, which must be at"),
            ({"layer_norm_epsilon": math.inf}, "layer_norm_epsilon: inf, which is not a finite"),
            ({"layer_norm_epsilon": {"__float__": "NaN"}}, "layer_norm_epsilon: nan, which is not"),
            ({"rope_parameters": {"factors": [1, 10**400]}}, r"rope_parameters\.factors\[1\]: 10+"),
            (
                {"architectures": "GPT2LMHeadModel"},
                r"""architectures: 'GPT2LMHeadModel', which must be a list .*\["GPT2LM""",
            ),
            ({"architectures": [3]}, r"architectures: \[3\], which must be a list of names"),
            ({"architectures": 3}, "architectures: 3, which must be a list of names"),
            ({"model_type": ["gpt2"]}, "config.json is wrong: a value .* unhashable type: 'list'"),
            ({"n_layer": "2"}, r"field 'n_layer': TypeError: .*got str \(value: '2'\)"),
        ],
        ids=str,
    )
    def test_a_wrong_value_is_told_with_the_file(
        self, tmp_path: Path, config: dict[str, Any], text: str
    ) -> None:
        with pytest.raises(BadInput, match=text):
            models.load(folder_of(tmp_path, **config))

    def test_values_that_a_model_can_have_are_no_fault(self) -> None:
        require_usable_values(
            "mine",
            {
                "architectures": None, "head_dim": None, "num_key_value_heads": [1, 2],
                "time_step_limit": [0.0, math.inf], "sliding_window": 0, "pad_token_id": -1,
                "tie_word_embeddings": False,
            },
        )  # fmt: skip

    @pytest.mark.parametrize("n_positions", [0, -5])
    def test_a_model_in_memory_without_positions_is_refused(self, n_positions: int) -> None:
        model = tiny_models.llama()
        model.config.max_position_embeddings = n_positions
        with pytest.raises(BadInput, match=f"has {n_positions} positions"):
            models.wrap(model)

    def test_a_wrong_value_of_a_part_is_told_with_its_keys(self, tmp_path: Path) -> None:
        rope = {"rope_type": "nope", "rope_theta": 1e4}
        folder = folder_of(tmp_path, tiny_models.llama(), rope_parameters=rope)
        with pytest.raises(BadInput, match=r"it has rope_parameters\.rope_type: 'nope'"):
            models.load(folder)

    def test_brackets_that_nest_too_deep_are_a_broken_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("[" * 100_000)
        *_, last = check_model(str(tmp_path))
        assert last.state is State.FAIL
        assert "its config.json is wrong: a value in it cannot be used" in last.finding

    def test_a_package_that_no_extra_brings_is_named(self, tmp_path: Path) -> None:
        quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        folder = folder_of(tmp_path, quantization_config=quantised)
        with pytest.raises(NotFound, match=r"no package 'bitsandbytes'.*pip install bitsandbytes"):
            models.load(folder)


class TestTokenizerFiles:
    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("tokenizer.json", "{}", r"tokenizer\.json or tokenizer_config\.json lacks 'added_tok"),
            ("tokenizer.json", "[]", r"tokenizer\.json is not a JSON object$"),
            ("tokenizer.json", "{", r"tokenizer\.json is not JSON \(Expecting property name"),
            ("tokenizer.json", '{"added_tokens": 3}', r"a value in tokenizer\.json or tokenizer_c"),
            ("tokenizer_config.json", "[]", r"tokenizer_config\.json is not a JSON object$"),
            (
                "tokenizer_config.json", '{"tokenizer_class": 5}',
                r"a value in tokenizer\.json or tokenizer_config\.json cannot be used",
            ),
        ],
    )  # fmt: skip
    def test_a_malformed_file_is_named(
        self, tmp_path: Path, name: str, text: str, says: str
    ) -> None:
        folder = folder_of(tmp_path)
        words("a", "b").save_pretrained(folder)
        (Path(folder) / name).write_text(text)
        with pytest.raises(BadInput, match=f"the tokenizer of .* cannot be read: {says}"):
            models.load(folder)


class _Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("was-run",)


def test_code_in_a_pickle_is_not_run_and_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path)
    save_as_pickle(folder, {**tiny_models.gpt2().state_dict(), "more": _Runs()})
    with pytest.raises(
        BadInput, match=r"contains more than tensors.*write it with save_pretrained"
    ):
        models.load(folder)
    assert not (tmp_path / "was-run").exists()


class TestSmallModels:
    @pytest.mark.parametrize("n_positions", [1, 2, 3, 4])
    def test_few_positions_are_proven_by_a_shorter_prompt(
        self, tmp_path: Path, n_positions: int
    ) -> None:
        model = tiny_models.gpt2()
        model.transformer.wpe.weight.data = model.transformer.wpe.weight.data[:n_positions].clone()
        folder = folder_of(tmp_path, model, n_positions=n_positions)
        found = {check.part: check.state for check in check_model(folder)}
        assert (found["wrapping"], found["edges"]) == (State.OK, State.OK)

    def test_a_model_without_layers_is_refused(self) -> None:
        config = tiny_models.gpt2().config
        config.n_layer = 0
        bridge = models.wrap(type(tiny_models.gpt2())(config))
        with pytest.raises(UnsupportedModel, match="has no layers"):
            read_anatomy(bridge)

    def test_a_vocabulary_of_one_token_is_refused_as_that(self) -> None:
        config = tiny_models.gpt2().config
        config.vocab_size = 1
        bridge = models.wrap(type(tiny_models.gpt2())(config))
        with pytest.raises(UnsupportedModel, match="its vocabulary is one token"):
            read_anatomy(bridge)


def words(*given: str, **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of single words, without one for those that it does not know."""
    backend = Tokenizer(WordLevel({word: at for at, word in enumerate(given)}))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


class TestTokensThatAreNone:
    """Ids of a tokenizer past the last row of the embedding, which has 24."""

    MANY = tuple(f"w{at}" for at in range(30))

    def test_a_text_that_needs_one_is_refused(self) -> None:
        bridge = models.wrap(tiny_models.gpt2(), tokenizer=words(*self.MANY))
        assert token_ids(bridge, "w23") == [23]
        with pytest.raises(BadInput, match=r"token 24 \('w24'\) for 'w24', but .* only 0 to 23"):
            token_ids(bridge, "w24")

    def test_an_opening_that_needs_one_is_refused(self) -> None:
        bridge = models.wrap(
            tiny_models.gpt2(), tokenizer=words(*self.MANY, bos_token="w29", pad_token="w0")
        )
        with pytest.raises(BadInput, match=r"token 29 .* for the beginning of every text"):
            opening_tokens(bridge, True)

    def test_the_doctor_warns(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path)
        words(*self.MANY).save_pretrained(folder)
        (row,) = [check for check in check_model(folder) if check.part == "vocabulary"]
        assert row.state is State.WARN
        assert "ids go to 29, but the model knows only 0 to 23" in row.finding

    def test_a_text_that_the_tokenizer_fails_at_is_refused(self) -> None:
        bridge = models.wrap(tiny_models.gpt2(), tokenizer=words("w0", "w1"))
        with pytest.raises(BadInput, match="tokenizer cannot read 'w9': WordLevel error: Missing"):
            token_ids(bridge, "w9")


def test_a_refusal_is_one_line_of_the_doctor(tmp_path: Path) -> None:
    *_, last = check_model(folder_of(tmp_path, n_embd=32))
    assert last.state is State.FAIL
    assert "\n" not in last.finding
    with pytest.raises(CircuitsError):
        models.load(str(tmp_path / "m"))


def test_a_model_in_a_folder_with_the_name_of_another_is_not_recorded_as_that(
    tmp_path: Path,
) -> None:
    folder = tiny_models.save(tmp_path / "gpt2", tiny_models.gpt2())
    says = r"2 layers, and gpt2 has 12: .* rename its folder"
    bridge = models.load(folder)
    with pytest.raises(IncompatibleModel, match=says):
        models.describe(bridge)
    assert models.describe(bridge, slug="my-gpt2").n_layers == 2
    (row,) = [check for check in check_model(folder) if check.part == "name"]
    assert row.state is State.FAIL
    assert re.search(says, row.finding)


def test_a_pointer_of_git_lfs_and_a_folder_without_weights_say_what_to_do(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    weights = Path(folder) / "model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(BadInput, match=r"model\.safetensors is a pointer of Git LFS.*git lfs pull"):
        models.load(folder)
    weights.unlink()
    with pytest.raises(BadInput, match=r"its folder has no weights, such as model\.safetensors"):
        models.load(folder)


def test_the_doctor_blames_no_family_for_a_weight_that_is_no_number(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    change_weights(folder, lambda weights: weights["transformer.wte.weight"].fill_(math.nan))
    *_, last = check_model(folder)
    assert (last.state, last.advice) == (State.FAIL, "")
    assert "not finite" in last.finding
