"""The metric that callers of discovery give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from ingest.discovery.model.texts import answer_ids
from registry.errors import BadInput

__all__ = [
    "NO_ANSWER",
    "LogitDifference",
    "Metric",
    "logit_difference",
    "pad_answers",
    "per_prompt",
]

NO_ANSWER = -1
"""Marks a missing answer if a prompt has fewer wrong answers than another."""

Metric = Callable[[Tensor, Tensor], Tensor]
"""``metric(logits[batch, word], index[batch]) -> [batch]``.

One number per prompt from the logits at its last real position. ``index`` gives the indices of
these prompts, counted from 0 in the given order; it is on the CPU.
"""


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """A metric: the logit of the correct answer minus that of a wrong one.

    For several wrong answers to a prompt, the mean of their logits is used.

    Attributes:
        correct: Token id of each prompt's correct answer, ``[prompt]``.
        wrong: Token id of each prompt's wrong answer, ``[prompt]``; or of several,
            ``[prompt, answer]``, padded with :data:`NO_ANSWER` if a prompt has fewer.
    """

    name: ClassVar[str] = "logit_difference"

    correct: Tensor
    wrong: Tensor

    def __call__(self, logits: Tensor, index: Tensor) -> Tensor:
        """Return the difference, ``[batch]``, in at least single precision."""
        answers = logits.float() if logits.element_size() < 4 else logits
        correct, wrong = (ids[index].to(logits.device) for ids in (self.correct, self.wrong))
        right = answers.gather(1, correct[:, None])[:, 0]
        if wrong.ndim == 1:
            return right - answers.gather(1, wrong[:, None])[:, 0]
        given = wrong != NO_ANSWER
        # A padded index reads some logit, which is not counted.
        each = torch.where(given, answers.gather(1, wrong.clamp(min=0)), 0.0)
        return right - each.sum(1) / given.sum(1)

    def __repr__(self) -> str:
        return f"<LogitDifference of {len(self.correct)} prompts>"


def logit_difference(
    model: Any, correct: Sequence[str], wrong: Sequence[str | Sequence[str]]
) -> LogitDifference:
    """Return the metric of a model's preference for each prompt's correct answer.

    Args:
        model: A TransformerLens ``TransformerBridge``, whose tokenizer reads the answers.
        correct: One token per prompt, written as it follows the prompt: ``" Mary"``.
        wrong: In the same form a wrong answer, or several, whose mean is used.

    Raises:
        BadInput: An answer is not one token, a prompt has no wrong answer, or their numbers differ.
    """
    if len(correct) != len(wrong):
        raise BadInput(
            f"there are {len(correct)} correct answers and {len(wrong)} wrong ones; give both "
            "for every prompt"
        )
    return LogitDifference(answer_ids(model, correct, "correct"), _wrong_ids(model, wrong))


def pad_answers(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return token ids of each prompt's wrong answers, as :class:`LogitDifference` needs them.

    Returns:
        ``[prompt]`` if each has one, else ``[prompt, answer]``.
    """
    most = max(map(len, rows))
    padded = torch.tensor([[*row, *[NO_ANSWER] * (most - len(row))] for row in rows])
    return padded[:, 0] if most == 1 else padded


def _wrong_ids(model: Any, wrong: Sequence[str | Sequence[str]]) -> Tensor:
    if all(isinstance(answers, str) for answers in wrong):
        return answer_ids(model, cast(Sequence[str], wrong), "wrong")
    rows = []
    for prompt, answers in enumerate(wrong):
        if not answers:
            raise BadInput(
                f"prompt {prompt} (counted from 0) has no wrong answer; give one or more"
            )
        several = [answers] if isinstance(answers, str) else answers
        rows.append(answer_ids(model, several, f"of prompt {prompt}, wrong answer").tolist())
    return pad_answers(rows)


def per_prompt(metric: Metric, logits: Tensor, index: Tensor) -> Tensor:
    """Call a metric and check that it gives one number per prompt.

    Raises:
        BadInput: It gives something else, or does not take both arguments.
    """
    try:
        values = metric(logits, index)
    except TypeError as error:
        if _takes_both(metric):
            raise
        raise BadInput(
            f"the metric {_name_of(metric)} does not take two arguments; it must be a function"
            " metric(logits, index): the logits [prompt, word] at each prompt's last position, and"
            " which prompts these are, [prompt], counted from 0"
        ) from error
    if not isinstance(values, Tensor) or values.shape != index.shape:
        found = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise BadInput(f"the metric must give one number per prompt, [{len(index)}]; got {found}")
    return values


def _takes_both(metric: Metric) -> bool:
    """Whether a metric can be called with two arguments, as far as Python knows."""
    called = metric.forward if isinstance(metric, torch.nn.Module) else metric
    try:
        inspect.signature(called).bind(None, None)
    except TypeError:  # also if it is no function at all
        return False
    except ValueError:  # a function of C, whose signature is unknown
        return True
    return True


def _name_of(metric: Metric) -> str:
    return str(getattr(metric, "__name__", type(metric).__name__))
