"""Weights changed in place come back bit for bit, whatever ends the block."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ingest.discovery.model.weights import named_weights, weights_sha256
from ingest.discovery.model.weights_in_place import changed_weights
from ingest.models import describe, weights_hash, wrap
from registry.errors import BadInput
from tests.ingest import tiny_models
from tests.ingest.discovery.families import FAMILIES, build

FC = "transformer.h.0.mlp.c_fc.weight"
QKV = "transformer.h.1.attn.c_attn.weight"
TIED = "transformer.wte.weight"
HEAD = "lm_head.weight"


def bits(model: Any) -> dict[str, bytes]:
    """Every weight of a bridge, its own copies too, byte by byte."""
    modules = {id(m): m for m in (*model.modules(), *model.original_model.modules())}
    found = {}
    for place, module in enumerate(modules.values()):
        for name, weight in module.named_parameters(recurse=False):
            value = weight.detach().contiguous().reshape(-1)
            found[f"{place}.{name}"] = value.view(torch.uint8).numpy().tobytes()
    return found


def noise(weights: dict[str, nn.Parameter], scale: float = 0.05) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(weight.shape, generator=generator) * scale
        for name, weight in weights.items()
    }


def gpt2(dtype: torch.dtype = torch.float32) -> Any:
    return wrap(tiny_models.gpt2().to(dtype))


def ids() -> Tensor:
    return torch.randint(2, 24, (3, 6), generator=torch.Generator().manual_seed(7))


@pytest.mark.seconds
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_bridge_computes_with_what_was_changed_and_then_as_before(name: str) -> None:
    plain, model = build(FAMILIES[name]), wrap(build(FAMILIES[name]))
    whole, kept, logits = weights_hash(plain), bits(model), model(ids())
    assert weights_sha256(model) == whole
    change = noise(named_weights(plain))
    with changed_weights(model, added=change), changed_weights(plain, added=change):
        assert weights_sha256(model) == weights_hash(plain) != whole
        torch.testing.assert_close(model(ids()), plain(ids()).logits, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(model(ids()), logits, atol=1e-3)
    assert weights_sha256(model) == weights_hash(plain) == whole
    assert bits(model) == kept
    assert torch.equal(model(ids()), logits)


def test_the_hash_is_the_one_that_a_model_is_recorded_with() -> None:
    model = gpt2()
    assert weights_sha256(model) == describe(model, slug="tiny").weights_sha256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    model = gpt2(dtype)
    with torch.no_grad():
        named_weights(model)[FC].view(-1)[:2] = torch.tensor([-0.0, 1e-7])  # a sign, a subnormal
    before = bits(model)
    with changed_weights(model, added=noise(named_weights(model))):
        assert bits(model) != before
        assert {weight.dtype for weight in named_weights(model).values()} == {dtype}
    assert bits(model) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_weights_come_back_whatever_ends_the_block(error: type[BaseException]) -> None:
    model = gpt2()
    before = bits(model)
    with pytest.raises(error), changed_weights(model, added=noise(named_weights(model))):
        raise error
    assert bits(model) == before


def test_changes_can_be_nested_and_end_in_turn() -> None:
    model = gpt2()
    before = bits(model)
    zeros = torch.zeros_like(named_weights(model)[FC])
    with changed_weights(model, added={FC: zeros + 1}):
        outer = bits(model)
        with changed_weights(model, masked={FC: zeros, QKV: zeros[:, :48]}):
            assert float(named_weights(model)[FC].detach().abs().max()) == 0
        assert bits(model) == outer
    assert bits(model) == before


def test_replacing_adding_and_masking_work_in_this_order() -> None:
    model = gpt2()
    one = torch.ones_like(named_weights(model)[FC])
    mask = torch.rand(one.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with changed_weights(model, replaced={FC: one * 3}, added={FC: one}, masked={FC: mask}):
        assert torch.equal(named_weights(model)[FC], mask * 4.0)


def test_a_tied_weight_is_changed_once_under_either_name() -> None:
    model = gpt2()
    before = bits(model)
    own = named_weights(model)[TIED]
    change = torch.ones_like(own)
    expected = own.detach() + 1
    for given in ({TIED: change}, {HEAD: change}, {HEAD: change, TIED: change.clone()}):
        with changed_weights(model, added=given) as changed:
            assert changed.names == (TIED,)
            assert torch.equal(named_weights(model)[TIED], expected)
            assert torch.equal(model.original_model.get_output_embeddings().weight, expected)
        assert bits(model) == before


def test_weights_that_share_their_numbers_without_being_one_are_changed_once() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight.data = model[0].weight.data
    before = model[0].weight.detach().clone()
    change = torch.ones(3, 3)
    with changed_weights(model, added={"0.weight": change, "1.weight": change}):
        assert torch.equal(model[0].weight, before + 1)
    assert torch.equal(model[1].weight, before)


def test_what_is_not_changed_is_not_kept_twice() -> None:
    model = gpt2()
    weight = named_weights(model)[FC]
    with changed_weights(model, added={FC: torch.ones_like(weight)}) as changed:
        assert changed.kept_bytes == weight.numel() * 4
    joint = named_weights(model)[QKV]  # GPT-2's queries, keys and values are views of it
    with changed_weights(model, added={QKV: torch.ones_like(joint)}) as changed:
        assert changed.kept_bytes == joint.numel() * 4


def test_old_values_can_be_kept_elsewhere() -> None:
    model = gpt2()
    before = bits(model)
    with changed_weights(model, added=noise(named_weights(model)), keep_on="cpu"):
        pass
    assert bits(model) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_weights_on_several_devices_come_back() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3).to("cuda")})
    before = weights_sha256(model)
    with changed_weights(model, added=noise(dict(model.named_parameters()))):
        assert weights_sha256(model) != before
    assert weights_sha256(model) == before


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"added": {"h.0.mlp.c_fc": torch.ones(1)}}, "no weight has the name 'h.0.mlp.c_fc'"),
        ({"added": {FC: torch.ones(3)}}, r"c_fc.weight is \[16, 64\], but the given value .*\[3\]"),
        ({"replaced": {FC: torch.full((16, 64), torch.nan)}}, "would not be finite"),
        (
            {"added": {TIED: torch.zeros(24, 16), HEAD: torch.ones(24, 16)}},
            "are one weight and are given two values",
        ),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_and_nothing_is_changed(
    given: Any, reason: str
) -> None:
    model = gpt2()
    before = bits(model)
    good = {"transformer.h.0.ln_1.weight": torch.ones(16)}
    kind, others = next(iter(given.items()))
    change: dict[str, Any] = {kind: {**good, **others}}
    with (
        pytest.raises(BadInput, match=reason),
        changed_weights(model, **change),
    ):
        pytest.fail("the block must not be entered")
    assert bits(model) == before


def test_an_offloaded_weight_is_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with (
        pytest.raises(BadInput, match="weight cannot be written to: it is offloaded"),
        changed_weights(model, masked={"weight": torch.ones(2, 2)}),
    ):
        pytest.fail("the block must not be entered")


def test_a_plain_model_of_transformers_does_as_well() -> None:
    model = tiny_models.llama()
    assert isinstance(model, transformers.PreTrainedModel)
    before = weights_hash(model)
    with changed_weights(model, masked={"lm_head.weight": torch.zeros(24, 32)}):
        assert float(model(ids()).logits.detach().abs().max()) == 0
    assert weights_hash(model) == before


_INTERRUPTED = """
import random, signal, sys, time
import torch
from ingest.discovery.model.weights import named_weights, weights_sha256
from ingest.discovery.model.weights_in_place import changed_weights
from ingest.models import wrap
from tests.ingest import tiny_models

