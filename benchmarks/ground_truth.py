"""Rank the edges of compiled models, whose circuits are known, by every method.

For each program and ablation the script prints the area under the ROC curve of each method's
absolute scores, with the true edges as positives: 1 ranks every true edge before every other edge,
.5 is chance, and ties count half. The models are tracr's `reverse` and `xproportion`, on all
prompts of two to four letters. The metric is the position of the output between the output of the
ablated model and that of the whole model. The last column shows whether the scores of `exact`
exceed rounding errors for exactly the true edges.

    python benchmarks/ground_truth.py [--programs reverse xproportion] [--steps 5]

Needs the extra `tracr`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.discovery import attribute_edges, prepare_setting
from ingest.discovery.ablation.replacement import Ablation
from ingest.discovery.edges.attribution import Method

METHODS: tuple[Method, ...] = (
    "eap",
    "eap-ig-inputs",
    "eap-ig-activations",
    "clean-corrupted",
    "exact",
)
PAIRED = ("clean-corrupted",)  # methods that need corrupt prompts
WIDTH = 20


def scores(source: Any, ablation: Ablation, method: Method, steps: int) -> Mapping[str, float]:
    """Score every edge of a compiled program on all its prompts."""
    from tests.ingest.discovery.tracr_models import answer

    prompts = source.prompts(positions_in_input=True)
    bridge = source.bridge(positions_in_input=True)
    found = attribute_edges(
        prepare_setting(
            bridge,
            prompts.clean,
            prompts.corrupt if ablation == "resample" else None,
            answer(bridge, prompts, ablation),
            ablation=ablation,
            attention_mask=prompts.attention_mask,
        ),
        method=method,
        steps=steps,
    )
    return found.to_dict()


def measure(name: str, ablation: Ablation, steps: int) -> None:
    """Print the row of one program and ablation."""
    from tests.ingest.discovery.tracr_models import TRACE, auroc, compiled

    source = compiled(name)
    truth = source.program.truth(ablation)
    cells = []
    found: Mapping[str, float] = {}
    for method in METHODS:
        if method in PAIRED and ablation != "resample":
            cells.append("-")
            continue
        found = scores(source, ablation, method, steps)
        cells.append(f"{auroc(found, truth):.3f}")
    same = {edge for edge, score in found.items() if abs(score) > TRACE} == truth
    row = "".join(f"{cell:>{WIDTH}}" for cell in cells)
    print(f"{name:<12} {ablation:<9} {len(truth):>3} of {len(found):>3}{row}   {same}", flush=True)


def main() -> None:
    """Measure as the command line requests."""
    # A script has this folder on its path, but not the folder of the tests.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.ingest.discovery.tracr_models import ABLATIONS, PROGRAMS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    head = "".join(f"{method:>{WIDTH}}" for method in METHODS)
    print(f"{'program':<12} {'ablation':<9} {'true edges':>10}{head}   exact = truth")
    for name in options.programs:
        for ablation in ABLATIONS:
            measure(name, ablation, options.steps)


if __name__ == "__main__":
    main()
