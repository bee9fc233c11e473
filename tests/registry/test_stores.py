"""Stores that know whose they are: artifacts and graphs of other registries, copies and moments."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from registry import Registry
from registry.errors import (
    ArtifactNotFound,
    GraphError,
    GraphOutdated,
    GraphRefused,
    LedgerError,
    StorageError,
    StoreRefused,
)
from registry.files.artifacts import ArtifactStore
from registry.graph.base import GraphStore, Statement
from registry.graph.open import open_graph
from registry.graph.schema import Owner, begin_filling, identify
from registry.ledger.base import Batch
from registry.records import Task
from registry.settings.local import Settings, create_home, load_settings, trust
from tests import examples
from tests.servers.neo4j import Neo4jServer

CIRCUITS_IN_GRAPH = "MATCH (c:Circuit) RETURN c.id AS id ORDER BY id"
ENGINES = ["kglite", pytest.param("neo4j", marks=pytest.mark.neo4j)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    with Registry.init(home) as registry:
        registry.record(examples.GPT2, *examples.TASKS, *map(examples.circuit, range(3)))
        yield registry


@pytest.fixture(params=ENGINES)
def other_graph(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The address of a second, empty graph; the password lies in the environment."""
    if request.param == "kglite":
        return f"kglite:///{tmp_path}/second graph/graph.kgl"
    server: Neo4jServer = request.getfixturevalue("empty_neo4j")
    monkeypatch.setenv("CIRCUITS_GRAPH_USER", server.user)
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", server.password.get_secret_value())
    return server.url


def opened(settings: Settings, *, writing: bool) -> GraphStore:
    return open_graph(
        settings.graph,
        user=settings.graph_user,
        password=settings.graph_password,
        writing=writing,
    )


def ids(registry: Registry) -> set[str]:
    return {row["id"] for row in registry.cypher(CIRCUITS_IN_GRAPH)}


def lose_ledger(home: Path) -> None:
    for file in home.glob("ledger.sqlite*"):
        file.unlink()


def artifacts_of(home: Path) -> list[str]:
    return sorted(str(path) for path in (home / "artifacts").rglob("*") if path.is_file())


