"""The command attach, and where what is attached is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry import Registry
from tests import examples
from tests.registry.cli.conftest import EDIT, IOI, IOI_TOO, RUN, Cli


@pytest.fixture
def plot(tmp_path: Path) -> Path:
    path = tmp_path / "effects.svg"
    path.write_bytes(b"<svg/>")
    return path


def test_a_file_is_attached_and_listed(cli: Cli, filled: Path, plot: Path) -> None:
    answer = cli("attach", IOI.id[:8], "effects.svg", "--says", "Effects by layer")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0].split() == [
        "name", "media_type", "size_bytes", "says", "sha256",
    ]  # fmt: skip
    cli("attach", RUN.id, str(plot), "--name", "x.bin", "--media-type", "text/plain")
    cli("attach", EDIT.id[:8], str(plot))
    with Registry.open(filled) as registry:
        (mine,), (runs,) = registry.attachments(IOI.id), registry.attachments(RUN.id)
        assert (mine.name, mine.media_type, mine.says) == (
            "effects.svg", "image/svg+xml", "Effects by layer",
        )  # fmt: skip
        assert (runs.name, runs.media_type, runs.says) == ("x.bin", "text/plain", "")
    listed = json.loads(cli("attach", IOI.id[:8], "--format", "json").out)
    assert listed == [
        {"name": "effects.svg", "media_type": "image/svg+xml", "size_bytes": 6,
         "says": "Effects by layer", "sha256": mine.sha256}
    ]  # fmt: skip
    nothing = cli("attach", IOI_TOO.id)
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "nothing is attached\n")


def test_again_it_changes_nothing_and_says_what_stays(cli: Cli, filled: Path, plot: Path) -> None:
    cli("attach", IOI.id, str(plot), "--says", "first")
    again = cli("attach", IOI.id, str(plot), "--says", "second")
    assert (again.code, again.err) == (
        0, "it was already attached; its first description stays\n",
    )  # fmt: skip
    plot.write_bytes(b"other")
    refused = cli("attach", IOI.id, str(plot))
    assert refused.code == 2
    assert "has another file 'effects.svg' attached; give this one another name" in refused.err
    assert cli("attach", IOI.id, str(plot), "--name", "effects-2.svg").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ffff", "effects.svg"], "no circuit, run, edit or prompt set 'ffff'"),
        (["xyz", "effects.svg"], "4 to 64 hexadecimal digits"),
        ([IOI.id, "nothing.svg"], "nothing.svg does not exist"),
        ([IOI.id, "."], ". is not a regular file"),
        ([IOI.id, "effects.svg", "--name", "../x"], "name: contains '/'"),
        ([IOI.id, "effects.svg", "--media-type", "svg"], "media_type: is not a media type"),
        ([IOI.id, "--says", "a plot"], "name the file to attach, after the owner"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    cli: Cli, filled: Path, plot: Path, arguments: list[str], said: str
) -> None:
    answer = cli("attach", *arguments)
    assert answer.code in (1, 2)
    assert (answer.out, answer.err.count("\n")) == ("", 1)
    assert said in answer.err
    with Registry.open(filled) as registry:
        assert registry.ledger.attachments() == ()


def test_show_names_what_is_attached(cli: Cli, filled: Path, plot: Path) -> None:
    assert "attachments" not in cli("show", IOI.id).out
    assert json.loads(cli("show", IOI.id, "--format", "json").out)["attachments"] == []
    made = examples.prompt_set("a" * 64)
    with Registry.open(filled) as registry:
        registry.record(made)
    for owner, command in (
        (IOI.id, ["show"]),
        (EDIT.id, ["edits", "show"]),
        (RUN.id, ["runs"]),
        (made.id, ["prompts"]),
    ):
        cli("attach", owner, str(plot), "--says", "Effects by layer")
        table = cli(*command, owner).out
        assert "\n\nattachments\n" in table
        assert "Effects by layer" in table
        (shown,) = json.loads(cli(*command, owner, "--format", "json").out)["attachments"]
        assert (shown["name"], shown["size_bytes"]) == ("effects.svg", 6)


def test_show_names_the_run_that_measured_in_json(cli: Cli, filled: Path) -> None:
    with Registry.open(filled) as registry:
        (measured,) = registry.ledger.evaluations(IOI.id)
        registry.record(measured.model_copy(update={"run": RUN.id}))
    (shown,) = json.loads(cli("show", IOI.id, "--format", "json").out)["evaluations"]
    assert shown["run"] == RUN.id


def test_the_status_counts_what_is_attached(cli: Cli, filled: Path, plot: Path) -> None:
    for owner in (IOI.id, RUN.id):
        cli("attach", owner, str(plot))
    records = json.loads(cli("status", "--format", "json").out)["records"]
    assert (records["circuits"], records["attachments"]) == (3, 2)
