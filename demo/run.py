"""Find circuits for three tasks in a small language model, and ask what they share.

Everything is done by commands that you could type, each printed before it runs. The registry and
the drawings are left in ``demo-output/``; go on from there with ``cd demo-output`` and
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
    """Print a line of explanation, set off from commands and their output."""
    _write(f"\n# {text}\n")


def circuits(*arguments: str, head: int | None = None, into: str | None = None) -> None:
    """Print a command as one would type it, and run it.

    Args:
        arguments: What follows ``circuits``.
        head: Show so many lines of its output alone.
        into: Write its output to a file of that name instead.
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
    """Run a reading command in silence and return its rows."""
    rows: list[dict[str, Any]] = json.loads(_run((*arguments, "--format", "json"), capture=True))
    return rows


def circuit_of(task: str) -> str:
    """Id of the circuit of a task, as short as tables show it."""
    return str(ask("list", "--task", task)[0]["circuit"])[:12]


def _quoted(argument: str) -> str:
    # shlex breaks a Cypher text with single quotes into pieces nobody would type.
    is_cypher = "'" in argument and not set(argument) & set('"$`\\\\!')
    return f'"{argument}"' if is_cypher else shlex.quote(argument)


def _run(arguments: Sequence[str], *, capture: bool) -> str:
    command = [str(CIRCUITS), *arguments]
    stdout = subprocess.PIPE if capture else None
    answer = subprocess.run(command, cwd=OUTPUT, check=False, stdout=stdout, text=True)
    if answer.returncode:  # the command has said in a line why
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
    # Settings of the user's own must not lead the demo to a registry of the user's own.
    for name in [name for name in os.environ if name.startswith("CIRCUITS_")]:
        del os.environ[name]
    discover()
    compare()
    attach_an_edit()
    say(f"Done in {time.monotonic() - started:.0f} s. The registry and the drawings are in")
    _write(f"# {OUTPUT.name}/; go on there: cd {OUTPUT.name} && ../.venv/bin/circuits query\n")


def discover() -> None:
    """Find the circuits of three tasks."""
    say("A registry is a folder, which commands find from below it, as git does.")
    circuits("init")
    say("Find the circuits of three tasks in a language model of 135 million parameters.")
    for task in TASKS:
        asked = ("--model", "smollm2", "--task", task, "--prompts", "16")
        how = ("--method", "eap-ig-inputs")
        circuits("--log-level", "info", "discover", "edge-attribution", *asked, *how)
    circuits("list")


def compare() -> None:
    """Ask what the circuits have in common."""
    tasks = [word for task in TASKS for word in ("--task", task)]
    say("Which parts do all three tasks share?")
    circuits("shared", *tasks, head=24)
    say("And which two or more of them? Everything as JSON, the strongest as a drawing.")
    strongest = ("--min-tasks", "2", "--edges", "16", "--out", "shared.png")
    circuits("shared", *tasks, *strongest, "--format", "json", into="shared.json")
    say("How alike are two of the circuits?")
    circuits("compare", circuit_of(TASKS[1]), circuit_of(TASKS[2]))
    say("Any other question in Cypher: heads that help more than one task.")
    circuits("cypher", HEADS_OF_SEVERAL_TASKS)


def attach_an_edit() -> None:
    """Attach a made-up edit by hand, and find the tasks it may have changed."""
    say("Attach an edit made elsewhere (this one is invented) to the circuit it was aimed at ...")
    what = ("--circuit", circuit_of("capitals"), "--editor", "ROME", "--component", "m7")
    why = ("--request", "subject=France", "--request", "target_new= Rome")
    measured = "metric=efficacy,protocol=teacher-forced,task=capitals,before=0.03,after=0.96"
    circuits("edits", "attach", *what, *why, "--outcome", measured)
    say("... and ask which tasks run through what it modified, so may have changed as well.")
    edit = str(ask("edits", "list")[-1]["edit"])[:12]
    circuits("query", "tasks-at-risk", f"edit={edit}")


if __name__ == "__main__":
    main()
