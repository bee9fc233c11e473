"""Commands about knowledge edits: attach one to circuits, list and show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.attach import attachment_rows
from registry.cli.output import (
    Format,
    FormatOption,
    Section,
    notice,
    show_record,
    show_rows,
    show_sections,
)
from registry.cli.paging import AfterOption, LimitOption, say_how_to_go_on, why_empty
from registry.cli.session import open_registry
from registry.cli.values import assignments, read_json
from registry.errors import BadInput
from registry.known_measures import direction_of, notes_on_values, unit_of
from registry.models.aliases import resolve_component
from registry.names import known_model
from registry.rows import Rows
from registry.texts.problems import first_problem

if TYPE_CHECKING:
    from registry.records import Edit, Outcome, SourceFile
    from registry.registry import Registry

__all__ = ["commands"]

_OUTCOME_KEYS = ("metric", "protocol", "task", "before", "after", "n_prompts")
_FILE_KEYS = ("name", "format", "sha256")
_EDIT_KEYS = (
    "model",
    "editor",
    "hyperparameters",
    "request",
    "restriction",
    "components",
    "circuits",
    "note",
    "outcomes",
)


def commands(app: typer.Typer) -> None:
    """Register ``edits`` with its three commands."""
    group = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    group.command()(attach)
    group.command("list")(list_edits)
    group.command()(show)
    app.add_typer(group, name="edits", help="Attach knowledge edits, list and show them.")


def attach(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Option(
            help="JSON or YAML file with the edit's fields and a list 'outcomes'.", metavar="FILE"
        ),
    ] = None,
    circuit: Annotated[
        list[str] | None,
        typer.Option(help="Circuit that it targeted; repeat for several.", metavar="CIRCUIT"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Edited model; default: that of the circuits.", metavar="MODEL"),
    ] = None,
    editor: Annotated[
        str | None, typer.Option(help="ROME, MEMIT, fine-tuning, ...", metavar="NAME")
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(help="Modified component, such as m5 or a9.h6; repeat.", metavar="COMPONENT"),
    ] = None,
    restriction: Annotated[
        str | None,
        typer.Option(
            help="Where it was allowed: circuit, complement, random, layers, model.",
            metavar="WORD",
        ),
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(
            help="Intended change, as key=value (subject=..., target_new=...).",
            metavar="KEY=VALUE",
        ),
    ] = None,
    hyperparameter: Annotated[
        list[str] | None, typer.Option(help="Setting of the editor.", metavar="KEY=VALUE")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Any other information.", metavar="TEXT")] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            help="A measurement: metric=efficacy,protocol=generation,before=0.1,after=0.9,"
            "task=ioi,n_prompts=50; repeat for several.",
            metavar="KEY=VALUE,...",
        ),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Attach an edit and its measured outcomes to stored circuits.

    Options override the file. Attaching the same edit again changes nothing.

    \b
    circuits edits attach --circuit 3f9a --editor ROME --component m5 \
        --outcome metric=efficacy,protocol=generation,before=0.02,after=0.97,task=ioi
    circuits edits attach --file edit.yaml --circuit 3f9a

    \b
    editor: MEMIT                   (a file: these fields, model and circuits too unless given)
    components: [m5, m6]
    restriction: circuit
    request: {subject: Paris, target_new: Rome}
    hyperparameters: {lr: 0.5}
    outcomes:
      - {metric: efficacy, protocol: generation, before: 0.1, after: 0.9, task: ioi}
    """
    options = {
        "model": model,
        "editor": editor,
        "hyperparameters": assignments(hyperparameter, "--hyperparameter"),
        "request": assignments(request, "--request"),
        "restriction": restriction,
        "components": component,
        "circuits": circuit,
        "note": note,
        "outcomes": [_outcome_option(text) for text in outcome or ()],
    }
    given = _read_file(file) | {key: value for key, value in options.items() if value}
    with open_registry(context) as registry:
        edit, outcomes = _records(given, registry, str(file) if file else "the edit")
        identifier = registry.attach_edit(edit, outcomes)
    for note_ in notes_on_values((), outcomes):
        notice(f"note: {note_}")
    show_record({"edit": identifier, "circuits": edit.circuits, "outcomes": len(outcomes)}, format)


