"""The README is followed from top to bottom, on a fresh registry in an empty folder.

Its blocks without a language are commands of a shell, those of Python are run in one namespace,
all in the order in which they stand there. What is done otherwise than it is written is said in
three tables, and nothing else is: :data:`IDS` are ids that stand for the reader's own,
:data:`SMALLER` are commands that take longer than a test may, done with less, and
:data:`ON_A_SMALL_MODEL` those whose circuits no later command asks about. At every change these are
done on a small model in a registry beside; ``make slow`` does them on SmolLM2 as all others.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.few import left_to_make_slow
from tests.models import WORDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")

IDS: Mapping[str, str] = {
    "3f2a": "the first circuit of ioi that a command finds in SmolLM2",
    "81c0": "the same of sequence/numerals",
    "5d1e": "the edit that was attached last",
}
"""Ids that stand for one's own, wherever they stand."""

SMALLER: tuple[tuple[str, str, str], ...] = (
    # Every discovery on fewer prompts, and what is done several times done fewer times.
    (r"circuits discover edge-attribution\b", r"$", " --prompts 4"),
    (r"circuits discover edge-attribution\b.*--seeds", r"--seeds \d+", "--seeds 2"),
    (r"circuits discover edge-attribution\b.*--controls", r"--controls \d+", "--controls 3"),
    (r"circuits verify\b", r"--top \d+", "--top 2"),
    # Two of the six tasks, with one seed in place of three.
    (
        r"circuits discover matrix\b",
        r"--seeds \d+",
        "--seeds 1 --task ioi --task sequence/numerals --prompts 4 --method eap --controls 1",
    ),
    # The benchmark is in a checkout, and takes 40 minutes there.
    (r"python benchmarks/faithfulness\.py\b", r"benchmarks/", f"{ROOT}/benchmarks/"),
    (r"python \S*/faithfulness\.py\b", r"$", " --prompts 2 --methods eap --controlled"),
)
"""A command, what of it is replaced, and by what; all that match are done, one after the other."""

ON_A_SMALL_MODEL = re.compile(
    r"circuits discover (edge-attribution\b.* (--method|--faithfulness|--curve)|matrix\b)"
)
"""Commands that find circuits which nothing after them needs, beside those before them."""

ONLY_ON_SMOLLM2 = re.compile(r"python benchmarks/faithfulness\.py\b")
"""A long experiment, which ``make slow`` does with less."""

NOT_RUN = re.compile(r"make [a-z]+")
"""Targets of the Makefile: they install everything, and are run by continuous integration."""

RUN = re.compile(r"(circuits|mkdir|cat|python) ")

LONGEST_SECONDS = 1_200  # on a machine with much else to do


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, where it begins, and what it holds."""

    language: str
    line: int
    text: str


def blocks() -> Iterator[Block]:
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield Block(found[1], README[: found.start()].count("\n") + 2, found[2])


def commands(block: Block) -> list[str]:
    """The commands of a shell's block, each whole: over quotes, backslashes and here-documents."""
    whole: list[str] = []
    begun = ""
    for line in block.text.splitlines():
        begun = f"{begun}\n{line}" if begun else line
        if is_whole(begun):
            whole.append(begun)
            begun = ""
    assert not begun, f"README.md, line {block.line}: a command without its end: {begun}"
    return [command for command in whole if command.strip()]


def is_whole(text: str) -> bool:
    """Whether a shell would wait for no more lines."""
    marker = re.search(r"<<'(\w+)'", text)
    if marker is not None:
        return text.endswith(f"\n{marker[1]}")
    bare = re.sub(r"#.*", "", text)
    return bare.count("'") % 2 == 0 and bare.count('"') % 2 == 0 and not text.endswith("\\")


def smaller(command: str) -> str:
    """The command with less to do."""
    for pattern, replaced, by in SMALLER:
        if re.match(pattern, command):
            command, n = re.subn(replaced, by.replace("\\", r"\\"), command, count=1)
            assert n == 1, f"nothing to replace in {command}"
    return command


def on_a_small_model(command: str) -> str:
    """The command in a registry of its own below the folder, and for the model of ``words``.

    A hundredth of that model's edges, or two as is usual, is one edge, which is no circuit.
    """
    told = command.replace("--share 1%", "--share 30%").replace("smollm2", str(WORDS))
    if "--share" not in told and "--faithfulness" not in told:
        told += " --edges 40"
    return f"mkdir -p beside && cd beside && {{ [ -d .circuits ] || circuits init; }} && {told}"


SHELL = [block for block in blocks() if block.language == ""]
PYTHON = [block for block in blocks() if block.language == "python"]
ALL_COMMANDS = [command for block in SHELL for command in commands(block)]


# -- what can be told without running it -----------------------------------------------------------


def test_every_block_is_of_a_shell_or_of_python() -> None:
    assert {block.language for block in blocks()} == {"", "python"}
    assert len(SHELL) > 5
    assert len(PYTHON) > 2


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_every_command_is_run_or_is_a_target_of_the_makefile(command: str) -> None:
    if NOT_RUN.fullmatch(command):
        target = command.removeprefix("make ")
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert target in (ROOT / ".ci" / "run").read_text("utf-8")
    else:
        assert RUN.match(command), f"no rule of this test knows what to do with: {command}"


