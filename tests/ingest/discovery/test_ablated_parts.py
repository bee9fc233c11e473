"""Ablating parts against plain hooks on a plain model of transformers, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import Setting, prepare_setting
from ingest.discovery.ablation.parts import Part, PartAblation, ablate_parts, prepare_parts
from ingest.discovery.evaluation.patching import patch_effects
from ingest.models import wrap
from registry.errors import BadInput, NonFiniteScores, UnsupportedModel
from tests.few import every_nth
from tests.ingest import tiny_models
from tests.ingest.discovery.families import FAMILIES, build
from tests.ingest.discovery.plain_parts import PlainPart, PlainParts

KINDS = ("zero", "mean", "mean-by-position", "resample", "other-prompt")
PARTNERS = (2, 0, 1)
SUBJECT = [[1], [2, 4], []]


def ids(n_prompts: int = 3, n_positions: int = 6, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, 40, (n_prompts, n_positions), generator=generator)


def basis(width: int, n_directions: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(width, n_directions, generator=generator, dtype=torch.float64)
    orthonormal: Tensor = torch.linalg.qr(found).Q
    return orthonormal


def metric(logits: Tensor, index: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 10]


def prepared(model: Any, kind: str, **more: Any) -> PartAblation:
    setting = prepare_setting(model, ids(), ids(seed=8), metric, reference=ids(4, 8, 9))
    return prepare_parts(
        setting, instead=kind,  # type: ignore[arg-type]
        partners=PARTNERS, positions={"subject": SUBJECT}, **more,
    )  # fmt: skip


def sets_for(model: Any) -> list[list[Part | str]]:
    """Parts of every kind that a model has, alone and together."""
    parts = model.blocks[0].submodules
    heads = model.cfg.n_heads
    grouped = (model.cfg.n_key_value_heads or heads) < heads
    parallel = bool(model.cfg.parallel_attn_mlp)
    sets: list[list[Part | str]] = [
        [],
        ["a0.h1"],
        ["a1.h0", "a1.h3", "m1"],
        ["m0"],
        ["a0.h2@3", "m1@-1"],
        ["l0.resid_post@subject"],
        ["l1.resid_post@0", "l1.resid_post@5"],
        ["l0.attn_out"],
        ["l1.mlp_out", "a0.h0.z"],
        ["a1.h2.q"],
        ["ln_final@-1"],
        [Part("l0.resid_post", basis=basis(32, 3))],
        [Part("l1.mlp_out", "subject", basis(32, 2)), Part("l1.mlp_out", "subject", basis(32, 1))],
        [Part("a1.h1.z", basis=basis(8, 2)), "m0"],
        ["a1.kv0", "a0.kv0.v"] if grouped else ["a1.h0.k", "a0.h0.v"],
    ]
    if "out" in getattr(parts["mlp"], "submodules", {}):
        sets += [["m0.n3", "m0.n7", "m1.n0@subject"], [Part("m0.hidden", basis=basis_of(model))]]
    if not parallel:
        sets += [["l0.resid_mid@2", "m0"], [Part("l1.resid_mid", basis=basis(32, 4))]]
    sets += [[f"l1.{norm}"] for norm in ("ln1", "ln2", "ln1_post", "ln2_post") if norm in parts]
    if "q_norm" in parts["attn"].submodules:
        sets += [["l1.q_norm", "l0.k_norm@subject"], ["l0.q_norm@-1", "a1.h0"]]
        sets += [[Part("l1.k_norm", basis=basis(parts["attn"].submodules["k"].weight.shape[0], 3))]]
    return sets


def basis_of(model: Any) -> Tensor:
    own = model.blocks[0].mlp.submodules["out"].original_component
    return basis(getattr(own, "in_features", own.weight.shape[0]), 3)


class Expected:
    """What the plain model gives."""

    def __init__(self, plain: PlainParts, kind: str) -> None:
        self._plain, self._kind = plain, kind

    def logits(self, chosen: list[Part | str]) -> Tensor:
        changes = []
        for part in chosen:
            name, at, directions = _parsed(part)
            places = self._plain.find(name)
            changes += [(p, self._change(self._instead(p), at, directions)) for p in places]
        return self._plain.run(changes, ids())

    def _instead(self, place: PlainPart) -> Tensor:
        match self._kind:
            case "zero":
                return torch.zeros((), dtype=torch.float64)
            case "resample":
                return self._values(place, ids(seed=8))
            case "other-prompt":
                return self._values(place, ids()[list(PARTNERS)])
            case "mean":
                return self._values(place, ids(4, 8, 9)).mean((0, 1))
            case _:
                return self._values(place, ids(4, 8, 9)).mean(0)[:6]

    def _values(self, place: PlainPart, tokens: Tensor) -> Tensor:
        value = self._plain.values(place, tokens)
        return value.reshape(*tokens.shape, -1)

    def _change(self, instead: Tensor, at: Any, directions: Tensor | None) -> Any:
        mask = torch.ones(3, 6, dtype=torch.bool)
        if at is not None:
            mask[:] = False
            for row in range(3):
                mask[row, SUBJECT[row] if at == "subject" else [at]] = True

        def change(value: Tensor) -> Tensor:
            other = instead.to(value.dtype).expand_as(value)
            if directions is not None:
                projector = (directions @ directions.mT).to(value.dtype)
                other = value + (other - value) @ projector
            return torch.where(mask[..., None], other, value)

        return change


def _parsed(part: Part | str) -> tuple[str, Any, Tensor | None]:
    if isinstance(part, Part):
        return part.name, part.at, part.basis
    name, _, at = part.partition("@")
    return name, (at if at == "subject" else int(at)) if at else None, None


@pytest.mark.seconds
@pytest.mark.parametrize(
    "name", every_nth(sorted(FAMILIES), 3, "another third of the families", first=1)
)
def test_a_family_is_ablated_as_plain_hooks_on_the_plain_model_say(name: str) -> None:
    family = FAMILIES[name]
    dtype = torch.float32 if name == "xglm" else torch.float64  # its forward pass knows no other
    model = wrap(build(family, dtype))
    cfg = model.cfg
    plain = PlainParts(
        build(family, dtype), family.names, cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads,
        cfg.d_head,
    )  # fmt: skip
    sets = sets_for(model)
    for kind in KINDS:
        ablation = prepared(model, kind)
        assert ablation.cached
        found = ablation.logits(sets)
        expected = Expected(plain, kind)
        for row, chosen in enumerate(sets):
            torch.testing.assert_close(
                found[row], expected.logits(chosen), atol=1e-5, rtol=1e-5,
                msg=partial("{}, {}: {}".format, kind, chosen),
            )  # fmt: skip


@pytest.mark.parametrize("n_positions", [4, 2])
@pytest.mark.parametrize("part", ["l1.q_norm", "l0.k_norm", "l0.q_norm@1"])
def test_heads_are_not_taken_for_as_many_positions(part: str, n_positions: int) -> None:
    family = FAMILIES["qwen3"]  # with four heads and two of keys
    model = wrap(build(family, torch.float64))
    plain = PlainParts(build(family, torch.float64), family.names, 4, 2, 8)
    clean, corrupt = ids(3, n_positions), ids(3, n_positions, 8)
    found = prepare_parts(prepare_setting(model, clean, corrupt, metric)).logits([[part]])[0]
    name, _, at = part.partition("@")
    (place,) = plain.find(name)
    other = plain.values(place, corrupt).reshape(3, n_positions, -1)
    chosen = slice(None) if not at else [int(at)]

    def change(value: Tensor) -> Tensor:
        moved = value.clone()
        moved[:, chosen] = other[:, chosen]
        return moved

    torch.testing.assert_close(found, plain.run([(place, change)], clean), atol=1e-9, rtol=1e-9)


def tiny(kind: str = "llama") -> Any:
    return wrap(tiny_models.ALL[kind]().double())


def tiny_prepared(model: Any, instead: Any = "resample", **more: Any) -> PartAblation:
    own = ("batch_size", "attention_mask", "reference")
    of_setting = {name: more.pop(name) for name in own if name in more}
    setting = prepare_setting(model, prompts(), prompts(1), metric, **of_setting)
    return prepare_parts(setting, instead=instead, **more)


def clean_only(**options: Any) -> Setting:
    return prepare_setting(tiny(), prompts(), None, metric, ablation="zero", **options)


def prompts(seed: int = 0) -> Tensor:
    return torch.randint(2, 24, (4, 7), generator=torch.Generator().manual_seed(seed))


SETS: list[list[str]] = [
    ["a0.h1", "m1.n3"], ["m1"], [], ["a1.h2@-1"], ["l0.resid_post@2", "a1.h0"], ["a0.h0"], ["m0"],
    ["input@1"], ["ln_final"], ["l1.ln1", "a0.h3"],
]  # fmt: skip


@pytest.mark.parametrize("kind", sorted(tiny_models.ALL))
def test_many_sets_at_once_give_what_each_gives_alone_from_the_embedding_on(kind: str) -> None:
    model = tiny(kind)
    together = tiny_prepared(model).logits(SETS)
    alone = tiny_prepared(model, cached=False, batch_size=1)
    each = torch.cat([alone.logits([chosen]) for chosen in SETS])
    torch.testing.assert_close(together, each, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("bounds", [{"run_bytes": 1}, {"kept_bytes": 0}, {"batch_size": 3}])
def test_bounds_of_memory_change_no_result(bounds: dict[str, int]) -> None:
    model = tiny()
    expected = tiny_prepared(model).effects(SETS, metric)
    ablation = tiny_prepared(model, **bounds)
    for _ in range(2):
        found = ablation.effects(SETS, metric)
        torch.testing.assert_close(found.ablated, expected.ablated, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(found.full, expected.full, atol=1e-12, rtol=1e-12)


def test_runs_start_at_the_lowest_changed_block_and_sets_run_side_by_side() -> None:
    model = tiny("gpt2")
    ablation = tiny_prepared(model)
    ran: list[tuple[int, int]] = []
    for layer, block in enumerate(model.blocks):
        block.mlp.register_forward_hook(
            lambda _, args, output, layer=layer: ran.append((layer, len(output)))
        )
    ablation.logits([["m0", "m1", "a1.h0"]])  # computes the shared data of runs
    ran.clear()
    ablation.logits([["m1"], ["a1.h0"], [], ["m0"]])
    assert ran == [(0, 4), (1, 4), (1, 8)]


def test_an_empty_set_gives_the_metric_of_the_clean_run() -> None:
    model = tiny()
    found = ablate_parts(prepare_setting(model, prompts(), prompts(1), metric), [[], ["m0"]])
    clean = model(prompts())[:, -1]
    torch.testing.assert_close(found.full, metric(clean, torch.arange(4)), atol=1e-6, rtol=1e-6)
    assert torch.equal(found.ablated[0], found.full)
    assert float(found.effects[0]) == 0
    assert float(found.effects[1]) == pytest.approx(float((found.full - found.ablated[1]).mean()))


@pytest.mark.parametrize("kind", sorted(tiny_models.ALL))
def test_one_part_alone_has_the_effect_that_patching_its_node_has(kind: str) -> None:
    model = tiny(kind)
    cfg = model.cfg
    grouped = (cfg.n_key_value_heads or cfg.n_heads) < cfg.n_heads
    nodes = ["input", "a0.h1", "a1.h3", "m0", "m1", *(["a0.kv1", "a1.kv0"] if grouped else [])]
    setting = prepare_setting(model, prompts(), prompts(1), metric)
    patched = patch_effects(setting, nodes=nodes)
    found = ablate_parts(setting, [[node] for node in nodes])
    assert found.effects.tolist() == pytest.approx(list(patched.nodes.values()), abs=1e-9)


def test_an_embedding_that_is_ablated_leaves_learned_positions() -> None:
    plain = tiny_models.gpt2().double()
    found = tiny_prepared(wrap(plain), "zero").logits([["input"]])[0]
    bare = tiny_models.gpt2().double()
    own = bare.lm_head.weight.detach().clone()
    bare.transformer.wte.weight.data.zero_()
    bare.lm_head.weight = torch.nn.Parameter(own)
    torch.testing.assert_close(found, bare(prompts()).logits[:, -1], atol=1e-6, rtol=1e-6)


def test_prompts_of_several_lengths_give_what_each_gives_without_padding() -> None:
    model = tiny()
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[1, 5:] = mask[3, :2] = 0
    sets = [["a0.h1@-1", "m0.n2"], ["m0@1"], ["l0.resid_post@where"]]
    where = [[0, 3], [1], [2], [4]]
    options: dict[str, Any] = {"attention_mask": mask, "positions": {"where": where}}
    found = tiny_prepared(model, "zero", **options).logits(sets)
    for row in range(4):
        cut = prompts()[row : row + 1, mask[row].bool()]
        alone = prepare_parts(
            prepare_setting(model, cut, None, metric, ablation="zero"),
            positions={"where": where[row : row + 1]},
        )
        torch.testing.assert_close(found[:, row], alone.logits(sets)[:, 0], atol=1e-9, rtol=1e-9)


def test_another_prompt_is_the_next_of_its_length_unless_partners_are_given() -> None:
    model = tiny()
    by_default = tiny_prepared(model, "other-prompt").logits([["m0"]])
    given = tiny_prepared(model, "other-prompt", partners=[1, 2, 3, 0]).logits([["m0"]])
    other = tiny_prepared(model, "other-prompt", partners=[3, 2, 1, 0]).logits([["m0"]])
    assert torch.equal(by_default, given)
    assert not torch.allclose(by_default, other)


def test_a_subspace_of_everything_is_everything_and_names_find_theirs() -> None:
    model = tiny()
    whole = torch.linalg.qr(basis(32, 32)).Q
    spaces = {"l0.resid_post#ndm[0]": whole[:, :20], "l0.resid_post#ndm[1]": whole[:, 20:]}
    ablation = tiny_prepared(model, subspaces=spaces)
    found = ablation.logits(
        [
            ["l0.resid_post"],
            [*spaces],
            [Part("l0.resid_post", None, whole)],
            ["l0.resid_post@2"],
            ["l0.resid_post#ndm[0]@2", "l0.resid_post#ndm[1]@2"],
        ]
    )
    torch.testing.assert_close(found[1], found[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found[2], found[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found[4], found[3], atol=1e-9, rtol=1e-9)
    assert not torch.allclose(found[3], found[0])


def _in_place(weight: torch.Tensor) -> None:
    weight.mul_(1.5)


def _past_autograd(weight: torch.Tensor) -> None:
    weight.data[2:9] += 1.0


@pytest.mark.parametrize("change", [_in_place, _past_autograd])
def test_kept_results_are_computed_again_after_a_weight_has_changed(
    change: Callable[[torch.Tensor], None],
) -> None:
    model = tiny()
    ablation = tiny_prepared(model, "mean", reference=prompts(2))
    before = ablation.logits(SETS)
    with torch.no_grad():
        change(next(model.original_model.parameters()))
    changed = ablation.logits(SETS)
    assert not torch.allclose(before, changed)
    anew = tiny_prepared(model, "mean", reference=prompts(2)).logits(SETS)
    torch.testing.assert_close(changed, anew, atol=1e-12, rtol=1e-12)


def test_a_model_with_another_structure_than_was_proven_is_refused() -> None:
    model = tiny()
    ablation = tiny_prepared(model, "zero")
    ablation.logits(SETS)
    model.blocks[1].mlp.register_forward_hook(lambda _, args, output: 2 * output)
    with pytest.raises(UnsupportedModel, match="do not add up"):
        ablation.logits(SETS)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("a0.h9", "there are 4 heads in each block, counted from 0"),
        ("a7.h0", "there are 2 layers"),
        ("m0.n48", "there are 48 neurons"),
        ("a0.kv2", "there are 2 heads of k in each block"),
        ("a0.h1.k", "query heads share keys and values in this model; name a0.kv0.k"),
        ("l0.ln1_post", "the block has no such norm"),
        ("l0.q_norm", "its attention has no such norm"),
        ("l0.resid", "'l0.resid' is no part whose numbers can be read or replaced"),
        ("logits", "'logits' is no part"),
        ("m0@7", "has 7 tokens and no position 7"),
        ("m0@subject", "no positions are named 'subject'; the names are: none"),
        ("l0.resid_post#ndm[1]", "is not among subspaces"),
        (Part("m0", basis=torch.ones(32, 1)), "is not orthonormal"),
        (Part("m0", basis=torch.eye(8)), r"must be \[32, direction\]"),
        (Part("a0.kv0", basis=torch.eye(8)), "name only one site: a0.kv0.k"),
    ],
)
def test_a_part_that_the_model_lacks_is_refused_by_name(part: Any, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        tiny_prepared(tiny(), "zero").logits([[part]])


def test_keys_of_a_head_are_its_own_in_a_multi_head_model() -> None:
    with pytest.raises(BadInput, match=r"name a0\.h1"):
        tiny_prepared(tiny("gpt2"), "zero").logits([["a0.kv1"]])
    with pytest.raises(BadInput, match="attention and MLP of a block read the same stream"):
        tiny_prepared(tiny("neox"), "zero").logits([["l0.resid_mid"]])


def test_a_mixture_of_experts_has_no_neurons_to_ablate() -> None:
    model = wrap(build(FAMILIES["mixtral"], torch.float64))
    with pytest.raises(BadInput, match="a mixture of experts"):
        prepare_parts(prepare_setting(model, ids(), None, metric, ablation="zero")).logits(
            [["m0.n1"]]
        )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"instead": "nothing"}, "instead must be one of 'zero', 'mean'"),
        ({"instead": "mean"}, "needs reference"),
        ({"instead": "resample"}, "needs corrupt prompts"),
        ({"instead": "other-prompt", "partners": [0, 1]}, "4 prompts and 2 partners"),
        ({"instead": "other-prompt", "partners": [0, 1, 2, 9]}, "partner 9 of prompt 3"),
        ({"instead": "mean-by-position", "reference": prompts()[:, :5]}, "longest of reference 5"),
    ],
)
def test_an_ablation_that_lacks_something_is_refused(options: Any, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        prepare_parts(clean_only(reference=options.pop("reference", None)), **options)


def test_a_prompt_alone_at_its_length_has_no_other_prompt() -> None:
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[2, 5:] = 0
    with pytest.raises(BadInput, match=r"prompt 2 .* is the only one of 5 tokens"):
        prepare_parts(clean_only(attention_mask=mask), instead="other-prompt")


def test_a_metric_that_is_not_finite_names_its_prompt() -> None:
    def broken(logits: Tensor, index: Tensor) -> Tensor:
        return torch.where(index == 2, torch.nan, logits[:, 0])

    with pytest.raises(NonFiniteScores, match="prompt 2"):
        tiny_prepared(tiny()).effects([["m0"]], broken)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_gives_about_the_same(dtype: torch.dtype) -> None:
    expected = tiny_prepared(tiny()).logits(SETS)
    found = tiny_prepared(wrap(tiny_models.llama().to(dtype))).logits(SETS)
    assert found.dtype == dtype
    error = float((found.double() - expected).norm() / expected.norm())
    assert error < (1e-5 if dtype == torch.float32 else 5e-2)


def test_a_run_that_fails_leaves_the_model_whole() -> None:
    model = tiny()
    ablation = tiny_prepared(model)
    before, expected = model(prompts()), ablation.logits(SETS)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.blocks[1].mlp.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        ablation.logits([["m1"]])
    handle.remove()
    assert torch.equal(model(prompts()), before)
    assert torch.equal(ablation.logits(SETS), expected)
