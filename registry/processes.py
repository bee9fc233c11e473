"""Identify this process, and check whether another process is still alive.

A number alone does not identify a process: systems reuse numbers, and every host and every
container has its own numbers. Therefore a process is identified by three facts: the boot of its
system (with its namespace of numbers, which each container has), its number, and the time of its
start as the system records it. On Linux this time is counted in clock ticks since the boot, so
changing a clock does not affect it.
"""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["Process", "is_alive", "this_process"]

_PROC = Path("/proc")
_NAMESPACES = ("pid", "time")
_ENDED = ("Z", "X")
"""States of a process that has ended and waits for its parent."""
_STATE, _START = 0, 19
"""Indices among the fields of ``/proc/PID/stat`` after the name of the program."""
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process on some host.

    Attributes:
        host: The host's name, for people: two hosts may have the same name.
        pid: Its number.
        started: Its start as the system gives it; None if the system does not give it.
        boot: Identifies the boot of the system, and the namespace of ``pid``; None if the system
            does not give it.
    """

    host: str
    pid: int
    started: str | None
    boot: str | None


def this_process() -> Process:
    """The current process."""
    return _with_number(os.getpid())


@lru_cache(maxsize=1)
def _with_number(pid: int) -> Process:
    """This process; determined again after a fork."""
    _, started = _state_and_start(pid)
    return Process(socket.gethostname(), pid, started, _boot())


def is_alive(process: Process) -> bool | None:
    """Whether a process is alive.

    Returns:
        False only if this is certain. None if it cannot be determined from here: the process is of
        another host, another boot or another container, or the system shows nothing about it.
    """
    if process.boot is None or process.started is None or process.boot != _boot():
        return None
    try:
        os.kill(process.pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it belongs to another user, whose processes may be hidden
    state, started = _state_and_start(process.pid)
    if started is None:
        return None
    return started == process.started and state not in _ENDED


def _state_and_start(pid: int) -> tuple[str | None, str | None]:
    """A process's state and start as the system gives them; None for unknown values."""
    if os.name != "posix":
        return None, None
    if not (_PROC / "self" / "stat").exists():
        return _asked_of_ps(pid)
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, None
    # The name of the program may contain any character, even parentheses.
    fields = text.rpartition(")")[2].split()
    return (fields[_STATE], fields[_START]) if len(fields) > _START else (None, None)


def _asked_of_ps(pid: int) -> tuple[str | None, str | None]:
    """Like :func:`_state_and_start` without ``/proc``, as on macOS, which keeps the start time."""
    words = _answer("ps", "-o", "stat=,lstart=", "-p", str(pid)).split()
    return (words[0][:1], " ".join(words[1:])) if len(words) > 1 else (None, None)


@lru_cache
def _boot() -> str | None:
    """Identifier of this boot and this namespace of numbers; None if the system gives none."""
    if os.name != "posix":
        return None
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        spaces = [
            os.readlink(_PROC / "self" / "ns" / name)
            for name in _NAMESPACES
            if name == "pid" or (_PROC / "self" / "ns" / name).is_symlink()  # Linux 5.6 and later
        ]
    except FileNotFoundError:
        return _answer("sysctl", "-n", "kern.bootsessionuuid") or None
    except OSError:
        return None
    return " ".join([boot, *spaces])


def _answer(*command: str) -> str:
    """The output of a system program; empty if it does not exist or does not answer."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ANSWER_SECONDS,
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
