"""The command export, as a user meets it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.formats.exporting import exporters
from registry import Registry
from registry.cli.main import main
from registry.cli.root import command_group
from registry.ledger.base import NewCircuit
from registry.records import Circuit, CircuitLabels, Level, Run
from tests import examples

Export = Callable[..., tuple[int, bytes, str]]

IOI = examples.circuit(1)
NUMERALS = examples.circuit(2, task="sequence/numerals")
EMPTY = Circuit.model_validate(IOI.model_dump() | {"edges": (), "nodes": (), "level": Level.NODE})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("export") / ".circuits"
    with Registry.init(home) as registry:
        registry.record(
            examples.GPT2,
            *examples.TASKS,
            NewCircuit(IOI, labels=CircuitLabels(tags=("final",))),
            NUMERALS,
            EMPTY,
        )
    return home


@pytest.fixture
def run(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Export:
    """``circuits export`` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def export(*arguments: str) -> tuple[int, bytes, str]:
        code = main(["--home", str(home), "export", *arguments])
        out, err = capsysbinary.readouterr()
        return code, out, err.decode()

    return export


def written(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class TestFiles:
    def test_a_circuit_s_file_is_named_after_it(self, run: Export, tmp_path: Path) -> None:
        code, out, err = run(NUMERALS.id[:8], "--to", "csv", "--format", "json")
        assert (code, err) == (0, "")
        name = f"gpt2-sequence-numerals-{NUMERALS.id[:12]}.csv"
        size = (tmp_path / name).stat().st_size
        assert json.loads(out) == [
            {"circuit": NUMERALS.id, "file": name, "size_bytes": size, "refused": None}
        ]

    def test_a_dash_is_standard_output_and_the_file_alone(
        self, run: Export, tmp_path: Path
    ) -> None:
        run(IOI.id, "--to", "csv", "-o", "ioi.csv")
        code, out, err = run(IOI.id, "--to", "csv", "-o", "-")
        assert (code, out, err) == (0, (tmp_path / "ioi.csv").read_bytes(), "")
        assert len(out.splitlines()) == len(IOI.edges) + 1

    def test_heads_alone_are_written_as_csv(self, run: Export, tmp_path: Path) -> None:
        assert run(IOI.id, "--heads", "-o", "short.csv")[0] == 0
        assert run(IOI.id, "--heads", "--to", "csv", "-o", "long.csv")[0] == 0
        assert (tmp_path / "short.csv").read_bytes() == (tmp_path / "long.csv").read_bytes()

    def test_every_registered_format_writes_from_the_command_line(
        self, run: Export, tmp_path: Path
    ) -> None:
        code, out, _ = run("--formats", "--format", "json")
        listed = {row["format"]: row["suffix"] for row in json.loads(out)}
        assert (code, set(listed)) == (0, set(exporters()))
        for name, suffix in listed.items():
            code, _, err = run(IOI.id, "--to", name, "-o", f"{name}/")
            assert (code, err) in [(0, ""), (2, err)]  # a graph of features holds no heads
            if code == 0:
                assert written(tmp_path / name) == [f"gpt2-ioi-{IOI.id[:12]}{suffix}"]
            else:
                assert err.startswith("error: ")

    def test_nothing_is_overwritten_unless_it_is_said(self, run: Export, tmp_path: Path) -> None:
        path = tmp_path / "ioi.csv"
        path.write_text("mine")
        code, out, err = run(IOI.id, "--to", "csv", "-o", "ioi.csv")
        assert (code, out) == (2, b"")
        assert "ioi.csv exists already; name another with -o, or give --force" in err
        assert path.read_text() == "mine"
        assert run(IOI.id, "--to", "csv", "-o", "ioi.csv", "--force")[0] == 0
        assert path.read_text().startswith("source,target")
        assert written(tmp_path) == ["ioi.csv"]

    def test_of_several_none_is_written_where_one_exists(self, run: Export, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / f"gpt2-ioi-{IOI.id[:12]}.csv").touch()
        code, _, err = run(NUMERALS.id, IOI.id, "--to", "csv", "-o", "out")
        assert code == 2
        assert "exists already" in err
        assert len(written(tmp_path)) == 1

    def test_a_link_to_nothing_exists_too(self, run: Export, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        link = tmp_path / "out" / f"gpt2-ioi-{IOI.id[:12]}.csv"
        link.symlink_to("nowhere")
        for arguments in ((NUMERALS.id, IOI.id, "-o", "out"), (IOI.id, "-o", str(link))):
            code, _, err = run(*arguments, "--to", "csv")
            assert code == 2
            assert "exists already" in err
            assert written(tmp_path) == []
            assert link.is_symlink()
        assert run(IOI.id, "--to", "csv", "-o", str(link), "--force")[0] == 0
        assert written(tmp_path) == [f"out/{link.name}"]

    def test_a_name_may_be_as_long_as_the_file_system_allows(
        self, run: Export, tmp_path: Path
    ) -> None:
        name = "x" * 246 + ".csv"
        assert run(IOI.id, "--to", "csv", "-o", name)[0] == 0
        assert written(tmp_path) == [name]

    def test_several_go_into_a_folder_that_is_made(self, run: Export, tmp_path: Path) -> None:
        code, out, err = run("--tag", "final", "--to", "csv", "-o", "deep/one/")
        assert (code, err) == (0, "")
        assert b"refused" not in out
        assert written(tmp_path) == [f"deep/one/gpt2-ioi-{IOI.id[:12]}.csv"]

    def test_a_circuit_that_does_not_fit_is_told_and_keeps_no_other_out(
        self, run: Export, tmp_path: Path
    ) -> None:
        code, out, err = run("--model", "gpt2", "--to", "csv", "-o", "all", "--format", "json")
        assert code == 1
        assert "1 of 3 circuits do not fit csv" in err
        refused = {row["circuit"]: row["refused"] for row in json.loads(out)}
        assert refused[EMPTY.id] is not None
        assert refused[IOI.id] is refused[NUMERALS.id] is None
        assert len(written(tmp_path / "all")) == 2

    def test_one_that_does_not_fit_is_an_error(self, run: Export, tmp_path: Path) -> None:
        code, out, err = run(EMPTY.id, "--to", "csv")
        assert (code, out, written(tmp_path)) == (2, b"", [])
        assert "neither edges nor nodes" in err

    def test_the_exporter_gets_the_model_and_the_scores(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scores = b"a matrix"
        kept = Circuit.model_validate(
            IOI.model_dump() | {"scores": hashlib.sha256(scores).hexdigest()}
        )
        lost = Circuit.model_validate(IOI.model_dump() | {"scores": "0" * 64})
        with Registry.init(tmp_path / ".circuits") as registry:
            registry.store_artifact(scores)
            registry.record(examples.GPT2, kept, lost)
        package = tmp_path / "package"
        (package / "echo-1.dist-info").mkdir(parents=True)
        (package / "echo-1.dist-info" / "METADATA").write_text("Name: echo\nVersion: 1\n")
        (package / "echo-1.dist-info" / "entry_points.txt").write_text(
            "[circuits.exporters]\necho = echo_exporter:ECHO\n"
        )
        (package / "echo_exporter.py").write_text(
            "class Echo:\n"
            "    name, summary, suffix = 'echo', 'what it was given', '.txt'\n"
            "    def write(self, circuit, context):\n"
            "        return f'{context.model.d_model} {context.scores}'.encode()\n"
            "ECHO = Echo()\n"
        )
        monkeypatch.setattr(sys, "path", [*sys.path, str(package)])
        command = ["--home", str(tmp_path / ".circuits"), "export", "--to", "echo", "-o", "-"]
        assert main([*command, kept.id]) == 0
        assert capsys.readouterr().out == "768 b'a matrix'"
        assert main([*command, lost.id]) == 0
        answer = capsys.readouterr()
        assert answer.out == "768 None"
        assert "warning: the scores of" in answer.err


@pytest.mark.parametrize("sign", ["helps-positive", "hurts-positive", "unsigned"])
def test_an_imported_graph_exported_and_imported_again_is_the_same_circuit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    edges = {
        "input->a0.h0<q>": {"score": 0.5, "in_graph": True},
        "input->m0": {"score": -2.0, "in_graph": True},
        "a0.h0->m0": {"score": 0.0, "in_graph": False},
        "input->a0.h0<k>": {"score": -0.25, "in_graph": False},
        "input->a0.h0<v>": {"score": 0.125, "in_graph": False},
        "input->logits": {"score": 1.0, "in_graph": False},
        "a0.h0->logits": {"score": 0.1, "in_graph": True},
        "m0->logits": {"score": 3.0, "in_graph": True},
    }
    if sign == "unsigned":
        edges = {name: {**edge, "score": abs(edge["score"])} for name, edge in edges.items()}
    cfg = {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 8}
    nodes = {name: {"in_graph": True} for name in ("input", "a0.h0", "m0", "logits")}
    (tmp_path / "a.json").write_text(json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}))
    Registry.init(tmp_path / ".circuits").close()
    said = ("--model", "toy", "--task", "ioi", "--format", "json", "--sign")
    # What is exported has been turned.
    kept = "unsigned" if sign == "unsigned" else "helps-positive"
    home = ("--home", str(tmp_path / ".circuits"))
    assert main([*home, "import", str(tmp_path / "a.json"), *said, sign]) == 0
    (first,) = json.loads(capsys.readouterr().out)
    (circuit,) = first["circuits"]
    out = str(tmp_path / "b.json")
    assert main([*home, "export", circuit, "--to", "eap-ig-json", "-o", out]) == 0
    capsys.readouterr()
    assert main([*home, "import", out, *said, kept]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert (again["outcome"], again["circuits"]) == ("already there", [circuit])


class TestBundles:
    def test_a_bundle_goes_into_another_registry(
        self, run: Export, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        code, out, err = run(IOI.id, NUMERALS.id, "--bundle", "-o", "two.zip", "--format", "json")
        assert (code, err) == (0, "")
        assert json.loads(out)["circuits"] == 2
        Registry.init(tmp_path / "other").close()
        command = ["--home", str(tmp_path / "other"), "import", "two.zip", "--format", "json"]
        answers = []
        for _ in range(2):
            assert main(command) == 0
            (row,) = json.loads(capsysbinary.readouterr().out)
            answers.append((row["outcome"], sorted(row["circuits"])))
        ids = sorted([IOI.id, NUMERALS.id])
        assert answers == [("stored", ids), ("already there", ids)]
        with Registry.open(tmp_path / "other") as other:
            assert other.circuit(IOI.id).entry.labels.tags == ("final",)

    def test_its_name_comes_from_the_circuit_or_says_there_are_several(
        self, run: Export, tmp_path: Path
    ) -> None:
        run(IOI.id, "--bundle")
        run("--all", "--bundle")
        assert written(tmp_path) == ["circuits.zip", f"gpt2-ioi-{IOI.id[:12]}.zip"]

    def test_it_is_the_same_on_standard_output(self, run: Export, tmp_path: Path) -> None:
        run("--task", "sequence", "--bundle", "-o", "family.zip")
        code, out, err = run("--task", "sequence", "--bundle", "-o", "-")
        assert (code, out, err) == (0, (tmp_path / "family.zip").read_bytes(), "")

    def test_nothing_is_overwritten_unless_it_is_said(self, run: Export, tmp_path: Path) -> None:
        (tmp_path / "x.zip").write_text("mine")
        code, _, err = run(IOI.id, "--bundle", "-o", "x.zip")
        assert code == 2
        assert "x.zip exists already" in err
        assert run(IOI.id, "--bundle", "-o", "x.zip", "--force")[0] == 0
        assert zipfile.is_zipfile(tmp_path / "x.zip")

    def test_what_comes_along_unasked_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        newer = examples.circuit(3)
        with Registry.init(tmp_path / ".circuits") as registry:
            registry.record(IOI, newer)
            registry.retract(IOI.id, reason="a better one", superseded_by=newer.id)
        command = ["--home", str(tmp_path / ".circuits"), "export", IOI.id, "--bundle"]
        assert main([*command, "--format", "json"]) == 0
        answer = capsys.readouterr()
        assert newer.id[:12] in answer.err
        assert json.loads(answer.out)["circuits"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "give one of --to FORMAT (--formats lists the formats), --bundle"),
        ((IOI.id, "--to", "csv", "--bundle"), 2, "give one of --to"),
        (("--to", "csv"), 2, "name circuits to export, or choose them with --task"),
        ((IOI.id, "--task", "ioi", "--bundle"), 2, "not both"),
        ((IOI.id, "--all", "--bundle"), 2, "not both"),
        ((IOI.id, "--to", "csvv"), 1, "no exporter 'csvv'; did you mean 'csv'?"),
        (("0000", "--to", "csv"), 1, "no circuit '0000'"),
        (("xyz", "--to", "csv"), 2, "4 to 64 hexadecimal digits"),
        (("--state", "dead", "--bundle"), 2, "--state is 'dead'"),
        (("--tag", "nobody", "--bundle"), 2, "no such circuits"),
        (("--model", "gpt9", "--bundle"), 1, "no model 'gpt9'"),
        (("--all", "--to", "csv", "-o", "-"), 2, "standard output takes one circuit, not 3"),
        (
            (IOI.id, NUMERALS.id, "--to", "csv", "-o", "there"),
            2,
            "there is a file; name a folder for 2 circuits",
        ),
        ((IOI.id, "--to", "csv", "-o", "there/x"), 2, "cannot write there/x: there is a file"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    run: Export, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "there").touch()
    answer, out, err = run(*arguments)
    assert (answer, out) == (code, b"")
    assert says in err
    assert len(err.splitlines()) == 1
    assert written(tmp_path) == ["there"]


def test_what_a_terminal_cannot_show_is_not_thrown_at_it(
    run: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = run(IOI.id, "--bundle", "-o", "-")
    assert (code, out) == (2, b"")
    assert "which is not text" in err


def test_the_help_has_examples() -> None:
    from ingest.cli.export_files import commands

    text = command_group(commands).commands["export"].help or ""
    assert "circuits export 3f9a --to graphviz -o ioi.gv" in text


class TestAttachments:
    @pytest.fixture(autouse=True)
    def _attached(self, home: Path) -> None:
        with Registry.open(home) as registry:
            for circuit in (IOI, NUMERALS):
                for name in ("plot.svg", "größe.csv"):
                    content = io.BytesIO(f"{name} of {circuit.task}".encode())
                    registry.attach(circuit.id, content, name=name)

    def test_files_of_a_circuit_are_taken_out(self, run: Export, tmp_path: Path) -> None:
        code, out, err = run(IOI.id[:8], "--attachments", "new/plots", "--format", "json")
        assert (code, err) == (0, "")
        assert json.loads(out) == [
            {
                "owner_kind": "circuit",
                "owner": IOI.id,
                "file": f"new/plots/{name}",
                "size_bytes": size,
                "refused": None,
            }
            for name, size in (("plot.svg", 15), ("größe.csv", 18))
        ]
        assert written(tmp_path) == ["new/plots/größe.csv", "new/plots/plot.svg"]
        assert (tmp_path / "new/plots/plot.svg").read_bytes() == b"plot.svg of ioi"

    def test_of_several_circuits_each_has_a_folder(self, run: Export, tmp_path: Path) -> None:
        assert run("--model", "gpt2", "--attachments", "out")[0] == 0
        folders = [f"gpt2-ioi-{IOI.id[:12]}", f"gpt2-sequence-numerals-{NUMERALS.id[:12]}"]
        assert written(tmp_path / "out") == [
            f"{folder}/{name}" for folder in folders for name in ("größe.csv", "plot.svg")
        ]

    def test_runs_edits_and_prompt_sets_have_folders_too(
        self, run: Export, home: Path, tmp_path: Path
    ) -> None:
        job = Run(
            id="b" * 32, job="probing", version="1", started_at=datetime(2026, 1, 31, tzinfo=UTC)
        )
        made = examples.prompt_set("a" * 64)
        edit, _ = examples.edit(IOI, "m5")
        with Registry.open(home) as registry:
            registry.record(job, made, edit)
            for owner in (job.id, made.id, edit.id):
                registry.attach(owner, io.BytesIO(owner.encode()), name="note.txt")
        code, out, _ = run(job.id[:6], "--attachments", "one", "--format", "json")
        assert (code, written(tmp_path / "one")) == (0, ["note.txt"])
        assert (tmp_path / "one/note.txt").read_text() == job.id
        assert json.loads(out)[0]["owner_kind"] == "run"
        assert run(made.id, edit.id[:8], "--attachments", "two")[0] == 0
        others = [f"edit-{edit.id[:12]}/note.txt", f"prompt-set-{made.id[:12]}/note.txt"]
        assert written(tmp_path / "two") == others
        assert run("--all", "--attachments", "all")[0] == 0
        files = written(tmp_path / "all")
        assert {*others, f"run-{job.id[:12]}/note.txt"} < set(files)
        assert len(files) == 3 + 4  # and those of the two circuits
        assert run(job.id, "--to", "csv")[0] != 0

    def test_nothing_is_overwritten_unless_it_is_said(self, run: Export, tmp_path: Path) -> None:
        (tmp_path / "plot.svg").write_text("mine")
        code, _, err = run(IOI.id, "--attachments", ".")
        assert code == 2
        assert "plot.svg exists already; name another folder, or give --force" in err
        assert written(tmp_path) == ["plot.svg"]
        assert run(IOI.id, "--attachments", ".", "--force")[0] == 0
        assert (tmp_path / "plot.svg").read_text() == "plot.svg of ioi"

    def test_none_is_written_where_one_is_a_link_to_nothing(
        self, run: Export, tmp_path: Path
    ) -> None:
        (tmp_path / "größe.csv").symlink_to("nowhere")  # the second
        code, _, err = run(IOI.id, "--attachments", ".")
        assert code == 2
        assert "größe.csv exists already" in err
        assert written(tmp_path) == []

    def test_the_others_are_written_if_one_is_damaged(
        self, run: Export, home: Path, tmp_path: Path
    ) -> None:
        with Registry.open(home) as registry:
            first, _ = registry.attachments(IOI.id)
            (damaged,) = (home / "artifacts").rglob(f"*{first.sha256[4:]}*")
        damaged.chmod(0o600)
        damaged.write_bytes(b"x" * first.size_bytes)
        code, out, err = run(IOI.id, "--attachments", "out", "--format", "json")
        assert code == 1
        assert "1 of 2 files are damaged or lost" in err
        assert [row["file"] for row in json.loads(out)] == [None, "out/größe.csv"]
        assert json.loads(out)[0]["refused"].startswith("plot.svg: ")
        assert written(tmp_path) == ["out/größe.csv"]
        damaged.unlink()
        assert "plot.svg" in run(IOI.id, "--attachments", "out", "--force")[1].decode()

    def test_a_circuit_without_any_says_so(self, run: Export, tmp_path: Path) -> None:
        code, out, err = run(EMPTY.id, "--attachments", "out")
        assert (code, out, err) == (0, b"", "no files are attached\n")
        assert written(tmp_path) == []

    @pytest.mark.parametrize(
        "options", [["--to", "csv"], ["--bundle"], ["-o", "x"], ["--heads"], ["--skip-damaged"]]
    )
    def test_it_stands_alone(self, run: Export, options: list[str]) -> None:
        code, _, err = run(IOI.id, "--attachments", "out", *options)
        assert code == 2
        assert "--attachments" in err
