"""Packages that add to every group of entry points, each broken in another way.

They are real ones: folders with metadata on Python's path, met by a process of the command line.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import Registry
from registry.errors import PluginBroken
from registry.measures import MEASURES
from registry.plugin_checks import check_plugins
from registry.plugins import GROUPS, Plugin, plugins
from tests import examples

Circuits = Callable[..., subprocess.CompletedProcess[str]]

MODULES = {
    "absent": "import nothing_of_that_name\n",
    "raising": "raise RuntimeError('out of\\norder')\n",
    "exiting": "import sys\nsys.exit(3)\n",
    "unwritten": "def (:\n",
    "mistyped": "THING = 5\n",
    "empty": "",
}
REASONS = {
    "absent": "ModuleNotFoundError: No module named 'nothing_of_that_name'",
    "raising": "RuntimeError: out of order",
    "exiting": "SystemExit: 3",
    "unwritten": "SyntaxError: ",
    "mistyped": "TypeError: it is not a",
    "empty": "AttributeError: module 'unsound_empty' has no attribute 'THING'",
}
SOUND = """
from ingest.formats.base import Imported
from ingest.formats.tables.table import EdgeTable

class Sound(EdgeTable):
    name, summary = "sound", "tables of a package that works"
    def sniff(self, path, head):
        return float(path.suffix == ".sound")

class Asked(Sound):
    name = "asked"
    def sniff(self, path, head):
        raise LookupError("who knows")

class Unsure(Sound):
    name = "unsure"
    def sniff(self, path, head):
        return "very"

class Falling(Sound):
    name = "falling"
    def sniff(self, path, head):
        return float(path.suffix == ".falling")
    def read(self, path, context):
        raise ZeroDivisionError("fell")

class Silent(Falling):
    name = "silent"
    def sniff(self, path, head):
        return float(path.suffix == ".silent")
    def read(self, path, context):
        return None

class Leaving(Falling):
    name = "leaving"
    def read(self, path, context):
        raise SystemExit

class Writer:
    name, summary, suffix = "failing", "nothing", ".txt"
    def write(self, circuit, context):
        raise ZeroDivisionError("fell")

SOUND, ASKED, UNSURE, FALLING = Sound(), Asked(), Unsure(), Falling()
SILENT, LEAVING, WRITER = Silent(), Leaving(), Writer()
"""
PER_GROUP = [group for group in GROUPS if group != "circuits.queries"]


def _install(folder: Path, package: str, entries: dict[str, dict[str, str]]) -> None:
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = []
    for group, named in entries.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in named.items())]
    (metadata / "entry_points.txt").write_text("\n".join([*lines, ""]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages, one for each way of being broken, and one that works."""
    folder = tmp_path_factory.mktemp("site")
    for name, source in MODULES.items():
        (folder / f"unsound_{name}.py").write_text(source)
        entries = {group: {name: f"unsound_{name}:THING"} for group in PER_GROUP}
        _install(folder, f"package-{name}", entries)
    (folder / "sound.py").write_text(SOUND)
    formats = {name: f"sound:{name.upper()}" for name in ("sound", "falling", "silent", "leaving")}
    _install(folder, "works", {"circuits.formats": formats})
    asked = {name: f"sound:{name.upper()}" for name in ("asked", "unsure")}
    _install(folder, "unasked", {"circuits.formats": asked})
    _install(folder, "failing", {"circuits.exporters": {"failing": "sound:WRITER"}})
    taken = {
        "circuits.formats": {"table": "sound:SOUND"},
        "circuits.exporters": {"graphml": "sound:WRITER"},
        "circuits.jobs": {"matrix": "sound:WRITER"},
        "circuits.commands": {"import": "sound:Sound"},
    }
    _install(folder, "taking", taken)
    (folder / "asking").mkdir()
    (folder / "asking" / "__init__.py").write_text("")
    (folder / "asking" / "heads_of_layer.cypher").write_text("// another-name\nRETURN 1\n")
    (folder / "repeating").mkdir()
    (folder / "repeating" / "__init__.py").write_text("")
    query = Path(__file__).parent.parent / "queries" / "shared_components.cypher"
    (folder / "repeating" / query.name).write_text(query.read_text())
    for name in ("asking", "repeating", "not_there"):
        _install(folder, f"query-{name}", {"circuits.queries": {name: name}})
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("registry") / ".circuits"
    with Registry.init(home) as registry:
        registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1))
    return home


