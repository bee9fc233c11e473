"""Replacement values for ablated parts.

``zero``: zero. ``mean``: the mean of the part's numbers over all tokens of a reference set, the
same for every position. ``mean-by-position``: a separate mean for each position, counted from the
first token. ``resample``: the value on the paired corrupt prompt. ``other-prompt``: the value on
another clean prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ingest.discovery.ablation.replacement import Ablation
from ingest.discovery.model.anatomy import Anatomy, Hook
from ingest.discovery.model.batches import PromptBatch, PromptPairs
from ingest.discovery.model.sites import INPUT, POSITIONS, heads_first, heads_side_by_side
from registry.errors import BadInput, UnsupportedModel

__all__ = ["Instead", "PartValues", "as_ablation", "pair_up", "record_values"]

Instead = Literal["zero", "mean", "mean-by-position", "resample", "other-prompt"]
_FIRST = "blocks.0.hook_in"


@dataclass(frozen=True, eq=False)
class PartValues:
    """Computes replacement values for parts.

    Attributes:
        instead: The kind of value.
        prompts: The clean and corrupt prompts.
        partners: Another prompt for each prompt, for ``other-prompt``.
        reference: Prompts over which both kinds of mean are taken.
        size: Reference prompts per batch.
    """

    instead: Instead
    prompts: PromptPairs
    partners: Sequence[int] | None
    reference: PromptPairs | None
    size: int
    _means: dict[str, Tensor] = field(default_factory=dict)

    def of(
        self, model: Any, anatomy: Anatomy, batch: PromptBatch, names: Collection[str]
    ) -> dict[str, Tensor]:
        """Return values by name, ``[batch, pos, width]``; an axis that shares a value has length 1.

        Args:
            model: Frozen.
            anatomy: Anatomy of the model.
            batch: Clean prompts in which parts are ablated.
            names: Names of values; see :class:`ingest.discovery.model.sites.Place`.
        """
        if self.instead == "zero":
            zero = torch.zeros(1, 1, 1, device=anatomy.device, dtype=anatomy.dtype)
            return dict.fromkeys(names, zero)
        if self.instead == "resample":
            return record_values(model, anatomy, batch.counterpart(), names)
        if self.instead == "other-prompt":
            assert self.partners is not None
            others = [self.partners[i] for i in batch.index.tolist()]
            return record_values(
                model, anatomy, self.prompts.batch(others, anatomy.device).clean, names
            )
        self._read_means(model, anatomy, [name for name in names if name not in self._means])
        n_positions = batch.clean.shape[1]
        return {name: self._means[name][:, :n_positions] for name in names}

    def forget(self) -> None:
        """Forget means: the model has changed."""
        self._means.clear()

    def _read_means(self, model: Any, anatomy: Anatomy, names: Sequence[str]) -> None:
        assert self.reference is not None
        if not names:
            return
        sums: dict[str, Tensor] = {}
        counts = torch.zeros(self.reference.longest, dtype=torch.float64)
        for batch in self.reference.batches(self.size, anatomy.device):
            n_prompts, n_positions = batch.clean.shape
            counts[:n_positions] += n_prompts
            for name, value in record_values(model, anatomy, batch.clean, names).items():
                if name not in sums:
                    shape = (self.reference.longest, value.shape[-1])
                    sums[name] = value.new_zeros(shape, dtype=torch.float64)
                sums[name][:n_positions] += value.double().sum(0)
        for name, total in sums.items():
            n_tokens = counts.to(total.device)[:, None]
            if self.instead == "mean":
                mean = total.sum(0, keepdim=True) / n_tokens.sum()
            else:
                mean = total / n_tokens
            self._means[name] = mean[None].to(anatomy.dtype)


def as_ablation(instead: str) -> Ablation:
    """Return the ablation of edges that needs the same prompts.

    Raises:
        BadInput: There is no such ablation.
    """
    if instead not in get_args(Instead):
        known = ", ".join(repr(kind) for kind in get_args(Instead))
        raise BadInput(f"instead must be one of {known}; got {instead!r}")
    if instead == "resample":
        return "resample"
    return "mean" if instead.startswith("mean") else "zero"


def pair_up(prompts: PromptPairs, partners: Sequence[int] | None) -> tuple[int, ...]:
    """Return another prompt for each prompt; by default the next of its length, cyclically.

    Raises:
        BadInput: The number of partners is not that of prompts, a partner does not exist or has
            another length, or a prompt is the only one of its length.
    """
    n_prompts = len(prompts)
    if partners is None:
        found = dict[int, int]()
        for members in prompts.groups():
            if len(members) == 1:
                raise BadInput(
                    f"prompt {members[0]} (counted from 0) is the only one of "
                    f"{prompts.lengths[members[0]]} tokens, so no other prompt's values fit "
                    "it; omit it, or use another ablation"
                )
            found |= dict(zip(members, [*members[1:], members[0]], strict=True))
        return tuple(found[prompt] for prompt in range(n_prompts))
    chosen = tuple(int(other) for other in partners)
    if len(chosen) != n_prompts:
        raise BadInput(
            f"there are {n_prompts} prompts and {len(chosen)} partners; give one per prompt"
        )
    for prompt, other in enumerate(chosen):
        if not 0 <= other < n_prompts:
            raise BadInput(
                f"partner {other} of prompt {prompt} is no prompt; they are 0 to {n_prompts - 1}"
            )
        if prompts.lengths[prompt] != prompts.lengths[other]:
            raise BadInput(
                f"prompt {prompt} has {prompts.lengths[prompt]} tokens and its partner {other} has "
                f"{prompts.lengths[other]}; partners must have the same length"
            )
    return chosen


def record_values(
    model: Any, anatomy: Anatomy, tokens: Tensor, names: Collection[str]
) -> dict[str, Tensor]:
    """Run prompts ``[batch, pos]``; return values by name, heads side by side.

    ``input`` is returned with the learned positions that were subtracted, if the model has them.

    Raises:
        UnsupportedModel: A hook point is never reached, or has a value of another shape.
    """
    seen: dict[str, Tensor] = {}
    hooks = {_FIRST if name == INPUT else name for name in names}
    if INPUT in names and anatomy.learned_positions:
        hooks.add(POSITIONS)
    with torch.no_grad():
        anatomy.run(model, tokens, [(hook, _seeing(seen, hook)) for hook in sorted(hooks)])
    found: dict[str, Tensor] = {}
    for name in names:
        value = seen.get(_FIRST if name == INPUT else name)
        if value is None or value.numel() % tokens.numel():
            raise UnsupportedModel(f"{anatomy.name} does not show {name} for every token")
        turned = heads_side_by_side(value, heads_first=heads_first(model, anatomy, name))
        found[name] = turned.reshape(*tokens.shape, -1)
    if INPUT in found and anatomy.learned_positions:
        found[POSITIONS] = seen[POSITIONS].expand_as(found[INPUT])
        found[INPUT] = found[INPUT] - found[POSITIONS]
    return found


def _seeing(seen: dict[str, Tensor], name: str) -> Hook:
    def see(value: Tensor, hook: object) -> None:  # noqa: ARG001
        seen[name] = value.detach().clone()  # models may add to it in place (Falcon)

    return see
