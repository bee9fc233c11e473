"""The definition of measures and metrics: name, unit, direction, range, and one sentence.

A *metric* is a number for one prompt, such as the logit difference; a *measure* is a number for a
circuit, a part, a whole model or an edit. Records refer to them by name. This module holds every
name that the code itself uses, so each is written in only one place. Other packages add measures
through entry points (:mod:`registry.known_measures`). Records from other tools may use any name.

This module imports only the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = [
    "CMD",
    "COMPARED",
    "COMPLETENESS",
    "CPR",
    "EDGE_OVERLAP",
    "EXACT_EFFECT_RANK_CORRELATION",
    "FAITHFULNESS",
    "LIKELIHOOD",
    "LOGIT_DIFFERENCE",
    "MEASURES",
    "PERCENT_OF_METRIC",
    "RANDOM_FAITHFULNESS",
    "Direction",
    "Measure",
]

_ROUNDING = 1e-6
"""Allowed relative distance of a value from its bounds: the rounding of single precision."""
_PERCENT = "percent"
_AS_METRIC = "as the metric"


class Direction(StrEnum):
    """Which values are better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measure or a metric.

    Attributes:
        name: Name in records. One ``*`` in it matches any text: ``F: *``.
        of: The object that is measured.
        definition: One sentence, without its full stop.
        source: Where it is defined.
        direction: Which values are better.
        unit: None for a plain number, such as a share or a ratio.
        lowest: Smallest legal value; None if there is no bound.
        highest: Largest legal value; None if there is no bound, as for a ratio that may exceed 1.
        normalised: Reference that it is divided by or compared with; None for a plain value.
        title: Name for people; None for the name, with spaces.
    """

    name: str
    of: Literal["prompt", "circuit", "part", "model", "edit"]
    definition: str
    source: str
    direction: Direction
    unit: str | None = None
    lowest: float | None = None
    highest: float | None = None
    normalised: str | None = None
    title: str | None = None

    @property
    def higher_is_better(self) -> bool | None:
        """Whether higher values are better; None if neither direction is better."""
        return None if self.direction is Direction.NEITHER else self.direction is Direction.HIGHER

    @property
    def is_percent(self) -> bool:
        """Whether the unit is percent: 100 means a ratio of 1."""
        return self.unit is not None and self.unit.startswith(_PERCENT)

    @property
    def label(self) -> str:
        """Label of an axis or a column: the title with the unit."""
        called = self.title or self.name.replace("_", " ")
        label = called[0].upper() + called[1:]
        return label if self.unit is None else f"{label}, {self.unit}"

    @property
    def range(self) -> str:
        """The legal values in words: ``0 to 1``, ``0 or more``, ``any``."""
        if self.lowest is not None and self.highest is not None:
            return f"{self.lowest:g} to {self.highest:g}"
        if self.lowest is not None:
            return f"{self.lowest:g} or more"
        return "any" if self.highest is None else f"{self.highest:g} or less"

    def holds(self, value: float) -> bool:
        """Whether a value is legal, to rounding."""
        below = self.lowest is not None and value < self.lowest - _slack(self.lowest)
        above = self.highest is not None and value > self.highest + _slack(self.highest)
        return not (below or above)


def _slack(bound: float) -> float:
    return _ROUNDING * max(1.0, abs(bound))


_IOI = "Wang et al. 2022, arXiv 2211.00593"
_SEQUENCES = "Lan et al. 2023, arXiv 2311.04131"
_SUCCESSORS = "Gould et al. 2023, arXiv 2312.09230"
_GREATER_THAN = "Hanna et al. 2023, arXiv 2305.00586"
_SUPPRESSION = "McDougall et al. 2023, arXiv 2310.04625"
_MARKS = "Marks et al. 2024, arXiv 2403.19647"
_BENCHMARK = "Mueller et al. 2025, arXiv 2504.13151"
_ROME = "Meng et al. 2022, arXiv 2202.05262"
_EASYEDIT = "EasyEdit"
_GLASSBOX = "glassbox"
_HERE = "this project"
_TO_MODEL = "0 is everything ablated, 1 the whole model"

# -- metrics of a prompt ---------------------------------------------------------------------------

LOGIT_DIFFERENCE = Measure(
    name="logit_difference",
    of="prompt",
    definition="Logit of the correct answer minus that of the wrong one, or minus the mean of the "
    "wrong ones if there are several",
    source=_IOI,
    direction=Direction.HIGHER,
    unit="logits",
)
_METRICS = (
    LOGIT_DIFFERENCE,
    Measure(
        name="correct_logit_against_other_arguments",
        of="prompt",
        definition="Logit of the correct argument minus the largest logit of the other arguments",
        source="Heimersheim and Janiak 2023",
        direction=Direction.HIGHER,
        unit="logits",
    ),
    Measure(
        name="probability",
        of="prompt",
        definition="Probability of the correct answer as the next token",
        source=_HERE,
        direction=Direction.HIGHER,
        lowest=0,
        highest=1,
    ),
    Measure(
        name="probability_difference",
        of="prompt",
        definition="Probability of all correct answers minus that of all wrong ones",
        source=_GREATER_THAN,
        direction=Direction.HIGHER,
        lowest=-1,
        highest=1,
    ),
    Measure(
        name="kl_divergence",
        of="prompt",
        definition="Kullback-Leibler divergence D(whole model || ablated model) of the next "
        "token's probabilities",
        source="Conmy et al. 2023, arXiv 2304.14997",
        direction=Direction.LOWER,
        unit="nats",
        lowest=0,
        title="KL divergence",
    ),
    Measure(
        name="accuracy",
        of="prompt",
        definition="Whether the correct answer is chosen, 1 or 0; its mean is a share of prompts",
        source=_HERE,
        direction=Direction.HIGHER,
        lowest=0,
        highest=1,
    ),
)

# -- measures of a circuit -------------------------------------------------------------------------

FAITHFULNESS = Measure(
    name="faithfulness",
    of="circuit",
    definition="Share of the model's metric that remains with everything outside the circuit "
    "ablated",
    source=_MARKS,
    direction=Direction.HIGHER,
    normalised=_TO_MODEL,
)
RANDOM_FAITHFULNESS = Measure(
    name="random_faithfulness",
    of="circuit",
    definition="Median faithfulness of random circuits with the circuit's nodes and degrees; "
    "without edges, with as many parts of each kind",
    source=_HERE,
    direction=Direction.NEITHER,
    normalised=_TO_MODEL,
)
COMPLETENESS = Measure(
    name="completeness",
    of="circuit",
    definition="Faithfulness of all edges outside the circuit: the model without the circuit",
    source=_MARKS,
    direction=Direction.LOWER,
    normalised=_TO_MODEL,
)
CPR = Measure(
    name="cpr",
    of="circuit",
    definition="Circuit performance ratio: area under faithfulness over the share of edges, chosen "
    "by signed score",
    source=_BENCHMARK,
    direction=Direction.HIGHER,
    normalised="1 is the whole model at every size",
    title="CPR",
)
CMD = Measure(
    name="cmd",
    of="circuit",
    definition="Circuit model distance: area of |1 - faithfulness| over the share of edges, chosen "
    "by absolute score",
    source=_BENCHMARK,
    direction=Direction.LOWER,
    lowest=0,
    normalised="0 is the whole model at every size",
    title="CMD",
)
EDGE_OVERLAP = Measure(
    name="edge_overlap",
    of="circuit",
    definition="Shared edges over all edges of two circuits, mean over the pairs of circuits that "
    "a consensus is made from",
    source=_HERE,
    direction=Direction.HIGHER,
    lowest=0,
    highest=1,
)
EXACT_EFFECT_RANK_CORRELATION = Measure(
    name="exact_effect_rank_correlation",
    of="circuit",
    definition="Spearman correlation of attributed effects with effects measured by patching",
    source=_HERE,
    direction=Direction.HIGHER,
    lowest=-1,
    highest=1,
)
PERCENT_OF_METRIC = Measure(
    name="F",
    of="circuit",
    definition="Metric of the circuit as a share of the whole model's, without subtraction",
    source=_SEQUENCES,
    direction=Direction.HIGHER,
    unit="percent of the whole model's metric",
    normalised="0 is a metric of 0, 100 the whole model",
)
_OF_CIRCUITS = (
    FAITHFULNESS,
    RANDOM_FAITHFULNESS,
    COMPLETENESS,
    CPR,
    CMD,
    EDGE_OVERLAP,
    EXACT_EFFECT_RANK_CORRELATION,
    PERCENT_OF_METRIC,
    Measure(
        name="F: *",
        of="circuit",
        definition="The same value for the circuit or the model without some of its parts",
        source=_SEQUENCES,
        direction=Direction.NEITHER,
        unit=PERCENT_OF_METRIC.unit,
        normalised=PERCENT_OF_METRIC.normalised,
    ),
    Measure(
        name="minimality",
        of="circuit",
        definition="Largest change of the metric that one part of the circuit makes when it is "
        "removed from some part of the circuit",
        source=_IOI,
        direction=Direction.HIGHER,
        lowest=0,
    ),
    Measure(
        name="incompleteness",
        of="circuit",
        definition="Largest difference between circuit and model, both without the same heads, "
        "over sets of heads",
        source=_IOI,
        direction=Direction.LOWER,
        unit=_AS_METRIC,
        lowest=0,
    ),
    Measure(
        name="faithfulness_gap",
        of="circuit",
        definition="Absolute difference between the circuit's metric and the model's",
        source=_IOI,
        direction=Direction.LOWER,
        unit=_AS_METRIC,
        lowest=0,
    ),
    Measure(
        name="performance_share",
        of="circuit",
        definition="Metric of the circuit over the whole model's",
        source=_IOI,
        direction=Direction.HIGHER,
        normalised="1 is the whole model",
    ),
    Measure(
        name="knockout_drop",
        of="circuit",
        definition="Decrease of the model's metric when named parts are ablated together",
        source=_IOI,
        direction=Direction.NEITHER,
        normalised="1 is the whole metric",
    ),
    Measure(
        name="size_share",
        of="circuit",
        definition="Share of the model's parts that are in the circuit",
        source=_IOI,
        direction=Direction.LOWER,
        lowest=0,
        highest=1,
    ),
    Measure(
        name="shared_heads",
        of="circuit",
        definition="Number of heads that two circuits have in common",
        source=_SEQUENCES,
        direction=Direction.NEITHER,
        unit="heads",
        lowest=0,
    ),
    Measure(
        name="head_iou",
        of="circuit",
        definition="Shared heads over all heads of two circuits",
        source=_SEQUENCES,
        direction=Direction.NEITHER,
        lowest=0,
        highest=1,
        title="IoU of heads",
    ),
    Measure(
        name="sufficiency",
        of="circuit",
        definition="Share of the metric that the circuit's heads keep, exact or to first order",
        source=_GLASSBOX,
        direction=Direction.HIGHER,
    ),
    Measure(
        name="comprehensiveness",
        of="circuit",
        definition="Share of the metric that is lost without the circuit's heads",
        source=_GLASSBOX,
        direction=Direction.HIGHER,
    ),
    Measure(
        name="f1",
        of="circuit",
        definition="Harmonic mean of sufficiency and comprehensiveness",
        source=_GLASSBOX,
        direction=Direction.HIGHER,
        title="F1",
    ),
)

# -- values of parts and of whole models -----------------------------------------------------------

_OF_PARTS = (
    Measure(
        name="attention",
        of="part",
        definition="Mean attention of a head to the token that its role names",
        source="Olsson et al. 2022, arXiv 2209.11895",
        direction=Direction.NEITHER,
        lowest=0,
        highest=1,
    ),
    Measure(
        name="direct_logit_attribution",
        of="part",
        definition="Output of a part at the last position, projected by the unembedding to a "
        "logit difference",
        source=_IOI,
        direction=Direction.NEITHER,
        unit="logits",
    ),
    Measure(
        name="copy_score",
        of="part",
        definition="Tokens that are themselves among the strongest outputs of a head's OV circuit",
        source=_IOI,
        direction=Direction.NEITHER,
        unit=_PERCENT,
        lowest=0,
        highest=100,
    ),
    Measure(
        name="successor_score",
        of="part",
        definition="Members of a sequence whose next member is among the strongest outputs of a "
        "head's OV circuit",
        source=_SUCCESSORS,
        direction=Direction.NEITHER,
        unit=_PERCENT,
        lowest=0,
        highest=100,
    ),
    Measure(
        name="explained_share",
        of="part",
        definition="Share of a head's effect that remains under an ablation which keeps only one "
        "mechanism",
        source=_SUPPRESSION,
        direction=Direction.HIGHER,
    ),
    Measure(
        name="self_repair_share",
        of="part",
        definition="Share of a model's self-repair that one mechanism explains",
        source=_SUPPRESSION,
        direction=Direction.NEITHER,
    ),
    Measure(
        name="model_logit_difference",
        of="model",
        definition="Mean logit difference of the whole model",
        source=_IOI,
        direction=Direction.HIGHER,
        unit="logits",
    ),
    Measure(
        name="model_share_correct",
        of="model",
        definition="Share of the prompts on which the whole model puts the correct answer above "
        "the wrong one",
        source=_IOI,
        direction=Direction.HIGHER,
        lowest=0,
        highest=1,
    ),
    Measure(
        name="model_answer_probability",
        of="model",
        definition="Mean probability of the correct answer in the whole model",
        source=_IOI,
        direction=Direction.HIGHER,
        lowest=0,
        highest=1,
    ),
    Measure(
        name="model_probability_difference",
        of="model",
        definition="Mean probability difference of the whole model",
        source=_GREATER_THAN,
        direction=Direction.HIGHER,
        lowest=-1,
        highest=1,
    ),
    Measure(
        name="model_cutoff_sharpness",
        of="model",
        definition="Mean probability of the first correct year minus that of the last wrong one, "
        "in the whole model",
        source=_GREATER_THAN,
        direction=Direction.HIGHER,
        lowest=-1,
        highest=1,
    ),
)

# -- changes by an edit ----------------------------------------------------------------------------

LIKELIHOOD = "teacher-forced-mean-token-nll"
"""Protocol of likelihoods of answers: nats per token, mean over prompts."""
COMPARED = "computed-from-nll"
"""Protocol of measures that are computed from the likelihoods of both answers to each prompt."""


def _share(name: str, definition: str, source: str, *, lower: bool = False) -> Measure:
    """A share of prompts or tokens, measured before and after an edit."""
    direction = Direction.LOWER if lower else Direction.HIGHER
    return Measure(
        name=name, of="edit", definition=definition, source=source, direction=direction, lowest=0,
        highest=1,
    )  # fmt: skip


def _likelihood(name: str, definition: str, direction: Direction) -> Measure:
    return Measure(
        name=name, of="edit", definition=definition, source=_ROME, direction=direction,
        unit="nats per token", lowest=0,
    )  # fmt: skip


def _by_how_much(name: str, definition: str) -> Measure:
    return Measure(
        name=name, of="edit", definition=definition, source=_ROME, direction=Direction.HIGHER,
        lowest=-1, highest=1,
    )  # fmt: skip


def _probability(name: str, definition: str, direction: Direction) -> Measure:
    return Measure(
        name=name, of="edit", definition=f"{definition}: geometric mean over its tokens",
        source=_HERE, direction=direction, lowest=0, highest=1,
    )  # fmt: skip


_OF_EDITS = (
    _share("efficacy", "Share of the edited prompts that give the new answer", _ROME),
    _share("paraphrase", "Share of the paraphrased prompts that give the new answer", _ROME),
    _share(
        "specificity",
        "Share of the prompts about other subjects whose answer does not change",
        _ROME,
    ),
    _share(
        "rewrite_success",
        "Share of the edited prompts whose new answer is more probable than the true one",
        _ROME,
    ),
    _share(
        "paraphrase_success",
        "Share of the paraphrased prompts whose new answer is more probable than the true one",
        _ROME,
    ),
    _share(
        "neighborhood_success",
        "Share of the prompts about similar subjects whose true answer stays the more probable one",
        _ROME,
    ),
    _by_how_much(
        "rewrite_diff", "Probability of the new answer minus that of the true one, edited prompts"
    ),
    _by_how_much(
        "paraphrase_diff",
        "Probability of the new answer minus that of the true one, paraphrased prompts",
    ),
    _by_how_much(
        "neighborhood_diff",
        "Probability of the true answer minus that of the new one, prompts about similar subjects",
    ),
    _likelihood(
        "neighborhood_target_new_nll",
        "Negative log-likelihood of the new answer on prompts about similar subjects",
        Direction.HIGHER,
    ),
    _likelihood(
        "neighborhood_target_true_nll",
        "Negative log-likelihood of the true answer on prompts about similar subjects",
        Direction.LOWER,
    ),
    _likelihood(
        "*_nll",
        "Negative log-likelihood of an answer, mean over its tokens",
        Direction.NEITHER,
    ),
    _probability(
        "neighborhood_target_new_probability",
        "Probability of the new answer on prompts about similar subjects",
        Direction.LOWER,
    ),
    _probability(
        "neighborhood_target_true_probability",
        "Probability of the true answer on prompts about similar subjects",
        Direction.HIGHER,
    ),
    _probability("*_target_new_probability", "Probability of the new answer", Direction.HIGHER),
    _probability("*_target_true_probability", "Probability of the true answer", Direction.NEITHER),
    _share(
        "rewrite_acc", "Share of the new answer's tokens that the edited prompt gives", _EASYEDIT
    ),
    _share(
        "rephrase_acc",
        "Share of the new answer's tokens that a paraphrased prompt gives",
        _EASYEDIT,
    ),
    _share(
        "neighborhood_acc",
        "Share of the true answer's tokens that a prompt about a similar subject gives",
        _HERE,
    ),
    _share(
        "rewrite_sequence_match",
        "Share of the edited prompts that give all tokens of the new answer",
        _HERE,
    ),
    _share(
        "rephrase_sequence_match",
        "Share of the paraphrased prompts that give all tokens of the new answer",
        _HERE,
    ),
    Measure(
        name="neutral_kl_divergence",
        of="edit",
        definition="Kullback-Leibler divergence D(unedited model || edited model) of the next "
        "token's probabilities on unrelated text",
        source=_HERE,
        direction=Direction.LOWER,
        unit="nats per token",
        lowest=0,
        title="KL divergence on neutral text",
    ),
    Measure(
        name="neutral_perplexity_ratio",
        of="edit",
        definition="Perplexity of unrelated text in the edited model over that in the unedited one",
        source=_HERE,
        direction=Direction.LOWER,
        lowest=0,
        normalised="1 is the unedited model",
        title="perplexity ratio on neutral text",
    ),
    _share(
        "locality/*",
        "Share of the outputs on unrelated prompts that do not change",
        _EASYEDIT,
    ),
    _share(
        "portability/*",
        "Share of the tokens of answers that follow from the edit",
        _EASYEDIT,
    ),
    Measure(
        name="*ngram_entropy",
        of="edit",
        definition="Weighted entropy of the n-grams of generated text, low if it is repetitive",
        source=_ROME,
        direction=Direction.HIGHER,
        unit="bits",
        lowest=0,
    ),
    Measure(
        name="time_seconds",
        of="edit",
        definition="Wall-clock time that the edit took",
        source=_EASYEDIT,
        direction=Direction.LOWER,
        unit="seconds",
        lowest=0,
        title="time",
    ),
)

MEASURES = (*_METRICS, *_OF_CIRCUITS, *_OF_PARTS, *_OF_EDITS)
"""All measures that the code uses; if two patterns match a name, the first one is used."""
