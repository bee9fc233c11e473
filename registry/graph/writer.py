"""The graph as seen by the projection: existing parts, and rows written in chunks."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, TypeVar

from registry.graph import statements
from registry.graph.base import GraphStore, Statement
from registry.graph.rows import Made, Row, component_row

__all__ = ["GraphWriter", "Part", "all_of", "chunks", "each", "reference_parts"]

_T = TypeVar("_T")
Part = tuple[str, Collection[Any]]
"""A statement's text and its rows or ids."""

_ROWS_PER_STATEMENT = 10_000
"""Number of rows that are held and sent at a time, for any size of a transaction."""


class GraphWriter:
    """A store, with the ids of models' parts that are known to be in it.

    Args:
        store: Open for writing, with the schema prepared.
    """

    def __init__(self, store: GraphStore) -> None:
        self._store = store
        # Ids known to be in the graph: circuits of a model share most of their parts.
        self._components: set[str] = set()
        self._connections: set[str] = set()

    @property
    def rows_per_transaction(self) -> int:
        """Best number of nodes and edges of circuits for one transaction."""
        return self._store.rows_per_transaction

    @property
    def largest_transaction(self) -> int | None:
        """Maximum number of nodes and edges of circuits for one transaction."""
        return self._store.largest_transaction

    def read(self, text: str, ids: Sequence[str], **columns: str) -> Iterator[Mapping[str, Any]]:
        """The answer of a statement for ids.

        Args:
            text: A statement that takes ``$ids``.
            ids: Ids of any kind; queried in chunks.
            columns: Types by names, as in :meth:`registry.rows.Rows.expecting`.
        """
        for part in chunks(ids, self._store.rows_per_transaction):
            yield from self._store.read(text, {"ids": part}).expecting(**columns)

    def answer(self, text: str, **columns: str) -> Iterator[Mapping[str, Any]]:
        """The answer of a statement without parameters."""
        return iter(self._store.read(text).expecting(**columns))

    def present(self, text: str, ids: Sequence[str]) -> set[str]:
        """The ids in a statement's answer for ids."""
        return {row["id"] for row in self.read(text, ids, id="string")}

    def write(self, *parts: Part) -> None:
        """Write rows in one transaction."""
        if any(rows for _, rows in parts):
            self._store.write(_Statements(parts))

    def write_ids(self, *parts: tuple[str, Sequence[str]]) -> None:
        """Run statements that take ids in one transaction."""
        self._store.write([Statement(text, {"ids": list(ids)}) for text, ids in parts if ids])

    def missing_components(self, wanted: Mapping[str, tuple[str, str]]) -> list[Row]:
        """Rows of the components with these models and names that the graph lacks."""
        unknown = sorted(wanted.keys() - self._components)
        found = self.present(statements.KNOWN_COMPONENTS, unknown)
        self._components |= found
        return [component_row(*wanted[key]) for key in unknown if key not in found]

    def missing_connections(self, wanted: Set[str]) -> list[str]:
        """Ids of the connections that the graph lacks."""
        unknown = sorted(wanted - self._connections)
        found = self.present(statements.KNOWN_CONNECTIONS, unknown)
        self._connections |= found
        return [key for key in unknown if key not in found]

    def know(self, components: Iterable[Row], connections: Iterable[str] = ()) -> None:
        """Note parts that have been written."""
        self._components.update(row["id"] for row in components)
        self._connections.update(connections)

    def forget(self, components: Set[str], connections: Set[str]) -> None:
        """Note parts that may have been removed."""
        self._components -= components
        self._connections -= connections


class _Statements(Iterable[Statement]):
    """The statements of a transaction, each with some of its rows, made when needed."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Statement]:
        for text, rows in self._parts:
            name = "ids" if text in statements.TAKING_IDS else "rows"
            left = (list(row) if isinstance(row, tuple) else row for row in rows)
            while some := list(itertools.islice(left, _ROWS_PER_STATEMENT)):
                yield Statement(text, {name: some})


def reference_parts(components: Sequence[Row]) -> Iterator[Part]:
    """Parts that add components, with the labels of their kinds."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for row in components:
        by_kind[row["properties"]["kind"]].append(row["id"])
    yield statements.ADD_COMPONENTS, list(components)
    for kind, ids in by_kind.items():
        yield statements.LABEL_COMPONENTS[kind], ids


def each(make: Callable[[_T], Row], items: Collection[_T]) -> Made[Row]:
    """A row for each item, made when it is written."""
    return Made(lambda: map(make, items), len(items))


def all_of(parts: Iterable[Collection[_T]]) -> Made[_T]:
    """The rows of several circuits."""
    several = list(parts)
    return Made(lambda: itertools.chain.from_iterable(several), sum(map(len, several)))


def chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Items in chunks of a size."""
    left = iter(items)
    while some := list(itertools.islice(left, size)):
        yield some
