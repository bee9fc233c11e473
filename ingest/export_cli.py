"""Take circuits out again: as files that other tools read, or as a bundle for another registry."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.output import Format, FormatOption, notice, show_record, show_rows
from registry.cli.printable import is_printable
from registry.cli.session import open_registry
from registry.errors import ArtifactNotFound, BadInput, CircuitsError, StorageError
from registry.rows import Rows
from registry.words import listed

if TYPE_CHECKING:
    from ingest.exporters.base import Exporter
    from registry.ledger.base import CircuitEntry
    from registry.registry import Registry

__all__ = ["commands"]

_STATES = ("active", "superseded", "retracted")
_STANDARD_OUTPUT = "-"
_DIGITS = 12
_LONGEST_NAME = 200  # file systems take 255 bytes


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(export)


def export(
    context: typer.Context,
    circuits: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of circuits, or their first digits.", metavar="CIRCUIT..."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Format; --formats lists them.", metavar="FORMAT")
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="One zip with all that is recorded, for another registry."),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="File, or folder for several; - is standard output; default: named after the"
            " circuit, in this folder.",
            metavar="PATH",
        ),
    ] = None,
    skip_damaged: Annotated[
        bool,
        typer.Option(
            "--skip-damaged", help="With --bundle: leave out circuits that are damaged, by name."
        ),
    ] = False,
    heads: Annotated[
        bool,
        typer.Option("--heads", help="With --to: the heads alone, without edges and other parts."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over files that are there already.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every circuit, in place of ids.")] = False,
    task: Annotated[
        str | None, typer.Option(help="Those of a task, or of a family.", metavar="TASK")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Those of a model.", metavar="MODEL")] = None,
    method: Annotated[str | None, typer.Option(help="Those of a method.", metavar="METHOD")] = None,
    tag: Annotated[str | None, typer.Option(help="Those with a tag.", metavar="TAG")] = None,
    author: Annotated[str | None, typer.Option(help="Those of an author.", metavar="NAME")] = None,
    state: Annotated[
        str | None,
        typer.Option(help="active, superseded or retracted; default: all.", metavar="STATE"),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(help="Those whose titles and notes hold these words.", metavar="WORDS"),
    ] = None,
    formats: Annotated[
        bool, typer.Option("--formats", help="List the formats there are, and stop.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Export circuits to files of other tools, or as a bundle for another registry.

    Circuits are named by ids or chosen as 'circuits list' does. A bundle holds their records with
    runs, labels, evaluations and the edits that touch them, their scores, prompts and original
    files; 'circuits import FILE.zip' takes it in. Nothing is overwritten without --force. Exit code
    1 if one of several circuits does not fit the format.

    \b
    circuits export 3f9a --to graphviz -o ioi.gv
    circuits export 3f9a --to csv -o - | head
    circuits export 3f9a --heads --to csv -o heads.csv
    circuits export --task ioi --model gpt2 --to eap-ig-json -o graphs/
    circuits export 3f9a 81c2 --bundle -o ioi.zip
    circuits export --all --bundle -o everything.zip
    circuits export --all --bundle --skip-damaged -o what-is-left.zip
    circuits export --formats
    """
    if formats:
        _list_formats(format)
        return
    if bundle == (to is not None):
        raise BadInput("say either --to FORMAT, which --formats lists, or --bundle")
    if heads and bundle:
        raise BadInput("--heads is for files of a format; a bundle holds circuits whole")
    filters = {
        "task": task, "model": model, "method": method, "tag": tag, "author": author,
        "state": _state(state), "text": search,
    }  # fmt: skip
    with open_registry(context) as registry:
        chosen = _chosen(registry, circuits or [], filters, every=all_)
        if to is None:
            whole = all_ and not any(filters.values())
            _export_bundle(
                registry,
                chosen,
                out,
                format,
                force=force,
                everything=whole,
                skip_damaged=skip_damaged,
            )
        else:
            _export_files(registry, chosen, to, out, format, force=force, heads=heads)


def _list_formats(format: Format) -> None:
    from ingest.exporters.base import exporters

    known = sorted(exporters().items())
    rows = tuple((name, one.suffix, one.summary) for name, one in known)
    show_rows(Rows(("format", "suffix", "files"), rows), format)


def _state(state: str | None) -> Any:
    from registry.records import CircuitState

    if state is not None and state not in _STATES:
        raise BadInput(f"--state is {state!r}; it must be one of {', '.join(_STATES)}")
    return CircuitState(state) if state else None


def _chosen(
    registry: Registry, prefixes: Sequence[str], filters: dict[str, Any], *, every: bool
) -> list[CircuitEntry]:
    """The circuits that ids or filters name, each once."""
    filtered = any(value is not None for value in filters.values())
    if prefixes and (filtered or every):
        raise BadInput("name circuits or choose them with options such as --task, not both")
    if prefixes:
        entries = [registry.ledger.circuit(prefix) for prefix in prefixes]
    elif filtered or every:
        entries = registry.circuits(**filters)
    else:
        raise BadInput(
            "name circuits to export, or choose them with --task, --model, ... or --all;"
            " 'circuits list' shows them"
        )
    if not entries:
        raise BadInput("no such circuits; 'circuits list' shows what there is")
    return list({entry.id: entry for entry in entries}.values())


# -- files of other tools --------------------------------------------------------------------------


