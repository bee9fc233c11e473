"""What an edit does to text that has nothing to do with it.

The log-probabilities of every next token are kept before the edit, and compared with those after
it. The divergence says how far the model moved on such text, whatever it says. The ratio of
perplexities says whether it predicts the text less well than before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.editing.answers import logits_of
from registry.errors import BadInput

__all__ = ["Neutral", "divergence", "neutral_logits", "perplexity_ratio"]

_LIMIT_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Neutral:
    """What a model says of neutral text.

    Attributes:
        windows: Token ids of the pieces of text.
        log_probabilities: Of every next token: for each window ``[pos, d_vocab]`` in nats, float32
            on the CPU.
    """

    windows: tuple[tuple[int, ...], ...]
    log_probabilities: tuple[Tensor, ...]

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all windows."""
        return sum(map(len, self.windows))

    def __repr__(self) -> str:
        return f"<Neutral of {len(self.windows)} windows, {self.n_tokens:,} tokens>"


def neutral_logits(
    model: Any, windows: Sequence[Sequence[int]], *, limit_bytes: int = _LIMIT_BYTES
) -> Neutral:
    """Return the log-probabilities that a model as it is now gives to neutral text.

    Windows run one after the other, so that none needs padding.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        windows: Token ids of pieces of text, each of at most the model's context.
        limit_bytes: Largest size of the result; a comparison needs two of them.

    Raises:
        BadInput: There is no text, a window is empty, the result would be larger than the limit, or
            the logits are not finite.
    """
    given = tuple(tuple(window) for window in windows)
    if not given or not all(given):
        what = f"window {given.index(())} (counted from 0)" if given else "the neutral text"
        raise BadInput(f"{what} has no tokens; give a text about something else than the edit")
    device = next(iter(model.parameters())).device
    found: list[Tensor] = []
    for at, window in enumerate(given):
        with torch.no_grad():
            logits = logits_of(model, torch.tensor([window], device=device))[0]
        if at == 0:
            _check_size(sum(map(len, given)), logits.shape[-1], limit_bytes)
        if not bool(torch.isfinite(logits).all()):
            raise BadInput(f"the logits of neutral window {at} (counted from 0) are not finite")
        found.append(logits.log_softmax(-1).to("cpu", torch.float32))
    return Neutral(given, tuple(found))


def divergence(before: Neutral, after: Neutral) -> float:
    """Return the mean KL divergence of the next token's probabilities, in nats per token.

    ``KL(before || after) = sum p log(p / q)``, mean over all positions of all windows. Computed
    with ``- p + q`` added to each term. This is zero for exact probabilities, and cancels the
    rounding of their sums, so that the result is never negative.

    Raises:
        BadInput: The two are not of the same windows and vocabulary.
    """
    _check_same(before, after)
    total = math.fsum(
        float((p.exp() * (p - q) - p.exp() + q.exp()).sum()) for p, q in _pairs(before, after)
    )
    return max(total / before.n_tokens, 0.0)


def perplexity_ratio(before: Neutral, after: Neutral) -> float:
    """Return the perplexity after over that before: ``exp(mean NLL after - mean NLL before)``.

    The mean is over all tokens except the first of each window, which nothing predicts.

    Raises:
        BadInput: The two are not of the same windows and vocabulary, no window has two tokens, or
            the ratio is larger than a float can be.
    """
    _check_same(before, after)
    n_predicted = before.n_tokens - len(before.windows)
    if not n_predicted:
        raise BadInput("a perplexity needs a window of two tokens or more; all have one token")
    lost = math.fsum(
        float(_said(p, window) - _said(q, window))
        for (p, q), window in zip(_pairs(before, after), before.windows, strict=True)
    )
    try:
        return math.exp(lost / n_predicted)
    except OverflowError:
        raise BadInput(
            f"the perplexity grew by e**{lost / n_predicted:.0f}, more than a number can hold"
        ) from None


def _check_size(n_tokens: int, d_vocab: int, limit_bytes: int) -> None:
    n_bytes = n_tokens * d_vocab * 4
    if n_bytes > limit_bytes:
        raise BadInput(
            f"the log-probabilities of {n_tokens:,} neutral tokens take {n_bytes:,} bytes, but the"
            f" limit is {limit_bytes:,}; give at most {limit_bytes // (4 * d_vocab):,} tokens"
        )


def _check_same(before: Neutral, after: Neutral) -> None:
    sizes = [one.log_probabilities[0].shape[-1] for one in (before, after)]
    if before.windows != after.windows or sizes[0] != sizes[1]:
        raise BadInput(
            f"{before!r} and {after!r} are of different text or vocabularies; measure both on the"
            " same windows"
        )


def _pairs(before: Neutral, after: Neutral) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the log-probabilities of each window before and after, in float64."""
    both = zip(before.log_probabilities, after.log_probabilities, strict=True)
    return ((one.double(), other.double()) for one, other in both)


def _said(log_probabilities: Tensor, window: Sequence[int]) -> Tensor:
    """Return the log-likelihood of a window's tokens after its first."""
    wanted = torch.tensor(window[1:], dtype=torch.long)
    return log_probabilities[:-1].gather(1, wanted[:, None]).sum()
