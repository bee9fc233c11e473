"""Named questions, comparison statistics and reports.

Every command that compares circuits is a function. It takes an open ``Registry`` and returns a
frozen result with ``to_frame()``, and with ``plot()`` if there is something to draw. All functions
can be imported from here; a module is loaded when its first name is requested.

The packages, from the lowest level up; each imports only those before it: :mod:`queries.circuits`,
:mod:`queries.chance`, :mod:`queries.answers`, :mod:`queries.plots`, :mod:`queries.report`,
:mod:`queries.cli`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.lazy_names import lazy_names

if TYPE_CHECKING:
    from queries.answers.compare import PairComparison, compare_circuits, compare_pairs
    from queries.answers.diff import Differences, differences
    from queries.answers.matrix import CircuitMatrix, circuit_matrix
    from queries.answers.reuse import Reuse, reuse
    from queries.answers.shared.subgraph import SharedSubgraph, shared_subgraph
    from queries.answers.stability import Stability, stability
    from queries.circuits.choosing import choose_circuits

__all__ = [
    "CircuitMatrix",
    "Differences",
    "PairComparison",
    "Reuse",
    "SharedSubgraph",
    "Stability",
    "choose_circuits",
    "circuit_matrix",
    "compare_circuits",
    "compare_pairs",
    "differences",
    "reuse",
    "shared_subgraph",
    "stability",
]

_MODULES = {
    "CircuitMatrix": "answers.matrix",
    "Differences": "answers.diff",
    "PairComparison": "answers.compare",
    "Reuse": "answers.reuse",
    "SharedSubgraph": "answers.shared.subgraph",
    "Stability": "answers.stability",
    "choose_circuits": "circuits.choosing",
    "circuit_matrix": "answers.matrix",
    "compare_circuits": "answers.compare",
    "compare_pairs": "answers.compare",
    "differences": "answers.diff",
    "reuse": "answers.reuse",
    "shared_subgraph": "answers.shared.subgraph",
    "stability": "answers.stability",
}
__getattr__ = lazy_names(__name__, _MODULES)
