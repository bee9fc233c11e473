"""Every documented family against patching a plain model of transformers, in float64."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.models import wrap
from registry.errors import UnsupportedModel
from tests.few import every_nth
from tests.ingest.discovery.families import FAMILIES, build
from tests.ingest.discovery.plain_patcher import PlainPatcher
from tests.ingest.discovery.refused import REFUSED

pytestmark = pytest.mark.seconds

N_EDGES = 40
N_CIRCUITS = 3
STEP, STEP_IN_FLOAT32 = 3e-3, 2e-2
"""Of slopes: what a step changes has to stay well above rounding."""


def ids() -> tuple[Tensor, Tensor]:
    """Clean and corrupt prompts ``[prompt, position]``."""
    clean = torch.randint(2, 40, (3, 6), generator=torch.Generator().manual_seed(7))
    corrupt = clean.clone()
    for position, by in ((1, 5), (3, 9)):
        corrupt[:, position] = 2 + (clean[:, position] + by) % 38
    return clean, corrupt


def metric(logits: Tensor, index: Tensor) -> Tensor:
    """A difference of two logits."""
    return logits[:, 3] - logits[:, 10]


@pytest.mark.parametrize("name", every_nth(sorted(FAMILIES), 3, "a third of the families"))
def test_a_family_is_computed_as_patching_the_plain_model_says(name: str) -> None:
    clean, corrupt = ids()
    family = FAMILIES[name]
    dtype = torch.float32 if name == "xglm" else torch.float64  # its forward pass knows no other
    model = wrap(build(family, dtype))
    exact = attribute_edges(prepare_setting(model, clean, corrupt, metric), method="exact")
    first_order = attribute_edges(prepare_setting(model, clean, corrupt, metric))
    plain = PlainPatcher(build(family, dtype), family.names, exact.space, clean, corrupt)
    torch.testing.assert_close(
        model(clean)[:, -1].to(dtype), plain.clean.logits, atol=1e-5, rtol=1e-5
    )
    step = STEP if dtype is torch.float64 else STEP_IN_FLOAT32
    _check_edges(plain, exact, first_order, step)
    _check_circuits(plain, model, exact.space)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_family_that_cannot_be_split_is_refused_with_the_reason(name: str) -> None:
    clean, corrupt = ids()
    family, reason = REFUSED[name]
    with pytest.raises(UnsupportedModel, match=reason):
        attribute_edges(prepare_setting(wrap(build(family)), clean, corrupt, metric))


def _check_edges(plain: PlainPatcher, exact: Any, first_order: Any, step: float) -> None:
    space, index = exact.space, torch.arange(3)
    full = metric(plain.clean.logits, index)
    every = list(space.edges())
    chosen = random.Random(0).sample(every, N_EDGES)
    largest = float(first_order.matrix.abs().max())
    for row, column in chosen:
        sender, receiver = space.senders[row], space.receivers[column]
        edge = space.edge_id(row, column)
        taken = full - metric(plain.logits_without(sender, receiver), index)
        found = (float(exact.matrix[row, column]), float(first_order.matrix[row, column]))
        assert found[0] == pytest.approx(float(taken.mean()), abs=3e-6), edge
        up, down = (plain.logits_without(sender, receiver, share) for share in (step, -step))
        slope = float((metric(down, index) - metric(up, index)).mean()) / (2 * step)
        assert found[1] == pytest.approx(slope, abs=2e-3 * largest + 3e-6), edge


def _check_circuits(plain: PlainPatcher, model: Any, space: Any) -> None:
    clean, corrupt = ids()
    every = [space.edge_id(row, column) for row, column in space.edges()]
    for seed in range(N_CIRCUITS):
        circuit = set(random.Random(seed).sample(every, len(every) // 3))
        found = evaluate_circuit(prepare_setting(model, clean, corrupt, metric), circuit)
        expected = metric(plain.logits_of(circuit), torch.arange(3))
        torch.testing.assert_close(found.circuit, expected.double(), atol=1e-5, rtol=1e-5)
