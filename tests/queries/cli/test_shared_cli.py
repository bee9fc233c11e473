"""The command shared, as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from registry import Registry
from tests.queries import small_registry
from tests.queries.small_registry import IOI, MONTHS, NODES_ONLY, NUMERALS

pytestmark = pytest.mark.seconds

# IOI's published circuit is left out: it has as many edges as that of numerals, and would be best.
PAIR = ("--task", "ioi,sequence/numerals", "--method", "edge-attribution")
THREE = ("--task", "ioi", "--task", "sequence/numerals,sequence/months")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("commands") / "registry"
    with Registry.init(home) as registry:
        small_registry.fill(registry)
    return home


def shared(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry", "--home", home, "shared", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_shows_what_the_best_circuits_share_and_which_they_are(home: Path) -> None:
    ran = shared(home, *PAIR, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert list(answer) == ["circuits", "components", "connections", "parts", "paths"]
    assert "note: there is no size at which" in ran.stderr
    assert [(row["task"], row["circuit"]) for row in answer["circuits"]] == [
        ("ioi", IOI.id), ("sequence/numerals", NUMERALS.id)
    ]  # fmt: skip
    (first,) = (row for row in answer["connections"] if row["port"] == "v")
    assert first["connection"] == "gpt2/input->a0.h1<v>"
    assert (first["ioi"], first["sequence/numerals"]) == (0.25, -0.25)
    assert first["signs_agree"] is False
    assert {row["component"] for row in answer["components"]} == {
        "gpt2/input", "gpt2/a0.h1", "gpt2/a9.h6", "gpt2/m9", "gpt2/logits"
    }  # fmt: skip
    (part,) = answer["parts"]
    assert (part["n_connections"], part["n_paths"]) == (4, 1)
    (path,) = answer["paths"]
    assert path["path"] == "input -> a0.h1<v> -> a9.h6<k> -> logits"
    assert path["tasks"] == ["ioi", "sequence/numerals"]


def test_all_circuits_of_a_task_may_stand_for_it(home: Path) -> None:
    asked = ("--task", "ioi,sequence/numerals", "--circuits", "all", "--format", "json")
    answer = json.loads(shared(home, *asked).stdout)
    assert [row["task"] for row in answer["circuits"]] == ["ioi", "ioi", "sequence/numerals"]
    (first,) = (row for row in answer["connections"] if row["port"] == "v")
    assert (first["ioi"], first["sequence/numerals"]) == (0.375, -0.25)


def test_named_circuits_bring_their_tasks_and_what_is_their_own(home: Path) -> None:
    ids = ",".join(circuit.id[:9] for circuit in (IOI, NUMERALS))
    ran = shared(home, "--circuits", ids, "--unique", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert [(row["task"], row["connection"]) for row in answer["unique connections"]] == [
        ("ioi", "gpt2/a9.h6->m9")
    ]
    assert answer["unique components"] == []


def test_a_table_names_the_tasks_and_counts_signs_and_csv_holds_connections(home: Path) -> None:
    table = shared(home, *PAIR).stdout
    for title in ("circuits", "components", "connections", "parts", "paths"):
        assert title in table.splitlines()
    assert "sequence/numerals" in table
    (line,) = (line for line in table.splitlines() if line.startswith("gpt2/input->a0.h1<v>"))
    assert "1+ 1-" in line
    rows = list(csv.DictReader(io.StringIO(shared(home, *PAIR, "--format", "csv").stdout)))
    assert {row["connection"] for row in rows} == {
        "gpt2/input->a0.h1<v>", "gpt2/a0.h1->a9.h6<k>", "gpt2/a9.h6->logits", "gpt2/m9->logits"
    }  # fmt: skip


def test_a_drawing_shows_as_many_connections_as_are_asked_for(home: Path, tmp_path: Path) -> None:
    for edges, told in (("2", "the strongest 2 of 4 shared edges"), ("9", "all 4 shared edges")):
        out = tmp_path / f"{edges}.svg"
        ran = shared(home, *PAIR, "--edges", edges, "--out", out)
        assert ran.returncode == 0, ran.stderr
        assert told in out.read_text(encoding="utf-8")


def test_a_table_shows_the_strongest_and_says_so(home: Path) -> None:
    ran = shared(home, *PAIR, "--top", "1")
    assert sum(line.startswith("gpt2/") for line in ran.stdout.splitlines()) == 2
    assert "only the strongest 1 rows of each table; --top sets the limit" in ran.stderr
    whole = shared(home, *PAIR, "--top", "1", "--format", "csv")
    assert len(whole.stdout.splitlines()) == 1 + 4
    assert "--top" not in whole.stderr


def test_fewer_tasks_of_those_given_may_be_enough(home: Path) -> None:
    ids = ",".join(circuit.id for circuit in (IOI, NUMERALS, MONTHS))
    counts = []
    for least in ("1", "2", "3"):
        ran = shared(home, *THREE, "--circuits", ids, "--min-tasks", least, "--format", "json")
        counts.append(len(json.loads(ran.stdout)["connections"]))
    of_each = [{edge.connection for edge in circuit.edges} for circuit in (IOI, NUMERALS, MONTHS)]
    everything = set.union(*of_each)
    assert counts == [
        sum(sum(name in of for of in of_each) >= least for name in everything)
        for least in (1, 2, 3)
    ]


def test_it_draws_where_asked(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.svg"
    ran = shared(home, *PAIR, "--out", out)
    assert ran.returncode == 0, ran.stderr
    assert f"written to {out}" in ran.stderr
    drawing = out.read_text(encoding="utf-8")
    assert "a9.h6" in drawing
    assert "What both tasks share in gpt2" in drawing


def test_a_json_file_holds_what_is_specific_too(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.json"
    ran = shared(home, *PAIR, "--circuits", "all", "--out", out)
    assert ran.returncode == 0, ran.stderr
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [row["connection"] for row in written["unique connections"]] == ["gpt2/a9.h6->m9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "ioi"], "shared needs two or more tasks, got 1"),
        (["--task", "ioi,ioi"], "shared needs two or more tasks, got 1"),
        (["--task", "ioi,capitals", "--min-tasks", "3"], "number of tasks is 3, but 2 tasks are"),
        (["--task", "ioi,nope"], "no task 'nope'; recorded are: capitals, ioi"),
        (["--task", "ioi,capitals", "--model", "gpt9"], "no model 'gpt9'; nearest: gpt2"),
        (["--task", "ioi,capitals", "--out", "a.gif"], "name a file that ends in .svg"),
        (["--task", "ioi,capitals", "--model", "smollm2"], "capitals has no active circuit"),
        (["--circuits", IOI.id[:9]], "needs two or more tasks, got 1"),
    ],
)
def test_bad_input_is_one_line(
    home: Path, arguments: list[str], message: str, tmp_path: Path
) -> None:
    given = [str(tmp_path / text) if text.startswith("a.") else text for text in arguments]
    ran = shared(home, *given)
    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_it_says_where_tasks_share_nothing_and_where_no_path_is_shared(tmp_path: Path) -> None:
    def made(task: str, *components: str) -> object:
        nodes = [{"component": name} for name in components]
        return NODES_ONLY.model_validate(NODES_ONLY.model_dump() | {"task": task, "nodes": nodes})

    home = tmp_path / "registry"
    with Registry.init(home) as registry:
        small_registry.fill(registry)
        registry.record(made("greetings", "a1.h1"), made("farewells", "a2.h2"))  # type: ignore[arg-type]
    ran = shared(home, "--task", "greetings,farewells")
    assert ran.returncode == 0
    assert "these tasks share no parts in the graph" in ran.stderr
    out = tmp_path / "shared.svg"
    drawn = shared(home, "--task", "greetings,farewells", "--out", out)
    assert (drawn.returncode, drawn.stdout) == (2, ran.stdout)
    assert ran.stdout.startswith("circuits\n")
    assert drawn.stderr.splitlines()[:-1] == ran.stderr.splitlines()
    assert "there is nothing to draw" in drawn.stderr.splitlines()[-1]
    assert not out.exists()
    apart = shared(home, "--task", "sequence/months,capitals", "--method", "edge-attribution")
    assert "no path of shared connections leads from input to logits" in apart.stderr
