"""What stays in ``make test`` of a grid, and in which order files are tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import pytest_collection_modifyitems
from tests.few import each_once, every_nth
from tests.order import SECONDS


def kept(cases: list[Any]) -> list[Any]:
    return [case for case in cases if not hasattr(case, "marks")]


@pytest.mark.parametrize(("n_first", "n_second"), [(4, 3), (3, 4), (3, 3), (1, 5), (8, 1)])
def test_pairs_that_are_kept_hold_every_value_and_are_as_few_as_that_takes(
    n_first: int, n_second: int
) -> None:
    first, second = [f"a{place}" for place in range(n_first)], list(range(n_second))
    cases = each_once(first, second, "each once")
    assert len(cases) == n_first * n_second
    stay = kept(cases)
    assert {one for one, _ in stay} == set(first)
    assert {other for _, other in stay} == set(second)
    assert len(stay) == max(n_first, n_second)


def test_parts_of_a_case_come_before_the_other_value() -> None:
    assert kept(each_once([("a", "b")], ["c"], "all")) == [("a", "b", "c")]


def test_tests_of_one_grid_that_begin_at_different_places_keep_every_case_between_them() -> None:
    cases = list(range(10))
    stay = [kept(every_nth(cases, 3, "a third", first=first)) for first in range(3)]
    assert sorted(case for part in stay for case in part) == cases


def test_what_is_left_says_what_is_kept() -> None:
    (left,) = [case for case in every_nth(["a", "b"], 2, "half") if hasattr(case, "marks")]
    assert left.values == ("b",)
    assert [(mark.name, mark.args) for mark in left.marks] == [("slow", ("half",))]


def test_a_test_that_is_left_without_a_reason_is_refused(request: pytest.FixtureRequest) -> None:
    request.node.add_marker(pytest.mark.slow)
    with pytest.raises(pytest.UsageError, match="without a reason"):
        pytest_collection_modifyitems([request.node])


@pytest.mark.parametrize("name", SECONDS)
def test_every_file_that_begins_is_there(name: str) -> None:
    assert (Path(__file__).parent / name).is_file()