def test_every_rule_and_every_id_is_of_use() -> None:
    for pattern, _, _ in SMALLER:
        used = [one for one in ALL_COMMANDS if re.match(pattern, one) or "\\S*/" in pattern]
        assert used, f"no command is like {pattern}"
    assert len([one for one in ALL_COMMANDS if ON_A_SMALL_MODEL.match(one)]) == 4
    for id in IDS:
        assert re.search(rf"\b{id}\b", README), id


def test_no_id_stands_in_a_block_that_is_not_known_here() -> None:
    found = {id for block in blocks() for id in re.findall(r"\b(?=\w*\d)[0-9a-f]{4}\b", block.text)}
    assert found <= set(IDS)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"line {block.line}")
def test_a_snippet_imports_all_that_it_uses_of_ours(block: Block) -> None:
    """Each stands on its own: what is no name of Python's is imported or made in it."""
    tree = ast.parse(block.text)
    made = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    made |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
             for alias in node.names}  # fmt: skip
    used = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert used <= made


# -- following it ----------------------------------------------------------------------------------


@dataclass
class Tour:
    """Somebody who does what the README says, in a folder of their own."""

    folder: Path
    environment: Mapping[str, str]
    all_on_smollm2: bool
    said: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def type(self, command: str) -> None:
        """Run a command; what it says on standard error is kept by what the README has."""
        asked, folder = self.with_own_ids(smaller(command)), self.folder
        if ON_A_SMALL_MODEL.match(command) and not self.all_on_smollm2:
            asked, folder = on_a_small_model(asked), self.folder / "beside"
        ran = self.shell(asked)
        assert ran.returncode == 0, f"$ {asked}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
        self.said[command] = ran.stderr
        for name in re.findall(r"(?:--out|-o|>) (\S+)", asked):
            assert (folder / name).stat().st_size > 0, f"{asked} did not write {name}"

    def shell(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-euc", text], cwd=self.folder, env=self.environment, capture_output=True,
            text=True, check=False, timeout=LONGEST_SECONDS,
        )  # fmt: skip

    def execute(self, block: Block) -> None:
        """Run a snippet in the namespace of those before."""
        code = compile(self.with_own_ids(block.text), f"README.md, line {block.line}", "exec")
        exec(code, self.namespace)

    def with_own_ids(self, text: str) -> str:
        """The text with one's own ids in the place of those that stand for them."""
        return re.sub(rf"\b({'|'.join(IDS)})\b", lambda found: self.id(found[1]), text)

    def id(self, stands_for: str) -> str:
        if stands_for not in self.ids or stands_for == "5d1e":
            self.ids[stands_for] = self.own_id(stands_for)
        return self.ids[stands_for]

    def own_id(self, stands_for: str) -> str:
        if stands_for == "5d1e":
            return str(self.rows("circuits edits list")[0]["edit"])[:12]
        task = {"3f2a": "ioi", "81c0": "sequence/numerals"}[stands_for]
        rows = self.rows(f"circuits list --model smollm2 --task {task}")
        return str(rows[-1]["circuit"])[:12]  # the newest comes first

    def rows(self, command: str) -> list[dict[str, Any]]:
        answer = self.shell(f"{command} --format json")
        assert answer.returncode == 0, answer.stderr
        rows: list[dict[str, Any]] = json.loads(answer.stdout)
        return rows


@pytest.fixture(
    params=[
        "a small model beside",
        left_to_make_slow(
            "all on SmolLM2", kept="what no later command needs, on a small model; no experiment"
        ),
    ]
)
def tour(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tour:
    """The tool as it is installed beside this interpreter, and none of the user's settings."""
    for name in [name for name in os.environ if name.startswith("CIRCUITS_")]:
        monkeypatch.delenv(name)
    tools = Path(sys.executable).parent
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    assert shutil.which("circuits", path=path) == str(tools / "circuits")
    (tmp_path / "docs").mkdir()  # into which the benchmark writes, from a checkout
    monkeypatch.chdir(tmp_path)
    return Tour(tmp_path, {**os.environ, "PATH": path}, request.param == "all on SmolLM2")


@pytest.mark.seconds
@pytest.mark.model
@pytest.mark.timeout(3 * LONGEST_SECONDS)
def test_the_readme_can_be_followed_from_top_to_bottom(tour: Tour) -> None:
    for block in blocks():
        if block.language == "python":
            tour.execute(block)
            continue
        for command in commands(block):
            left = not tour.all_on_smollm2 and ONLY_ON_SMOLLM2.match(command)
            if not (left or NOT_RUN.fullmatch(command)):
                tour.type(command)
    # The catalogue has circuits of these tasks in GPT-2, too.
    taken = "circuits of smollm2-135m-instruct-q4_1 are used: those of gpt2"
    for name in ("compare --task", "shared", "matrix", "reuse", "stability", "report"):
        (said,) = (text for command, text in tour.said.items()
                   if command.startswith(f"circuits {name}"))  # fmt: skip
        assert taken in said, f"{name} said {said!r}"
    (said,) = (text for command, text in tour.said.items()
               if command.startswith("circuits query shared-components"))  # fmt: skip
    assert "rows of 2 models, each counted separately: gpt2, smollm2" in said
