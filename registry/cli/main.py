"""The command ``circuits``: a root that knows its commands' names and loads only the one invoked.

``circuits --help`` is printed from the tables below, without typer, pydantic, an engine or torch.
Commands of other packages come through the entry-point group ``circuits.commands``: the entry's
name is the command's, its object is called with a :class:`typer.Typer` and registers the command
there (one object may register several, each listed under its own name). Their one-line help is
read from their source, as running it would import whatever they need.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.settings_table import SETTINGS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["COMMANDS", "ROOT_OPTIONS", "Command", "commands", "find_command", "main", "root_help"]

COMMANDS_GROUP = "circuits.commands"


class Command(NamedTuple):
    """A command: its name, the ``module:function`` that registers it, its help in one line."""

    name: str
    target: str
    help: str

    def load(self) -> Callable[[Any], None]:
        """Import the module and return the function that registers the command."""
        from importlib import import_module

        module, _, attribute = self.target.partition(":")
        found: Callable[[Any], None] = getattr(import_module(module), attribute)
        return found


_CIRCUITS = "registry.cli.circuits:commands"
_GRAPH = "registry.cli.graph:commands"
_UPKEEP = "registry.cli.upkeep:commands"
_STORES = "registry.cli.stores:commands"

COMMANDS = (
    Command("init", _STORES, "Make a registry in this folder."),
    Command("status", _STORES, "Say what the registry holds and how its stores are."),
    Command("doctor", "registry.cli.doctor:commands", "Check every part and say what to do."),
    Command("list", _CIRCUITS, "List circuits, by filters and words in titles and notes."),
    Command("show", _CIRCUITS, "Show one circuit with its provenance and measurements."),
    Command("tag", _CIRCUITS, "Add tags to a circuit, or remove them."),
    Command("note", _CIRCUITS, "Add a note to a circuit."),
    Command("retract", _CIRCUITS, "Mark a circuit as no longer held true."),
    Command("query", _GRAPH, "Answer a named query; without a name, list them."),
    Command("cypher", _GRAPH, "Answer a Cypher statement of your own, which can only read."),
    Command("edits", "registry.cli.edits:commands", "Attach knowledge edits, list and show them."),
    Command("sync", _UPKEEP, "Project what is recorded and not yet in the graph."),
    Command("rebuild", _UPKEEP, "Make the graph again from the record."),
    Command("migrate", _STORES, "Bring the record's schema up to date."),
    Command("backup", _UPKEEP, "Write record and artifacts into one file."),
    Command("restore", _UPKEEP, "Fill a new registry from a backup."),
    Command("gc", _UPKEEP, "Delete artifacts that nothing refers to; first only lists them."),
)
"""Our own commands, in the order of the help."""

ROOT_OPTIONS = (
    *((setting.option, setting.metavar, setting.help) for setting in SETTINGS),
    ("--log-level", "LEVEL", "debug, info, warning (default) or error, on standard error."),
    ("--log-file", "FILE", "Append a full log to this file."),
    ("--version", "", "Print the version."),
    ("--help", "", "Print this."),
)
"""Option, placeholder of its value, help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1, 2 for usage, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        for stream in (sys.stdout, sys.stderr):
            # A terminal that lacks a character shows its escape rather than ending the command.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        if given in ([], ["--help"], ["-h"]):
            sys.stdout.write(root_help())
            sys.stdout.flush()
            return 0
        from registry.cli.root import run

        return run(given)
    except BaseException as error:  # noqa: BLE001 - the one place that ends every failure
        from registry.cli.failures import report

        return report(error)


def root_help() -> str:
    """The text of ``circuits --help``."""
    options = [(f"{option} {metavar}".rstrip(), text) for option, metavar, text in ROOT_OPTIONS]
    lines = [
        "Usage: circuits [OPTIONS] COMMAND [ARGS]...",
        "",
        "Keep, query and compare the circuits found in language models.",
        "",
        "Commands:",
        *_columns([(command.name, command.help) for command in commands()]),
        "",
        "Options, before the command:",
        *_columns(options),
        "",
        "'circuits COMMAND --help' says more about one command.",
    ]
    return "\n".join(lines) + "\n"


def commands() -> Iterator[Command]:
    """All commands, ours first, then those of other packages by name."""
    yield from COMMANDS
    known = {command.name for command in COMMANDS}
    for entry in _entry_points():
        if entry.name not in known:
            yield Command(entry.name, entry.value, _help_in_source(entry))


def find_command(name: str) -> Command | None:
    """The command of that name, or None; its help is left out where it is another package's."""
    for command in COMMANDS:
        if command.name == name:
            return command
    for entry in _entry_points():
        if entry.name == name:
            return Command(entry.name, entry.value, "")
    return None


def _entry_points() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group=COMMANDS_GROUP), key=lambda entry: entry.name)


def _help_in_source(entry: EntryPoint) -> str:
    """First line of the docstring of the function named like the command, else of the module."""
    import ast
    from importlib.util import find_spec

    try:
        spec = find_spec(entry.module)
        loader: Any = spec.loader if spec else None
        tree = ast.parse(loader.get_source(entry.module))
    except Exception:  # noqa: BLE001 - a broken package must not take the help away
        return f"(cannot be read: {entry.value})"
    names = {entry.name, entry.name.replace("-", "_")}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    documented = next((node for node in functions if node.name in names), tree)
    return (ast.get_docstring(documented) or "").partition("\n")[0]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows) + 2
    return [f"  {name:<{width}}{text}".rstrip() for name, text in rows]
