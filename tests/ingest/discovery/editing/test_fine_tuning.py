"""Fine-tuning on tiny random models, against plain steps on a plain copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery.editing.answers import Answer, score_answers
from ingest.discovery.editing.fine_tuning import FineTuning, FineTuningChange, fine_tuning_change
from ingest.discovery.editing.neutral import divergence, neutral_logits
from ingest.discovery.editing.part_weights import weights_of_parts
from ingest.discovery.model.anatomy import read_anatomy
from ingest.discovery.model.weights import named_weights
from ingest.discovery.model.weights_in_place import changed_weights
from ingest.models import wrap
from registry.errors import BadInput
from tests.ingest import tiny_models

pytestmark = pytest.mark.seconds

FAMILIES = sorted(tiny_models.ALL)
ANSWERS = (Answer((3, 4, 5), (6, 7)), Answer((8, 3, 4), (9, 2)), Answer((2, 4), (5,)))
FREE = FineTuning(learning_rate=0.01, steps=4, clamp=None)
NEUTRAL = ((2, 9, 11, 4), (7, 7, 3))
TIED, TIED_TOO = "transformer.wte.weight", "lm_head.weight"
Bits = dict[str, Tensor]


def model_of(family: str, dtype: torch.dtype = torch.float64) -> Any:
    return wrap(tiny_models.ALL[family]().to(dtype))


def bits(model: Any) -> Bits:
    """All numbers that a bridge computes with, also the copies it has of joint weights."""
    return {name: one.detach().clone() for name, one in model.state_dict().items()}


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Compare bytes, so that -0 is not 0."""
    return one.keys() == other.keys() and all(
        torch.equal(_bytes(one[name]), _bytes(other[name])) for name in one
    )


def _bytes(value: Tensor) -> Tensor:
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def state(model: Any) -> tuple[Any, ...]:
    plain = model.original_model
    modules = [module.training for module in plain.modules()]
    return [one.requires_grad for one in plain.parameters()], modules, list(plain.named_modules())


