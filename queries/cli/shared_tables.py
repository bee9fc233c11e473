"""What several tasks share, as short tables with the strongest rows first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from queries.answers.shared.parts import SharedComponent
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.answers.shared.parts import Use, Used
    from queries.answers.shared.subgraph import SharedSubgraph

__all__ = ["tables_of"]

_MAX_NAMES = 12
_Column = tuple[str, list[Any]]


def tables_of(found: SharedSubgraph, top: int, *, unique: bool) -> dict[str, Rows]:
    """Make a table of each part, by title; :mod:`queries.answers.shared.rows` has the full rows.

    ``signs`` gives in how many tasks a part helps and hurts, as ``2+ 1-``. The column of a task has
    the mean effect, ``±`` its size if the sign is unknown, ``used`` if the size is unknown too, and
    nothing if the task does not use the part. Empty columns are omitted.

    Args:
        found: The answer.
        top: Maximum number of rows, or of rows per task in tables by task.
        unique: Also show the parts specific to each task.
    """
    tables = {
        "circuits": _circuits(found, top),
        "components": _of_tasks("component", found.components, found, top),
        "connections": _of_tasks("connection", found.connections, found, top),
        "parts": _parts(found, top),
        "paths": _paths(found, top),
    }
    if unique:
        tables["unique components"] = _specific("component", found, top)
        tables["unique connections"] = _specific("connection", found, top)
    return tables


def _circuits(found: SharedSubgraph, top: int) -> Rows:
    of_task = {task: [one for one in found.circuits if one.task == task] for task in found.tasks}
    listed = [one for circuits in of_task.values() for one in circuits[:top]]
    columns: list[_Column] = [
        ("task", [one.task for one in listed]),
        ("circuit", [one.id for one in listed]),
        ("method", [one.method for one in listed]),
        ("edges", [one.n_edges for one in listed]),
        ("nodes", [one.n_nodes for one in listed]),
        ("faithfulness", [one.faithfulness for one in listed]),
    ]
    return _table(columns, cut=len(listed) < len(found.circuits))


def _of_tasks(what: str, used: Sequence[Used], found: SharedSubgraph, top: int) -> Rows:
    listed = used[:top]
    columns: list[_Column] = [(what, [f"{found.model}/{one.name}" for one in listed])]
    columns += _roles(listed)
    if found.min_tasks < len(found.tasks):
        columns.append(("n_tasks", [one.n_tasks for one in listed]))
    columns += [
        ("signs", [_signs(one) for one in listed]),
        ("strength", [one.strength for one in listed]),
        *((task, [_effect(one.uses.get(task)) for one in listed]) for task in found.tasks),
    ]
    return _table(columns, cut=len(listed) < len(used))


def _specific(what: str, found: SharedSubgraph, top: int) -> Rows:
    specific = found.unique or {}
    of_task: dict[str, Sequence[Used]] = {
        task: one.components if what == "component" else one.connections
        for task, one in specific.items()
    }
    listed = [(task, one) for task, used in of_task.items() for one in used[:top]]
    columns: list[_Column] = [
        ("task", [task for task, _ in listed]),
        (what, [f"{found.model}/{one.name}" for _, one in listed]),
        *_roles([one for _, one in listed]),
        ("effect", [_effect(one.uses[task]) for task, one in listed]),
    ]
    return _table(columns, cut=any(len(used) > top for used in of_task.values()))


def _parts(found: SharedSubgraph, top: int) -> Rows:
    listed = found.parts[:top]
    columns: list[_Column] = [
        ("part", list(range(1, len(listed) + 1))),
        ("n_components", [len(part.components) for part in listed]),
        ("n_connections", [part.n_connections for part in listed]),
        ("n_paths", [part.n_paths for part in listed]),
        ("components", [_first(part.components) for part in listed]),
    ]
    return _table(columns, cut=len(listed) < len(found.parts))


def _paths(found: SharedSubgraph, top: int) -> Rows:
    listed = found.paths[:top]
    columns: list[_Column] = [
        ("path", [str(path) for path in listed]),
        ("tasks", [_first(found.tasks_of(path)) for path in listed]),
        ("strength", [found.strength_of(path) for path in listed]),
        ("weakest", [path.weakest for path in listed]),
    ]
    return _table(columns, cut=len(listed) < len(found.paths))


def _table(columns: Iterable[_Column], *, cut: bool) -> Rows:
    shown = [column for column in columns if any(value not in (None, ()) for value in column[1])]
    names = tuple(name for name, _ in shown)
    return Rows(names, tuple(zip(*(values for _, values in shown), strict=True)), truncated=cut)


def _roles(used: Iterable[Used]) -> list[_Column]:
    """A column for components; none for connections, which have no roles."""
    roles = [one.roles for one in used if isinstance(one, SharedComponent)]
    return [("roles", roles)] if roles else []


def _signs(one: Used) -> str | None:
    counts = ((one.n_positive, "+"), (one.n_negative, "-"))
    return " ".join(f"{count}{sign}" for count, sign in counts if count) or None


def _effect(use: Use | None) -> float | str | None:
    if use is None:
        return None
    if use.effect is not None:
        return use.effect
    return "used" if use.magnitude is None else f"±{use.magnitude:.4g}"


def _first(names: Sequence[str]) -> Sequence[str]:
    rest = len(names) - _MAX_NAMES
    return [*names[:_MAX_NAMES], f"and {rest} more"] if rest > 0 else names
