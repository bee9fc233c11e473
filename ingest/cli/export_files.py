"""Export circuits: as files that other tools read, or as a bundle for another registry."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.exchange.exporting import (
    STANDARD_OUTPUT,
    attachments_to_folder,
    bundle_path,
    circuits_to_files,
    content,
    refuse_existing,
    short,
    write_file,
)
from registry.cli.output import Format, FormatOption, notice, show_record, show_rows
from registry.cli.printable import is_printable
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.rows import Rows
from registry.texts.words import listed

if TYPE_CHECKING:
    from ingest.exchange.exporting import Owner
    from registry.ledger.base import CircuitEntry
    from registry.registry import Registry

__all__ = ["commands"]

_STATES = ("active", "superseded", "retracted")


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(export)


def export(
    context: typer.Context,
    circuits: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids of circuits, or their first digits; with --attachments also of runs, edits"
            " and prompt sets.",
            metavar="CIRCUIT...",
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Format; --formats lists all.", metavar="FORMAT")
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="Write one zip with the whole record, for another registry."),
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="File, or folder for several circuits; - is standard output; default: a name made"
            " from the circuit, in this folder.",
            metavar="PATH",
        ),
    ] = None,
    attachments: Annotated[
        Path | None,
        typer.Option(
            help="Folder for attached files, with a subfolder per owner if several circuits, runs,"
            " edits or prompt sets have files.",
            metavar="DIR",
        ),
    ] = None,
    skip_damaged: Annotated[
        bool,
        typer.Option("--skip-damaged", help="With --bundle: omit damaged circuits and list them."),
    ] = False,
    heads: Annotated[
        bool,
        typer.Option(
            "--heads", help="Only the heads, without edges and other parts; as csv without --to."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    all_: Annotated[
        bool,
        typer.Option(
            "--all", help="Every circuit, instead of ids; with --attachments every owner of files."
        ),
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="Circuits of this task or family.", metavar="TASK")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Circuits of this model.", metavar="MODEL")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Circuits of this method.", metavar="METHOD")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Circuits with this tag.", metavar="TAG")] = None,
    author: Annotated[
        str | None, typer.Option(help="Circuits of this author.", metavar="NAME")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="active, superseded or retracted; default: all.", metavar="STATE"),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(help="Circuits whose title or notes contain these words.", metavar="WORDS"),
    ] = None,
    formats: Annotated[bool, typer.Option("--formats", help="List the formats, and stop.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Export circuits to files of other tools, or as a bundle for another registry.

    Name circuits by ids, or choose them as in 'circuits list'. A bundle contains their records with
    runs, labels, evaluations, the edits that touch them, scores, prompts, attachments and original
    files; 'circuits import FILE.zip' imports it. --attachments writes the files that are attached
    to circuits, runs, edits and prompt sets. Existing files are overwritten only with --force. Exit
    code 1 if one of several circuits does not fit the format.

    \b
    circuits export 3f9a --to graphviz -o ioi.gv
    circuits export 3f9a --to csv -o - | head
    circuits export 3f9a --heads --to csv -o heads.csv
    circuits export --task ioi --model gpt2 --to eap-ig-json -o graphs/
    circuits export 3f9a 81c2 --bundle -o ioi.zip
    circuits export --all --bundle -o everything.zip
    circuits export 3f9a 4be1 --attachments plots/
    circuits export --all --bundle --skip-damaged -o what-is-left.zip
    circuits export --formats
    """
    if formats:
        _list_formats(format)
        return
    if heads and not (bundle or to or attachments):
        to = "csv"
    if [bundle, to is not None, attachments is not None].count(True) != 1:
        raise BadInput(
            "give one of --to FORMAT (--formats lists the formats), --bundle or --attachments DIR"
        )
    if attachments is not None and (out is not None or heads or skip_damaged):
        raise BadInput("--attachments names its folder itself; -o and similar options do not apply")
    if heads and bundle:
        raise BadInput("--heads is for files of a format; a bundle contains whole circuits")
    filters = {
        "task": task, "model": model, "method": method, "tag": tag, "author": author,
        "state": _state(state), "text": search,
    }  # fmt: skip
    with open_registry(context) as registry:
        if attachments is not None:
            owners = _owners(registry, circuits or [], filters, every=all_)
            _export_attachments(registry, owners, attachments, format, force=force)
            return
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
    from ingest.formats.exporting import exporters

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
    """Return the circuits that ids or filters name, each once."""
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
        if not registry.circuits_page(limit=1).items:
            raise BadInput(
                "no circuits yet; add some with 'circuits import' or 'circuits discover'"
            )
        raise BadInput("no such circuits; 'circuits list' shows all circuits")
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
    from ingest.formats.exporting import find_exporter

    exporter = find_exporter(to)
    if out == STANDARD_OUTPUT:
        if len(entries) > 1:
            raise BadInput(f"standard output takes one circuit, not {len(entries)}")
        _to_standard_output(content(registry, entries[0], exporter, heads=heads, tell=notice))
        return
    rows = circuits_to_files(
        registry, entries, exporter, out, force=force, heads=heads, tell=notice
    )
    refused = sum(row[-1] is not None for row in rows.values)
    show_rows(rows, format, columns=rows.columns if refused else rows.columns[:-1])
    if refused:
        notice(f"{refused} of {len(entries)} circuits do not fit {exporter.name}")
        raise typer.Exit(1)