def _export_files(
    registry: Registry,
    entries: Sequence[CircuitEntry],
    to: str,
    out: str | None,
    format: Format,
    *,
    force: bool,
    heads: bool,
) -> None:
    from ingest.exporters.base import find_exporter

    exporter = find_exporter(to)
    if out == _STANDARD_OUTPUT:
        if len(entries) > 1:
            raise BadInput(f"standard output takes one circuit, not {len(entries)}")
        _to_standard_output(_content(registry, entries[0], exporter, heads=heads))
        return
    paths = _paths(entries, exporter.suffix, out)
    _refuse_existing(paths, force=force)
    rows: list[tuple[str, str | None, int | None, str | None]] = []
    for entry, path in zip(entries, paths, strict=True):
        try:
            data = _content(registry, entry, exporter, heads=heads)
        except CircuitsError as error:
            if len(entries) == 1:
                raise
            rows.append((entry.id, None, None, str(error)))
        else:
            _write(path, lambda file, data=data: file.write(data))  # type: ignore[misc]
            rows.append((entry.id, str(path), len(data), None))
    refused = sum(row[-1] is not None for row in rows)
    columns = ("circuit", "file", "size_bytes", "refused")
    shown = columns if refused else columns[:-1]
    show_rows(Rows(columns, tuple(rows)), format, columns=shown)
    if refused:
        notice(f"{refused} of {len(entries)} circuits do not fit {exporter.name}")
        raise typer.Exit(1)


def _content(registry: Registry, entry: CircuitEntry, exporter: Exporter, *, heads: bool) -> bytes:
    from ingest.exporters.base import EXPORTERS_GROUP, Exporting, heads_alone
    from registry import plugins

    circuit = registry.document(entry.id)
    if heads:
        circuit = heads_alone(circuit)
    model = next(one for one in registry.ledger.models() if one.slug == entry.model)
    scores = None
    if circuit.scores is not None:
        try:
            scores = registry.artifact(circuit.scores)
        except ArtifactNotFound:
            notice(f"warning: the scores of {entry.id[:_DIGITS]} are lost; exporting without them")
    with plugins.blamed(EXPORTERS_GROUP, exporter):
        content = exporter.write(circuit, Exporting(model, scores))
        if not isinstance(content, bytes):
            raise TypeError(f"write gives a {type(content).__name__}, no bytes")
    return content


def _paths(entries: Sequence[CircuitEntry], suffix: str, out: str | None) -> list[Path]:
    """Where each circuit goes; a folder is one that is there, or that ends as one."""
    target = Path(out or ".")
    is_folder = target.is_dir() or (out or "").endswith(("/", os.sep))
    if not is_folder and len(entries) == 1:
        return [target]
    if target.is_file():
        raise BadInput(f"{target} is a file; {len(entries)} circuits go into a folder")
    return [target / f"{_name(entry)}{suffix}" for entry in entries]


def _name(entry: CircuitEntry) -> str:
    """What a circuit's file is called: ``gpt2-sequence-numerals-3f9a02c41d7b``."""
    names = "-".join([entry.model, *entry.task.split("/")])
    return f"{names[:_LONGEST_NAME]}-{entry.id[:_DIGITS]}"


# -- bundles ---------------------------------------------------------------------------------------


def _export_bundle(
    registry: Registry,
    entries: Sequence[CircuitEntry],
    out: str | None,
    format: Format,
    *,
    force: bool,
    everything: bool,
    skip_damaged: bool,
) -> None:
    from ingest.bundle import gather, write

    path = _bundle_path(entries, out)
    if path is not None:
        _refuse_existing([path], force=force)
    chosen = [entry.id for entry in entries]
    contents = gather(registry, chosen, everything=everything, skip_damaged=skip_damaged)
    for damage in contents.left_out:
        notice(f"left out: {damage}")
    if contents.brought:
        brought = listed([key[:_DIGITS] for key in contents.brought], 5)
        notice(f"with circuits that these or their edits refer to: {brought}")
    for address in contents.lost:
        notice(f"warning: the imported file {address[:_DIGITS]} is lost; exporting without it")
    if path is None:
        with tempfile.TemporaryFile() as file:
            write(file, registry, contents)
            file.seek(0)
            _refuse_terminal()
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
        return
    _write(path, lambda file: write(file, registry, contents))
    batch = contents.batch
    held = {
        "file": path,
        "circuits": len(contents.circuits),
        "runs": len(batch.runs),
        "evaluations": len(batch.evaluations),
        "edits": len(batch.edits),
        "artifacts": len(contents.artifacts),
        "size_bytes": path.stat().st_size,
    }
    show_record(held, format)


def _bundle_path(entries: Sequence[CircuitEntry], out: str | None) -> Path | None:
    """Where a bundle goes; None for standard output."""
    if out == _STANDARD_OUTPUT:
        return None
    if out is not None and not Path(out).is_dir() and not out.endswith(("/", os.sep)):
        return Path(out)
    name = _name(entries[0]) if len(entries) == 1 else "circuits"
    return Path(out or ".") / f"{name}.zip"


# -- writing ---------------------------------------------------------------------------------------


def _refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    """Look before anything is written, so that of several files not some are.

    Raises:
        BadInput: A file is there already, or a folder where a file should go.
    """
    for path in paths:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name a file")
        if path.exists() and not force:
            raise BadInput(f"{path} exists already; name another with -o, or say --force")


def _write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Write a file by way of a temporary name beside it, so that it is whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    if path.parent.exists() and not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: {path.parent} is a file, no folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                fill(file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _to_standard_output(data: bytes) -> None:
    if sys.stdout.isatty() and not is_printable(data.decode(errors="replace")):
        _refuse_terminal()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _refuse_terminal() -> None:
    if sys.stdout.isatty():
        raise BadInput("this is no text that a terminal can show; name a file with -o")
