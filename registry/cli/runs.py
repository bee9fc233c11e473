"""``circuits runs``: runs of jobs, both running and ended."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.attach import attachment_rows
from registry.cli.output import Format, FormatOption, Section, notice, show_rows, show_sections
from registry.cli.paging import AfterOption, PageOption, say_how_to_go_on, why_empty
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.files.attachments import StoredAttachment
    from registry.ledger.base import Life, Made, RunFilter, Stage
    from registry.records import Run
    from registry.registry import Registry

__all__ = ["EXIT_CODES", "commands"]

EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 3}
"""Exit codes of ``--follow``, by the status of the run; 2 is for usage, 130 for Ctrl-C."""

_COLUMNS = (
    "run",
    "job",
    "status",
    "life",
    "model",
    "task",
    "started_at",
    "seconds",
    "host",
)
_MORE_COLUMNS = (*_COLUMNS, "pid", "device", "version", "finished_at", "last_beat_at", "error")
_STATUSES = ("running", "finished", "interrupted", "failed")
_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PERIOD = re.compile(r"(\d{1,6})([mhdw])")
_LOOK_SECONDS = 1.0
_STAGE_COLUMNS = ("stage", "began_at", "seconds", "done", "total")
_CIRCUIT_COLUMNS = ("circuit", "task", "model", "method", "level", "nodes", "edges", "faithfulness")
_EVALUATION_COLUMNS = ("circuit", "task", "measure", "value", "n_prompts")
_EDIT_COLUMNS = ("edit", "model", "editor", "restriction", "components", "circuits")


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(runs)


def runs(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(help="Id of a run, or the first digits of it; without one, list runs."),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(help="running, finished, interrupted or failed.", metavar="STATUS"),
    ] = None,
    job: Annotated[
        str | None, typer.Option(help="Name of a job, such as edge-attribution.", metavar="JOB")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model in a run's configuration, or of a circuit it made.", metavar="MODEL"
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Task or family, likewise.", metavar="TASK"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Runs that began at or after: 2026-11-29, 2026-11-29T14:00, or 30m, 12h, 7d, 2w"
            " ago.",
            metavar="TIME",
        ),
    ] = None,
    limit: PageOption = 50,
    after: AfterOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait until the run has ended, and show its stages.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""List runs of jobs; show one, or follow it.

    A running run writes heartbeats. A run whose process has ended is recorded as interrupted at the
    next check: at once on its own host, after a day without heartbeats on another host. For running
    runs, LIFE shows what is known about the process.

    One run is shown with its configuration, the stages of its work, its error, where it was
    computed, attached files, and its results. CSV holds only the stages. --follow ends with code 0
    if the run finished, 1 if it failed, 3 if it was interrupted.

    \b
    circuits runs
    circuits runs --status running
    circuits runs --job edge-attribution --task ioi --since 7d
    circuits runs 4be1
    circuits runs 4be1 --follow && circuits list
    """
    format = Format.JSON if as_json else format
    filters = {"status": status, "job": job, "model": model, "task": task, "since": since}
    given = [name for name, value in {**filters, "after": after}.items() if value is not None]
    if run is None:
        if follow:
            raise BadInput("--follow needs a run: circuits runs RUN --follow")
        with open_registry(context) as registry:
            _list(registry, filters, limit, after, format)
        return
    if given:
        raise BadInput(f"--{given[0]} is for lists; omit it, or the run {run!r}")
    with open_registry(context) as registry:
        key = registry.ledger.run(run).id
        if follow:
            _wait(registry, key)
        else:
            registry.interrupt_dead_runs()
        found = _found(registry, key)
    show_sections(_sections(found), format, csv="stages")
    if follow:
        raise typer.Exit(EXIT_CODES[found.run.status])


# -- lists -----------------------------------------------------------------------------------------


def _list(
    registry: Registry,
    filters: Mapping[str, str | None],
    limit: int,
    after: str | None,
    format: Format,
) -> None:
    registry.interrupt_dead_runs()
    page = registry.ledger.runs_page(_filter(registry, **filters), limit=limit, after=after)
    lives = registry.ledger.lives(run.id for run in page.items)
    fields = [_fields(run, lives[run.id]) for run in page.items]
    rows = tuple(tuple(one[name] for name in _MORE_COLUMNS) for one in fields)
    empty = why_empty("runs", rows, registry.ledger.runs_page, after)
    show_rows(Rows(_MORE_COLUMNS, rows), format, columns=_COLUMNS, empty=empty)
    say_how_to_go_on(page.after)


def _filter(
    registry: Registry,
    *,
    status: str | None,
    job: str | None,
    model: str | None,
    task: str | None,
    since: str | None,
) -> RunFilter:
    from registry.ledger.base import RunFilter
    from registry.names import names_of_model
    from registry.records import RunStatus

    if status is not None and status not in _STATUSES:
        raise BadInput(f"--status is {status!r}; it must be one of {', '.join(_STATUSES)}")
    return RunFilter(
        status=RunStatus(status) if status else None,
        job=job,
        models=frozenset() if model is None else names_of_model(registry.ledger, model),
        task=task,
        since=None if since is None else _moment(since),
    )


