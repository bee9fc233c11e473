"""Real attribution graphs: every fact that their source states."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingest.exchange.importing import FileOutcome, FileReport, import_files
from ingest.formats.attribution_graph.values import NodeValues, unpack
from registry import Registry
from registry.identifiers import Kind, parse_node_key
from registry.records import Circuit

SHARED = Path(__file__).parents[5] / "shared" / "fixtures" / "external" / "circuit-tracer"
needs_files = pytest.mark.skipif(
    not SHARED.is_dir(), reason="other tools' files are not beside this checkout"
)


pytestmark = pytest.mark.seconds  # tens of thousands of links are recorded and projected


class Real(NamedTuple):
    name: str
    report: FileReport
    circuit: Circuit
    values: NodeValues


PLANET = "thelargestplanet-1763017024609_2025-11-13T06-58-01-950Z.json"
FACTS: dict[str, dict[str, Any]] = {
    "3plus5-plt.json": {
        "slug": "gemma-addition", "scan": "gemma-2-2b", "prompt": "<bos>3 + 5 = ", "tokens": 7,
        "node_threshold": 0.7, "generator": "circuit-tracer", "schema": None,
        "pruning": {"node_threshold": 0.7, "edge_threshold": 0.9},
        "types": {"feature": 463, "input": 7, "logit": 8, "error": 80}, "links": 22_789,
        "least": -28.926206588745117, "most": 95.97602081298828, "negative": 9626, "integers": 0,
        "cantor": 0, "layered": 463, "layers": (0, 25), "between features": 12_774, "pinned": 0,
        "best": ("logits[235321]@6", 0.6901043653488159, 'Output "8" (p=0.690)'),
        "five": [
            ("m24.f14176", 6, "m25.f8798", 6, 95.97602081298828),
            ("m21.f8824", 6, "m24.f14176", 6, 83.39793395996094),
            ("m24.f14176", 6, "m25.f14647", 6, 63.680198669433594),
            ("input", 6, "m1.f1412", 6, 45.16143798828125),
            ("m21.f8824", 6, "m24.f14792", 6, 41.71782302856445),
        ],
        "dictionary": "gemmascope-transcoder-16k",
    },
    "dallas-austin-llamma.json": {
        "slug": "dallas-austin-llamma", "scan": "mntss/gemma-scope-transcoders",
        "prompt": "<bos>Fact: The capital of state containing Dallas is", "tokens": 10,
        "node_threshold": 0.5, "generator": None, "schema": 1, "pruning": None,
        "types": {"feature": 40, "input": 10, "logit": 10}, "links": 330,
        "least": -18.125, "most": 69.5, "negative": 105, "integers": 0,
        "cantor": 40, "layered": 0, "layers": (18, 25), "between features": 84, "pinned": 0,
        "best": ("logits[22605]@9", 0.396484375, 'Output " Austin" (p=0.396)'),
        "five": [
            ("input", 8, "m19.f7477", 8, 69.5), ("input", 8, "m20.f15589", 8, 63.0),
            ("input", 8, "m20.f15589", 9, 44.25), ("input", 8, "m19.f7477", 9, 43.75),
            ("input", 8, "m22.f3064", 9, 39.5),
        ],
        "dictionary": "mntss--gemma-scope-transcoders",
    },
    PLANET: {
        "slug": "thelargestplanet-1763017024609", "scan": "gemma-2-2b",
        "prompt": "<bos>The largest planet in our solar system is", "tokens": 9,
        "node_threshold": 0.8, "generator": "circuit-tracer by Hanna & Piotrowski", "schema": 1,
        "pruning": {"node_threshold": 0.8, "edge_threshold": 0.85},
        "types": {"feature": 248, "input": 9, "logit": 10, "error": 56}, "links": 3697,
        "least": -15.25, "most": 19.875, "negative": 1222, "integers": 5,
        "cantor": 248, "layered": 0, "layers": (0, 25), "between features": 998, "pinned": 6,
        "best": ("logits[48453]@8", 0.26171875, 'Output " Jupiter" (p=0.262)'),
        "five": [
            ("input", 0, "m0.f98149", 1, 19.875), ("m1.f57794", 8, "m8.f37691", 8, 18.0),
            ("input", 0, "m8.f37691", 8, -15.25), ("m1.f57794", 3, "m8.f37691", 3, 14.25),
            ("m1.f12928", 8, "m8.f37691", 8, 14.1875),
        ],
        "dictionary": "mntss--clt-gemma-2-2b-2.5M",
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=FACTS)
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Real]:
    said = {"model": "gemma-2-2b", "task": "completion"}
    with Registry.init(tmp_path_factory.mktemp("real") / "home") as registry:
        (report,) = import_files(registry, [SHARED / request.param], said)
        assert report.outcome is FileOutcome.STORED
        circuit = registry.circuit(report.circuits[0]).circuit
        assert circuit.scores is not None
        values = unpack(registry.artifact(circuit.scores))
        yield Real(request.param, report, circuit, values)


@needs_files
class TestRealFiles:
    def test_nodes_are_as_their_source_states(self, real: Real) -> None:
        name, report, circuit, values = real
        facts = FACTS[name]
        locals_ = [parse_node_key(node.key)[0] for node in circuit.nodes]
        assert Counter(str(local.kind) for local in locals_) == facts["types"]
        assert report.nodes == len({node.key for node in circuit.nodes})
        layers = [local.layer or 0 for local in locals_ if local.kind is Kind.FEATURE]
        assert (min(layers), max(layers)) == facts["layers"]
        assert {local.basis for local in locals_ if local.basis} == {facts["dictionary"]}
        key, probability, label = facts["best"]
        probabilities = circuit.parameters["probabilities"]
        assert max(probabilities, key=probabilities.__getitem__) == key
        assert probabilities[key] == probability
        assert circuit.parameters["targets"] == [key]
        assert values.labels[key] == label

    def test_links_are_as_their_source_states(self, real: Real) -> None:
        name, report, circuit, _ = real
        facts = FACTS[name]
        assert report.edges == len(circuit.edges) == facts["links"]
        weights = [edge.effect for edge in circuit.edges if edge.effect is not None]
        assert len(weights) == facts["links"]
        assert (min(weights), max(weights)) == (facts["least"], facts["most"])
        assert sum(weight < 0 for weight in weights) == facts["negative"]
        assert not any(weight == 0 for weight in weights)
        between = sum(
            all(parse_node_key(end)[0].kind is Kind.FEATURE for end in (edge.source, edge.target))
            for edge in circuit.edges
        )
        assert between == facts["between features"]
        best = sorted(circuit.edges, key=lambda edge: edge.rank or 0)[:5]
        assert [(edge.source, edge.target, edge.effect) for edge in best] == [
            (self._key(facts, source, at), self._key(facts, target, to), weight)
            for source, at, target, to, weight in facts["five"]
        ]
        raw = json.loads((SHARED / name).read_text("utf-8"))["links"]
        whole_numbers = [one["weight"] for one in raw if isinstance(one["weight"], int)]
        assert len(whole_numbers) == facts["integers"]
        assert set(map(float, whole_numbers)) <= set(weights)

    @staticmethod
    def _key(facts: dict[str, Any], part: str, position: int) -> str:
        basis = "" if part == "input" else f"#{facts['dictionary']}"
        return f"{part}{basis}@{position}"

    def test_metadata_is_as_its_source_states(self, real: Real) -> None:
        name, report, circuit, _ = real
        facts, metadata = FACTS[name], circuit.parameters["metadata"]
        for field in ("slug", "scan", "prompt", "node_threshold"):
            assert metadata[field] == facts[field]
        assert len(metadata["prompt_tokens"]) == facts["tokens"]
        assert metadata.get("schema_version") == facts["schema"]
        assert metadata.get("pruning_settings") == facts["pruning"]
        assert metadata.get("info", {}).get("generator", {}).get("name") == facts["generator"]
        views = circuit.parameters["qParams"]
        assert (len(views["pinnedIds"]), views["supernodes"]) == (facts["pinned"], [])
        numbered = [note for note in report.notes if "are numbered" in note]
        way = "the Cantor pairing" if facts["cantor"] else "layer x 100,000 + index"
        count = facts["cantor"] or facts["layered"]
        assert len(numbered) == 1
        assert numbered[0].startswith(f"{count} features are numbered by {way}")
        assert "ambiguous_links" not in circuit.parameters
        assert not any("links" in note for note in report.notes)
