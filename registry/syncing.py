"""The graph as the facade uses it: read by questions, written only while projecting.

:class:`GraphAccess` opens the graph late, closes it early, and knows what to do when it is new,
half rebuilt or of another version. What cannot be done comes out as a
:class:`registry.errors.GraphError`; nothing here touches a record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from registry.errors import GraphError, GraphOutdated
from registry.graph.base import GraphStore
from registry.graph.open import discard_embedded, open_graph
from registry.graph.projection import RecordSource, project
from registry.graph.schema import GraphState, begin_rebuild, check, look, prepare
from registry.ledger.base import Change, Ledger
from registry.rows import Rows
from registry.settings import Settings

__all__ = ["GraphAccess", "Progress"]

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""

_CHANGES_PER_CHECKPOINT = 2_000
_WAIT_FOR_PROJECTOR_SECONDS = 30.0


class GraphAccess:
    """One registry's way to its graph.

    Args:
        settings: Where the graph is.
        ledger: Whose outbox is worked off.
        source: Gives the present state of the records that changed.
    """

    def __init__(self, settings: Settings, ledger: Ledger, source: RecordSource) -> None:
        self._settings = settings
        self._ledger = ledger
        self._source = source
        self._reader: GraphStore | None = None

    def close(self) -> None:
        """Let go of the graph; safe to repeat."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # -- reading -------------------------------------------------------------------------------

    def read(
        self,
        text: str,
        parameters: Mapping[str, Any] | None,
        *,
        timeout_seconds: float,
        max_rows: int,
    ) -> Rows:
        """Answer a statement from the graph as it is, and say so where changes are pending.

        An embedded graph that was deleted or is of another version is made again first.

        Raises:
            GraphError: See :meth:`registry.graph.base.GraphStore.read`.
        """
        if pending := self._ledger.pending_count():
            log.warning("changes not yet in the graph: %d; run 'circuits sync'", pending)
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader.read(
            text, parameters, timeout_seconds=timeout_seconds, max_rows=max_rows
        )

    def state(self) -> str:
        """``ready`` with the engine's version, or why the graph cannot be read."""
        try:
            with self._checked_reader() as store:
                return f"ready ({store.version()})"
        except GraphError as error:
            return str(error)

    def _open_reader(self) -> GraphStore:
        try:
            return self._checked_reader()
        except GraphOutdated as error:
            if not self._settings.graph_is_embedded:
                raise
            log.warning("%s", error)
            self.sync()
            return self._checked_reader()

    def _checked_reader(self) -> GraphStore:
        store = self._connect(writing=False)
        try:
            if check(store, self._ledger.registry_id) is not GraphState.READY:
                raise GraphOutdated("the graph is empty or half rebuilt; run 'circuits sync'")
        except BaseException:
            store.close()
            raise
        return store

    # -- projecting ----------------------------------------------------------------------------

    def sync(self, progress: Progress | None = None) -> int:
        """Project what is pending and return how many changes that were.

        Raises:
            GraphError: The graph cannot be written; everything stays pending.
        """
        with self._ledger.projecting(timeout_seconds=_WAIT_FOR_PROJECTOR_SECONDS):
            return self._anew_if_outdated(self._work_off_outbox, progress)

    def rebuild(self, progress: Progress | None = None) -> int:
        """Empty the graph and make it again; returns how many changes that were.

        The outbox is filled before anything is deleted: killed at any point, the next
        :meth:`sync` finishes the work.
        """
        with self._ledger.projecting(timeout_seconds=_WAIT_FOR_PROJECTOR_SECONDS):
            self.close()
            self._ledger.requeue_everything()
            return self._anew_if_outdated(self._empty_and_fill, progress)

    def _anew_if_outdated(
        self, work: Callable[[Progress | None], int], progress: Progress | None
    ) -> int:
        """Do the work; on an embedded file that cannot be read, do it again without that file."""
        try:
            return work(progress)
        except GraphOutdated:
            if not self._settings.graph_is_embedded:
                raise
            discard_embedded(self._settings.graph)
            return work(progress)

    def _empty_and_fill(self, progress: Progress | None) -> int:
        with self._connect(writing=True) as store:
            begin_rebuild(store, self._ledger.registry_id)
            return self._fill(store, progress)

    def _work_off_outbox(self, progress: Progress | None) -> int:
        with self._connect(writing=True) as store:
            found = look(store, self._ledger.registry_id)
            # Before the marker says "ready", which Neo4j keeps from then on.
            if found is not GraphState.READY:
                self._ledger.requeue_everything()
            if found is GraphState.REBUILDING:
                begin_rebuild(store, self._ledger.registry_id)
            else:
                prepare(store, self._ledger.registry_id)
            return self._fill(store, progress)

    def _fill(self, store: GraphStore, progress: Progress | None) -> int:
        ledger, done = self._ledger, 0
        total = ledger.pending_count()
        unreadable: set[str] = set()
        while changes := self._next_changes(unreadable):
            shifted = _shifted(progress, done, total)
            unreadable |= project(store, changes, self._source, progress=shifted)
            store.checkpoint()
            settled = [change for change in changes if change.key not in unreadable]
            ledger.acknowledge(settled)
            done += len(settled)
        store.checkpoint()  # a new schema is to be seen even where nothing was pending
        return done

    def _next_changes(self, unreadable: set[str]) -> list[Change]:
        waiting = self._ledger.pending(None if unreadable else _CHANGES_PER_CHECKPOINT)
        return [c for c in waiting if c.key not in unreadable][:_CHANGES_PER_CHECKPOINT]

    def _connect(self, *, writing: bool) -> GraphStore:
        settings = self._settings
        return open_graph(
            settings.graph,
            user=settings.graph_user,
            password=settings.graph_password,
            database=settings.graph_database,
            writing=writing,
        )


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(before + done, max(total, before + done))
