"""The command ``compare``: circuits beside each other, and what they share by chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from queries.choosing_cli import (
    AnywayOption,
    CircuitsOption,
    DrawsOption,
    MethodOption,
    ModelOption,
    SeedOption,
    TaskOption,
    parse_circuits,
    parse_tasks,
    say_notes,
)
from queries.pictures import OutOption, check_drawable, draw_to
from registry.cli.output import (
    Format,
    FormatOption,
    Section,
    notice,
    progress_line,
    show_sections,
)
from registry.cli.session import open_registry
from registry.errors import BadInput
from registry.identifiers import Kind
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.chance import Chance
    from queries.compare import Comparison, Overlap
    from queries.comparing import PairComparison
    from registry.records import Circuit
    from registry.registry import Registry

__all__ = ["commands"]

_OVERLAP = ("n_a", "n_b", "n_shared", "iou", "iom", "share_of_a", "share_of_b")
_CHANCE = ("n_shared", "expected", "low", "high", "z", "p")


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(compare)


def compare(
    context: typer.Context,
    a: Annotated[
        str | None, typer.Argument(help="Id of a circuit, or its first digits.", metavar="A")
    ] = None,
    b: Annotated[str | None, typer.Argument(help="Id of another.", metavar="B")] = None,
    task: TaskOption = None,
    circuits: CircuitsOption = "best",
    model: ModelOption = None,
    method: MethodOption = None,
    draws: DrawsOption = 1000,
    seed: SeedOption = 0,
    anyway: AnywayOption = False,
    out: OutOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Compare two circuits, or those of two tasks: what they share, by chance and beyond it.

    Circuits of one model share its hubs whatever their tasks. Three nulls say what that alone would
    give: circuits in which every part keeps its number of edges, drawn at random (degrees); the
    same where strong hubs take all edges between them first (hubs); and circuits that take as many
    edges between any two layers (layers). The conclusion is the weakest one. The larger saturation
    is, the less the null of degrees can be trusted. Beside it stand the ceiling, what circuits of
    one task share that were found on other prompts, and how faithful each circuit is on the
    other's task, if a job measured it (circuits discover transfer).

    What makes a comparison unsound (other ablation, other levels) is refused; what can be folded
    (key/value heads, inputs of heads, nodes beside edges) is folded and named. With several
    circuits a task (--circuits all) every pair has a row, its q corrected for all of them.

    CSV holds the overlap, or the pairs.

    \b
    circuits compare 3f9a 81c2
    circuits compare --task ioi --task sequence/numerals --draws 2000
    circuits compare --task ioi --task sequence/numerals --circuits all --format json
    """
    from queries.comparing import compare_circuits

    check_drawable(out)
    with open_registry(context) as registry:
        pairs = _pairs(registry, (a, b), task, circuits, model, method)
        if len(pairs) > 1 and out is not None:
            raise BadInput(f"a drawing shows one pair, and these are {len(pairs)}; name two")
        if len(pairs) > 1:
            sections = _of_many(registry, pairs, draws=draws, seed=seed, anyway=anyway)
        else:
            found = compare_circuits(registry, *pairs[0], draws=draws, seed=seed, anyway=anyway)
            sections = _of_one(found, told=bool(draws))
            if out is not None:
                draw_to(found.picture, out)
    show_sections(sections, format, csv="pairs" if len(pairs) > 1 else "overlap")


def _pairs(
    registry: Registry,
    named: tuple[str | None, str | None],
    task: Sequence[str] | None,
    circuits: str,
    model: str | None,
    method: str | None,
) -> list[tuple[str, str]]:
    a, b = named
    if task and (a or b):
        raise BadInput("give two circuits, or two tasks with --task, not both")
    if a and b:
        return [(a, b)]
    if not task:
        raise BadInput(
            "compare needs two circuits or two tasks; for example circuits compare 3f9a 81c2, or "
            "--task ioi --task sequence/numerals"
        )
    from queries.choosing import choose_circuits

    tasks = parse_tasks(task, command="compare")
    if len(tasks) > 2:
        raise BadInput(f"compare takes two tasks, got {len(tasks)}; circuits matrix takes more")
    chosen = choose_circuits(
        registry, tasks, circuits=parse_circuits(circuits), model=model, method=method
    )
    say_notes(chosen)
    first, second = (chosen.by_task[one] for one in tasks)
    return list(product(first, second))


# -- one pair --------------------------------------------------------------------------------------


