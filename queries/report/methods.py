"""What the numbers of a report mean, how they are computed, and when they mislead, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from queries.answers.compare import SIGNIFICANT
from queries.report.page import Text

if TYPE_CHECKING:
    from queries.report.gathering import Report

__all__ = ["methods"]


def methods(report: Report) -> tuple[Text, ...]:
    """A paragraph about each number."""
    matrix, shared = report.matrix, report.shared
    drawn = _drawn(matrix.draws, matrix.seed)
    least = f"A part is shared if {shared.min_tasks} of {len(shared.tasks)} tasks use it."
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
    return f"For every pair, {draws:,} pairs of random circuits were drawn, with seed {seed}."


_LEVELS = """A component is an attention head, a key/value head, an MLP, the input or the logits. A
    connection leads from one component to an input of another; the queries, keys and values of a
    head are separate inputs. Effects are summed over token positions. If one circuit is less
    detailed than another (inputs of heads merged, key/value heads counted by query head), both are
    folded to the detail that both have, and the report names what was folded."""
_OVERLAP = """IoU is intersection over union: 1 for equal circuits, 0 for nothing in common. A
    larger circuit shares more with any other circuit, so circuits are compared at one size if
    possible. Same sign is the share of common connections whose effects have the same sign. Rank
    correlation is Spearman's, over the effects of shared connections."""
_NULLS = f"""Circuits of one model share its hubs even if their tasks are unrelated, so overlap
    alone proves little. In the null of degrees every part keeps its number of edges; only the
    pairing of senders and receivers is random, in both circuits. It is exact if edges are in a
    circuit independently, with odds that are a product of a sender's and a receiver's factor. It
    rejects too often if hubs are saturated: edges between strong hubs are then in any circuit of
    that size and do not show that tasks are similar. Saturation is the share of all possible edges
    between a circuit's hubs that it has; the nearer to 1, the less reliable is this null. In the
    null of hubs, edges are selected one after the other by the weight of their ends, like in a
    ranking, so that edges between strong hubs become certain; every part has its number of edges
    on average, and the probabilities are exact. In the null of layers, circuits take the same
    number of edges between any two layers and kinds of part, into the same input. It keeps no hubs
    except those that are the only part of their kind in a layer; its probabilities are exact, too.
    Components have only the null of layers: random heads of the same layers. z is the number of
    standard deviations by which more is shared than a null expects; p is how often the null shares
    at least as much. If one z is given for all nulls, it is the smallest. The conclusion is always
    that of the null with the largest p; q corrects this p for all pairs of the report (Benjamini
    and Hochberg 1995), and q below {SIGNIFICANT} counts as beyond chance. If circuits share more
    than chance, they do not necessarily do the same thing with the shared parts."""
_CEILING = """Circuits of one task that were found the same way on other prompts do not agree fully
    either. Two tasks are not expected to share more than these circuits share with each other."""
_TRANSFER = """Faithfulness is the metric with every edge outside the circuit ablated, or every part
    if it has no edges, on a scale on which everything ablated is 0 and the whole model is 1; values
    below 0 and above 1 are possible. A circuit that keeps another task's behaviour does what that
    task needs, whether or not their edges are the same; a circuit that does not keep it can still
    share much. The table also gives the median of random circuits with the same nodes and degrees,
    or with as many parts of each kind, measured on the same prompts. F, of published circuits, is
    the metric in percent of the whole model's metric. It does not subtract the ablated model, so F
    and faithfulness cannot be compared."""
_SHARED = """Signs agree if a part has the same sign in all tasks with signed effects. The strength
    of a part is its absolute effect relative to the largest of the task, mean over tasks. A path
    is as strong as its weakest connection. No single task needs to have all its connections."""
_GENERALITY = """Generality is the share of the tasks that use a part. By chance, a task could use
    any heads of the same layers, in the same number, independently of other tasks. The number of
    tasks that use a head is then a sum of independent events with known probabilities. For
    connections, the probability is the share of random circuits with the task's degrees that have
    the connection. q corrects for all parts that could have been used. A layer has only one MLP,
    so p is 1 for it. Tasks with similar prompts use the same parts even if the tasks are not
    similar, and a method that favours some parts makes these look general."""
_MISSING = """Hatched cells and dashes mean that a value was not measured or is unknown, never 0."""
