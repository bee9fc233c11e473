"""Import circuits from files of other tools."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from registry.cli.option_records import takes
from registry.cli.output import Format, FormatOption, notice, show_rows
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.rows import Rows
from registry.texts.words import listed

if TYPE_CHECKING:
    from ingest.exchange.importing import FileReport
    from ingest.formats.base import Format as FileFormat
    from ingest.jobs.progress import Report
    from registry.registry import Registry

__all__ = ["commands"]

_COLUMNS = (
    "file", "outcome", "format", "circuits", "nodes", "edges", "evaluations", "edits", "notes",
)  # fmt: skip
_SAID = (
    "model", "task", "method", "metric", "higher_is_better", "ablation", "sign", "kv_heads", "top",
    "threshold", "node_threshold", "edge_threshold", "dictionary", "hyperparameters", "protocol",
)  # fmt: skip
_LONGEST_PATH = 4_096
_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
_MOST_REASONS = 5
"""Of tables that are skipped in a folder: as many have their reason told without being asked."""


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command("import")(import_)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The user's statements about the files, and how to read them."""

    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and folders.", metavar="PATH...")
    ] = None
    model: Annotated[str | None, typer.Option(help="Model they are about.", metavar="MODEL")] = None
    task: Annotated[str | None, typer.Option(help="Task they are about.", metavar="TASK")] = None
    method: Annotated[
        str | None, typer.Option(help="Method they were found by.", metavar="NAME")
    ] = None
    metric: Annotated[str | None, typer.Option(help="Metric of the effects.", metavar="NAME")] = (
        None
    )
    higher_is_better: Annotated[
        bool | None,
        typer.Option(
            "--higher-is-better/--lower-is-better", help="Direction in which it improves."
        ),
    ] = None
    ablation: Annotated[
        Literal["resample", "mean", "zero", "none", "other"] | None,
        typer.Option(help="What replaced ablated parts."),
    ] = None
    sign: Annotated[
        Literal["helps-positive", "hurts-positive", "unsigned", "unknown"] | None,
        typer.Option(help="What a positive effect means; hurts-positive is negated."),
    ] = None
    kv_heads: Annotated[
        Literal["grouped", "per-query-head"] | None,
        typer.Option(help="How keys and values are counted."),
    ] = None
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Keep this many edges, largest first.", metavar="NUMBER"),
    ] = None
    threshold: Annotated[
        float | None, typer.Option(help="Or keep all of at least this size.", metavar="NUMBER")
    ] = None
    node_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Attribution graphs: keep nodes with this share of influence.",
            metavar="SHARE",
        ),
    ] = None
    edge_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Attribution graphs: keep links with this share of influence.",
            metavar="SHARE",
        ),
    ] = None
    dictionary: Annotated[
        str | None,
        typer.Option(help="Features: name of their transcoders or autoencoders.", metavar="NAME"),
    ] = None
    hyperparameters: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Edits: the editor's hyperparameters (YAML).",
            metavar="FILE",
        ),
    ] = None
    protocol: Annotated[
        str | None,
        typer.Option(help="Edits: how their metrics were measured.", metavar="NAME"),
    ] = None
    column: Annotated[
        list[str] | None,
        typer.Option(help="Tables: OURS=THEIRS, such as effect=weight.", metavar="OURS=THEIRS"),
    ] = None
    as_format: Annotated[
        str | None, typer.Option("--as", help="Format, if not recognised.", metavar="FORMAT")
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be stored; store nothing.")
    ] = False
    max_bytes: Annotated[int, typer.Option(min=1, help="Refuse larger files.", metavar="BYTES")] = (
        1_073_741_824
    )
    max_edges: Annotated[
        int, typer.Option(min=1, help="Refuse files with more edges.", metavar="NUMBER")
    ] = 5_000_000
    formats: Annotated[bool, typer.Option("--formats", help="List the formats, and stop.")] = False
    format: FormatOption = Format.TABLE


@takes(ImportOptions)
def import_(context: typer.Context, options: ImportOptions) -> None:
    r"""Import circuits from files of other tools.

    Facts that neither the files nor the options give stay unknown. For a folder of many files, a
    circuits-import.yaml in the folder gives them for each file: a list of entries with files
    (globs), model, task, method, metric, higher_is_better, ablation, sign, kv_heads, top,
    threshold, columns, node_threshold, edge_threshold, dictionary, hyperparameters, protocol.
    Originals are kept. Importing the same bytes twice adds nothing. Exit code 1 if a file was
    refused. In a folder, files of unknown formats, hidden files and links are skipped.

    \b
    circuits import ioi-eap-ig.json --model gpt2 --task ioi --sign hurts-positive
    circuits import results/ --dry-run
    circuits import edges.csv --model gpt2 --task ioi --column effect=weight --sign unsigned
    circuits import --formats
    """
    from ingest.formats.base import find_format

    if options.formats:
        _list_formats(options.format)
        return
    if not options.paths:
        raise BadInput("no files or folders to import are named; see 'circuits import --help'")
    if options.top is not None and options.threshold is not None:
        raise BadInput("--top and --threshold are alternatives; give only one of them")
    said = _said(options)
    chosen = None if options.as_format is None else find_format(options.as_format)
    reports: list[FileReport] = []
    try:
        with open_registry(context) as registry:
            _import(registry, options, said, chosen, reports)
    except BaseException:
        # Files stored before Ctrl-C or a full disk stay stored, and the user must know it.
        if reports:
            _show(reports, options.format)
        raise
    _show(reports, options.format)
    refused = sum(report.outcome == "refused" for report in reports)
    if refused:
        notice(f"{refused} of {len(reports)} files refused")
        raise typer.Exit(1)


