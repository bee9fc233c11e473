"""Files of other tools into a real registry."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import Context, Imported, Limits, Said, find_format, recognised
from ingest.formats.reading import read_json
from registry import Registry
from registry.errors import BadInput, CircuitsError
from registry.records import Evaluation
from tests.few import n_examples

SHARED = Path(__file__).parents[4] / "shared" / "fixtures" / "external"
needs_files = pytest.mark.skipif(
    not SHARED.is_dir(), reason="other tools' files are not beside this checkout"
)
GPT2 = {"model": "gpt2@toy", "task": "ioi"}
"""Not gpt2, whose shape is known: the graph here has one layer."""


def graph(**changes: Any) -> dict[str, Any]:
    """A graph of one layer with one head, as EAP-IG writes it."""
    scores = {
        "input->a0.h0<q>": (0.5, True),
        "input->a0.h0<k>": (-0.25, False),
        "input->a0.h0<v>": (0.125, False),
        "input->m0": (-2.0, True),
        "a0.h0->m0": (0.0, False),
        "input->logits": (1.0, False),
        "a0.h0->logits": (-3.0, True),
        "m0->logits": (0.75, True),
    }
    return {
        "cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 8},
        "nodes": {name: {"in_graph": True} for name in ("input", "a0.h0", "m0", "logits")},
        "edges": {
            edge: {"score": score, "in_graph": chosen} for edge, (score, chosen) in scores.items()
        },
        **changes,
    }


def written(folder: Path, content: Any, name: str = "graph.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def one(registry: Registry, path: Path, **said: Any) -> FileReport:
    (report,) = import_files(registry, [path], {**GPT2, **said})
    return report


class TestTables:
    def test_names_in_any_spelling_and_ports_in_a_column(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = written(
            tmp_path,
            "from,to,port,weight\nA9.6,L10H7,K,0.5\nembed,<m0>,,nan\nhead.9.6,<a10.7_q>,,-2\n",
            "edges.csv",
        )
        columns = {"source": "from", "target": "to", "effect": "weight"}
        report = one(registry, path, columns=columns)
        circuit = registry.circuit(report.circuits[0]).circuit
        assert {edge.connection: (edge.effect, edge.rank) for edge in circuit.edges} == {
            "a9.h6->a10.h7<k>": (0.5, 2), "a9.h6->a10.h7<q>": (-2.0, 1), "input->m0": (None, None),
        }  # fmt: skip
        assert "A9.6 read as a9.h6" in report.notes

    def test_json_lines_are_read_alike(self, registry: Registry, tmp_path: Path) -> None:
        csv = one(registry, written(tmp_path, "source,target,effect\nm0,m1,1\n", "a.csv"))
        lines = '{"source": "m0", "target": "MLP 1", "effect": 1.0}\n'
        assert one(registry, written(tmp_path, lines, "a.jsonl")).circuits == csv.circuits

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("source,goal\nm0,m1\n", "no column 'target'"),
            ("source,target\n", "holds no edge"),
            ("source,target\nm0,m1\nm0,\n", "line 3"),
            ("source,target,effect\nm0,m1,much\n", "effect 'much' is no number"),
            ("source,target,effect\nm0,m1,1e\n", "effect '1e' is no number"),
            ("source,target,port\nm0,a1.h0,z\n", "port 'z'"),
            ("source,target\nm0,m1,m2\n", "more values than columns"),
            ("source,target\nm0,m1\nm0,m1\n", "line 3: the edge m0 -> m1 appears twice"),
        ],
    )
    def test_a_malformed_table_is_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, text: str, says: str
    ) -> None:
        report = one(registry, written(tmp_path, text, "edges.csv"))
        assert report.outcome is FileOutcome.REFUSED
        assert says in report.notes[0]


class TestSaying:
    @pytest.mark.parametrize(
        ("said", "says"),
        [
            ({}, "its model and task; give them with --model and --task or in"),
            ({"model": "gpt2"}, "its task; give it with --task or in"),
            ({"task": "ioi"}, "its model; give it with --model or in"),
        ],
    )
    @pytest.mark.parametrize("name", ["edges.csv", "graph.json"])
    def test_all_that_lacks_is_asked_for_at_once(
        self, registry: Registry, tmp_path: Path, name: str, said: dict[str, str], says: str
    ) -> None:
        content = "source,target\nm0,m1\n" if name.endswith("csv") else graph()
        (report,) = import_files(registry, [written(tmp_path, content, name)], said)
        assert report.outcome is FileOutcome.REFUSED
        assert f"the file does not name {says} circuits-import.yaml" in report.notes[0]


class TestFolders:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("figures.csv", "task,loss\nioi,0.5\n"),
            ("answers.csv", "prompt,target\nA,B\n"),
            ("figures.tsv", "task\tloss\nioi\t0.5\n"),
            ("log.jsonl", '{"task": "ioi"}\n'),
        ],
    )
    def test_a_table_of_something_else_is_passed_over(
        self, registry: Registry, tmp_path: Path, name: str, text: str
    ) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        path = written(folder, text, name)
        (report,) = import_files(registry, [folder], GPT2)
        assert (report.outcome, report.format) == (FileOutcome.SKIPPED, None)
        assert "no column 'source'; it has" in report.notes[0]
        for paths, more in (
            ([path], {}), ([folder], {"columns": {"source": "from"}}),
        ):  # fmt: skip
            (named,) = import_files(registry, paths, {**GPT2, **more})
            assert (named.outcome, named.format) == (FileOutcome.REFUSED, "table")
        (forced,) = import_files(registry, [folder], GPT2, format=find_format("table"))
        assert forced.outcome is FileOutcome.REFUSED

    def test_files_are_said_things_of_beside_them(self, registry: Registry, tmp_path: Path) -> None:
        folder = tmp_path / "results"
        (folder / "deep").mkdir(parents=True)
        written(folder, graph(), "one.json")
        written(folder / "deep", "source,target\nm0,m1\n", "two.csv")
        written(folder, "thanks", "README")
        sidecar = (
            "- {files: '*', model: toy, task: ioi, sign: helps-positive}\n"
            "- {files: 'deep/*', task: greater-than}\n"
        )
        written(folder, sidecar, "circuits-import.yaml")
        reports = {r.path.name: r for r in import_files(registry, [folder], {})}
        assert {name: report.outcome for name, report in reports.items()} == {
            "README": FileOutcome.SKIPPED,
            "one.json": FileOutcome.STORED,
            "two.csv": FileOutcome.STORED,
        }
        assert {entry.task for entry in registry.circuits()} == {"ioi", "greater-than"}

    def test_what_the_caller_says_wins(self, registry: Registry, tmp_path: Path) -> None:
        written(tmp_path, "- {files: '*', model: toy, task: ioi}\n", "circuits-import.yaml")
        report = one(registry, written(tmp_path, graph()), task="other")
        assert registry.circuit(report.circuits[0]).circuit.task == "other"

    @pytest.mark.parametrize("text", ["{", "model: gpt2", "- {modle: gpt2}", "- {sign: maybe}"])
    def test_a_malformed_sidecar_is_one_reason(
        self, registry: Registry, tmp_path: Path, text: str
    ) -> None:
        written(tmp_path, text, "circuits-import.yaml")
        report = one(registry, written(tmp_path, graph()))
        assert report.outcome is FileOutcome.REFUSED
        assert len(report.notes) == 1

    def test_a_path_that_is_not_there_is_an_error(self, registry: Registry, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="does not exist"):
            list(import_files(registry, [tmp_path / "none"], GPT2))


@dataclass(frozen=True)
class Measured:
    """A format whose files hold one evaluation, with settings in a second file."""

    circuit: str
    settings: Path
    name: str = "measured"
    summary: str = "an evaluation"
    companions: tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> float:
        return 0.0 if not head else float(path.suffix == ".json")

    def read(self, path: Path, context: Context) -> Imported:
        value = read_json(path, context.limits)["faithfulness"]
        measured = Evaluation(circuit=self.circuit, task="ioi", measure="faithfulness", value=value)
        return Imported(evaluations=[measured], artifacts=[b"computed"], beside=[self.settings])


class TestKeeping:
    def test_the_same_bytes_twice_add_nothing_and_say_so(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = written(tmp_path, graph())
        first, again = one(registry, path), one(registry, path)
        assert (again.outcome, again.circuits) == (FileOutcome.KNOWN, first.circuits)
        assert len(registry.circuits()) == 1

    def test_a_dry_run_stores_nothing(self, registry: Registry, tmp_path: Path) -> None:
        path = written(tmp_path, graph())
        (report,) = import_files(registry, [path], GPT2, dry_run=True)
        assert (report.outcome, report.edges) == (FileOutcome.READABLE, 4)
        assert registry.circuits() == []
        assert registry.gc(grace_seconds=0).addresses == ()

    def test_originals_outlive_gc_and_travel_in_backups(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = written(tmp_path, graph())
        circuit = one(registry, path).circuits[0]
        (source,) = registry.circuit(circuit).entry.source_files
        assert (source.name, source.format) == ("graph.json", "eap-ig-json")
        registry.gc(apply=True, grace_seconds=0)
        registry.backup(tmp_path / "all.zip")
        with Registry.restore(tmp_path / "all.zip", tmp_path / "elsewhere") as restored:
            assert restored.artifact(source.sha256) == path.read_bytes()

    def test_a_file_without_circuits_is_kept_with_all_that_came_with_it(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        circuit = one(registry, written(tmp_path, graph())).circuits[0]
        path = written(tmp_path, {"faithfulness": 0.5}, "values.json")
        settings_file = written(tmp_path, "seed: 1\n", "values.yaml")
        format = Measured(circuit, settings_file)
        (report,) = import_files(registry, [path], {}, format=format)
        assert (report.outcome, report.evaluations) == (FileOutcome.STORED, 1)
        registry.gc(apply=True, grace_seconds=0)
        registry.backup(tmp_path / "all.zip")
        kept = [path.read_bytes(), settings_file.read_bytes(), b"computed"]
        with Registry.restore(tmp_path / "all.zip", tmp_path / "elsewhere") as restored:
            for data in kept:
                assert restored.artifact(hashlib.sha256(data).hexdigest()) == data

    def test_large_files_are_refused_until_allowed(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = written(tmp_path, graph())
        for limits, says in (
            (Limits(max_bytes=9), "--max-bytes"),
            (Limits(max_edges=7), "--max-edges"),
        ):
            (report,) = import_files(registry, [path], GPT2, limits=limits)
            assert report.outcome is FileOutcome.REFUSED
            assert says in report.notes[0]


@settings(
    max_examples=n_examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_files_give_records_or_one_clear_error(data: st.DataObject, tmp_path: Path) -> None:
    table = b"source,target,port,effect\nA9.6,L10H7,k,0.5\nembed,<m0>,,1\n"
    name, content = data.draw(
        st.sampled_from([("g.json", json.dumps(graph()).encode()), ("t.csv", table)])
    )
    mutated = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        width = data.draw(st.integers(0, 12))
        mutated[at : at + width] = data.draw(st.binary(max_size=8))
        if not mutated:
            mutated = bytearray(b"x")
    path = tmp_path / name
    path.write_bytes(bytes(mutated))
    said = Said(model="gpt2", task="ioi")
    with contextlib.suppress(CircuitsError, ValidationError):
        assert recognised(path).read(path, Context(said)).circuits
