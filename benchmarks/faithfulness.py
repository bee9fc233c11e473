"""Measure the faithfulness of found circuits and of random circuits with the same degrees.

The script uses one model and task. Circuits have .5, 1, 2, 5 and 10 % of all edges, chosen by
absolute and by signed score of each method. For some methods it also measures random circuits in
which every sender and input port has as many edges as in the found one (see
ingest/discovery/evaluation/controls.py). It writes one line per circuit, with the deciles of its
random circuits, and prints a table. Prompts are made like in the job `edge-attribution`; all edges
outside the circuit carry the corrupt prompt's value.

    python benchmarks/faithfulness.py [--model smollm2] [--task ioi] [--prompts 32] [--controls 50]
        [--methods eap-ig-inputs eap] [--controlled eap-ig-inputs]
        [--out faithfulness.csv] [--show FILE]

The defaults take about 40 minutes on one core: a circuit takes three to seven seconds. `--show`
prints the table of an existing file and measures nothing.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ingest import models
from ingest.discovery import (
    CircuitEvaluation,
    EdgeScores,
    PrunedCircuit,
    RandomComparison,
    Setting,
    attribute_edges,
    compare_with_random,
    evaluate_circuits,
)
from ingest.discovery.edges.attribution import Method
from ingest.discovery.edges.scores import By
from ingest.jobs.answering import judge
from ingest.jobs.setting import setting_of
from ingest.tasks.catalogue import find_task
from ingest.tasks.prompts import keep_answered
from ingest.tokens.openings import opening_of

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1)
CHOICES: tuple[By, ...] = ("absolute", "signed")
STEPS, SEED = 5, 0
DECILES = [f"decile_{tenth}" for tenth in range(1, 10)]
COLUMNS = [
    *("model", "task", "prompts", "method", "steps", "by", "share", "selected", "edges"),
    *("nodes", "faithfulness", "controls", "edges_kept", *DECILES),
]
Row = Mapping[str, str | int | float | None]


@dataclass(frozen=True, eq=False)
class Measuring:
    """The setting in which all circuits are measured, with the names of its model and task."""

    model: str
    task: str
    setting: Setting

    def row(self, method: str, share: float, circuit: PrunedCircuit) -> dict[str, Any]:
        """The columns of a circuit that are known before it is measured."""
        return {
            "model": self.model,
            "task": self.task,
            "prompts": self.setting.n_prompts,
            "method": method,
            "steps": STEPS if "-ig-" in method else None,
            "by": circuit.by,
            "share": share,
            "selected": circuit.n_selected,
            "edges": len(circuit.edges),
            "nodes": len(circuit.nodes),
        }

    def scores(self, method: Method) -> EdgeScores:
        """Score all edges by a method."""
        return attribute_edges(self.setting, method=method, steps=STEPS)

    def measure(self, circuits: Iterable[PrunedCircuit]) -> list[CircuitEvaluation]:
        """Measure circuits without random ones."""
        return evaluate_circuits(self.setting, [edges_of(circuit) for circuit in circuits])

    def compare(self, circuit: PrunedCircuit, n: int) -> RandomComparison:
        """Measure a circuit and random ones."""
        return compare_with_random(self.setting, edges_of(circuit), n=n, seed=SEED)


def edges_of(circuit: PrunedCircuit) -> list[str]:
    """Ids of its edges."""
    return [edge.id for edge in circuit.edges]


def load(model: str, task: str, n_prompts: int) -> Measuring:
    """Load a model and the prompts that it answers correctly, like the job."""
    bridge = models.load(model)
    slug = models.describe(bridge).slug

    def encode(text: str) -> list[int]:
        ids: list[int] = bridge.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    kept = keep_answered(
        find_task(task),
        judge(bridge),
        encode=encode,
        model=slug,
        opening=opening_of(bridge.tokenizer),
        seed=SEED,
        n=n_prompts,
        at_least=n_prompts,
    )
    return Measuring(slug, task, setting_of(bridge, kept.pairs))


def rows(
    measuring: Measuring, methods: Iterable[Method], controlled: Iterable[str], n_controls: int
) -> Iterator[Row]:
    """Measure everything, one line at a time."""
    for method in methods:
        scores = measuring.scores(method)
        chosen = [
            (share, scores.top(int(share * scores.space.n_edges), by=by))
            for by in CHOICES
            for share in SHARES
        ]
        if method in controlled:
            for share, circuit in chosen:
                found = measuring.compare(circuit, n_controls)
                yield measuring.row(method, share, circuit) | _compared(found)
        else:
            measured = measuring.measure(circuit for _, circuit in chosen)
            for (share, circuit), alone in zip(chosen, measured, strict=True):
                yield measuring.row(method, share, circuit) | {"faithfulness": alone.faithfulness}


def _compared(comparison: RandomComparison) -> dict[str, Any]:
    n, deciles = len(comparison.controls), comparison.deciles or [None] * len(DECILES)
    return {
        "faithfulness": comparison.found.faithfulness,
        "controls": n,
        "edges_kept": sum(comparison.shares_kept) / n,
        **dict(zip(DECILES, deciles, strict=True)),
    }


def write(file: Path, found: Iterable[Row]) -> None:
    """Write lines at once, so that an interrupted run keeps its measurements."""
    start = time.perf_counter()
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in found:
            rounded = {
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in row.items()
            }
            writer.writerow(rounded)
            out.flush()
            text = f"{row['method']}, {row['by']}, {row['share']}: {rounded['faithfulness']}"
            print(f"{time.perf_counter() - start:6.0f} s  {text}", file=sys.stderr, flush=True)


def table(file: Path) -> Iterator[str]:
    """Lines of a Markdown table of a file's content."""
    with file.open(encoding="utf-8", newline="") as lines:
        read = list(csv.DictReader(lines))
    shares = list(dict.fromkeys(row["share"] for row in read))
    yield f"| edges | {' | '.join(f'{100 * float(share):g} %' for share in shares)} |"
    yield "| --- |" + " --- |" * len(shares)
    for method, by in dict.fromkeys((row["method"], row["by"]) for row in read):
        cells = {r["share"]: r for r in read if (r["method"], r["by"]) == (method, by)}
        of_share = [cells[share] for share in shares if share in cells]
        yield _line(f"`{method}`, {by}", [_number(r["faithfulness"]) for r in of_share])
        if all(row["decile_1"] for row in of_share):
            yield _line("random, its degrees", map(_spread, of_share))


def _line(head: str, cells: Iterable[str]) -> str:
    return f"| {head} | {' | '.join(cells)} |"


def _number(cell: str) -> str:
    return f"{float(cell):z.2f}" if cell else "unknown"


def _spread(row: Mapping[str, str]) -> str:
    low, middle, high = (_number(row[f"decile_{tenth}"]) for tenth in (1, 5, 9))
    return f"{middle} ({low} to {high})"


def main() -> None:
    """Measure as the command line requests."""
    methods = get_args(Method)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--task", default="ioi")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--controls", type=int, default=50, help="random circuits of each size")
    parser.add_argument("--methods", nargs="+", choices=methods, default=["eap-ig-inputs", "eap"])
    parser.add_argument("--controlled", nargs="*", choices=methods, default=["eap-ig-inputs"])
    parser.add_argument("--out", type=Path, default=Path("faithfulness.csv"))
    parser.add_argument("--show", type=Path, help="an existing file of results")
    options = parser.parse_args()
    if options.show is None:
        measuring = load(options.model, options.task, options.prompts)
        write(options.out, rows(measuring, options.methods, options.controlled, options.controls))
    print("\n".join(table(options.show or options.out)))


if __name__ == "__main__":
    main()
