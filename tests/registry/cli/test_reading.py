"""Commands that read: exact tables, JSON and CSV on one small registry."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.records import Circuit
from tests import examples
from tests.golden_files import check_golden
from tests.registry.cli.conftest import EDIT, IOI, IOI_TOO, NUMERALS, Cli

GROUPS = {"discover": "edge-attribution", "edits": "attach", "catalog": "load"}
CYPHER = "MATCH (c:Circuit)-[:FOR_TASK]->(t:Task) RETURN c.id AS circuit, t.id AS task, \
c.n_edges AS edges ORDER BY circuit"
GOLDEN = {
    "list.txt": "list",
    "list.json": "list --format json",
    "list.csv": "list --format csv",
    "list_filtered.txt": "list --task sequence",
    "list_nothing.txt": "list --tag nothing",
    "list_limited.txt": "list --limit 1",
    "show.txt": f"show {IOI.id[:12]} --top 3",
    "show.json": f"show {IOI.id[:12]} --top 2 --format json",
    "show.csv": f"show {IOI.id[:6]} --top 4 --format csv",
    "show_imported.txt": f"show {IOI_TOO.id} --top 1",
    "edits_list.txt": "edits list",
    "edits_list.json": "edits list --format json",
    "edits_show.txt": f"edits show {EDIT.id[:8]}",
    "edits_show.json": f"edits show {EDIT.id[:8]} --format json",
    "edits_show.csv": f"edits show {EDIT.id[:8]} --format csv",
    "cypher.txt": f"cypher '{CYPHER}'",
    "cypher.json": f"cypher '{CYPHER}' --format json",
    "cypher.csv": f"cypher '{CYPHER}' --format csv --max-rows 2",
    "cypher_parameters.txt": "cypher 'UNWIND $all AS n RETURN n, $s AS s' --param all=[1,2.5,3] "
    "--param s=ioi",
    "status.txt": "status",
    "status.json": "status --format json",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_reading_command_answers_exactly_as_before(name: str, cli: Cli, filled: Path) -> None:
    with Registry.open(filled) as registry:
        identifier = registry.ledger.registry_id
    text = cli(*shlex.split(GOLDEN[name])).text
    text = text.replace(str(filled), "HOME").replace(identifier, "REGISTRY")
    text = text.replace(identifier[:12], "REGISTRY")
    text = re.sub(r'(python"?:? +"?)\d+\.\d+\.\d+', r"\g<1>VERSION", text)
    check_golden(f"cli/{name}", text)


@pytest.mark.parametrize(
    "command",
    [
        "list",
        f"show {IOI.id}",
        "query",
        "query circuits-of-task task=ioi",
        "query circuits-of-task --about",
        "cypher 'RETURN 1 AS one'",
        "edits list",
        f"edits show {EDIT.id}",
        "runs",
        "runs cccc",
        "prompts",
        "status",
        "doctor",
        "gc",
    ],
)
def test_standard_output_is_json_alone_and_csv_has_one_width(
    command: str, cli: Cli, filled: Path
) -> None:
    as_json = cli(*shlex.split(command), "--format", "json")
    assert as_json.code == 0, as_json.err
    json.loads(as_json.out)
    as_csv = cli(*shlex.split(command), "--format", "csv")
    rows = list(csv.reader(io.StringIO(as_csv.out)))
    assert len({len(row) for row in rows}) == 1


def test_a_piped_table_is_not_folded_and_shows_ids_whole_enough_to_use(
    cli: Cli, filled: Path
) -> None:
    cli("note", IOI.id, "long " * 60)
    assert cli("retract", IOI.id, "--reason", "because " * 60).code == 0
    table = cli("show", IOI.id, "--top", "1").out
    assert "because " * 60 in table.replace("\n", " ") + " "
    assert cli("show", re.findall(r"^id +(\w+)$", table, re.MULTILINE)[0]).code == 0


def test_list_filters_by_every_label_and_searches_titles_and_notes(cli: Cli, filled: Path) -> None:
    def found(*arguments: str) -> set[str]:
        return {
            row["circuit"] for row in json.loads(cli("list", *arguments, "--format", "json").out)
        }

    cli("note", NUMERALS.id, "compare with the Docstring circuit")
    cli("retract", IOI_TOO.id, "--reason", "wrong prompts")
    assert found("--task", "ioi") == {IOI.id, IOI_TOO.id}
    assert found("--model", "gpt2", "--method", "edge-attribution") == {
        IOI.id,
        IOI_TOO.id,
        NUMERALS.id,
    }
    assert found("--tag", "final") == found("--author", "Ada") == {IOI.id}
    assert found("--state", "retracted") == {IOI_TOO.id}
    assert found("--search", "DOCSTRING circuit") == {NUMERALS.id}
    assert found("--search", "name movers") == {IOI.id}
    assert found("--limit", "2") < {IOI.id, IOI_TOO.id, NUMERALS.id}


def test_lists_are_gone_on_with_page_by_page(cli: Cli, filled: Path) -> None:
    with Registry.open(filled) as registry:
        registry.record(*(examples.edit(IOI, "m5", f"a{n}.h0")[0] for n in range(4)))
    for command, name in ((["list"], "circuit"), (["edits", "list"], "edit")):

        def asked(*arguments: str, command: list[str] = command) -> tuple[list[Any], list[str]]:
            answer = cli(*command, *arguments, "--format", "json")
            assert answer.code == 0, answer.err
            return json.loads(answer.out), re.findall(r"--after (\S+)", answer.err)

        rows, place = asked("--limit", "2")
        while place:
            more, place = asked("--limit", "2", "--after", place[0])
            rows += more
        assert rows == asked()[0]
        assert len({row[name] for row in rows}) == len(rows) >= 3
        assert cli(*command, "--after", "nowhere").code == 2


def test_a_query_takes_a_list_with_commas_or_a_key_that_comes_twice(cli: Cli, filled: Path) -> None:
    once = cli("query", "shared-components", "tasks=ioi,sequence/numerals", "--format", "json")
    twice = cli(
        "query", "shared-components", "tasks=ioi", "tasks=sequence/numerals", "--format", "json"
    )
    assert json.loads(once.out)
    assert once == twice


def test_rows_of_several_models_are_said_to_be_unless_one_is_asked_for(
    cli: Cli, filled: Path
) -> None:
    elsewhere = Circuit(**{**IOI.model_dump(), "model": "pythia-70m"})
    with Registry.open(filled) as registry:
        registry.record(elsewhere)
    asked = ("query", "shared-components", "tasks=ioi", "--format", "json")
    both = cli(*asked)
    assert {row["model"] for row in json.loads(both.out)} == {"gpt2", "pythia-70m"}
    assert both.err == (
        "note: rows of 2 models, each counted separately: gpt2, pythia-70m; model=NAME shows one of"
        " them\n"
    )
    one = cli(*asked, "model=pythia-70m")
    assert {row["model"] for row in json.loads(one.out)} == {"pythia-70m"}
    assert one.err == ""
    # Nor where all rows are of one model anyhow.
    assert cli("query", "circuits-of-task", "task=sequence/numerals").err == ""


def test_cypher_is_read_from_standard_input(
    cli: Cli, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("RETURN $n + 1 AS n"))
    assert json.loads(cli("cypher", "-", "--param", "n=41", "--format", "json").out) == [{"n": 42}]


def test_a_row_limit_says_that_it_cut(cli: Cli, filled: Path) -> None:
    answer = cli("cypher", "UNWIND range(1, 9) AS n RETURN n", "--max-rows", "3")
    assert answer.err == "only the first 3 rows; --max-rows sets the limit\n"
    assert answer.out.split() == ["n", "1", "2", "3"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_a_command_lists_its_commands(cli: Cli, group: str) -> None:
    answer = cli(group)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines.index("Commands:") > 3
    assert any(line.startswith(f"  {GROUPS[group]} ") for line in lines)
    assert answer.out == cli(group, "--help").out


@pytest.mark.parametrize(
    ("command", "filter", "what"),
    [
        ("list", "--tag=nothing", "circuits"),
        ("runs", "--job=nothing", "runs"),
        ("prompts", "--task=ioi", "prompt sets"),
        ("edits list", f"--circuit={NUMERALS.id}", "edits"),
    ],
)
def test_an_empty_list_says_whether_nothing_is_recorded_or_nothing_fits(
    cli: Cli, filled: Path, tmp_path: Path, command: str, filter: str, what: str
) -> None:
    with Registry.open(filled) as registry:
        registry.record(examples.prompt_set("a" * 64, "sequence/numerals"))
    assert cli(*command.split(), filter).err == f"no such {what}\n"
    Registry.init(tmp_path / "empty").close()
    nothing = cli("--home", str(tmp_path / "empty"), *command.split())
    assert (nothing.code, nothing.out) == (0, "")
    assert re.fullmatch(rf"no {what} yet; '.*\n", nothing.err)


def test_a_page_after_the_last_one_says_that_there_is_no_more(cli: Cli, filled: Path) -> None:
    with Registry.open(filled) as registry:
        place = registry.circuits_page(limit=2).after
        (last,) = registry.circuits_page(limit=2, after=place).items
        registry.retract(last.id, reason="wrong prompts")
    assert place is not None
    assert cli("list", "--state", "active", "--after", place).err == "no more circuits\n"
