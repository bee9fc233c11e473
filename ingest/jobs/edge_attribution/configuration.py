"""The configuration of the job ``edge-attribution``, and checks for contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ingest.jobs.fields import ModelName, SplitBy, check_split
from ingest.jobs.options import (
    AnsweredPrompts,
    Chosen,
    DividedPrompts,
    Labelled,
    PlacedModel,
    Scored,
)

__all__ = ["EdgeAttributionConfiguration"]

_DEFAULT_CONSENSUS = 0.5
_SIZES = ("edges", "share", "threshold", "faithfulness")


class _DividedFile(DividedPrompts):
    """Only a part of the prompts, optionally divided by a label of a file."""

    split_by: SplitBy = None

    @model_validator(mode="after")
    def _is_divided_by_a_label(self) -> Self:
        check_split(self.split, None, self.split_by)
        return self


class _ScoredBeside(Scored):
    """How edges are scored, optionally with the mean of other prompts."""

    reference: Path | None = Field(
        None, description="For mean: a file of prompts; the mean is taken over its clean prompts."
    )

    @model_validator(mode="after")
    def _takes_a_mean(self) -> Self:
        if self.reference is not None and self.ablation != "mean":
            raise ValueError(
                f"a reference is what the ablation mean takes the mean of; {self.ablation} takes "
                "none"
            )
        return self


class _ChosenOneWay(Chosen):
    """How many edges are kept: their number, or the rule for it."""

    threshold: float | None = Field(
        None, description="Keep the edges with at least this score, in units of the metric."
    )
    faithfulness: float | None = Field(
        None,
        gt=0,
        description="Search for the smallest circuit with at least this faithfulness, such as "
        "0.85.",
    )

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


class _Titled(Labelled):
    """Labels of a circuit, including its title."""

    title: str | None = Field(None, description="Title of the circuit, if it is new.")


class EdgeAttributionConfiguration(
    AnsweredPrompts, _DividedFile, _ScoredBeside, _ChosenOneWay, PlacedModel, _Titled
):
    """The configuration of the job. A task or a file is required, all else has a default."""

    model: ModelName
    task: str | None = Field(
        None,
        description="Task such as ioi or sequence/months (see 'circuits tasks'); for a file "
        "whose header names no task, the name of its task.",
    )
    file: Path | None = Field(
        None, description="Your prompts, JSON Lines or CSV, instead of a task."
    )
    seed: int = Field(0, description="Determines the drawn prompts.")
    seeds: int = Field(
        1,
        ge=1,
        description="Find this many circuits, each on new prompts drawn with the next seed, and "
        "their consensus.",
    )
    bootstrap: int | None = Field(
        None,
        ge=2,
        description="Also choose edges on this many resamples of the prompts, for a consensus.",
    )
    consensus: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the circuits that must contain an edge of the consensus; default: "
        f"{_DEFAULT_CONSENSUS}.",
    )
    curve: bool = Field(
        False,
        description="Also measure the best .1 % to 100 % of all edges: the areas cpr and cmd.",
    )
    completeness: bool = Field(
        False, description="Also measure what the model does without the circuit."
    )
    controls: int | None = Field(
        None,
        ge=1,
        description="Also measure this many random circuits with the same nodes and degrees.",
    )

    @property
    def consensus_share(self) -> float:
        """Share of the circuits that must contain an edge of the consensus."""
        return _DEFAULT_CONSENSUS if self.consensus is None else self.consensus

    @model_validator(mode="after")
    def _has_a_task(self) -> Self:
        if self.task is None and self.file is None:
            raise ValueError("a task is required: one of 'circuits tasks', or a file of prompts")
        if self.split_by is not None and self.file is None:
            raise ValueError(
                "split_by is a label of prompts in a file; prompts of a task are drawn"
            )
        return self

    @model_validator(mode="after")
    def _repeats_one_way(self) -> Self:
        if self.seeds > 1 and self.file is not None:
            raise ValueError(
                "seeds draw other prompts, but those of a file are always the same; use bootstrap"
            )
        if self.seeds > 1 and self.bootstrap is not None:
            raise ValueError("seeds and bootstrap contradict each other; give one of them")
        if self.consensus is not None and self.seeds == 1 and self.bootstrap is None:
            raise ValueError("a consensus needs several circuits; give seeds or bootstrap too")
        return self