model = wrap(tiny_models.neox())
tokens = tiny_models.token_ids()
change = {n: torch.ones_like(w) for n, w in named_weights(model).items()}
mask = {n: torch.zeros_like(w) for n, w in named_weights(model).items()}
whole, logits = weights_sha256(model), model(tokens)
fired = []

def ring(number, frame):
    fired.append(1)
    signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGALRM, ring)
choose, caught, inside = random.Random(0), 0, 0
began = time.perf_counter()
with changed_weights(model, added=change), changed_weights(model, masked=mask):
    pass
longest = 1.5 * (time.perf_counter() - began)
for _ in range(150):
    fired.clear()
    entered = False
    try:
        signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-5, longest))
        with changed_weights(model, added=change), changed_weights(model, masked=mask):
            entered = True
        while not fired:
            time.sleep(1e-4)
    except KeyboardInterrupt:
        caught += 1
        inside += entered
    assert weights_sha256(model) == whole
    assert torch.equal(model(tokens), logits)
print(caught, inside)
"""


@pytest.mark.seconds
@pytest.mark.skipif(sys.platform == "win32", reason="needs a timer's signal")
def test_real_interrupts_at_any_moment_leave_the_weights_as_they_were(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(_INTERRUPTED, encoding="utf-8")
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], cwd=root, env=_environment(root),
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    caught, inside = map(int, found.stdout.split())
    assert caught == 150
    assert inside > 10


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root)}
