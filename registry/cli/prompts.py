"""``circuits prompts``: prompt sets, and the prompts of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.attach import attachment_rows
from registry.cli.output import Format, FormatOption, Section, notice, show_rows, show_sections
from registry.cli.paging import AfterOption, PageOption, say_how_to_go_on, why_empty
from registry.cli.session import open_registry
from registry.errors import BadInput, CircuitsError
from registry.rows import Rows

if TYPE_CHECKING:
    from registry.files.prompt_files import PromptFile
    from registry.records import Evaluation, PromptSet
    from registry.registry import Registry

__all__ = ["commands"]

_COLUMNS = (
    "prompt_set",
    "task",
    "model",
    "seed",
    "n_prompts",
    "bos",
    "share_correct",
    "share_top1",
)
_MORE_COLUMNS = (*_COLUMNS, "tokenizer", "artifact")
_ANSWER_COLUMNS = ("model", "metric", "mean", "n_prompts")
_CIRCUIT_COLUMNS = ("circuit", "task", "model", "method", "level", "nodes", "edges", "faithfulness")


def commands(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(prompts)


def prompts(
    context: typer.Context,
    prompt_set: Annotated[
        str | None,
        typer.Argument(
            help="Id of a prompt set, or the first digits of it; without one, list prompt sets."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Task, or family: sequence finds sequence/numerals.", metavar="TASK"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model that answered the prompts, or its alias.", metavar="MODEL"),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            min=0, help="Number of prompts shown of one set; 0 for all.", metavar="NUMBER"
        ),
    ] = 20,
    limit: PageOption = 50,
    after: AfterOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""List prompt sets; show one with its prompts.

    One set is shown with its prompts and their answers, and all other data of each prompt, such as
    labels, and of the set, such as the part of a split. The share of prompts that the model answers
    correctly is shown, its mean metric if a run measured it, attached files, and the circuits that
    were found on the set. CSV holds only the prompts. JSON and CSV have the token ids too.

    \b
    circuits prompts
    circuits prompts --task ioi --model smollm2
    circuits prompts 9c01
    circuits prompts 9c01 --top 0 --format csv > prompts.csv
    """
    format = Format.JSON if as_json else format
    given = {"task": task, "model": model, "after": after}
    used = [name for name, value in given.items() if value is not None]
    if prompt_set is not None and used:
        raise BadInput(f"--{used[0]} is for lists; omit it, or the prompt set {prompt_set!r}")
    with open_registry(context) as registry:
        if prompt_set is None:
            _list(registry, task, model, limit, after, format)
        else:
            _show(registry, registry.ledger.prompt_set(prompt_set), top, format)


def _list(
    registry: Registry,
    task: str | None,
    model: str | None,
    limit: int,
    after: str | None,
    format: Format,
) -> None:
    from registry.ledger.base import PromptSetFilter
    from registry.names import known_model, known_task

    ledger = registry.ledger
    which = PromptSetFilter(
        task=None if task is None else known_task(ledger, task, or_family=True),
        model=None if model is None else known_model(ledger, model),
    )
    page = ledger.prompt_sets_page(which, limit=limit, after=after)
    rows = _rows([_fields(one) for one in page.items], _MORE_COLUMNS)
    empty = why_empty("prompt sets", page.items, ledger.prompt_sets_page, after)
    show_rows(rows, format, columns=_COLUMNS, empty=empty)
    say_how_to_go_on(page.after)


def _show(registry: Registry, found: PromptSet, top: int, format: Format) -> None:
    ledger = registry.ledger
    file = _file(registry, found)
    circuits = registry.circuits(prompt_set=found.id)
    fields = _fields(found)
    del fields["prompt_set"]
    header = {} if file is None else dict(file.header)
    # Facts about all prompts that the file gives and the record does not.
    beside = {name: value for name, value in header.items() if name not in fields}
    listed = [
        {"circuit": one.id, "nodes": one.n_nodes, "edges": one.n_edges}
        | {name: getattr(one, name) for name in _CIRCUIT_COLUMNS if hasattr(one, name)}
        for one in circuits
    ]
    shown = _prompts(file, top, format)
    sections = [
        Section("prompt set", {"id": found.id, **fields, **beside}),
        Section("answers", _answers(found, ledger.evaluations_on(found.id))),
        Section("attachments", attachment_rows(registry.attachments(found.id))),
        Section("circuits", _rows(listed, _CIRCUIT_COLUMNS)),
        Section("prompts", shown),
    ]
    show_sections(sections, format, csv="prompts")
    n_kept = 0 if file is None else len(file.prompts)
    if len(shown) < n_kept:
        notice(f"the first {len(shown)} of {n_kept} prompts; --top 0 shows all")


def _file(registry: Registry, found: PromptSet) -> PromptFile | None:
    """The prompts; None, with a notice, if they are not kept or cannot be read."""
    from registry.files.prompt_files import read_prompt_file

    if found.artifact is None:
        notice("the prompts themselves are not kept in this registry")
        return None
    try:
        return read_prompt_file(registry.artifact(found.artifact))
    except CircuitsError as error:
        notice(f"warning: the prompts cannot be shown: {error}")
        return None


def _prompts(file: PromptFile | None, top: int, format: Format) -> Rows:
    if file is None:
        return Rows(())
    fields = [
        name for name in file.fields if format is not Format.TABLE or not file.holds_ids(name)
    ]
    chosen = file.prompts[:top] if top else file.prompts
    return _rows([{name: one.get(name) for name in fields} for one in chosen], fields)


def _answers(found: PromptSet, measured: Sequence[Evaluation]) -> Rows:
    """Mean metrics of the whole model over the prompts, each measurement once."""
    answers = dict.fromkeys(
        (found.model, one.parameters.get("metric") or one.measure, one.full, one.n_prompts)
        for one in measured
        if one.full is not None
    )
    return Rows(_ANSWER_COLUMNS, tuple(answers))


def _fields(one: PromptSet) -> dict[str, Any]:
    return {"prompt_set": one.id, **one.model_dump(exclude={"id"})}


def _rows(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Rows:
    return Rows(tuple(columns), tuple(tuple(record[c] for c in columns) for record in records))
