"""The command ``compare``: what circuits share, and what they would share by chance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from queries.cli.options import (
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
from queries.cli.pictures import OutOption, check_drawable, draw_to
from registry.cli.output import (
    Format,
    FormatOption,
    Section,
    notice,
    progress_line,
    show_sections,
)
from registry.cli.session import open_registry
from registry.errors import BadIdentifier, BadInput
from registry.rows import Rows

if TYPE_CHECKING:
    from queries.answers.compare import PairComparison
    from queries.answers.overlap import Comparison
    from registry.registry import Registry

__all__ = ["commands"]


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
    r"""Compare two circuits, or those of two tasks: what they share, and what chance explains.

    Circuits of one model share its hubs even if their tasks are unrelated. Three nulls give what is
    expected from that alone. degrees: random circuits in which every part keeps its number of
    edges. hubs: the same on average, but strong hubs first take all edges between them. layers:
    circuits with the same number of edges between any two layers. The conclusion is the weakest of
    the three. The larger the saturation, the less reliable is the null of degrees. The answer also
    has the ceiling (the overlap of circuits of one task found on other prompts) and the
    faithfulness of each circuit on the other's task, if a job measured it (circuits discover
    transfer).

    Unsound comparisons (different ablations or levels) are refused. Other differences (key/value
    heads, inputs of heads, nodes compared with edges) are folded and noted. With several circuits
    per task (--circuits all) every pair has a row, and q is corrected for all pairs.
    Circuits without edges are compared by their components and their effects.

    CSV holds the overlap, or the pairs.

    \b
    circuits compare 3f9a 81c2
    circuits compare --task ioi --task sequence/numerals --draws 2000
    circuits compare --task ioi --task sequence/numerals --circuits all --format json
    """
    from queries.answers.compare import compare_circuits

    check_drawable(out)
    with open_registry(context) as registry:
        pairs = _pairs(registry, (a, b), task, circuits, model, method)
        if len(pairs) > 1 and out is not None:
            raise BadInput(f"a drawing shows one pair, got {len(pairs)}; name two circuits")
        if len(pairs) > 1:
            sections = _of_many(registry, pairs, draws=draws, seed=seed, anyway=anyway)
        else:
            found = compare_circuits(registry, *pairs[0], draws=draws, seed=seed, anyway=anyway)
            sections = _of_one(found, with_chance=bool(draws), whole=format is Format.JSON)
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
        _check_ids(registry, a, b)
        return [(a, b)]
    if not task:
        raise BadInput(
            "compare needs two circuits or two tasks; for example circuits compare 3f9a 81c2, or "
            "--task ioi --task sequence/numerals"
        )
    from queries.circuits.choosing import choose_circuits

    tasks = parse_tasks(task, command="compare")
    if len(tasks) > 2:
        raise BadInput(f"compare takes two tasks, got {len(tasks)}; circuits matrix takes more")
    chosen = choose_circuits(
        registry, tasks, circuits=parse_circuits(circuits), model=model, method=method
    )
    say_notes(chosen)
    first, second = (chosen.by_task[one] for one in tasks)
    return list(product(first, second))


def _check_ids(registry: Registry, *named: str) -> None:
    """Refuse arguments that are not ids, and explain how tasks are named.

    Raises:
        BadIdentifier: One of them is not an id.
        NotFound: No circuit's id begins with one.
    """
    for one in named:
        try:
            registry.ledger.circuit_id(one)
        except BadIdentifier as error:
            tasks = " ".join(f"--task {name}" for name in named)
            raise BadIdentifier(
                one, f"{error.args[1]}; to compare two tasks, use: circuits compare {tasks}"
            ) from error


# -- one pair --------------------------------------------------------------------------------------


def _of_one(found: PairComparison, *, with_chance: bool, whole: bool) -> list[Section]:
    """All sections about one pair.

    Args:
        found: The comparison.
        with_chance: Whether chance was requested.
        whole: Also sections that do not apply to this pair.
    """
    _warn(found.comparison)
    if found.sameness:
        notice(f"note: {found.sameness}")
    if with_chance and found.by_degrees is not None and found.by_layers is None:
        notice("the model's number of parts is unknown, so there is no null of layers")
    parts = found.parts()
    if not with_chance:
        parts["conclusion"] = {}
    with_edges = bool(found.comparison.connections.n_a or found.comparison.connections.n_b)
    unsaid = "effects of components" if with_edges else "effects"
    return [Section(title, content) for title, content in parts.items() if whole or title != unsaid]


def _warn(comparison: Comparison) -> None:
    for difference in comparison.differences:
        notice(f"warning: the circuits differ in {difference}")


# -- many pairs ------------------------------------------------------------------------------------


def _of_many(
    registry: Registry, pairs: Sequence[tuple[str, str]], *, draws: int, seed: int, anyway: bool
) -> list[Section]:
    from queries.answers.compare import compare_pairs

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
