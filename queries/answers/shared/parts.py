"""Components and connections with their effects in each task that uses them.

Made from the rows of the queries ``shared-components`` and ``shared-connections``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from registry.rows import Rows

__all__ = ["SharedComponent", "SharedConnection", "Use", "Used", "components_of", "connections_of"]


@dataclass(frozen=True, slots=True)
class Use:
    """The effect of a component or connection in one task.

    Attributes:
        task: The task.
        n_circuits: Number of its chosen circuits that use the part.
        effect: Mean effect over these circuits; positive helps. None if none has signed effects.
        magnitude: Mean absolute effect; None if effects are unknown.
    """

    task: str
    n_circuits: int
    effect: float | None
    magnitude: float | None

    @property
    def size(self) -> float | None:
        """Its strength, regardless of sign; None if unknown."""
        return abs(self.effect) if self.effect is not None else self.magnitude


@dataclass(frozen=True, slots=True)
class Used:
    """A component or connection with the tasks that use it.

    Attributes:
        name: Local name.
        uses: One use for each task that uses it, by task.
        strength: Its size relative to the largest listed size of the task, mean over tasks, 0 to 1;
            None if no size is known.
    """

    name: str
    uses: Mapping[str, Use]
    strength: float | None

    @property
    def n_tasks(self) -> int:
        """Number of tasks that use it."""
        return len(self.uses)

    @property
    def n_circuits(self) -> int:
        """Number of the chosen circuits that use it."""
        return sum(use.n_circuits for use in self.uses.values())

    @property
    def n_positive(self) -> int:
        """Number of tasks in which it helps."""
        return sum(effect > 0 for effect in self._effects())

    @property
    def n_negative(self) -> int:
        """Number of tasks in which it hurts."""
        return sum(effect < 0 for effect in self._effects())

    @property
    def signs_agree(self) -> bool | None:
        """Whether all tasks with a signed effect have the same sign; None for fewer than two."""
        signs = [(effect > 0) - (effect < 0) for effect in self._effects()]
        return len(set(signs)) == 1 if len(signs) > 1 else None

    def _effects(self) -> list[float]:
        return [use.effect for use in self.uses.values() if use.effect is not None]


@dataclass(frozen=True, slots=True)
class SharedComponent(Used):
    """A component that tasks use.

    Attributes:
        kind: Kind of component: head, kv_head, mlp, ...
        layer: Block it is in; None for input and logits.
        roles: Roles it is known for in the chosen circuits: their own, and annotations.
    """

    kind: str
    layer: int | None
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SharedConnection(Used):
    """A connection that tasks use.

    Attributes:
        source: Local name of the component it leaves.
        target: Local name of the component it enters.
        port: Input of an attention head, or None.
    """

    source: str
    target: str
    port: str | None


def components_of(rows: Rows) -> tuple[SharedComponent, ...]:
    """Read the rows of ``shared-components``: the most used first, then the strongest."""
    found = [
        SharedComponent(
            name=_local(row["component"]),
            uses=uses,
            strength=strength,
            kind=row["kind"],
            layer=row["layer"],
            roles=tuple(row["roles"]),
        )
        for row, uses, strength in _with_strength(rows)
    ]
    return tuple(sorted(found, key=_order))


def connections_of(rows: Rows) -> tuple[SharedConnection, ...]:
    """Read the rows of ``shared-connections``, in the same order."""
    found = [
        SharedConnection(
            name=_local(row["connection"]),
            uses=uses,
            strength=strength,
            source=_local(row["source"]),
            target=_local(row["target"]),
            port=row["port"],
        )
        for row, uses, strength in _with_strength(rows)
    ]
    return tuple(sorted(found, key=_order))


_Read = tuple[Mapping[str, Any], Mapping[str, Use], float | None]


def _with_strength(rows: Rows) -> Iterator[_Read]:
    """Every row with its uses by task, and its strength relative to the strongest of each task."""
    read = [(row, {use["task"]: Use(**use) for use in row["tasks"]}) for row in rows]
    largest: dict[str, float] = {}
    for use in (use for _, uses in read for use in uses.values()):
        largest[use.task] = max(largest.get(use.task, 0.0), use.size or 0.0)
    for row, uses in read:
        shares = [
            use.size / (largest[use.task] or 1.0) for use in uses.values() if use.size is not None
        ]
        yield row, uses, sum(shares) / len(shares) if shares else None


def _order(one: Used) -> tuple[int, float, str]:
    return -one.n_tasks, -(one.strength or 0.0), one.name


def _local(name: str) -> str:
    return name.partition("/")[2]
