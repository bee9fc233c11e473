"""Every command that compares circuits gives the same answer on every engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from registry import Registry
from registry.cli.main import main
from registry.settings.local import load_settings
from tests import examples
from tests.queries import small_registry
from tests.queries.small_registry import IOI, IOI_AT_POSITIONS, MONTHS, NUMERALS
from tests.servers.neo4j import Neo4jServer

pytestmark = [pytest.mark.seconds, pytest.mark.neo4j]

TASKS = ("--task", "ioi,sequence/numerals,sequence/months", "--model", "gpt2")
ASKED: Mapping[str, tuple[str, ...]] = {
    "compare": ("compare", IOI.id, NUMERALS.id, "--draws", "20"),
    "compare tasks": ("compare", "--task", "ioi,sequence/numerals", "--model", "gpt2"),
    "compare all": (
        "compare", "--task", "ioi,sequence/numerals", "--model", "gpt2", "--circuits", "all",
        "--draws", "20", "--anyway",
    ),
    "diff": ("diff", IOI.id, NUMERALS.id),
    "matrix": ("matrix", *TASKS, "--draws", "20", "--anyway"),
    "nearest": ("nearest", IOI.id),
    "nearest by components": ("nearest", small_registry.NODES_ONLY.id),
    "reuse": ("reuse", *TASKS, "--draws", "20"),
    "shared": ("shared", *TASKS, "--min-tasks", "2", "--unique"),
    "shared named": (
        "shared", "--task", "ioi,sequence/months", "--circuits",
        f"{IOI_AT_POSITIONS.id},{MONTHS.id}",
    ),
    "stability": ("stability", "ioi", "--model", "gpt2"),
    "where": ("where", "gpt2/a9.h6"),
    "where connection": ("where", "gpt2/a0.h1->a9.h6<k>"),
}  # fmt: skip


@pytest.fixture(scope="module")
def homes(neo4j_server: Neo4jServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small registry, once in the embedded engine and once in Neo4j."""
    folder = tmp_path_factory.mktemp("commands")
    embedded, served = folder / "kglite", folder / "neo4j"
    with neo4j_server.open() as store:
        store.clear()
    where = {
        "graph": neo4j_server.url,
        "graph_user": neo4j_server.user,
        "graph_password": neo4j_server.password,
    }
    for home in (embedded, served):
        Registry.init(home).close()
        settings = load_settings(home)
        if home is served:
            settings = settings.model_copy(update=where)
        with Registry.open(settings=settings) as registry:
            small_registry.fill(registry)
            registry.record(*(examples.circuit(seed) for seed in range(60, 63)))
    return embedded, served


@pytest.mark.parametrize("name", ASKED)
def test_both_engines_answer_alike(
    name: str,
    homes: tuple[Path, Path],
    neo4j_server: Neo4jServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedded, served = homes
    monkeypatch.delenv("CIRCUITS_GRAPH", raising=False)
    asked = (*ASKED[name], "--format", "json")
    assert main(["--home", str(embedded), *asked]) == 0
    expected = capsys.readouterr()
    monkeypatch.setenv("CIRCUITS_GRAPH", neo4j_server.url)
    monkeypatch.setenv("CIRCUITS_GRAPH_USER", neo4j_server.user)
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", neo4j_server.password.get_secret_value())
    assert main(["--home", str(served), *asked]) == 0
    found = capsys.readouterr()
    assert (found.out, found.err) == (expected.out, expected.err)
    assert found.out.count("\n") > 3
