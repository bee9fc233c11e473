"""A recorded circuit made ready to be measured again: its prompts and its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ingest.jobs.edge_records import METRIC
from ingest.jobs.model_place import LoadModel, ModelPlace, load_place
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
_SHAPE = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_vocab", "parallel_attn_mlp")


@dataclass(frozen=True)
class StoredPrompts:
    """The prompts a circuit was found on.

    Attributes:
        reference: Prompts whose mean ablates; None for another ablation.
    """

    pairs: tuple[TokenPair, ...]
    reference: tuple[TokenPair, ...] | None


def repeatable_ablation(circuit: Circuit) -> Literal["resample", "mean", "zero"]:
    """How a circuit's parts were ablated, if patching can measure their effects again.

    Raises:
        BadInput: It cannot; the text says what is in the way.
    """
    found = measurable_ablation(circuit)
    if circuit.sign is not Sign.HELPS_POSITIVE:
        raise BadInput(
            f"the signs of circuit {circuit.id[:12]} are {circuit.sign}; only where positive helps "
            "can exact effects be compared"
        )
    return found


def measurable_ablation(circuit: Circuit) -> Literal["resample", "mean", "zero"]:
    """How a circuit's parts were ablated, if it can be measured again as a whole.

    Raises:
        BadInput: It cannot; the text says what is in the way.
    """
    name = circuit.id[:12]
    if circuit.level not in (Level.EDGE, Level.NODE):
        raise BadInput(f"circuit {name} is one of {circuit.level}s; edges and nodes can be patched")
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
    """The prompts a circuit was found on, and those whose mean it was ablated by.

    Raises:
        BadInput: They are unknown or not kept.
    """
    if circuit.prompt_set is None:
        raise BadInput(
            f"circuit {circuit.id[:12]} was not found on one set of prompts, which would be needed "
            "to measure it again; a consensus of several sets names its circuits, which were"
        )
    pairs = kept_prompts(registry, circuit.prompt_set)
    if circuit.ablation is not Ablation.MEAN:
        return StoredPrompts(pairs, None)
    reference = circuit.parameters.get("reference")
    if reference is None:
        raise BadInput(
            f"circuit {circuit.id[:12]} does not say over which prompts its ablation's mean was "
            "taken (parameter 'reference'), so that it cannot be measured again"
        )
    return StoredPrompts(pairs, kept_prompts(registry, reference))


def find_prompt_set(registry: Registry, prefix: str) -> PromptSet:
    """The recorded prompt set whose id starts with ``prefix``.

    Raises:
        NotFound: None does.
        BadInput: Several do.
    """
    every = registry.ledger.prompt_sets()
    found = [known for known in every if prefix and known.id.startswith(prefix)]
    if not found:
        raise NotFound("prompt set", prefix, "'circuits show CIRCUIT' names that of a circuit")
    if len(found) > 1:
        raise BadInput(f"{len(found)} prompt sets start with {prefix!r}; give more digits")
    return found[0]


def kept_prompts(registry: Registry, prompt_set: str) -> tuple[TokenPair, ...]:
    """The pairs of a recorded prompt set, by its full id.

    Raises:
        BadInput: They are not kept.
    """
    kept = {known.id: known for known in registry.ledger.prompt_sets()}
    address = kept[prompt_set].artifact if prompt_set in kept else None
    if address is None:
        raise BadInput(
            f"the prompts {prompt_set[:12]} are not kept in this registry, so that nothing can be "
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
        registry: Knows where the model lay when the circuit was found.
        circuit: Says which model.
        name: Where it is now; None for the same place.
        progress: Who is told.
        revision: Branch, tag or commit of ``name`` on the hub.
        device: What it runs on.
        device_map: How it is spread over devices, in ``device``'s place.
        dtype: Of its weights.
        load: Loads it, or has it already.

    Raises:
        NotFound: There is no model any more.
        BadInput: The registry does not know where it is.
        IncompatibleModel: What is there has other weights or another shape.
    """
    record = next((m for m in registry.ledger.models() if m.slug == circuit.model), None)
    if record is None or (name is None and record.source is None):
        raise BadInput(
            f"the registry does not know where the model {circuit.model} is; say so with --model"
        )
    from ingest import models

    revision = revision if name else record.revision
    place = ModelPlace(name or record.source or "", revision, device, device_map, dtype)
    bridge = load(place, progress)
    _require_same(record, models.describe(bridge, slug=record.slug), name)
    return bridge


def _require_same(recorded: Model, loaded: Model, name: str | None) -> None:
    """Compare weights where both are known, else shapes."""
    both_known = recorded.weights_sha256 and loaded.weights_sha256
    for field in ("weights_sha256",) if both_known else _SHAPE:
        was, now = getattr(recorded, field), getattr(loaded, field)
        if was is not None and was != now:
            what = "other weights" if field == "weights_sha256" else f"{field} {now}, not {was}"
            raise IncompatibleModel(
                f"{name or recorded.source!r} is not the model {recorded.slug} that the circuit "
                f"was found in: it has {what}; name the right one with --model"
            )
