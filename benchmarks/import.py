"""Measure importing: seconds after start-up and peak memory, for small and very large graphs.

Two graphs are synthetic EAP-IG JSON with random scores: one with GPT-2's shape (32,491 edges, 2.4
MB, the number of edges of the MIB circuit track's example) and one with Llama-3-8B's (1,592,881
edges, 119 MB). The strongest hundredth of the edges is marked as the circuit. In addition, a
circuit of a million edges is imported whole, as CSV and, if requested, in other formats.

A separate process imports each file into a new registry: it is read, checked, recorded in the
ledger and projected into the embedded graph, with the original and all scores kept. Peak memory is
the process's largest resident set and, after the plus sign, that of the embedded graph's process
(Linux). Start-up is the Python imports and the opening of the registry.

    python benchmarks/import.py [--shapes gpt2 llama-3-8b] [--marked 0.01] [--repeat 3]
        [--whole csv parquet graphml gv] [--edges 1000000] [--files ioi-eap-ig.json] [--limits]

With ``--limits`` the exit code is 1 if the small graph takes more than 1.5 s, the large one 60 s,
or the circuit that is imported whole 300 s, or if any process needs more than 2 GB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
from memory import peak_bytes, run_apart

from registry.models.edge_space import EdgeSpace

MIB = 2**20
D_MODEL = {"gpt2": 768, "llama-3-8b": 4096}
SHAPES = {"gpt2": EdgeSpace(12, 12, 12), "llama-3-8b": EdgeSpace(32, 32, 32)}
ALLOWED_SECONDS = {"gpt2": 1.5, "llama-3-8b": 60.0}
ALLOWED_SECONDS_WHOLE = 300.0
ALLOWED_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Measured:
    """One import.

    Attributes:
        start_seconds: Time until the registry is open.
        seconds: Time from then until the import is recorded and projected.
        peak_bytes: Largest resident set.
        edges: Number of edges in the circuit.
        engine_bytes: Largest resident set of the graph's process; 0 if it is unknown.
    """

    start_seconds: float
    seconds: float
    peak_bytes: int
    edges: int
    engine_bytes: int = 0


def write_graph(path: Path, model: str, marked: float) -> None:
    """Write a graph with a model's shape; equal arguments give equal files."""
    space = SHAPES[model]
    scores = numpy.random.default_rng(0).normal(0, 1e-3, space.n_edges).astype(numpy.float32)
    least = numpy.quantile(numpy.abs(scores), 1 - marked)
    cfg = {
        "n_layers": space.n_layers, "n_heads": space.n_heads, "parallel_attn_mlp": False,
        "d_model": D_MODEL[model],
    }  # fmt: skip
    nodes = {name: {"in_graph": True} for name in (*space.senders, "logits")}
    with path.open("w", encoding="ascii") as file:
        file.write(f'{{"cfg": {json.dumps(cfg)}, "nodes": {json.dumps(nodes)}, "edges": {{')
        for number, (row, column) in enumerate(space.edges()):
            score = float(scores[number])
            inside = "true" if abs(score) >= least else "false"
            file.write(", " if number else "")
            file.write(f'"{space.edge_id(row, column)}": ')
            file.write(f'{{"score": {score!r}, "in_graph": {inside}}}')
        file.write("}}")


def write_circuit(path: Path, n_edges: int) -> None:
    """Write a circuit of this many edges of Llama-3-8B, in the format of the path's suffix."""
    space = SHAPES["llama-3-8b"]
    effects = numpy.random.default_rng(0).normal(0, 1e-3, n_edges).tolist()
    rows = [
        (space.senders[row], receiver.node, receiver.port or "", effect)
        for (row, column), effect in zip(space.edges(), effects, strict=False)
        for receiver in [space.receivers[column]]
    ]
    WRITERS[path.suffix](path, rows)


Rows = Sequence[tuple[str, str, str, float]]


def _as_csv(path: Path, rows: Rows) -> None:
    lines = (f"{source},{target},{port},{effect!r}" for source, target, port, effect in rows)
    path.write_text("\n".join(["source,target,port,effect", *lines]))


def _as_parquet(path: Path, rows: Rows) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = dict(
        zip(("source", "target", "port", "effect"), zip(*rows, strict=True), strict=True)
    )
    parquet.write_table(pyarrow.table(columns), path)


