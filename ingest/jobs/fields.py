"""Fields that the configurations of several jobs share, with their limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ingest.models.names import DTYPE_HELP

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
    "Names",
    "Prompts",
    "Revision",
    "Select",
    "Share",
    "SplitBy",
    "SplitPart",
    "SplitSeed",
    "Steps",
    "Tags",
    "check_method",
    "check_place",
    "check_split",
]

DEFAULT_PROMPTS = 32
DEFAULT_SHARE = 0.02
DEFAULT_STEPS = 5
MIN_PROMPTS = 8


def _read_share(given: Any) -> Any:
    """Read the texts ``1%`` and ``0.01`` as the number 0.01."""
    if not isinstance(given, str):
        return given
    try:
        number = float(given.strip().removesuffix("%"))
    except ValueError:
        raise ValueError(f"a share is written such as 1% or 0.01, not {given!r}") from None
    return number / 100 if given.strip().endswith("%") else number


def _read_batch_size(given: Any) -> Any:
    """Read the text ``auto`` as None, and the text ``8`` as the number 8."""
    if not isinstance(given, str):
        return given
    if given != "auto" and not given.isdecimal():
        raise ValueError(f"a batch size is auto or a number of prompts, not {given!r}")
    return None if given == "auto" else int(given)


def _at_commas(given: Any) -> Any:
    """Read ``a,b`` as the names ``a`` and ``b``; names have no commas."""
    several = [given] if isinstance(given, str) else given
    if not isinstance(several, list | tuple) or not all(isinstance(one, str) for one in several):
        return given
    return tuple(name.strip() for one in several for name in one.split(",") if name.strip())


ModelName = Annotated[
    str,
    Field(description="Built-in model or its alias, a folder, a GGUF file or a name on the hub."),
]
Prompts = Annotated[
    int | None,
    Field(ge=1, description=f"Prompts to keep; default: {DEFAULT_PROMPTS}, or all of the file."),
]
MinPrompts = Annotated[
    int,
    Field(
        ge=1,
        description="Stop if the model answers fewer correctly, unless fewer are requested.",
    ),
]
Method = Annotated[
    Literal["eap", "eap-ig-inputs", "eap-ig-activations", "clean-corrupted", "exact"],
    Field(
        description="Where gradients are taken: on the clean prompts; on the path from ablated "
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
        description="What replaces the output of ablated parts: their output on the corrupt "
        "prompt, their mean over the clean prompts, zero.",
    ),
]
KvHeads = Annotated[
    Literal["grouped", "per-query-head"],
    Field(
        description="Key/value heads as the model has them, or one copy per query head.",
    ),
]
NEdges = Annotated[
    int | None,
    Field(
        ge=1,
        description="Edges to keep, before dangling edges are removed; default: 2 % of all.",
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
        description="top keeps the best edges anywhere, greedy grows from the output.",
    ),
]
# The default is absolute, because a first-order estimate often has the wrong sign at the first MLP,
# which is on all paths (SmolLM2, agreement: faithfulness 0.00 by sign, 0.75 by absolute value).
Select = Annotated[
    Literal["absolute", "signed"],
    Field(
        description="absolute keeps edges with the largest effect, signed those that help most.",
    ),
]
Bos = Annotated[
    bool | None,
    Field(
        description="Put a BOS token before prompts, or nothing; default: what the model's "
        "tokenizer puts before every text."
    ),
]
Revision = Annotated[str | None, Field(description="Branch, tag or commit of a model on the hub.")]
SplitPart = Annotated[
    Literal["train", "validation", "test"] | None,
    Field(
        description="Use only one part of the prompts: train (60 %), validation (20 %) or test "
        "(20 %); default: all of them.",
    ),
]
SplitSeed = Annotated[
    int | None, Field(description="Determines the part of each prompt; default: 0.")
]
SplitBy = Annotated[
    str | None,
    Field(description="Label of a file; each part gets the same mix of its values."),
]
Device = Annotated[
    str | None, Field(description="cpu, cuda, cuda:1 or mps; default: cuda if available.")
]
DeviceMap = Annotated[
    str | None,
    Field(description="auto spreads a model over several GPUs, instead of device."),
]
Dtype = Annotated[str, Field(description=DTYPE_HELP)]
BatchSize = Annotated[
    Annotated[int, Field(ge=1)] | None,
    BeforeValidator(_read_batch_size),
    Field(description="Prompts per batch; default: auto, as many as memory allows."),
]
Names = Annotated[tuple[str, ...], BeforeValidator(_at_commas)]
"""Tasks or ids: the option is repeated, or has several values separated by commas."""
Tags = Annotated[tuple[str, ...], Field(description="Tags of the circuit, if it is new.")]
Author = Annotated[str | None, Field(description="Author of the circuit, if it is new.")]


def check_method(method: str, steps: int | None, ablation: str) -> None:
    """Refuse a method with options that it cannot use.

    Raises:
        ValueError: Steps are given for a method without integrated gradients, or the method takes
            gradients on the corrupt prompts, which the ablation does not run.
    """
    if steps is not None and not method.startswith("eap-ig"):
        raise ValueError(
            f"steps are only for eap-ig-inputs and eap-ig-activations; {method} has none"
        )
    if method == "clean-corrupted" and ablation != "resample":
        raise ValueError(
            f"clean-corrupted takes gradients on the corrupt prompts, which the ablation "
            f"{ablation} does not run; use resample or another method"
        )


def check_split(split: str | None, seed: int | None, by: str | None = None) -> None:
    """Refuse options for dividing prompts if no part is requested.

    Raises:
        ValueError: Such an option is given.
    """
    given = [name for name, one in (("split_seed", seed), ("split_by", by)) if one is not None]
    if split is None and given:
        raise ValueError(f"{given[0]} divides prompts; give split too: train, validation or test")


def check_place(device: str | None, device_map: str | None) -> None:
    """Refuse both a device and a device map for one model.

    Raises:
        ValueError: Both are given.
    """
    if device is not None and device_map is not None:
        raise ValueError("device and device_map contradict each other; give one of them")
