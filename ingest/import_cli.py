"""Import circuits from files of other tools."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from registry.cli.output import Format, FormatOption, notice, show_rows
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.rows import Rows
from registry.words import listed

if TYPE_CHECKING:
    from ingest.importing import FileReport
    from ingest.jobs.progress import Report

__all__ = ["commands"]

_COLUMNS = (
    "file", "outcome", "format", "circuits", "nodes", "edges", "evaluations", "edits", "notes",
)  # fmt: skip
_LONGEST_PATH = 4_096


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command("import")(import_)


def import_(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and folders.", metavar="PATH...")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model they are about.", metavar="MODEL")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Task they are about.", metavar="TASK")] = None,
    method: Annotated[
        str | None, typer.Option(help="Method they were found by.", metavar="NAME")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric of the effects.", metavar="NAME")
    ] = None,
    higher_is_better: Annotated[
        bool | None,
        typer.Option("--higher-is-better/--lower-is-better", help="Which way the metric improves."),
    ] = None,
    ablation: Annotated[
        Literal["resample", "mean", "zero", "none", "other"] | None,
        typer.Option(help="What took the place of ablated parts."),
    ] = None,
    sign: Annotated[
        Literal["helps-positive", "hurts-positive", "unsigned", "unknown"] | None,
        typer.Option(help="What a positive effect says; hurts-positive is turned."),
    ] = None,
    kv_heads: Annotated[
        Literal["grouped", "per-query-head"] | None,
        typer.Option(help="How keys and values are counted."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Take so many edges, by size.", metavar="NUMBER"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Or all of at least this size.", metavar="NUMBER")
    ] = None,
    node_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of an attribution graph: nodes with this share of influence.",
            metavar="SHARE",
        ),
    ] = None,
    edge_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of an attribution graph: links with this share of influence.",
            metavar="SHARE",
        ),
    ] = None,
    dictionary: Annotated[
        str | None,
        typer.Option(help="Of features: their transcoders' or autoencoders' name.", metavar="NAME"),
    ] = None,
    hyperparameters: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Of edits: what the editor was told (YAML).",
            metavar="FILE",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Of edits: how their metrics were taken.", metavar="NAME"),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Of a table: OURS=THEIRS, such as effect=weight.", metavar="OURS=THEIRS"),
    ] = None,
    as_format: Annotated[
        str | None, typer.Option("--as", help="Their format, if not recognised.", metavar="FORMAT")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be stored; store nothing.")
    ] = False,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Refuse larger files.", metavar="BYTES")
    ] = 1_073_741_824,
    max_edges: Annotated[
        int, typer.Option(min=1, help="Refuse files with more edges.", metavar="NUMBER")
    ] = 5_000_000,
    formats: Annotated[
        bool, typer.Option("--formats", help="List the formats there are, and stop.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Import circuits from files of other tools.

    What neither the files nor the options say stays unknown. For a folder of many files, a
    circuits-import.yaml beside them says it for each: a list of entries with files (globs), model,
    task, method, metric, higher_is_better, ablation, sign, kv_heads, top, threshold, columns,
    node_threshold, edge_threshold, dictionary, hyperparameters, protocol. Originals are kept.
    Importing the same bytes twice adds nothing. Exit code 1 if a file was refused; what no format
    knows in a folder is skipped, and so is what is hidden there or a link.

    \b
    circuits import ioi-eap-ig.json --model gpt2 --task ioi --sign hurts-positive
    circuits import results/ --dry-run
    circuits import edges.csv --model gpt2 --task ioi --column effect=weight --sign unsigned
    circuits import --formats
    """
    from ingest.formats.base import Limits, find_format
    from ingest.formats.base import formats as all_formats

    if formats:
        known = sorted(all_formats().items())
        show_rows(Rows(("format", "files"), tuple((n, f.summary) for n, f in known)), format)
        return
    if not paths:
        raise BadInput("name files or folders to import; see 'circuits import --help'")
    said: dict[str, Any] = {
        "model": model, "task": task, "method": method, "metric": metric,
        "higher_is_better": higher_is_better, "ablation": ablation, "sign": sign,
        "kv_heads": kv_heads, "top": top, "threshold": threshold, "columns": _columns(column),
        "node_threshold": node_threshold, "edge_threshold": edge_threshold,
        "dictionary": dictionary, "hyperparameters": hyperparameters, "protocol": protocol,
    }  # fmt: skip
    chosen = None if as_format is None else find_format(as_format)
    from ingest.importing import import_files
    from ingest.jobs.progress import show_progress

    reports: list[FileReport] = []
    try:
        with (
            open_registry(context) as registry,
            registry.projecting_later(),
            show_progress() as progress,
        ):
            advance = _Advance(progress.stage("importing"))
            for report in import_files(
                registry, paths, said, limits=Limits(max_bytes, max_edges), format=chosen,
                dry_run=dry_run, progress=advance, stage=progress.stage,
            ):  # fmt: skip
                reports.append(report)
                advance.tell(report)
    except BaseException:
        # What was stored before Ctrl-C or a full disk is stored, and the user is to know.
        if reports:
            _show(reports, format)
        raise
    _show(reports, format)
    refused = sum(report.outcome == "refused" for report in reports)
    if refused:
        notice(f"{refused} of {len(reports)} files refused")
        raise typer.Exit(1)


class _Advance:
    """Tells of every file as it is done, on standard error, where there are several."""

    def __init__(self, report: Report) -> None:
        self._report, self._total = report, 0

    def __call__(self, done: int, total: int) -> None:
        self._total = total
        self._report(done, total)

    def tell(self, report: FileReport) -> None:
        # A terminal shows a bar; the rest of what it needs now is what went wrong.
        if report.outcome == "skipped":
            return
        if self._total > 1 and (report.outcome == "refused" or not sys.stderr.isatty()):
            why = f": {report.notes[0]}" if report.outcome == "refused" else ""
            notice(f"{report.outcome}: {report.path}{why}")


def _show(reports: Sequence[FileReport], format: Format) -> None:
    """All files, but in a table those alone that concern the registry."""
    shown = [r for r in reports if r.format or r.outcome == "refused" or format is not Format.TABLE]
    empty = "no files there" if not reports else "no file there is of a format that is known"
    show_rows(Rows(_COLUMNS, tuple(map(_row, shown))), format, empty=empty)
    # What of a folder was not looked at has no format; it may be all that a user came for.
    passed_over = [r for r in reports if r.outcome == "skipped" and r.path.is_dir()]
    if passed_over:
        names = listed([r.path for r in passed_over], longest=_LONGEST_PATH)
        notice(
            f"folders passed over (hidden, links or not readable): {names}; name one to import it"
        )
    others = len(reports) - len(shown) - len(passed_over)
    if others > 0 and format is Format.TABLE:
        notice(f"{others} other files skipped; --format json says why for each")


def _row(report: FileReport) -> tuple[Any, ...]:
    return (
        str(report.path),
        str(report.outcome),
        report.format,
        list(report.circuits),
        report.nodes,
        report.edges,
        report.evaluations,
        report.edits,
        list(report.notes),
    )


def _columns(given: list[str] | None) -> dict[str, str] | None:
    columns: dict[str, str] = {}
    for one in given or ():
        ours, equals, theirs = one.partition("=")
        if not equals or not ours or not theirs:
            raise BadInput(f"--column {one!r} is not OURS=THEIRS, such as effect=weight")
        columns[ours] = theirs
    return columns or None
