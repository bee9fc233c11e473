"""What contradicts itself is refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ingest.jobs.edge_attribution.configuration import EdgeAttributionConfiguration


def _told(**options: Any) -> EdgeAttributionConfiguration:
    return EdgeAttributionConfiguration(**{"model": "m", "task": "ioi", **options})


@pytest.mark.parametrize(
    ("given", "share"), [("1%", 0.01), (" 2.5% ", 0.025), ("0.01", 0.01), (0.5, 0.5), ("100%", 1.0)]
)
def test_a_share_is_read_as_percentage_or_number(given: str | float, share: float) -> None:
    assert _told(share=given).share == pytest.approx(share)


@pytest.mark.parametrize(("given", "size"), [("auto", None), ("8", 8), (3, 3), (None, None)])
def test_a_batch_size_is_auto_or_a_number(given: str | int | None, size: int | None) -> None:
    assert _told(batch_size=given).batch_size == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": None}, "a task is required"),
        ({"edges": 3, "share": "1%"}, "edges and share contradict each other"),
        ({"threshold": 0.1, "faithfulness": 0.9}, "threshold and faithfulness contradict"),
        ({"share": "one"}, "a share is written such as 1% or 0.01, not 'one'"),
        ({"share": "200%"}, "less than or equal to 1"),
        ({"share": "nan"}, "finite number"),
        ({"faithfulness": 0.0}, "greater than 0"),
        ({"threshold": float("inf")}, "finite number"),
        ({"choose": "greedy", "threshold": 0.1}, "greedy grows a circuit to a size"),
        ({"batch_size": "some"}, "a batch size is auto or a number of prompts, not 'some'"),
        ({"batch_size": "0"}, "greater than or equal to 1"),
        ({"method": "ig"}, "'eap-ig-inputs'"),
        ({"steps": 3}, "eap has none"),
        ({"method": "exact", "steps": 3}, "exact has none"),
        ({"method": "clean-corrupted", "ablation": "zero"}, "the ablation zero does not run"),
        ({"reference": "own.jsonl"}, "resample takes none"),
        ({"kv_heads": "split"}, "'per-query-head'"),
        ({"seeds": 0}, "greater than or equal to 1"),
        ({"seeds": 3, "task": None, "file": "own.jsonl"}, "use bootstrap"),
        ({"seeds": 3, "bootstrap": 20}, "seeds and bootstrap contradict each other"),
        ({"bootstrap": 1}, "greater than or equal to 2"),
        ({"consensus": 0.5}, "give seeds or bootstrap too"),
        ({"seeds": 3, "consensus": 0.0}, "greater than 0"),
        ({"device": "cpu", "device_map": "auto"}, "device and device_map contradict"),
        ({"controls": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _told(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "eap-ig-inputs", "steps": 3},
        {"seeds": 3, "consensus": 0.6},
        {"share": "1%", "batch_size": "auto"},
        {"ablation": "mean", "reference": "own.jsonl"},
    ],
)
def test_what_a_run_records_configures_the_same_run_again(options: dict[str, Any]) -> None:
    told = _told(**options)
    recorded = told.model_dump(mode="json", exclude_none=True)
    assert EdgeAttributionConfiguration(**recorded) == told
