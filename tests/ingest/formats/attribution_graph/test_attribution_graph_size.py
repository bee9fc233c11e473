"""Attribution graphs that are larger than others may be, in any order and in blocks of any size."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.attribution_graph import file as attribution_graph_file
from ingest.formats.attribution_graph import links as attribution_graph_links
from ingest.formats.attribution_graph.format import FORMAT
from ingest.formats.base import Context, Imported, Limits, Said
from registry.errors import BadInput
from tests.ingest.formats.attribution_graph.test_attribution_graph_pruning import layered_graphs
from tests.ingest.formats.attribution_graphs import error, feature, graph, link, logit, written

SAID = Said(model="gemma-2-2b", task="completion")
PARTS: list[dict[str, Any]] = [
    {"node_threshold": 0.5}, {"edge_threshold": 0.5}, {"top": 3}, {"threshold": 1.0},
]  # fmt: skip


def read(path: Path, limits: Limits | None = None, **said: Any) -> Imported:
    return FORMAT.read(path, Context(SAID.model_copy(update=said), limits or Limits()))


def outcome(path: Path, **said: Any) -> Any:
    """What a file gives: all of it, or why it is refused."""
    try:
        found = read(path, **said)
    except BadInput as error:
        return str(error)
    return [one.model_dump() for one in found.circuits], list(found.artifacts), found.notes


ORDERS = list(itertools.permutations(["metadata", "qParams", "nodes", "links"]))


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_a_files_parts_does_not_matter(tmp_path: Path, order: tuple[str, ...]) -> None:
    content = graph()
    expected = outcome(written(tmp_path, content))
    shuffled = {part: content[part] for part in order}
    assert outcome(written(tmp_path, {"more": [{"a": {}}], **shuffled, "last": "}"})) == expected


@given(layered_graphs(), st.integers(1, 5), st.sampled_from([{}, *PARTS]), st.randoms())
def test_blocks_of_any_size_give_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, Any],
    block: int,
    said: dict[str, Any],
    random: Any,
) -> None:
    content["links"] += random.choices(content["links"], k=2) if content["links"] else []
    if random.random() < 0.5:
        random.shuffle(content["links"])
    path = written(tmp_path_factory.mktemp("graph"), content)
    expected = outcome(path, **said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution_graph_links, "BLOCK", block)
        assert outcome(path, **said) == expected


class TestLimits:
    @pytest.mark.parametrize("said", PARTS)
    def test_a_part_may_be_taken_of_what_is_too_large_to_be_read_whole(
        self, tmp_path: Path, said: dict[str, Any]
    ) -> None:
        path = written(tmp_path, json.dumps(graph()) + " " * 5_000)
        expected = read(path, **said).circuits
        n_edges = len(next(iter(expected)).edges)
        assert n_edges < 4
        for limits in (Limits(max_bytes=5_000), Limits(max_edges=5, max_bytes=5_000)):
            with pytest.raises(BadInput, match="--max-"):
                read(path, limits)
            assert read(path, limits, **said).circuits == expected

    def test_a_whole_file_of_too_many_links_is_refused_with_what_takes_a_part(
        self, tmp_path: Path
    ) -> None:
        path = written(tmp_path, graph())
        says = "4 links and 3 are allowed; --node-threshold, --edge-threshold, --threshold or --top"
        with pytest.raises(BadInput, match=says):
            read(path, Limits(max_edges=3))

    @pytest.mark.parametrize("said", [{"edge_threshold": 1.0}, {"top": 4}, {"threshold": 0.0}])
    def test_a_part_of_too_many_links_is_refused(
        self, tmp_path: Path, said: dict[str, Any]
    ) -> None:
        path = written(tmp_path, graph())
        with pytest.raises(BadInput, match="--max-edges"):
            read(path, Limits(max_edges=3), **said)
        assert read(path, Limits(max_edges=5), **said).circuits

    def test_links_that_memory_cannot_hold_are_refused_before_they_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = graph(links=[link("E_2_1", "0_3_1")] * 200)
        path = written(tmp_path, content)
        limits = Limits(max_bytes=200 * attribution_graph_file._BYTES_PER_LINK - 1)
        monkeypatch.setattr(attribution_graph_file, "read_object", None)
        says = "200 links, which take 6,400 bytes of memory, and 6,399 are allowed; --max-bytes"
        with pytest.raises(BadInput, match=says):
            read(path, limits, node_threshold=0.5)

    def test_links_that_hide_from_being_counted_are_refused_as_they_are_read(
        self, tmp_path: Path
    ) -> None:
        content = graph(links=[link("E_2_1", "0_3_1")] * 200)
        text = json.dumps(content).replace('"source"', '"\\u0073ource"')
        path = written(tmp_path, text)
        for said, limits in (
            ({"top": 3}, Limits(max_bytes=6_399)), ({}, Limits(max_edges=199)),
        ):  # fmt: skip
            with pytest.raises(BadInput, match="200 links"):
                read(path, limits, **said)

    def test_nodes_that_memory_cannot_hold_are_refused(self, tmp_path: Path) -> None:
        content = graph(links=[])
        node = content["nodes"][0]
        content["nodes"] = [{**node, "node_id": f"0_{at}_1", "feature": None} for at in range(20)]
        path = written(tmp_path, json.dumps(content, indent=2))
        limits = Limits(max_bytes=path.stat().st_size // 2)
        assert limits.max_bytes < 20 * attribution_graph_file._BYTES_PER_NODE
        with pytest.raises(BadInput, match="20 nodes, which take 20,000 bytes of memory"):
            read(path, limits, node_threshold=0.5)

    def test_no_file_may_be_of_any_size(self, tmp_path: Path) -> None:
        path = written(tmp_path, graph())
        size = path.stat().st_size
        with pytest.raises(BadInput, match="--max-bytes"):
            read(path, Limits(max_bytes=(size - 1) // 4), node_threshold=0.5)

    def test_many_links_of_shared_ids_are_refused(self, tmp_path: Path) -> None:
        content = graph()
        content["nodes"].append({**content["nodes"][1], "ctx_idx": 0})
        content["links"] = [link("2_4_1", "9_7_1", 1.0)] * 9
        with pytest.raises(BadInput, match="9 links with ids of several nodes"):
            read(written(tmp_path, content), Limits(max_edges=8), top=3)


@pytest.mark.parametrize("said", [{"top": 10}, {"node_threshold": 0.8, "edge_threshold": 0.8}])
def test_links_are_not_held_as_objects(tmp_path: Path, said: dict[str, Any]) -> None:
    sources = [error(0, at) for at in range(2_000)]
    targets = [feature(1, at, 1) for at in range(50)]
    links = [
        link(one["node_id"], to["node_id"], 1.0 / (1 + at))
        for to in targets
        for at, one in enumerate(sources)
    ]
    links += [link(to["node_id"], "9_7_1", 1.0) for to in targets]
    content = graph(nodes=[*sources, *targets, logit(7, 1)], links=links)
    path = written(tmp_path, json.dumps(content, indent=2))
    tracemalloc.start()
    try:
        (circuit,) = read(path, **said).circuits
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < len(circuit.edges) < 20_000
    # All of it at once takes its text and three times that.
    assert peak_bytes < 1.5 * path.stat().st_size


def test_reading_a_long_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def stage(title: str) -> Any:
        told.append(title)
        return lambda done, total: told.append((done, total))

    path = written(tmp_path, graph())
    FORMAT.read(path, Context(SAID, stage=stage))
    assert told == []
    monkeypatch.setattr(attribution_graph_file, "_LONG_BYTES", 100)
    FORMAT.read(path, Context(SAID, stage=stage))
    size = path.stat().st_size
    assert (told[0], told[-1]) == ("reading graph.json", (size, size))
