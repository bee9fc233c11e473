"""ROME on tiny random models, against the closed form and against what the model then says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ingest.discovery.editing.keys import KeyMoment, key_moments
from ingest.discovery.editing.projections import down_projection, read_at
from ingest.discovery.editing.rome import (
    Rewrite,
    RomeOptions,
    rank_one_change,
    rome_change,
)
from ingest.discovery.model.weights_in_place import changed_weights
from ingest.models import wrap
from registry.errors import BadInput
from tests.ingest import tiny_models

FAMILIES = sorted(tiny_models.ALL)
REWRITE = Rewrite(
    prompts=(((3, 4, 5, 6), 2), ((9, 11, 3, 4, 5, 6), 4), ((7, 3, 4, 5, 6), 3)),
    target=(13, 14),
    essence=((3, 4, 5, 1), 2),
)
LAYER = 0
FREE = RomeOptions(learning_rate=0.05, weight_decay=0.0, clamp=1e4)
"""The values of a random model are so small that the usual penalty keeps them as they are."""


def model_of(family: str, dtype: torch.dtype = torch.float64) -> Any:
    return wrap(tiny_models.ALL[family]().to(dtype))


def text(n_windows: int = 60) -> list[list[int]]:
    drawn = torch.randint(0, tiny_models.D_VOCAB, (n_windows, 10), generator=_seed())
    return drawn.tolist()


def _seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def moment_of(model: Any, layer: int = LAYER) -> KeyMoment:
    """The moment over a text, and 1 on the diagonal.

    The first MLP of GPT-NeoX sees single tokens alone, and there are fewer of them than dimensions.
    """
    found = key_moments(model, [layer], text())[layer]
    return replace(found, matrix=found.matrix + torch.eye(len(found.matrix)))


def nll(model: Any, prompt: Sequence[int], target: tuple[int, ...]) -> float:
    """Mean negative log-likelihood of a target after a prompt, one token at a time."""
    given, total = list(prompt), 0.0
    for token in target:
        with torch.no_grad():
            total -= float(model(torch.tensor([given]))[0, -1].log_softmax(-1)[token])
        given.append(token)
    return total / len(target)


# -- the closed form -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 12])
def test_the_change_is_the_smallest_that_stores_the_value(n: int) -> None:
    """Each row of the change is minimised alone, by the equations of a constrained minimum."""
    draw = np.random.default_rng(n)
    keys = draw.normal(size=(40, n))
    moment, key, missing = keys.T @ keys / 40, draw.normal(size=n), draw.normal(size=5)
    system = np.block([[2 * moment, key[:, None]], [key[None], np.zeros((1, 1))]])
    rows = [np.linalg.solve(system, [*np.zeros(n), one])[:n] for one in missing]
    found = rank_one_change(*(torch.tensor(one) for one in (moment, key, missing)))
    assert found.numpy() == pytest.approx(np.stack(rows), abs=1e-9)
    assert np.linalg.matrix_rank(found.numpy()) == 1
    assert found.numpy() @ key == pytest.approx(missing, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_is_the_closed_form_of_its_key_value_and_moment(family: str) -> None:
    model = model_of(family)
    moment = moment_of(model)
    change = rome_change(model, LAYER, REWRITE, moment)
    place = down_projection(model, LAYER)
    keys, values = (one.numpy() for one in read_at(model, place, REWRITE.prompts))
    direction = np.linalg.inv(moment.matrix.numpy()) @ keys.mean(0)
    wanted = np.outer(change.value.numpy() - values[0], direction / (keys[0] @ direction))
    assert place.as_stored(change.added).numpy() == pytest.approx(wanted, abs=1e-6)
    assert change.added.shape == place.weight.shape
    assert change.key.numpy() == pytest.approx(keys.mean(0), abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_changed_layer_gives_the_value_and_the_model_says_the_target(family: str) -> None:
    model = model_of(family)
    plain, _ = REWRITE.prompts[0]
    before = nll(model, plain, REWRITE.target)
    logits = model(tiny_models.token_ids())
    change = rome_change(model, LAYER, REWRITE, moment_of(model), FREE)
    place = down_projection(model, LAYER)
    with changed_weights(model, added={change.name: change.added}):
        _, values = read_at(model, place, REWRITE.prompts[:1])
        assert values[0].tolist() == pytest.approx(change.value.tolist(), abs=1e-9)
        assert nll(model, plain, REWRITE.target) < before
    assert change.losses[-1] < change.losses[0]
    assert torch.equal(model(tiny_models.token_ids()), logits)


def test_the_model_is_as_before_and_its_weights_can_be_trained(monkeypatch: Any) -> None:
    model = model_of("gpt2")
    logits = model(tiny_models.token_ids()).detach()
    trained = {name: one.requires_grad for name, one in model.original_model.named_parameters()}
    rome_change(model, LAYER, REWRITE, moment_of(model))
    monkeypatch.setattr(torch.optim.Adam, "step", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        rome_change(model, LAYER, REWRITE, moment_of(model))
    assert trained == {n: one.requires_grad for n, one in model.original_model.named_parameters()}
    assert torch.equal(model(tiny_models.token_ids()), logits)


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_the_change_of_the_value_stays_within_its_bound() -> None:
    model = model_of("llama")
    _, values = read_at(model, down_projection(model, LAYER), REWRITE.prompts)
    options = RomeOptions(learning_rate=5.0, clamp=0.5)
    change = rome_change(model, LAYER, REWRITE, moment_of(model), options)
    assert float((change.value - values[0]).norm()) == pytest.approx(0.5 * float(values[0].norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_weights_are_changed_in_float32(dtype: torch.dtype) -> None:
    model = model_of("gpt2", dtype)
    change = rome_change(model, LAYER, REWRITE, moment_of(model), FREE)
    assert change.added.dtype is torch.float32
    assert change.losses[-1] < change.losses[0]


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_moment_is_the_mean_over_all_tokens_of_the_layer_s_input(family: str) -> None:
    model = model_of(family)
    windows = [*text(3), [1, 2]]
    keys = [
        read_at(model, down_projection(model, layer), [(window, at)])[0][0]
        for layer in (0, 1)
        for window in windows
        for at in range(len(window))
    ]
    by_layer = torch.stack(keys).reshape(2, 32, -1)
    found = key_moments(model, [0, 1], windows)
    for layer in (0, 1):
        wanted = by_layer[layer].T @ by_layer[layer] / 32
        assert found[layer].n_tokens == 32
        assert torch.allclose(found[layer].matrix, wanted, atol=1e-12)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"target": ()}, "the new target has no tokens"),
        ({"prompts": ()}, "needs a prompt"),
        ({"prompts": (((3, 4), 2),)}, "position 2 is not in a prompt of 2 tokens"),
        ({"essence": ((3, 4), -1)}, "position -1 is not in a prompt of 2 tokens"),
    ],
)
def test_what_cannot_be_written_is_refused(change: dict[str, Any], why: str) -> None:
    model = model_of("gpt2")
    given = {"prompts": REWRITE.prompts, "target": REWRITE.target, **change}
    with pytest.raises(BadInput, match=why):
        rome_change(model, LAYER, Rewrite(**given), moment_of(model))


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (lambda model: moment_of(model, 1), "is of layer 1 with 64 dimensions, but layer 0 has 64"),
        (lambda model: key_moments(model, [0], text(2))[0], "singular; measure it over a longer"),
        (lambda model: key_moments(model, [1], []), "is empty"),
        (lambda model: moment_of(model, 7), "layer is 7, but the model has layers 0 to 1"),
    ],
    ids=["layer", "singular", "empty", "no-layer"],
)
def test_a_moment_that_does_not_fit_is_refused(moment: Callable[[Any], Any], why: str) -> None:
    model = model_of("gpt2")
    with pytest.raises(BadInput, match=why):
        rome_change(model, LAYER, REWRITE, moment(model))
