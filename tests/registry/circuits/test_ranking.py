"""Rank correlation, the same wherever it is asked for."""

from __future__ import annotations

import pytest

from registry.circuits.ranking import rank_correlation


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([3.0, 2.0, 1.0], [30.0, 5.0, 0.0], 1.0),
        ([3.0, 2.0, 1.0], [-1.0, 0.0, 5.0], -1.0),
        ([4.0, 3.0, 2.0, 1.0], [4.0, 2.0, 3.0, 1.0], 0.8),
        ([1.0, 2.0], [2.0, 3.0], None),
        ([1.0], [1.0], None),
        ([], [], None),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], None),
        ([1.0, 1.0, 1.0], [2.0, 3.0, 4.0], None),
    ],
)
def test_the_order_of_three_and_more_is_compared(
    ours: list[float], theirs: list[float], expected: float | None
) -> None:
    found = rank_correlation(list(zip(ours, theirs, strict=True)))
    assert found == (None if expected is None else pytest.approx(expected))


def test_ties_share_their_mean_rank() -> None:
    # Ranks 4.5, 4.5, 2, 1, 3 and 2, 4, 4, 4, 1: covariance -3 / 5, variances 9.5 / 5 and 8 / 5.
    pairs = [(0.5, 1.0), (0.5, 2.0), (0.1, 2.0), (-2.0, 2.0), (0.3, -1.0)]
    assert rank_correlation(pairs) == pytest.approx(-3 / (9.5 * 8) ** 0.5)
