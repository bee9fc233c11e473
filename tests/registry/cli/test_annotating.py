"""The command that says what parts of a circuit do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.registry.cli.conftest import IOI, IOI_TOO, NUMERALS, RUN, Cli


def test_a_role_is_said_and_shown_and_taken_back(cli: Cli, filled: Path) -> None:
    del filled
    node = IOI.nodes[1].component
    told = cli("annotate", IOI.id[:8], node, "name mover", "--by", "Wang et al. 2022",
               "--run", RUN.id[:6], "--score", "copying=0.93", "--score", "b=-1")  # fmt: skip
    assert (told.code, told.out) == (0, "")
    assert told.err == f"Wang et al. 2022 says: {node} is name mover\n"
    cli("annotate", IOI.id[:8], node, "copier", "--by", "Wang et al. 2022", "--also")
    (first, second) = json.loads(cli("show", IOI.id, "--format", "json").out)["annotations"]
    assert first == {
        "node": node, "role": "name mover", "said_by": "Wang et al. 2022", "run": RUN.id,
        "scores": {"copying": 0.93, "b": -1.0},
    }  # fmt: skip
    assert (second["role"], second["run"], second["scores"]) == ("copier", None, {})
    table = cli("show", IOI.id).out
    assert "annotations\nnode" in table
    assert "copying=0.93" in table
    gone = cli("annotate", IOI.id, node, "copier", "--by", "Wang et al. 2022", "--remove")
    assert (gone.code, gone.err) == (0, "removed: 1\n")
    none = cli("annotate", IOI.id, node, "--by", "Ada", "--remove")
    assert (none.code, none.err) == (0, f"Ada gave no such role to {node}\n")
    assert "annotations" not in cli("show", IOI_TOO.id).out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("input", "mover"), "--by is missing"),
        (("input", "--by", "Ada"), "the role is missing"),
        (("input", " ", "--by", "Ada"), "the role is missing"),
        (("input", "mover", "--by", "Ada", "--score", "high"), "must be NAME=NUMBER"),
        (("input", "mover", "--by", "Ada", "--score", "a=nan"), "must be NAME=NUMBER"),
        (("input", "mover", "--by", "Ada", "--score", "=1"), "must be NAME=NUMBER"),
        (
            ("input", "mover", "--by", "Ada", "--score", "a=1", "--score", "a=2"),
            "--score a is given twice",
        ),
        (("input", "--by", "Ada", "--remove", "--also"), "--remove takes no"),
        (("m77", "mover", "--by", "Ada"), "no node of this circuit 'm77'; nearest: "),
        (("input", "mover", "--by", "Ada", "--run", "ffff"), "no run 'ffff'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    cli: Cli, filled: Path, given: tuple[str, ...], says: str
) -> None:
    del filled
    answer = cli("annotate", NUMERALS.id[:8], *given)
    assert answer.code in (1, 2)
    assert says in answer.err
    assert answer.err.count("\n") == 1
    assert json.loads(cli("show", NUMERALS.id, "--format", "json").out)["annotations"] == []
