"""What several tasks share, as rows for programs; :mod:`queries.cli.shared_tables` makes tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.answers.shared.parts import SharedComponent, SharedConnection, Used
    from queries.answers.shared.subgraph import SharedSubgraph

__all__ = ["CONTENTS", "SPECIFIC", "rows_of"]


def rows_of(found: SharedSubgraph, of: str) -> Rows:
    """Give one part of the answer as rows.

    Columns named after tasks hold the mean effect in the task; positive helps. They are empty if
    the task does not use the part, and if its effects have no sign. ``uses`` distinguishes the two
    cases and gives the strength.

    Args:
        found: The answer.
        of: Which part: one of :data:`CONTENTS`, or of :data:`SPECIFIC` if that was requested.

    Raises:
        BadInput: There is no such part.
    """
    readers = _READERS if found.unique is None else {**_READERS, **_SPECIFIC_READERS}
    if of not in readers:
        raise BadInput(f"there is no part {of!r}; the parts are: {', '.join(readers)}")
    return readers[of](found)


def _circuits(found: SharedSubgraph) -> Rows:
    return Rows(
        ("task", "circuit", "method", "edges", "nodes", "faithfulness"),
        tuple(
            (one.task, one.id, one.method, one.n_edges, one.n_nodes, one.faithfulness)
            for one in found.circuits
        ),
    )


def _components(found: SharedSubgraph) -> Rows:
    columns = (*_COMPONENT, *_NUMBERS)
    return Rows(
        (*columns, *_task_columns(found.tasks, columns), "uses"),
        tuple(
            (*_component(found, one), *_numbers_of(one, found.tasks)) for one in found.components
        ),
    )


def _connections(found: SharedSubgraph) -> Rows:
    columns = (*_CONNECTION, *_NUMBERS)
    return Rows(
        (*columns, *_task_columns(found.tasks, columns), "uses"),
        tuple(
            (*_connection(found, one), *_numbers_of(one, found.tasks)) for one in found.connections
        ),
    )


def _parts(found: SharedSubgraph) -> Rows:
    return Rows(
        ("part", "n_components", "n_connections", "n_paths", "components"),
        tuple(
            (number, len(part.components), part.n_connections, part.n_paths, part.components)
            for number, part in enumerate(found.parts, start=1)
        ),
    )


def _paths(found: SharedSubgraph) -> Rows:
    return Rows(
        ("path", "n_connections", "tasks", "strength", "weakest"),
        tuple(
            (
                str(path),
                len(path.connections),
                found.tasks_of(path),
                found.strength_of(path),
                path.weakest,
            )
            for path in found.paths
        ),
    )


def _unique_components(found: SharedSubgraph) -> Rows:
    return Rows(
        ("task", *_COMPONENT, *_OF_ONE),
        tuple(
            (task, *_component(found, one), *_use_of(one, task))
            for task, specific in (found.unique or {}).items()
            for one in specific.components
        ),
    )


def _unique_connections(found: SharedSubgraph) -> Rows:
    return Rows(
        ("task", *_CONNECTION, *_OF_ONE),
        tuple(
            (task, *_connection(found, one), *_use_of(one, task))
            for task, specific in (found.unique or {}).items()
            for one in specific.connections
        ),
    )


_Reader = Callable[["SharedSubgraph"], Rows]
_READERS: Mapping[str, _Reader] = {
    "circuits": _circuits,
    "components": _components,
    "connections": _connections,
    "parts": _parts,
    "paths": _paths,
}
_SPECIFIC_READERS: Mapping[str, _Reader] = {
    "unique components": _unique_components,
    "unique connections": _unique_connections,
}
CONTENTS = tuple(_READERS)
"""Parts of every answer."""
SPECIFIC = tuple(_SPECIFIC_READERS)
"""Additional parts of an answer with what is specific to each task."""

_COMPONENT = ("component", "kind", "layer", "roles")
_CONNECTION = ("connection", "source", "target", "port")
_NUMBERS = ("n_tasks", "n_circuits", "n_positive", "n_negative", "signs_agree", "strength")
_OF_ONE = ("n_circuits", "effect", "magnitude")


def _component(found: SharedSubgraph, one: SharedComponent) -> tuple[Any, ...]:
    return f"{found.model}/{one.name}", one.kind, one.layer, one.roles


def _connection(found: SharedSubgraph, one: SharedConnection) -> tuple[Any, ...]:
    names = (f"{found.model}/{name}" for name in (one.name, one.source, one.target))
    return (*names, one.port)


def _numbers_of(one: Used, tasks: Sequence[str]) -> tuple[Any, ...]:
    uses = [one.uses.get(task) for task in tasks]
    effects = (use.effect if use else None for use in uses)
    known = tuple({name: getattr(use, name) for name in ("task", *_OF_ONE)} for use in uses if use)
    return (*(getattr(one, name) for name in _NUMBERS), *effects, known)


def _use_of(one: Used, task: str) -> tuple[Any, ...]:
    return tuple(getattr(one.uses[task], name) for name in _OF_ONE)


def _task_columns(tasks: Sequence[str], taken: Sequence[str]) -> Iterator[str]:
    """A column for each task; a task with the name of another column gets the prefix ``task``."""
    for task in tasks:
        yield f"task {task}" if task in taken or task == "uses" else task
