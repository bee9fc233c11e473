"""How faithful circuits of parts are: heads, MLPs, key/value heads, neurons, norms.

A circuit of parts has no edges. The parts that can be ablated are its *universe*. Every part of the
universe that the circuit does not name is ablated (:mod:`ingest.discovery.ablation.parts`). The
circuit's parts compute their own values from what they then read. Parts outside the universe are
never ablated. Faithfulness is normalised by the run with the whole universe ablated, including the
circuit's parts (Marks et al. 2024, arXiv 2403.19647). It can also be normalised by two other runs,
so that it can be compared with the faithfulness of circuits of edges.

A random circuit has the same number of parts of each kind as the found one. It also has the same
number of heads, key/value heads and neurons in each layer. A layer has only one MLP, and only one
norm of a kind; so these are drawn from all layers.
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
    """A circuit without edges, with the parts to ablate.

    Both properties return the same objects each time.
    """

    @property
    def outside(self) -> tuple[Part | str, ...]:
        """The parts that are ablated to measure the circuit."""

    @property
    def universe(self) -> tuple[Part | str, ...]:
        """The parts that are ablated to measure an empty circuit."""


@dataclass(frozen=True, eq=False, repr=False)
class PartCircuit:
    """A circuit of parts, and all parts that can be ablated.

    Attributes:
        kept: Names of the circuit's parts, in the order of the universe.
        universe: Names of all parts that can be ablated, including the circuit's parts.
    """

    kept: tuple[str, ...]
    universe: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<PartCircuit of {len(self.kept)} of {len(self.universe)} parts>"

    @cached_property
    def outside(self) -> tuple[str, ...]:
        """The parts that are ablated to measure the circuit."""
        chosen = frozenset(self.kept)
        return tuple(name for name in self.universe if name not in chosen)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Number of parts of each kind in the universe: ``heads``, ``neurons of m0``, ``ln1``."""
        return dict(Counter(_shown_kind(parse_local(name)) for name in self.universe))


@in_a_setting
def part_circuit(
    setting: Setting, names: Iterable[str], *, kinds: Collection[Kind] = ()
) -> PartCircuit:
    """Find the universe of a circuit: all parts of the same kinds as its parts.

    If the circuit names a head, the universe has all heads. The same is true of key/value heads and
    of MLPs. If it names a neuron, the universe has all neurons of that MLP. If it names a norm, the
    universe has that norm of every layer. If only neurons of an MLP are named, the universe has its
    neurons instead of the MLP. If the whole MLP is named too, it includes its neurons.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        names: The circuit, such as ``a0.h1``, ``m0``, ``a0.kv1``, ``m1.n17``, ``l0.ln1``.
        kinds: Kinds (heads, MLPs, key/value heads) that are in the universe even if the circuit
            names no such part.

    Raises:
        BadInput: The model does not have a part, or a name is not a part that can be kept or
            ablated as a whole.
        SettingNeeded: The first argument is not a setting.
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
    """Measure circuits; of each circuit's universe, all parts outside the circuit are ablated.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        circuits: From :func:`part_circuit` or :func:`ingest.discovery.subspace_circuit`.
        ends: The two runs that define 0 and 1 of faithfulness. ``setting.ends`` are the runs that
            circuits of edges use. None: the run with a circuit's whole universe ablated, so that an
            empty circuit has 0, and the clean run.
        progress: Called with the number of finished runs of a prompt and the total.

    Raises:
        UnsupportedModel: See ``attribute_edges``.
        BadInput: The model does not have a part, or memory is too small for one prompt.
        NonFiniteScores: The metric of a prompt is not finite.
        SettingNeeded: The first argument is not a setting.
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
    """Measure circuits like ``evaluate_parts``, each together with ``n`` random circuits.

    Args:
        setting: See :func:`evaluate_parts`.
        circuits: From :func:`part_circuit`.
        n: Number of random circuits for each circuit; see :func:`random_parts`.
        seed: Seed of the random circuits.
        ends: See :func:`evaluate_parts`.
        progress: Called with the number of finished runs of a prompt and the total.

    Raises:
        UnsupportedModel, BadInput, NonFiniteScores, SettingNeeded: See :func:`evaluate_parts`; or
            ``n`` is less than 1.
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
    """Draw random circuits with the same number of parts of each kind.

    The number of heads, key/value heads and neurons is also the same in each layer. Every such
    choice is equally likely, including the circuit itself. If a circuit keeps all parts of a kind,
    every random circuit keeps them too.

    Args:
        circuit: From :func:`part_circuit`.
        n: Number of circuits. The first ones are the same for any ``n``.
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
    """Yield all parts of the same kinds as the given ones, by kind, in the order of the model."""
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
    """Yield the names of this norm in all blocks that have it."""
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
