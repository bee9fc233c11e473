"""All tasks: ours and those that other packages register.

An entry point of the group ``circuits.tasks`` names a :class:`ingest.tasks.base.TaskSpec` or a
tuple of them.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from ingest.tasks.base import TaskSpec
from registry import plugins
from registry.errors import NotFound

__all__ = ["TASKS_GROUP", "all_tasks", "find_task"]

TASKS_GROUP = "circuits.tasks"


def all_tasks() -> dict[str, TaskSpec]:
    """Return every task by its slug, in order of slugs, without those of broken packages."""
    found: dict[str, TaskSpec] = {}
    for plugin, loaded in plugins.usable(TASKS_GROUP).items():
        tasks = {task.slug: task for task in _tasks_of(loaded)}
        if taken := sorted(found.keys() & tasks.keys()):
            plugins.leave_out(plugin, plugin.broken(f"there is another task {taken[0]!r}"))
        else:
            found |= tasks
    return dict(sorted(found.items()))


def find_task(slug: str) -> TaskSpec:
    """Return the task with that slug.

    Raises:
        NotFound: No task has this slug; the text names the nearest and all tasks.
        PluginBroken: A package has an entry of that name and is broken.
    """
    tasks = all_tasks()
    if slug in tasks:
        return tasks[slug]
    if any(one.name == slug and not one.is_ours for one in plugins.plugins(TASKS_GROUP)):
        plugins.find(TASKS_GROUP, slug)
    names = [*tasks, *(name.rpartition("/")[2] for name in tasks)]
    near = get_close_matches(slug.casefold(), names, n=1)
    whole = [name for name in tasks if near and name.endswith(near[0])]
    guess = f"did you mean {whole[0]!r}? " if whole else ""
    raise NotFound("task", slug, f"{guess}tasks: {', '.join(tasks)}; or give a file of prompts")


def _tasks_of(loaded: Any) -> tuple[TaskSpec, ...]:
    return (loaded,) if hasattr(loaded, "slug") else tuple(loaded)
