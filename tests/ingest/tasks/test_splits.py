"""Which part a prompt is in, and what that depends on."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from ingest.tasks import PromptFile, PromptPair, find_task
from ingest.tasks.splits import SHARES, Part, Split, SplitTask, part_of, read_split, split_source
from registry.errors import BadInput
from tests.ingest.tasks.words import WholeWords


def _file(*pairs: PromptPair) -> PromptFile:
    return PromptFile("own.jsonl", "own", "own", "", tuple(enumerate(pairs, 1)))


def _cleans(file: object) -> list[str]:
    assert isinstance(file, PromptFile)
    return [pair.clean for _, pair in file.pairs]


def test_parts_are_what_they_were_when_this_was_written() -> None:
    """A prompt must never change its part, in no version: circuits were found on it."""
    told = [str(part_of(f"prompt {place}", seed)) for seed in (0, 1) for place in range(4)]
    assert told == [
        "train",
        "train",
        "validation",
        "test",
        "train",
        "train",
        "train",
        "train",
    ]


def test_shares_are_those_that_are_told() -> None:
    counts = Counter(part_of(f"prompt {place}", 0) for place in range(10_000))
    assert sum(SHARES.values()) == pytest.approx(1)
    for part, share in SHARES.items():
        assert abs(counts[part] / 10_000 - share) < 0.02


def test_the_parts_of_a_file_are_all_of_it_once_and_keep_its_order() -> None:
    file = _file(*(PromptPair(f"clean {n}", "corrupt", " a", " b") for n in range(50)))
    parts = [_cleans(split_source(file, Split(part, 4))) for part in Part]
    assert sorted(text for part in parts for text in part) == sorted(_cleans(file))
    for part in parts:
        assert part == [text for text in _cleans(file) if text in part]
    assert parts != [_cleans(split_source(file, Split(part, 5))) for part in Part]


@pytest.mark.parametrize("by", [None, "kind"])
def test_the_order_of_the_others_changes_nothing(by: str | None) -> None:
    pairs = [
        PromptPair(f"clean {n}", "corrupt", " a", " b", labels={"kind": n % 3}) for n in range(60)
    ]
    wanted = {part: set(_cleans(split_source(_file(*pairs), Split(part, 0, by)))) for part in Part}
    random.Random(1).shuffle(pairs)
    shuffled = _file(*pairs)
    found = {part: set(_cleans(split_source(shuffled, Split(part, 0, by)))) for part in Part}
    assert found == wanted


def test_without_a_label_a_part_does_not_depend_on_which_others_there_are() -> None:
    pairs = [PromptPair(f"clean {n}", "corrupt", " a", " b") for n in range(40)]
    all_of_them = set(_cleans(split_source(_file(*pairs), Split(Part.TRAIN))))
    some = _cleans(split_source(_file(*pairs[::3]), Split(Part.TRAIN)))
    assert set(some) == all_of_them & {pair.clean for pair in pairs[::3]}


def test_each_value_of_a_label_is_divided_by_the_shares() -> None:
    values = {"x": 10, "y": 20, "z": 5}
    pairs = [
        PromptPair(f"{value} {n}", "corrupt", " a", " b", labels={"kind": value})
        for value, count in values.items()
        for n in range(count)
    ]
    for part, share in SHARES.items():
        kept = _cleans(split_source(_file(*pairs), Split(part, 0, "kind")))
        counts = Counter(text[0] for text in kept)
        assert counts == {value: round(share * count) for value, count in values.items()}


def test_one_and_true_are_values_of_their_own() -> None:
    pairs = [
        PromptPair(f"clean {n} {value}", "corrupt", " a", " b", labels={"kind": value})
        for value in (1, True)
        for n in range(5)
    ]
    kept = split_source(_file(*pairs), Split(Part.TRAIN, 0, "kind"))
    assert isinstance(kept, PromptFile)
    assert Counter(str(pair.labels["kind"]) for _, pair in kept.pairs) == {"1": 3, "True": 3}


def test_the_same_clean_text_is_in_one_part() -> None:
    pairs = [PromptPair(f"clean {n // 2}", f"corrupt {n}", " a", " b") for n in range(60)]
    parts = [set(_cleans(split_source(_file(*pairs), Split(part)))) for part in Part]
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_a_task_gives_the_pairs_of_its_stream_that_are_in_the_part() -> None:
    task, encode = find_task("ioi"), WholeWords()
    drawn = task.make(3, 60, encode)
    for part in Part:
        found = split_source(task, Split(part, 7))
        assert isinstance(found, SplitTask)
        assert (found.slug, found.family) == (task.slug, task.family)
        wanted = [pair for pair in drawn if part_of(pair.text.clean, 7) is part]
        assert list(islice(found.stream(3, encode), len(wanted))) == wanted


def test_a_part_without_prompts_and_a_label_that_none_has_are_refused() -> None:
    one = PromptPair("clean", "corrupt", " a", " b", labels={"hour": 6})
    parts = [part for part in Part if part is not part_of("clean", 0)]
    with pytest.raises(BadInput, match=f"none of the 1 prompts of own.jsonl is in .* {parts[0]}"):
        split_source(_file(one), Split(parts[0]))
    with pytest.raises(BadInput, match="has the label 'kind'; its labels are hour"):
        split_source(_file(one), Split(Part.TRAIN, 0, "kind"))
    with pytest.raises(BadInput, match="it has no labels"):
        split_source(_file(replace(one, labels={})), Split(Part.TRAIN, 0, "kind"))
    with pytest.raises(BadInput, match="cannot be divided by the label 'kind'"):
        split_source(find_task("ioi"), Split(Part.TRAIN, 0, "kind"))


@pytest.mark.parametrize("split", [Split(Part.TEST), Split(Part.TRAIN, -3, "kind")])
def test_a_split_is_read_from_what_it_says_of_itself(split: Split) -> None:
    assert read_split(split.document) == split
    assert read_split(None) is None