def _of_one(found: PairComparison, *, told: bool) -> list[Section]:
    """Everything about one pair; ``told`` says whether chance was asked for."""
    _warn(found.comparison)
    if told and found.by_degrees is not None and found.by_layers is None:
        notice("how many parts the model has is unknown, so the null of layers cannot be told")
    return [
        Section("circuits", _circuits((found.circuit_a, found.circuit_b))),
        Section("overlap", _overlaps(found.comparison)),
        Section("by chance", _nulls(found)),
        Section("conclusion", _conclusion(found) if told else {}),
        Section("effects", _effects(found.comparison)),
        Section("ceiling", _as_rows(found.ceilings, _CEILING)),
        Section("transfer", _as_rows(found.transfers, _TRANSFER)),
        Section("differences", _differences(found.comparison)),
    ]


def _warn(comparison: Comparison) -> None:
    for difference in comparison.differences:
        notice(f"warning: the circuits differ in {difference}")


def _circuits(circuits: Sequence[Circuit]) -> Rows:
    names = (
        "task", "model", "method", "level", "metric", "ablation", "sign", "kv_heads",
        "universe_size",
    )  # fmt: skip
    return Rows(
        ("circuit", "id", *names),
        tuple(
            (label, circuit.id, *(getattr(circuit, name) for name in names))
            for label, circuit in zip("ab", circuits, strict=True)
        ),
    )


def _overlaps(comparison: Comparison) -> Rows:
    levels: Mapping[str, Overlap] = {
        "components": comparison.components,
        "heads": comparison.of_kind(Kind.HEAD),
        "mlps": comparison.of_kind(Kind.MLP),
        "edges": comparison.edges,
        "connections": comparison.connections,
    }
    return Rows(
        ("of", *_OVERLAP),
        tuple(
            (name, *(getattr(overlap, column) for column in _OVERLAP))
            for name, overlap in levels.items()
        ),
    )


def _nulls(found: PairComparison) -> Rows:
    nulls: Mapping[tuple[str, str], Chance | None] = {
        ("connections", "degrees"): found.by_degrees,
        ("connections", "hubs"): found.by_hubs,
        ("connections", "layers"): found.by_layers,
        ("components", "layers"): found.components_by_layers,
    }
    return Rows(
        ("of", "null", *_CHANCE),
        tuple(
            (*names, *(getattr(null, column) for column in _CHANCE))
            for names, null in nulls.items()
            if null is not None
        ),
    )


def _conclusion(found: PairComparison) -> Mapping[str, Any]:
    return {
        "in words": found.conclusion,
        "p": found.p,
        "saturation of a": found.saturation_a,
        "saturation of b": found.saturation_b,
    }


def _effects(comparison: Comparison) -> Mapping[str, Any]:
    return {
        "rank correlation": comparison.rank_correlation,
        "signed shared connections": comparison.n_signed,
        "with the same sign": comparison.n_same_sign,
        "sign agreement": comparison.sign_agreement,
    }


_CEILING = ("task", "n_circuits", "mean_iou", "lowest_iou", "highest_iou")
_TRANSFER = ("circuit", "found_on", "task", "measure", "value", "random", "n_measured")


def _as_rows(records: Iterable[Any], columns: Sequence[str]) -> Rows:
    dicts = [asdict(record) for record in records]
    return Rows(tuple(columns), tuple(tuple(row[column] for column in columns) for row in dicts))


def _differences(comparison: Comparison) -> Rows:
    return Rows(("difference",), tuple((one,) for one in comparison.differences))


# -- many pairs ------------------------------------------------------------------------------------


def _of_many(
    registry: Registry, pairs: Sequence[tuple[str, str]], *, draws: int, seed: int, anyway: bool
) -> list[Section]:
    from queries.comparing import compare_pairs

    found = compare_pairs(
        registry, pairs, draws=draws, seed=seed, anyway=anyway,
        progress=progress_line("comparing pairs"),
    )  # fmt: skip
    for difference in dict.fromkeys(d for one in found for d in one.comparison.differences):
        notice(f"warning: some circuits differ in {difference}")
    columns = (
        "a", "b", "n_shared", "iou", "iou_of_components", "expected", "z", "p", "q",
        "rank_correlation", "sign_agreement",
    )  # fmt: skip
    return [Section("pairs", Rows(columns, tuple(_pair_row(one) for one in found)))]


def _pair_row(found: PairComparison) -> tuple[Any, ...]:
    comparison, null = found.comparison, found.null
    return (
        comparison.a, comparison.b, comparison.connections.n_shared, comparison.connections.iou,
        comparison.components.iou, null and null.expected, null and null.z, found.p, found.q,
        comparison.rank_correlation, comparison.sign_agreement,
    )  # fmt: skip
