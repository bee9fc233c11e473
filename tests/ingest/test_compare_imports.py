"""A circuit of one tool beside one of another: compared, and what differs is named."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.cli.main import main

MODEL_AND_TASK = ("--model", "gpt2", "--task", "ioi")


def eap_ig() -> str:
    """A graph of EAP-IG with two of its edges chosen."""
    scores = {
        "input->a0.h0<q>": (0.5, True), "input->a0.h0<k>": (-0.25, True),
        "input->a0.h0<v>": (0.125, False), "input->m0": (-2.0, True), "a0.h0->m0": (0.0, False),
        "input->logits": (1.0, False), "a0.h0->logits": (-3.0, True), "m0->logits": (0.75, True),
    }  # fmt: skip
    edges = {name: {"score": score, "in_graph": chosen} for name, (score, chosen) in scores.items()}
    nodes = {name: {"in_graph": True} for name in ("input", "a0.h0", "m0", "logits")}
    cfg = {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": False, "d_model": 768}
    return json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges})


KNOWLEDGE_CIRCUITS = """strict digraph "" {
\tgraph [overlap=scale];
\tembeds [color=red, label=<embeds>];
\t"<a0.0>" [color=red];
\t"<m0>" [color=red];
\tresid_post [color=red];
\tembeds -> "<a0.0_q>" [color=red, penwidth=2.0];
\tembeds -> "<m0>" [color=red, penwidth=1.5];
\t"<a0.0>" -> resid_post [color=red, penwidth=3.0];
}
"""
CIRCUITKIT = json.dumps(
    {
        "task": "ioi", "model": "gpt2", "algorithm": "eap-ig", "level": "node",
        "node_scores": {"A0.0": 0.9, "MLP 0": 0.4},
    }
)  # fmt: skip
TABLE = "source,target,port,weight\nembed,A0.0,q,0.5\nA0.0,resid_post,,1\nembed,MLP 0,,2\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("comparing") / ".circuits"
    Registry.init(home).close()
    return home


@pytest.fixture(scope="module")
def circuits(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids of circuits that tools found on one task in one model, imported by command."""
    folder = tmp_path_factory.mktemp("files")
    files: dict[str, tuple[str, tuple[str, ...]]] = {
        "eap-ig.json": (
            eap_ig(),
            ("--sign", "hurts-positive", "--ablation", "resample", "--metric", "logit_difference"),
        ),
        "table.csv": (
            TABLE,
            ("--column", "effect=weight", "--sign", "unsigned", "--ablation", "zero",
             "--metric", "kl_divergence", "--kv-heads", "grouped"),
        ),
        "again.csv": (
            TABLE,
            ("--column", "effect=weight", "--sign", "helps-positive", "--ablation", "resample",
             "--metric", "logit_difference", "--kv-heads", "per-query-head"),
        ),
        "circuitkit.json": (CIRCUITKIT, ("--top", "2")),
        "knowledge.gv": (KNOWLEDGE_CIRCUITS, ("--ablation", "zero")),
    }  # fmt: skip
    found: dict[str, str] = {}
    for name, (content, said) in files.items():
        (folder / name).write_text(content)
        before = _ids(home)
        command = ["--home", str(home), "import", str(folder / name), *MODEL_AND_TASK, *said]
        assert main(command) == 0, name
        (found[name.partition(".")[0]],) = _ids(home) - before
    return found


def _ids(home: Path) -> set[str]:
    with Registry.open(home) as registry:
        return {entry.id for entry in registry.circuits()}


def compared(
    home: Path, capsys: pytest.CaptureFixture[str], *pair: str
) -> tuple[dict[str, Any], str]:
    """What ``circuits compare`` answers, and what it warns of."""
    capsys.readouterr()
    assert main(["--home", str(home), "compare", *pair, "--anyway", "--format", "json"]) == 0
    answer = capsys.readouterr()
    return json.loads(answer.out), answer.err


def test_what_two_tools_assume_otherwise_is_named(
    home: Path, circuits: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, warned = compared(home, capsys, circuits["eap-ig"], circuits["table"])
    named = [row["difference"] for row in answer["differences"]]
    assert named == [
        "kv heads: per-query-head in a, grouped in b, and how heads of gpt2 share keys and values"
        " is unknown",
        "ablation: resample in a, zero in b",
        "metric: logit_difference in a, kl_divergence in b",
        "sign: helps-positive in a, unsigned in b",
    ]
    assert warned.splitlines() == [f"warning: the circuits differ in {one}" for one in named]


def test_their_parts_meet_whatever_each_tool_calls_them(
    home: Path, circuits: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, _ = compared(home, capsys, circuits["eap-ig"], circuits["table"])
    overlap = {row["of"]: row for row in answer["overlap"]}
    assert (overlap["components"]["n_shared"], overlap["components"]["iou"]) == (4, 1.0)
    edges = overlap["connections"]
    assert (edges["n_a"], edges["n_b"], edges["n_shared"]) == (5, 3, 3)
    assert answer["effects"]["signed shared connections"] == 0


def test_another_level_is_named_and_an_unsaid_thing_is_unknown(
    home: Path, circuits: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, warned = compared(home, capsys, circuits["eap-ig"], circuits["circuitkit"])
    named = {row["difference"] for row in answer["differences"]}
    assert {
        "level: edge in a, node in b; only components are compared",
        "ablation: resample in a, unknown in b",
        "sign: helps-positive in a, unsigned in b",
    } <= named
    assert all(one in warned for one in named)
    overlap = {row["of"]: row for row in answer["overlap"]}
    assert overlap["components"]["n_shared"] == 2
    assert overlap["connections"]["n_b"] == 0


def test_signs_are_compared_once_both_say_what_they_mean(
    home: Path, circuits: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, warned = compared(home, capsys, circuits["eap-ig"], circuits["again"])
    # Turned on import: +0.5, -3 and -2 became -0.5, 3 and 2, beside 0.5, 1 and 2.
    effects = answer["effects"]
    assert (effects["signed shared connections"], effects["with the same sign"]) == (3, 2)
    assert effects["sign agreement"] == 2 / 3
    assert (answer["differences"], warned) == ([], "")


def test_a_table_of_it_names_them_too(
    home: Path, circuits: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for a, b in combinations(circuits.values(), 2):
        assert main(["--home", str(home), "compare", a[:12], b[:12], "--anyway"]) == 0
        answer = capsys.readouterr()
        for line in answer.err.splitlines():
            difference = line.removeprefix("warning: the circuits differ in ")
            assert difference in answer.out


def test_a_drawing_of_one_tool_beside_a_graph_of_another(
    home: Path, circuits: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer, _ = compared(home, capsys, circuits["knowledge"], circuits["eap-ig"])
    overlap = {row["of"]: row for row in answer["overlap"]}
    assert (overlap["connections"]["n_a"], overlap["connections"]["n_shared"]) == (3, 3)
    named = [row["difference"] for row in answer["differences"]]
    assert "ablation: zero in a, resample in b" in named
    assert any(one.startswith("sign: ") for one in named)
