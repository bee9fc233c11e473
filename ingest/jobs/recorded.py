"""Preparing a recorded circuit for new measurements: its prompts and its model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ingest.jobs.edge_attribution.records import METRIC
from ingest.jobs.places import LoadModel, ModelPlace, load_place
from ingest.jobs.progress import Progress
from ingest.tasks.base import TokenPair
from ingest.tasks.prompts import read_kept
from registry.errors import BadInput, IncompatibleModel, NotFound
from registry.records import Ablation, Circuit, Level, Model, PromptSet, Sign

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = [
    "StoredPrompts",
    "find_prompt_set",
    "kept_prompts",
    "load_model",
    "measurable_ablation",
    "repeatable_ablation",
    "stored_prompts",
]

_ABLATIONS: dict[Ablation | None, Literal["resample", "mean", "zero"]] = {
    Ablation.RESAMPLE: "resample",
    Ablation.MEAN: "mean",
    Ablation.ZERO: "zero",
}
_ONE_BY_ONE = (Level.EDGE, Level.NODE)
"""Levels at which single edges and nodes can be patched."""
_UNKNOWN = {Level.FEATURE: "the dictionary that they are of is not recorded with it"}
"""The reason why parts of a level cannot be ablated at all."""
_SHAPE = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_vocab", "parallel_attn_mlp")


@dataclass(frozen=True)
class StoredPrompts:
    """The prompts on which a circuit was found.

    Attributes:
        reference: Prompts for the mean ablation; None for another ablation.
    """

    pairs: tuple[TokenPair, ...]
    reference: tuple[TokenPair, ...] | None


def repeatable_ablation(circuit: Circuit) -> Literal["resample", "mean", "zero"]:
    """Return the ablation of a circuit's parts, if patching can repeat it.

    Raises:
        BadInput: Patching cannot repeat it; the text gives the reason.
    """
    found = measurable_ablation(circuit)
    if circuit.sign is not Sign.HELPS_POSITIVE:
        raise BadInput(
            f"the signs of circuit {circuit.id[:12]} are {circuit.sign}; exact effects can be "
            "compared only if positive helps"
        )
    return found


def measurable_ablation(
    circuit: Circuit, levels: Collection[Level] = _ONE_BY_ONE
) -> Literal["resample", "mean", "zero"]:
    """Return the ablation of a circuit's parts, if the circuit can be measured again.

    Args:
        circuit: A recorded circuit.
        levels: Levels of the circuits that the caller can measure.

    Raises:
        BadInput: The circuit cannot be measured again; the text gives the reason.
    """
    name = circuit.id[:12]
    if circuit.level not in levels:
        known = [f"{level}s" for level in levels]
        why = _UNKNOWN.get(circuit.level)
        raise BadInput(
            f"circuit {name} has {circuit.level}s"
            + (f", and {why}" if why else "")
            + f"; only {', '.join(known[:-1])} and {known[-1]} can be patched"
        )
    if circuit.metric != METRIC:
        raise BadInput(
            f"circuit {name} was measured by {circuit.metric or 'an unknown metric'}; only "
            f"{METRIC} can be measured again"
        )
    if circuit.ablation not in _ABLATIONS:
        raise BadInput(
            f"the ablation of circuit {name} is {circuit.ablation or 'unknown'}; only "
            f"{', '.join(_ABLATIONS.values())} can be repeated"
        )
    if any(node.position is not None for node in circuit.nodes):
        raise BadInput(
            f"circuit {name} is bound to token positions; effects are measured over all of them"
        )
    return _ABLATIONS[circuit.ablation]


def stored_prompts(registry: Registry, circuit: Circuit) -> StoredPrompts:
    """Return the prompts on which a circuit was found, and those for its mean ablation.

    Raises:
        BadInput: They are unknown or not kept.
    """
    if circuit.prompt_set is None:
        raise BadInput(
            f"circuit {circuit.id[:12]} was not found on one set of prompts, which is required "
            "to measure it again; a consensus of several sets names its circuits, which were"
        )
    pairs = kept_prompts(registry, circuit.prompt_set)
    if circuit.ablation is not Ablation.MEAN:
        return StoredPrompts(pairs, None)
    reference = circuit.parameters.get("reference")
    if reference is None:
        raise BadInput(
            f"circuit {circuit.id[:12]} does not give the prompts for its ablation's mean "
            "(parameter 'reference'), so it cannot be measured again"
        )
    return StoredPrompts(pairs, kept_prompts(registry, reference))


def find_prompt_set(registry: Registry, prefix: str) -> PromptSet:
    """Return the recorded prompt set whose id starts with ``prefix``.

    Raises:
        NotFound: There is none.
        BadInput: There are several.
    """
    every = registry.ledger.prompt_sets()
    found = [known for known in every if prefix and known.id.startswith(prefix)]
    if not found:
        raise NotFound("prompt set", prefix, "'circuits show CIRCUIT' names the set of a circuit")
    if len(found) > 1:
        raise BadInput(f"{len(found)} prompt sets start with {prefix!r}; give more digits")
    return found[0]


def kept_prompts(registry: Registry, prompt_set: str) -> tuple[TokenPair, ...]:
    """Return the pairs of a recorded prompt set, by its full id.

    Raises:
        BadInput: They are not kept.
    """
    try:
        known = registry.ledger.prompt_set(prompt_set)
    except (NotFound, BadInput):  # an imported circuit may name its prompts in any form
        known = None
    address = known.artifact if known is not None and known.id == prompt_set else None
    if address is None:
        raise BadInput(
            f"the prompts {prompt_set[:12]} are not kept in this registry, so nothing can be "
            "measured on them again"
        )
    return read_kept(registry.artifact(address))


def load_model(
    registry: Registry,
    circuit: Circuit,
    name: str | None,
    progress: Progress,
    *,
    revision: str | None = None,
    device: str | None = None,
    device_map: str | None = None,
    dtype: str = "float32",
    load: LoadModel = load_place,
) -> Any:
    """Load a circuit's model as a ``TransformerBridge``.

    Args:
        registry: It records where the model was when the circuit was found.
        circuit: A circuit of the model.
        name: The model's current location; None if it has not moved.
        progress: Receives the progress.
        revision: Branch, tag or commit of ``name`` on the hub.
        device: The model's device.
        device_map: The model's distribution over devices, instead of ``device``.
        dtype: Type of the model's weights.
        load: Loads the model, or returns a model that is loaded already.

    Raises:
        NotFound: The model does not exist any more.
        BadInput: The registry does not know its location.
        IncompatibleModel: The model there has other weights or another shape.
    """
    record = registry.ledger.model(circuit.model)
    if name is None and record.source is None:
        raise BadInput(
            f"the location of the model {circuit.model} is unknown; give it with --model"
        )
    from ingest.models.loading import describe

    revision = revision if name else record.revision
    place = ModelPlace(name or record.source or "", revision, device, device_map, dtype)
    bridge = load(place, progress)
    _require_same(record, describe(bridge, slug=record.slug), name)
    return bridge


def _require_same(recorded: Model, loaded: Model, name: str | None) -> None:
    """Compare weights if both are known, else shapes."""
    both_known = recorded.weights_sha256 and loaded.weights_sha256
    for field in ("weights_sha256",) if both_known else _SHAPE:
        was, now = getattr(recorded, field), getattr(loaded, field)
        if was is not None and was != now:
            what = "other weights" if field == "weights_sha256" else f"{field} {now}, not {was}"
            raise IncompatibleModel(
                f"{name or recorded.source!r} is not the model {recorded.slug} that the circuit "
                f"was found in: it has {what}; name the right one with --model"
            )
