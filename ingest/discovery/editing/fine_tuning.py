"""Constrained fine-tuning: a few steps of gradient descent on the answers, on chosen weights.

Ge, Rudzicz and Zhu edit circuits by plain gradient descent with a small bound on the change of each
weight ("Understanding Language Model Circuits through Knowledge Editing"; constants as in the
authors' code). The bound is that of Zhu et al. 2020 (arXiv 2012.00363). The paper can be
read in two ways, and a caller chooses one of them. In the whole model, only the weights of the
masks change. Or the circuit alone is the model: the caller sets the other weights to zero with
``changed_weights(model, masked=...)`` and calls this function inside that block with the same
masks.

Steps run on the plain model of transformers. In some families (GPT-NeoX) TransformerLens computes
with copies that are split from joint weights, so a gradient would not reach the weight itself. The
plain model also shares tied weights as the checkpoint does. The change is kept apart from the
weight, in float32 or wider, and the rounded sum is written to the weight. In half precision a
single step would otherwise be lost to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ingest.discovery.editing.answers import Answer, check_answers, logits_of, read_rows
from ingest.discovery.editing.neutral import Neutral, divergence, neutral_logits
from ingest.discovery.editing.part_weights import Masks
from ingest.discovery.editing.trained_weights import TrainedWeight, chosen_weights, trained
from ingest.discovery.model.batches import PromptBatch, each_batch
from registry.errors import BadInput
from registry.progress import OnProgress

__all__ = ["FineTuning", "FineTuningChange", "fine_tuning_change"]

_Optimizer = Literal["sgd", "adamw"]
_Reason = Literal["small loss", "steps", "kl budget"]
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Settings of fine-tuning; defaults are those of the authors.

    Attributes:
        optimizer: ``sgd``, without momentum, or ``adamw``.
        learning_rate: Of the optimizer.
        steps: Largest number of steps.
        stop_below: Steps end when the loss is below this, in nats per token.
        clamp: Largest absolute change of each weight (L-infinity); None: no bound.
        kl_budget: Steps end when the mean divergence from the unchanged model on neutral text is
            larger than this, in nats per token, and the last step is taken back; None: no budget.
        weight_decay: Each step takes this share of the weight, times the learning rate.
    """

    optimizer: _Optimizer = "sgd"
    learning_rate: float = 5e-4
    steps: int = 10
    stop_below: float = 0.01
    clamp: float | None = 5e-4
    kl_budget: float | None = None
    weight_decay: float = 0.0


@dataclass(frozen=True, eq=False)
class FineTuningChange:
    """The change of the weights, for ``changed_weights(model, added=...)``.

    Attributes:
        added: By the weight's name in transformers, only weights that changed: the change in the
            weight's shape, float32 or wider. In half precision some of it may be lost when it is
            added.
        losses: Mean negative log-likelihood of the answers before each step, in nats per token;
            also the small loss that ended the steps.
        n_steps: Number of steps that are in the change.
        stopped: What ended the steps.
        divergence: From the unchanged model on neutral text, in nats per token; None without a
            budget.
    """

    added: Mapping[str, Tensor]
    losses: tuple[float, ...]
    n_steps: int
    stopped: _Reason
    divergence: float | None = None

    def __repr__(self) -> str:
        return (
            f"<FineTuningChange of {len(self.added)} weights, {self.n_steps} steps, stopped by"
            f" {self.stopped}>"
        )


def fine_tuning_change(
    model: Any,
    answers: Sequence[Answer],
    *,
    masks: Masks | None,
    options: FineTuning | None = None,
    neutral: Sequence[Sequence[int]] = (),
    progress: OnProgress | None = None,
) -> FineTuningChange:
    """Compute the change that fine-tuning on answers makes; the model is restored bit for bit.

    The loss is the mean over answers of the mean negative log-likelihood of their tokens,
    teacher-forced. Steps run without dropout. The model is restored also after an exception or
    Ctrl-C.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        answers: At least one.
        masks: Which numbers of which weights may change, by the weight's name in transformers. A
            weight without a mask does not change. None: all weights may change.
        options: Settings; by default those of the authors.
        neutral: Token ids of pieces of text for ``kl_budget``.
        progress: Called with the number of finished steps and their largest number.

    Raises:
        BadInput: There are no answers, a setting is out of its range, a mask has a wrong name or
            shape or all masks are empty, there is no neutral text for a budget, or the loss does
            not stay finite.
    """
    options = options or FineTuning()
    check_answers(answers)
    _check(options, neutral)
    with trained(model, chosen_weights(model, masks)) as (plain, weights), torch.enable_grad():
        return _Descent(plain, weights, answers, options, neutral).run(progress)


