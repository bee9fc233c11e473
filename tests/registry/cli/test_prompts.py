"""``circuits prompts``: lists of prompt sets, and one with its prompts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.files.prompt_files import read_prompt_file
from registry.records import Circuit, Evaluation, PromptSet
from tests import examples
from tests.registry.cli.conftest import Cli

HEADER = {"format": "circuits-prompts/1", "task": "ioi", "model": "gpt2", "bos": False}


def line(number: int, **more: Any) -> dict[str, Any]:
    return {
        "clean": f"Mary and John {number}",
        "corrupt": f"Anna and John {number}",
        "correct": " Mary",
        "wrong": " John",
        "clean_ids": [1, 2, number],
        "corrupt_ids": [3, 2, number],
        "correct_id": 5,
        "wrong_id": 6,
        **more,
    }


def written(*lines: Any) -> bytes:
    return "".join(f"{json.dumps(one)}\n" for one in lines).encode()


def add(registry: Registry, data: bytes | None, key: str, **fields: Any) -> PromptSet:
    address = None if data is None else registry.store_artifact(data)
    given = {"task": "ioi", "n_prompts": 3, "model": "gpt2", "seed": 0, **fields}
    made = PromptSet(id=key * 64, artifact=address, **given)
    registry.record(made)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.init(tmp_path / ".circuits") as opened:
        opened.record(examples.GPT2, *examples.TASKS)
        split = {"part": "train", "seed": 3, "shares": [0.8, 0.1, 0.1]}
        labelled = [line(0, labels={"template": "ABBA"}), line(1), line(2, more_wrong=[" Anna"])]
        add(
            opened,
            written({**HEADER, "split": split}, *labelled),
            "a",
            share_correct=0.9,
            share_top1=0.5,
        )
        add(opened, written(HEADER, line(0)), "b", task="sequence/numerals", model=None)
        add(opened, None, "c")
        found = Circuit(**{**examples.circuit(1).model_dump(), "prompt_set": "a" * 64})
        measured = {"circuit": found.id, "task": "ioi", "prompt_set": "a" * 64, "n_prompts": 3}
        opened.record(
            found,
            *(
                Evaluation(
                    measure="faithfulness",
                    value=value,
                    full=3.25,
                    parameters={"metric": "logit_difference"},
                    **measured,
                )
                for value in (0.5, 0.75)
            ),
            Evaluation(measure="overlap", value=0.5, **measured),
        )
        yield opened


def listed(cli: Cli, *arguments: str) -> str:
    answer = cli("prompts", *arguments, "--json")
    assert answer.code == 0, answer.err
    return "".join(row["prompt_set"][0] for row in json.loads(answer.out))


def test_prompt_sets_are_listed_newest_first_and_filtered(cli: Cli, registry: Registry) -> None:
    assert listed(cli) == "cba"
    assert listed(cli, "--task", "ioi") == "ca"
    assert listed(cli, "--task", "sequence") == "b"
    assert listed(cli, "--model", "gpt2") == "ca"
    assert "no task 'io'; nearest: ioi" in cli("prompts", "--task", "io").err
    table = cli("prompts").out.splitlines()
    assert " ".join(table[0].split()) == (
        "prompt_set task model seed n_prompts bos share_correct share_top1"
    )
    assert " ".join(table[3].split()) == "aaaaaaaaaaaa ioi gpt2 0 3 0.9 0.5"


def test_pages_follow_one_another(cli: Cli, registry: Registry) -> None:
    first = cli("prompts", "--limit", "2")
    place = first.err.split("--after ")[1].split()[0]
    add(registry, None, "d")
    assert listed(cli, "--limit", "2", "--after", place) == "a"


def test_one_is_shown_with_prompts_labels_split_and_answers(cli: Cli, registry: Registry) -> None:
    shown = json.loads(cli("prompts", "aaaa", "--json").out)
    assert shown["prompt set"]["id"] == "a" * 64
    assert (shown["prompt set"]["share_correct"], shown["prompt set"]["seed"]) == (0.9, 0)
    assert shown["prompt set"]["split"]["part"] == "train"
    first, second, third = shown["prompts"]
    assert first == {**line(0), "labels": {"template": "ABBA"}, "more_wrong": None}
    assert (second["labels"], third["more_wrong"]) == (None, [" Anna"])
    answer = {"model": "gpt2", "metric": "logit_difference", "mean": 3.25, "n_prompts": 3}
    assert shown["answers"] == [answer]
    assert [one["edges"] for one in shown["circuits"]] == [len(examples.circuit(1).edges)]
    assert json.loads(cli("prompts", "bbbb", "--json").out)["circuits"] == []


def test_a_table_leaves_token_ids_out(cli: Cli, registry: Registry) -> None:
    answer = cli("prompts", "aaaa", "--top", "2")
    assert answer.err == "the first 2 of 3 prompts; --top 0 shows all\n"
    table = answer.out.partition("prompts\nclean")[2]
    assert "template=ABBA" in table
    assert "Mary and John 1" in table
    assert "Mary and John 2" not in table
    assert "_id" not in table
    rows = list(csv.reader(io.StringIO(cli("prompts", "aaaa", "--format", "csv").out)))
    assert rows[0] == [
        "clean",
        "corrupt",
        "correct",
        "wrong",
        "labels",
        "more_wrong",
        "clean_ids",
        "correct_id",
        "corrupt_ids",
        "wrong_id",
    ]
    assert len(rows) == 4


def test_prompts_that_are_not_there_or_not_readable_are_said_to_be(
    cli: Cli, registry: Registry
) -> None:
    answer = cli("prompts", "cccc")
    assert answer.code == 0
    assert answer.err == "the prompts themselves are not kept in this registry\n"
    add(registry, b"\xff\xfe", "e")
    add(registry, b"[1]\n", "f")
    for key in "ef":
        answer = cli("prompts", key * 4)
        assert answer.code == 0
        assert (
            "warning: the prompts cannot be shown: the prompts are not stored as JSON" in answer.err
        )
    (path,) = [
        one
        for one in (registry.settings.home / "artifacts").rglob("*")
        if one.is_file() and one.read_bytes() == b"[1]\n"
    ]
    path.unlink()
    assert "warning: the prompts cannot be shown: " in cli("prompts", "ffff").err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["aaaa", "--task", "ioi"], 2, "--task is for lists"),
        (["ioi"], 2, "'ioi' is not the start of a prompt set's id"),
        (["aaab"], 1, "no prompt set 'aaab'; nearest: aaaaaaaaaaaa; see 'circuits prompts'"),
        (["--after", "x"], 2, "'x' is not a position in the list of prompt sets"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Cli, registry: Registry, arguments: list[str], code: int, says: str
) -> None:
    answer = cli("prompts", *arguments)
    assert answer.code == code
    assert says in answer.err


def test_a_file_without_a_header_holds_prompts_alone() -> None:
    file = read_prompt_file(written({"text": "a"}, {"text": "b", "label_id": "x"}))
    assert file.header == {}
    assert [one["text"] for one in file.prompts] == ["a", "b"]
    assert file.fields == ("text", "label_id")
    assert not file.holds_ids("label_id")
