"""``circuits discover`` and ``circuits tasks`` as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.tasks import all_tasks
from registry import Registry
from registry.cli.main import main
from registry.texts.words import faithfulness_in_words
from tests.ingest.jobs.tiny_words import save_tiny_model

_JOB = ("discover", "edge-attribution")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-words"))


@pytest.fixture
def home(tmp_path: Path) -> str:
    Registry.init(tmp_path / ".circuits").close()
    return str(tmp_path / ".circuits")


def test_a_discovery_is_summed_up_on_standard_output_and_stored(
    home: str, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompts", "8", "--edges", "30", "--no-bos", "--tag", "a", "--tag", "b"]
    assert main(
        ["--home", home, *_JOB, "--model", tiny_model, "--task", "ioi", *options,
         "--format", "json"]
    ) == 0  # fmt: skip
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert row["prompts"] == 8
    in_words = faithfulness_in_words(row["faithfulness"], "logit_difference")
    assert said.err.splitlines()[-1] == f"note: {in_words}"
    with Registry.open(home) as registry:
        stored = registry.circuit(row["circuit"][:12])
        assert stored.entry.labels.tags == ("a", "b")
        assert len(stored.circuit.edges) == row["edges"]
        assert stored.entry.faithfulness == row["faithfulness"]


def test_several_seeds_are_a_table_with_a_row_for_each_and_for_their_consensus(
    home: str, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompts", "8", "--share", "40%", "--seeds", "2", "--batch-size", "auto"]
    command = ["--home", home, *_JOB, "--model", tiny_model, "--task", "ioi", *options]
    assert main([*command, "--format", "csv"]) == 0
    said = capsys.readouterr()
    header, *rows = csv.reader(io.StringIO(said.out))
    assert [row[0] for row in rows] == ["seed 0", "seed 1", "consensus"]
    value = float(rows[-1][header.index("faithfulness")])
    in_words = faithfulness_in_words(value, "logit_difference")
    assert said.err.splitlines()[-1] == f"note: consensus: {in_words}"
    with Registry.open(home) as registry:
        stored = {entry.id for entry in registry.circuits()}
    assert {row[header.index("circuit")] for row in rows} == stored


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("discover", "edge"), 1, "no job 'edge'; there are edge-attribution"),
        ((*_JOB, "--model", "smollm2"), 2, "a task is required"),
        ((*_JOB, "--task", "ioi"), 2, "Missing option '--model'"),
        ((*_JOB, "--model", "smollm2", "--task", "iou"), 1, "did you mean 'ioi'?"),
        ((*_JOB, "--model", "./gone", "--task", "ioi"), 1, "no model './gone'"),
        (
            (*_JOB, "--model", "m", "--task", "ioi", "--edges", "0"),
            2,
            "edges: must be at least 1, is 0",
        ),
        ((*_JOB, "--model", "m", "--task", "ioi", "--select", "best"), 2, "'best'"),
        ((*_JOB, "--model", "m", "--task", "ioi", "--method", "ig"), 2, "'ig'"),
        ((*_JOB, "--model", "m", "--task", "ioi", "--share", "some"), 2, "such as 1% or 0.01"),
        (
            (*_JOB, "--model", "m", "--task", "ioi", "--share", "0%"),
            2,
            "share: must be more than 0, is 0.0",
        ),
        ((*_JOB, "--model", "m", "--task", "ioi", "--batch-size", "all"), 2, "auto or a number"),
        (
            (*_JOB, "--model", "m", "--task", "ioi", "--edges", "5", "--share", "1%"),
            2,
            "edges and share contradict each other; give one of them",
        ),
        (
            (*_JOB, "--model", "m", "--task", "ioi", "--device", "cpu", "--device-map", "auto"),
            2,
            "device and device_map contradict each other",
        ),
        (("verify", "abcd"), 1, "no circuit 'abcd'"),
        (("verify", "abcd", "--top", "0"), 2, "'--top'"),
        ((*_JOB, "--model", "m", "--file", "gone.jsonl"), 2, "cannot read gone.jsonl"),
    ],
)
def test_wrong_input_ends_in_one_line_with_nothing_stored(
    home: str,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    line: str,
) -> None:
    assert main(["--home", home, *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert line in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    with Registry.open(home) as registry:
        assert registry.ledger.runs() == ()


def test_every_task_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["task"] for row in listed] == list(all_tasks())
    assert all(row["description"] for row in listed)


def test_help_shows_every_option_with_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_JOB, "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--model", "--task", "--file", "--prompts", "--method", "--steps", "--ablation",
                   "--reference", "--kv-heads", "--edges", "--share", "--threshold",
                   "--faithfulness", "--choose", "--select", "--seed", "--seeds", "--bootstrap",
                   "--consensus", "--curve / --no-curve", "--completeness", "--controls",
                   "--bos / --no-bos", "--device", "--device-map", "--dtype", "--batch-size",
                   "--title", "--tag", "--author"):  # fmt: skip
        assert option in text
    assert "circuits discover edge-attribution --model smollm2 --task ioi" in text


@pytest.mark.parametrize("arguments", ["['tasks']", "['discover', 'edge-attribution', '--help']"])
def test_helping_and_listing_import_no_torch(arguments: str) -> None:
    code = (
        "import sys; from registry.cli.main import main; "
        f"assert main({arguments}) == 0; "
        "heavy = {'torch', 'transformers', 'transformer_lens', 'kglite', 'neo4j', 'sqlalchemy'}; "
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_dtype_that_weights_can_have_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from ingest.models.names import DTYPES

    for command in (["verify"], [*_JOB]):
        assert main([*command, "--help"]) == 0
        assert f"weights: {DTYPES}." in " ".join(capsys.readouterr().out.split())