@pytest.fixture
def circuits(site: Path, home: Path, tmp_path: Path) -> Circuits:
    """The command line in an empty folder, with these packages installed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CIRCUITS_")}
    root = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join([str(site), root])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "registry", "--home", str(home), *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def _left_out(stderr: str) -> list[str]:
    """Packages that are named as left out, in order of the warnings."""
    warnings = [line for line in stderr.splitlines() if "skipped: " in line]
    return [line.partition("of the package '")[2].partition("'")[0] for line in warnings]


SAID = ("--model", "gpt2", "--task", "ioi", "--format", "json")
BROKEN = [f"package-{name}" for name in MODULES]


def test_files_of_other_formats_are_imported_and_each_broken_format_is_named_once(
    circuits: Circuits, tmp_path: Path
) -> None:
    (tmp_path / "one.csv").write_text("source,target\nm0,m1\n")
    (tmp_path / "two.csv").write_text("source,target\nm1,m2\n")
    (tmp_path / "three.sound").write_text("source,target\nm2,m3\n")
    answer = circuits("import", ".", *SAID)
    assert answer.returncode == 0, answer.stderr
    rows = {row["file"]: row["format"] for row in json.loads(answer.stdout)}
    assert rows == {"one.csv": "table", "two.csv": "table", "three.sound": "sound"}
    assert sorted(_left_out(answer.stderr)) == sorted([*BROKEN, "taking", "unasked", "unasked"])
    for name, reason in REASONS.items():
        what = f"skipped: the format {name!r} of the package 'package-{name}'"
        assert f"{what} cannot be used: {reason}" in answer.stderr
    assert "LookupError: who knows" in answer.stderr
    assert "sniff returns 'very'" in answer.stderr or "not supported between" in answer.stderr


def test_a_format_that_fails_while_it_reads_is_named_and_other_files_are_imported(
    circuits: Circuits, tmp_path: Path
) -> None:
    for name in ("a.falling", "b.silent", "c.sound"):
        (tmp_path / name).write_text("source,target\nm4,m5\n")
    answer = circuits("import", ".", *SAID)
    assert answer.returncode == 1
    rows = {row["file"]: row for row in json.loads(answer.stdout)}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "a.falling": "refused", "b.silent": "refused", "c.sound": "stored",
    }  # fmt: skip
    said = "the format 'falling' of the package 'works' cannot be used: ZeroDivisionError: fell"
    assert rows["a.falling"]["notes"][0].startswith(said)
    assert "TypeError: read returns NoneType instead of Imported" in rows["b.silent"]["notes"][0]
    left = circuits("import", "a.falling", "--as", "leaving", *SAID)
    assert (left.returncode, json.loads(left.stdout)[0]["outcome"]) == (1, "refused")


@pytest.mark.parametrize(
    ("command", "shown", "left_out"),
    [
        (("import", "--formats"), "eap-ig-json", [*BROKEN, "taking"]),
        (("export", "--formats"), "neuronpedia", [*BROKEN, "taking"]),
        (("tasks",), "sequence/numerals", BROKEN),
        (("discover", "--help"), "edge-attribution", [*BROKEN]),
        (("query",), "shared-components", ["query-asking", "query-not_there", "query-repeating"]),
        (("list",), "gpt2", []),
        (("--help",), "import", []),
    ],
)
def test_commands_go_on_without_what_is_broken(
    circuits: Circuits, command: tuple[str, ...], shown: str, left_out: list[str]
) -> None:
    answer = circuits(*command)
    assert answer.returncode == 0, answer.stderr
    assert shown in answer.stdout
    assert sorted(_left_out(answer.stderr)) == sorted(left_out)


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("format", ("import", "x.csv", "--as", "{}")),
        ("exporter", ("export", "--all", "--to", "{}")),
        ("job", ("discover", "{}", "--model", "gpt2")),
        ("task", ("discover", "edge-attribution", "--model", "gpt2", "--task", "{}")),
        ("command", ("{}",)),
    ],
)
@pytest.mark.parametrize("name", ["raising", "exiting", "mistyped"])
def test_who_asks_for_a_broken_one_by_name_is_told_why(
    circuits: Circuits, tmp_path: Path, kind: str, command: tuple[str, ...], name: str
) -> None:
    (tmp_path / "x.csv").write_text("source,target\nm0,m1\n")
    answer = circuits(*(part.format(name) for part in command))
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    begins = f"error: the {kind} {name!r} of the package 'package-{name}' cannot be used: "
    assert last.startswith(begins + REASONS[name])
    assert last.endswith("; repair or uninstall that package")


def test_an_exporter_that_fails_is_named(circuits: Circuits) -> None:
    answer = circuits("export", examples.circuit(1).id, "--to", "failing", "-o", "-")
    assert answer.returncode == 1
    said = (
        "error: the exporter 'failing' of the package 'failing' cannot be used: ZeroDivisionError"
    )
    assert said in answer.stderr


def test_a_name_that_is_ours_stays_ours(circuits: Circuits, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("source,target\nm6,m7\n")
    answer = circuits("import", "one.csv", "--as", "table", *SAID)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)[0]["format"] == "table"
    written = circuits("export", examples.circuit(1).id, "--to", "graphml", "-o", "-")
    assert "<graphml" in written.stdout


def test_the_doctor_shows_each_and_does_not_import_torch(
    circuits: Circuits, home: Path, site: Path
) -> None:
    answer = circuits("doctor", "--format", "json")
    rows = [row for row in json.loads(answer.stdout) if row["part"] == "plug-ins"]
    assert {row["state"] for row in rows} == {"warn"}
    found = "\n".join(row["finding"] for row in rows)
    for name, reason in REASONS.items():
        for group in PER_GROUP:
            what = f"the {GROUPS[group].name} {name!r} of the package 'package-{name}'"
            assert f"{what} cannot be used: {reason}" in found
    assert "TypeError: it is not an exporter but" in found
    for what in (
        "the format 'asked' of the package 'unasked' cannot be used: LookupError: who knows",
        "the format 'unsure' of the package 'unasked'",
        "'table' of the package 'taking' cannot be used: 'circuit-registry' has a format of that",
        "'graphml' of the package 'taking' cannot be used: 'circuit-registry' has an exporter of",
        "the command 'import' of the package 'taking'",
        "the query folder 'repeating' of the package 'query-repeating' cannot be used: BadInput",
        "the query folder 'asking' of the package 'query-asking' cannot be used: BadInput",
        "the query folder 'not_there' of the package 'query-not_there'",
    ):
        assert what in found
    assert "'sound'" not in found
    code = (
        "import sys; from registry.plugin_checks import check_plugins\n"
        "n, faults = check_plugins()\n"
        "assert n > 30 and faults\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), root])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


_CLAIMING = """
from dataclasses import replace

