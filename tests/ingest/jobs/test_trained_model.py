"""Discovery on a model that does its tasks: what is found does them too."""

from __future__ import annotations

import pytest

from registry import Registry
from tests.ingest.jobs.discovering import discover
from tests.models import WORDS
from tests.models.training import SHARE_CORRECT, TASKS

pytestmark = pytest.mark.seconds


@pytest.mark.parametrize("task", TASKS)
def test_half_of_the_edges_keep_what_the_model_does_and_a_fifth_does_not(
    registry: Registry, task: str
) -> None:
    kept = [
        discover(
            registry, WORDS, task=task, prompts=32, edges=n, method="eap-ig-inputs", select="signed"
        ).finding.summary["faithfulness"]
        for n in (45, 16)
    ]
    (prompts,) = registry.ledger.prompt_sets()
    assert prompts.share_correct is not None
    assert prompts.share_correct >= SHARE_CORRECT
    assert {registry.circuit(e.id).circuit.universe_size for e in registry.circuits()} == {82}
    assert kept[0] >= 0.85
    assert kept[1] <= 0.7
