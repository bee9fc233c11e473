"""The documentation does not lie: what it says of the code is compared with the code."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.exporters.base import exporters
from ingest.formats.base import Said, formats
from ingest.formats.spelling import SPELLINGS
from registry import Registry, errors
from registry.cli.main import find_command
from registry.cli.root import command_group

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GENERATED = (
    "settings.md", "commands.md", "queries.md", "catalog.md", "formats.md", "models.md",
)  # fmt: skip
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])


def _tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def _generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DOCS / "generate.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- generated pages -------------------------------------------------------------------------------


def test_the_generated_pages_say_what_the_code_says() -> None:
    answer = _generate("--check")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("page", GENERATED)
def test_a_generated_page_that_was_edited_by_hand_is_noticed(page: str, tmp_path: Path) -> None:
    for name in GENERATED:
        shutil.copy(DOCS / name, tmp_path)
    text = (tmp_path / page).read_text(encoding="utf-8")
    table = next(line for line in text.splitlines() if line.startswith("| `"))
    (tmp_path / page).write_text(text.replace(table, table + " or so", 1), encoding="utf-8")
    answer = _generate("--check", "--folder", tmp_path)
    assert answer.returncode == 1
    assert answer.stderr == f"{page} is out of date; run 'make docs'\n"


def test_writing_the_pages_anew_keeps_the_words_around_the_generated_part(tmp_path: Path) -> None:
    for name in GENERATED:
        shutil.copy(DOCS / name, tmp_path)
    page = tmp_path / "settings.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("CIRCUITS_LEDGER", "CIRCUITS_LODGER"), encoding="utf-8")
    assert _generate("--folder", tmp_path).returncode == 0
    assert page.read_text(encoding="utf-8") == text


# -- files of other tools --------------------------------------------------------------------------


def test_the_example_of_a_sidecar_says_what_can_be_said() -> None:
    (example,) = re.findall(
        r"^```yaml\n(.*?)^```", (DOCS / "formats.md").read_text("utf-8"), re.M | re.S
    )
    entries = yaml.safe_load(example)
    assert len(entries) == 3
    for entry in entries:
        said = Said.model_validate({key: value for key, value in entry.items() if key != "files"})
        assert said != Said()


def test_every_format_and_every_spelling_is_on_the_page() -> None:
    page = (DOCS / "formats.md").read_text("utf-8")
    known = [(one.name, one.summary) for one in formats().values()]
    known += [(one.name, one.summary) for one in exporters().values()]
    for name, summary in known:
        assert f"- `{name}`" in page
        assert " ".join(summary.split()) in page
    for spelled in SPELLINGS.values():
        assert [text for text in spelled if f"`{text}`" not in page] == []


# -- what pages refer to ---------------------------------------------------------------------------


def test_every_error_a_user_can_meet_is_explained() -> None:
    headings = re.findall(r"^#+ .*$", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE)
    explained = set(re.findall(r"\w+", " ".join(headings)))
    classes = {name for name, thing in vars(errors).items() if inspect.isclass(thing)}
    assert classes - explained == set()


def _commands_of(page: Path) -> list[str]:
    """Commands in the page's shell blocks, each on one line, those in quotes over several too."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    blocks = [text for language, text in fenced if language in ("", "sh")]
    commands, begun = [], ""
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        begun = f"{begun} {line.strip()}" if begun else line
        if not begun.startswith("circuits "):
            begun = ""
        elif begun.count("'") % 2 == 0 and begun.count('"') % 2 == 0:
            commands.append(" ".join(begun.split()))
            begun = ""
    return commands


DOCUMENTED = [
    pytest.param(line, id=f"{page.name}: {line}")
    for page in PAGES
    if page.name != "extending.md"  # its commands are its own, and run in test_extending.py
    for line in _commands_of(page)
]


@pytest.mark.parametrize("line", DOCUMENTED)
def test_a_documented_command_has_the_name_and_options_it_is_shown_with(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    while words and words[0].startswith("--"):
        words = words[2:]  # the program's own options, each with a value
    name, *rest = words
    command = find_command(name)
    assert command is not None, f"no command {name!r}"
    parser: Any = command_group(command.load()).commands[name]
    while hasattr(parser, "list_commands") and rest:
        parser = parser.get_command(None, rest.pop(0))
    known = {option for p in parser.params for option in (*p.opts, *p.secondary_opts)}
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert given - known - {"--help"} == set()


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.is_file():
            continue
        reached.add(page)
        links = LINK.findall(page.read_text("utf-8"))
        waiting += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert set(PAGES) - reached == set()


# -- changelog -------------------------------------------------------------------------------------


def test_fragments_of_the_changelog_are_one_sentence_under_a_well_formed_name() -> None:
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    for path in fragments:
        assert re.fullmatch(r"\d+(-\d+)?\.(added|changed|fixed)\.md", path.name), path.name
        text = path.read_text(encoding="utf-8")
        assert re.fullmatch(r"[A-Z`].*\.\n", text), f"{path.name} is not one sentence on one line"


# -- what must not be in any file ------------------------------------------------------------------

# Written in two halves so that this file does not hold what it looks for.
FORBIDDEN = {
    "the address of a package index": r"pypi\."
    + r"org|files\.python"
    + r"hosted|--index"
    + r"-url\b",
    "a path of one machine": r"(?<![\w./])/(?:wo" + r"rk|ro" + r"ot|home/\w+|Users/\w+)/",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in _tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


# -- the compose file ------------------------------------------------------------------------------

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("service", ["neo4j", "postgres"])
def test_a_server_listens_on_loopback_only(service: str) -> None:
    ports = SERVICES[service]["ports"]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("service", ["neo4j", "postgres"])
def test_a_server_has_a_health_check_and_keeps_its_data_in_a_named_volume(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    volumes = {volume.partition(":")[0] for volume in SERVICES[service]["volumes"]}
    assert volumes
    assert volumes <= set(COMPOSE["volumes"])


def test_passwords_come_from_the_environment_and_have_no_default() -> None:
    values = {
        name: value
        for service in SERVICES.values()
        for name, value in service["environment"].items()
        if "AUTH" in name or "PASSWORD" in name
    }
    assert set(values) == {"NEO4J_AUTH", "POSTGRES_PASSWORD"}
    for value in values.values():
        assert re.fullmatch(r"(neo4j/)?\$\{CIRCUITS_\w+_PASSWORD:\?[^}]+\}", value), value


def test_the_example_environment_names_every_variable_of_the_compose_file_and_no_password() -> None:
    wanted = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8")))
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    given = dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", "\n".join(lines), re.MULTILINE))
    assert wanted == set(given)
    assert {name: value for name, value in given.items() if "PASSWORD" in name and value} == {}


def test_the_first_snippet_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    snippets = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    code = snippets[0]  # the others go on with circuits of a language model; see test_readme.py
    monkeypatch.chdir(tmp_path)
    with Registry.init() as registry:
        exec(compile(code, "README.md", "exec"), {})
        (entry,) = registry.circuits()
        assert registry.query("where-used", component="gpt2/a9.h9").to_dicts()[0]["effect"] == 1.9
    assert entry.method == "by hand"


@pytest.mark.slow
def test_the_figures_of_the_readme_are_those_of_the_file_they_were_measured_into() -> None:
    script, file = ROOT / "benchmarks" / "faithfulness.py", DOCS / "faithfulness-smollm2-ioi.csv"
    answer = subprocess.run(
        [sys.executable, script, "--show", file], capture_output=True, text=True, check=True
    )
    assert answer.stdout.count("\n") > 2
    assert answer.stdout in (ROOT / "README.md").read_text("utf-8")
