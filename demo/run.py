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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
CIRCUITS = Path(sys.executable).with_name("circuits")
TASKS = ("ioi", "sequence/numerals", "sequence/number-words")

# An edit as somebody might have made it elsewhere: where it was applied and what it changed.
EDIT = {
    "model": "smollm2",
    "editor": "fine-tuning",
    "request": {
        "prompt": "When Mary and John went to the store, John gave a drink to",
        "target_new": " John",
        "ground_truth": " Mary",
    },
    "restriction": "circuit",
    "note": "attached by hand in the demo",
}
OUTCOMES = [
    {"metric": "efficacy", "protocol": "teacher-forced", "task": "ioi", "before": 0.0, "after": 1.0}
]


def say(text: str) -> None:
    """Print a line of explanation, set off from commands and their output."""
    sys.stdout.write(f"\n# {text}\n")
    sys.stdout.flush()


def circuits(*arguments: str) -> None:
    """Print a command as one would type it, and run it."""
    sys.stdout.write(f"\n$ {shlex.join(['circuits', *arguments])}\n")
    sys.stdout.flush()
    subprocess.run([CIRCUITS, *arguments], cwd=OUTPUT, check=True)


def ask(*arguments: str) -> list[dict[str, object]]:
    """Run a reading command silently and return its rows."""
    command = [CIRCUITS, *arguments, "--format", "json"]
    answer = subprocess.run(command, cwd=OUTPUT, check=True, stdout=subprocess.PIPE)
    rows: list[dict[str, object]] = json.loads(answer.stdout)
    return rows


def newest(task: str) -> str:
    """Id of the newest circuit of a task, as short as it is shown."""
    return str(ask("list", "--task", task, "--limit", "1")[0]["circuit"])[:12]


def main() -> None:
    """Run the demo."""
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    # A registry of the user's own must not be what the demo fills.
    for name in [name for name in os.environ if name.startswith("CIRCUITS_")]:
        del os.environ[name]

    say("A registry is a folder, as with git.")
    circuits("init")

    say("Discover a circuit for each of three tasks, on a model of 135 million parameters.")
    for task in TASKS:
        circuits("discover", "edge-attribution", "--model", "smollm2", "--task", task)
    circuits("list")

    say("Which parts do the three tasks share? As a table, and as a drawing.")
    tasks = [word for task in TASKS for word in ("--task", task)]
    circuits("shared", *tasks, "--out", "shared.svg", "--out", "shared.png")

    say("How alike are two of the circuits?")
    circuits("compare", newest("ioi"), newest("sequence/numerals"))

    say("Any other question, in Cypher: the heads of more than one task with their effects.")
    circuits(
        "cypher",
        "MATCH (t:Task)<-[:FOR_TASK]-(:Circuit)-[:HAS_NODE]->(n:Node)-[:INSTANCE_OF]->(c:Component) "
        "WHERE c.kind = 'head' WITH c.local AS head, collect(t.id) AS tasks, "
        "sum(n.effect) AS effect WHERE size(tasks) > 1 "
        "RETURN head, tasks, effect ORDER BY effect DESC, head LIMIT 5",
    )

    say("Attach an edit, made elsewhere, to the circuit it was aimed at ...")
    edit = EDIT | {"circuits": [newest("ioi")], "outcomes": OUTCOMES}
    (OUTPUT / "edit.json").write_text(json.dumps(edit, indent=2) + "\n", encoding="utf-8")
    circuits("edits", "attach", "edit.json")

    say("... and find the other tasks whose circuits use the same parts, so may have changed too.")
    circuits("query", "tasks-at-risk", "--edit", str(ask("edits", "list")[0]["edit"])[:12])

    say(f"Done in {time.monotonic() - started:.0f} s. Registry and drawings: demo-output/")


if __name__ == "__main__":
    main()
