"""The facade: recording, labels, questions, and a graph that is out of reach."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from registry import Registry
from registry.errors import (
    BadIdentifier,
    BadInput,
    GraphError,
    GraphRefused,
    IncompatibleModel,
    NotFound,
    RegistryNotFound,
    StorageError,
)
from registry.graph.open import open_graph
from registry.ledger.base import NewCircuit
from registry.records import Circuit, CircuitLabels, CircuitState, Edge, Edit, Level, Model, Node
from registry.settings.local import Settings, create_home, load_settings
from tests import examples
from tests.servers.neo4j import Neo4jServer

CIRCUITS_IN_GRAPH = "MATCH (c:Circuit) RETURN c.id AS id ORDER BY id"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    with Registry.init(home) as registry:
        registry.record(examples.GPT2, *examples.TASKS)
        yield registry


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def with_graph(home: Path, url: str, **others: str) -> Settings:
    return load_settings(home, graph=url, **others)


class TestRecording:
    def test_a_notebook_cell_run_twice_makes_no_second_circuit(self, registry: Registry) -> None:
        for _ in range(2):
            registry.record(examples.circuit(1))
        assert [entry.id for entry in registry.circuits()] == [examples.circuit(1).id]
        assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == 1

    def test_a_stored_circuit_comes_back_equal(self, registry: Registry) -> None:
        circuit = examples.circuit(1)
        registry.record(circuit, examples.faithfulness(circuit, 0.9))
        stored = registry.circuit(circuit.id[:12])
        assert stored.circuit == circuit
        assert stored.entry.faithfulness == 0.9
        assert stored.evaluations == (examples.faithfulness(circuit, 0.9),)

    def test_a_circuit_of_an_undescribed_model_and_task_is_recorded(
        self, registry: Registry
    ) -> None:
        registry.record(examples.circuit(1, model="new-model", task="greater-than"))
        assert "new-model" in {model.slug for model in registry.ledger.models()}
        assert "greater-than" in {task.slug for task in registry.ledger.tasks()}

    def test_a_head_outside_the_model_is_refused_and_nothing_stored(
        self, registry: Registry
    ) -> None:
        circuit = Circuit(
            model="gpt2",
            task="ioi",
            method="by hand",
            level=Level.NODE,
            nodes=(Node(component="a9.h12"),),
        )
        with pytest.raises(BadIdentifier, match=r"gpt2/a9\.h12.*12 heads"):
            registry.record(circuit)
        assert registry.circuits() == []

    def test_an_alias_of_a_model_is_resolved_and_never_stored(self, registry: Registry) -> None:
        registry.record(examples.circuit(1, model="smollm2", task="ioi"))
        assert {entry.model for entry in registry.circuits()} == {"smollm2-135m-instruct-q4_1"}
        assert len(registry.query("where-used", component="smollm2/input")) == 1

    def test_a_name_alone_does_not_hide_the_shape_that_is_known(self, registry: Registry) -> None:
        node = Node(component="a99.h9")
        far = Circuit(model="gpt2", task="ioi", method="x", level=Level.NODE, nodes=(node,))
        with pytest.raises(BadIdentifier, match="12 layers"):
            registry.record(Model(slug="gpt2"), far)

    def test_other_weights_under_a_used_name_are_refused(self, registry: Registry) -> None:
        other = examples.GPT2.model_copy(update={"weights_sha256": "2" * 64})
        with pytest.raises(IncompatibleModel, match="gpt2@"):
            registry.record(other)

    def test_labels_come_with_the_first_recording(self, registry: Registry) -> None:
        labels = CircuitLabels(title="name movers", tags=("final",), author="E. Xample")
        registry.record(NewCircuit(examples.circuit(1), labels=labels))
        assert registry.circuits(tag="final", author="E. Xample")[0].labels.title == "name movers"

    def test_many_records_may_be_projected_at_the_end(self, registry: Registry) -> None:
        count = "MATCH (c:Circuit) RETURN count(c) AS n"
        with registry.projecting_later():
            registry.record(examples.circuit(1))
            waiting = registry.status().pending
            registry.record(examples.circuit(2))
            assert registry.status().pending > waiting > 0
        assert registry.status().pending == 0
        assert registry.cypher(count).values == ((2,),)
        with suppress(ZeroDivisionError), registry.projecting_later():
            registry.record(examples.circuit(3))
            raise ZeroDivisionError
        assert registry.cypher(count).values == ((3,),)
        registry.record(examples.circuit(4))
        assert registry.status().pending == 0

    def test_an_evaluation_of_an_unknown_circuit_is_refused(self, registry: Registry) -> None:
        with pytest.raises(NotFound, match="circuit"):
            registry.record(examples.faithfulness(examples.circuit(1)))

    def test_an_edit_of_another_model_than_its_circuits_is_refused(
        self, registry: Registry
    ) -> None:
        circuit = examples.circuit(1)
        registry.record(circuit)
        edit = Edit(model="gpt2-medium", editor="ROME", circuits=(circuit.id,))
        with pytest.raises(BadInput, match=r"changes gpt2-medium, but circuit .* in gpt2;"):
            registry.attach_edit(edit)
        assert registry.edits() == []


class TestLabels:
    def test_tags_and_notes_are_found_again(self, registry: Registry) -> None:
        circuit = examples.circuit(1)
        registry.record(circuit, examples.circuit(2))
        registry.tag(circuit.id[:8], add=["final", "paper"], remove=["draft"])
        registry.note(circuit.id[:8], "Name movers as in Wang et al.")
        assert [entry.id for entry in registry.circuits(tag="paper")] == [circuit.id]
        assert [entry.id for entry in registry.circuits(text="MOVERS name")] == [circuit.id]

    def test_a_retracted_circuit_leaves_the_graph_not_the_ledger(self, registry: Registry) -> None:
        wrong, right = examples.circuit(1), examples.circuit(2)
        registry.record(wrong, right, examples.faithfulness(wrong))
        registry.retract(wrong.id, reason="the prompts were wrong")
        assert registry.cypher(CIRCUITS_IN_GRAPH).to_dicts() == [{"id": right.id}]
        labels = registry.circuit(wrong.id).entry.labels
        assert (labels.state, labels.reason) == (CircuitState.RETRACTED, "the prompts were wrong")

    def test_a_newer_circuit_may_supersede(self, registry: Registry) -> None:
        old, new = examples.circuit(1), examples.circuit(2)
        registry.record(old, new)
        registry.retract(old.id, reason="more prompts", superseded_by=new.id[:10])
        assert registry.circuit(old.id).entry.labels.superseded_by == new.id
        with pytest.raises(BadInput, match="itself"):
            registry.retract(new.id, reason="x", superseded_by=new.id)

    def test_a_retraction_needs_a_reason(self, registry: Registry) -> None:
        registry.record(examples.circuit(1))
        with pytest.raises(BadInput, match="reason"):
            registry.retract(examples.circuit(1).id, reason=" ")

    def test_a_label_that_another_process_set_meanwhile_is_kept(
        self, registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        circuit = examples.circuit(1)
        registry.record(circuit)
        seen = registry.ledger.circuit(circuit.id)
        with Registry.open(home) as other:
            other.retract(circuit.id, reason="wrong prompts")
        answers = iter([seen])
        look_up = registry.ledger.circuit
        # What this process saw before the other one retracted.
        monkeypatch.setattr(
            registry.ledger, "circuit", lambda prefix: next(answers, None) or look_up(prefix)
        )
        registry.note(circuit.id, "a late note")
        labels = registry.circuit(circuit.id).entry.labels
        assert labels.state is CircuitState.RETRACTED
        assert labels.notes == ("a late note",)


class TestReading:
    def test_a_circuit_becomes_a_networkx_graph(self, registry: Registry) -> None:
        circuit = examples.circuit(1)
        registry.record(circuit)
        graph = registry.circuit(circuit.id).to_networkx()
        assert graph.number_of_edges() == len(circuit.edges)
        assert graph.graph["task"] == "ioi"
        edge = circuit.edges[0]
        assert graph.edges[edge.source, edge.target, edge.port or ""]["effect"] == edge.effect

    def test_rows_become_a_frame(self, registry: Registry) -> None:
        registry.record(examples.circuit(1))
        frame = registry.cypher(CIRCUITS_IN_GRAPH).to_frame()
        assert list(frame.columns) == ["id"]
        assert frame["id"].tolist() == [examples.circuit(1).id]

    @pytest.mark.parametrize("prefix", ["ffff", "nonsense", ""])
    def test_an_unknown_circuit_is_named(self, registry: Registry, prefix: str) -> None:
        with pytest.raises((NotFound, BadInput), match=prefix or "circuit"):
            registry.circuit(prefix)

    def test_an_unknown_query_or_task_is_named(self, registry: Registry) -> None:
        with pytest.raises(NotFound, match="did you mean 'where-used'"):
            registry.query("where-usd")
        with pytest.raises(NotFound, match=r"no-such.*circuits-of-task"):
            registry.query("no-such")
        with pytest.raises(NotFound, match=r"numeralls.*nearest.*sequence/numerals"):
            registry.query("circuits-of-task", task="numeralls")

    def test_outside_a_registry_the_error_says_how_to_make_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(RegistryNotFound, match="circuits init"):
            Registry.open()

    @pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_time_limit_that_is_none_is_refused(self, registry: Registry, seconds: float) -> None:
        with pytest.raises(BadInput, match="time limit"):
            registry.cypher("RETURN 1 AS one", timeout_seconds=seconds)
        with pytest.raises(BadInput, match="limit of rows"):
            registry.cypher("RETURN 1 AS one", max_rows=0)


class TestGraphOutOfReach:
    """Recording goes on, says that projection is pending, and the next sync projects it."""

    def test_a_server_that_is_down(
        self, home: Path, registry: Registry, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Registry.open(settings=with_graph(home, "bolt://127.0.0.1:1")) as offline:
            offline.record(examples.circuit(1))
            with pytest.raises(GraphError):
                offline.cypher("RETURN 1 AS one")
        warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert any("projection into the graph is pending" in text for text in warnings)
        assert registry.sync() > 0
        assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == 1

    def test_a_graph_that_another_process_writes(self, home: Path, registry: Registry) -> None:
        url = registry.settings.graph
        with open_graph(url, writing=True):
            registry.record(examples.circuit(1))
            assert registry.status().pending > 0
        registry.sync()
        assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == 1

    def test_a_graph_of_another_registry(self, tmp_path: Path, registry: Registry) -> None:
        foreign = with_graph(registry.settings.home, f"kglite:///{tmp_path}/other/graph.kgl")
        with Registry.init(tmp_path / "other") as other:
            other.record(examples.GPT2, examples.circuit(5))
        with Registry.open(settings=foreign) as registry_there:
            registry_there.record(examples.circuit(1))
            assert registry_there.status().pending > 0
            with pytest.raises(GraphRefused, match="belongs to registry"):
                registry_there.sync()
            with pytest.raises(GraphRefused, match="belongs to registry"):
                registry_there.cypher(CIRCUITS_IN_GRAPH)

    @pytest.mark.neo4j
    def test_a_server_that_refuses_the_password(
        self,
        home: Path,
        registry: Registry,
        empty_neo4j: Neo4jServer,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", "not-the-password")
        wrong = with_graph(home, empty_neo4j.url, graph_user=empty_neo4j.user)
        with Registry.open(settings=wrong) as refused:
            refused.record(examples.circuit(1))
            with pytest.raises(GraphRefused) as caught:
                refused.sync()
        assert "not-the-password" not in str(caught.value) + caplog.text + repr(wrong)
        registry.sync()
        assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == 1

    def test_a_graph_file_of_another_version_is_rebuilt_without_being_asked(
        self, registry: Registry, home: Path
    ) -> None:
        registry.record(examples.circuit(1))
        registry.close()
        (home / "graph.kgl").write_bytes(b"RGF\xff of another version")
        with Registry.open(home) as reopened:
            assert len(reopened.cypher(CIRCUITS_IN_GRAPH)) == 1

    def test_a_new_graph_whose_first_sync_was_killed_is_filled_by_the_next(
        self, registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry.record(examples.circuit(1))
        registry.close()
        (home / "graph.kgl").unlink()
        with Registry.open(home) as reopened:
            with monkeypatch.context() as killed:
                killed.setattr("registry.graph.projection.project", _killed)
                with pytest.raises(KeyboardInterrupt):
                    reopened.sync()
            assert reopened.sync() > 0
            assert len(reopened.cypher(CIRCUITS_IN_GRAPH)) == 1

    def test_a_graph_file_that_was_deleted_is_made_again(
        self, registry: Registry, home: Path
    ) -> None:
        registry.record(examples.circuit(1))
        registry.close()
        (home / "graph.kgl").unlink()
        with Registry.open(home) as reopened:
            assert len(reopened.cypher(CIRCUITS_IN_GRAPH)) == 1

    def test_a_file_that_is_no_graph_is_left_alone(self, registry: Registry, home: Path) -> None:
        registry.close()
        (home / "graph.kgl").write_bytes(b"somebody's thesis")
        with Registry.open(home) as reopened:
            reopened.record(examples.circuit(1))
            with pytest.raises(GraphRefused, match="not a graph file, or it is damaged"):
                reopened.cypher(CIRCUITS_IN_GRAPH)
        assert (home / "graph.kgl").read_bytes() == b"somebody's thesis"


class TestUpkeep:
    def test_a_backup_restores_everything(self, registry: Registry, tmp_path: Path) -> None:
        circuit = examples.circuit(1)
        edit, outcome = examples.edit(circuit)
        registry.record(circuit, examples.faithfulness(circuit))
        registry.tag(circuit.id, add=["final"])
        registry.attach_edit(edit, [outcome])
        registry.backup(tmp_path / "all.zip")
        with Registry.restore(tmp_path / "all.zip", tmp_path / "elsewhere") as restored:
            assert restored.circuits() == registry.circuits()
            assert restored.circuit(circuit.id) == registry.circuit(circuit.id)
            assert restored.edits() == registry.edits()
            assert restored.outcomes(edit.id) == [outcome]
            assert restored.cypher(CIRCUITS_IN_GRAPH) == registry.cypher(CIRCUITS_IN_GRAPH)

    def test_a_backup_is_not_restored_over_records(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        registry.backup(tmp_path / "all.zip")
        with pytest.raises(Exception, match="holds records"):
            Registry.restore(tmp_path / "all.zip", registry.settings.home)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense"])
    def test_a_file_that_is_no_backup_is_refused_and_makes_no_registry(
        self, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(BadInput, match="not a backup"):
            Registry.restore(tmp_path / "bad.zip", tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_a_backup_that_lacks_an_artifact_is_refused(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        registry.record(examples.circuit(1), examples.circuit(2))
        registry.backup(tmp_path / "all.zip")
        gone = f"artifacts/{examples.circuit(1).id}"
        with (
            zipfile.ZipFile(tmp_path / "all.zip") as whole,
            zipfile.ZipFile(tmp_path / "some.zip", "w") as some,
        ):
            for name in whole.namelist():
                if name != gone:
                    some.writestr(name, whole.read(name))
        with pytest.raises(BadInput, match="incomplete: it holds 1 of the 2 artifacts"):
            Registry.restore(tmp_path / "some.zip", tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_only_artifacts_that_nothing_refers_to_are_collected(self, registry: Registry) -> None:
        registry.record(examples.circuit(1))
        unused = registry.store_artifact(b"left over")
        found = registry.gc(grace_seconds=0)
        assert (found.addresses, found.deleted) == ((unused,), False)
        assert registry.artifact(unused) == b"left over"
        assert registry.gc(apply=True, grace_seconds=0).deleted
        with pytest.raises(StorageError):
            registry.artifact(unused)
        assert registry.circuit(examples.circuit(1).id).circuit == examples.circuit(1)

    def test_rebuild_answers_as_before(self, registry: Registry, home: Path) -> None:
        registry.record(*(examples.circuit(seed) for seed in range(5)))
        registry.retract(examples.circuit(0).id, reason="test")
        everything = "MATCH (a)-[r]->(b) RETURN a.id AS a, type(r) AS r, b.id AS b ORDER BY a, r, b"
        before = registry.cypher(everything)
        registry.rebuild()
        assert registry.cypher(everything) == before

    def test_a_damaged_document_keeps_its_circuit_alone_out_of_the_graph(
        self, registry: Registry, home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        damaged, whole, later = (examples.circuit(seed) for seed in range(3))
        registry.record(damaged, whole)
        document = home / "artifacts" / damaged.id[:2] / damaged.id[2:]
        document.write_bytes(b"x" * document.stat().st_size)
        registry.rebuild()
        registry.record(later)
        found = {row["id"] for row in registry.cypher(CIRCUITS_IN_GRAPH)}
        assert found == {whole.id, later.id}
        assert f"not in the graph: circuit {damaged.id[:12]}: artifact" in caplog.text
        (aside,) = registry.status().put_aside
        assert (aside.change.key, registry.status().pending) == (damaged.id, 0)
        assert "has been changed" in aside.reason
        registry.record(damaged)  # puts the content back
        assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == 3

    def test_a_restore_takes_out_of_the_graph_what_came_after_the_backup(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        before, after = examples.circuit(1), examples.circuit(2)
        registry.record(before)
        registry.backup(tmp_path / "all.zip")
        registry.record(after)
        registry.close()
        shutil.move(registry.settings.home / "graph.kgl", tmp_path / "graph.kgl")
        home = create_home(tmp_path / "elsewhere")
        settings = load_settings(home, graph=f"kglite:///{tmp_path}/graph.kgl")
        with pytest.raises(GraphRefused, match=r"not changed: it is not empty.*--overwrite-graph"):
            Registry.restore(tmp_path / "all.zip", settings=settings)
        with Registry.restore(
            tmp_path / "all.zip", settings=settings, overwrite_graph=True
        ) as restored:
            assert restored.cypher(CIRCUITS_IN_GRAPH).to_dicts() == [{"id": before.id}]


def test_an_edge_between_unlisted_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="edges join listed nodes"):
        Circuit(
            model="gpt2",
            task="ioi",
            method="by hand",
            level=Level.EDGE,
            nodes=(Node(component="a9.h6"),),
            edges=(Edge(source="a9.h6", target="logits"),),
        )


def test_a_new_registry_has_a_graph_that_can_be_read(home: Path) -> None:
    with Registry.init(home) as registry:
        assert registry.status().graph.startswith("ready")
        assert len(registry.cypher(CIRCUITS_IN_GRAPH)) == 0
