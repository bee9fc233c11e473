"""Find circuits for three tasks in a small language model, and ask what they share.

Everything is done by commands that you can type yourself; each is printed before it runs. The
registry and the drawings stay in ``demo-output/``. To continue there, use ``cd demo-output`` and
``circuits query``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
CIRCUITS = Path(sys.executable).with_name("circuits")
TASKS = ("ioi", "agreement", "capitals")
HEADS_OF_SEVERAL_TASKS = """\
MATCH (c:Circuit)-[:HAS_NODE]->(n:Node)-[:INSTANCE_OF]->(head:Component)
WHERE head.kind = 'head' AND n.effect > 0
WITH head.local AS head, count(c) AS circuits, collect(c.task) AS tasks, min(n.effect) AS at_least
WHERE circuits > 1
RETURN head, tasks, at_least ORDER BY at_least DESC, head LIMIT 8"""


def say(text: str) -> None:
    """Print a line of explanation, separated from commands and their output."""
    _write(f"\n# {text}\n")


def circuits(*arguments: str, head: int | None = None, into: str | None = None) -> None:
    """Print a command as a user types it, and run it.

    Args:
        arguments: Arguments after ``circuits``.
        head: Show only this many lines of its output.
        into: Write its output to a file with this name instead.
    """
    typed = " ".join(["circuits", *map(_quoted, arguments)])
    typed += f" | head -n {head}" if head else ""
    typed += f" > {into}" if into else ""
    _write(f"\n$ {typed}\n")
    answer = _run(arguments, capture=bool(head or into))
    if into:
        (OUTPUT / into).write_text(answer, encoding="utf-8")
    elif head:
        _write("".join(answer.splitlines(keepends=True)[:head]))


def ask(*arguments: str) -> list[dict[str, Any]]:
    """Run a reading command without printing it, and return its rows."""
    rows: list[dict[str, Any]] = json.loads(_run((*arguments, "--format", "json"), capture=True))
    return rows


def circuit_of(task: str) -> str:
    """Id of the circuit of a task, shortened as in tables."""
    return str(ask("list", "--task", task)[0]["circuit"])[:12]


def _quoted(argument: str) -> str:
    # For a Cypher text with single quotes, shlex makes quoting that nobody would type.
    is_cypher = "'" in argument and not set(argument) & set('"$`\\\\!')
    return f'"{argument}"' if is_cypher else shlex.quote(argument)


def _run(arguments: Sequence[str], *, capture: bool) -> str:
    command = [str(CIRCUITS), *arguments]
    stdout = subprocess.PIPE if capture else None
    answer = subprocess.run(command, cwd=OUTPUT, check=False, stdout=stdout, text=True)
    if answer.returncode:  # the command has printed the reason
        raise SystemExit(answer.returncode)
    return answer.stdout or ""


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    # The user's settings must not lead the demo to the user's registry.
    for name in [name for name in os.environ if name.startswith("CIRCUITS_")]:
        del os.environ[name]
    discover()
    compare()
    attach_an_edit()
    say(f"Done in {time.monotonic() - started:.0f} s. The registry and the drawings are in")
    _write(
        f"# {OUTPUT.name}/; to continue there: cd {OUTPUT.name} && ../.venv/bin/circuits query\n"
    )


def discover() -> None:
    """Find the circuits of three tasks."""
    say("A registry is a folder. Commands find it from its subfolders, like git.")
    circuits("init")
    say("Find the circuits of three tasks in a language model of 135 million parameters.")
    for task in TASKS:
        asked = ("--model", "smollm2", "--task", task, "--prompts", "16")
        how = ("--method", "eap-ig-inputs")
        circuits("--log-level", "info", "discover", "edge-attribution", *asked, *how)
    circuits("list")


def compare() -> None:
    """Query what the circuits have in common."""
    tasks = [word for task in TASKS for word in ("--task", task)]
    say("Which parts do all three tasks share?")
    circuits("shared", *tasks, head=24)
    say("Which parts do two or more of them share? All parts as JSON, the strongest as a drawing.")
    strongest = ("--min-tasks", "2", "--edges", "16", "--out", "shared.png")
    circuits("shared", *tasks, *strongest, "--format", "json", into="shared.json")
    say("How similar are two of the circuits?")
    circuits("compare", circuit_of(TASKS[1]), circuit_of(TASKS[2]))
    say("Other questions can be asked in Cypher: which heads help more than one task?")
    circuits("cypher", HEADS_OF_SEVERAL_TASKS)


def attach_an_edit() -> None:
    """Record an invented edit, and find the tasks that it may have changed."""
    say("Record an edit made elsewhere (this one is invented) for the circuit that it targets ...")
    what = ("--circuit", circuit_of("capitals"), "--editor", "ROME", "--component", "m7")
    why = ("--request", "subject=France", "--request", "target_new= Rome")
    measured = "metric=efficacy,protocol=teacher-forced,task=capitals,before=0.03,after=0.96"
    circuits("edits", "attach", *what, *why, "--outcome", measured)
    say("... and query which tasks use the modified parts, and so may have changed as well.")
    edit = str(ask("edits", "list")[-1]["edit"])[:12]
    circuits("query", "tasks-at-risk", f"edit={edit}")


if __name__ == "__main__":
    main()
