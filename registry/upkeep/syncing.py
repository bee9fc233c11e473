"""The graph for the facade: read by queries, written only while projecting.

:class:`GraphAccess` opens the graph late and closes it early. It handles a graph that is new,
incomplete, of another version, behind the ledger or ahead of it. If something cannot be done, it
raises a :class:`registry.errors.GraphError`; nothing here changes a record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from registry.errors import GraphError, GraphOutdated, GraphRefused, QueryFailed, QueryTooLarge
from registry.graph.base import GraphStore
from registry.graph.open import open_graph, set_embedded_aside
from registry.graph.schema import (
    GraphState,
    Marker,
    Owner,
    PutAside,
    begin_filling,
    holds_nothing,
    holds_only_the_marker,
    identify,
    mark,
    migrate,
    put_aside,
    require_whole,
)
from registry.ledger.base import Change, Ledger
from registry.progress import OnProgress
from registry.rows import Rows
from registry.settings.local import Settings

if TYPE_CHECKING:
    from registry.graph.projection import RecordSource

__all__ = ["GraphAccess", "Standing", "refuse_graph_in_use"]

log = logging.getLogger(__name__)

_CHANGES_PER_CHECKPOINT = 2_000
_WAIT_FOR_PROJECTOR_SECONDS = 30.0
_MARKER_SECONDS = 10.0
"""Minimum time for a server that has just answered to confirm the owner of its graph."""
_SERVING_SECONDS = 1.0
"""Time for which a projector continues to project changes of others: opening a graph again takes
longer than a round, but the projector's own caller waits."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a graph.

    Attributes:
        state: ``ready`` with the engine's version, or the reason why the graph cannot be read.
        pending: Changes of the ledger that it lacks. For a graph that cannot be read, changes since
            it was last written from this ledger.
        put_aside: Records that it could not accept.
        sync_helps: Whether ``circuits sync`` can repair the graph; not if the graph belongs to
            another registry, or the file at its path is not a graph.
    """

    state: str
    pending: int
    put_aside: tuple[PutAside, ...] = ()
    sync_helps: bool = True


class GraphAccess:
    """The access of one registry to its graph.

    Args:
        settings: The settings with the graph's address.
        ledger: The ledger that the graph is made from.
        source: Gives the present state of changed records.
    """

    def __init__(self, settings: Settings, ledger: Ledger, source: RecordSource) -> None:
        self._settings = settings
        self._ledger = ledger
        self._source = source
        self._reader: GraphStore | None = None
        self._require_held: Callable[[], None] | None = None

    @property
    def _owner(self) -> Owner:
        return Owner(self._ledger.registry_id, self._ledger.instance)

    @property
    def _address(self) -> str:
        """The graph's name in the ledger's notes."""
        database = self._settings.graph_database
        return self._settings.graph + (f"#{database}" if database else "")

    def close(self) -> None:
        """Close the graph; safe to repeat."""
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
        memory_bytes: int,
    ) -> Rows:
        """Answer a statement from the present graph; warn if the graph is out of date.

        An embedded graph that was deleted or is of another version is rebuilt first, without a time
        limit; connecting to a server has its own limit.

        Raises:
            GraphOutdated: The graph is being rebuilt, so an answer would be incomplete.
            GraphError: See :meth:`registry.graph.base.GraphStore.read`.
        """
        began = None if self._reader is None else time.monotonic()
        store, before = self._whole(timeout_seconds)
        ends_at = (began or time.monotonic()) + timeout_seconds
        rows = store.read(
            text,
            parameters,
            timeout_seconds=max(0.001, ends_at - time.monotonic()),
            max_rows=max_rows,
            memory_bytes=memory_bytes,
        )
        if not store.reads_one_moment:
            left = max(_MARKER_SECONDS, ends_at - time.monotonic())
            after = require_whole(identify(store, self._owner, timeout_seconds=left))
            if GraphState.WRITING in (before.state, after.state) or before != after:
                log.warning("the graph was written to while it was read; repeat the query")
        self._tell_what_is_missing(before)
        return rows

    def limits(self) -> Mapping[str, str]:
        """Settings of a server's limits; see :meth:`registry.graph.base.GraphStore.limits`."""
        store, _ = self._whole()
        return store.limits()

    def is_ahead(self) -> bool:
        """Whether the graph holds revisions that the ledger never had.

        Raises:
            GraphError: The graph cannot be read, or has no marker.
        """
        with self._connect(writing=False) as store:
            marker = identify(store, self._owner)
            if marker is None:
                raise GraphOutdated("the graph is empty")
            return bool(self._ahead(marker))

    def set_aside_if_empty(self) -> None:
        """Rename this ledger's own embedded graph if it is empty, so that another can be used."""
        if not self._settings.graph_is_embedded:
            return
        try:
            with self._connect(writing=False) as store:
                if identify(store, self._owner) is None or not holds_only_the_marker(store):
                    return
        except GraphError:
            return
        set_embedded_aside(self._settings.graph)

    def standing(self) -> Standing:
        """The state of the graph; opens it, and changes nothing."""
        try:
            with self._connect(writing=False) as store:
                marker = require_whole(identify(store, self._owner))
                pending = self._ledger.count_since(marker.revision.number)
                state = self._ahead(marker) or f"ready ({store.version()})"
                return Standing(state, pending, tuple(put_aside(store)))
        except GraphError as error:
            noted = self._ledger.projected(self._address)
            pending = self._ledger.count_since(noted)
            helps = not isinstance(error, GraphRefused)
            return Standing(str(error), pending, sync_helps=helps)

    def _whole(self, timeout_seconds: float | None = None) -> tuple[GraphStore, Marker]:
        """An open reader and the marker that it found."""
        try:
            return self._opened(timeout_seconds)
        except GraphOutdated as error:
            if not self._settings.graph_is_embedded:
                raise
            log.warning("%s", error)
            self.close()
            self.sync()
            return self._opened()

    def _opened(self, timeout_seconds: float | None = None) -> tuple[GraphStore, Marker]:
        if self._reader is None:
            self._reader = self._connect(writing=False)
        try:
            found = identify(self._reader, self._owner, timeout_seconds=timeout_seconds)
            return self._reader, require_whole(found)
        except BaseException:
            self.close()
            raise

    def _tell_what_is_missing(self, marker: Marker) -> None:
        if ahead := self._ahead(marker):
            log.warning("%s", ahead)
        elif pending := self._ledger.count_since(marker.revision.number):
            log.warning("changes not yet in the graph: %d; run 'circuits sync'", pending)
        if marker.n_put_aside:
            log.warning(
                "records that the graph could not accept: %d; 'circuits status' lists them",
                marker.n_put_aside,
            )

    def _ahead(self, marker: Marker) -> str:
        """The message for a graph with revisions that the ledger does not have; else empty."""
        if self._ledger.has_revision(marker.revision):
            return ""
        return (
            f"the graph holds revision {marker.revision.number} of a ledger that was later restored"
            " to an older state; 'circuits sync' rebuilds the graph"
        )

    # -- projecting ----------------------------------------------------------------------------

    def sync(self, progress: OnProgress | None = None, *, verify: bool = True) -> int:
        """Update the graph to the ledger's present revision; returns the number of changes.

        A graph that is ahead of the ledger, or was left incomplete, is rebuilt.

        Args:
            progress: Receives the progress.
            verify: Check the graph even if another process noted that it is up to date.

        Raises:
            GraphError: The graph cannot be written; everything stays pending.
        """
        wanted = self._ledger.revision().number

        def done_by_another() -> bool:
            return not verify and self._ledger.projected(self._address) >= wanted

        with self._ledger.projecting(
            timeout_seconds=_WAIT_FOR_PROJECTOR_SECONDS, unless=done_by_another
        ) as held:
            if held is None or done_by_another():
                return 0
            self._require_held = held
            return self._anew_if_outdated(self._catch_up, progress)

    def rebuild(self, progress: OnProgress | None = None, *, overwrite: bool = False) -> int:
        """Empty the graph and rebuild it; returns the number of changes.

        If this is killed, an embedded graph stays as it was, and the graph of a server is finished
        by the next :meth:`sync`.

        Args:
            progress: Receives the progress.
            overwrite: Also rebuild a graph that was made from another copy of this registry.
        """

        def empty_and_fill(progress: OnProgress | None) -> int:
            with self._connect(writing=True) as store:
                found = identify(store, self._owner, of_any_instance=overwrite)
                return self._fill_anew(store, found, progress)

        with self._ledger.projecting(timeout_seconds=_WAIT_FOR_PROJECTOR_SECONDS) as held:
            self._require_held = held
            self.close()
            return self._anew_if_outdated(empty_and_fill, progress)

    def _anew_if_outdated(
        self, work: Callable[[OnProgress | None], int], progress: OnProgress | None
    ) -> int:
        """Do the work; if an embedded file cannot be read, set it aside and do the work again."""
        try:
            return work(progress)
        except GraphOutdated:
            if not self._settings.graph_is_embedded:
                raise
            set_embedded_aside(self._settings.graph)
            return work(progress)

    def _catch_up(self, progress: OnProgress | None) -> int:
        with self._connect(writing=True) as store:
            marker = identify(store, self._owner)
            if marker is None or marker.state is GraphState.EMPTYING:
                return self._fill_anew(store, marker, progress)
            if marker.instance is None or self._is_unexplained(marker):
                return self._fill_anew(store, marker, progress)
            if ahead := self._ahead(marker):
                log.warning("%s", ahead)
                return self._fill_anew(store, marker, progress)
            try:
                marker = migrate(store, marker, self._owner)
            except QueryFailed as error:
                # A server that was killed between an index and its constraint leaves this state.
                log.warning("the graph's schema cannot be migrated, so it is rebuilt: %s", error)
                return self._fill_anew(store, marker, progress)
            return self._fill(store, marker, progress)

    def _is_unexplained(self, marker: Marker) -> bool:
        """Whether a write was in progress that is not in the ledger."""
        number = marker.revision.number
        return marker.state is GraphState.WRITING and not self._ledger.count_since(number)

    def _fill_anew(
        self, store: GraphStore, marker: Marker | None, progress: OnProgress | None
    ) -> int:
        # Readers of an embedded graph see the complete old graph until the new one is complete.
        quietly = marker is not None and marker.state is GraphState.READY
        return self._fill(
            store, begin_filling(store, self._owner, marker), progress, quietly=quietly
        )

    def _fill(
        self,
        store: GraphStore,
        marker: Marker,
        progress: OnProgress | None,
        *,
        quietly: bool = False,
    ) -> int:
        """Project the changes that the graph lacks, in rounds while others continue to record."""
        done, rounds_end = 0, time.monotonic() + _SERVING_SECONDS
        aside = {one.change: one for one in put_aside(store)} if marker.n_put_aside else {}
        again = list(aside)  # records that were put aside are tried again once
        while True:
            delta = self._ledger.changes_since(marker.revision.number)
            waiting = list(dict.fromkeys([*again, *delta.changes]))
            if waiting and marker.state is GraphState.READY and not store.reads_one_moment:
                mark(store, replace(marker, state=GraphState.WRITING))
            left = self._project(store, waiting, _shifted(progress, done), quietly=quietly)
            for change in waiting:
                aside.pop(change, None)
            aside.update((one.change, one) for one in left)
            whole = replace(
                marker,
                state=GraphState.READY,
                revision=delta.up_to,
                n_put_aside=len(aside),
            )
            if waiting or whole != marker:
                named = list(aside.values()) if aside or marker.n_put_aside else None
                mark(store, whole, named)
                store.checkpoint()
            self._note(delta.up_to.number)
            done += len(waiting) - len(left)
            again, marker, quietly = [], whole, False
            if not delta.changes or time.monotonic() > rounds_end:
                return done

    def _project(
        self,
        store: GraphStore,
        changes: Sequence[Change],
        progress: OnProgress | None,
        *,
        quietly: bool,
    ) -> list[PutAside]:
        """Project changes in chunks; return those that the graph could not accept."""
        left: list[PutAside] = []
        for start in range(0, len(changes), _CHANGES_PER_CHECKPOINT):
            some = changes[start : start + _CHANGES_PER_CHECKPOINT]
            left += self._settled(store, some, _shifted(progress, start, len(changes)))
            if not quietly:
                store.checkpoint()
        return left

    def _settled(
        self, store: GraphStore, changes: Sequence[Change], progress: OnProgress | None
    ) -> list[PutAside]:
        """Project changes; if the engine refuses, find the records that it refuses."""
        from registry.graph.projection import project  # most queries find nothing to project

        try:
            return project(store, changes, self._source, progress=progress)
        except (QueryFailed, QueryTooLarge) as error:
            if len(changes) == 1:
                aside = PutAside(changes[0], str(error))
                log.warning("not in the graph: %s", aside)
                return [aside]
        middle = len(changes) // 2
        halves = changes[:middle], changes[middle:]
        return [one for half in halves for one in self._settled(store, half, None)]

    def _note(self, number: int) -> None:
        if self._ledger.projected(self._address) != number:
            self._ledger.note_projected(self._address, number)

    def _connect(self, *, writing: bool) -> GraphStore:
        store = _open(self._settings, writing=writing)
        if writing:
            # If the right was lost with the ledger's server, another process may have it now. Two
            # that write at once leave an incomplete graph that is marked as complete.
            store.before_writing = self._require_held
        return store


def refuse_graph_in_use(settings: Settings) -> None:
    """Check that a graph is empty before a registry is restored that would fill it.

    A graph that does not answer is accepted here: projecting checks its owner again.

    Raises:
        GraphRefused: It is not empty.
    """
    try:
        with _open(settings, writing=False) as store:
            if holds_nothing(store):
                return
    except GraphOutdated as error:  # a file that cannot be read counts as not empty
        reason = str(error)
    except GraphError:
        return
    else:
        reason = "it is not empty"
    where = settings.describe()["graph"]
    raise GraphRefused(
        f"the graph {where} is not changed: {reason}. Give the restored registry a separate graph"
        " by --graph, or let it use this one by --overwrite-graph"
    )


def _open(settings: Settings, *, writing: bool) -> GraphStore:
    return open_graph(
        settings.graph,
        user=settings.graph_user,
        password=settings.graph_password,
        database=settings.graph_database,
        writing=writing,
    )


def _shifted(progress: OnProgress | None, before: int, total: int = 0) -> OnProgress | None:
    if progress is None:
        return None
    return lambda done, of: progress(before + done, max(total, before + of))
