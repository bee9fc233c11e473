"""The campaign of kills in its short form: ``benchmarks/faults.py`` for less than a minute.

``make slow`` lets it go on for five.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.few import left_to_make_slow
from tests.servers import unavailable

FAULTS = Path(__file__).parents[1] / "benchmarks" / "faults.py"
SERVERS_DO_NOT_START = 3
_LONGEST_SECONDS = 1_200


@pytest.mark.seconds
@pytest.mark.timeout(_LONGEST_SECONDS)
@pytest.mark.parametrize("minutes", [0.25, left_to_make_slow(5.0, kept="15 seconds of it")])
def test_kills_of_our_processes_lose_nothing_and_show_nothing_half(
    tmp_path: Path, minutes: float
) -> None:
    page = campaign(tmp_path, "local", minutes=minutes)
    assert counted(page, "killed") >= 3
    assert counted(page, "acknowledged") >= 1
    assert counted(page, "reads") >= 1


@pytest.mark.seconds
@pytest.mark.neo4j
@pytest.mark.postgres
@pytest.mark.timeout(_LONGEST_SECONDS)
@pytest.mark.parametrize("minutes", [0.5, left_to_make_slow(5.0, kept="30 seconds of it")])
def test_kills_of_servers_lose_nothing_and_show_nothing_half(
    tmp_path: Path, minutes: float
) -> None:
    page = campaign(tmp_path, "servers", "--server-kill-seconds", "6", minutes=minutes)
    assert counted(page, "killed") >= 3
    assert counted(page, "Neo4j") + counted(page, "PostgreSQL") >= 1
    assert counted(page, "acknowledged") >= 1


def campaign(folder: Path, back_end: str, *options: str, minutes: float) -> str:
    """Run a campaign, expect that it finds nothing, and return its page."""
    out = folder / "faults.md"
    done = subprocess.run(
        [sys.executable, FAULTS, "--back-end", back_end, "--minutes", str(minutes),
         "--kill-seconds", "1.5", "--at-least", "1", "--out", out, *options],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode == SERVERS_DO_NOT_START:
        unavailable("a server", done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return out.read_text(encoding="utf-8")


def counted(page: str, what: str) -> int:
    """What the page's tables say of something; 0 where they do not name it."""
    found = re.search(rf"^\| {what} \| ([\d,]+) \|$", page, re.MULTILINE)
    return int(found[1].replace(",", "")) if found else 0
