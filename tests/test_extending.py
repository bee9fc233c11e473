"""The package of docs/extending.md, written out, installed, and run part by part."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from registry import Registry
from tests import examples
from tests.environment import without_settings
from tests.ingest.jobs.tiny_words import save_tiny_model

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Circuits = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.seconds


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Python's path that holds the package of the page."""
    source = tmp_path_factory.mktemp("circuit-extras")
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    target = tmp_path_factory.mktemp("site-packages")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *options, "--target", target, source], check=True)
    return target


@pytest.fixture
def circuits(installed: Path, tmp_path: Path) -> Circuits:
    """The command line, in a folder with a registry of one model and one circuit."""
    with Registry.init(tmp_path / ".circuits") as registry:
        registry.record(examples.GPT2, *examples.TASKS, examples.circuit(1))
    environment = without_settings(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(installed), str(PAGE.parent.parent)])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("circuits"), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_page_shows_every_file_of_the_package() -> None:
    listed = re.search(r"^circuit-extras/\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert listed
    names = re.findall(r"[\w]+\.\w+(?= |$)", listed[1], re.MULTILINE)
    shown = [Path(name).name for name, _ in FILE.findall(PAGE.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(names)
    assert len(shown) == 8


def test_a_query_of_another_package_is_listed_and_answered(circuits: Circuits) -> None:
    assert "strongest-heads" in circuits("query").stdout
    circuit = examples.circuit(1)
    answer = circuits(
        "query", "strongest-heads", f"circuit={circuit.id[:8]}", "limit=3", "--format", "json"
    )
    heads = [node for node in circuit.nodes if node.component.startswith("a")]
    heads.sort(key=lambda node: -abs(node.effect or 0))
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == [
        {"component": f"gpt2/{head.component}", "effect": head.effect} for head in heads[:3]
    ]


def test_a_measure_of_another_package_is_listed(circuits: Circuits) -> None:
    answer = circuits("measures", "--of", "circuit", "--format", "csv")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == (
        "layer_spread,circuit,,,0 to 1,,"
        "Share of the model's layers that hold a head of the circuit,circuit-extras"
    )


def test_a_job_of_another_package_records_a_run_and_a_circuit(
    circuits: Circuits, tmp_path: Path
) -> None:
    ask = ["discover", "random-heads", "--model", "gpt2", "--task", "ioi", "--heads"]
    answer = circuits(*ask, "30")
    assert answer.returncode == 0, answer.stderr
    with Registry.open(tmp_path) as registry:
        (entry,) = registry.circuits(method="random-heads")
        assert entry.n_nodes == 30
        (run,) = (run for run in registry.ledger.runs() if run.job == "random-heads")
        assert entry.runs == (run.id,)
        assert run.configuration["heads"] == 30
        assert run.status == "finished"
    refused = circuits(*ask, "145")
    assert refused.returncode == 2
    assert "it has 144" in refused.stderr


def test_a_job_of_another_package_ablates_parts_and_leaves_files_and_roles(
    circuits: Circuits, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path / "tiny-words")
    ask = ("--model", str(folder), "--task", "sequence/months", "--device", "cpu")
    answer = circuits(
        "discover",
        "knocked-out-heads",
        *ask,
        "--heads",
        "3",
        "--prompts",
        "8",
        "--min-prompts",
        "1",
    )
    assert answer.returncode == 0, answer.stderr
    with Registry.open(tmp_path) as registry:
        (entry,) = registry.circuits(method="knocked-out-heads")
        circuit = registry.document(entry.id)
        files = {one.name: one for one in registry.attachments(entry.id)}
        assert files["heads.svg"].media_type == "image/svg+xml"
        kept = load_file(files["heads.safetensors"].save(tmp_path / "out"))
        roles = {said.node: said for said in registry.annotations(entry.id)}
        runs = entry.runs
    chosen = kept["mask"].nonzero().tolist()
    effects = {node.component: node.effect for node in circuit.nodes}
    assert set(effects) == {f"a{layer}.h{head}" for layer, head in chosen} == set(roles)
    for layer, head in chosen:
        name = f"a{layer}.h{head}"
        assert effects[name] == pytest.approx(float(kept["effects"][layer, head]), rel=1e-6)
        assert roles[name].scores == {"effect": effects[name]}
        assert roles[name].run == runs[0]
    left_out = kept["effects"][~kept["mask"]]
    assert left_out.abs().max() <= min(abs(effect or 0) for effect in effects.values())


IMPORT_HEADS = ("import", "heads.csv", "--model", "gpt2", "--task", "ioi", "--format", "json")


def test_a_format_of_another_package_is_read_and_keeps_its_source(
    circuits: Circuits, tmp_path: Path
) -> None:
    (tmp_path / "heads.csv").write_text("layer,head,effect\n9,9,1.5\n5,5,\n", encoding="utf-8")
    outcomes = []
    for _ in range(2):
        answer = circuits(*IMPORT_HEADS, "--sign", "hurts-positive")
        assert answer.returncode == 0, answer.stderr
        (row,) = json.loads(answer.stdout)
        outcomes.append((row["format"], row["outcome"]))
    assert outcomes == [("head-list", "stored"), ("head-list", "already there")]
    with Registry.open(tmp_path) as registry:
        (entry,) = registry.circuits(method="head-list")
        assert [file.name for file in entry.source_files] == ["heads.csv"]
        effects = {n.component: n.effect for n in registry.document(entry.id).nodes}
    assert effects == {"a5.h5": None, "a9.h9": -1.5}


def test_what_another_package_writes_it_reads_again(circuits: Circuits, tmp_path: Path) -> None:
    (tmp_path / "heads.csv").write_text("layer,head,effect\n5,5,\n9,9,1.5\n", encoding="utf-8")
    (row,) = json.loads(circuits(*IMPORT_HEADS).stdout)
    answer = circuits("export", row["circuits"][0], "--to", "head-list", "-o", "-")
    assert answer.stdout == (tmp_path / "heads.csv").read_text(encoding="utf-8")


def test_a_malformed_file_of_another_packages_format_is_refused_with_the_place(
    circuits: Circuits, tmp_path: Path
) -> None:
    (tmp_path / "heads.csv").write_text("layer,head\n9,9\n5,five\n", encoding="utf-8")
    answer = circuits(*IMPORT_HEADS)
    assert answer.returncode == 1
    (row,) = json.loads(answer.stdout)
    assert row["outcome"] == "refused"
    assert row["notes"][0].startswith("heads.csv, line 3: expected layer, head")


def test_a_task_of_another_package_draws_pairs_of_equal_length(installed: Path) -> None:
    code = (
        "from ingest.tasks.catalogue import find_task\n"
        # A tokenizer of one token a word, each with the space before it.
        "import re\n"
        "ids = {}\n"
        "def encode(text):\n"
        "    return [ids.setdefault(word, len(ids)) for word in re.findall(r' ?\\w+|,', text)]\n"
        "pairs = find_task('greetings').make(seed=0, n=10, encode=encode)\n"
        "assert len(pairs) == 10\n"
        "assert all(len(p.clean) == len(p.corrupt) and p.correct != p.wrong for p in pairs)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
