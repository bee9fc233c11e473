"""Results on sequence continuation into a real registry."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.base import Limits
from ingest.formats.sequence_continuation.format import FORMAT
from ingest.tasks.prompts import read_kept
from registry import Registry
from registry.errors import BadInput
from registry.identifiers import Kind, parse_local
from registry.records import Ablation, Circuit, Evaluation, Level, PromptSet, Sign
from tests.ingest.formats.test_importing import SHARED, needs_files

FILES = Path(__file__).parent / "files" / "sequence-continuation"
REAL = SHARED / "seqcont"
NODE_LIST = "months_circuit_thres_0.8.json"


def changed(folder: Path, file: Path, **changes: Any) -> Path:
    """A copy of a file with other fields, beside the files that lie beside it."""
    shutil.copytree(file.parent, folder / "copy")
    path = folder / "copy" / file.name
    path.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")
    return path


def one(registry: Registry, path: Path, **said: Any) -> FileReport:
    (report,) = import_files(registry, [path], said, format=FORMAT)
    return report


def stored(registry: Registry, path: Path, **said: Any) -> FileReport:
    report = one(registry, path, **said)
    assert report.outcome is FileOutcome.STORED, report.notes
    return report


def circuit_of(registry: Registry, report: FileReport) -> Circuit:
    return registry.circuit(report.circuits[0]).circuit


def prompts_of(registry: Registry) -> tuple[PromptSet, list[dict[str, str]]]:
    (found,) = registry.ledger.prompt_sets()
    assert found.artifact is not None
    _, *lines = registry.artifact(found.artifact).decode().splitlines()
    return found, [json.loads(line) for line in lines]


class TestNodeLists:
    def test_heads_and_mlps_are_nodes_without_effects(self, registry: Registry) -> None:
        report = stored(registry, FILES / "months" / NODE_LIST, model="gpt2")
        circuit = circuit_of(registry, report)
        assert [node.component for node in circuit.nodes] == ["a0.h1", "m0", "m1", "a4.h4"]
        assert (circuit.level, circuit.edges, circuit.sign) == (Level.NODE, (), Sign.UNKNOWN)
        assert {node.effect for node in circuit.nodes} == {None}
        assert circuit.method == "iterative-node-pruning"

    def test_the_task_is_in_its_name_unless_it_is_said(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        report = stored(registry, FILES / "months" / NODE_LIST, model="gpt2")
        assert circuit_of(registry, report).task == "sequence/months"
        assert "the task is taken from the file's name: sequence/months" in report.notes
        report = stored(registry, FILES / "months" / NODE_LIST, model="gpt2", task="mine")
        assert circuit_of(registry, report).task == "mine"
        note = "the file names the task sequence/months; used is mine, as given by the user"
        assert note in report.notes
        elsewhere = tmp_path / "circuit.json"
        shutil.copy(FILES / "months" / NODE_LIST, elsewhere)
        assert "--task" in one(registry, elsewhere, model="gpt2").notes[0]

    def test_the_model_is_asked_for(self, registry: Registry) -> None:
        assert "--model" in one(registry, FILES / "months" / NODE_LIST).notes[0]

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"heads": {"0": 1}}, "which are lists"),
            ({"mlps": None}, "which are lists"),
            ({"heads": [[0]]}, "no head such as"),
            ({"heads": [[0, "1"]]}, "no head such as"),
            ({"heads": [[0, -1]]}, "no head such as"),
            ({"mlps": [0.5]}, "no layer"),
            ({"mlps": [True]}, "no layer"),
            ({"mlps": [1, 1]}, "appears once"),
        ],
    )
    def test_a_malformed_list_is_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, changes: dict[str, Any], says: str
    ) -> None:
        path = changed(tmp_path, FILES / "months" / NODE_LIST, **changes)
        report = one(registry, path, model="gpt2")
        assert report.outcome is FileOutcome.REFUSED
        assert says in report.notes[0]


class TestEdges:
    def test_the_effect_is_what_is_lost_of_the_metric_without_the_edge(
        self, registry: Registry
    ) -> None:
        circuit = circuit_of(registry, stored(registry, FILES / "edges.json"))
        assert {e.connection: (e.effect, e.rank) for e in circuit.edges} == {
            "a0.h1->a4.h4<k>": (1.25, 1), "m0->m1": (0.5, 2), "a4.h4->logits": (0.25, 3),
        }  # fmt: skip
        assert (circuit.model, circuit.task) == ("gpt2", "sequence/months")
        assert (circuit.sign, circuit.ablation) == (Sign.HELPS_POSITIVE, Ablation.RESAMPLE)
        assert circuit.parameters["ratios"]["a0.h1->a4.h4<k>"] == -0.25

    def test_edges_that_were_tried_and_dropped_count_in_the_universe(
        self, registry: Registry
    ) -> None:
        circuit = circuit_of(registry, stored(registry, FILES / "edges.json"))
        assert circuit.universe_size == 4
        assert circuit.parameters["dropped"] == {"m0->a4.h4<q>": 1.25}
        assert circuit.selection == {"rule": "ratio below 0.8"}

    def test_what_a_user_says_of_signs_does_not_turn_a_ratio(self, registry: Registry) -> None:
        usual = stored(registry, FILES / "edges.json")
        assert one(registry, FILES / "edges.json", sign="hurts-positive").circuits == usual.circuits

    def test_edges_without_ratios_have_unknown_effects(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        edges = [{"source": "A0.1", "target": "<a4.4_v>"}]
        path = changed(tmp_path, FILES / "edges.json", edges=edges, dropped=[])
        report = stored(registry, path)
        (edge,) = circuit_of(registry, report).edges
        assert (edge.connection, edge.effect, edge.rank) == ("a0.h1->a4.h4<v>", None, None)
        assert circuit_of(registry, report).sign is Sign.UNKNOWN
        assert "A0.1 read as a0.h1" in report.notes

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"edges": []}, "holds no edge"),
            ({"edges": [1]}, "edge 1 is no object"),
            ({"edges": [{"source": "m0"}]}, "target is 'None'"),
            ({"edges": [{"source": "m0", "target": "x"}]}, "in a known spelling"),
            ({"edges": [{"source": "a0.h1<q>", "target": "m1"}]}, "sends nothing"),
            ({"edges": [{"source": "m0", "target": "m1", "ratio": "1"}]}, "no number"),
            ({"edges": [{"source": "m0", "target": "m1"}] * 2}, "appears before"),
            ({"dropped": [{"source": "m0", "target": "m1"}]}, "is kept and dropped"),
            ({"dropped": 3}, "dropped is no list"),
            ({"edges": {}}, "has neither"),
        ],
    )
    def test_malformed_edges_are_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, changes: dict[str, Any], says: str
    ) -> None:
        report = one(registry, changed(tmp_path, FILES / "edges.json", **changes))
        assert report.outcome is FileOutcome.REFUSED
        assert says in report.notes[0]

    def test_more_edges_than_allowed_are_refused(self, registry: Registry) -> None:
        limits = Limits(max_edges=2)
        (report,) = import_files(registry, [FILES / "edges.json"], {}, limits=limits)
        assert "3 edges and 2 are allowed; --max-edges" in report.notes[0]


class TestEvaluations:
    FILE = FILES / "months" / "months_evaluations.json"

    def evaluated(self, registry: Registry) -> dict[str, list[Evaluation]]:
        found = (e.id for e in registry.circuits())
        return {
            registry.circuit(id).circuit.task: list(registry.ledger.evaluations(id)) for id in found
        }

    def test_figures_belong_to_the_circuits_whose_node_lists_lie_beside(
        self, registry: Registry
    ) -> None:
        report = stored(registry, self.FILE)
        assert (report.evaluations, len(report.circuits)) == (5, 2)
        by_circuit = self.evaluated(registry)
        (other,) = by_circuit["sequence/numerals"]
        assert (other.measure, other.value, other.task) == ("F", 113.5, "sequence/months")
        own = {(e.measure, e.value) for e in by_circuit["sequence/months"]}
        assert own == {
            ("F", 80.5), ("F: cross-task", -9.25), ("F: one-head-removed-from-circuit", 8.0),
            ("F: one-mlp-removed-from-full-model", 101.5),
        }  # fmt: skip
        assert "no node list next to it: ioi (26 heads, all MLPs)" in report.notes[0]

    def test_each_says_what_it_is_of_and_how_it_was_taken(self, registry: Registry) -> None:
        stored(registry, self.FILE)
        found = {e.measure: e for e in self.evaluated(registry)["sequence/months"]}
        removed = found["F: one-head-removed-from-circuit"]
        assert removed.parameters["removed"] == ["a0.h1"]
        assert removed.parameters["unit"] == "percent of the whole model"
        assert found["F: cross-task"].parameters["circuit"] == "ioi (26 heads, all MLPs)"
        assert {(e.ablation, e.n_prompts) for e in found.values()} == {(Ablation.MEAN, 64)}

    def test_the_circuits_are_those_of_the_node_lists_themselves(self, registry: Registry) -> None:
        evaluated = stored(registry, self.FILE)
        listed = one(registry, self.FILE.parent / NODE_LIST, model="gpt2")
        assert listed.outcome is FileOutcome.KNOWN
        assert listed.circuits[0] in evaluated.circuits

    def test_node_lists_that_were_read_are_kept(self, registry: Registry) -> None:
        stored(registry, self.FILE)
        registry.gc(apply=True, grace_seconds=0)
        for name in (NODE_LIST, self.FILE.name):
            content = (self.FILE.parent / name).read_bytes()
            assert registry.artifact(hashlib.sha256(content).hexdigest()) == content

    def test_without_its_node_list_it_is_refused(self, registry: Registry, tmp_path: Path) -> None:
        shutil.copy(self.FILE, tmp_path)
        report = one(registry, tmp_path / self.FILE.name)
        assert report.outcome is FileOutcome.REFUSED
        assert "months_circuit_thres_0.8.json, must be" in report.notes[0]

    def test_several_node_lists_are_not_chosen_among(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = changed(tmp_path, self.FILE)
        shutil.copy(path.parent / NODE_LIST, path.parent / "months_circuit_thres_0.9.json")
        assert "may evaluate any of" in one(registry, path).notes[0]

    def test_no_name_in_the_file_leads_out_of_its_folder(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        path = changed(tmp_path, self.FILE, task="../months")
        (tmp_path / NODE_LIST).write_text('{"heads": [], "mlps": []}', "utf-8")
        assert one(registry, path).outcome is FileOutcome.REFUSED
        path.parent.joinpath(NODE_LIST).unlink()
        path.parent.joinpath(NODE_LIST).symlink_to(tmp_path / NODE_LIST)
        shutil.copy(self.FILE, path)
        assert "is not next to it" in one(registry, path).notes[0]

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            (1, "no object with kind"),
            ({"kind": "circuit", "circuit": "months"}, "has no value"),
            ({"kind": "circuit", "value": "high"}, "no number"),
            ({"kind": ["circuit"], "value": 1}, "no object with kind"),
            ({"kind": "x", "removed": "b1", "value": 1}, "in a known spelling"),
            ({"kind": "x", "removed": 7, "value": 1}, "no part that can be removed"),
        ],
    )
    def test_a_malformed_evaluation_is_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, row: Any, says: str
    ) -> None:
        report = one(registry, changed(tmp_path, self.FILE, evaluations=[row]))
        assert report.outcome is FileOutcome.REFUSED
        assert says in report.notes[0]

    @pytest.mark.parametrize("task", [["months"], {"a": 1}, 3])
    def test_a_task_that_is_no_name_is_refused(
        self, registry: Registry, tmp_path: Path, task: Any
    ) -> None:
        report = one(registry, changed(tmp_path, self.FILE, task=task), task="sequence/months")
        assert "names no task" in report.notes[0]


class TestPrompts:
    def test_texts_and_answers_are_kept_and_hashed(self, registry: Registry) -> None:
        report = stored(registry, FILES / "prompts.json")
        kept, lines = prompts_of(registry)
        assert (kept.task, kept.n_prompts, kept.id) == ("sequence/months", 2, kept.artifact)
        assert (kept.model, kept.tokenizer, kept.bos) == (None, None, None)
        assert lines[0] == {
            "template": "done", "correct": " September", "wrong": " August",
            "text": "Cup done in May. Hat done in June. Bag done in July. Pen done in August."
            " Box done in",
        }  # fmt: skip
        assert "1 texts show other members than S1 to S4" in report.notes[1]

    def test_the_same_prompts_again_are_known_however_they_are_written(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        stored(registry, FILES / "prompts.json")
        again = changed(tmp_path, FILES / "prompts.json")
        assert one(registry, again).outcome is FileOutcome.KNOWN
        assert len(registry.ledger.prompt_sets()) == 1

    def test_jobs_are_told_that_they_cannot_run_on_them(self, registry: Registry) -> None:
        stored(registry, FILES / "prompts.json")
        address = registry.ledger.prompt_sets()[0].artifact or ""
        with pytest.raises(BadInput, match="cannot be read again"):
            read_kept(registry.artifact(address))

    @pytest.mark.parametrize(
        ("prompts", "says"),
        [
            ({}, "holds no prompts"),
            ({"done": {"text": "x"}}, "are no list"),
            ({"done": ["x"]}, "no object with text"),
            ({"done": [{"text": "x", "corr": "y"}]}, "has no incorr"),
            ({"done": [{"text": "", "corr": "y", "incorr": "z"}]}, "has no text"),
            ({"done": [{"text": "\ud800", "corr": "y", "incorr": "z"}]}, "half a character"),
            ([], "has neither"),
        ],
    )
    def test_malformed_prompts_are_refused_with_the_reason(
        self, registry: Registry, tmp_path: Path, prompts: Any, says: str
    ) -> None:
        report = one(registry, changed(tmp_path, FILES / "prompts.json", prompts=prompts))
        assert report.outcome is FileOutcome.REFUSED
        assert says in report.notes[0]
        assert registry.ledger.prompt_sets() == ()


NODE_FACTS = [
    ("numerals", "sequence/numerals",
     "a0.h1 a1.h5 a4.h4 a4.h10 a5.h0 a6.h1 a6.h6 a6.h10 a7.h11 a8.h1 a8.h6 a8.h8 a8.h9 a9.h1",
     [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]),
    ("numwords", "sequence/number-words",
     "a0.h1 a1.h5 a4.h4 a4.h10 a5.h8 a6.h1 a6.h6 a6.h10 a7.h2 a7.h6 a7.h11 a8.h1 a8.h6 a8.h8"
     " a8.h9 a8.h11 a9.h1 a9.h5 a9.h7", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
]  # fmt: skip
EVALUATION_FACTS = [("numerals", 176, 14, 81.0075, 67), ("numwords", 181, 19, 81.1096, 63)]
PROMPT_FACTS = [
    ("numerals_prompts", " 5 6 7 8 9 10 11 12", 0),
    ("numerals_corrupt_prompts", " 5 6 7 8 9 10 11 12", 73),
    ("numwords_prompts", " five six seven eight nine ten eleven twelve", 0),
    ("numwords_corrupt_prompts", " five six seven eight nine ten eleven twelve", 55),
]


@needs_files
class TestRealFiles:
    @pytest.mark.parametrize(("name", "task", "heads", "mlps"), NODE_FACTS)
    def test_node_lists(
        self, registry: Registry, name: str, task: str, heads: str, mlps: list[int]
    ) -> None:
        report = stored(registry, REAL / f"{name}_circuit_thres_0.8.json", model="gpt2")
        circuit = circuit_of(registry, report)
        assert (circuit.task, circuit.level, circuit.edges) == (task, Level.NODE, ())
        parts = [*heads.split(), *(f"m{layer}" for layer in mlps)]
        assert {node.component for node in circuit.nodes} == set(parts)
        assert len(circuit.nodes) == len(parts)
        assert {node.effect for node in circuit.nodes} == {None}

    def test_edges_with_ports(self, registry: Registry) -> None:
        report = stored(registry, REAL / "numerals_edges_2023-12.json")
        circuit = circuit_of(registry, report)
        assert (report.nodes, report.edges) == (26, 180)
        kinds = {
            edge: tuple(str(parse_local(end).kind) for end in (edge.source, edge.target))
            for edge in circuit.edges
        }
        assert Counter(kinds.values()) == {
            ("head", "head"): 39, ("head", "logits"): 9, ("head", "mlp"): 33,
            ("mlp", "head"): 41, ("mlp", "logits"): 11, ("mlp", "mlp"): 47,
        }  # fmt: skip
        receivers = Counter(edge.port or kinds[edge][1] for edge in circuit.edges)
        assert receivers == {"k": 8, "logits": 20, "mlp": 80, "q": 18, "v": 54}
        assert {edge.effect for edge in circuit.edges} == {None}
        assert circuit.parameters["circuit_F_of_this_run"] == 81.1594

    def test_edges_with_ratios(self, registry: Registry) -> None:
        report = stored(registry, REAL / "numerals_mlp-to-mlp_edges_final.json")
        circuit = circuit_of(registry, report)
        assert (report.nodes, report.edges, circuit.universe_size) == (11, 48, 55)
        assert len(circuit.parameters["ratios"]) == 48
        assert len(circuit.parameters["dropped"]) == 7
        assert {parse_local(node.component).kind for node in circuit.nodes} == {Kind.MLP}
        for edge in circuit.edges:
            ratio = circuit.parameters["ratios"][edge.connection]
            assert edge.effect == pytest.approx(1 - ratio, abs=1e-12)
            assert ratio < 0.8
        assert {"m1->m3", "m6->m7"} <= {edge.connection for edge in circuit.edges}
        assert "m1->m7" in circuit.parameters["dropped"]

    @pytest.mark.parametrize(("name", "count", "heads", "own", "above"), EVALUATION_FACTS)
    def test_evaluations(
        self, registry: Registry, name: str, count: int, heads: int, own: float, above: int
    ) -> None:
        report = stored(registry, REAL / f"{name}_evaluations.json")
        found = [e for id in report.circuits for e in registry.ledger.evaluations(id)]
        assert (report.evaluations, len(found)) == (count, count)
        assert Counter(one.parameters["kind"] for one in found) == {
            "circuit": 1, "cross-task": 5, "one-head-removed-from-circuit": heads,
            "one-head-removed-from-full-model": 144, "one-mlp-removed-from-full-model": 12,
        }  # fmt: skip
        (of_circuit,) = [one for one in found if one.parameters["kind"] == "circuit"]
        assert (of_circuit.measure, of_circuit.value, of_circuit.n_prompts) == ("F", own, 1536)
        assert sum(one.value < 0 for one in found) == 1
        assert sum(one.value > 100 for one in found) == above
        assert {one.ablation for one in found} == {Ablation.MEAN}

    @pytest.mark.parametrize(("name", "answers", "differing"), PROMPT_FACTS)
    def test_prompts(self, registry: Registry, name: str, answers: str, differing: int) -> None:
        report = stored(registry, REAL / f"{name}_first64.json")
        kept, lines = prompts_of(registry)
        assert (kept.n_prompts, len(lines)) == (192, 192)
        assert Counter(line["template"] for line in lines) == {"done": 64, "lost": 64, "names": 64}
        assert len({line["text"] for line in lines}) == 192
        assert Counter(line["correct"] for line in lines) == {
            f" {answer}": 24 for answer in answers.split()
        }
        told = [note for note in report.notes if "S1 to S4" in note]
        assert [int(note.split()[0]) for note in told] == [differing] * (differing > 0)

    def test_the_folder_is_imported_in_one_go(self, registry: Registry) -> None:
        reports = list(import_files(registry, [REAL], {"model": "gpt2"}))
        files = [one for one in reports if one.path.suffix == ".json"]
        assert len(files) == 10
        assert {one.format for one in files} == {"sequence-continuation"}
        assert {one.outcome for one in files} <= {FileOutcome.STORED, FileOutcome.KNOWN}
        assert len(registry.circuits()) == 4
        assert len(registry.ledger.prompt_sets()) == 4
        again = [one for one in import_files(registry, [REAL], {"model": "gpt2"}) if one.format]
        assert {one.outcome for one in again} == {FileOutcome.KNOWN}
