"""How likely a model finds given answers: teacher-forced, token by token.

The tokens of an answer are given to the model, and each of them is scored after those before it.
The mean negative log-likelihood is what ROME and MEMIT compare answers by. Whether each token is
also the model's most likely one is what EasyEdit reports. The two need not agree: an answer may be
more likely than another one, and neither be the most likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.model.batches import PromptBatch, PromptPairs, each_batch
from registry.errors import BadInput
from registry.progress import OnProgress

__all__ = ["Answer", "AnswerScores", "check_answers", "logits_of", "read_rows", "score_answers"]

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a prompt, as token ids.

    Attributes:
        prompt: The prompt, with a BOS token if the model needs one.
        tokens: The answer, as it follows the prompt.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """Scores of answers, in the order in which they were given; float64 on the CPU.

    Attributes:
        nll: Negative log-likelihood, mean over the tokens of an answer, in nats: ``[answer]``.
        n_tokens: Number of tokens of each answer, ``[answer]``.
        n_matched: Number of its tokens that are the model's most likely ones, ``[answer]``.
    """

    nll: Tensor
    n_tokens: Tensor
    n_matched: Tensor

    @property
    def probability(self) -> Tensor:
        """``e**-nll``: the geometric mean of the tokens' probabilities, ``[answer]``."""
        return (-self.nll).exp()

    @property
    def token_accuracy(self) -> Tensor:
        """Share of an answer's tokens that are the most likely ones, ``[answer]``."""
        return self.n_matched / self.n_tokens

    @property
    def is_sequence_match(self) -> Tensor:
        """Whether all tokens of an answer are the most likely ones, ``[answer]``."""
        return self.n_matched == self.n_tokens


def score_answers(
    model: Any,
    answers: Sequence[Answer],
    *,
    batch_size: int | None = None,
    progress: OnProgress | None = None,
) -> AnswerScores:
    """Score answers with the model as it is now.

    Answers of equal length run together and none is padded, so that the scores do not depend on the
    other answers.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        answers: At least one.
        batch_size: Answers per batch; by default as many as memory allows.
        progress: Called with the number of scored answers and the total.

    Raises:
        BadInput: There are no answers, a prompt or an answer has no tokens, or the logits of one
            are not finite.
    """
    check_answers(answers)
    nll = torch.zeros(len(answers), dtype=torch.float64)
    matched = torch.zeros(len(answers), dtype=torch.long)

    def score(batch: PromptBatch) -> None:
        with torch.no_grad():
            logits = logits_of(model, batch.clean)
        for row, at in enumerate(batch.index.tolist()):
            nll[at], matched[at] = _scored(logits[row], answers[at], at)

    device = next(iter(model.parameters())).device
    each_batch(
        read_rows(answers), device, score, size=batch_size, start=_AT_ONCE, progress=progress
    )
    return AnswerScores(nll, torch.tensor([len(one.tokens) for one in answers]), matched)


def check_answers(answers: Sequence[Answer]) -> None:
    """Refuse answers that cannot be scored.

    Raises:
        BadInput: There are no answers, or a prompt or an answer has no tokens.
    """
    if not answers:
        raise BadInput("there are no answers; give at least one")
    for at, one in enumerate(answers):
        if not one.prompt or not one.tokens:
            what = "answer" if one.prompt else "prompt"
            raise BadInput(f"{what} {at} (counted from 0) has no tokens")


def read_rows(answers: Sequence[Answer]) -> PromptPairs:
    """Return what the model reads: each prompt with its answer, without the last token."""
    rows = [(*one.prompt, *one.tokens[:-1]) for one in answers]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return PromptPairs(ids, None, (0,) * len(rows), tuple(map(len, rows)))


def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Return logits ``[batch, pos, d_vocab]`` of token ids ``[batch, pos]``, float32 or wider.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        ids: Without padding.
    """
    found = model(ids)
    logits: Tensor = getattr(found, "logits", found)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _scored(logits: Tensor, answer: Answer, at: int) -> tuple[Tensor, Tensor]:
    """Return the mean negative log-likelihood of one answer, and its number of matches."""
    own = logits[len(answer.prompt) - 1 :]
    if not bool(torch.isfinite(own).all()):
        raise BadInput(f"the logits of answer {at} (counted from 0) are not finite")
    wanted = torch.tensor(answer.tokens, device=own.device)
    nll = torch.nn.functional.cross_entropy(own.double(), wanted)
    return nll.cpu(), (own.argmax(-1) == wanted).sum().cpu()
