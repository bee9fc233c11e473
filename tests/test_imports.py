"""What starts quickly, and what is not imported on the way; looked at in fresh processes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
from typer.main import get_group

from registry import Registry
from registry.cli.commands import COMMANDS, ROOT_OPTIONS, Command, commands, root_help
from tests import examples

ENGINES = {"kglite", "neo4j"}
TORCH = {"torch", "transformers", "transformer_lens"}
LARGE = {"pandas", "sqlalchemy", "alembic", "pydantic", "networkx", "matplotlib", "numpy"}
IMPORTED = "import sys, json; {}; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
HELP = "from registry.cli.main import main; main(['--help'])"
RUN_ALL = """
import json, sys
from registry.cli.main import main
lines, unwanted = json.loads(sys.argv[1])
found = {}
for line in lines:
    assert main(line) == 0, line
    if new := set(unwanted) & set(sys.modules):
        found[" ".join(line)] = sorted(new)
        unwanted = sorted(set(unwanted) - new)
print(json.dumps(found), file=sys.stderr)
"""
HELLO = '''
"""Commands of another package."""
import typer

def commands(app):
    app.command("hello")(hello)

def hello(name: str):
    """Greet somebody.

    More.
    """
    typer.echo(f"hello {name}")
'''
TIMES_A_BARE_START = 10


def modules_after(statement: str, folder: Path | None = None) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(statement)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    with Registry.init(folder / ".circuits") as registry:
        registry.record(examples.GPT2, *examples.TASKS)
        registry.record(examples.circuit(1), examples.circuit(3, task="sequence/numerals"))
        edit, outcome = examples.edit(examples.circuit(1))
        registry.attach_edit(edit, [outcome])
    return folder


@pytest.mark.parametrize("statement", ["import registry", "import queries", "import ingest", HELP])
def test_a_package_and_the_help_import_nothing_large(statement: str) -> None:
    assert modules_after(statement) & (ENGINES | TORCH | LARGE) == set()


def test_the_help_does_without_what_parses_command_lines() -> None:
    assert modules_after(HELP) & {"typer", "click", "rich", "yaml"} == set()


def test_the_facade_imports_neither_torch_nor_an_engine() -> None:
    assert modules_after("from registry import Registry") & (ENGINES | TORCH | {"pandas"}) == set()


def test_the_help_of_a_command_imports_neither_torch_nor_an_engine() -> None:
    lines = [[command.name, "--help"] for command in commands()]
    assert offenders(lines, ENGINES | TORCH | {"pandas", "sqlalchemy"}) == {}


A, B = examples.circuit(1).id, examples.circuit(3, task="sequence/numerals").id
READING = f"""
status
doctor
measures
list
show {A}
query
query circuits-of-task task=ioi
query nearest-circuits circuit={A}
query shared-components tasks=ioi,sequence/numerals
query shared-connections tasks=ioi,sequence/numerals
query where-used component=gpt2/m0
query edits-touching circuit={A}
cypher 'MATCH (c:Circuit) RETURN c.id AS id'
shared --task ioi --task sequence/numerals
compare {A} {B}
edits list
runs
prompts
sync
gc
"""


def test_asking_needs_no_torch_and_keeps_the_embedded_engine_out_of_this_process(
    project: Path,
) -> None:
    lines = [shlex.split(line) for line in READING.strip().splitlines()]
    assert offenders(lines, ENGINES | TORCH | {"pandas"}, project) == {}


def offenders(
    lines: list[list[str]], unwanted: set[str], folder: Path | None = None
) -> dict[str, list[str]]:
    """Run commands one after the other in one fresh process; which first imported what unwanted."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps([lines, sorted(unwanted)])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stderr.splitlines()[-1])
    return found


def test_the_help_answers_within_ten_times_a_bare_start() -> None:
    """Best of several, taken in turns: another process's load hits both."""
    bare, helping = [], []
    for _ in range(3):
        for _ in range(6):
            bare.append(seconds([sys.executable, "-c", "pass"]))
            helping.append(seconds([sys.executable, "-c", HELP]))
        if min(helping) < TIMES_A_BARE_START * min(bare):
            return
    pytest.fail(f"circuits --help takes {min(helping):.3f} s, bare Python {min(bare):.3f} s")


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


# -- what the help knows without importing ---------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_the_root_is_the_first_line_of_the_command(command: Command) -> None:
    from registry.cli.root import command_group

    built = command_group(command.load()).commands[command.name]
    assert (built.help or "").partition("\n")[0] == command.help


def test_commands_of_other_packages_are_listed_with_the_first_line_of_their_docstrings() -> None:
    from registry.cli.root import command_group

    others = [command for command in commands() if command not in COMMANDS]
    assert {"discover", "shared", "compare"} <= {command.name for command in others}
    for command in others:
        built = command_group(command.load()).commands[command.name]
        assert command.help
        assert (built.help or "").partition("\n")[0] == command.help
        assert command.help in root_help()


def test_commands_of_other_packages_are_those_that_their_metadata_names() -> None:
    named = {(entry.name, entry.value) for entry in entry_points(group="circuits.commands")}
    ours = set(COMMANDS)
    assert {(c.name, c.target) for c in commands() if c not in ours} == named


def test_a_package_that_cannot_be_imported_leaves_the_help_and_other_commands_alone(
    tmp_path: Path,
) -> None:
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[console_scripts]\nx = y:z\n\n[circuits.commands]\n"
        "broken = broken_commands:commands [extra]\nhello = hello_commands:commands\n"
    )
    (tmp_path / "hello_commands.py").write_text(HELLO)

    def circuits(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "registry", *arguments],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    shown = circuits("--help")
    assert shown.returncode == 0
    assert "  broken     (cannot be read: broken_commands:commands)\n" in shown.stdout
    assert "  hello      Greet somebody.\n" in shown.stdout
    assert circuits("hello", "Ada").stdout == "hello Ada\n"
    failed = circuits("broken")
    assert failed.returncode == 1
    assert failed.stderr == (
        "error: the command 'broken' of the package 'broken' cannot be used: ModuleNotFoundError:"
        " No module named 'broken_commands'; repair or uninstall that package\n"
    )


def test_the_root_takes_the_options_its_help_lists() -> None:
    from registry.cli import root

    app = typer.Typer(cls=root.LazyGroup, add_completion=False)
    app.callback()(root._root)
    taken = {name for option in get_group(app).params for name in option.opts}
    assert taken | {"--help"} == {option for option, _, _ in ROOT_OPTIONS}


def test_python_m_registry_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "registry", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("circuits ")
