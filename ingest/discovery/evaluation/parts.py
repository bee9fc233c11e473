"""How faithful circuits of parts are: heads, MLPs, key/value heads, neurons, norms.

A circuit of parts has no edges to choose from. Of a *universe* of parts, every one that the circuit
does not name is ablated (:mod:`ingest.discovery.ablation.parts`), and what it names computes its
own value from what it then reads. Parts outside the universe are never ablated. Faithfulness is
normalised by the run with the whole universe ablated, the circuit's own parts too (Marks et al.
2024, arXiv 2403.19647), or by two other runs, so that it compares with that of circuits of edges.

A random circuit has as many parts of each kind as the found one: of heads, key/value heads and
neurons also as many in each layer. A layer has one MLP, and one norm of a kind, so that of these
any layer's may be drawn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from ingest.discovery.ablation.part_changes import Part
from ingest.discovery.ablation.parts import ablate_parts
from ingest.discovery.ablation.setting import Ends, Setting, in_a_setting
from ingest.discovery.evaluation.controls import (
    RandomComparison,
    compare_with_drawn,
    generators,
    shares_shared,
)
from ingest.discovery.evaluation.faithfulness import CircuitEvaluation
from ingest.discovery.model.anatomy import Anatomy
from ingest.discovery.model.sites import places_of
from registry.errors import BadInput
from registry.identifiers import LAST_NORM, STREAM_NORMS, Kind, Local, parse_local
from registry.progress import OnProgress

__all__ = [
    "Ablatable",
    "PartCircuit",
    "compare_parts_with_random",
    "evaluate_parts",
    "part_circuit",
    "random_parts",
]


class Ablatable(Protocol):
    """A circuit without edges: what is ablated where it runs, and where nothing is kept.

    Both are the same objects each time that they are asked for.
    """

    @property
    def outside(self) -> tuple[Part | str, ...]:
        """What is ablated where the circuit runs."""

    @property
    def universe(self) -> tuple[Part | str, ...]:
        """What is ablated where none of it is kept."""


@dataclass(frozen=True, eq=False, repr=False)
class PartCircuit:
    """Parts that are kept, of all that could be ablated.

    Attributes:
        kept: Names of the circuit's parts, in the order of the universe.
        universe: Names of all parts that are ablated where the circuit does not name them.
    """

    kept: tuple[str, ...]
    universe: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<PartCircuit of {len(self.kept)} of {len(self.universe)} parts>"

    @cached_property
    def outside(self) -> tuple[str, ...]:
        """What is ablated where the circuit runs."""
        chosen = frozenset(self.kept)
        return tuple(name for name in self.universe if name not in chosen)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many parts of each kind the universe has: ``heads``, ``neurons of m0``, ``ln1``."""
        return dict(Counter(_shown_kind(parse_local(name)) for name in self.universe))


@in_a_setting
def part_circuit(
    setting: Setting, names: Iterable[str], *, kinds: Collection[Kind] = ()
) -> PartCircuit:
    """Find the universe of a circuit: all parts of the model that are like one that it names.

    Of a head these are all heads, of a key/value head all of these, of an MLP all MLPs, of a neuron
    all neurons of its MLP, of a norm that norm of every layer. An MLP of which single neurons are
    named, and not the whole, is ablated by its neurons. Of one that is named as a whole, neurons
    that are named too are the MLP's already.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        names: The circuit, such as ``a0.h1``, ``m0``, ``a0.kv1``, ``m1.n17``, ``l0.ln1``.
        kinds: Heads, MLPs or key/value heads that are in the universe though none may be named.

    Raises:
        BadInput: The model has no such part, or it is none that is kept or ablated as a whole.
    """
    anatomy = setting.with_own_heads().inputs.anatomy
    parts = {name: parse_local(name) for name in names}
    for name in parts:
        places_of(setting.model, anatomy, name)
    whole = {local.layer for local in parts.values() if local.kind is Kind.MLP}
    kept = {
        name
        for name, local in parts.items()
        if not (local.kind is Kind.NEURON and local.layer in whole)
    }
    like = [parts[name] for name in sorted(kept)]
    universe = dict.fromkeys(_universe(setting.model, anatomy, like, frozenset(kinds)))
    if odd := sorted(kept - universe.keys()):
        raise BadInput(
            f"{odd[0]} is no part that is kept or ablated as a whole; such are heads, key/value "
            "heads, MLPs, neurons and norms"
        )
    return PartCircuit(tuple(part for part in universe if part in kept), tuple(universe))


