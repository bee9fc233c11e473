"""A tokenizer of whole words and punctuation marks, for tests that need no model's."""

from __future__ import annotations

import re

__all__ = ["WholeWords"]


class WholeWords:
    """Gives every word and every mark one id, the next one free; callable like any encoder."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, text: str) -> list[int]:
        words = re.findall(r"\w+|[^\w\s]", text)
        return [self.ids.setdefault(word, len(self.ids)) for word in words]
