"""Prompts as tensors, and asking a model which answers it prefers."""

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
        wrong: Token ids ``[prompt]``.
    """

    clean: Tensor
    corrupt: Tensor
    attention_mask: Tensor
    correct: Tensor
    wrong: Tensor

    def logit_difference(self, logits: Tensor, index: Tensor) -> Tensor:
        """Correct answer minus wrong one, ``[batch]``, of the prompts ``index``."""
        from ingest.discovery.metrics import LogitDifference

        return LogitDifference(self.correct, self.wrong)(logits, index)


def as_tensors(pairs: Sequence[TokenPair]) -> PromptTensors:
    """Put pairs of any lengths into tensors."""
    import torch

    longest = max(len(pair.clean) for pair in pairs)

    def padded(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])

    return PromptTensors(
        clean=padded([pair.clean for pair in pairs]),
        corrupt=padded([pair.corrupt for pair in pairs]),
        attention_mask=padded([[1] * len(pair.clean) for pair in pairs]),
        correct=torch.tensor([pair.correct for pair in pairs]),
        wrong=torch.tensor([pair.wrong for pair in pairs]),
    )


def judge(bridge: Any, batch_size: int | None = None) -> Judge:
    """Ask a TransformerLens ``TransformerBridge`` for its verdicts on pairs."""

    def verdicts(pairs: Sequence[TokenPair]) -> list[Verdict]:
        found: dict[int, Verdict] = {}
        for members in _equal_lengths(pairs, batch_size or _ASKED_AT_ONCE):
            asked = [pairs[at] for at in members]
            found |= zip(members, _verdicts(bridge, asked), strict=True)
        return [found[at] for at in range(len(pairs))]

    return verdicts


def device_name(bridge: Any) -> str:
    """The devices a bridge's weights lie on: ``cpu``, or ``cuda:0 (name of the card), ...``."""
    import torch

    names = []
    for device in dict.fromkeys(each.device for each in bridge.original_model.parameters()):
        card = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
        names.append(f"{device}{card}")
    return ", ".join(names)


def _equal_lengths(pairs: Sequence[TokenPair], size: int) -> list[list[int]]:
    """Places of pairs, in batches of one length: what is padded never reaches the model."""
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
        logits = bridge(tokens, attention_mask=torch.ones_like(tokens))[:, -1]
    best = logits.argmax(-1).tolist()
    return [
        Verdict(correct=bool(row[pair.correct] > row[pair.wrong]), top1=first == pair.correct)
        for pair, row, first in zip(pairs, logits, best, strict=True)
    ]


def _last_position(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
    # Logits of earlier positions are never asked for, and a vocabulary is wide.
    return value[:, -1:]