def _as_graphviz(path: Path, rows: Rows) -> None:
    edges = (
        f'"{source}" -> "{target}" [effect="{effect!r}" port="{port}"];'
        for source, target, port, effect in rows
    )
    path.write_text("digraph {" + "\n".join(edges) + "}")


def _as_graphml(path: Path, rows: Rows) -> None:
    ends = {end for row in rows for end in row[:2]}
    nodes = (f'<node id="{end}"/>' for end in ends)
    edges = (
        f'<edge source="{source}" target="{target}"><data key="port">{port}</data>'
        f'<data key="effect">{effect!r}</data></edge>'
        for source, target, port, effect in rows
    )
    head = (
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        '<key id="port" for="edge" attr.name="port"/>'
        '<key id="effect" for="edge" attr.name="effect" attr.type="double"/>'
        '<graph edgedefault="directed">'
    )
    path.write_text("\n".join([head, *nodes, *edges, "</graph></graphml>"]))


WRITERS = {".csv": _as_csv, ".parquet": _as_parquet, ".gv": _as_graphviz, ".graphml": _as_graphml}


def import_here(path: Path, model: str) -> Measured:
    """Import in this fresh process."""
    start = time.perf_counter()
    from ingest.exchange.importing import FileOutcome, import_files
    from registry import Registry

    with tempfile.TemporaryDirectory() as folder:
        with Registry.init(Path(folder) / ".circuits") as registry:
            opened = time.perf_counter()
            said = {"model": model, "task": "synthetic", "sign": "helps-positive"}
            (report,) = import_files(registry, [path], said)
            done = time.perf_counter()
        if report.outcome is not FileOutcome.STORED:
            raise SystemExit(f"{path.name} was not stored: {report.notes}")
    return Measured(opened - start, done - opened, peak_bytes(), report.edges)


def import_apart(path: Path, model: str) -> Measured:
    """Import in a separate process."""
    return Measured(**run_apart([__file__, "--here", str(path), model]))


def show(name: str, path: Path, runs: list[Measured]) -> None:
    """Print the measurements of one file in one line."""
    seconds = statistics.median(run.seconds for run in runs)
    peak, engine = (
        max(getattr(run, name) for run in runs) for name in ("peak_bytes", "engine_bytes")
    )
    print(
        f"{name:<24} {path.stat().st_size / 1e6:>8.1f} MB {runs[0].edges:>9,} edges"
        f" {statistics.median(run.start_seconds for run in runs):>8.2f} s start"
        f" {seconds:>8.2f} s import {peak / MIB:>8.0f} + {engine / MIB:.0f} MiB peak"
    )


def too_much(runs: list[Measured], most_seconds: float) -> bool:
    """Whether an import exceeds the allowed time or memory."""
    seconds = statistics.median(run.seconds for run in runs)
    peak = max(max(run.peak_bytes, run.engine_bytes) for run in runs)
    return seconds > most_seconds or peak > ALLOWED_BYTES


def main() -> int:
    """Make the files, import them, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="*", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--marked", type=float, default=0.01, help="share of edges in the circuit")
    parser.add_argument(
        "--whole", nargs="*", choices=[suffix[1:] for suffix in WRITERS], default=["csv"],
        help="formats of the circuit that is imported whole",
    )  # fmt: skip
    parser.add_argument("--edges", type=int, default=1_000_000, help="edges of that circuit")
    parser.add_argument(
        "--files", nargs="*", type=Path, default=[], help="additional graphs of GPT-2"
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--limits", action="store_true", help="exit code 1 if over the limits")
    parser.add_argument("--here", nargs=2, metavar=("PATH", "MODEL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(json.dumps(asdict(import_here(Path(given.here[0]), given.here[1]))))
        return 0
    over = False
    for path in given.files:
        show(path.name, path, [import_apart(path, "gpt2") for _ in range(given.repeat)])
    with tempfile.TemporaryDirectory() as folder:
        for model in given.shapes:
            path = Path(folder) / f"{model}.json"
            write_graph(path, model, given.marked)
            runs = [import_apart(path, model) for _ in range(given.repeat)]
            show(model, path, runs)
            over |= too_much(runs, ALLOWED_SECONDS[model])
        for form in given.whole:
            path = Path(folder) / f"whole.{form}"
            write_circuit(path, given.edges)
            runs = [import_apart(path, "llama-3-8b") for _ in range(given.repeat)]
            show(path.name, path, runs)
            over |= too_much(runs, ALLOWED_SECONDS_WHOLE)
    return int(over and given.limits)


if __name__ == "__main__":
    sys.exit(main())
