"""Measure the time of the reading commands, as a user runs them, on many stored circuits.

The registry has 1,000 circuits of 500 edges: ten tasks on GPT-2 small, each with circuits of four
methods on 25 sets of prompts. Faithfulness is recorded for all circuits on their own task, and for
the circuits of one method on every other task, with random circuits. Each command runs in a
separate process, on the embedded graph and on Neo4j; the time includes its start. The second column
is the processor time of only the command. No command may take more than two seconds, except those
that draw random circuits or compare all pairs.

    python benchmarks/commands.py [--circuits 1000] [--engines kglite neo4j] [--repeat 3]

Neo4j is started as for tests (Java 17 and Maven), or CIRCUITS_TEST_NEO4J names a running server,
which is emptied.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from graph import running_neo4j
from many_circuits import MODEL, N_EDGES, TASKS, fill, make_records

from registry.records import Circuit

LONGEST_SECONDS = 2.0


def commands(circuits: Sequence[Circuit]) -> Mapping[str, Sequence[Sequence[str]]]:
    """The commands: those that must be fast, and others."""
    first, alike, elsewhere = circuits[0].id[:12], circuits[len(TASKS)].id[:12], circuits[1].id[:12]
    tasks = [task.slug for task in TASKS]
    three = ["--task", ",".join(tasks[:3])]
    json = ["--format", "json"]
    busy = max(circuits[0].edges, key=lambda edge: _users(circuits, edge.connection)).connection
    quick = [
        ["list"], ["list", "--task", tasks[0]], ["show", first],
        ["shared", *three], ["shared", *three, "--circuits", "all"], ["shared", *three, "--unique"],
        ["shared", "--task", ",".join(tasks), "--min-tasks", "2", *json],
        ["reuse", "--draws", "0"], ["reuse", "--draws", "0", "--circuits", "all", *json],
        ["where", f"{MODEL.slug}/a9.h6"], ["where", f"{MODEL.slug}/{busy}"],
        ["nearest", first], ["nearest", first, "--over", "components"],
        ["stability", tasks[0]], ["stability", tasks[0], "--by", "methods"],
        ["diff", first, elsewhere], ["diff", first, elsewhere, "--limit", "0", *json],
        ["compare", first, elsewhere, "--draws", "0"], ["compare", first, alike, "--draws", "0"],
        ["compare", "--task", ",".join(tasks[:2]), "--draws", "0"],
    ]  # fmt: skip
    others = [
        ["compare", first, elsewhere], ["matrix", "--task", ",".join(tasks), "--draws", "0"],
        ["reuse"],
    ]  # fmt: skip
    return {"quick": quick, "others": others}


def _users(circuits: Sequence[Circuit], connection: str) -> int:
    return sum(any(edge.connection == connection for edge in one.edges) for one in circuits[:50])


def measure(root: Sequence[str], arguments: Sequence[str], repeat: int, *, quick: bool) -> None:
    """Print the time of a command: the fastest of several runs, because noise only adds time."""
    walls, processors, lines = [], [], 0
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        ran = subprocess.run([*root, *arguments], capture_output=True, text=True, check=False)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if ran.returncode:
            print(f"  failed    {' '.join(arguments)}: {ran.stderr.strip()}", flush=True)
            return
        lines = ran.stdout.count("\n")
    wall = min(walls)
    late = "  too slow" if quick and wall > LONGEST_SECONDS else ""
    print(
        f"  {wall:5.2f} s  {min(processors):5.2f} s  {lines:>7,} lines"
        f"  {' '.join(arguments)}{late}",
        flush=True,
    )


def measure_all(options: argparse.Namespace, folder: Path) -> None:
    """Fill a registry and run every command on each engine."""
    prompts, circuits, measured = make_records(options.circuits)
    home = folder / "registry"
    began = time.perf_counter()
    fill(home, circuits, [*prompts, *measured])
    print(
        f"{len(circuits):,} circuits of {N_EDGES} edges, {len(measured):,} measurements; recorded"
        f" and projected in {time.perf_counter() - began:.0f} s\n"
    )
    for engine in options.engines:
        with contextlib.ExitStack() as stack:
            root = [sys.executable, "-m", "registry", "--home", str(home)]
            if engine == "neo4j":
                root += ["--graph", stack.enter_context(_filled_neo4j(root))]
            print(f"{engine}\n    wall     processor", flush=True)
            for kind, asked in commands(circuits).items():
                for arguments in asked:
                    measure(root, arguments, options.repeat, quick=kind == "quick")
            print()


@contextlib.contextmanager
def _filled_neo4j(root: Sequence[str]) -> Iterator[str]:
    """Fill a Neo4j from the registry's ledger; gives its address."""
    with running_neo4j() as server:
        with server.open() as writer:
            writer.clear()
        os.environ["CIRCUITS_GRAPH_USER"] = server.user
        os.environ["CIRCUITS_GRAPH_PASSWORD"] = server.password.get_secret_value()
        subprocess.run([*root, "--graph", server.url, "rebuild"], check=True, capture_output=True)
        yield server.url


def main() -> None:
    """Measure as the command line requests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--circuits", type=int, default=1000)
    parser.add_argument("--engines", nargs="+", default=["kglite", "neo4j"])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="circuits-bench-") as folder:
        measure_all(options, Path(folder))


if __name__ == "__main__":
    main()
