"""What the numbers of a report mean, how they are computed, and where they mislead, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queries.comparing import SIGNIFICANT
from queries.report.page import Text

if TYPE_CHECKING:
    from queries.report.gathering import Report

__all__ = ["methods"]


def methods(report: Report) -> tuple[Text, ...]:
    """A paragraph on each number."""
    matrix, shared = report.matrix, report.shared
    drawn = _drawn(matrix.draws, matrix.seed)
    least = f"A part counts as shared that {shared.min_tasks} of {len(shared.tasks)} tasks use."
    paragraphs = (
        ("Levels", _LEVELS),
        ("Overlap", _OVERLAP),
        ("Chance", f"{drawn} {_NULLS}"),
        ("Ceiling", _CEILING),
        ("Transfer", _TRANSFER),
        ("Shared", f"{least} {_SHARED}"),
        ("Generality", _GENERALITY),
        ("What is missing", _MISSING),
    )
    return tuple(Text(" ".join(text.split()), lead) for lead, text in paragraphs)


def _drawn(draws: int, seed: int) -> str:
    if not draws:
        return "No random circuits were drawn for this report."
    return f"For every pair {draws:,} pairs of random circuits were drawn, with seed {seed}."


_LEVELS = """A component is an attention head, a key/value head, an MLP, the input or the logits. A
    connection leads from one component to an input of another; the queries, keys and values of a
    head are inputs of their own. Token positions are summed over. Circuits that tell less than
    others (inputs of heads merged, key/value heads counted by query head) are folded onto what both
    tell, and what was folded is named."""
_OVERLAP = """IoU is what two circuits share divided by what either has: 1 for equal circuits, 0 for
    nothing in common. A larger circuit shares more with any other, so circuits are compared at one
    size where there is one. Same sign is the share of connections of both whose effects have the
    same sign; rank correlation is Spearman's, over the effects of shared connections."""
_NULLS = f"""Circuits of one model share its hubs whatever their tasks, so overlap alone proves
    little. The null of degrees asks what is shared if every part keeps its number of edges and only
    who feeds whom is drawn anew, in both circuits. It is exact where edges are in a circuit
    independently, with odds that are a product of what sends and what receives. It is too eager
    where hubs are saturated: edges between strong hubs are then in any circuit of that size, which
    is no sign that tasks are alike. Saturation is the share of all edges between a circuit's hubs
    that it has; the nearer to 1, the less this null can be trusted. The null of hubs asks the same
    where edges are taken one after the other by the weight of their ends, as a ranking takes them,
    so that edges between strong hubs become certain; every part has its number of edges on average,
    and the probabilities are exact. The null of layers takes as many edges between any two layers
    and kinds of part, into the same input, and knows nothing of hubs but those that are alone in
    their layer; its probabilities are exact, too. Components have the null of layers alone: any
    heads of the same layers. z is by how many standard deviations more is shared than a null
    expects, p how often the null shares as much. Where one z stands for all nulls, it is the
    smallest. The conclusion is always that of the null with the largest p, and q corrects it for
    all pairs of the report (Benjamini and Hochberg 1995); below {SIGNIFICANT} counts as beyond
    chance. That circuits share more than chance does not say that they do the same thing with
    it."""
_CEILING = """Circuits of one task, found the same way on other prompts, do not agree fully either.
    What they share with each other is the most that two tasks can be expected to share."""
_TRANSFER = """Faithfulness is the metric with every edge outside the circuit ablated, as a share of
    the way from everything ablated (0) to the whole model (1); below 0 and above 1 are possible. A
    circuit that keeps another task's behaviour does what that task needs, whether or not their
    edges are the same; one that does not may still share much. Beside it stands the median of
    random circuits with the same nodes and degrees, measured on the same prompts. F, of published
    circuits, is the metric in percent of the whole model's, without the ablated model subtracted,
    so that the two do not compare."""
_SHARED = """Signs agree where a part acts alike in all tasks that tell. The strength of a part is
    the mean size of its effects as shares of the largest of the task. A path is as strong as its
    weakest connection; it may run over connections of which no single task has all."""
_GENERALITY = """The share of the tasks that use a part. By chance, a task could use any heads of
    the same layers, as many as it does, independently of other tasks; the number of tasks that use
    a head is then a sum of independent events, whose probabilities are known. A connection is used
    by chance as often as it is in random circuits with the task's degrees. q corrects for all parts
    that could have been used. A layer has one MLP, of which chance therefore says nothing. Tasks
    whose prompts look alike use the same parts without being alike, and a method that favours some
    parts makes these look general."""
_MISSING = """Hatched cells and dashes stand for what was not measured or cannot be told, never for
    0."""
