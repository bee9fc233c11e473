"""Processes are told apart by more than their numbers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.processes import Process, _asked_of_ps, is_alive, this_process

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about processes")


def test_this_process_is_alive() -> None:
    assert this_process().pid == os.getpid()
    assert this_process() == this_process()
    assert is_alive(this_process())


def test_another_start_or_number_is_another_process() -> None:
    assert is_alive(replace(this_process(), started="1")) is False
    assert is_alive(replace(this_process(), pid=2**22 + 1)) is False  # more than Linux gives


@pytest.mark.parametrize("lacks", [{"boot": None}, {"started": None}, {"boot": "of another host"}])
def test_what_cannot_be_seen_from_here_is_neither_alive_nor_gone(
    lacks: dict[str, Any],
) -> None:
    assert is_alive(replace(this_process(), **lacks)) is None
    assert is_alive(replace(this_process(), pid=2**22 + 1, **lacks)) is None


def test_a_child_is_another_process_with_a_start_of_its_own() -> None:
    code = "from registry.processes import this_process as t; print(*vars_of(t()), sep='\\n')"
    code = f"vars_of = lambda p: (p.host, p.pid, p.started, p.boot)\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    host, pid, started, boot = done.stdout.splitlines()
    here = this_process()
    assert (host, boot) == (here.host, here.boot)
    assert is_alive(Process(host, int(pid), started, boot)) is False


@pytest.mark.skipif(shutil.which("ps") is None, reason="asks ps")
def test_systems_without_proc_are_asked_by_ps() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            state, started = _asked_of_ps(child.pid)
            assert state in ("S", "R", "D")
            assert re.fullmatch(r"\w{3} \w{3} \d+ [\d:]{8} \d{4}", started or "")
        finally:
            child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert _asked_of_ps(child.pid)[0] == "Z"
    assert _asked_of_ps(child.pid) == (None, None)


@linux
def test_the_name_of_a_program_may_look_like_anything(tmp_path: Path) -> None:
    program = tmp_path / "odd) Z 1 (x"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", SLEEP], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            stat = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8")
            assert "odd) Z 1 (x" in stat
            started = stat.rpartition(")")[2].split()[19]
            assert is_alive(replace(this_process(), pid=child.pid, started=started))
        finally:
            child.kill()
