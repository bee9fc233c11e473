"""One process of ``benchmarks/writing.py``: it fills, writes, reads or finishes a registry.

The registry is found through the environment. The package is the one on ``PYTHONPATH``, which may
be another version, so only its public interface is used here.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from synthetic import MODEL, make_circuit

from registry import Registry
from registry.errors import CircuitsError
from registry.records import Circuit, Task

TASKS = tuple(Task(slug=f"synthetic/t{number}", family="synthetic") for number in range(4))
N_EDGES = 50
_FILLED_AT_ONCE = 200


def numbered_circuit(number: int) -> Circuit:
    """A circuit of ``N_EDGES`` edges; numbers cycle through the tasks."""
    return make_circuit(number, task=TASKS[number % len(TASKS)].slug, n_edges=N_EDGES)


class _Warnings(logging.Handler):
    """Counts the warnings of the registry."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        self.last = record.getMessage()


def fill(n_circuits: int) -> None:
    """Make a registry with this many circuits, all of them in the graph."""
    with Registry.init() as registry, registry.projecting_later():
        registry.record(MODEL, *TASKS)
        for first in range(0, n_circuits, _FILLED_AT_ONCE):
            seeds = range(first, min(first + _FILLED_AT_ONCE, n_circuits))
            registry.record(*(numbered_circuit(-1 - seed) for seed in seeds))


def write(first_seed: int, seconds: float) -> None:
    """Record one circuit after the other, and report the time of each."""
    with Registry.open() as registry:
        seeds = iter(range(first_seed, first_seed + 10**6))
        found = _repeat(lambda: registry.record(numbered_circuit(next(seeds))), seconds)
    _report(**found, processor_seconds=_processor_seconds() - found["processor_before"])


def read(seconds: float) -> None:
    """Run one query repeatedly, and report the time of each answer."""
    tasks = [task.slug for task in TASKS[:2]]
    with Registry.open() as registry:
        found = _repeat(lambda: registry.query("shared-components", tasks=tasks), seconds)
    _report(**found)


def finish() -> None:
    """Update the graph; report the pending changes, the time, and the final numbers."""
    with Registry.open() as registry:
        pending = registry.status().pending
        began = time.perf_counter()
        registry.sync()
        seconds = time.perf_counter() - began
        (n_in_graph,) = registry.cypher("MATCH (c:Circuit) RETURN count(c) AS n").values[0]
        n_recorded = len(registry.circuits())
    _report(pending=pending, seconds=seconds, recorded=n_recorded, in_graph=n_in_graph)


def _repeat(work: Callable[[], object], seconds: float) -> dict[str, Any]:
    warned, latencies, errors = _Warnings(), list[float](), list[str]()
    logging.getLogger("registry").addHandler(warned)
    print("ready", flush=True)
    sys.stdin.readline()
    before = _processor_seconds()
    for began in _until(time.monotonic() + seconds):
        try:
            work()
        except CircuitsError as error:
            errors.append(f"{type(error).__name__}: {error}")
        else:
            latencies.append(time.monotonic() - began)
    return {
        "latencies": latencies,
        "errors": errors,
        "warnings": warned.count,
        "last_warning": warned.last,
        "processor_before": before,
    }


def _processor_seconds() -> float:
    """Processor time of this process so far, and of its engines that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _until(end: float) -> Iterator[float]:
    while (now := time.monotonic()) < end:
        yield now


def _report(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def main() -> None:
    """Do the work that the command line names."""
    role, *numbers = sys.argv[1:]
    match role, [float(number) for number in numbers]:
        case "fill", [n_circuits]:
            fill(int(n_circuits))
        case "write", [first_seed, seconds]:
            write(int(first_seed), seconds)
        case "read", [seconds]:
            read(seconds)
        case "finish", []:
            finish()
        case _:
            raise SystemExit(f"no part {role!r} with {len(numbers)} numbers")


if __name__ == "__main__":
    main()
