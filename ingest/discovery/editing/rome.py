"""ROME: one fact, written into one MLP by a change of rank one.

The down-projection of an MLP is read as a memory of keys and values. The key of a fact is the
layer's input at the last token of the subject. A value is searched by gradient descent that makes
the model say the new target. The weight is then changed by the smallest change, measured by the
keys of other text, that stores this value for this key (Meng et al. 2022, arXiv 2202.05262,
section 3.1 and appendix E; steps and constants as in the authors' code).

Two properties of that code are kept, because results depend on them. The key in the denominator of
the change is that of the plain prompt, while the direction uses the mean key over texts before it.
The penalty is the norm of the change, not its square, over the squared norm of the value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.editing.keys import KeyMoment
from ingest.discovery.editing.projections import (
    DownProjection,
    Prompt,
    added_at,
    down_projection,
    read_at,
)
from ingest.discovery.model.anatomy import frozen
from registry.errors import BadInput

__all__ = ["Rewrite", "RomeChange", "RomeOptions", "rank_one_change", "rome_change"]

_ENOUGH = 0.05
"""The search ends when the loss is below this."""
_SMALLEST = 1e-12
"""Smallest ratio of the second moment's eigenvalues for which the key's direction is known."""


@dataclass(frozen=True, slots=True)
class RomeOptions:
    """Settings of the search for a value; defaults are those of the authors for GPT-2 XL.

    Attributes:
        steps: Largest number of steps of Adam.
        learning_rate: Of Adam.
        weight_decay: Factor of the penalty ``|change| / |value|**2``.
        kl_weight: Factor of the divergence at ``Rewrite.essence`` from the unchanged model.
        clamp: Largest norm of the change, in norms of the unchanged value.
    """

    steps: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 0.5
    kl_weight: float = 0.0625
    clamp: float = 4.0


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A fact to be written, as token ids.

    Attributes:
        prompts: The prompt, then the same prompt after other texts; each with the position of the
            last token of the subject.
        target: The new target, as it follows the prompt.
        essence: A prompt about the subject whose meaning should stay ("SUBJECT is a"), or None.
    """

    prompts: tuple[Prompt, ...]
    target: tuple[int, ...]
    essence: Prompt | None = None


@dataclass(frozen=True, eq=False)
class RomeChange:
    """A change of one weight.

    Attributes:
        name: The weight's name in transformers.
        added: The change, in the weight's shape, float32 or wider.
        key: Mean key over the prompts, ``[d_mlp]``, float64.
        value: The searched value, ``[d_model]``, float64.
        losses: Loss of each step.
    """

    name: str
    added: Tensor
    key: Tensor
    value: Tensor
    losses: tuple[float, ...]


def rome_change(
    model: Any,
    layer: int,
    rewrite: Rewrite,
    moment: KeyMoment,
    options: RomeOptions | None = None,
) -> RomeChange:
    """Compute the change that writes one fact; the model is not changed.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        layer: Index of the block whose MLP is changed.
        rewrite: The fact.
        moment: Second moment of this layer's keys over other text.
        options: Settings of the search.

    Raises:
        BadInput: The target or the prompts are empty, the moment is of another layer or singular,
            or the search does not stay finite.
        UnsupportedModel: The layer has no single down-projection.
    """
    options = options or RomeOptions()
    place = down_projection(model, layer)
    _check(rewrite, moment, place)
    keys, values = (found.double() for found in read_at(model, place, rewrite.prompts))
    value, losses = _searched_value(model, place, rewrite, values[0], options)
    key = keys.mean(0)
    change = rank_one_change(moment.matrix, key, value - values[0], key_here=keys[0])
    wide = torch.promote_types(place.weight.dtype, torch.float32)
    added = place.as_stored(change).to(place.weight.device, wide).contiguous()
    return RomeChange(place.name, added, key, value, losses)


def rank_one_change(
    moment: Tensor, key: Tensor, missing: Tensor, *, key_here: Tensor | None = None
) -> Tensor:
    """Return the change ``missing u^T / (key_here . u)`` with ``u = moment^-1 key``.

    If ``key_here`` is ``key``, this is the change ``D`` with ``D key = missing`` and the smallest
    ``trace(D moment D^T)`` (Meng et al. 2022, equation 2).

    Args:
        moment: Second moment of keys, ``[d_mlp, d_mlp]``.
        key: ``[d_mlp]``.
        missing: Wanted value less the present one, ``[d_model]``.
        key_here: The key for which the value is stored; ``key`` by default.

    Returns:
        ``[d_model, d_mlp]``, float64.

    Raises:
        BadInput: The moment is singular, or the two keys have nothing in common.
    """
    moment, key, missing = moment.double(), key.double(), missing.double()
    here = key if key_here is None else key_here.double()
    largest, smallest = (float(one) for one in torch.linalg.eigvalsh(moment)[[-1, 0]])
    if not smallest > _SMALLEST * largest:
        raise BadInput(
            "the second moment of the keys is singular; measure it over a longer text, with more"
            f" tokens than the {len(key)} dimensions of a key"
        )
    direction = torch.linalg.solve(moment, key)
    shared = here @ direction
    if not abs(float(shared)) > 1e-9 * float(here.norm() * direction.norm()):
        raise BadInput("the subject's key after other texts has nothing in common with its own")
    return torch.outer(missing, direction / shared)


