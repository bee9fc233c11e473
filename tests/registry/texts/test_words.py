"""Faithfulness and lists in words."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from registry.texts.words import faithfulness_in_words, listed

OF = "% of the logit difference that the whole model has (0 %: everything ablated)"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.7149, f"the circuit keeps 71 {OF}"),
        (1.0, f"the circuit keeps 100 {OF}"),
        (1.0049, f"the circuit keeps 100 {OF}"),
        (0.0, f"the circuit keeps 0 {OF}"),
        (-0.004, f"the circuit keeps 0 {OF}"),
        (2.171, f"the circuit has 217 {OF}: it omits parts that work against it"),
        (-0.12, f"the circuit has -12 {OF}: it works against it"),
    ],
)
def test_a_faithfulness_is_a_share_of_what_the_model_does(value: float, words: str) -> None:
    assert faithfulness_in_words(value, "logit_difference") == words


def test_a_metric_without_a_name_is_called_the_metric() -> None:
    assert faithfulness_in_words(0.5, None).startswith("the circuit keeps 50 % of the metric that")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        (range(1, 1_591), "1, 2, 3 and 1,587 more"),
        (["x" * 90], "x" * 80 + "..."),
    ],
)
def test_a_list_in_a_line_is_cut_and_says_how_many_more(names: Collection[Any], text: str) -> None:
    assert listed(names, 3) == text