@in_a_setting
def evaluate_parts(
    setting: Setting,
    circuits: Sequence[Ablatable],
    *,
    ends: Ends | None = None,
    progress: OnProgress | None = None,
) -> list[CircuitEvaluation]:
    """Measure circuits, each with every part of its universe but its own ablated.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        circuits: From :func:`part_circuit`, or of subspaces.
        ends: Runs that faithfulness is normalised by, such as ``setting.ends``, between which
            circuits of edges are measured; None: the clean run, and the run with a circuit's whole
            universe ablated, so that an empty circuit has 0.
        progress: Called with runs of a prompt done and in all.

    Raises:
        UnsupportedModel: As for ``attribute_edges``.
        BadInput: Memory does not hold one prompt.
        NonFiniteScores: The metric of a prompt is not finite.
        SettingNeeded: What is given first is no setting.
    """
    sets: dict[tuple[Part | str, ...], None] = {circuit.outside: None for circuit in circuits}
    if ends is None:
        sets |= {circuit.universe: None for circuit in circuits}
    found = ablate_parts(setting, list(sets), progress=progress)
    measured = dict(zip(sets, found.ablated, strict=True))
    return [
        CircuitEvaluation(
            circuit=measured[circuit.outside],
            empty=measured[circuit.universe] if ends is None else ends.empty,
            full=found.full if ends is None else ends.full,
            ablation=setting.ablation,
        )
        for circuit in circuits
    ]


@in_a_setting
def compare_parts_with_random(
    setting: Setting,
    circuits: Sequence[PartCircuit],
    *,
    n: int,
    seed: int = 0,
    ends: Ends | None = None,
    progress: OnProgress | None = None,
) -> list[RandomComparison]:
    """Measure circuits as :func:`evaluate_parts` does, each with ``n`` random ones.

    Args:
        setting: As there.
        circuits: As there.
        n: How many random circuits; see :func:`random_parts`.
        seed: Decides which.
        ends: As there.
        progress: Called with runs of a prompt done and in all.

    Raises:
        UnsupportedModel, BadInput, NonFiniteScores, SettingNeeded: As there; and ``n`` is less than
            1.
    """
    drawn = [random_parts(circuit, n, seed) for circuit in circuits]
    every = [
        each
        for circuit, some in zip(circuits, drawn, strict=True)
        for each in (circuit, *(PartCircuit(tuple(kept), circuit.universe) for kept in some))
    ]
    measured = evaluate_parts(setting, every, ends=ends, progress=progress)
    return compare_with_drawn(
        measured, shares_shared([set(circuit.kept) for circuit in circuits], drawn)
    )


def random_parts(circuit: PartCircuit, n: int, seed: int) -> list[list[str]]:
    """Draw circuits with as many parts of each kind, and where a layer has several, of each layer.

    Every such choice is equally likely, the circuit's own among them. Where all parts of a kind are
    kept, there is no other one.

    Args:
        circuit: From :func:`part_circuit`.
        n: How many circuits. The first ones are the same for any ``n``.
        seed: Equal seeds draw equal circuits.

    Returns:
        Names of parts, in the order of the universe.

    Raises:
        BadInput: ``n`` is less than 1.
    """
    by_circuit = generators(n, seed)
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name in circuit.universe:
        groups[_drawn_among(parse_local(name))].append(name)
    own = frozenset(circuit.kept)
    sizes = {group: sum(name in own for name in names) for group, names in groups.items()}
    drawn = []
    for generator in by_circuit:
        chosen: set[str] = set()
        for group, names in groups.items():
            # Not sample, whose choice may change with the version of Python.
            by_chance = sorted(names, key=lambda _: generator.random())
            chosen.update(by_chance[: sizes[group]])
        drawn.append([name for name in circuit.universe if name in chosen])
    return drawn


def _universe(
    model: Any, anatomy: Anatomy, like: Sequence[Local], kinds: frozenset[Kind]
) -> Iterator[str]:
    """All parts like those that a circuit names, kind by kind in the order of the model."""
    named = {local.kind for local in like} | kinds
    by_neuron = sorted({local.layer or 0 for local in like if local.kind is Kind.NEURON})
    space = anatomy.space
    if Kind.HEAD in named:
        yield from (name for name in space.senders if parse_local(name).kind is Kind.HEAD)
    if Kind.KV_HEAD in named and space.grouped:
        for layer in range(space.n_layers):
            yield from space.nodes_with(layer, "v")
    if Kind.MLP in named:
        yield from (f"m{n}" for n in range(space.n_layers) if n not in by_neuron)
    for layer in by_neuron:
        (hidden,) = places_of(model, anatomy, f"m{layer}.hidden")
        yield from (f"m{layer}.n{index}" for index in range(hidden.width))
    for norm in dict.fromkeys(local.norm for local in like if local.kind is Kind.NORM):
        yield from _norms(model, norm or LAST_NORM)


def _norms(model: Any, norm: str) -> Iterator[str]:
    """This norm of every block that has it."""
    if norm == LAST_NORM:
        yield norm
        return
    for layer, block in enumerate(model.blocks):
        parts = block.submodules if norm in STREAM_NORMS else block.attn.submodules
        if norm in parts:
            yield f"l{layer}.{norm}"


def _drawn_among(local: Local) -> tuple[object, ...]:
    if local.kind in {Kind.MLP, Kind.NORM}:
        return local.kind, local.norm
    return local.kind, local.layer


def _shown_kind(local: Local) -> str:
    if local.kind is Kind.NORM:
        return local.norm or LAST_NORM
    return f"neurons of m{local.layer}" if local.kind is Kind.NEURON else f"{local.kind}s"
