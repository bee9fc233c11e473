"""The checked-in model does its tasks, and so does one that is trained anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import WORDS
from tests.models.training import SHARE_CORRECT, TASKS, share_correct, train

pytestmark = pytest.mark.seconds

_LARGEST_BYTES = 1_000_000


@pytest.mark.parametrize("task", TASKS)
def test_the_checked_in_model_does_the_tasks_that_it_was_trained_on(task: str) -> None:
    assert share_correct(WORDS, task) >= SHARE_CORRECT


def test_the_checked_in_weights_are_small() -> None:
    assert (WORDS / "model.safetensors").stat().st_size < _LARGEST_BYTES


def test_a_model_that_learnt_from_one_batch_does_not(tmp_path: Path) -> None:
    folder = train(tmp_path / "one batch", steps=1)
    assert min(share_correct(folder, task) for task in TASKS) < SHARE_CORRECT


@pytest.mark.slow("the model that was trained before")
def test_training_anew_gives_a_model_that_does_them_too(tmp_path: Path) -> None:
    folder = train(tmp_path / "words")
    assert all(share_correct(folder, task) >= SHARE_CORRECT for task in TASKS)
