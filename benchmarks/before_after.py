"""Compare the times of commands in two versions of the package, on the same thousand circuits.

    python benchmarks/before_after.py --before PYTHON --after PYTHON [--circuits 1000] [--rounds 7]
        [--only WORD ...] [--keep FOLDER]

Each PYTHON is the interpreter of an environment in which one version is installed, such as a
checkout of an earlier commit with its own ``.venv``. Each version fills a separate registry with
the records of ``benchmarks/many_circuits.py``; the circuits' ids must be the same. Then every
command runs in a separate process, alternately with both versions, so that other load on the
machine affects both equally. The first run with each version fills the caches and is not counted.

A line shows the medians of a command in both versions, in wall and processor seconds (including its
start and the graph's process). It also shows the median over the rounds of the ratios after /
before. Processor time is more reliable on a busy machine. ``slower`` marks commands that take over
5 % more processor time. The first lines show the time of ``circuits --help`` as a multiple of the
interpreter's time without a program.

``--only`` runs only commands that contain one of these words; ``--keep`` keeps the registries in a
folder, or uses existing ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TASKS = [f"synthetic/t{number}" for number in range(10)]
SLOWER = 1.05
TIMES_A_BARE_START = 10
_FILLER = Path(__file__).with_name("many_circuits.py")


@dataclass(frozen=True, slots=True)
class Version:
    """An installed version, and the registry that it filled."""

    name: str
    python: str
    home: Path

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line of ``circuits`` with these arguments."""
        home = [] if list(arguments) == ["--help"] else ["--home", str(self.home)]
        # Without -P, a package in the current folder would be used.
        return [self.python, "-P", "-m", "registry", *home, *arguments]

    @property
    def place(self) -> str:
        """Folder of the package that is run."""
        code = "import registry; print(registry.__path__[0])"
        done = subprocess.run([self.python, "-P", "-c", code], check=True, capture_output=True)
        return done.stdout.decode().strip()


@dataclass(frozen=True, slots=True)
class Times:
    """Times of one run in seconds; ``processor`` includes all processes that it started."""

    wall: float
    processor: float


def fill(version: Version, n_circuits: int) -> list[str]:
    """Fill the version's registry, unless it exists, and return the ids of its circuits."""
    listed = version.home.with_name(f"{version.name}.ids.json")
    if not listed.exists():
        began = time.perf_counter()
        done = subprocess.run(
            [version.python, str(_FILLER), str(version.home), "--circuits", str(n_circuits)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        listed.write_text(json.dumps(done.stdout.split()))
        print(f"{version.name}: filled in {time.perf_counter() - began:.0f} s", flush=True)
    ids: list[str] = json.loads(listed.read_text())
    return ids


def commands(ids: Sequence[str]) -> Iterator[list[str]]:
    """The timed commands on these circuits, whose tasks alternate."""
    first, other, alike = (ids[place][:12] for place in (0, 1, len(TASKS)))
    two, three = ",".join(TASKS[:2]), ",".join(TASKS[:3])
    yield ["list"]
    yield ["list", "--task", TASKS[0]]
    yield ["show", first]
    yield ["query"]
    yield ["query", "circuits-of-task", f"task={TASKS[0]}"]
    yield ["query", "shared-components", f"tasks={two}"]
    yield ["query", "shared-connections", f"tasks={two}"]
    yield ["query", "nearest-circuits", f"circuit={first}"]
    yield ["query", "connection-frequency", f"circuits={first},{alike}"]
    yield ["shared", "--task", three]
    yield ["shared", "--task", three, "--circuits", "all"]
    yield ["where", "gpt2/a9.h6"]
    yield ["nearest", first]
    yield ["compare", first, other, "--draws", "0"]
    yield ["compare", first, alike]
    yield ["matrix", "--task", three, "--draws", "0"]
    yield ["matrix", "--task", three]
    yield ["reuse", "--draws", "0"]
    yield ["cypher", "MATCH (c:Circuit) RETURN c.model AS model, count(c) AS n"]


def once(command: Sequence[str]) -> Times:
    """Run a command and discard its output.

    Raises:
        RuntimeError: It fails.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {said.decode(errors='replace').strip()}")
    return Times(wall, used.ru_utime + used.ru_stime)


def paired(a: Sequence[str], b: Sequence[str], rounds: int) -> tuple[list[Times], list[Times]]:
    """Run two commands alternately; the first run of each does not count."""
    once(a), once(b)
    runs = [(once(a), once(b)) for _ in range(rounds)]
    return [run for run, _ in runs], [run for _, run in runs]


def ratio(before: Sequence[float], after: Sequence[float]) -> float:
    """Ratio of the time after to the time before, median over the rounds."""
    return statistics.median(b / a for a, b in zip(before, after, strict=True))


def show(label: str, before: Sequence[Times], after: Sequence[Times]) -> bool:
    """Print a command's line; returns whether it became slower."""
    wall = [one.wall for one in before], [one.wall for one in after]
    processor = [one.processor for one in before], [one.processor for one in after]
    slower = ratio(*processor) > SLOWER
    medians = [f"{statistics.median(some):7.3f}" for some in (*wall, *processor)]
    print(
        f"{medians[0]} {medians[1]} {ratio(*wall):6.2f}   {medians[2]} {medians[3]}"
        f" {ratio(*processor):6.2f}   {label}{'   slower' if slower else ''}",
        flush=True,
    )
    return slower


def show_start(version: Version, rounds: int) -> None:
    """Print the time of the help as a multiple of the interpreter's time without a program."""
    bare, helping = paired([version.python, "-c", "pass"], version.command(["--help"]), rounds)
    times = [ratio([getattr(one, of) for one in bare], [getattr(one, of) for one in helping])
             for of in ("wall", "processor")]  # fmt: skip
    late = "" if times[0] < TIMES_A_BARE_START else f"   over {TIMES_A_BARE_START}"
    print(f"{version.name}: --help takes {times[0]:.1f} times a bare start by the wall,"
          f" {times[1]:.1f} by the processor{late}", flush=True)  # fmt: skip


def measure_all(options: argparse.Namespace, folder: Path) -> int:
    """Fill both registries and time every command; returns how many became slower."""
    versions = [
        Version(name, getattr(options, name), folder / name / ".circuits")
        for name in ("before", "after")
    ]
    for version in versions:
        print(f"{version.name}: {version.place}")
    ids = [fill(version, options.circuits) for version in versions]
    if ids[0] != ids[1]:
        raise RuntimeError("the two versions give different ids to the same circuits")
    for version in versions:
        show_start(version, options.rounds)
    print("\n   wall seconds             processor seconds\n"
          " before   after  ratio    before   after  ratio")  # fmt: skip
    n_slower = 0
    for arguments in (["--help"], *commands(ids[0])):
        label = " ".join(arguments)
        if options.only and not any(word in label for word in options.only):
            continue
        before, after = (version.command(arguments) for version in versions)
        n_slower += show(label, *paired(before, after, options.rounds))
    return n_slower


def main() -> int:
    """Measure as the command line requests; returns 1 if a command became slower."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", required=True, metavar="PYTHON")
    parser.add_argument("--after", required=True, metavar="PYTHON")
    parser.add_argument("--circuits", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", metavar="WORD")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="circuits-bench-") as temporary:
        folder = options.keep or Path(temporary)
        for name in ("before", "after"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return 1 if measure_all(options, folder) else 0


if __name__ == "__main__":
    sys.exit(main())