class TestArtifacts:
    def test_a_second_ledger_cannot_be_made_beside_artifacts_of_another(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        before = artifacts_of(home)
        elsewhere = load_settings(home, ledger=f"sqlite:///{tmp_path}/elsewhere.sqlite")
        for begin in (Registry.init, Registry.open):
            with pytest.raises(LedgerError, match=r"artifacts of registry .* restore a backup"):
                begin(settings=elsewhere)
        assert not (tmp_path / "elsewhere.sqlite").exists()
        assert artifacts_of(home) == before

    def test_artifacts_of_another_registry_are_neither_read_nor_collected(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        before = artifacts_of(home)
        with Registry.init(tmp_path / "mine") as mine:
            mine.record(examples.circuit(7))
        aimed = load_settings(tmp_path / "mine", artifacts=str(home / "artifacts"))
        with Registry.open(settings=aimed) as mistaken:
            for use in (
                lambda: mistaken.gc(apply=True, grace_seconds=0),
                lambda: mistaken.gc(grace_seconds=0),
                lambda: mistaken.store_artifact(b"x"),
                lambda: mistaken.artifact(examples.circuit(1).id),
                lambda: mistaken.record(examples.circuit(8)),
                lambda: mistaken.backup(tmp_path / "all.zip"),
            ):
                with pytest.raises(StoreRefused, match="belong to registry"):
                    use()
            assert len(mistaken.circuits()) == 1  # the record itself can be read
        assert artifacts_of(home) == before

    def test_a_folder_of_other_files_is_not_taken_for_a_store(self, tmp_path: Path) -> None:
        folder = tmp_path / "photographs"
        folder.mkdir()
        (folder / "cat.jpg").write_bytes(b"a cat")
        settings = load_settings(create_home(tmp_path / "home"), artifacts=str(folder))
        with pytest.raises(LedgerError, match="needs separate artifacts"):
            Registry.init(settings=settings)
        Registry.init(tmp_path / "home").close()
        with (
            Registry.open(settings=settings) as mistaken,
            pytest.raises(StoreRefused, match="holds files without the mark of a registry"),
        ):
            mistaken.gc(apply=True, grace_seconds=0)
        assert [path.name for path in folder.iterdir()] == ["cat.jpg"]

    def test_a_home_whose_ledger_was_lost_is_told_to_restore(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        registry.backup(tmp_path / "all.zip")
        registry.close()
        lose_ledger(home)
        before = artifacts_of(home)
        for command in (
            lambda: Registry.open(home),
            lambda: Registry.init(home),
            lambda: Registry.migrate(load_settings(home)),
        ):
            with pytest.raises(LedgerError, match="restore a backup with 'circuits restore FILE'"):
                command()
        assert artifacts_of(home) == before
        assert not (home / "ledger.sqlite").exists()
        with Registry.restore(tmp_path / "all.zip", home, overwrite_graph=True) as restored:
            assert len(restored.circuits()) == len(ids(restored)) == 3
            assert restored.gc(grace_seconds=0).addresses == ()

    def test_a_copy_that_shares_artifacts_collects_none_of_the_others(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        registry.backup(tmp_path / "all.zip")
        later = examples.circuit(9)
        registry.record(later)
        shared = load_settings(create_home(tmp_path / "trial"), artifacts=str(home / "artifacts"))
        with Registry.restore(tmp_path / "all.zip", settings=shared) as trial:
            assert later.id in trial.gc(grace_seconds=0).addresses
            with pytest.raises(StoreRefused, match=r"another copy.*nothing was deleted"):
                trial.gc(apply=True, grace_seconds=0)
            with pytest.raises(StoreRefused, match="another copy"):
                registry.gc(apply=True, grace_seconds=0)
        assert registry.artifact(later.id)
        assert registry.gc(apply=True, grace_seconds=0, sole_copy=True).addresses == ()
        assert registry.gc(apply=True, grace_seconds=0).deleted

    def test_artifacts_from_before_there_were_marks_are_marked_by_migrate(
        self, registry: Registry, home: Path
    ) -> None:
        registry.close()
        (home / "artifacts" / "registry.json").unlink()
        with Registry.open(home) as unmarked, pytest.raises(StoreRefused, match="migrate"):
            unmarked.circuit(examples.circuit(1).id)
        Registry.migrate(load_settings(home))
        with Registry.open(home) as marked:
            assert marked.circuit(examples.circuit(1).id).circuit == examples.circuit(1)
            # Copies that keep files there, too, may not have been upgraded yet.
            with pytest.raises(StoreRefused, match="another copy"):
                marked.gc(apply=True, grace_seconds=0)
            assert marked.gc(apply=True, grace_seconds=0, sole_copy=True).deleted

    def test_a_copied_folder_that_shares_artifacts_collects_none_of_the_other_s(
        self, tmp_path: Path
    ) -> None:
        first = create_home(tmp_path / "first", artifacts=str(tmp_path / "shared"))
        with Registry.init(settings=load_settings(first)) as original:
            original.record(examples.circuit(1))
        shutil.copytree(first, tmp_path / "second")
        shared = load_settings(tmp_path / "second", artifacts=str(tmp_path / "shared"),
                               ledger=f"sqlite:///{tmp_path}/second/ledger.sqlite")  # fmt: skip
        with Registry.open(settings=shared) as copy:
            copy.record(examples.circuit(2))
        with Registry.open(first) as original:
            with pytest.raises(StoreRefused, match="another copy"):
                original.gc(apply=True, grace_seconds=0)
            assert original.has_artifact(examples.circuit(2).id)

    @pytest.mark.parametrize("by_link", [True, False])
    def test_a_copied_home_that_leads_to_shared_artifacts_collects_none_of_the_other_s(
        self, tmp_path: Path, by_link: bool
    ) -> None:
        artifacts = None if by_link else "../shared"
        first, second, shared = (tmp_path / name for name in ("first", "second", "shared"))
        shared.mkdir()
        first.mkdir()
        if by_link:
            (first / "artifacts").symlink_to(shared)
        create_home(first)
        if artifacts:
            with (first / "circuits.toml").open("a") as file:
                file.write(f'artifacts = "{artifacts}"\n')
        trust(first)
        with Registry.init(first) as original:
            original.record(examples.circuit(1))
        shutil.copytree(first, second, symlinks=True)
        trust(second)
        with Registry.open(second) as copy:
            copy.record(examples.circuit(2))
        assert any(shared.iterdir())
        with Registry.open(first) as original:
            with pytest.raises(StoreRefused, match="another copy"):
                original.gc(apply=True, grace_seconds=0)
            assert original.has_artifact(examples.circuit(2).id)

    def test_an_empty_store_that_another_registry_took_is_seen_by_its_first_owner(
        self, tmp_path: Path
    ) -> None:
        shared = str(tmp_path / "shared")
        homes = [create_home(tmp_path / name, artifacts=shared) for name in ("one", "two")]
        with (
            Registry.init(settings=load_settings(homes[0])) as one,
            Registry.init(settings=load_settings(homes[1])) as two,
        ):
            one.record(examples.circuit(1))
            with pytest.raises(StoreRefused, match="belong to registry"):
                two.gc(apply=True, grace_seconds=0)
            with pytest.raises(StoreRefused, match="belong to registry"):
                two.record(examples.circuit(2))
            assert one.circuit(examples.circuit(1).id).circuit == examples.circuit(1)

    def test_a_home_that_is_copied_or_moved_whole_collects_as_before(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        registry.close()
        shutil.copytree(home, tmp_path / "copied")
        home.rename(tmp_path / "moved")
        for place in ("copied", "moved"):
            with Registry.open(tmp_path / place) as elsewhere:
                nobodys = elsewhere.store_artifact(b"nobody needs this")
                assert elsewhere.gc(apply=True, grace_seconds=0).addresses == (nobodys,)

    def test_a_ledger_that_was_put_back_collects_nothing_of_what_came_later(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        registry.close()
        shutil.copy(home / "ledger.sqlite", tmp_path / "older")
        with Registry.open(home) as later:
            later.record(examples.circuit(8))
        lose_ledger(home)
        shutil.copy(tmp_path / "older", home / "ledger.sqlite")
        with Registry.open(home) as put_back:
            with pytest.raises(StoreRefused, match="restored to an older state"):
                put_back.gc(apply=True, grace_seconds=0)
            assert put_back.has_artifact(examples.circuit(8).id)
            put_back.close()
        (home / "graph.kgl").rename(home / "hidden")
        with Registry.open(home) as put_back:
            with pytest.raises(GraphError, match="Nothing was deleted"):
                put_back.gc(apply=True, grace_seconds=0)
            put_back.sync()
            assert examples.circuit(8).id in put_back.gc(apply=True, grace_seconds=0).addresses

    @pytest.mark.parametrize("content", ["{", "[]", '"x"', '{"registry": 1}', "\0", "[" * 100_000])
    def test_a_mark_that_is_none_is_refused(
        self, registry: Registry, home: Path, content: str
    ) -> None:
        (home / "artifacts" / "registry.json").write_text(content)
        with Registry.open(home) as opened_, pytest.raises(StoreRefused, match="is not a mark"):
            opened_.gc()

    def test_a_mark_is_written_before_anything_else(self, tmp_path: Path) -> None:
        store = ArtifactStore(str(tmp_path / "store"))
        store.claim("r" * 32, "i" * 32)
        assert not (tmp_path / "store").exists()
        with pytest.raises(ArtifactNotFound):
            store.get("a" * 64)
        store.put(b"x")
        owner = store.owner()
        assert owner is not None
        assert (owner.registry, owner.instances) == ("r" * 32, ("i" * 32,))


class TestGraphs:
    def test_each_graph_of_a_ledger_is_right_or_says_that_it_is_behind(
        self,
        registry: Registry,
        home: Path,
        other_graph: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        second = load_settings(home, graph=other_graph)
        with Registry.open(settings=second) as there:
            there.rebuild()
        registry.record(examples.circuit(8))
        registry.tag(examples.circuit(0).id, add=["final"])
        assert registry.status().pending == 0
        with Registry.open(settings=second) as there:
            assert there.status().pending == 2
            assert len(ids(there)) == 3
            assert "changes not yet in the graph: 2; run 'circuits sync'" in caplog.text
            assert there.sync() == 2
            caplog.clear()
            assert ids(there) == ids(registry)
            assert caplog.text == ""

    def test_a_restored_copy_leaves_the_graph_of_the_first_alone(
        self, registry: Registry, home: Path, tmp_path: Path, other_graph: str
    ) -> None:
        production = load_settings(home, graph=other_graph)
        registry.backup(tmp_path / "old.zip")
        with Registry.open(settings=production) as first:
            first.record(examples.circuit(8))
            first.rebuild()
            trial = load_settings(create_home(tmp_path / "trial"), graph=other_graph)
            with pytest.raises(GraphRefused, match="--overwrite-graph"):
                Registry.restore(tmp_path / "old.zip", settings=trial)
            assert not (tmp_path / "trial" / "ledger.sqlite").exists()
            assert len(ids(first)) == 4
            # Restored beside it, and then pointed at it.
            Registry.restore(tmp_path / "old.zip", tmp_path / "trial").close()
            with Registry.open(settings=trial) as copy:
                for touch in (copy.sync, copy.rebuild, lambda: ids(copy)):
                    with pytest.raises(GraphRefused, match="another copy of this registry"):
                        touch()
                assert "another copy" in copy.status().graph
                assert len(ids(first)) == 4
                copy.rebuild(overwrite=True)
                assert len(ids(copy)) == 3
            with pytest.raises(GraphRefused, match="another copy of this registry"):
                ids(first)

    def test_a_graph_ahead_of_a_ledger_that_was_put_back_is_made_again(
        self,
        registry: Registry,
        home: Path,
        tmp_path: Path,
        other_graph: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        registry.close()
        settings = load_settings(home, graph=other_graph)
        with Registry.open(settings=settings) as before:
            before.sync()
        shutil.copytree(home, tmp_path / "kept")
        with Registry.open(settings=settings) as later:
            later.record(examples.circuit(8))
        lose_ledger(home)
        for file in (tmp_path / "kept").glob("ledger.sqlite*"):
            shutil.copy(file, home / file.name)
        with Registry.open(settings=settings) as put_back:
            assert len(ids(put_back)) == 4
            assert "restored to an older state" in caplog.text
            assert "restored to an older state" in put_back.status().graph
            # The same number of revisions, and yet another history.
            put_back.record(examples.circuit(9))
            assert ids(put_back) == {entry.id for entry in put_back.circuits()}
            assert put_back.status().graph.startswith("ready")

    @pytest.mark.parametrize(
        "left_as",
        [
            # By a writer whose record is not in the ledger, as it was put back meanwhile.
            "SET r.state = 'writing'",
            # By a version that did not know of which copy and which revision a graph is.
            "SET r.schema_version = 1 REMOVE r.instance, r.revision, r.token",
        ],
    )
    def test_a_graph_that_the_ledger_does_not_explain_is_made_again(
        self, registry: Registry, home: Path, other_graph: str, left_as: str
    ) -> None:
        registry.close()
        settings = load_settings(home, graph=other_graph)
        with Registry.open(settings=settings) as there:
            there.sync()
            before = ids(there)
        with opened(settings, writing=True) as graph:
            graph.write(
                [
                    Statement(f"MATCH (r:Registry) {left_as}"),
                    Statement("MATCH (c:Circuit) WITH c LIMIT 1 DETACH DELETE c"),
                    Statement("CREATE (:Task {id: 'nobody'})"),
                ]
            )
            graph.checkpoint()
        with Registry.open(settings=settings) as there:
            there.sync()
            assert ids(there) == before
            assert there.cypher("MATCH (t:Task {id: 'nobody'}) RETURN t.id AS t").values == ()

    def test_a_killed_rebuild_is_no_graph_to_read(
        self, registry: Registry, home: Path, other_graph: str
    ) -> None:
        settings = load_settings(home, graph=other_graph)
        owner = Owner(registry.ledger.registry_id, registry.ledger.instance)
        with Registry.open(settings=settings) as there:
            there.rebuild()
            before = ids(there)
            with opened(settings, writing=True) as graph:
                begin_filling(graph, owner, identify(graph, owner))
            if there.settings.graph_is_embedded:  # which shows its last checkpoint
                assert ids(there) == before
                return
            with pytest.raises(GraphOutdated, match="being rebuilt and is not complete yet"):
                ids(there)
            assert not there.status().graph.startswith("ready")
            assert there.sync() > 0
            assert ids(there) == before

    def test_an_open_reader_never_sees_a_rebuild_half_done(
        self, registry: Registry, home: Path, other_graph: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = load_settings(home, graph=other_graph)
        seen: list[int | None] = []
        with Registry.open(settings=settings) as there, Registry.open(settings=settings) as reader:
            there.rebuild()
            assert len(ids(reader)) == 3

            def look(work: Callable[..., object]) -> Callable[..., object]:
                def looked(*arguments: object, **named: object) -> object:
                    try:
                        seen.append(len(ids(reader)))
                    except GraphOutdated:
                        seen.append(None)
                    return work(*arguments, **named)

                return looked

            with opened(settings, writing=False) as graph:
                store = type(graph)
            for step in ("write", "clear", "checkpoint"):
                monkeypatch.setattr(store, step, look(getattr(store, step)))
            there.rebuild()
        assert len(seen) > 5
        assert set(seen) <= {3, None}

    def test_a_record_that_the_graph_cannot_take_does_not_stop_the_others(
        self, registry: Registry, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        damaged, later = examples.circuit(1), examples.circuit(8)
        document = home / "artifacts" / damaged.id[:2] / damaged.id[2:]
        kept = document.read_bytes()
        document.unlink()
        registry.rebuild()
        registry.record(later)
        (aside,) = registry.put_aside()
        assert aside.change.key == damaged.id
        assert "no artifact" in aside.reason
        assert ids(registry) == {examples.circuit(seed).id for seed in (0, 2, 8)}
        assert "records that the graph could not accept: 1" in caplog.text
        assert registry.sync() == 0
        (tmp_path / "found again").write_bytes(kept)
        mended, left = registry.mend(tmp_path / "found again")
        assert ([one.address for one in mended], left) == ([damaged.id], ())
        assert registry.put_aside() == ()
        assert damaged.id in ids(registry)

    @pytest.mark.neo4j
    def test_an_index_whose_constraint_was_never_made_is_cleared_away(
        self, registry: Registry, home: Path, empty_neo4j: Neo4jServer
    ) -> None:
        settings = load_settings(home, graph=empty_neo4j.url, graph_user=empty_neo4j.user)
        settings = settings.model_copy(update={"graph_password": empty_neo4j.password})
        leave = "CREATE INDEX {} FOR (n:{}) ON (n.id)"
        # As a server leaves it that is killed between the two.
        with opened(settings, writing=True) as graph:
            graph.write([Statement(leave.format("registry_id", "Registry"))])
        with Registry.open(settings=settings) as there:
            assert there.sync() > 0
            assert len(ids(there)) == 3
        with opened(settings, writing=True) as graph:
            graph.write([Statement("MATCH (r:Registry) SET r.schema_version = 1")])
            graph.write([Statement("DROP CONSTRAINT put_aside_id")])
            graph.write([Statement(leave.format("put_aside_id", "PutAside"))])
        with Registry.open(settings=settings) as there:
            assert there.sync() > 0
            assert len(ids(there)) == 3

    @pytest.mark.neo4j
    def test_a_name_too_long_for_an_index_does_not_stop_the_others(
        self, registry: Registry, home: Path, empty_neo4j: Neo4jServer
    ) -> None:
        too_long = Task.model_construct(slug="x" * 9_000, family="x", description="")
        registry.ledger.record(Batch(tasks=[too_long]))  # as an older version would
        settings = load_settings(home, graph=empty_neo4j.url, graph_user=empty_neo4j.user)
        settings = settings.model_copy(update={"graph_password": empty_neo4j.password})
        with Registry.open(settings=settings) as there:
            there.record(examples.circuit(8))
            assert len(ids(there)) == 4
            (aside,) = there.put_aside()
            assert aside.change.key == too_long.slug
            assert there.rebuild() > 0
            assert len(ids(there)) == 4


class TestRestoring:
    def test_a_restore_that_was_killed_goes_on_where_it_was(
        self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        registry.backup(tmp_path / "all.zip")
        with monkeypatch.context() as patched:
            patched.setattr("registry.graph.projection.project", killed)
            with pytest.raises(KeyboardInterrupt):
                Registry.restore(tmp_path / "all.zip", tmp_path / "new")
        with Registry.restore(tmp_path / "all.zip", tmp_path / "new") as restored:
            assert restored.circuits() == registry.circuits()
            assert ids(restored) == ids(registry)

    def test_another_backup_is_not_restored_over_it(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        registry.backup(tmp_path / "first.zip")
        registry.record(examples.circuit(8))
        registry.backup(tmp_path / "second.zip")
        Registry.restore(tmp_path / "first.zip", tmp_path / "new").close()
        with pytest.raises(LedgerError, match="already holds records"):
            Registry.restore(tmp_path / "second.zip", tmp_path / "new")

    def test_a_damaged_artifact_is_left_out_and_named(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        damaged = examples.circuit(1).id
        registry.backup(tmp_path / "whole.zip")
        (home / "artifacts" / damaged[:2] / damaged[2:]).write_bytes(b"x")
        with pytest.raises(StorageError, match=rf"document of circuit {damaged[:12]}.*--skip-dam"):
            registry.backup(tmp_path / "all.zip")
        assert not (tmp_path / "all.zip").exists()
        report = registry.backup(tmp_path / "some.zip", skip_damaged=True)
        assert [damage.address for damage in report.left_out] == [damaged]
        with Registry.restore(tmp_path / "some.zip", tmp_path / "new") as restored:
            assert len(restored.circuits()) == 3
            assert len(ids(restored)) == 2
            assert [damage.fault for damage in restored.damage()] == ["missing"]
            mended, left = restored.mend(tmp_path / "whole.zip")
            assert (len(mended), left) == (1, ())
            assert len(ids(restored)) == 3

    def test_a_damaged_database_is_found_and_not_backed_up(
        self, registry: Registry, home: Path, tmp_path: Path
    ) -> None:
        registry.close()
        with closing(sqlite3.connect(home / "ledger.sqlite")) as database:
            page_size = database.execute("PRAGMA page_size").fetchone()[0]
            table = "SELECT rootpage FROM sqlite_master WHERE name = 'outcomes'"
            page = database.execute(table).fetchone()[0]
        with (home / "ledger.sqlite").open("r+b") as file:
            file.seek((page - 1) * page_size)
            file.write(b"\xff" * page_size)
        with (
            Registry.open(home) as opened_,
            pytest.raises(LedgerError, match=r"is damaged \(.*restore a backup"),
        ):
            opened_.backup(tmp_path / "all.zip")
        assert not (tmp_path / "all.zip").exists()


def test_every_answer_of_a_graph_that_is_behind_says_so(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with registry.projecting_later():
        registry.record(examples.circuit(8))
        for _ in range(3):
            ids(registry)
    assert [record.getMessage() for record in caplog.records] == [
        "changes not yet in the graph: 1; run 'circuits sync'"
    ] * 3
