"""Measure importing an attribution graph of a long prompt: seconds and peak memory.

The graph is synthetic, in circuit-tracer's format: features of 26 layers at 73 tokens, error nodes,
tokens and logits. Links are random, from earlier to later parts, with weights of very different
sizes, sorted by target and then by source. A file of 1.7 GB has about 15 million links. A separate
process imports it into a new registry and prunes it by influence. With ``--compact`` the file has
no spaces and therefore more links; with ``--links-first`` the file is read twice.

    python benchmarks/attribution.py [--bytes 1700000000] [--node-threshold 0.8]
        [--edge-threshold 0.9] [--compact] [--links-first] [--file graph.json] [--limits]

Peak memory is the process's largest resident set and, after the plus sign, that of the embedded
graph's process (Linux). With ``--limits`` the exit code is 1 if the process needs more than 1 GB or
300 s.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
from memory import peak_bytes, run_apart

MIB = 2**20
LAYERS, TOKENS, FEATURES, LOGITS = 26, 73, 22_000, 10
# In the files of this script, by whether a file is compact.
BYTES_PER_LINK = {False: 113, True: 76}
ALLOWED_SECONDS = 300.0
ALLOWED_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Measured:
    """One import.

    Attributes:
        seconds: Time until it is recorded and projected.
        peak_bytes: Largest resident set.
        edges: Number of edges in the circuit.
        nodes: Number of nodes in the circuit.
        notes: Notes for the user.
        engine_bytes: Largest resident set of the graph's process; 0 if it is unknown.
    """

    seconds: float
    peak_bytes: int
    edges: int
    nodes: int
    notes: list[str]
    engine_bytes: int = 0


def make_nodes(random: numpy.random.Generator) -> list[dict[str, Any]]:
    """Nodes in the order of the tool: features, errors, tokens, logits."""
    places = {
        (int(layer), int(at), int(index))
        for layer, at, index in zip(
            random.integers(LAYERS, size=FEATURES), random.integers(TOKENS, size=FEATURES),
            random.integers(100, 16_384, size=FEATURES), strict=True,
        )
    }  # fmt: skip
    nodes = [
        _node(
            f"{layer}_{index}_{at}",
            layer,
            at,
            "cross layer transcoder",
            feature=_pair(layer, index),
        )
        for layer, at, index in sorted(places)
    ]
    nodes += [
        _node(f"0_{layer}_{at}", layer, at, "mlp reconstruction error")
        for layer in range(LAYERS)
        for at in range(TOKENS)
    ]
    nodes += [_node(f"E_{at + 5}_{at}", "E", at, "embedding") for at in range(TOKENS)]
    nodes += [
        _node(
            f"{LAYERS + 1}_{at}_{TOKENS - 1}", LAYERS + 1, TOKENS - 1, "logit", feature=at,
            token_prob=0.5 / 2**at,
        )
        for at in range(LOGITS)
    ]  # fmt: skip
    return nodes


def _pair(layer: int, index: int) -> int:
    return (layer + index) * (layer + index + 1) // 2 + index


def _node(id: str, layer: int | str, at: int, type_: str, **more: Any) -> dict[str, Any]:
    return {
        "node_id": id, "feature": -1, "layer": str(layer), "ctx_idx": at, "feature_type": type_,
        "token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0,
        "jsNodeId": id, "clerp": "", "influence": 0.5, "activation": 1.5, **more,
    }  # fmt: skip


def make_links(
    nodes: list[dict[str, Any]], n_links: int, random: numpy.random.Generator
) -> Iterator[tuple[str, str, float]]:
    """About this many links, sorted by target and then by source."""
    layers = numpy.array([-1 if n["layer"] == "E" else int(n["layer"]) for n in nodes])
    sends = numpy.array([n["feature_type"] != "logit" for n in nodes])
    ids = [node["node_id"] for node in nodes]
    targets = [
        at for at, n in enumerate(nodes) if n["feature_type"] in {"logit", "cross layer transcoder"}
    ]
    earlier = {layer: numpy.flatnonzero(sends & (layers < layer)) for layer in set(layers.tolist())}
    share = min(1.0, n_links / sum(len(earlier[int(layers[at])]) for at in targets))
    for target in targets:
        sources = earlier[int(layers[target])]
        drawn = sources[random.random(len(sources)) < share]
        weights = random.normal(size=len(drawn)) * numpy.exp(2 * random.normal(size=len(drawn)))
        for source, weight in zip(drawn.tolist(), weights.astype("f4").tolist(), strict=True):
            yield ids[source], ids[target], weight


def write_graph(path: Path, size_bytes: int, *, compact: bool, links_first: bool) -> None:
    """Write a graph of about this many bytes; equal arguments give equal files."""
    random = numpy.random.default_rng(0)
    nodes = make_nodes(random)
    n_links = size_bytes // BYTES_PER_LINK[compact]
    metadata = {
        "slug": "long", "scan": "owner/transcoders", "prompt": "a" * TOKENS,
        "prompt_tokens": ["a"] * TOKENS, "schema_version": 1,
    }  # fmt: skip
    form = (
        '{{"source":"{}","target":"{}","weight":{!r}}}'
        if compact
        else '\n    {{\n      "source": "{}",\n      "target": "{}",\n      "weight": {!r}\n    }}'
    )
    with path.open("w", encoding="ascii") as file:
        file.write(f'{{"metadata": {json.dumps(metadata)}, "qParams": {{}}')
        for part in ("links", "nodes") if links_first else ("nodes", "links"):
            file.write(f', "{part}": ')
            if part == "nodes":
                json.dump(nodes, file)
                continue
            file.write("[")
            for at, link in enumerate(make_links(nodes, n_links, random)):
                file.write(("," if at else "") + form.format(*link))
            file.write("]")
        file.write("}\n")


def import_here(path: Path, node_threshold: float, edge_threshold: float) -> Measured:
    """Import in this fresh process."""
    from ingest.exchange.importing import FileOutcome, import_files
    from registry import Registry

    with (
        tempfile.TemporaryDirectory(dir=path.parent) as folder,
        Registry.init(Path(folder) / ".circuits") as registry,
    ):
        began = time.perf_counter()
        said = {
            "model": "gemma-2-2b", "task": "synthetic", "node_threshold": node_threshold,
            "edge_threshold": edge_threshold,
        }  # fmt: skip
        (report,) = import_files(registry, [path], said)
        seconds = time.perf_counter() - began
        if report.outcome is not FileOutcome.STORED:
            raise SystemExit(f"{path.name} was not stored: {report.notes}")
    return Measured(seconds, peak_bytes(), report.edges, report.nodes, list(report.notes))


def import_apart(path: Path, node_threshold: float, edge_threshold: float) -> Measured:
    """Import in a separate process."""
    shares = ["--node-threshold", str(node_threshold), "--edge-threshold", str(edge_threshold)]
    return Measured(**run_apart([__file__, "--here", "--file", str(path), *shares]))


def main() -> int:
    """Make the file, import it, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bytes", type=int, default=1_700_000_000, help="size of the file")
    parser.add_argument("--node-threshold", type=float, default=0.8)
    parser.add_argument("--edge-threshold", type=float, default=0.9)
    parser.add_argument("--compact", action="store_true", help="without spaces: more links")
    parser.add_argument("--links-first", action="store_true", help="links before the nodes")
    parser.add_argument("--file", type=Path, help="import this file instead of a new one")
    parser.add_argument("--limits", action="store_true", help="exit code 1 if over the limits")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    shares = given.node_threshold, given.edge_threshold
    if given.here:
        print(json.dumps(asdict(import_here(given.file, *shares))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / "graph.json"
        if given.file is None:
            write_graph(path, given.bytes, compact=given.compact, links_first=given.links_first)
        found = import_apart(path, *shares)
        size_mb = path.stat().st_size / 1e6
    print(
        f"{size_mb:>8.1f} MB {found.nodes:>7,} nodes {found.edges:>9,} edges"
        f" {found.seconds:>8.1f} s import"
        f" {found.peak_bytes / MIB:>8.0f} + {found.engine_bytes / MIB:.0f} MiB peak"
    )
    for note in found.notes:
        print(f"  {note}")
    over = found.seconds > ALLOWED_SECONDS or found.peak_bytes > ALLOWED_BYTES
    return int(over and given.limits)


if __name__ == "__main__":
    sys.exit(main())
