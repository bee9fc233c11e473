"""How faithful circuits are on other tasks: read as it was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from queries.circuits.transfers import PERCENT_OF_METRIC, Transfer, read_transfers
from registry import Registry
from registry.errors import BadInput, NotFound
from registry.records import Ablation, Evaluation, PromptSet
from tests import examples
from tests.queries import small_registry
from tests.queries.small_registry import IOI, NUMERALS

FIRST, SECOND, THIRD = (examples.circuit(seed, task="ioi") for seed in (1, 2, 3))
MONTHS = "sequence/months"
PROMPTS = [PromptSet(id=digit * 64, task=MONTHS, n_prompts=32) for digit in "12"]
RANDOM = {"metric": "logit_difference", "deciles": [0.0, 0.1], "circuits": 20, "seed": 0}


def measured(circuit: str, task: str, measure: str, value: float, **fields: Any) -> Evaluation:
    return Evaluation(
        circuit=circuit, task=task, measure=measure, value=value, ablation=Ablation.RESAMPLE,
        n_prompts=32, **fields,
    )  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.init(tmp_path_factory.mktemp("transfers")) as registry:
        registry.record(examples.GPT2, *examples.TASKS, *PROMPTS, FIRST, SECOND, THIRD)
        registry.record(
            measured(FIRST.id, "ioi", "faithfulness", 0.875),
            *(
                measured(FIRST.id, MONTHS, measure, value, prompt_set=prompts.id, parameters=said)
                for measure, values, said in (
                    ("faithfulness", (0.25, 0.75), {"metric": "logit_difference"}),
                    ("random_faithfulness", (0.125, 0.0), RANDOM),
                )
                for prompts, value in zip(PROMPTS, values, strict=True)
            ),
            measured(FIRST.id, MONTHS, "completeness", 0.5),
            measured(SECOND.id, MONTHS, PERCENT_OF_METRIC, 37.5, parameters={"unit": "percent"}),
            measured(SECOND.id, MONTHS, "random_faithfulness", 0.5, parameters=RANDOM),
        )
        yield registry


def test_measurements_on_several_sets_of_prompts_are_averaged_beside_random_circuits(
    registry: Registry,
) -> None:
    assert read_transfers(registry, [FIRST.id]) == (
        Transfer(FIRST.id, "ioi", "ioi", "faithfulness", 0.875, 1, None),
        Transfer(FIRST.id, "ioi", MONTHS, "faithfulness", 0.5, 2, 0.0625),
    )


def test_published_percentages_stand_for_themselves(registry: Registry) -> None:
    assert read_transfers(registry, [SECOND.id]) == (
        Transfer(SECOND.id, "ioi", MONTHS, PERCENT_OF_METRIC, 37.5, 1, None),
    )


def test_what_was_not_measured_is_not_told(registry: Registry) -> None:
    assert read_transfers(registry, [THIRD.id]) == ()


def test_several_circuits_are_read_at_once_whatever_their_order(registry: Registry) -> None:
    wanted = [SECOND.id, THIRD.id, FIRST.id]
    found = read_transfers(registry, wanted)
    assert set(found) == {
        *read_transfers(registry, [FIRST.id]), *read_transfers(registry, [SECOND.id])
    }  # fmt: skip
    assert read_transfers(registry, reversed(wanted)) == found


def test_no_circuit_and_one_that_nobody_recorded_are_errors(registry: Registry) -> None:
    with pytest.raises(BadInput, match="needs circuits"):
        read_transfers(registry, [])
    with pytest.raises(NotFound, match="no circuit 'ffff'"):
        read_transfers(registry, ["ffff"])


def test_the_small_registry_tells_what_was_measured_there(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Registry.init(tmp_path_factory.mktemp("transfers")) as filled:
        small_registry.fill(filled)
        found = {one.task: one for one in read_transfers(filled, [IOI.id, NUMERALS.id])}
    assert set(found) == {"ioi", "sequence/numerals"}
    assert (found["ioi"].value, found["ioi"].random) == (0.875, None)
    elsewhere = found["sequence/numerals"]
    assert (elsewhere.found_on, elsewhere.value, elsewhere.random) == ("ioi", 0.25, 0.125)
