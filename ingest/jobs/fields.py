"""Fields that the configurations of several jobs share: what each is, and its limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

__all__ = [
    "DEFAULT_PROMPTS",
    "DEFAULT_SHARE",
    "DEFAULT_STEPS",
    "MIN_PROMPTS",
    "AblationName",
    "Author",
    "BatchSize",
    "Bos",
    "Choose",
    "Device",
    "DeviceMap",
    "Dtype",
    "KvHeads",
    "Method",
    "MinPrompts",
    "ModelName",
    "NEdges",
    "Prompts",
    "Revision",
    "Select",
    "Share",
    "Steps",
    "Tags",
    "check_method",
    "check_place",
]

DEFAULT_PROMPTS = 32
DEFAULT_SHARE = 0.02
DEFAULT_STEPS = 5
MIN_PROMPTS = 8


def _read_share(given: Any) -> Any:
    """``1%`` and ``0.01`` as the number."""
    if not isinstance(given, str):
        return given
    try:
        number = float(given.strip().removesuffix("%"))
    except ValueError:
        raise ValueError(f"a share is written such as 1% or 0.01, not {given!r}") from None
    return number / 100 if given.strip().endswith("%") else number


def _read_batch_size(given: Any) -> Any:
    """``auto`` as None, and ``8`` as the number."""
    if not isinstance(given, str):
        return given
    if given != "auto" and not given.isdecimal():
        raise ValueError(f"a batch size is auto or a number of prompts, not {given!r}")
    return None if given == "auto" else int(given)


ModelName = Annotated[
    str,
    Field(description="Model built in or its alias, a folder, a GGUF file or a name on the hub."),
]
Prompts = Annotated[
    int | None,
    Field(ge=1, description=f"Prompts to keep; default: {DEFAULT_PROMPTS}, or all of the file."),
]
MinPrompts = Annotated[
    int,
    Field(
        ge=1,
        description="Stop if the model answers fewer rightly, unless fewer are asked for.",
    ),
]
Method = Annotated[
    Literal["eap", "eap-ig-inputs", "eap-ig-activations", "clean-corrupted", "exact"],
    Field(
        description="Where gradients are taken: on the clean prompts; along the way from ablated "
        "to clean inputs or activations; on both prompts; exact patches every edge in turn, for "
        "small models.",
    ),
]
Steps = Annotated[
    int | None,
    Field(
        ge=1,
        description=f"Steps of integrated gradients (eap-ig-...); default: {DEFAULT_STEPS}.",
    ),
]
AblationName = Annotated[
    Literal["resample", "mean", "zero"],
    Field(
        description="What parts write in place of their own output: what they write on the corrupt "
        "prompt, their mean over the clean prompts, nothing.",
    ),
]
KvHeads = Annotated[
    Literal["grouped", "per-query-head"],
    Field(
        description="Key/value heads as the model has them, or one copy for each query head.",
    ),
]
NEdges = Annotated[
    int | None,
    Field(
        ge=1,
        description="Edges to keep, before dangling ones are taken out; default: 2 % of all.",
    ),
]
Share = Annotated[
    Annotated[float, Field(gt=0, le=1)] | None,
    BeforeValidator(_read_share),
    Field(description="Share of all edges to keep, such as 1% or 0.01."),
]
Choose = Annotated[
    Literal["top", "greedy"],
    Field(
        description="top keeps the best edges wherever they lie, greedy grows from the output.",
    ),
]
# Absolute by default: a first-order estimate often has the wrong sign at the first MLP, through
# which everything flows (SmolLM2, agreement: faithfulness 0.00 by sign, 0.75 by size).
Select = Annotated[
    Literal["absolute", "signed"],
    Field(
        description="absolute keeps the edges with most effect, signed those that help most.",
    ),
]
Bos = Annotated[
    bool | None,
    Field(description="Begin prompts with a BOS token; default: the model family's habit."),
]
Revision = Annotated[str | None, Field(description="Branch, tag or commit of a model on the hub.")]
Device = Annotated[
    str | None, Field(description="cpu, cuda, cuda:1 or mps; default: cuda if there is.")
]
DeviceMap = Annotated[
    str | None,
    Field(description="auto spreads a model over several GPUs, in device's place."),
]
Dtype = Annotated[str, Field(description="Type of the weights: float32, bfloat16, float64.")]
BatchSize = Annotated[
    Annotated[int, Field(ge=1)] | None,
    BeforeValidator(_read_batch_size),
    Field(description="Prompts run at once; default: auto, as many as memory holds."),
]
Tags = Annotated[tuple[str, ...], Field(description="Tags of the circuit, if it is new.")]
Author = Annotated[str | None, Field(description="Author of the circuit, if it is new.")]


def check_method(method: str, steps: int | None, ablation: str) -> None:
    """Refuse a method with what it cannot use.

    Raises:
        ValueError: Steps without integrated gradients; gradients on prompts that do not run.
    """
    if steps is not None and not method.startswith("eap-ig"):
        raise ValueError(
            f"steps are those of eap-ig-inputs and eap-ig-activations; {method} has none"
        )
    if method == "clean-corrupted" and ablation != "resample":
        raise ValueError(
            f"clean-corrupted takes gradients on the corrupt prompts, which the ablation "
            f"{ablation} does not run; use resample or another method"
        )


def check_place(device: str | None, device_map: str | None) -> None:
    """Refuse two places for one model.

    Raises:
        ValueError: Both are given.
    """
    if device is not None and device_map is not None:
        raise ValueError("device and device_map contradict each other; give one of them")
