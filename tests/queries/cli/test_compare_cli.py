"""The command compare, as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from registry.records import Ablation
from tests import examples
from tests.queries import small_registry
from tests.queries.small_registry import GROUPED, IOI, MONTHS, NODES_ONLY, NUMERALS

pytestmark = pytest.mark.seconds

PROMPTS = [digit * 64 for digit in "123"]
SEEDS = [
    examples.circuit(seed).model_copy(
        update={"prompt_set": prompts, "parameters": {}, "selection": {"top": 20}}
    )
    for seed, prompts in enumerate(PROMPTS, start=40)
]
ZERO = examples.circuit(50).model_copy(update={"ablation": Ablation.ZERO})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("commands") / "registry"
    with Registry.init(home) as registry:
        small_registry.fill(registry)
        prompts = [examples.prompt_set(id) for id in PROMPTS]
        registry.record(*prompts, *SEEDS, ZERO)
    return home


def circuits(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry", "--home", home, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def answer(home: Path, *arguments: str | Path) -> dict[str, Any]:
    ran = circuits(home, "compare", *arguments, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_what_two_circuits_share_is_counted_at_every_level(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pair.png"
    found = answer(home, IOI.id[:8], NUMERALS.id[:8], "--draws", "0", "--out", out)
    assert [row["id"] for row in found["circuits"]] == [IOI.id, NUMERALS.id]
    overlap = {row["of"]: row for row in found["overlap"]}
    assert (overlap["components"]["n_shared"], overlap["components"]["iou"]) == (5, 1.0)
    assert [overlap[kind]["n_shared"] for kind in ("heads", "mlps", "edges")] == [2, 1, 4]
    connections = overlap["connections"]
    assert (connections["n_a"], connections["n_b"], connections["n_shared"]) == (5, 4, 4)
    assert (connections["iou"], connections["iom"]) == (0.8, 1.0)
    assert (connections["share_of_a"], connections["share_of_b"]) == (0.8, 1.0)
    effects = found["effects"]
    assert (effects["signed shared connections"], effects["with the same sign"]) == (3, 1)
    assert effects["rank correlation"] == pytest.approx(-0.5)
    assert (found["by chance"], found["conclusion"]) == ([], {})
    assert out.read_bytes().startswith(b"\x89PNG")


def test_chance_is_told_under_every_null_and_the_weakest_is_the_conclusion(home: Path) -> None:
    asked = (IOI.id[:8], NUMERALS.id[:8], "--draws", "50", "--seed", "3")
    found = answer(home, *asked)
    nulls = {(row["of"], row["null"]): row for row in found["by chance"]}
    assert set(nulls) == {
        ("connections", "degrees"), ("connections", "hubs"), ("connections", "layers"),
        ("components", "layers"),
    }  # fmt: skip
    degrees, hubs, layers = (nulls["connections", of] for of in ("degrees", "hubs", "layers"))
    assert degrees["n_shared"] == hubs["n_shared"] == layers["n_shared"] == 4
    assert degrees["low"] <= degrees["expected"] <= degrees["high"]
    assert 1 / 51 <= degrees["p"] <= 1
    # Ports and layers leave a choice of 12 senders or receivers, or of both.
    assert layers["expected"] == pytest.approx(1 / 12 + 1 / 144 + 1 / 12 + 1)
    assert found["conclusion"]["p"] == max(degrees["p"], hubs["p"], layers["p"])
    assert found["conclusion"]["in words"].startswith("the circuits are not shown to share")
    assert answer(home, *asked) == found


def test_the_order_of_two_circuits_changes_no_number(home: Path) -> None:
    one, other = (
        answer(home, *pair, "--draws", "50")
        for pair in ((IOI.id, NUMERALS.id), (NUMERALS.id, IOI.id))
    )
    assert one["by chance"] == other["by chance"]
    assert one["conclusion"]["in words"] == other["conclusion"]["in words"]


def test_circuits_of_nodes_have_the_null_of_components_alone(home: Path) -> None:
    found = answer(home, IOI.id, NODES_ONLY.id)
    (null,) = found["by chance"]
    assert (null["of"], null["null"], null["n_shared"]) == ("components", "layers", 2)
    # Of 12 heads a layer the one in layer 0 and the one in layer 9 are the same in both.
    assert (null["expected"], null["p"]) == pytest.approx((1 / 6, 1 / 144))
    assert "(components, q" in found["conclusion"]["in words"]
    assert {row["difference"] for row in found["differences"]} >= {
        "level: edge in a, node in b; only components are compared"
    }


def test_how_a_circuit_does_the_other_task_is_told_beside_random_ones(home: Path) -> None:
    rows = {
        (row["found_on"], row["task"]): row for row in answer(home, IOI.id, NUMERALS.id)["transfer"]
    }
    elsewhere = rows["ioi", "sequence/numerals"]
    assert (elsewhere["circuit"], elsewhere["measure"]) == (IOI.id, "faithfulness")
    assert (elsewhere["value"], elsewhere["random"]) == (0.25, 0.125)
    assert (rows["ioi", "ioi"]["value"], rows["ioi", "ioi"]["random"]) == (0.875, None)


def test_the_ceiling_is_what_circuits_of_other_prompts_share(home: Path) -> None:
    (ceiling,) = answer(home, SEEDS[1].id, NUMERALS.id, "--draws", "0")["ceiling"]
    sets = [{edge.connection for edge in circuit.edges} for circuit in SEEDS]
    overlaps = [
        len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert (ceiling["task"], ceiling["n_circuits"]) == ("ioi", 3)
    assert ceiling["mean_iou"] == pytest.approx(sum(overlaps) / 3)
    assert (ceiling["lowest_iou"], ceiling["highest_iou"]) == (min(overlaps), max(overlaps))


def test_every_pair_of_two_tasks_has_a_row_corrected_for_all(home: Path) -> None:
    tasks = ("--task", "ioi,sequence/numerals", "--model", "gpt2")
    asked = (*tasks, "--circuits", ",".join(one.id for one in (*SEEDS, NUMERALS)), "--draws", "50")
    pairs = answer(home, *asked)["pairs"]
    assert [(row["a"], row["b"]) for row in pairs] == [(one.id, NUMERALS.id) for one in SEEDS]
    ps = sorted(row["p"] for row in pairs)
    assert all(row["q"] >= row["p"] for row in pairs)
    assert max(row["q"] for row in pairs) == pytest.approx(ps[-1])
    text = circuits(home, "compare", *asked, "--format", "csv").stdout
    assert [row["a"] for row in csv.DictReader(io.StringIO(text))] == [one.id for one in SEEDS]


def test_two_tasks_are_compared_by_their_best_circuits(home: Path) -> None:
    ran = circuits(
        home, "compare", "--task", "ioi", "--task", "capitals", "--model", "gpt2", "--draws", "0"
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "note: there is no size at which" in ran.stderr
    assert IOI.id[:12] in ran.stdout


def test_what_is_unsound_is_refused_unless_asked_for_anyway(home: Path) -> None:
    refused = circuits(home, "compare", SEEDS[0].id, ZERO.id)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "ablation: resample in a, zero in b. --anyway compares them" in refused.stderr
    found = answer(home, SEEDS[0].id, ZERO.id, "--anyway", "--draws", "0")
    assert found["differences"] == [{"difference": "ablation: resample in a, zero in b"}]


def test_what_is_less_than_sound_is_named(home: Path) -> None:
    ran = circuits(home, "compare", IOI.id[:8], MONTHS.id[:8], "--draws", "0")
    assert ran.returncode == 0
    assert "the circuits differ in sign: helps-positive in a, unsigned in b" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IOI.id, GROUPED.id), "circuits of different models cannot be compared"),
        (
            ("ioi", "sequence/numerals"),
            "circuits compare --task ioi --task sequence/numerals",
        ),
        ((IOI.id,), "compare needs two circuits or two tasks"),
        ((), "compare needs two circuits or two tasks"),
        ((IOI.id, NUMERALS.id, "--task", "ioi"), "not both"),
        (("--task", "ioi"), "compare needs two or more tasks, got 1"),
        (("--task", "ioi,capitals,sequence/months"), "circuits matrix takes more"),
        (("--task", "ioi,capitals", "--circuits", IOI.id), "none of the named circuits is of"),
        ((IOI.id, NUMERALS.id, "--out", "pair.gif"), "name a file that ends in .svg"),
        (
            ("--task", "ioi,sequence/numerals", "--model", "gpt2", "--circuits", "all",
             "--out", "pair.svg"),
            "a drawing shows one pair",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_says_what_would_be_right(
    home: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = circuits(home, "compare", *arguments)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
