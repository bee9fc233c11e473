"""The command ``circuits``: a root that knows its commands' names and loads only the one invoked.

``circuits --help`` is printed from the tables below, without typer, pydantic, an engine or torch.
Commands of other packages come through the entry-point group ``circuits.commands``: the entry's
name is the command's, its object is called with a :class:`typer.Typer` and registers the command
there (one object may register several, each listed under its own name). Their one-line help is
read from their source, as running it would import whatever they need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from registry.settings_table import SETTINGS

__all__ = ["COMMANDS", "ROOT_OPTIONS", "Command", "commands", "find_command", "main", "root_help"]

COMMANDS_GROUP = "circuits.commands"


class Command(NamedTuple):
    """A command: its name, the ``module:function`` that registers it, its help in one line."""

    name: str
    target: str
    help: str

    def load(self) -> Callable[[Any], None]:
        """Import the module and return the function that registers the command.

        Raises:
            PluginBroken: The package the command comes from is broken.
        """
        if self in COMMANDS:
            from importlib import import_module

            module, _, attribute = self.target.partition(":")
            ours: Callable[[Any], None] = getattr(import_module(module), attribute)
            return ours
        from registry import plugins

        found: Callable[[Any], None] = plugins.find(COMMANDS_GROUP, self.name)
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
    Command("sync", _UPKEEP, "Bring the graph up to date with the record."),
    Command("rebuild", _UPKEEP, "Make the graph again from the record."),
    Command("trust", "registry.cli.trust:commands", "Accept where a registry's stores are."),
    Command("migrate", _STORES, "Bring the record's schema up to date."),
    Command("backup", _UPKEEP, "Write record and artifacts into one file."),
    Command("mend", _UPKEEP, "Put back damaged or missing artifacts from files that hold them."),
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


class _Entry(NamedTuple):
    """An entry point: its name and its ``module:function``."""

    name: str
    value: str

    @property
    def is_ours(self) -> bool:
        return self.value.partition(":")[0].partition(".")[0] in ("registry", "ingest", "queries")


def _entry_points() -> list[_Entry]:
    """Entries of our group in the installed packages, by name; of two, ours or the first counts.

    Reads their ``entry_points.txt`` itself: ``importlib.metadata`` takes longer to import and to
    answer than everything else the help does.
    """
    found: dict[str, _Entry] = {}
    for folder in sys.path:
        for text in _entry_point_files(folder or os.curdir):
            for entry in _entries(text):
                if entry.name not in found or (entry.is_ours and not found[entry.name].is_ours):
                    found[entry.name] = entry
    return sorted(found.values())


def _entry_point_files(folder: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # a zip, or a folder that is not there
        return
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                    yield file.read()
            except (OSError, UnicodeDecodeError):
                continue


def _entries(text: str) -> Iterator[_Entry]:
    section = ""
    for line in text.splitlines() if f"[{COMMANDS_GROUP}]" in text else ():
        name, equals, value = (part.strip() for part in line.partition("="))
        if name.startswith("["):
            section = name
        elif section == f"[{COMMANDS_GROUP}]" and equals:
            yield _Entry(name, value.partition(" ")[0])  # without extras, which pip is to mind


def _help_in_source(entry: _Entry) -> str:
    """First line of the docstring of the function named like the command, else of the module."""
    import ast
    from importlib.util import find_spec

    module = entry.value.partition(":")[0]
    try:
        spec = find_spec(module)
        loader: Any = spec.loader if spec else None
        tree = ast.parse(loader.get_source(module))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a broken package must not take the help away
        return f"(cannot be read: {entry.value})"
    names = {entry.name, entry.name.replace("-", "_")}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    documented = next((node for node in functions if node.name in names), tree)
    # Cleaning the docstring would import inspect.
    return (ast.get_docstring(documented, clean=False) or "").strip().partition("\n")[0]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows) + 2
    return [f"  {name:<{width}}{text}".rstrip() for name, text in rows]
