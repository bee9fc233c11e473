"""Names as users type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry import Registry
from registry.errors import NotFound
from registry.names import known_task
from registry.records import Task


def test_of_many_recorded_names_some_are_listed_and_the_rest_is_counted(tmp_path: Path) -> None:
    with Registry.init(tmp_path / "registry") as registry:
        with pytest.raises(NotFound, match="nothing is recorded yet"):
            known_task(registry.ledger, "xyz")
        registry.record(*(Task(slug=f"task-{letter}", family="f") for letter in "abcdefg"))
        with pytest.raises(NotFound, match=r"recorded are: task-a, .*, task-e and 2 more$"):
            known_task(registry.ledger, "0000")
        with pytest.raises(NotFound, match="nearest: task-b, task-"):
            known_task(registry.ledger, "tusk-b")
