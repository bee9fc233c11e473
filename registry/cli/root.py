"""The typer root: its options, and a group that loads a command's module when it is invoked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from registry.cli.commands import COMMANDS_GROUP, ROOT_OPTIONS, commands, find_command, root_help
from registry.cli.logs import LogLevel, start_logging
from registry.cli.session import Session
from registry.errors import BadInput
from registry.settings.table import SETTINGS, has_password

__all__ = ["command_group", "run"]

_HELP = {option: text for option, _, text in ROOT_OPTIONS}


class LazyGroup(TyperGroup):
    """A group whose commands are found by name and imported one at a time."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class names it
        """Names of all commands, in the order of the help."""
        return [command.name for command in commands()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        """Import and build one command; None if no command has that name."""
        command = find_command(cmd_name)
        if command is None:
            return None
        from registry import plugins

        register = command.load()
        with plugins.blamed(COMMANDS_GROUP, register):
            return command_group(register).commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command at the start of the arguments.

        Raises:
            BadInput: No command has that name; the message lists similar names.
        """
        if args and find_command(args[0]) is None and not ctx.resilient_parsing:
            raise BadInput(_no_command(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: Any) -> str:  # noqa: ARG002 - as above
        """The text that :mod:`registry.cli.commands` makes without loading this module."""
        return root_help().rstrip("\n")


def command_group(register: Any) -> TyperGroup:
    """Build the commands that a ``commands(app)`` function registers."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    register(app)
    group = get_group(app)
    _prepare(group)
    return group


def _prepare(group: TyperGroup) -> None:
    r"""Make commands show their help as written.

    The two characters ``\b`` of a raw docstring become the mark against rewrapping. A group without
    a command lists its commands.
    """
    for command in group.commands.values():
        if command.help:
            command.help = command.help.replace("\\b\n", "\b\n")
        if isinstance(command, TyperGroup):
            command.no_args_is_help = True
            _prepare(command)


def _no_command(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    nearest = " or ".join(repr(near) for near in get_close_matches(name, known))
    hint = f"did you mean {nearest}?" if nearest else "'circuits --help' lists them"
    return f"no command {name!r}; {hint}"


def run(arguments: Sequence[str]) -> int:
    """Parse and run a command line; failures are raised as exceptions.

    Returns:
        The exit code that the command set, 0 by default.
    """
    app = typer.Typer(
        cls=LazyGroup,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )
    app.callback()(_root)
    group = get_group(app)
    # Not group.main(), which ends the process or swallows Ctrl-C: registry.cli.failures handles
    # failures.
    try:
        with group.make_context("circuits", list(arguments)) as context:
            group.invoke(context)
    except typer.Exit as wanted:
        return wanted.exit_code
    except Exception as error:
        if not _lists_commands(error):
            raise
        from registry.cli.output import write_text

        write_text(str(error))
    finally:
        sys.stdout.flush()
    return 0


def _lists_commands(error: Exception) -> bool:
    """Whether it is the help of a group that was called without a command."""
    # Compared by name: versions of typer import it from different places, and some do not have it.
    return type(error).__name__ == "NoArgsIsHelpError"


def _print_version(wanted: bool) -> None:
    if wanted:
        from registry import __version__
        from registry.cli.output import write_text

        write_text(f"circuits {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    home: Annotated[str | None, typer.Option("--home", help=_HELP["--home"])] = None,
    ledger: Annotated[str | None, typer.Option("--ledger", help=_HELP["--ledger"])] = None,
    graph: Annotated[str | None, typer.Option("--graph", help=_HELP["--graph"])] = None,
    graph_user: Annotated[
        str | None, typer.Option("--graph-user", help=_HELP["--graph-user"])
    ] = None,
    graph_database: Annotated[
        str | None, typer.Option("--graph-database", help=_HELP["--graph-database"])
    ] = None,
    graph_password_file: Annotated[
        str | None, typer.Option("--graph-password-file", help=_HELP["--graph-password-file"])
    ] = None,
    artifacts: Annotated[str | None, typer.Option("--artifacts", help=_HELP["--artifacts"])] = None,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help=_HELP["--log-level"])
    ] = LogLevel.WARNING,
    log_file: Annotated[Path | None, typer.Option("--log-file", help=_HELP["--log-file"])] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help=_HELP["--version"]),
    ] = False,
) -> None:
    """Keep, query and compare the circuits found in language models."""
    start_logging(log_level, log_file)
    overrides = {
        "ledger": ledger,
        "graph": graph,
        "graph_user": graph_user,
        "graph_database": graph_database,
        "graph_password_file": graph_password_file,
        "artifacts": artifacts,
    }
    for setting in SETTINGS:
        # Everybody on the machine can read a process's arguments.
        if has_password(overrides.get(setting.name) or ""):
            raise BadInput(
                f"{setting.option} contains a password, which others could see in the list of "
                f"processes; set {setting.variable} instead"
            )
    context.obj = Session(home, overrides)
