"""Files of prompts, as jobs and imports store them, with any fields for each prompt.

Such a file is JSON Lines: a header, which is an object with the name of the ``format``, and one
object for each prompt. The format determines the fields: texts, answers, token ids, labels. The
header has the facts about all prompts, such as the part of a split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.errors import BadInput

__all__ = ["Pairs", "PromptFile", "read_prompt_file"]

Pairs = frozenset[tuple[str, str]]
"""Texts of clean and corrupt prompts, independent of their order."""


@dataclass(frozen=True, slots=True)
class PromptFile:
    """Stored prompts.

    Attributes:
        header: Facts about all prompts; empty if the file has no header.
        prompts: The fields of each prompt, in the order of the file.
    """

    header: Mapping[str, Any]
    prompts: tuple[Mapping[str, Any], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of any prompt: texts and labels first, lists of token ids last."""
        names = dict.fromkeys(name for prompt in self.prompts for name in prompt)
        return tuple(sorted(names, key=lambda name: (self.holds_ids(name), *_place(name))))

    @property
    def pairs(self) -> Pairs | None:
        """The clean and corrupt texts of all prompts; None if a prompt does not have both."""
        texts = [(prompt.get("clean"), prompt.get("corrupt")) for prompt in self.prompts]
        pairs = [(a, b) for a, b in texts if isinstance(a, str) and isinstance(b, str)]
        return frozenset(pairs) if len(pairs) == len(texts) else None

    def holds_ids(self, field: str) -> bool:
        """Whether a field has token ids, which people do not read."""
        values = [prompt[field] for prompt in self.prompts if field in prompt]
        return field.endswith(("_id", "_ids")) and all(map(_is_of_numbers, values))


def read_prompt_file(data: bytes) -> PromptFile:
    """Read a file of prompts.

    Raises:
        BadInput: It is not a file of prompts.
    """
    try:
        lines = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the prompts are not stored as JSON Lines: {error}") from error
    if not lines or not all(isinstance(line, dict) for line in lines):
        raise BadInput("the prompts are not stored as JSON Lines, one object per line")
    has_header = "format" in lines[0] and len(lines) > 1
    return PromptFile(lines[0] if has_header else {}, tuple(lines[1:] if has_header else lines))


_FIRST = ("text", "clean", "corrupt", "correct", "wrong")


def _place(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def _is_of_numbers(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(one, int) for one in values)