def list_edits(
    context: typer.Context,
    circuit: Annotated[
        str | None, typer.Option(help="Only edits that targeted this circuit.", metavar="CIRCUIT")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Only edits of this model.", metavar="MODEL")
    ] = None,
    limit: LimitOption = None,
    after: AfterOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""List edits, newest first.

    With --limit, the option for the next page is printed if there are more edits.

    \b
    circuits edits list
    circuits edits list --circuit 3f9a --format json
    circuits edits list --limit 20
    """
    from registry.ledger.base import EditFilter

    with open_registry(context) as registry:
        aimed_at = registry.ledger.circuit(circuit).id if circuit else None
        slug = known_model(registry.ledger, model) if model else None
        which = EditFilter(circuit=aimed_at, model=slug)
        page = registry.ledger.edits_page(which, limit=limit, after=after)
        chosen = {edit.id: edit for edit in page.items}
        outcomes = registry.ledger.outcomes_of(chosen)
        rows = [
            (
                key,
                edit.model,
                edit.editor,
                edit.restriction,
                edit.components,
                edit.circuits,
                len(outcomes.get(key, ())),
                edit.note,
            )
            for key, edit in chosen.items()
        ]
        empty = why_empty("edits", rows, registry.ledger.edits_page, after)
    columns = ("edit", "model", "editor", "restriction", "components", "circuits", "outcomes")
    show_rows(Rows((*columns, "note"), tuple(rows)), format, empty=empty)
    say_how_to_go_on(page.after)


def show(
    context: typer.Context,
    edit: Annotated[
        str, typer.Argument(help="Id of an edit, or the first digits of it.", metavar="EDIT")
    ],
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show one edit with its outcomes. CSV holds only the outcomes.

    \b
    circuits edits show 9c01
    """
    with open_registry(context) as registry:
        found = registry.edit(edit)
        outcomes = registry.outcomes(found.id)
        files = registry.ledger.edit_files(found.id)
        attached = registry.attachments(found.id)
    fields = {"id": found.id, **found.model_dump()}
    sections = [
        Section("edit", fields),
        Section("files", _rows(files, _FILE_KEYS)),
        Section("attachments", attachment_rows(attached)),
        Section("outcomes", _outcome_rows(outcomes)),
    ]
    show_sections(sections, format, csv="outcomes")


# -- reading an edit -------------------------------------------------------------------------------


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{file} cannot be read: {reason}") from error
    values = _parsed(file, text)
    if not isinstance(values, Mapping):
        raise BadInput(f"{file} must hold one edit: fields with values, such as editor: ROME")
    _refuse_unknown(values, _EDIT_KEYS, str(file))
    return dict(values)


def _parsed(file: Path, text: str) -> Any:
    import yaml

    if file.suffix.lower() == ".json":
        return read_json(text, str(file))
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{file} is not YAML: {error}") from error


def _outcome_option(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        given = read_json(text, "--outcome")
    else:
        given = dict(_pair(part, text) for part in text.split(","))
    _refuse_unknown(given, _OUTCOME_KEYS, f"--outcome {text!r}")
    return dict(given)


def _pair(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals:
        raise BadInput(f"--outcome {text!r}: {part!r} is not KEY=VALUE")
    return key.strip(), value.strip()


def _refuse_unknown(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise BadInput(f"{where}: no field {key!r}; there are {', '.join(known)}")


def _records(
    given: Mapping[str, Any], registry: Registry, where: str
) -> tuple[Edit, list[Outcome]]:
    from registry.records import Edit

    fields = {key: value for key, value in given.items() if key != "outcomes"}
    targets = [registry.ledger.circuit(prefix) for prefix in _texts(fields, "circuits", where)]
    fields["circuits"] = tuple(target.id for target in targets)
    fields["model"] = _model(fields.get("model"), {target.model for target in targets}, registry)
    names = _texts(fields, "components", where)
    fields["components"] = tuple(_local(name, fields["model"]) for name in names)
    edit = _validated(Edit, fields, where)
    return edit, _outcomes(given.get("outcomes") or (), edit.id, registry, where)


def _outcomes(given: Any, edit: str, registry: Registry, where: str) -> list[Outcome]:
    from registry.records import Outcome

    if not isinstance(given, list | tuple):
        raise BadInput(f"{where}: outcomes must be a list, each with metric, before, after, ...")
    known = {task.slug for task in registry.ledger.tasks()}
    outcomes = []
    for index, fields in enumerate(given):
        place = f"{where}: outcomes.{index}"
        if not isinstance(fields, Mapping):
            raise BadInput(f"{place} must be fields with values, such as metric: efficacy")
        _refuse_unknown(fields, _OUTCOME_KEYS, place)
        outcome: Outcome = _validated(Outcome, {**fields, "edit": edit}, place)
        if outcome.task and outcome.task not in known:
            notice(f"task {outcome.task!r} is new in this registry")
        outcomes.append(outcome)
    return outcomes


def _model(given: Any, of_circuits: set[str], registry: Registry) -> str:
    if given is None and len(of_circuits) != 1:
        raise BadInput("which model was edited? Give --model, or --circuit of one model")
    if given is None:
        return next(iter(of_circuits))
    model = known_model(registry.ledger, str(given))
    if foreign := of_circuits - {model}:
        raise BadInput(f"the edit is of {model}, but it targeted a circuit of {min(foreign)}")
    return model


def _local(name: str, model: str) -> str:
    """A component's local name, from a name with or without its model."""
    from registry.identifiers import parse_component

    if "/" not in name:
        return name
    component = parse_component(resolve_component(name))
    if component.model != model:
        raise BadInput(f"component {name} is not of the edited model {model}")
    return str(component.local)


def _texts(fields: Mapping[str, Any], key: str, where: str) -> list[str]:
    values = fields.get(key) or []
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"{where}: {key} must be a list of texts, got {json.dumps(values)}")
    return list(values)


def _validated(record: Any, fields: Mapping[str, Any], where: str) -> Any:
    from pydantic import ValidationError

    try:
        made = record.model_validate(fields)
        made.id  # noqa: B018 - hashing it refuses values that JSON cannot hold
    except ValidationError as error:
        raise BadInput(f"{where}: {first_problem(error)}") from error
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: {error}") from error
    return made


def _outcome_rows(outcomes: Sequence[Outcome]) -> Rows:
    found = _rows(outcomes, _OUTCOME_KEYS)
    details = ((unit_of(one.metric), direction_of(one.metric)) for one in outcomes)
    values = tuple((*row, *more) for row, more in zip(found.values, details, strict=True))
    return Rows((*found.columns, "unit", "better"), values)


def _rows(records: Sequence[Outcome] | Sequence[SourceFile], keys: tuple[str, ...]) -> Rows:
    return Rows(keys, tuple(tuple(getattr(record, key) for key in keys) for record in records))