def _check(options: FineTuning, neutral: Sequence[Sequence[int]]) -> None:
    if options.optimizer not in get_args(_Optimizer):
        raise BadInput(f"optimizer is {options.optimizer!r}; it must be sgd or adamw")
    if options.steps < 1:
        raise BadInput(f"steps is {options.steps}; it must be 1 or more")
    for name in ("learning_rate", "clamp"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise BadInput(f"{name} is {value}; it must be a positive number, such as 5e-4")
    for name in ("stop_below", "kl_budget", "weight_decay"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            raise BadInput(f"{name} is {value}; it must be 0 or more")
    if options.kl_budget is not None and not neutral:
        raise BadInput("kl_budget needs neutral text, about something else than the answers")


# -- the steps -------------------------------------------------------------------------------------


class _Descent:
    """Gradient descent on the answers' loss."""

    def __init__(
        self,
        plain: nn.Module,
        weights: list[TrainedWeight],
        answers: Sequence[Answer],
        options: FineTuning,
        neutral: Sequence[Sequence[int]],
    ) -> None:
        self._plain, self._weights = plain, weights
        self._answers, self._rows = answers, read_rows(answers)
        self._options = options
        self._optimizer = _optimizer([one.added for one in weights], options)
        self._before: Neutral | None = None
        self._moved: float | None = None
        if options.kl_budget is not None:
            self._before, self._moved = neutral_logits(plain, neutral), 0.0

    def run(self, progress: OnProgress | None) -> FineTuningChange:
        """Take steps until something ends them."""
        losses: list[float] = []
        n_steps, stopped = 0, None
        while stopped is None and n_steps < self._options.steps:
            losses.append(self._loss_and_gradients(n_steps))
            stopped = self._step(losses[-1])
            if stopped is None:
                n_steps += 1
                if progress is not None:
                    progress(n_steps, self._options.steps)
        return FineTuningChange(
            self._added(), tuple(losses), n_steps, stopped or "steps", self._moved
        )

    def _added(self) -> dict[str, Tensor]:
        found = {one.name: one.added for one in self._weights if bool(one.added.any())}
        for name, added in found.items():
            added.grad = None
            if not bool(torch.isfinite(added).all()):
                raise BadInput(
                    f"the change of {name} is not finite; use a smaller learning rate or float32"
                )
        return found

    def _step(self, loss: float) -> _Reason | None:
        """Take a step; return why no step is left or taken, or None."""
        if loss < self._options.stop_below:
            return "small loss"
        has_budget = self._before is not None
        kept = [one.added.clone() for one in self._weights] if has_budget else []
        self._descend()
        if not has_budget or self._is_within_budget():
            return None
        for one, added in zip(self._weights, kept, strict=True):
            one.added.copy_(added)
        return "kl budget"

    def _descend(self) -> None:
        options = self._options
        with torch.no_grad():
            for one in self._weights:
                one.restrict(options.learning_rate * options.weight_decay)
            self._optimizer.step()
            for one in self._weights:
                if options.clamp is not None:
                    one.added.clamp_(-options.clamp, options.clamp)
                one.write()

    def _is_within_budget(self) -> bool:
        before, most = self._before, self._options.kl_budget
        if before is None or most is None:
            return True
        now = divergence(before, neutral_logits(self._plain, before.windows))
        if now > most:
            return False
        self._moved = now
        return True

    def _loss_and_gradients(self, n_steps: int) -> float:
        """Return the loss, and give each weight its gradient."""
        for one in self._weights:
            one.added.grad = None
        losses: list[float] = []

        def work(batch: PromptBatch) -> None:
            loss = self._loss(batch)
            found = self._gradients(loss)
            for one, gradient in zip(self._weights, found, strict=True):
                if gradient is not None:
                    one.take(gradient)
            losses.append(loss.item())

        device = next(self._plain.parameters()).device
        each_batch(self._rows, device, work, size=None, start=_AT_ONCE)
        total = math.fsum(losses) if all(map(math.isfinite, losses)) else math.nan
        if not math.isfinite(total):
            raise BadInput(
                f"the loss is not finite after {n_steps} steps; use a smaller learning rate or"
                " float32"
            )
        return total

    def _loss(self, batch: PromptBatch) -> Tensor:
        """Return the share of these answers in the loss."""
        logits = logits_of(self._plain, batch.clean)
        said = []
        for row, at in enumerate(batch.index.tolist()):
            one = self._answers[at]
            wanted = torch.tensor(one.tokens, device=logits.device)
            own = logits[row, len(one.prompt) - 1 :]
            said.append(nn.functional.cross_entropy(own, wanted))
        return torch.stack(said).sum() / len(self._answers)

    def _gradients(self, loss: Tensor) -> list[Tensor | None]:
        """Return the gradient of each weight in the precision of its change, None if it has none.

        Gradients that a caller keeps in ``weight.grad`` stay as they are.
        """
        if not loss.requires_grad:
            return [None] * len(self._weights)
        own = [one.weight for one in self._weights]
        found = torch.autograd.grad(loss, own, allow_unused=True)
        return [
            None if gradient is None else gradient.to(one.added.dtype, copy=True)
            for one, gradient in zip(self._weights, found, strict=True)
        ]


def _optimizer(added: list[Tensor], options: FineTuning) -> torch.optim.Optimizer:
    """Return an optimizer of changes; the decay is of the weights, so it is not part of it."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(added, lr=options.learning_rate)
    return torch.optim.AdamW(added, lr=options.learning_rate, weight_decay=0)
