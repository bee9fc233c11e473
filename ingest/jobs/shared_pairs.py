"""Prompts that several seeds of one task have in common.

Seeds draw from the same prompts. A task with few prompts that the model answers gives the same ones
with every seed, in another order. Circuits found on them do not show how much prompts matter.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from registry.files.prompt_files import Pairs

__all__ = ["SharedPairs", "shared_pairs"]


@dataclass(frozen=True, slots=True)
class SharedPairs:
    """The pairs of one task that several seeds drew.

    Attributes:
        task: Slug of the task.
        n_shared: Number of pairs that more than one seed drew.
        n_pairs: Number of different pairs that any seed drew.
        alike: The seeds, grouped so that seeds of a group drew the same pairs.
    """

    task: str
    n_shared: int
    n_pairs: int
    alike: tuple[tuple[int, ...], ...]

    @property
    def different(self) -> tuple[int, ...]:
        """The seeds whose pairs no earlier seed drew."""
        return tuple(seeds[0] for seeds in self.alike)

    @property
    def in_words(self) -> str | None:
        """A line about them for people; None if no pair is shared."""
        if not self.n_shared:
            return None
        repeated = [_listed(seeds) for seeds in self.alike if len(seeds) > 1]
        same = "".join(
            f"; seeds {seeds} drew the same pairs and count as one" for seeds in repeated
        )
        return (
            f"{self.n_shared} of {self.n_pairs} prompt pairs of {self.task} were drawn with more"
            f" than one seed{same}"
        )


def shared_pairs(task: str, drawn: Mapping[int, Pairs]) -> SharedPairs:
    """Count the pairs that several seeds drew.

    Args:
        task: Slug of the task.
        drawn: The pairs of each seed.
    """
    counts = Counter(itertools.chain.from_iterable(drawn.values()))
    alike: dict[Pairs, list[int]] = defaultdict(list)
    for seed, pairs in drawn.items():
        alike[pairs].append(seed)
    return SharedPairs(
        task=task,
        n_shared=sum(count > 1 for count in counts.values()),
        n_pairs=len(counts),
        alike=tuple(map(tuple, alike.values())),
    )


def _listed(seeds: tuple[int, ...]) -> str:
    *first, last = map(str, seeds)
    return f"{', '.join(first)} and {last}"
