"""All tasks: ours and those that other packages register.

An entry point of the group ``circuits.tasks`` names a :class:`ingest.tasks.base.TaskSpec` or a
tuple of them.
"""

from __future__ import annotations

from difflib import get_close_matches

from ingest.tasks.base import TaskSpec
from registry import plugins
from registry.errors import NotFound

__all__ = ["TASKS_GROUP", "all_tasks", "find_task"]

TASKS_GROUP = "circuits.tasks"


def all_tasks() -> dict[str, TaskSpec]:
    """Return every task by its slug, in order of slugs, without those of broken packages."""
    return dict(sorted(plugins.usable_by_name(TASKS_GROUP, {}).items()))


def find_task(slug: str, otherwise: str = "give a file of prompts") -> TaskSpec:
    """Return the task with that slug.

    Args:
        slug: Its name.
        otherwise: What to do without a task; part of the error's text.

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
    raise NotFound("task", slug, f"{guess}tasks: {', '.join(tasks)}; or {otherwise}")
