"""Prompts as tensors, and the answers that a model prefers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.tasks.base import TokenPair
from ingest.tasks.prompts import Judge, Verdict

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PromptTensors", "as_tensors", "device_name", "judge"]

_ASKED_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class PromptTensors:
    """Pairs of prompts, padded on the right.

    Attributes:
        clean: Token ids ``[prompt, position]``.
        corrupt: Token ids ``[prompt, position]``.
        attention_mask: 1 at real tokens, 0 at padding, ``[prompt, position]``.
        correct: Token ids ``[prompt]``.
        wrong: Token ids ``[prompt]``, or ``[prompt, answer]`` if some prompt has several.
    """

    clean: Tensor
    corrupt: Tensor
    attention_mask: Tensor
    correct: Tensor
    wrong: Tensor

    def logit_difference(self, logits: Tensor, index: Tensor) -> Tensor:
        """Return correct minus mean wrong logits, ``[batch]``, of the prompts ``index``."""
        from ingest.discovery.model.metrics import LogitDifference

        return LogitDifference(self.correct, self.wrong)(logits, index)


def as_tensors(pairs: Sequence[TokenPair]) -> PromptTensors:
    """Convert pairs of any lengths to tensors."""
    import torch

    from ingest.discovery.model.metrics import pad_answers

    longest = max(len(pair.clean) for pair in pairs)

    def padded(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])

    return PromptTensors(
        clean=padded([pair.clean for pair in pairs]),
        corrupt=padded([pair.corrupt for pair in pairs]),
        attention_mask=padded([[1] * len(pair.clean) for pair in pairs]),
        correct=torch.tensor([pair.correct for pair in pairs]),
        wrong=pad_answers([pair.all_wrong for pair in pairs]),
    )


def judge(bridge: Any, batch_size: int | None = None) -> Judge:
    """Make a function that returns a model's verdicts on pairs of prompts.

    Args:
        bridge: A TransformerLens ``TransformerBridge``.
        batch_size: Prompts per batch; None: 16.
    """

    def verdicts(pairs: Sequence[TokenPair]) -> list[Verdict]:
        found: dict[int, Verdict] = {}
        for members in _equal_lengths(pairs, batch_size or _ASKED_AT_ONCE):
            asked = [pairs[at] for at in members]
            found |= zip(members, _verdicts(bridge, asked), strict=True)
        return [found[at] for at in range(len(pairs))]

    return verdicts


def device_name(bridge: Any) -> str:
    """Return the devices of a bridge's weights: ``cpu``, or ``cuda:0 (name of the card), ...``."""
    import torch

    names = []
    for device in dict.fromkeys(each.device for each in bridge.original_model.parameters()):
        card = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
        names.append(f"{device}{card}")
    return ", ".join(names)


def _equal_lengths(pairs: Sequence[TokenPair], size: int) -> list[list[int]]:
    """Return indices of pairs in batches of one length: the model never receives padding."""
    batches = []
    for length in sorted({len(pair.clean) for pair in pairs}):
        members = [at for at, pair in enumerate(pairs) if len(pair.clean) == length]
        batches += [members[first : first + size] for first in range(0, len(members), size)]
    return batches


def _verdicts(bridge: Any, pairs: Sequence[TokenPair]) -> list[Verdict]:
    import torch

    device = next(bridge.original_model.parameters()).device
    tokens = torch.tensor([pair.clean for pair in pairs], device=device)
    with torch.no_grad(), bridge.hooks(fwd_hooks=[("unembed.hook_in", _last_position)]):
        mask = torch.ones_like(tokens)
        # One pass does not need a cache of keys and values. For CodeGen, TransformerLens also
        # fills it in a dtype that is not the model's.
        logits = bridge(tokens, attention_mask=mask, use_cache=False)[:, -1]
    best = logits.argmax(-1).tolist()
    return [
        Verdict(
            correct=bool((row[pair.correct] > row[list(pair.all_wrong)]).all()),
            top1=first == pair.correct,
        )
        for pair, row, first in zip(pairs, logits, best, strict=True)
    ]


def _last_position(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
    # Logits of earlier positions are not needed, and a vocabulary is large.
    return value[:, -1:]
