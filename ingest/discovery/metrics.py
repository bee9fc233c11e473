"""What discovery asks of its callers: a metric, and maybe somebody who watches progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ingest.discovery.texts import answer_ids
from registry.errors import BadInput

__all__ = ["LogitDifference", "Metric", "Progress", "logit_difference", "per_prompt"]

Metric = Callable[[Tensor, Tensor], Tensor]
"""``metric(logits[batch, word], index[batch]) -> [batch]``.

One number per prompt from the logits at its last real position. ``index`` says which prompts these
are, counted from 0 in the order in which they were given; it lies on the CPU.
"""

Progress = Callable[[int, int], None]
"""``progress(done, total)``, in prompts, after each batch."""


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """A metric: the logit of the correct answer minus that of a wrong one.

    Attributes:
        correct: Token id of each prompt's correct answer, ``[prompt]``.
        wrong: Token id of each prompt's wrong answer, ``[prompt]``.
    """

    name: ClassVar[str] = "logit_difference"

    correct: Tensor
    wrong: Tensor

    def __call__(self, logits: Tensor, index: Tensor) -> Tensor:
        """The difference, ``[batch]``, in at least single precision."""
        answers = logits.float() if logits.element_size() < 4 else logits
        correct, wrong = (ids[index].to(logits.device) for ids in (self.correct, self.wrong))
        both = answers.gather(1, correct[:, None]) - answers.gather(1, wrong[:, None])
        return both[:, 0]

    def __repr__(self) -> str:
        return f"<LogitDifference of {len(self.correct)} prompts>"


def logit_difference(model: Any, correct: Sequence[str], wrong: Sequence[str]) -> LogitDifference:
    """The metric that asks how much a model prefers each prompt's correct answer to a wrong one.

    Args:
        model: A TransformerLens ``TransformerBridge``, whose tokenizer reads the answers.
        correct: Of each prompt one token, written as it follows the prompt: ``" Mary"``.
        wrong: The same of a wrong answer.

    Raises:
        BadInput: An answer is not one token, or there are not as many of both.
    """
    if len(correct) != len(wrong):
        raise BadInput(
            f"there are {len(correct)} correct answers and {len(wrong)} wrong ones; give one of "
            "each for every prompt"
        )
    return LogitDifference(answer_ids(model, correct, "correct"), answer_ids(model, wrong, "wrong"))


def per_prompt(metric: Metric, logits: Tensor, index: Tensor) -> Tensor:
    """Call a metric and check that it gives one number per prompt.

    Raises:
        BadInput: It gives something else.
    """
    values = metric(logits, index)
    if not isinstance(values, Tensor) or values.shape != index.shape:
        found = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise BadInput(f"the metric must give one number per prompt, [{len(index)}]; got {found}")
    return values
