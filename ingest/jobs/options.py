"""Groups of options that several jobs have; a job's configuration uses the groups it needs.

Each option is defined only here or in :mod:`ingest.jobs.fields`. If an option has another meaning
or another default in a job, the job defines it again.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

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
    NEdges,
    Prompts,
    Revision,
    Select,
    Share,
    SplitPart,
    SplitSeed,
    Steps,
    Tags,
    check_method,
    check_place,
    check_split,
)
from ingest.jobs.places import ModelPlace

__all__ = [
    "Ablated",
    "AnsweredPrompts",
    "Chosen",
    "DividedPrompts",
    "Labelled",
    "LoadedModel",
    "PlacedModel",
    "Scored",
]


class LoadedModel(Configuration):
    """How a model is loaded, and how many prompts it runs per batch."""

    device: Device = None
    dtype: Dtype = "float32"
    batch_size: BatchSize = None


class PlacedModel(LoadedModel):
    """How a model is loaded, with its revision and its distribution over devices."""

    revision: Revision = None
    device_map: DeviceMap = None

    def place(self, name: str) -> ModelPlace:
        """Return a model of that name with these options."""
        return ModelPlace(name, self.revision, self.device, self.device_map, self.dtype)

    @model_validator(mode="after")
    def _lies_somewhere(self) -> Self:
        check_place(self.device, self.device_map)
        return self


class AnsweredPrompts(Configuration):
    """Prompts that are kept if the model answers them correctly."""

    prompts: Prompts = None
    min_prompts: MinPrompts = MIN_PROMPTS
    bos: Bos = None


class DividedPrompts(Configuration):
    """Options to use only a part of the prompts."""

    split: SplitPart = None
    split_seed: SplitSeed = None

    @model_validator(mode="after")
    def _is_divided(self) -> Self:
        check_split(self.split, self.split_seed)
        return self


class Ablated(Configuration):
    """The ablation of parts."""

    ablation: AblationName = "resample"
    kv_heads: KvHeads = "grouped"


class Scored(Ablated):
    """How edges are scored."""

    method: Method = "eap"
    steps: Steps = None

    @property
    def n_steps(self) -> int:
        """Steps of integrated gradients."""
        return self.steps or DEFAULT_STEPS

    @property
    def is_integrated(self) -> bool:
        """Whether gradients are integrated over steps."""
        return self.method.startswith("eap-ig")

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        check_method(self.method, self.steps, self.ablation)
        return self


class Chosen(Configuration):
    """How many and which edges are kept."""

    edges: NEdges = None
    share: Share = None
    choose: Choose = "top"
    select: Select = "absolute"


class Labelled(Configuration):
    """Labels of a circuit, if it is new."""

    tags: Tags = ()
    author: Author = None