# -- attachments -----------------------------------------------------------------------------------


def _owners(
    registry: Registry, prefixes: Sequence[str], filters: dict[str, Any], *, every: bool
) -> list[Owner]:
    """Return the owners of files: those that ids name, the circuits of filters, or all."""
    from registry.files.attachments import AttachmentOwner

    ledger = registry.ledger
    filtered = any(value is not None for value in filters.values())
    if every and not prefixes and not filtered:
        found = [(one.owner_kind, one.owner) for one in ledger.attachments()]
    elif prefixes and not (every or filtered):
        found = [ledger.owner(prefix) for prefix in prefixes]
    else:
        chosen = _chosen(registry, prefixes, filters, every=every)
        found = [(AttachmentOwner.CIRCUIT, entry.id) for entry in chosen]
    return list(dict.fromkeys(found))


def _export_attachments(
    registry: Registry, owners: Sequence[Owner], folder: Path, format: Format, *, force: bool
) -> None:
    """Write attached files into a folder; with several owners, into a subfolder for each."""
    rows = attachments_to_folder(registry, owners, folder, force=force)
    refused = sum(row[-1] is not None for row in rows.values)
    columns = rows.columns if refused else rows.columns[:-1]
    show_rows(rows, format, columns=columns, empty="no files are attached")
    if refused:
        notice(
            f"{refused} of {len(rows.values)} files are damaged or lost; 'circuits doctor' lists"
            " damage"
        )
        raise typer.Exit(1)


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
    from ingest.formats.bundle.writing import gather, write

    path = bundle_path(entries, out)
    if path is not None:
        refuse_existing([path], force=force)
    chosen = [entry.id for entry in entries]
    contents = gather(registry, chosen, everything=everything, skip_damaged=skip_damaged)
    for damage in contents.left_out:
        notice(f"omitted: {damage}")
    if contents.brought:
        brought = listed([short(key) for key in contents.brought], 5)
        notice(f"with circuits that these circuits or their edits refer to: {brought}")
    for address in contents.lost:
        notice(f"warning: the imported file {short(address)} is lost; exporting without it")
    if path is None:
        with tempfile.TemporaryFile() as file:
            write(file, registry, contents)
            file.seek(0)
            _refuse_terminal()
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
        return
    write_file(path, lambda file: write(file, registry, contents))
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


def _to_standard_output(data: bytes) -> None:
    if sys.stdout.isatty() and not is_printable(data.decode(errors="replace")):
        _refuse_terminal()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _refuse_terminal() -> None:
    if sys.stdout.isatty():
        raise BadInput(
            "a terminal cannot show this content, which is not text; name a file with -o"
        )
