"""Heartbeats of runs while they compute, and the end of runs that could not record it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, RowMapping, func, select, update

from registry.ledger import tables
from registry.ledger.base import ChangeKind, Life, Stage
from registry.ledger.changes import append_changes
from registry.ledger.looking_up import chunks
from registry.processes import Process
from registry.records import RunStatus

__all__ = ["beat", "interrupt", "keep_stages", "lives", "note_silence", "settle"]

_RUNNING = tables.runs.c.status == RunStatus.RUNNING.value


def settle(connection: Connection, processes: Mapping[str, Process]) -> None:
    """Note the processes that compute runs that begin; this counts as a first heartbeat."""
    for run, process in processes.items():
        connection.execute(
            update(tables.runs)
            .where(tables.runs.c.id == run)
            .values(
                host=process.host,
                pid=process.pid,
                process_started=process.started,
                boot=process.boot,
                **_one_more(connection),
            )
        )


def beat(connection: Connection, run: str, stages: Sequence[Stage]) -> None:
    """Note a heartbeat of a run; see ``Ledger.beat``."""
    changes = {**_one_more(connection), "stages": _to_json(stages)}
    columns = tables.runs.c
    alive = update(tables.runs).where(columns.id == run, _RUNNING).values(changes)
    if connection.execute(alive).rowcount:
        return
    again = {"status": RunStatus.RUNNING.value, "finished_at": None, "error": None, **changes}
    taken_for_dead = columns.status == RunStatus.INTERRUPTED.value
    revived = update(tables.runs).where(columns.id == run, taken_for_dead).values(again)
    if connection.execute(revived).rowcount:
        append_changes(connection, [(ChangeKind.RUN, run)])


def keep_stages(connection: Connection, run: str, stages: Sequence[Stage]) -> None:
    """Store the stages of a run; see ``Ledger.keep_stages``."""
    this = update(tables.runs).where(tables.runs.c.id == run)
    connection.execute(this.values(stages=_to_json(stages)))


def lives(connection: Connection, runs: Iterable[str] | None = None) -> dict[str, Life]:
    """Processes and heartbeats of runs; see ``Ledger.lives``.

    Raises:
        ValueError: A row holds an invalid value.
    """
    now, table = _clock(connection), tables.runs
    if runs is None:
        rows = list(connection.execute(select(table).where(_RUNNING)).mappings())
    else:
        rows = []
        for some in chunks(runs):
            rows += connection.execute(select(table).where(table.c.id.in_(some))).mappings()
    return {row["id"]: _life(row, now) for row in rows}


def note_silence(connection: Connection, run: str, beats: int) -> None:
    """Note that a run was silent; see ``Ledger.note_silence``."""
    columns = tables.runs.c
    silent = update(tables.runs).where(columns.id == run, _RUNNING, _after(beats))
    connection.execute(silent.values(seen_beats=beats, seen_at=_now(connection)))


def interrupt(connection: Connection, run: str, beats: int, error: str) -> bool:
    """Record a run as interrupted; see ``Ledger.interrupt``."""
    dead = update(tables.runs).where(tables.runs.c.id == run, _RUNNING, _after(beats))
    done = connection.execute(dead.values(status=RunStatus.INTERRUPTED.value, error=error))
    if not done.rowcount:
        return False
    append_changes(connection, [(ChangeKind.RUN, run)])
    return True


def _after(beats: int) -> Any:
    return func.coalesce(tables.runs.c.beats, 0) == beats


def _one_more(connection: Connection) -> dict[str, Any]:
    return {"beats": func.coalesce(tables.runs.c.beats, 0) + 1, "beat_at": _now(connection)}


def _now(connection: Connection) -> Any:
    """The ledger's clock during a statement, not at the transaction's begin, which may be early."""
    is_server = connection.dialect.name == "postgresql"
    return func.clock_timestamp() if is_server else datetime.now(UTC)


def _clock(connection: Connection) -> datetime:
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    found: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return found.astimezone(UTC)


def _life(row: RowMapping, now: datetime) -> Life:
    process = None
    if row["host"] is not None and row["pid"] is not None:
        process = {
            "host": row["host"],
            "pid": row["pid"],
            "started": row["process_started"],
            "boot": row["boot"],
        }
    return _of_life().validate_python(
        {
            "run": row["id"],
            "started_at": row["started_at"],
            "process": process,
            "beats": row["beats"] or 0,
            "now": now,
            "stages": row["stages"] or (),
            **{name: row[name] for name in ("beat_at", "seen_beats", "seen_at")},
        }
    )


def _to_json(stages: Sequence[Stage]) -> Any:
    plain: list[Any] = _of_stages().dump_python(tuple(stages), mode="json", exclude_none=True)
    return plain or None


# Made when they are needed: most commands read no life, and making one takes milliseconds.
@cache
def _of_life() -> TypeAdapter[Life]:
    return TypeAdapter(Life)


@cache
def _of_stages() -> TypeAdapter[tuple[Stage, ...]]:
    return TypeAdapter(tuple[Stage, ...])
