"""Commands about knowledge edits: attach one to circuits, list and show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.aliases import resolve_component
from registry.cli.failures import first_problem
from registry.cli.output import (
    Format,
    FormatOption,
    Section,
    notice,
    show_record,
    show_rows,
    show_sections,
)
from registry.cli.session import open_registry
from registry.cli.values import assignments, read_json
from registry.errors import BadInput
from registry.names import known_model
from registry.rows import Rows

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
        typer.Option(help="Circuit it was aimed at; repeat for several.", metavar="CIRCUIT"),
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
        typer.Option(help="Part it modified, such as m5 or a9.h6; repeat.", metavar="COMPONENT"),
    ] = None,
    restriction: Annotated[
        str | None,
        typer.Option(
            help="What it was confined to: circuit, complement, random, layers, model.",
            metavar="WORD",
        ),
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(
            help="What was to change, as key=value (subject=..., target_new=...).",
            metavar="KEY=VALUE",
        ),
    ] = None,
    hyperparameter: Annotated[
        list[str] | None, typer.Option(help="Setting of the editor.", metavar="KEY=VALUE")
    ] = None,
    note: Annotated[
        str | None, typer.Option(help="Anything else worth knowing.", metavar="TEXT")
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            help="What was measured: metric=efficacy,protocol=generation,before=0.1,after=0.9,"
            "task=ioi,n_prompts=50; repeat for several.",
            metavar="KEY=VALUE,...",
        ),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Attach an edit and what was measured after it to stored circuits.

    Options go before what the file says. The same edit again changes nothing.

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
    show_record({"edit": identifier, "circuits": edit.circuits, "outcomes": len(outcomes)}, format)


def list_edits(
    context: typer.Context,
    circuit: Annotated[
        str | None, typer.Option(help="Only edits aimed at this circuit.", metavar="CIRCUIT")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Only edits of this model.", metavar="MODEL")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""List edits, oldest first.

    \b
    circuits edits list
    circuits edits list --circuit 3f9a --format json
    """
    with open_registry(context) as registry:
        aimed_at = registry.ledger.circuit(circuit).id if circuit else None
        slug = known_model(registry.ledger, model) if model else None
        chosen = {
            edit.id: edit
            for edit in registry.edits()
            if (aimed_at is None or aimed_at in edit.circuits)
            and (slug is None or edit.model == slug)
        }
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
    columns = ("edit", "model", "editor", "restriction", "components", "circuits", "outcomes")
    show_rows(Rows((*columns, "note"), tuple(rows)), format, empty="no such edits")


def show(
    context: typer.Context,
    edit: Annotated[
        str, typer.Argument(help="Id of an edit, or the first digits of it.", metavar="EDIT")
    ],
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Show one edit with what was measured after it. CSV holds the outcomes alone.

    \b
    circuits edits show 9c01
    """
    with open_registry(context) as registry:
        found = registry.edit(edit)
        outcomes = registry.outcomes(found.id)
        files = registry.ledger.edit_files(found.id)
    fields = {"id": found.id, **found.model_dump()}
    sections = [
        Section("edit", fields),
        Section("files", _rows(files, _FILE_KEYS)),
        Section("outcomes", _rows(outcomes, _OUTCOME_KEYS)),
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
        raise BadInput(f"the edit is of {model}, but aimed at a circuit of {min(foreign)}")
    return model


def _local(name: str, model: str) -> str:
    """A component's local name, given with its model or without."""
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
        made.id  # noqa: B018 - hashing it refuses what JSON cannot hold
    except ValidationError as error:
        raise BadInput(f"{where}: {first_problem(error)}") from error
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: {error}") from error
    return made


def _rows(records: Sequence[Outcome] | Sequence[SourceFile], keys: tuple[str, ...]) -> Rows:
    return Rows(keys, tuple(tuple(getattr(record, key) for key in keys) for record in records))
