"""Put published circuits into a registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.catalog.building import circuit_of, evaluations_of, labels_of, model_of
from ingest.catalog.entries import Entry, catalogue, find_entry
from registry.errors import IncompatibleModel
from registry.ledger.base import Batch, NewCircuit
from registry.ledger.merging import merge_models
from registry.records import Circuit

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of loading an entry.

    Attributes:
        circuit: The stored circuit.
        is_new: Whether it was not stored before.
        n_figures: Number of figures of the entry.
        n_new_figures: Number of figures that were not stored before.
    """

    entry: Entry
    circuit: Circuit
    is_new: bool
    n_figures: int
    n_new_figures: int


def load(
    registry: Registry,
    names: Sequence[str] = (),
    *,
    variants: bool = False,
    left_out: Callable[[Entry, IncompatibleModel], None] | None = None,
) -> list[Loaded]:
    """Store entries of the catalogue in one transaction.

    A circuit that is already stored keeps its labels; missing figures are added to it.

    Args:
        registry: The registry to load into.
        names: Entries, in order; by default all except variants of other entries.
        variants: Load variants by default too.
        left_out: Without names: receives each entry that is not stored because the registry has
            a different model with the name of its model, and the error. By default nothing is
            stored then.

    Raises:
        NotFound: No entry has one of these names. Nothing is stored.
        IncompatibleModel: The registry has a different model with the same name, and the entries
            were named, ``left_out`` is None, or no entry is left.
    """
    known = catalogue()
    entries = [find_entry(name) for name in dict.fromkeys(names)]
    # Questions about a task's shared parts take the union over circuits; variants would blur it.
    entries = entries or [one for one in known.values() if variants or not one.variant_of]
    if left_out is not None and not names:
        entries = _storable(registry, entries, left_out)
    circuits = {entry.name: circuit_of(entry) for entry in entries}
    figures = {name: evaluations_of(known[name], c.id) for name, c in circuits.items()}
    # A circuit may also be measured on the tasks of other entries.
    tasks = {entry.task.slug: entry.task for entry in known.values()}
    wanted = {entry.task.slug for entry in entries}
    wanted |= {figure.task for found in figures.values() for figure in found}
    recorded = registry.record(
        Batch(
            models=list({entry.model: model_of(entry) for entry in entries}.values()),
            tasks=[tasks[slug] for slug in sorted(wanted)],
            circuits=[
                NewCircuit(circuits[entry.name], labels=labels_of(entry)) for entry in entries
            ],
            evaluations=[figure for found in figures.values() for figure in found],
        )
    )
    new_circuits, new_figures = set(recorded.circuits), set(recorded.evaluations)
    return [
        Loaded(
            entry,
            circuits[entry.name],
            circuits[entry.name].id in new_circuits,
            len(figures[entry.name]),
            sum(figure.id in new_figures for figure in figures[entry.name]),
        )
        for entry in entries
    ]


def _storable(
    registry: Registry,
    entries: Sequence[Entry],
    left_out: Callable[[Entry, IncompatibleModel], None],
) -> list[Entry]:
    """Entries whose model the registry has not, or has in the same shape.

    Raises:
        IncompatibleModel: There are none.
    """
    stored = {model.slug: model for model in registry.ledger.models()}
    faults: dict[str, IncompatibleModel] = {}
    for entry in entries:
        model = model_of(entry)
        try:
            merge_models(stored.get(model.slug, model), model)
        except IncompatibleModel as error:
            faults[entry.name] = error
    if len(faults) == len(entries):
        raise faults[entries[0].name]
    for entry in entries:
        if entry.name in faults:
            left_out(entry, faults[entry.name])
    return [entry for entry in entries if entry.name not in faults]
