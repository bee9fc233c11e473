"""Change every setting of every documented family once, and compare with transformers.

The models are tiny and random, in float64, on nine tokens. Each boolean is flipped; multipliers,
caps, windows, kinds of layers and rotary embeddings, activations, shapes and epsilons are changed.
An accepted variant must have the logits, the effects and slopes of edges, and the circuits of the
transformers model. Any other variant must be refused by name. The script prints the outcome of each
variant that differs, and the totals. It exits with 1 if a variant is wrong or crashes. It takes
about ten minutes on one core. Run it from the root::

    python benchmarks/config_variants.py [FAMILY ...]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import transformers

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.ingest.discovery.config_variants import judge, variants
from tests.ingest.discovery.families import FAMILIES


def main() -> None:
    """Try all variants and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="default: all families")
    transformers.utils.logging.set_verbosity_error()
    total: Counter[str] = Counter()
    for name in parser.parse_args().families or FAMILIES:
        found = sweep(name)
        print(f"{name}: {tell(found)}", flush=True)
        total += found
    print(f"all: {tell(total)}")
    sys.exit(1 if total["wrong"] or total["crashed"] else 0)


def sweep(name: str) -> Counter[str]:
    """Number of variants of a family for each outcome."""
    found: Counter[str] = Counter()
    for variant in variants(name):
        outcome = judge(variant)
        found[outcome.kind] += 1
        if outcome.kind != "same":
            first = outcome.text.splitlines()[0][:300] if outcome.text else ""
            print(f"  {variant.label}: {outcome.kind}: {first}", flush=True)
        elif not outcome.changed:
            print(f"  {variant.label}: same, and equal to the unchanged model", flush=True)
    return found


def tell(found: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{n} {kind}" for kind, n in found.most_common())


if __name__ == "__main__":
    main()
