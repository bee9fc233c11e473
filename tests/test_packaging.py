"""The wheel, installed where there is no checkout, with the plain dependencies and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

pytestmark = pytest.mark.seconds

Run = Callable[..., subprocess.CompletedProcess[str]]


def _names_with_dependencies(requirements: list[str]) -> set[str]:
    """Installed distributions that the requirements lead to, themselves included."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        new = {(name, extra) for extra in ("", *requirement.extras)} - found
        found |= new
        for text in distribution(name).requires or () if new else ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for _, extra in new):
                waiting.append(needed)
    return {name for name, _ in found}


def _top_level_entries(name: str) -> Iterator[Path]:
    """What a distribution put directly into site-packages: packages, modules, its metadata."""
    installed = distribution(name)
    for first in {file.parts[0] for file in installed.files or ()} - {".."}:
        yield Path(str(installed.locate_file(first)))


def _link_plain_dependencies(site_packages: Path) -> None:
    """Give an environment what ``pip install .`` would, without a network: by links."""
    for name in _names_with_dependencies(PROJECT["project"]["dependencies"]):
        for entry in _top_level_entries(name):
            link = site_packages / entry.name
            if entry.exists() and not link.exists() and entry.name != "__pycache__":
                link.symlink_to(entry, target_is_directory=entry.is_dir())


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # By way of the sdist, as a release is: what the sdist lacks, the wheel lacks too.
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program of an environment that holds the wheel, in a folder far from the checkout."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    (site_packages,) = home.glob("lib/python*/site-packages")
    _link_plain_dependencies(site_packages)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    options = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(wheel)], check=True)
    work = tmp_path_factory.mktemp("elsewhere")

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run(home / "bin" / program, *arguments, cwd=work)

    return run


def test_every_data_file_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    queries = {f"queries/{path.name}" for path in (ROOT / "queries").glob("*.cypher")}
    migrations = {
        f"registry/{path.relative_to(ROOT).as_posix()}"
        for pattern in ("graph/*.cypher", "ledger/env.py", "ledger/versions/*.py")
        for path in (ROOT / "migrations").glob(pattern)
    }
    catalog = {f"ingest/catalog/{path.name}" for path in (ROOT / "ingest/catalog").glob("*.yaml")}
    templates = "queries/report/templates"
    pages = {f"{templates}/{path.name}" for path in (ROOT / templates).iterdir()}
    typed = {f"{package}/py.typed" for package in ("registry", "ingest", "queries")}
    assert len(queries) > 5
    assert len(migrations) > 2
    assert len(catalog) > 10
    assert len(pages) > 2
    assert (
        queries | migrations | catalog | pages | typed | {"registry/models/known_models.csv"}
        <= held
    )


def test_the_wheel_holds_our_three_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    metadata = {top for top in tops if top.endswith(".dist-info")}
    assert tops - metadata == {"registry", "ingest", "queries"}


def test_the_wheel_carries_licence_and_readme(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = (n for n in archive.namelist() if n.endswith("licenses/LICENSE"))
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() in text


def test_an_installed_wheel_is_not_the_checkout_and_has_no_torch(installed: Run) -> None:
    code = (
        "import registry, queries, ingest, importlib.util as u;"
        "print(registry.__file__, queries.__file__, ingest.__file__, registry.__version__);"
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'psycopg')"
        " if u.find_spec(name)])"
    )
    answer = installed("python", "-c", code)
    assert answer.returncode == 0, answer.stderr
    assert str(ROOT) not in answer.stdout
    assert PROJECT["project"]["version"] in answer.stdout
    assert answer.stdout.splitlines()[-1] == "[]"


def test_an_installed_wheel_creates_a_registry_and_finds_its_files(installed: Run) -> None:
    for command in (
        ["init"],
        ["query"],
        ["query", "shared-components", "--about"],
        ["status"],
        ["migrate", "--check"],
        ["cypher", "MATCH (r:Registry) RETURN count(r) AS registries"],
    ):
        answer = installed("circuits", *command)
        assert answer.returncode == 0, f"{command}: {answer.stdout}{answer.stderr}"


def test_a_command_that_needs_an_extra_names_it(installed: Run) -> None:
    installed("circuits", "init")
    answer = installed(
        "circuits", "discover", "edge-attribution", "--model", "gpt2", "--task", "ioi"
    )
    assert answer.returncode == 1
    assert "circuit-registry[discover]" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_build_backend_is_the_pinned_one() -> None:
    (backend,) = PROJECT["build-system"]["requires"]
    assert backend in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_every_dependency_of_every_extra_is_pinned_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!+-]+", pin) for pin in pins), pins
    pinned = {canonicalize_name(pin.split("==")[0]) for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"].values()
    optional = [text for extra in extras for text in extra]
    assert _names_with_dependencies(PROJECT["project"]["dependencies"] + optional) <= pinned


def test_an_installed_wheel_knows_name_movers_as_soon_as_the_catalogue_is_loaded(
    installed: Run,
) -> None:
    query = ["query", "components-by-role", "role=name mover", "model=gpt2", "--format", "json"]
    for command in (["init"], ["catalog", "load"], query):
        answer = installed("circuits", "--home", "published", *command)
        assert answer.returncode == 0, answer.stderr
    heads = [row["component"] for row in json.loads(answer.stdout)]
    assert heads == ["gpt2/a9.h6", "gpt2/a9.h9", "gpt2/a10.h0"]


RECORD_BY_HAND = """
from registry import Registry
from registry.records import Circuit, Node
with Registry.open() as registry:
    registry.record(
        Circuit(model="gpt2", task="ioi", method="by hand", level="node",
                nodes=(Node(component="a9.h9", role="name mover"),))
    )
"""


def test_an_installed_wheel_answers_a_named_query(installed: Run) -> None:
    assert installed("circuits", "init").returncode == 0
    recorded = installed("python", "-c", RECORD_BY_HAND)
    assert recorded.returncode == 0, recorded.stderr
    answer = installed(
        "circuits", "query", "where-used", "component=gpt2/a9.h9", "--format", "json"
    )
    assert answer.returncode == 0, answer.stderr
    (row,) = json.loads(answer.stdout)
    assert (row["task"], row["role"]) == ("ioi", "name mover")
