"""Links of attribution graphs whose ids two nodes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.formats.attribution_graph.format import FORMAT
from ingest.formats.base import Context, Imported, Said
from registry.records import Circuit
from tests.ingest.formats.attribution_graphs import (
    error,
    feature,
    graph,
    link,
    token,
    written,
)


def read(folder: Path, content: Any) -> Imported:
    said = Said(model="gemma-2-2b", task="completion")
    return FORMAT.read(written(folder, content), Context(said))


def only(imported: Imported) -> Circuit:
    (circuit,) = imported.circuits
    return circuit


def effects(circuit: Circuit) -> dict[str, float | None]:
    return {f"{edge.source}->{edge.target}": edge.effect for edge in circuit.edges}


class TestSharedIds:
    """An error of layer 5 and feature 5 of layer 0 have one id at one position."""

    @staticmethod
    def content(*links: dict[str, Any]) -> dict[str, Any]:
        nodes = [feature(0, 5, 1), feature(3, 8, 1), feature(7, 9, 1), error(5, 1), token(2, 1)]
        return graph(nodes=nodes, links=list(links))

    def test_both_nodes_are_kept(self, tmp_path: Path) -> None:
        keys = [node.component for node in only(read(tmp_path, self.content())).nodes]
        assert {"m0.f5#mntss--small-set", "m5.error#mntss--small-set"} <= set(keys)

    def test_a_link_to_the_id_leads_to_the_feature(self, tmp_path: Path) -> None:
        circuit = only(read(tmp_path, self.content(link("E_2_1", "0_5_1", 4.0))))
        assert effects(circuit) == {"input@1->m0.f5#mntss--small-set@1": 4.0}

    def test_a_link_to_an_earlier_layer_than_the_error_comes_from_the_feature(
        self, tmp_path: Path
    ) -> None:
        circuit = only(read(tmp_path, self.content(link("0_5_1", "3_8_1", 4.0))))
        assert effects(circuit) == {"m0.f5#mntss--small-set@1->m3.f8#mntss--small-set@1": 4.0}

    def test_a_link_that_fits_both_is_no_edge_but_is_kept(self, tmp_path: Path) -> None:
        content = self.content(link("0_5_1", "7_9_1", 4.0), link("0_5_1", "7_9_1", -1.0))
        found = read(tmp_path, content)
        assert only(found).edges == ()
        assert only(found).parameters["ambiguous_links"] == [
            ["0_5_1", "7_9_1", 4.0], ["0_5_1", "7_9_1", -1.0],
        ]  # fmt: skip
        assert "2 links fit two nodes with one id" in found.notes[-1]

    @staticmethod
    def ordered(skipped: tuple[int, ...] = (), sources: int = 6) -> tuple[dict[str, Any], Any]:
        """A graph as the tool writes it, and the weight of each link it stands for."""
        early = [feature(0, 5, 1), *(feature(1, index, 1) for index in range(sources))]
        late = [feature(7, 9, 1), feature(8, 9, 1)]
        nodes = [*early, *late, error(4, 1), error(5, 1), error(6, 1), token(2, 1)]
        senders = [at for at in range(len(nodes)) if nodes[at] not in late]
        pairs = [(to, at) for to in (len(early), len(early) + 1) for at in senders]
        kept = [pair for number, pair in enumerate(pairs) if number not in skipped]
        links = [
            link(nodes[at]["node_id"], nodes[to]["node_id"], float(number))
            for number, (to, at) in enumerate(kept)
        ]

        def key(node: dict[str, Any]) -> str:
            part = "error" if node["feature"] == -1 else f"f{node['node_id'].split('_')[1]}"
            layer = f"m{node['layer']}.{part}#mntss--small-set@1"
            return "input@1" if node["layer"] == "E" else layer

        expected = {
            f"{key(nodes[at])}->{key(nodes[to])}": float(number)
            for number, (to, at) in enumerate(kept)
        }
        return graph(nodes=nodes, links=links), expected

    @pytest.mark.parametrize("skipped", [(), (0,), (8,), (0, 19), (11, 8), (0, 8)])
    def test_the_order_in_which_the_tool_writes_links_tells_which_node_is_meant(
        self, tmp_path: Path, skipped: tuple[int, ...]
    ) -> None:
        content, expected = self.ordered(skipped)
        circuit = only(read(tmp_path, content))
        assert effects(circuit) == expected
        assert "ambiguous_links" not in circuit.parameters

    def test_links_in_another_order_tell_nothing(self, tmp_path: Path) -> None:
        content, expected = self.ordered()
        content["links"][1:3] = content["links"][2:0:-1]
        circuit = only(read(tmp_path, content))
        assert len(circuit.parameters["ambiguous_links"]) == 4
        assert effects(circuit).items() < expected.items()

    def test_a_few_links_may_be_in_order_by_chance(self, tmp_path: Path) -> None:
        content, _ = self.ordered(sources=1)
        assert len(only(read(tmp_path, content)).parameters["ambiguous_links"]) == 4

    def test_many_nodes_of_one_id_are_no_burden(self, tmp_path: Path) -> None:
        nodes = [feature(at, at, 1, node_id="x") for at in range(60)]
        nodes += [feature(100 + at, 1, 1) for at in range(20)]
        known = [link(f"{100 + at}_1_1", f"{101 + at}_1_1") for at in range(19)]
        links = [*(link("x", "119_1_1", at) for at in range(60)), *known]
        circuit = only(read(tmp_path, graph(nodes=nodes, links=links)))
        assert (len(circuit.edges), len(circuit.parameters["ambiguous_links"])) == (19, 60)
