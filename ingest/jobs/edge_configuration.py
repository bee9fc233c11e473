"""What the job ``edge-attribution`` is told, and which of it contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ingest.jobs.base import Configuration
from ingest.jobs.fields import (
    DEFAULT_STEPS,
    MIN_PROMPTS,
    AblationName,
    Author,
    BatchSize,
    Bos,
    Choose,
    Device,
    DeviceMap,
    Dtype,
    KvHeads,
    Method,
    MinPrompts,
    ModelName,
    NEdges,
    Prompts,
    Revision,
    Select,
    Share,
    Steps,
    Tags,
    check_method,
    check_place,
)

__all__ = ["EdgeAttributionConfiguration"]

_DEFAULT_CONSENSUS = 0.5
_SIZES = ("edges", "share", "threshold", "faithfulness")


class EdgeAttributionConfiguration(Configuration):
    """What the job is told. A task or a file is needed, everything else has a default."""

    model: ModelName
    task: str | None = Field(
        None,
        description="Task such as ioi or sequence/months (see 'circuits tasks'); for a file "
        "whose header names none, the name of its task.",
    )
    file: Path | None = Field(None, description="Own prompts, JSON Lines or CSV, in task's place.")
    prompts: Prompts = None
    min_prompts: MinPrompts = MIN_PROMPTS
    method: Method = "eap"
    steps: Steps = None
    ablation: AblationName = "resample"
    reference: Path | None = Field(
        None, description="For mean: a file of prompts whose clean ones are taken instead."
    )
    kv_heads: KvHeads = "grouped"
    edges: NEdges = None
    share: Share = None
    threshold: float | None = Field(
        None, description="Keep the edges that score as much, in units of the metric."
    )
    faithfulness: float | None = Field(
        None,
        gt=0,
        description="Search for the smallest circuit that keeps as much of the behaviour, such as "
        "0.85.",
    )
    choose: Choose = "top"
    select: Select = "absolute"
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
    bos: Bos = None
    revision: Revision = None
    device: Device = None
    device_map: DeviceMap = None
    dtype: Dtype = "float32"
    batch_size: BatchSize = None
    title: str | None = Field(None, description="Title of the circuit, if it is new.")
    tags: Tags = ()
    author: Author = None

    @property
    def consensus_share(self) -> float:
        """Share of the circuits that an edge of the consensus is in."""
        return _DEFAULT_CONSENSUS if self.consensus is None else self.consensus

    @property
    def n_steps(self) -> int:
        """Steps of integrated gradients."""
        return self.steps or DEFAULT_STEPS

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
        check_method(self.method, self.steps, self.ablation)
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
        check_place(self.device, self.device_map)
        return self
