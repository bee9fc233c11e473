"""Commands that find circuits and measure them: ``discover JOB``, ``verify``, ``tasks``.

Every job in the entry-point group ``circuits.jobs`` is a command of ``discover``. Its options are
the fields of its ``Configuration``, so a job of another package needs no separate command. This
module does not import torch; a job does so when it runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperGroup

from ingest.models.names import DTYPE_HELP
from registry.cli.circuits import CircuitArgument
from registry.cli.output import Format, FormatOption, Section, notice, show_rows, show_sections
from registry.cli.session import open_registry
from registry.errors import PluginBroken
from registry.rows import Rows

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["commands"]


class JobGroup(TyperGroup):
    """A group with one command per registered job; each job is imported when it is requested."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class names it
        """Names of all jobs."""
        from ingest.jobs.base import JOBS_GROUP
        from registry import plugins

        return sorted({one.name for one in plugins.plugins(JOBS_GROUP)})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """Build the command of one job; None, with a warning, if its package is broken.

        Raises:
            NotFound: No such job exists.
        """
        from ingest.jobs.base import JOBS_GROUP, find_job
        from registry import plugins

        try:
            job = find_job(cmd_name)
            with plugins.blamed(JOBS_GROUP, job):
                return self._command(cmd_name, job)
        except PluginBroken as error:
            broken = next(one for one in plugins.plugins(JOBS_GROUP) if one.name == cmd_name)
            plugins.leave_out(broken, error)
            return None

    def _command(self, name: str, job: Any) -> Any:
        app = typer.Typer(
            rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
        )
        app.command(name, help=(inspect.getdoc(job) or "").replace("\\b", "\b"))(
            _run_with_options(job)
        )
        return typer.main.get_command(app)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the job that the arguments name.

        Raises:
            NotFound: No job has this name.
            PluginBroken: The package it comes from is broken.
        """
        if args and not args[0].startswith("-"):
            from ingest.jobs.base import JOBS_GROUP, find_job
            from registry import plugins

            job = find_job(args[0])
            with plugins.blamed(JOBS_GROUP, job):
                self._command(args[0], job)
        return super().resolve_command(ctx, args)


def commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    jobs = typer.Typer(cls=JobGroup, rich_markup_mode=None, pretty_exceptions_enable=False)
    jobs.callback()(discover)
    app.add_typer(jobs, name="discover")
    app.command()(verify)
    app.command()(tasks)


def discover() -> None:
    r"""Find the circuit of a task in a model, measure it and record it.

    \b
    circuits discover edge-attribution --model smollm2 --task ioi
    circuits discover edge-attribution --help
    """


def verify(
    context: typer.Context,
    circuit: CircuitArgument,
    top: Annotated[
        int,
        typer.Option(
            min=1, help="Number of edges and number of nodes, strongest first.", metavar="NUMBER"
        ),
    ] = 20,
    model: Annotated[
        str | None,
        typer.Option(help="Location of the circuit's model, if it has moved.", metavar="MODEL"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; default: cuda if available.")
    ] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts per batch; default: as many as memory allows."),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    r"""Measure the exact effects of a circuit's strongest edges and nodes by patching each.

    Runs the circuit's model on its prompts with its ablation. Shows each attributed effect with the
    exact effect, and stores both with their rank correlation. CSV contains only the edges.

    \b
    circuits verify 3f9a02c41d7b
    circuits verify 3f9a --top 50 --format json
    """
    from ingest.jobs.base import run_job
    from ingest.jobs.progress import show_progress
    from ingest.jobs.verification import JOB, VerificationConfiguration

    with open_registry(context) as registry, show_progress() as progress:
        configuration = VerificationConfiguration(
            circuit=registry.ledger.circuit(circuit).id,
            top=top,
            model=model,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )
        found = run_job(JOB, configuration, registry, progress=progress).finding.summary
    columns = ("part", "attributed", "exact")
    sections = [Section("rank correlation", found["rank_correlation"])]
    for of, part in (("edges", "edge"), ("nodes", "node")):
        rows = tuple(tuple(row[column] for column in columns) for row in found[of])
        sections.append(Section(of, Rows((part, *columns[1:]), rows)))
    show_sections(sections, format, csv="edges")


def tasks(format: FormatOption = Format.TABLE) -> None:
    r"""List the tasks for which circuits can be found.

    To use your own prompts, write a file: JSON Lines (one object per line) or CSV with the fields
    clean, corrupt, correct and wrong, below a header that names the task:

    \b
    ---
    task: capitals
    ---
    clean,corrupt,correct,wrong
    "The capital of France is","The capital of Italy is"," Paris"," Rome"

    In JSON Lines, wrong may be a list of answers, and labels may be an object. In CSV, extra
    columns wrong:2 and label:NAME serve the same purpose. docs/tasks.md describes both, and how
    prompts are split into train, validation and test.

    \b
    circuits tasks
    circuits discover edge-attribution --model smollm2 --file capitals.csv
    """
    from ingest.tasks.catalogue import all_tasks

    found = tuple((task.slug, task.family, task.description) for task in all_tasks().values())
    show_rows(Rows(("task", "family", "description"), found), format)


def _run_with_options(job: Any) -> Callable[..., None]:
    """Make a function for typer whose options are the fields of the job's configuration."""
    fields = _fields(job.Configuration)

    def run(context: typer.Context, format: Format = Format.TABLE, **given: Any) -> None:
        from ingest.jobs.base import JOBS_GROUP
        from ingest.jobs.campaigns import discover
        from ingest.jobs.progress import show_progress
        from registry import plugins

        options = {name: value for name, value in given.items() if value not in (None, [])}
        configuration = job.Configuration(**options)
        with (
            open_registry(context) as registry,
            show_progress() as progress,
            plugins.blamed(JOBS_GROUP, job),
        ):
            account = discover(job, configuration, registry, progress=progress)
        rows = tuple(tuple(row.values()) for row in account.rows)
        show_rows(Rows(tuple(account.rows[0]), rows), format)
        for note in account.notes:
            notice(f"note: {note}")

    parameters = [_parameter("context", typer.Context)]
    parameters += [_option(name, field) for name, field in fields.items()]
    parameters.append(_parameter("format", FormatOption, Format.TABLE))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _fields(configuration: Any) -> dict[str, FieldInfo]:
    """Fields as the help shows them: required ones, the job's own, then group by group."""
    fields: dict[str, FieldInfo] = configuration.model_fields
    order = [name for name, field in fields.items() if field.is_required()]
    order += inspect.get_annotations(configuration)
    for group in configuration.__bases__:
        order += getattr(group, "model_fields", ())
    return {name: fields[name] for name in dict.fromkeys([*order, *fields]) if name in fields}


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """Make the option for a field; an omitted option keeps the configuration's default."""
    kind: Any = field.annotation
    is_list = get_origin(kind) is tuple
    # A value that is read before it is checked comes as text, such as 1% for a number.
    is_text = any(type(rule).__name__ == "BeforeValidator" for rule in field.metadata)
    # A field with several values is an option that can be repeated: tags, --tag.
    flag = "--" + (name.removesuffix("s") if is_list else name).replace("_", "-")
    is_flag = bool in (kind, *get_args(kind))
    option = typer.Option(
        ... if field.is_required() else None,
        f"{flag}/--no-{flag[2:]}" if is_flag else flag,
        help=_help(field),
        metavar="<str>" if is_list else None,
        show_default=False,
    )
    kind = list[str] if is_list else str if is_text else kind
    return _parameter(name, kind if field.is_required() else kind | None, option)


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    plain = isinstance(field.default, str | int) and not isinstance(field.default, bool)
    return f"{text} [default: {field.default}]" if plain else text


def _parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
