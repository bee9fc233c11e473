"""Tables of heads, as notebooks write them, into circuits of nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from registry import Registry
from registry.cli.main import main
from registry.records import Circuit, Level

GPT2 = {"model": "gpt2", "task": "ioi"}
HEADS = {"a9.h9": (2.5, 1), "a9.h6": (-1.5, 2), "a10.h0": (0.5, 3)}
ROWS = [(9, 9, 2.5), (9, 6, -1.5), (10, 0, 0.5)]
SPELLED = [
    "L{}H{}",
    "a{}.h{}",
    "{}.{}",
    "({}, {})",
    "[{},{}]",
    "blocks.{}.attn.hook_z.{}",
    "A{}.{}",
]


def report_of(registry: Registry, path: Path, **said: Any) -> FileReport:
    (report,) = import_files(registry, [path], {**GPT2, **said})
    return report


def stored(registry: Registry, path: Path, **said: Any) -> tuple[FileReport, Circuit]:
    report = report_of(registry, path, **said)
    assert report.outcome is FileOutcome.STORED, report.notes
    return report, registry.circuit(report.circuits[0]).circuit


def effects(circuit: Circuit) -> dict[str, tuple[float | None, int | None]]:
    return {node.component: (node.effect, node.rank) for node in circuit.nodes}


def written(folder: Path, text: str, name: str = "heads.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "names", ["layer,head,score", "Layer,Head,Attribution", "layer,head,effect"]
)
def test_a_table_of_layers_and_heads_is_a_circuit_of_nodes(
    registry: Registry, tmp_path: Path, suffix: str, names: str
) -> None:
    frame = pandas.DataFrame(ROWS, columns=names.split(","))
    path = tmp_path / f"heads.{suffix}"
    match suffix:
        case "jsonl":
            frame.to_json(path, orient="records", lines=True)
        case "parquet":
            frame.to_parquet(path)
        case _:
            frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    _, circuit = stored(registry, path)
    assert effects(circuit) == HEADS
    assert (circuit.level, circuit.edges, circuit.selection) == (Level.NODE, (), None)


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_heads_may_be_named_in_one_column(
    registry: Registry, tmp_path: Path, spelled: str, suffix: str
) -> None:
    rows = [(spelled.format(layer, head), score) for layer, head, score in ROWS]
    frame = pandas.DataFrame(rows, columns=["head", "score"])
    path = tmp_path / f"heads.{suffix}"
    if suffix == "csv":
        frame.to_csv(path)  # with the index, as most write it
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    report, circuit = stored(registry, path)
    assert effects(circuit) == HEADS
    assert report.notes[0] == "columns read by the usual names: head as node, score as effect"


def test_mlps_may_stand_among_heads(registry: Registry, tmp_path: Path) -> None:
    _, circuit = stored(registry, written(tmp_path, "node,score\nL9H9,1\nMLP 0,-2\nembed,\n"))
    assert effects(circuit) == {"input": (None, None), "a9.h9": (1.0, 2), "m0": (-2.0, 1)}


def test_floats_of_a_column_with_empty_cells_are_whole_numbers(
    registry: Registry, tmp_path: Path
) -> None:
    _, circuit = stored(registry, written(tmp_path, "layer,head,score\n9.0,6.0,1\nL10,H0,\n"))
    assert effects(circuit) == {"a9.h6": (1.0, 1), "a10.h0": (None, None)}


def test_ten_and_one_are_two_heads_where_they_are_text(registry: Registry, tmp_path: Path) -> None:
    _, circuit = stored(registry, written(tmp_path, "head,score\n9.1,1\n9.10,2\n"))
    assert set(effects(circuit)) == {"a9.h1", "a9.h10"}


def test_marks_and_sizes_choose_heads_too(registry: Registry, tmp_path: Path) -> None:
    text = "layer,head,score,in_circuit\n9,9,2.5,1\n9,6,-1.5,0\n10,0,0.5,1\n"
    _, marked = stored(registry, written(tmp_path, text))
    assert set(effects(marked)) == {"a9.h9", "a10.h0"}
    report, chosen = stored(registry, written(tmp_path, text), top=2)
    assert set(effects(chosen)) == {"a9.h9", "a9.h6"}
    assert any(note.startswith("--top 2 replaces the file's own marks") for note in report.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layer,head,score\n9,9,1\n9,9,2\n", "line 3: a9.h9 appears before"),
        ("layer,head,score\n9,9.5,1\n", "line 2: head '9.5' is no whole number"),
        ("layer,head,score\n-1,9,1\n", "line 2: layer '-1'"),
        ("layer,head,score\n9,,1\n", "line 2: head ''"),
        ("layer,head,score\n12,0,1\n", "a12.h0"),  # GPT-2 has layers 0 to 11
        ("layer,head,score\n9,9,much\n", "line 2: effect 'much' is no number"),
        ("layer,head,score\n", "holds no node"),
        ("head,score\nL9H9,1\nwhatever,1\n", "line 3: 'whatever'"),
        ("head,score\nL9H9,1\nL9H9.q,1\n", "line 3: 'L9H9.q' is an input of a head"),
        ("head,score\n9,1\n", "no part"),
        ("layer,head,score,weight\n9,9,1,2\n", "'score' and 'weight' may each be the column"),
    ],
)
def test_a_malformed_table_of_heads_is_refused_with_the_reason(
    registry: Registry, tmp_path: Path, text: str, says: str
) -> None:
    report = report_of(registry, written(tmp_path, text))
    assert report.outcome is FileOutcome.REFUSED
    assert says in report.notes[0]


def test_a_number_that_may_be_two_heads_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"node": 9.1, "score": 1.0}), "heads.jsonl")
    report = report_of(registry, path)
    assert report.outcome is FileOutcome.REFUSED
    assert "9.1 is a number and may be several heads" in report.notes[0]


def test_a_number_in_a_guessed_column_is_told_of_in_a_folder_too(
    registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    path = written(folder, json.dumps({"head": 9.1, "score": 1}), "heads.jsonl")
    for given, outcome in ((path, FileOutcome.REFUSED), (folder, FileOutcome.SKIPPED)):
        (report,) = import_files(registry, [given], GPT2)
        assert report.outcome is outcome
        assert "line 1: 9.1 is a number and may be several heads" in report.notes[0]


@pytest.mark.parametrize(
    ("text", "says"), [("layer;head;score\n9;9;1\n", "by ';'"), ("layer\thead\n9\t9\n", "by tabs")]
)
def test_another_separator_is_named(
    registry: Registry, tmp_path: Path, text: str, says: str
) -> None:
    report = report_of(registry, written(tmp_path, text))
    assert report.outcome is FileOutcome.REFUSED
    assert f"its values are separated {says}; write commas" in report.notes[0]


def test_rows_in_a_json_file_are_refused_with_the_way_out(
    registry: Registry, tmp_path: Path
) -> None:
    path = written(tmp_path, '[{"layer": 9, "head": 1, "score": 2}]', "heads.json")
    (report,) = import_files(registry, [path], GPT2)
    assert "JSON Lines, one object a line in a .jsonl file" in report.notes[0]


def test_a_folders_table_of_something_else_is_passed_over(
    registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    written(folder, "from,to,weight\nEUR,USD,1.1\n", "rates.csv")
    written(folder, "part,score\nwheel,1\n", "parts.csv")
    reports = list(import_files(registry, [folder], GPT2))
    assert [report.outcome for report in reports] == [FileOutcome.SKIPPED, FileOutcome.SKIPPED]
    assert all("name no part of a model" in report.notes[0] for report in reports)
    assert report_of(registry, folder / "rates.csv").outcome is FileOutcome.REFUSED


def test_a_table_of_heads_goes_in_and_out_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / ".circuits"
    Registry.init(home).close()
    about = ["--model", "gpt2", "--task", "ioi"]
    path = written(tmp_path, "layer,head,score\n9,9,2.5\n9,6,-1.5\n")
    assert main(["--home", str(home), "import", str(path), *about]) == 0
    with Registry.open(home) as registry:
        (entry,) = registry.circuits()
    out = tmp_path / "out.csv"
    assert main(["--home", str(home), "export", entry.id, "--to", "csv", "-o", str(out)]) == 0
    assert out.read_text() == "layer,head,effect,rank\n9,6,-1.5,2\n9,9,2.5,1\n"
    assert main(["--home", str(home), "import", str(out), *about]) == 0
    with Registry.open(home) as registry:
        assert [one.id for one in registry.circuits()] == [entry.id]
    capsys.readouterr()


def test_heads_of_a_circuit_of_edges_are_exported_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / ".circuits"
    Registry.init(home).close()
    path = written(tmp_path, "source,target,effect\na0.h1,m0,1\na0.h1,a1.h2<q>,2\n")
    assert main(["--home", str(home), "import", str(path), "--model", "gpt2", "--task", "ioi"]) == 0
    with Registry.open(home) as registry:
        (entry,) = registry.circuits()
    capsys.readouterr()
    command = ["--home", str(home), "export", entry.id, "--heads", "--to", "csv", "-o", "-"]
    assert main(command) == 0
    assert capsys.readouterr().out == "layer,head,effect,rank\n0,1,,\n1,2,,\n"
    assert main(["--home", str(home), "export", entry.id, "--heads", "--bundle"]) != 0


@pytest.mark.parametrize(
    ("names", "level"),
    [
        (["l0.ln1", "ln_final"], Level.PARAMETER),
        (["input", "l1.ln2", "logits"], Level.PARAMETER),
        (["l0.ln1", "a9.h9"], Level.NODE),
        (["m3.n17", "l0.ln1"], Level.NEURON),
    ],
)
def test_a_table_of_norms_is_a_circuit_of_parameters(
    registry: Registry, tmp_path: Path, names: list[str], level: Level
) -> None:
    path = tmp_path / "norms.csv"
    path.write_text("\n".join(["node", *names]))
    _, circuit = stored(registry, path)
    assert circuit.level is level
    assert {node.component for node in circuit.nodes} == set(names)
