"""Prompt sets: one family of tasks per module."""

from ingest.tasks.base import PromptPair, PromptSource, TaskSpec, TokenPair, align
from ingest.tasks.catalogue import all_tasks, find_task
from ingest.tasks.splits import Part, Split, part_of, split_source
from ingest.tasks.user_file import PromptFile, read_prompt_file

__all__ = [
    "Part",
    "PromptFile",
    "PromptPair",
    "PromptSource",
    "Split",
    "TaskSpec",
    "TokenPair",
    "align",
    "all_tasks",
    "find_task",
    "part_of",
    "read_prompt_file",
    "split_source",
]