def _moment(text: str) -> datetime:
    """Read a moment as a user types it; without a time zone, it is in this host's time zone.

    Raises:
        BadInput: It is not a moment.
    """
    from registry.records import in_utc

    try:
        if period := _PERIOD.fullmatch(text.strip()):
            return in_utc(datetime.now(UTC) - timedelta(seconds=int(period[1]) * _UNITS[period[2]]))
        return in_utc(datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError) as error:
        raise BadInput(
            f"--since is {text!r}; give a date (2026-11-29), a time (2026-11-29T14:00), or how long"
            " ago: 30m, 12h, 7d, 2w"
        ) from error


# -- one run ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    run: Run
    life: Life
    made: Made
    attached: Sequence[StoredAttachment]


def _found(registry: Registry, key: str) -> _Found:
    ledger = registry.ledger
    attached = registry.attachments(key)
    return _Found(ledger.run(key), ledger.lives([key])[key], ledger.made_by(key), attached)


def _wait(registry: Registry, key: str) -> None:
    """Print the stages of a run as they begin, until it has ended."""
    from registry.records import RunStatus

    shown: Sequence[Stage] = ()
    while True:
        registry.interrupt_dead_runs()
        # The end is read before the stages, so no stage is missed that began before the end.
        is_running = registry.ledger.run(key).status is RunStatus.RUNNING
        stages = registry.ledger.lives([key])[key].stages
        for stage in _not_shown(stages, shown):
            notice(f"{stage.at.isoformat(timespec='seconds')} {stage.title}")
        shown = stages
        if not is_running:
            return
        _until_next_look()


def _until_next_look() -> None:
    time.sleep(_LOOK_SECONDS)


def _not_shown(stages: Sequence[Stage], shown: Sequence[Stage]) -> Sequence[Stage]:
    """The stages after those that were shown before.

    They are found by their places, because the clock may be set back during a run. A run with very
    many stages keeps only the last ones, so the first that were shown may be gone.
    """
    now, before = ([(one.title, one.at) for one in each] for each in (stages, shown))
    n_same = min(len(now), len(before))
    while now[:n_same] != before[len(before) - n_same :]:
        n_same -= 1
    return stages[n_same:]


def _sections(found: _Found) -> list[Section]:
    run, life, made = found.run, found.life, found.made
    fields = _fields(run, life)
    of_run = {"id": run.id, **{key: value for key, value in fields.items() if key != "run"}}
    circuits = [
        {"circuit": one.id, "nodes": one.n_nodes, "edges": one.n_edges, **_plain(one)}
        for one in made.circuits
    ]
    edits = [{"edit": one.id, **_plain(one)} for one in made.edits]
    return [
        Section("run", {**of_run, "packages": dict(run.packages)}),
        Section("configuration", dict(run.configuration)),
        Section("stages", _stages(run, life)),
        Section("attachments", attachment_rows(found.attached)),
        Section("circuits", _rows(circuits, _CIRCUIT_COLUMNS)),
        Section(
            "evaluations", _rows([_plain(one) for one in made.evaluations], _EVALUATION_COLUMNS)
        ),
        Section("edits", _rows(edits, _EDIT_COLUMNS)),
    ]


def _stages(run: Run, life: Life) -> Rows:
    """Stages and the time each took: up to the next stage, or to the run's end."""
    stages = life.stages
    ends = [*(stage.at for stage in stages[1:]), run.finished_at]
    return Rows(
        _STAGE_COLUMNS,
        tuple(
            (one.title, one.at, _seconds(one.at, end), one.done, one.total)
            for one, end in zip(stages, ends, strict=False)
        ),
    )


def _fields(run: Run, life: Life) -> dict[str, Any]:
    from registry.records import RunStatus

    process, is_running = life.process, run.status is RunStatus.RUNNING
    return {
        "run": run.id,
        "job": run.job,
        "status": run.status,
        "life": _life(life) if is_running else None,
        "model": run.configuration.get("model"),
        "task": run.configuration.get("task"),
        "started_at": run.started_at,
        "seconds": _seconds(run.started_at, life.now if is_running else run.finished_at),
        "host": process.host if process else None,
        "pid": process.pid if process else None,
        "device": run.device,
        "version": run.version,
        "finished_at": run.finished_at,
        "last_beat_at": life.beat_at,
        "error": run.error,
    }


def _life(life: Life) -> str:
    """What is known about a run that is recorded as running."""
    from registry.lives import Standing, standing

    if standing(life) in (Standing.ALIVE, Standing.GONE):
        return str(standing(life))
    silence = life.now - (life.beat_at or life.started_at)
    if silence < timedelta(0):
        return "its last heartbeat is in the future: a clock was set"
    return f"last heartbeat {_duration(silence)} ago"


def _duration(time: timedelta) -> str:
    seconds = time.total_seconds()
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else round(max(0.0, (end - start).total_seconds()), 1)


def _plain(record: Any) -> dict[str, Any]:
    names = (*_CIRCUIT_COLUMNS, *_EVALUATION_COLUMNS, *_EDIT_COLUMNS)
    return {name: getattr(record, name) for name in names if hasattr(record, name)}


def _rows(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Rows:
    return Rows(tuple(columns), tuple(tuple(record[c] for c in columns) for record in records))