def _list_formats(format: Format) -> None:
    from ingest.formats.base import formats

    known = sorted(formats().items())
    show_rows(Rows(("format", "files"), tuple((n, f.summary) for n, f in known)), format)


def _said(options: ImportOptions) -> dict[str, Any]:
    """Return the options as fields of :class:`ingest.formats.base.Said`."""
    said = {name: getattr(options, name) for name in _SAID}
    return {**said, "columns": _columns(options.column)}


def _import(
    registry: Registry,
    options: ImportOptions,
    said: dict[str, Any],
    format: FileFormat | None,
    reports: list[FileReport],
) -> None:
    """Import all files; each report is added at once, so a fault keeps those before it."""
    from ingest.exchange.importing import import_files
    from ingest.formats.base import Limits
    from ingest.jobs.progress import show_progress

    limits = Limits(options.max_bytes, options.max_edges)
    with registry.projecting_later(), show_progress() as progress:
        advance = _Advance(progress.stage("importing"))
        for report in import_files(
            registry, options.paths or (), said, limits=limits, format=format,
            dry_run=options.dry_run, progress=advance, stage=progress.stage,
        ):  # fmt: skip
            reports.append(report)
            advance.tell(report)
        advance.tell_of_others(reports)


class _Advance:
    """Reports each finished file on standard error if there are several."""

    def __init__(self, report: Report) -> None:
        self._report, self._total = report, 0

    def __call__(self, done: int, total: int) -> None:
        self._total = total
        self._report(done, total)

    def tell(self, report: FileReport) -> None:
        # A terminal shows a bar; apart from it, only failures must be reported now.
        if report.outcome == "skipped" or report.refused_with is not None:
            return
        # A malformed circuits-import.yaml is reported before any file is counted.
        if self._total != 1 and (report.outcome == "refused" or not sys.stderr.isatty()):
            why = f": {report.notes[0]}" if report.outcome == "refused" else ""
            notice(f"{report.outcome}: {report.path}{why}")

    def tell_of_others(self, reports: Sequence[FileReport]) -> None:
        """Count the files that were refused because of a reported fault in another file."""
        for cause, n_files in Counter(r.refused_with for r in reports).items():
            if cause is not None:
                files = "1 file" if n_files == 1 else f"{n_files} files"
                notice(f"refused: {files} in or below the folder of {cause}, for its error")


def _show(reports: Sequence[FileReport], format: Format) -> None:
    """Show all files; a table shows only those that concern the registry."""
    shown = [r for r in reports if r.format or r.outcome == "refused" or format is not Format.TABLE]
    empty = "no files found" if not reports else "no file has a known format"
    show_rows(Rows(_COLUMNS, tuple(map(_row, shown))), format, empty=empty)
    # Skipped folders have no format; they may be all that the user wanted.
    passed_over = [r for r in reports if r.outcome == "skipped" and r.path.is_dir()]
    if passed_over:
        names = listed([r.path for r in passed_over], longest=_LONGEST_PATH)
        notice(
            f"skipped folders (hidden, links or not readable): {names}; name a folder to import it"
        )
    unread = [r for r in reports if r.outcome == "skipped" and not r.format and _is_table(r.path)]
    if format is Format.TABLE:
        for report in unread[:_MOST_REASONS]:
            notice(f"skipped: {report.path}: {'; '.join(report.notes)}")
        # These were told of just now.
        shown = [*shown, *unread[:_MOST_REASONS]]
    others = len(reports) - len(shown) - len(passed_over)
    if others > 0 and format is Format.TABLE:
        notice(f"{others} other files skipped; --format json gives the reason for each")


def _is_table(path: Path) -> bool:
    """Whether a user may have meant a file as a table of a circuit."""
    return path.suffix.lower() in _TABLES


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
        if columns.get(ours, theirs) != theirs:
            raise BadInput(f"--column maps {ours} to both {columns[ours]!r} and {theirs!r}")
        columns[ours] = theirs
    return columns or None
