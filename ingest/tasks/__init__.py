"""Prompt sets: one family of tasks per module."""

from ingest.tasks.base import PromptPair, PromptSource, TaskSpec, TokenPair, align
from ingest.tasks.catalogue import all_tasks, find_task
from ingest.tasks.user_file import PromptFile, read_prompt_file

__all__ = [
    "PromptFile",
    "PromptPair",
    "PromptSource",
    "TaskSpec",
    "TokenPair",
    "align",
    "all_tasks",
    "find_task",
    "read_prompt_file",
]
