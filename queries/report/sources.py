"""The sources of a report's numbers as text: commands, circuits, prompts, runs, software."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from queries.report.page import Block, Code, Items, Table, Text
from queries.report.provenance import QUERIES
from registry.canonical import canonical_json

if TYPE_CHECKING:
    from queries.report.gathering import Report

__all__ = ["of_matrix", "of_reuse", "of_shared", "provenance"]

_ID_DIGITS = 12


def of_matrix(report: Report) -> Text:
    """Sources of the numbers about pairs."""
    matrix = report.matrix
    return Text(
        f"Numbers of this section: circuits matrix, with {matrix.draws:,} draws with seed "
        f"{matrix.seed}; overlap from the circuits' documents, ceilings from the query "
        "circuit-overlaps, transfer from the query transfers."
    )


def of_shared(report: Report) -> Text:
    """Sources of the numbers about the shared subgraph."""
    return Text(
        "Numbers of this section: circuits shared, with --min-tasks "
        f"{report.shared.min_tasks}, from the queries shared-components and shared-connections."
    )


def of_reuse(report: Report) -> Text:
    """Sources of the numbers about reuse."""
    return Text(
        f"Numbers of this section: circuits reuse, with {report.reuse.draws:,} random circuits for "
        f"each task with seed {report.matrix.seed}, from the queries tasks-using-components and "
        "tasks-using-connections; specific parts: circuits shared --unique."
    )


def provenance(report: Report) -> Iterator[Block]:
    """List all records used by the report, with their full ids."""
    found = report.provenance
    yield Text("These commands give the same numbers from the same registry:")
    yield Code(tuple(_commands(report)))
    yield Text(f"Named queries: {', '.join(QUERIES)}; circuits query NAME --about shows each.")
    yield _model(report)
    yield from _circuits(report)
    yield _prompts(report)
    yield _measurements(report)
    if found.runs:
        yield _runs(report)
    sources = _source_files(report)
    if sources.rows:
        yield sources
    yield Text("Computed with:")
    yield Items(
        (
            *(f"{name} {version}" for name, version in found.software.items()),
            f"registry {found.registry_id}",
        )
    )


def _commands(report: Report) -> Iterator[str]:
    matrix, shared = report.matrix, report.shared
    ids = ",".join(id[:_ID_DIGITS] for id in matrix.circuits)
    drawn = f"--draws {matrix.draws} --seed {matrix.seed}"
    yield f"circuits matrix --circuits {ids} {drawn}"
    yield f"circuits shared --circuits {ids} --min-tasks {shared.min_tasks} --unique"
    yield f"circuits reuse --circuits {ids} --draws {report.reuse.draws} --seed {matrix.seed}"
    yield (
        f"circuits report --circuits {ids} {drawn} --min-tasks {shared.min_tasks} --out report.html"
    )


def _model(report: Report) -> Table:
    model = report.provenance.model
    fields = (
        ("name", model.slug), ("source", model.source), ("revision", model.revision),
        ("SHA-256 of the weights", model.weights_sha256), ("architecture", model.architecture),
        ("layers", model.n_layers), ("heads", model.n_heads), ("key/value heads", model.n_kv_heads),
        ("width", model.d_model),
    )  # fmt: skip
    rows = [(name, str(value)) for name, value in fields if value is not None]
    return Table.of("The model", ("field", "value"), rows, whole_ids=True)


def _circuits(report: Report) -> Iterator[Table]:
    entries = report.provenance.circuits
    columns = ("circuit", "task", "chosen by", "edges to choose from", "parameters", "recorded")
    rows = []
    for entry in entries:
        one = report.circuits[entry.id]
        rows.append(
            (
                entry.id, entry.task, _json(one.selection), one.universe_size,
                _json(one.parameters), f"{entry.recorded_at:%Y-%m-%d %H:%M}",
            )
        )  # fmt: skip
    yield Table.of("Circuits; an id is the SHA-256 of what it names", columns, rows, whole_ids=True)
    labelled = [
        (entry.id, entry.labels.author, entry.labels.tags, "; ".join(entry.labels.notes))
        for entry in entries
        if entry.labels.author or entry.labels.tags or entry.labels.notes
    ]
    if labelled:
        headings = ("circuit", "author", "tags", "notes")
        yield Table.of("Labels of the circuits", headings, labelled)


def _prompts(report: Report) -> Table:
    columns = (
        "prompts", "task", "seed", "n", "answered correctly", "correct answer first", "BOS",
        "tokenizer",
    )  # fmt: skip
    rows = [
        (one.id, one.task, _seed(one.seed), one.n_prompts, one.share_correct, one.share_top1,
         one.bos, one.tokenizer)
        for one in report.provenance.prompt_sets
    ]  # fmt: skip
    caption = "Prompts; an id is the SHA-256 of the prompts with their token ids"
    return Table.of(caption, columns, rows, whole_ids=True)


def _measurements(report: Report) -> Table:
    columns = (
        "circuit", "task", "measure", "value", "whole model", "all ablated", "prompts", "n",
        "ablation", "random circuits",
    )  # fmt: skip
    rows = [
        (one.circuit, one.task, one.measure, one.value, one.full, one.empty, one.prompt_set,
         one.n_prompts, one.ablation, _controls(one.parameters))
        for one in report.provenance.measurements
    ]  # fmt: skip
    return Table.of("Measurements", columns, rows)


def _runs(report: Report) -> Table:
    columns = (
        "run", "job", "version", "SHA-256 of the configuration", "started", "ended", "device",
        "packages",
    )  # fmt: skip
    rows = [
        (
            one.id, one.job, one.version, one.configuration_sha256[:_ID_DIGITS],
            f"{one.started_at:%Y-%m-%d %H:%M:%S}",
            f"{one.finished_at:%H:%M:%S}" if one.finished_at else None, one.device,
            [f"{name} {version}" for name, version in sorted(one.packages.items())],
        )
        for one in report.provenance.runs
    ]  # fmt: skip
    return Table.of("Runs", columns, rows)


def _source_files(report: Report) -> Table:
    rows = [
        (entry.id, file.name, file.format, file.sha256)
        for entry in report.provenance.circuits
        for file in entry.source_files
    ]
    columns = ("circuit", "imported from", "format", "SHA-256")
    return Table.of("Files that circuits were imported from", columns, rows)


def _controls(parameters: Mapping[str, Any]) -> str | None:
    n, seed = parameters.get("circuits"), parameters.get("seed")
    return None if n is None else f"{n}, seed {seed}"


def _seed(seed: int | None) -> str | None:
    # As text: seeds are names, not numbers to compare.
    return None if seed is None else str(seed)


def _json(value: Mapping[str, Any] | Sequence[Any] | None) -> str | None:
    return canonical_json(value) if value else None