def random_masks(model: Any, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    weights = named_weights(model)
    return {
        name: torch.rand(weights[name].shape, generator=draw) < 0.3 for name in names or weights
    }


def plain_steps(
    family: str,
    options: FineTuning,
    masks: Mapping[str, Tensor] | None,
    *,
    zero: Mapping[str, Tensor] | None = None,
    answers: Sequence[Answer] = ANSWERS,
) -> tuple[dict[str, Tensor], list[float]]:
    """Take the same steps with torch alone; return the changes and the losses."""
    model = tiny_models.ALL[family]().double()
    model.set_attn_implementation("eager")  # as in a bridge; its softmax is in float32
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, kept in (zero or {}).items():
            weights[name] *= kept
    start = copy.deepcopy({name: one.detach() for name, one in weights.items()})
    kind = torch.optim.SGD if options.optimizer == "sgd" else torch.optim.AdamW
    optimizer = kind(weights.values(), lr=options.learning_rate, weight_decay=options.weight_decay)
    losses = []
    for _ in range(options.steps):
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for one in answers:
            ids = torch.tensor([[*one.prompt, *one.tokens]])
            said = model(ids).logits[0].log_softmax(-1)
            wanted = [said[len(one.prompt) - 1 + at, token] for at, token in enumerate(one.tokens)]
            total = total - torch.stack(wanted).mean() / len(answers)
        losses.append(total.item())
        total.backward()  # type: ignore[no-untyped-call]
        if masks is not None:
            for name, one in weights.items():
                assert one.grad is not None
                one.grad *= masks.get(name, torch.zeros(()))
        optimizer.step()
        with torch.no_grad():
            for name, one in weights.items():
                if masks is not None:  # what decays outside of the mask
                    mask = masks.get(name, torch.zeros(one.shape, dtype=torch.bool))
                    one.copy_(torch.where(mask, one, start[name]))
                if options.clamp is not None:
                    one.copy_(torch.clamp(one, start[name] - options.clamp,
                                          start[name] + options.clamp))  # fmt: skip
    return {name: one.detach() - start[name] for name, one in weights.items()}, losses


def assert_same(
    found: FineTuningChange, wanted: Mapping[str, Tensor], tolerance: float = 1e-12
) -> None:
    assert set(found.added) == {name for name, one in wanted.items() if bool(one.any())}
    for name, added in found.added.items():
        assert added.dtype is torch.float64
        torch.testing.assert_close(added, wanted[name], atol=tolerance, rtol=0)


# -- against plain steps ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_descent_is_that_of_plain_steps_on_a_plain_model(family: str, masked: bool) -> None:
    """GPT-2 and Gemma 2 have tied embeddings, GPT-NeoX and GPT-2 joint query/key/value weights."""
    model = model_of(family)
    masks = random_masks(model) if masked else None
    found = fine_tuning_change(model, ANSWERS, masks=masks, options=FREE)
    wanted, losses = plain_steps(family, FREE, masks)
    # Norms of Gemma are in float32, so answers that run together are rounded in another way.
    tolerance = 1e-8 if family == "gemma2" else 1e-12
    assert_same(found, wanted, tolerance)
    assert found.losses == pytest.approx(losses, abs=tolerance)
    assert (found.n_steps, found.stopped) == (4, "steps")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_a_decay_is_of_the_weight_and_not_of_its_change(optimizer: Any, masked: bool) -> None:
    model = model_of("llama")
    options = FineTuning(optimizer, learning_rate=0.003, steps=3, clamp=0.004, weight_decay=0.2)
    masks = random_masks(model) if masked else None
    found = fine_tuning_change(model, ANSWERS, masks=masks, options=options)
    assert_same(found, plain_steps("llama", options, masks)[0])


@pytest.mark.parametrize("family", ["gpt2", "neox"])
def test_a_weight_of_a_circuit_that_is_the_model_alone_stays_zero_outside(family: str) -> None:
    model = model_of(family)
    parts = ["a0.h1", "a1.h2", "m1", "input"]
    masks = weights_of_parts(model, read_anatomy(model), parts)
    blocks = [name for name in named_weights(model) if ".h." in name or ".layers." in name]
    kept = {
        name: masks.get(name, torch.zeros(named_weights(model)[name].shape, dtype=torch.bool))
        for name in blocks
    }
    before = bits(model)
    with changed_weights(model, masked=kept):
        circuit = bits(model)
        found = fine_tuning_change(model, ANSWERS, masks=masks, options=FREE)
        assert same_bits(bits(model), circuit)
        with changed_weights(model, added=found.added):
            for name, mask in kept.items():
                assert not bool(named_weights(model)[name][~mask].any())
            assert loss_of(model) < found.losses[-1]
    assert same_bits(bits(model), before)
    wanted, losses = plain_steps(family, FREE, masks, zero=kept)
    assert_same(found, wanted)
    assert found.losses == pytest.approx(losses, abs=1e-12)


def loss_of(model: Any, answers: Sequence[Answer] = ANSWERS) -> float:
    return float(score_answers(model, answers).nll.mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_change_gives_the_bridge_the_loss_of_the_next_step(family: str) -> None:
    """Also the copies that GPT-NeoX's bridge has of its joint weights follow the change."""
    model = model_of(family)
    change = fine_tuning_change(model, ANSWERS, masks=None, options=FREE)
    longer = FineTuning(learning_rate=0.01, steps=5, clamp=None)
    losses = fine_tuning_change(model, ANSWERS, masks=None, options=longer).losses
    # transformers has the softmax of attention in float32.
    assert losses[0] == pytest.approx(loss_of(model), abs=1e-7)
    with changed_weights(model, added=change.added):
        assert loss_of(model) == pytest.approx(losses[4], abs=1e-7)


# -- what bounds the change ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_weight_changes_by_more_than_the_clamp(optimizer: Any) -> None:
    model = model_of("neox")
    found = fine_tuning_change(
        model, ANSWERS, masks=None, options=FineTuning(optimizer, learning_rate=0.1)
    )
    largest = {name: float(added.abs().max()) for name, added in found.added.items()}
    assert max(largest.values()) == 5e-4
    assert all(value <= 5e-4 for value in largest.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_longer_descent_has_a_smaller_loss(optimizer: Any) -> None:
    options = FineTuning(optimizer, learning_rate=0.01, steps=20, clamp=0.05)
    found = fine_tuning_change(model_of("gpt2"), ANSWERS, masks=None, options=options)
    assert found.losses[-1] < found.losses[10] < found.losses[0]


def test_a_small_loss_ends_the_steps_before_another_one() -> None:
    model = model_of("llama")
    free = FineTuning("adamw", learning_rate=0.01, steps=50, clamp=None, stop_below=0.5)
    found = fine_tuning_change(model, ANSWERS, masks=None, options=free)
    assert found.stopped == "small loss"
    assert found.losses[-1] < 0.5 < found.losses[-2]
    assert found.n_steps == len(found.losses) - 1 < 50
    with changed_weights(model, added=found.added):
        assert loss_of(model) == pytest.approx(found.losses[-1], abs=1e-12)


def test_a_model_that_gives_the_answers_is_not_changed() -> None:
    found = fine_tuning_change(
        model_of("gpt2"), ANSWERS, masks=None, options=FineTuning(stop_below=100)
    )
    assert (found.added, found.n_steps, found.stopped) == ({}, 0, "small loss")


def test_steps_end_before_the_divergence_on_neutral_text_exceeds_its_budget() -> None:
    model = model_of("gpt2")
    before = neutral_logits(model, NEUTRAL)
    moved = []
    for steps in range(1, 7):
        options = FineTuning(learning_rate=0.01, steps=steps, clamp=None)
        change = fine_tuning_change(model, ANSWERS, masks=None, options=options)
        with changed_weights(model, added=change.added):
            moved.append(divergence(before, neutral_logits(model, NEUTRAL)))
    assert moved == sorted(moved)
    budget = (moved[2] + moved[3]) / 2
    options = FineTuning(learning_rate=0.01, steps=6, clamp=None, kl_budget=budget)
    found = fine_tuning_change(model, ANSWERS, masks=None, options=options, neutral=NEUTRAL)
    assert (found.n_steps, found.stopped) == (3, "kl budget")
    assert found.divergence == pytest.approx(moved[2], abs=1e-6)
    three = FineTuning(learning_rate=0.01, steps=3, clamp=None)
    wanted = fine_tuning_change(model, ANSWERS, masks=None, options=three)
    assert same_bits(found.added, wanted.added)


# -- the model stays as it is ----------------------------------------------------------------------


def ends_after_two_steps(error: type[BaseException], seen: list[Bits], model: Any) -> Any:
    def progress(done: int, total: int) -> None:
        own = model.original_model.named_parameters()
        seen.append({name: one.detach().clone() for name, one in own})
        if done == 2:
            raise error

    return progress


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_outside_the_masks_keep_every_bit_and_all_are_restored(
    family: str, error: type[BaseException]
) -> None:
    model = model_of(family)
    names = list(named_weights(model))
    masks = random_masks(model, names[: len(names) // 2])
    first = masks[names[0]]
    with torch.no_grad():
        named_weights(model)[names[0]].view(-1)[:4] = -0.0  # bits that adding 0 would lose
    before, kept = bits(model), state(model)
    start = {name: one.detach().clone() for name, one in named_weights(model).items()}
    seen: list[Bits] = []
    with pytest.raises(error):
        fine_tuning_change(
            model, ANSWERS, masks=masks, options=FREE,
            progress=ends_after_two_steps(error, seen, model),
        )  # fmt: skip
    assert len(seen) == 2
    for name in names:
        mask = masks.get(name, torch.zeros(start[name].shape, dtype=torch.bool))
        inside = seen[1][name]
        assert torch.equal(_bytes(inside[~mask]), _bytes(start[name][~mask]))
    assert not torch.equal(seen[1][names[0]][first], start[names[0]][first])
    assert same_bits(bits(model), before)
    assert state(model) == kept


def test_flags_of_gradients_and_kept_gradients_stay() -> None:
    model = model_of("gpt2")
    weights = named_weights(model)
    weights[TIED].requires_grad_(False)
    norm = weights["transformer.ln_f.weight"]
    norm.grad = torch.full_like(norm, 7.0)
    model.original_model.train()
    before, kept = bits(model), state(model)
    with torch.no_grad():
        found = fine_tuning_change(model, ANSWERS, masks=None, options=FREE)
    assert TIED in found.added
    assert state(model) == kept
    assert same_bits(bits(model), before)
    assert torch.equal(norm.grad, torch.full_like(norm, 7.0))
    assert_same(found, plain_steps("gpt2", FREE, None)[0])  # without dropout


@pytest.mark.parametrize("name", [TIED, TIED_TOO])
def test_a_tied_weight_has_one_mask_under_either_name(name: str) -> None:
    model = model_of("gpt2")
    mask = random_masks(model, [TIED])[TIED]
    found = fine_tuning_change(model, ANSWERS, masks={name: mask}, options=FREE)
    assert_same(found, plain_steps("gpt2", FREE, {TIED: mask})[0])


def test_a_model_of_transformers_gives_the_same_change_as_its_bridge() -> None:
    plain = tiny_models.neox().double()
    plain.set_attn_implementation("eager")
    found = fine_tuning_change(plain, ANSWERS, masks=None, options=FREE)
    assert_same(found, plain_steps("neox", FREE, None)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_below_the_rounding_of_half_precision_add_up(dtype: torch.dtype) -> None:
    model = model_of("gpt2", dtype)
    before = bits(model)
    options = FineTuning("adamw", learning_rate=2e-4, steps=20, clamp=5e-3)
    found = fine_tuning_change(model, ANSWERS, masks=None, options=options)
    assert same_bits(bits(model), before)
    assert {added.dtype for added in found.added.values()} == {torch.float32}
    assert found.losses[-1] < found.losses[0]
    with changed_weights(model, added=found.added):
        assert not same_bits(bits(model), before)
        assert loss_of(model) < found.losses[0]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"learning_rate": 0.0}, r"learning_rate is 0.0; it must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"clamp": -1.0}, r"clamp is -1.0; it must be a positive number"),
        ({"clamp": 0.0}, "clamp is 0.0"),
        ({"steps": 0}, "steps is 0; it must be 1 or more"),
        ({"stop_below": -0.1}, "stop_below is -0.1; it must be 0 or more"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; it must be sgd or adamw"),
        ({"kl_budget": 0.1}, "kl_budget needs neutral text"),
        ({"learning_rate": 1e200, "clamp": None}, r"the loss is not finite after 1 steps"),
        (
            {"learning_rate": 1e308, "clamp": None, "steps": 1, "weight_decay": 10.0},
            "the change of .* is not finite",
        ),
    ],
)
def test_settings_out_of_their_range_are_refused(options: dict[str, Any], why: str) -> None:
    model = model_of("gpt2")
    before = bits(model)
    with pytest.raises(BadInput, match=why) as error:
        fine_tuning_change(model, ANSWERS, masks=None, options=FineTuning(**options))
    assert "\n" not in str(error.value)
    assert same_bits(bits(model), before)


WEIGHT = "transformer.h.0.mlp.c_fc.weight"


@pytest.mark.parametrize(
    ("masks", "why"),
    [
        ({}, "the masks let 0 weights change"),
        ({WEIGHT: torch.zeros(16, 64, dtype=torch.bool)}, "the masks let 0 weights change"),
        ({"h.0.mlp": torch.ones(1, dtype=torch.bool)}, "no weight has the name 'h.0.mlp'"),
        (
            {WEIGHT: torch.ones(64, 16, dtype=torch.bool)},
            r"mask of .* of shape \[64, 16\]; it must be booleans of shape \[16, 64\]",
        ),
        ({WEIGHT: torch.ones(16, 64)}, r"is torch.float32 of shape .* it must be booleans"),
        (
            {
                TIED: torch.ones(24, 16, dtype=torch.bool),
                TIED_TOO: torch.zeros(24, 16, dtype=torch.bool),
            },
            "lm_head.weight and transformer.wte.weight are one weight and have two masks",
        ),
    ],
    ids=["none", "empty", "name", "shape", "dtype", "tied"],
)
def test_masks_that_do_not_fit_are_refused(masks: dict[str, Tensor], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        fine_tuning_change(model_of("gpt2"), ANSWERS, masks=masks)


def test_without_answers_there_is_nothing_to_tune() -> None:
    with pytest.raises(BadInput, match="there are no answers"):
        fine_tuning_change(model_of("gpt2"), [], masks=None)
