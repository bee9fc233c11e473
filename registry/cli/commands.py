"""The commands of ``circuits``: the name, one line of help and import path of each.

The help is printed from the tables below, without typer, pydantic, an engine or torch. Commands of
other packages come through the entry-point group ``circuits.commands``. The name of an entry is the
name of the command. Its object is called with a :class:`typer.Typer` and registers the command
there (one object may register several commands, each listed under its own name). Their one-line
help is read from their source, because running it would import everything that they need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from registry.settings.table import SETTINGS

__all__ = [
    "COMMANDS",
    "COMMANDS_GROUP",
    "ROOT_OPTIONS",
    "Command",
    "commands",
    "find_command",
    "root_help",
]

COMMANDS_GROUP = "circuits.commands"


class Command(NamedTuple):
    """A command: its name, the ``module:function`` that registers it, its help in one line."""

    name: str
    target: str
    help: str

    def load(self) -> Callable[[Any], None]:
        """Import the module and return the function that registers the command.

        Raises:
            PluginBroken: The package that provides the command is broken.
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
    Command("status", _STORES, "Show what the registry holds and the state of its stores."),
    Command("doctor", "registry.cli.doctor:commands", "Check every part and suggest remedies."),
    Command("list", _CIRCUITS, "List circuits, by filters and words in titles and notes."),
    Command(
        "show", _CIRCUITS, "Show one circuit with its provenance, attached files and measurements."
    ),
    Command("tag", _CIRCUITS, "Add tags to a circuit, or remove them."),
    Command("note", _CIRCUITS, "Add a note to a circuit."),
    Command(
        "attach",
        "registry.cli.attach:commands",
        "Attach a file to a circuit, run, edit or prompt set, or list attached files.",
    ),
    Command(
        "annotate", "registry.cli.annotations:commands", "State what a component of a circuit does."
    ),
    Command("retract", _CIRCUITS, "Mark a circuit as no longer valid."),
    Command("runs", "registry.cli.runs:commands", "List runs of jobs; show one, or follow it."),
    Command(
        "prompts", "registry.cli.prompts:commands", "List prompt sets; show one with its prompts."
    ),
    Command("query", _GRAPH, "Answer a named query; without a name, list the queries."),
    Command("cypher", _GRAPH, "Answer your own Cypher statement, which can only read."),
    Command("edits", "registry.cli.edits:commands", "Attach knowledge edits, list and show them."),
    Command(
        "measures",
        "registry.cli.measures:commands",
        "List measures and metrics with unit, direction and range.",
    ),
    Command("sync", _UPKEEP, "Bring the graph up to date with the record."),
    Command("rebuild", _UPKEEP, "Rebuild the graph from the record."),
    Command("trust", "registry.cli.trust:commands", "Accept the places of a registry's stores."),
    Command("migrate", _STORES, "Bring the record's schema up to date."),
    Command("backup", _UPKEEP, "Write record and artifacts into one file."),
    Command("mend", _UPKEEP, "Replace damaged or missing artifacts from files that contain them."),
    Command("restore", _UPKEEP, "Fill a new registry from a backup."),
    Command("gc", _UPKEEP, "Delete artifacts that nothing refers to; lists them by default."),
)
"""Our own commands, in the order of the help."""

ROOT_OPTIONS = (
    *((setting.option, setting.metavar, setting.help) for setting in SETTINGS),
    ("--log-level", "LEVEL", "debug, info, warning (default) or error, on standard error."),
    ("--log-file", "FILE", "Append a full log to this file."),
    ("--version", "", "Print the version."),
    ("--help", "", "Print this help."),
)
"""Option, placeholder of its value, help."""


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
        "'circuits COMMAND --help' describes one command.",
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
    """The command of that name, or None; without its help if it is from another package."""
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
    """Entries of our group in the installed packages, by name; ours, or the first, wins.

    Reads the ``entry_points.txt`` files itself: importing and calling ``importlib.metadata`` takes
    longer than all other work of the help.
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
    except OSError:  # a zip, or a folder that does not exist
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
            yield _Entry(name, value.partition(" ")[0])  # without extras, which only pip needs


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
    except BaseException:  # noqa: BLE001 - the help must appear even if a package is broken
        return f"(cannot be read: {entry.value})"
    names = {entry.name, entry.name.replace("-", "_")}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    documented = next((node for node in functions if node.name in names), tree)
    # Cleaning the docstring would import inspect.
    return (ast.get_docstring(documented, clean=False) or "").strip().partition("\n")[0]


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows) + 2
    return [f"  {name:<{width}}{text}".rstrip() for name, text in rows]
