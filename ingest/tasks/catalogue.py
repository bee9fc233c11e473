"""All tasks there are: ours and those that other packages register.

An entry point of the group ``circuits.tasks`` names a :class:`ingest.tasks.base.TaskSpec` or a
tuple of them.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from ingest.tasks.base import TaskSpec
from registry.errors import NotFound

__all__ = ["TASKS_GROUP", "all_tasks", "find_task"]

TASKS_GROUP = "circuits.tasks"


def all_tasks() -> dict[str, TaskSpec]:
    """Every task by its slug, in order of slugs."""
    found: dict[str, TaskSpec] = {}
    for entry in sorted(entry_points(group=TASKS_GROUP), key=lambda entry: entry.name):
        for task in _tasks_of(entry):
            found.setdefault(task.slug, task)
    return dict(sorted(found.items()))


def find_task(slug: str) -> TaskSpec:
    """Return the task of that slug.

    Raises:
        NotFound: There is none; the text names the nearest and all there are.
    """
    tasks = all_tasks()
    if slug in tasks:
        return tasks[slug]
    names = [*tasks, *(name.rpartition("/")[2] for name in tasks)]
    near = get_close_matches(slug.casefold(), names, n=1)
    whole = [name for name in tasks if near and name.endswith(near[0])]
    guess = f"did you mean {whole[0]!r}? " if whole else ""
    raise NotFound("task", slug, f"{guess}there are {', '.join(tasks)}, or give a file of prompts")


def _tasks_of(entry: EntryPoint) -> tuple[TaskSpec, ...]:
    loaded = entry.load()
    return (loaded,) if isinstance(loaded, TaskSpec) else tuple(loaded)
