"""Memory of a process and of the engine that it starts, for benchmarks of imports."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["peak_bytes", "run_apart"]

_SAMPLE_SECONDS = 0.02


def peak_bytes(pid: int | str = "self") -> int:
    """Largest resident set of a process; its parent's memory from before the start is excluded."""
    with contextlib.suppress(OSError):  # the process has ended, or the folder does not exist
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0 if pid != "self" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_apart(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a script in a separate process, and return its last line of output, read as JSON.

    Args:
        arguments: The script and its arguments.

    Returns:
        The object of the last line. In addition, ``engine_bytes`` is the largest resident set of a
        process that the script started.

    Raises:
        SystemExit: It fails.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    engine_bytes = 0
    while process.poll() is None:
        engine_bytes = max([engine_bytes, *map(peak_bytes, _children(process.pid))])
        time.sleep(_SAMPLE_SECONDS)
    said, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors)
    return {**json.loads(said.splitlines()[-1]), "engine_bytes": engine_bytes}


def _children(pid: int) -> list[int]:
    """Child processes of a process; none if the system does not give them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found
