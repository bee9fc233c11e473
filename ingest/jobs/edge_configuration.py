"""What the job ``edge-attribution`` is told, and which of it contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ingest.jobs.base import Configuration

__all__ = ["DEFAULT_PROMPTS", "DEFAULT_SHARE", "EdgeAttributionConfiguration"]

DEFAULT_PROMPTS = 32
DEFAULT_SHARE = 0.02
_MIN_PROMPTS = 8
_DEFAULT_STEPS = 5
_DEFAULT_CONSENSUS = 0.5
_SIZES = ("edges", "share", "threshold", "faithfulness")


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


class EdgeAttributionConfiguration(Configuration):
    """What the job is told. A task or a file is needed, everything else has a default."""

    model: str = Field(
        description="Model built in or its alias, a folder, a GGUF file or a name on the hub."
    )
    task: str | None = Field(
        None,
        description="Task such as ioi or sequence/months (see 'circuits tasks'); for a file "
        "whose header names none, the name of its task.",
    )
    file: Path | None = Field(None, description="Own prompts, JSON Lines or CSV, in task's place.")
    prompts: int | None = Field(
        None,
        ge=1,
        description=f"Prompts to keep; default: {DEFAULT_PROMPTS}, or all of the file.",
    )
    min_prompts: int = Field(
        _MIN_PROMPTS,
        ge=1,
        description="Stop if the model answers fewer rightly, unless fewer are asked for.",
    )
    method: Literal["eap", "eap-ig-inputs", "eap-ig-activations", "clean-corrupted", "exact"] = (
        Field(
            "eap",
            description="Where gradients are taken: on the clean prompts; along the way from "
            "ablated to clean inputs or activations; on both prompts; exact patches every edge in "
            "turn, for small models.",
        )
    )
    steps: int | None = Field(
        None,
        ge=1,
        description=f"Steps of integrated gradients (eap-ig-...); default: {_DEFAULT_STEPS}.",
    )
    ablation: Literal["resample", "mean", "zero"] = Field(
        "resample",
        description="What parts write in place of their own output: what they write on the corrupt "
        "prompt, their mean over the clean prompts, nothing.",
    )
    reference: Path | None = Field(
        None, description="For mean: a file of prompts whose clean ones are taken instead."
    )
    kv_heads: Literal["grouped", "per-query-head"] = Field(
        "grouped",
        description="Key/value heads as the model has them, or one copy for each query head.",
    )
    edges: int | None = Field(
        None,
        ge=1,
        description="Edges to keep, before dangling ones are taken out; default: 2 % of all.",
    )
    share: Annotated[float | None, BeforeValidator(_read_share)] = Field(
        None, gt=0, le=1, description="Share of all edges to keep, such as 1% or 0.01."
    )
    threshold: float | None = Field(
        None, description="Keep the edges that score as much, in units of the metric."
    )
    faithfulness: float | None = Field(
        None,
        gt=0,
        description="Search for the smallest circuit that keeps as much of the behaviour, such as "
        "0.85.",
    )
    choose: Literal["top", "greedy"] = Field(
        "top",
        description="top keeps the best edges wherever they lie, greedy grows from the output.",
    )
    # Not signed: a first-order estimate often has the wrong sign at the first MLP, through which
    # everything flows (SmolLM2, agreement: faithfulness 0.00 by sign, 0.75 by size).
    select: Literal["absolute", "signed"] = Field(
        "absolute",
        description="absolute keeps the edges with most effect, signed those that help most.",
    )
    seed: int = Field(0, description="Decides which prompts are drawn.")
    seeds: int = Field(
        1,
        ge=1,
        description="Find as many circuits, each on prompts drawn anew with the next seed, and "
        "their consensus.",
    )
    bootstrap: int | None = Field(
        None,
        ge=2,
        description="Choose edges on as many resamples of the prompts too, for a consensus.",
    )
    consensus: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the circuits that an edge of the consensus is in; default: "
        f"{_DEFAULT_CONSENSUS}.",
    )
    curve: bool = Field(
        False,
        description="Measure the best .1 % to 100 % of all edges too: the areas cpr and cmd.",
    )
    completeness: bool = Field(
        False, description="Measure too what the model does without the circuit."
    )
    controls: int | None = Field(
        None,
        ge=1,
        description="Measure as many random circuits of the same nodes and degrees too.",
    )
    bos: bool | None = Field(
        None, description="Begin prompts with a BOS token; default: the model family's habit."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a model on the hub.")
    device: str | None = Field(
        None, description="cpu, cuda, cuda:1 or mps; default: cuda if there is."
    )
    device_map: str | None = Field(
        None, description="auto spreads a model over several GPUs, in device's place."
    )
    dtype: str = Field("float32", description="Type of the weights: float32, bfloat16, float64.")
    batch_size: Annotated[int | None, BeforeValidator(_read_batch_size)] = Field(
        None, ge=1, description="Prompts run at once; default: auto, as many as memory holds."
    )
    title: str | None = Field(None, description="Title of the circuit, if it is new.")
    tags: tuple[str, ...] = Field((), description="Tags of the circuit, if it is new.")
    author: str | None = Field(None, description="Author of the circuit, if it is new.")

    @property
    def consensus_share(self) -> float:
        """Share of the circuits that an edge of the consensus is in."""
        return _DEFAULT_CONSENSUS if self.consensus is None else self.consensus

    @property
    def n_steps(self) -> int:
        """Steps of integrated gradients."""
        return self.steps or _DEFAULT_STEPS

    @property
    def is_integrated(self) -> bool:
        """Whether gradients are integrated over steps."""
        return self.method.startswith("eap-ig")

    @model_validator(mode="after")
    def _has_a_task(self) -> Self:
        if self.task is None and self.file is None:
            raise ValueError("a task is needed: one of 'circuits tasks', or a file of prompts")
        return self

    @model_validator(mode="after")
    def _chooses_one_way(self) -> Self:
        given = [name for name in _SIZES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} contradict each other; give one of them")
        if self.choose == "greedy" and self.threshold is not None:
            raise ValueError(
                "greedy grows a circuit to a size, which a threshold does not give; choose top, or "
                "give edges, share or faithfulness"
            )
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        if self.steps is not None and not self.is_integrated:
            raise ValueError(
                f"steps are those of eap-ig-inputs and eap-ig-activations; {self.method} has none"
            )
        if self.method == "clean-corrupted" and self.ablation != "resample":
            raise ValueError(
                f"clean-corrupted takes gradients on the corrupt prompts, which the ablation "
                f"{self.ablation} does not run; use resample or another method"
            )
        if self.reference is not None and self.ablation != "mean":
            raise ValueError(
                f"a reference is what the ablation mean takes the mean of; {self.ablation} takes "
                "none"
            )
        return self

    @model_validator(mode="after")
    def _repeats_one_way(self) -> Self:
        if self.seeds > 1 and self.file is not None:
            raise ValueError(
                "seeds draw other prompts, and those of a file are always the same; use bootstrap"
            )
        if self.seeds > 1 and self.bootstrap is not None:
            raise ValueError("seeds and bootstrap contradict each other; give one of them")
        if self.consensus is not None and self.seeds == 1 and self.bootstrap is None:
            raise ValueError("a consensus is one of several circuits; give seeds or bootstrap too")
        return self

    @model_validator(mode="after")
    def _lies_somewhere(self) -> Self:
        if self.device is not None and self.device_map is not None:
            raise ValueError("device and device_map contradict each other; give one of them")
        return self