from ingest.tasks.ioi import IOI
from registry.measures import MEASURES

OUR_TASK, OUR_MEASURE = IOI, MEASURES[:1]
NEW_TASK, NEW_MEASURE = replace(IOI, slug="own/task"), replace(MEASURES[0], name="own")
"""


def test_the_doctor_finds_measures_and_tasks_whose_names_are_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "claiming.py").write_text(_CLAIMING)
    for name, whose in (("taking", "OUR"), ("first", "NEW"), ("second", "NEW")):
        kinds = ("task", "measure")
        entries = {
            f"circuits.{kind}s": {name: f"claiming:{whose}_{kind.upper()}"} for kind in kinds
        }
        _install(tmp_path, name, entries)
    monkeypatch.syspath_prepend(str(tmp_path))
    n_others, faults = check_plugins()
    assert n_others == 6
    assert [fault.args for fault in faults] == [
        ("measure", "second", "second", "there is another measure 'own'"),
        ("measure", "taking", "taking", f"there is another measure {MEASURES[0].name!r}"),
        ("task", "second", "second", "there is another task 'own/task'"),
        ("task", "taking", "taking", "there is another task 'ioi'"),
    ]


def test_a_package_whose_metadata_is_damaged_is_named_and_the_others_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other libraries read these files too and stop at such a one; ours does not.
    for name, content in (("odd", b"[circuits.formats]\nodd\xff\n"), ("short", b"[a]\nb\n")):
        _install(tmp_path, name, {})
        (tmp_path / f"{name}-1.0.dist-info" / "entry_points.txt").write_bytes(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    _, faults = check_plugins()
    assert {fault.args[:3] for fault in faults} == {
        ("file", "entry_points.txt", "odd"), ("file", "entry_points.txt", "short"),
    }  # fmt: skip
    assert "table" in {plugin.name for plugin in plugins("circuits.formats")}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ingest.exporters.base", "ingest.formats.exporting"),
        ("ingest.discovery.edge_space", "registry.models.edge_space"),
        ("registry.score_files", "registry.files.score_files"),
        ("registry.settings_table", "registry.settings.table"),
    ],
)
def test_who_imports_a_module_by_the_name_it_once_had_is_told_the_new_one(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "old_" + old.replace(".", "_")
    (tmp_path / f"{name}.py").write_text(f"import {old}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = Plugin("circuits.exporters", "old", f"{name}:THING", "old-package")
    with pytest.raises(PluginBroken, match=rf"is now {new}\)"):
        plugin.load()
    importlib.import_module(new)
