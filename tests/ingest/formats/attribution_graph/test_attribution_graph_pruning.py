"""Pruning by influence against its definition with whole matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.attribution_graph.file import GraphFile, read_graph
from ingest.formats.attribution_graph.nodes import NodeType
from ingest.formats.attribution_graph.pruning import prune
from ingest.formats.base import Context
from tests.ingest.formats.attribution_graphs import (
    error,
    feature,
    graph,
    link,
    logit,
    token,
    written,
)

SHARED = Path(__file__).parents[5] / "shared" / "fixtures" / "external" / "circuit-tracer"


def dense_pruning(
    matrix: np.ndarray[Any, Any],
    types: list[NodeType],
    probabilities: np.ndarray[Any, Any],
    nodes_share: float,
    links_share: float,
) -> tuple[set[int], set[tuple[int, int]]]:
    """The definition with whole matrices: all paths at once, ``(I - A)^-1 - I``."""

    def influence(weights: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        sums = np.abs(weights).sum(1, keepdims=True)
        shares = np.abs(weights) / np.where(sums > 1e-10, sums, 1e-10)
        paths = np.linalg.inv(np.eye(len(weights)) - shares) - np.eye(len(weights))
        return shares, probabilities @ paths

    def least(scores: np.ndarray[Any, Any], share: float) -> float:
        held, total = 0.0, scores.sum()
        for score in sorted(scores.ravel().tolist(), reverse=True):
            held += score
            if held >= share * total - 1e-12:
                return float(score)
        return 0.0

    _, reached = influence(matrix)
    ends = np.array([type_ in {NodeType.TOKEN, NodeType.LOGIT} for type_ in types])
    nodes = (reached >= least(reached, nodes_share) - 1e-12) | ends
    left = np.where(nodes[:, None] & nodes[None, :], matrix, 0.0)
    shares, reached = influence(left)
    scores = shares * (reached + probabilities)[:, None]
    links = (scores >= least(scores, links_share) - 1e-12) & (left != 0)
    while True:
        before = nodes.copy()
        for at, type_ in enumerate(types):
            if type_ in {NodeType.FEATURE, NodeType.ERROR} and not links[:, at].any():
                nodes[at] = False
            if type_ is NodeType.FEATURE and not links[at].any():
                nodes[at] = False
        links &= nodes[:, None] & nodes[None, :]
        if (nodes == before).all():
            break
    found = {(int(s), int(t)) for t, s in zip(*np.nonzero(links), strict=True)}
    return set(np.flatnonzero(nodes).tolist()), found


@st.composite
def layered_graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Graphs whose weights are irregular, so that no two scores are alike."""
    n_features = draw(st.integers(1, 6))
    nodes = [feature(at, 11 * at + 1, 0) for at in range(n_features)]
    nodes += [error(at, 0, node_id=f"error_{at}") for at in range(draw(st.integers(0, 3)))]
    nodes += [token(5, 0), token(6, 1)]
    nodes += [logit(at, 1, 0.61 / (at + 1)) for at in range(draw(st.integers(1, 3)))]
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    links = []
    for source in nodes:
        for target in nodes:
            after = -1 if source["layer"] == "E" else int(source["layer"])
            sends = source["feature_type"] != "logit"
            takes = target["feature_type"] in {"logit", "cross layer transcoder"}
            if sends and takes and after < int(target["layer"]) and random.random() < 0.7:
                links.append(link(source["node_id"], target["node_id"], random.normal()))
    return graph(nodes=nodes, links=links)


def whole(path: Path) -> tuple[GraphFile, np.ndarray[Any, Any]]:
    found = read_graph(path, Context())
    matrix = np.zeros((len(found.nodes), len(found.nodes)))
    for one in found.links:
        matrix[one.target, one.source] = one.weight
    return found, matrix


@given(layered_graphs(), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_pruning_is_what_its_definition_with_matrices_gives(
    tmp_path_factory: pytest.TempPathFactory,
    content: dict[str, Any],
    nodes_share: float,
    links_share: float,
) -> None:
    found, matrix = whole(written(tmp_path_factory.mktemp("graph"), content))
    probabilities = np.array([node.probability or 0.0 for node in found.nodes])
    types = [node.type for node in found.nodes]
    kept = prune(found, nodes_share, links_share)
    nodes, links = dense_pruning(matrix, types, probabilities, nodes_share, links_share)
    assert set(kept.nodes) == nodes
    assert {(found.links[at].source, found.links[at].target) for at in kept.links} == links


def test_pruning_by_hand(tmp_path: Path) -> None:
    # The logit hears feature a (3/4) and the token (1/4); a hears the token alone, b is heard by
    # nobody. Influence: a .75, token .25 + .75 = 1; b 0. All: 1.75.
    nodes = [feature(0, 1, 0), feature(1, 2, 0), token(5, 0), logit(7, 0, 1.0)]
    links = [
        link("0_1_0", "9_7_0", -3.0), link("E_5_0", "9_7_0", 1.0),
        link("E_5_0", "0_1_0", 2.0), link("E_5_0", "1_2_0", 9.0),
    ]  # fmt: skip
    found = read_graph(written(tmp_path, graph(nodes=nodes, links=links)), Context())
    assert prune(found, 0.57, None).nodes == (2, 3)  # the token holds 1 / 1.75 = .571
    assert prune(found, 0.58, None).nodes == (0, 2, 3)
    # Links' scores: a -> logit .75, token -> a .75, token -> logit .25.
    assert prune(found, 0.9, 0.8).links == (0, 2)
    assert prune(found, 0.9, 0.9).links == (0, 1, 2)


@pytest.mark.skipif(not SHARED.is_dir(), reason="other tools' files are not beside this checkout")
def test_pruning_a_real_file_is_what_its_definition_gives() -> None:
    found, matrix = whole(SHARED / "dallas-austin-llamma.json")
    kept = prune(found, 0.6, 0.8)
    types = [node.type for node in found.nodes]
    probabilities = np.array([node.probability or 0.0 for node in found.nodes])
    nodes, links = dense_pruning(matrix, types, probabilities, 0.6, 0.8)
    assert set(kept.nodes) == nodes
    assert {(found.links[at].source, found.links[at].target) for at in kept.links} == links
    assert 0 < len(links) < 330
