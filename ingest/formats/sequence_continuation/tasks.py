"""The registry's tasks for the words of the sequence-continuation files."""

from __future__ import annotations

from typing import Any

__all__ = ["TASKS", "task_slug"]

TASKS = {
    "numerals": "sequence/numerals",
    "numwords": "sequence/number-words",
    "months": "sequence/months",
}
"""The files' words for the three tasks, and our slugs."""


def task_slug(word: Any) -> Any:
    """Return the task's slug; other words are returned unchanged."""
    return TASKS.get(word, word) if isinstance(word, str) else None
