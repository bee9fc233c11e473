from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ingest.discovery import attribute_edges, prepare_setting
from ingest.discovery.model.batches import (
    Padding,
    PromptBatch,
    each_batch,
    padding_token,
    read_prompts,
)
from registry.errors import BadInput, NonFiniteScores
from tests.ingest.discovery.asking import attribute
from tests.ingest.discovery.decoders import N_PROMPTS, bridge, clean_ids, corrupt_ids, metric

CPU = torch.device("cpu")
# What torch says on CUDA, on MPS and on the CPU; none of it can be had on purpose on a machine
# that gives memory first and thinks later.
REFUSALS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
)


def pairs(n: int) -> Tensor:
    return torch.arange(2, 2 + 3 * n).reshape(n, 3)


class Room:
    """Work that fits only up to so many prompts at once."""

    def __init__(self, n: int, refusal: Exception) -> None:
        self.n, self.refusal = n, refusal
        self.tried: list[int] = []
        self.done: list[int] = []

    def work(self, batch: PromptBatch) -> None:
        self.tried.append(len(batch.index))
        if len(batch.index) > self.n:
            raise self.refusal
        self.done += batch.index.tolist()


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_until_it_does(refusal: Exception) -> None:
    room = Room(3, refusal)
    each_batch(read_prompts(pairs(10), None, None), CPU, room.work, size=None, start=10)
    assert room.done == list(range(10))
    assert room.tried == [10, 5, 2, 2, 2, 2, 2]


def test_on_an_accelerator_batches_grow_until_memory_says_no() -> None:
    # Tensors of the meta device hold nothing, and it is not the CPU: it stands for an accelerator.
    room = Room(6, REFUSALS[0])
    each_batch(
        read_prompts(pairs(20), None, None), torch.device("meta"), room.work, size=None, start=1
    )
    assert room.tried == [1, 2, 4, 8, 4, 4, 4, 1]
    assert room.done == list(range(20))


def test_a_size_that_was_asked_for_is_not_changed() -> None:
    room = Room(3, REFUSALS[0])
    with pytest.raises(torch.OutOfMemoryError):
        each_batch(read_prompts(pairs(10), None, None), CPU, room.work, size=4, start=10)


def test_memory_that_does_not_hold_one_prompt_is_said_so() -> None:
    room = Room(0, REFUSALS[1])
    with pytest.raises(BadInput, match="memory on cpu is too small for one prompt of 3 tokens"):
        each_batch(read_prompts(pairs(4), None, None), CPU, room.work, size=None, start=4)


def test_another_error_of_the_work_is_let_through() -> None:
    room = Room(0, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        each_batch(read_prompts(pairs(4), None, None), CPU, room.work, size=None, start=4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_without_a_mask_is_refused_with_its_prompt(side: str) -> None:
    model = bridge("gemma3")
    padding = padding_token(model)
    assert padding is not None
    gap = torch.full((N_PROMPTS, 2), padding.token)
    gap[0] = 5
    parts = [gap, clean_ids()] if side == "left" else [clean_ids(), gap]
    clean = torch.cat(parts, 1)
    with pytest.raises(BadInput, match=r"prompt 1 \(counted from 0\) seems padded with token 1"):
        attribute_edges(prepare_setting(model, clean, clean, metric()))
    attribute_edges(
        prepare_setting(model, clean, clean, metric(), attention_mask=torch.ones_like(clean))
    )


def test_a_token_that_may_begin_prompts_is_padding_only_the_second_time() -> None:
    tokens = torch.tensor([[1, 5, 6]])
    assert len(read_prompts(tokens, None, None, Padding(1))) == 1
    with pytest.raises(BadInput, match="prompt 0"):
        read_prompts(tokens, None, None, Padding(1, may_begin=False))
    with pytest.raises(BadInput, match="prompt 0"):
        read_prompts(torch.tensor([[1, 1, 6]]), None, None, Padding(1))


def test_padded_corrupt_prompts_without_a_mask_are_refused() -> None:
    model, corrupt = bridge("llama"), corrupt_ids()
    padding = padding_token(model)
    assert padding is not None
    corrupt[2, -1] = padding.token
    with pytest.raises(BadInput, match=r"prompt 2 \(counted from 0\) seems padded"):
        attribute_edges(prepare_setting(model, clean_ids(), corrupt, metric()))


@pytest.mark.parametrize("token", [-1, 24])
def test_a_token_the_model_does_not_know_is_refused_with_its_prompt(token: int) -> None:
    clean = clean_ids()
    clean[1, 2] = token
    with pytest.raises(BadInput, match=r"prompt 1 .* of clean has a token .* ids go from 0 to 23"):
        attribute_edges(prepare_setting(bridge("gpt2"), clean, corrupt_ids(), metric()))


def test_what_a_mask_hides_need_not_be_known_to_the_model() -> None:
    model = bridge("gpt2")
    clean, corrupt = clean_ids(), corrupt_ids()
    expected = attribute_edges(prepare_setting(model, clean, corrupt, metric(), batch_size=1))
    hidden = torch.full((len(clean), 30), -1)  # more than the model has positions, together
    mask = torch.cat([torch.ones_like(clean), torch.zeros_like(hidden)], 1)
    found = attribute_edges(
        prepare_setting(
            model,
            torch.cat([clean, hidden], 1),
            torch.cat([corrupt, hidden], 1),
            metric(),
            attention_mask=mask,
            batch_size=1,
        )
    )
    assert torch.equal(found.matrix, expected.matrix)


def test_prompts_longer_than_learned_positions_are_refused() -> None:
    clean = torch.full((1, 40), 5)
    with pytest.raises(BadInput, match="clean has 40 positions, but the model reads 32"):
        attribute_edges(prepare_setting(bridge("gpt2"), clean, clean, metric()))


def test_errors_name_the_reference_where_it_is_wrong() -> None:
    options = {"ablation": "mean", "reference": torch.tensor([[5, 1]])}
    with pytest.raises(BadInput, match="give reference_mask"):
        attribute_edges(prepare_setting(bridge("llama"), clean_ids(), None, metric(), **options))  # type: ignore[arg-type]


def test_a_prompt_whose_metric_is_bad_is_named_before_one_whose_gradient_is() -> None:
    def bad(logits: Tensor, index: Tensor) -> Tensor:
        found = logits[:, 0]
        return torch.where(index == 1, torch.nan * found, found)

    with pytest.raises(NonFiniteScores, match="prompt 1"):
        attribute_edges(
            prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), bad, batch_size=3)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablation": "shuffle"}, "ablation must be 'resample', 'mean' or 'zero'; got 'shuffle'"),
        ({"ablation": "mean"}, "needs reference: the prompts for the mean"),
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        (
            {"ablation": "zero", "method": "clean-corrupted"},
            "takes gradients on the corrupt prompts, which ablation='zero' does not run",
        ),
    ],
)
def test_an_ablation_that_lacks_something_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        attribute(bridge("gpt2"), clean_ids(), corrupt_ids(), metric(), **options)


def test_resampling_without_corrupt_prompts_is_refused() -> None:
    with pytest.raises(BadInput, match="ablation='resample' needs corrupt prompts"):
        attribute_edges(prepare_setting(bridge("gpt2"), clean_ids(), None, metric()))


def test_exact_scores_need_no_gradient() -> None:
    def right(logits: Tensor, index: Tensor) -> Tensor:
        return (logits.argmax(-1) == index + 3).double()

    found = attribute_edges(
        prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), right), method="exact"
    )
    assert bool(torch.isfinite(found.matrix).all())
