"""Where an engine falls short of the graph's contract, each with its reason.

A gap names an engine and a test of ``GraphContract``. The test then has to fail there, with that
exception: a gap that has closed is a failure until it is taken from this list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from registry.errors import QueryFailed

__all__ = ["GAPS", "Gap", "marks_for"]


@dataclass(frozen=True)
class Gap:
    """One thing an engine does not do.

    Attributes:
        whose: ``ours``: not done yet; ``engine``: may come with a later version; ``never``: by
            design.
    """

    engine: str
    test: str
    raises: type[BaseException]
    whose: Literal["ours", "engine", "never"]
    reason: str


GAPS = (
    Gap(
        "kglite",
        "test_a_float_divided_by_zero_is_infinite",
        AssertionError,
        "never",
        "it answers null; statements of the project do not divide by a float that may be zero",
    ),
    Gap(
        "kglite",
        "test_a_missing_title_is_null",
        AssertionError,
        "never",
        "every node has a title there; the projection always writes one where it is read",
    ),
    Gap(
        "kglite",
        "test_a_quantified_path_is_understood",
        QueryFailed,
        "engine",
        "paths are written with a variable length there",
    ),
)


def marks_for(engine: str, test: str) -> list[pytest.MarkDecorator]:
    """Strict expected failures of that test on that engine."""
    return [
        pytest.mark.xfail(raises=gap.raises, reason=f"{gap.whose}: {gap.reason}", strict=True)
        for gap in GAPS
        if gap.engine == engine and test.partition("[")[0] == gap.test
    ]
