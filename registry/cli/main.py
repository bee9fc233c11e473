"""The entry of ``circuits``: help at once, everything else through typer, failures as one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from registry.cli.commands import root_help

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1, 2 for usage, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        for stream in (sys.stdout, sys.stderr):
            # For a character that the terminal lacks, an escape is shown; the command continues.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        if given in ([], ["--help"], ["-h"]):
            sys.stdout.write(root_help())
            sys.stdout.flush()
            return 0
        from registry.cli.root import run

        return run(given)
    except BaseException as error:  # noqa: BLE001 - the only place that handles every failure
        from registry.cli.failures import report

        return report(error)