def _check(rewrite: Rewrite, moment: KeyMoment, place: DownProjection) -> None:
    if not rewrite.target:
        raise BadInput("the new target has no tokens")
    if not rewrite.prompts:
        raise BadInput("a rewrite needs a prompt")
    for ids, position in (*rewrite.prompts, *([rewrite.essence] if rewrite.essence else [])):
        if not 0 <= position < len(ids):
            raise BadInput(f"position {position} is not in a prompt of {len(ids)} tokens")
    if moment.layer != place.layer or len(moment.matrix) != place.d_mlp:
        raise BadInput(
            f"the second moment is of layer {moment.layer} with {len(moment.matrix)} dimensions,"
            f" but layer {place.layer} has {place.d_mlp}"
        )


def _searched_value(
    model: Any, place: DownProjection, rewrite: Rewrite, value: Tensor, options: RomeOptions
) -> tuple[Tensor, tuple[float, ...]]:
    """Search the value with which the model says the target: ``[d_model]``, and the losses."""
    search = _Search(model, place, rewrite, value, options)
    with frozen(model):
        losses = search.run()
    return value + search.change.detach().double(), tuple(losses)


class _Search:
    """Gradient descent on a change of the layer's output at the subject."""

    def __init__(
        self,
        model: Any,
        place: DownProjection,
        rewrite: Rewrite,
        value: Tensor,
        options: RomeOptions,
    ) -> None:
        self._model, self._place, self._rewrite = model, place, rewrite
        self._options = options
        self._norm = float(value.norm())
        wide = torch.promote_types(place.weight.dtype, torch.float32)
        self.change = torch.zeros(
            place.d_model, dtype=wide, device=place.weight.device, requires_grad=True
        )
        self._before: Tensor | None = None

    def run(self) -> list[float]:
        """Take steps until the loss is small or their number is reached; return all losses."""
        options, losses = self._options, []
        adam = torch.optim.Adam([self.change], lr=options.learning_rate)
        for _ in range(options.steps):
            adam.zero_grad()
            loss = self._loss()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise BadInput(
                    f"the search for the new value does not stay finite (step {len(losses)}); use a"
                    " smaller learning rate or float32"
                )
            if losses[-1] < _ENOUGH:
                break
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            self._clamp()
        return losses

    def _clamp(self) -> None:
        most = self._options.clamp * self._norm
        with torch.no_grad():
            norm = float(self.change.norm())
            if norm > most:
                self.change *= most / norm

    def _loss(self) -> Tensor:
        options, rewrite = self._options, self._rewrite
        said = [self._nll(prompt, rewrite.target) for prompt in rewrite.prompts]
        loss: Tensor = torch.stack(said).mean()
        # The norm has no gradient at 0, where the search begins; torch gives 0 there.
        loss = loss + options.weight_decay * self.change.norm() / self._norm**2
        if rewrite.essence is not None and options.kl_weight:
            now = self._log_probabilities(rewrite.essence)
            if self._before is None:
                self._before = now.detach()
            loss = loss + options.kl_weight * _kl(self._before, now)
        return loss

    def _nll(self, prompt: Prompt, target: Sequence[int]) -> Tensor:
        """Mean negative log-likelihood of the target's tokens, teacher-forced, in nats."""
        ids, position = prompt
        logits = self._logits((*ids, *target[:-1]), position)[len(ids) - 1 :]
        wanted = torch.tensor(list(target), device=logits.device)
        return torch.nn.functional.cross_entropy(logits, wanted)

    def _log_probabilities(self, prompt: Prompt) -> Tensor:
        ids, position = prompt
        return self._logits(ids, position)[position].log_softmax(-1)

    def _logits(self, ids: Sequence[int], position: int) -> Tensor:
        """Logits ``[pos, d_vocab]`` with the change at one position."""

        def changed(out: Tensor) -> Tensor:
            added = torch.zeros_like(out)
            added[0, position] = self.change.to(out.dtype)
            return out + added

        with added_at(self._place.module, changed):
            given = torch.tensor([list(ids)], device=self._place.weight.device)
            logits: Tensor = self._model(given)
        found: Tensor = logits[0].to(self.change.dtype)
        return found


def _kl(before: Tensor, now: Tensor) -> Tensor:
    """Divergence of the distribution before from that now, in nats."""
    found: Tensor = torch.nn.functional.kl_div(now, before, log_target=True, reduction="sum")
    return found
