"""Measure how many circuits per second several processes record at once, and the latency.

Eight processes record circuits of 50 edges one at a time; two others run a named query in a loop. A
record counts when ``Registry.record`` has returned. "processor ms" is the processor time of a
record in the writers and their embedded engines; it is more reliable than the rate on a busy
machine. The last columns show how many changes ``sync`` had still to project, and how long this
took.

    python benchmarks/writing.py [--trees . OTHER] [--back-ends local servers] [--rounds 2]

``--trees`` names checkouts whose packages are measured one after the other within each round, so
that other load on the machine affects all of them. This file and the other files of its folder are
always those of the tree from which it is started. To extract a commit, use
``git archive COMMIT | tar -x -C FOLDER``. ``--back-ends local`` needs no servers.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from back_ends import NAMES, ROOT, BackEnd, running

_PROCESS = Path(__file__).with_name("writing_process.py")
_QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class Load:
    """Number of processes, duration, and size of the registry."""

    writers: int
    readers: int
    seconds: float
    circuits: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one registry; times in seconds, by process."""

    writes: Sequence[Sequence[float]]
    reads: Sequence[Sequence[float]]
    processor_seconds: float
    warnings: int
    errors: Sequence[str]
    pending: int
    sync_seconds: float

    def row(self) -> list[str]:
        """Its measurements as cells of the table."""
        return [
            f"{_rate(self.writes):.1f}",
            *_milliseconds(self.writes),
            f"{1000 * self.processor_seconds / max(1, sum(map(len, self.writes))):.0f}",
            f"{_rate(self.reads):.1f}",
            *_milliseconds(self.reads)[:2],
            str(self.warnings),
            str(len(self.errors)),
            str(self.pending),
            f"{self.sync_seconds:.1f}",
        ]


COLUMNS = (
    "back end", "circuits", "tree", "records/s", "median ms", "95 % ms", "longest ms",
    "processor ms", "reads/s", "median ms", "95 % ms", "warnings", "errors", "pending", "sync s",
)  # fmt: skip


def _rate(times: Sequence[Sequence[float]]) -> float:
    # Each process is divided by its own time: its last record ends after the given time.
    return sum(len(some) / sum(some) for some in times if some)


def _milliseconds(times: Sequence[Sequence[float]]) -> list[str]:
    ordered = sorted(itertools.chain.from_iterable(times))
    if not ordered:
        return ["-", "-", "-"]
    late = ordered[int(_QUANTILE * (len(ordered) - 1))]
    return [f"{1000 * t:.0f}" for t in (statistics.median(ordered), late, ordered[-1])]


def measure(tree: Path, variables: Mapping[str, str], load: Load) -> Measured:
    """Fill a new registry with one tree's package, and run its processes on it."""
    environment = _environment(tree, variables)
    _report_of(_start(environment, "fill", load.circuits))
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(_start(environment, "write", number * 10**6, load.seconds))
            for number in range(load.writers)
        ]
        readers = [
            stack.enter_context(_start(environment, "read", load.seconds))
            for _ in range(load.readers)
        ]
        for process in (*writers, *readers):
            _expect_ready(process)
        for process in (*writers, *readers):
            _tell_to_go(process)
        wrote, read = [_report_of(p) for p in writers], [_report_of(p) for p in readers]
    finished = _report_of(_start(environment, "finish"))
    if finished["recorded"] != finished["in_graph"]:
        raise SystemExit(f"{tree}: recorded and in the graph differ: {finished}")
    return Measured(
        writes=[report["latencies"] for report in wrote],
        reads=[report["latencies"] for report in read],
        processor_seconds=sum(report["processor_seconds"] for report in wrote),
        warnings=sum(report["warnings"] for report in wrote),
        errors=[one for report in (*wrote, *read) for one in report["errors"]],
        pending=finished["pending"],
        sync_seconds=finished["seconds"],
    )


def _environment(tree: Path, variables: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CIRCUITS_")}
    return {**kept, **variables, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}


def _start(environment: Mapping[str, str], *what: str | float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(_PROCESS), *map(str, what)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _expect_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit("a process ended before it began; its messages are above")


def _tell_to_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit("a process failed; its messages are above")
    lines = output.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def measurements(
    back_end: BackEnd, trees: Sequence[Path], load: Load, rounds: int
) -> Iterator[tuple[Path, Measured]]:
    """Measure the trees one after the other, for a number of rounds."""
    for _ in range(rounds):
        for tree in trees:
            with (
                tempfile.TemporaryDirectory(prefix="circuits-writing-") as folder,
                back_end.new_registry(Path(folder) / "registry") as variables,
            ):
                yield tree, measure(tree, variables, load)


def _print_row(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Measure as the command line requests, and print one row for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trees", type=Path, nargs="+", default=[ROOT])
    parser.add_argument("--back-ends", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--circuits", type=int, nargs="+", default=[100])
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    trees = [tree.resolve() for tree in options.trees]
    _print_row(COLUMNS)
    _print_row(["---"] * len(COLUMNS))
    for name in options.back_ends:
        with running(name, measured=True) as back_end:
            for circuits in options.circuits:
                load = Load(options.writers, options.readers, options.seconds, circuits)
                for tree, found in measurements(back_end, trees, load, options.rounds):
                    _print_row([name, f"{circuits:,}", tree.name, *found.row()])


if __name__ == "__main__":
    main()
