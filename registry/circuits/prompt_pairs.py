"""Which prompt sets hold the same pairs of a clean and a corrupt prompt.

The id of a prompt set depends on the order of its pairs, and on token ids and labels. So two sets
with different ids may hold the same pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from registry.errors import ArtifactCorrupt, ArtifactNotFound, BadInput
from registry.files.prompt_files import Pairs, read_prompt_file
from registry.records import PromptSet

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["PromptPairs"]


class PromptPairs:
    """The pairs of a registry's prompt sets; each set is read once, when it is needed.

    Args:
        registry: The open registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._sets: dict[str, Mapping[str, PromptSet]] = {}
        self._read: dict[str, Pairs | None] = {}

    def of(self, task: str, prompt_set: str) -> Pairs | None:
        """The pairs of a task's prompt set; None if they are not kept, or cannot be read."""
        if prompt_set not in self._read:
            known = self._sets_of(task).get(prompt_set)
            self._read[prompt_set] = None if known is None else self._pairs(known)
        return self._read[prompt_set]

    def first_alike(self, task: str, prompt_sets: Iterable[str]) -> dict[str, str]:
        """For each prompt set of a task, the first of the given ones with the same pairs.

        A set whose pairs are unknown is only like itself.
        """
        ids = dict.fromkeys(prompt_sets)
        if len(ids) < 2:
            return {id: id for id in ids}  # nothing to compare, so nothing to read
        first: dict[Pairs, str] = {}
        found = {}
        for id in ids:
            pairs = self.of(task, id)
            found[id] = id if pairs is None else first.setdefault(pairs, id)
        return found

    def _sets_of(self, task: str) -> Mapping[str, PromptSet]:
        if task not in self._sets:
            known = self._registry.ledger.prompt_sets(task)
            self._sets[task] = {one.id: one for one in known}
        return self._sets[task]

    def _pairs(self, prompts: PromptSet) -> Pairs | None:
        if prompts.artifact is None:
            return None
        try:
            return read_prompt_file(self._registry.artifact(prompts.artifact)).pairs
        except (ArtifactNotFound, ArtifactCorrupt, BadInput):
            return None  # circuits can be compared without the prompts' file
