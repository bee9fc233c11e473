"""What an edit did to one fact: both answers scored before and after, on all prompts.

Metrics and protocols have the names of imported results. Likelihoods and what is computed from them
are those of ROME and MEMIT (Meng et al. 2022, arXiv 2202.05262), in which the two answers are
compared with each other. Argmax accuracies are those of EasyEdit, in which an answer is
compared with all tokens. They need not agree, and are never given one name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ingest.discovery.editing.answers import Answer, AnswerScores, score_answers
from ingest.discovery.editing.neutral import Neutral, divergence, perplexity_ratio
from registry.errors import BadInput
from registry.measures import COMPARED, LIKELIHOOD

__all__ = [
    "NEUTRAL",
    "PROBABILITY",
    "SEQUENCE_ARGMAX",
    "TOKEN_ARGMAX",
    "Asked",
    "Effect",
    "FactScores",
    "effects",
    "measure_fact",
    "neutral_effects",
]

PROBABILITY = "teacher-forced-token-geometric-mean"
"""Protocol: ``e ** -nll``, which is the geometric mean of the tokens' probabilities."""
TOKEN_ARGMAX = "teacher-forced-token-argmax"
"""Protocol: share of an answer's tokens that are the most likely ones after those before them."""
SEQUENCE_ARGMAX = "teacher-forced-sequence-argmax"
"""Protocol: whether all tokens of an answer are the most likely ones."""
NEUTRAL = "teacher-forced-neutral-text"
"""Protocol: every next token of text that has nothing to do with the edit."""

_REWRITE, _PARAPHRASE, _NEIGHBOUR = "rewrite", "paraphrase", "neighborhood"
_NAMED_BY_EASYEDIT = {_REWRITE: "rewrite", _PARAPHRASE: "rephrase"}
_Figures = dict[tuple[str, str], tuple[float, int]]
"""Mean and number of prompts, by metric and protocol."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A fact and its prompts, as token ids; prompts have a BOS token if the model needs one.

    Attributes:
        prompt: The prompt of the edit.
        new: The new answer, as it follows a prompt.
        true: The true answer; None if there is none.
        paraphrases: Other prompts for the same fact.
        neighbours: Prompts about similar subjects, whose true answer should stay.
    """

    prompt: tuple[int, ...]
    new: tuple[int, ...]
    true: tuple[int, ...] | None = None
    paraphrases: tuple[tuple[int, ...], ...] = ()
    neighbours: tuple[tuple[int, ...], ...] = ()

    def prompts(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return the prompts by kind: ``rewrite``, ``paraphrase``, ``neighborhood``."""
        found = {
            _REWRITE: (self.prompt,),
            _PARAPHRASE: self.paraphrases,
            _NEIGHBOUR: self.neighbours,
        }
        return {kind: prompts for kind, prompts in found.items() if prompts}


@dataclass(frozen=True, eq=False)
class FactScores:
    """Scores of the answers to all prompts of one fact.

    Attributes:
        new: Of the new answer, by kind of prompt; kinds without prompts are absent.
        true: Of the true answer; None if there is none.
    """

    new: Mapping[str, AnswerScores]
    true: Mapping[str, AnswerScores] | None


@dataclass(frozen=True, slots=True)
class Effect:
    """What an edit did to one metric.

    Attributes:
        metric: Name of a measure.
        protocol: How it was measured.
        before: Mean over prompts before the edit; None if it is unknown, or only defined after.
        after: The same after the edit.
        n_prompts: Number of prompts, or of windows of neutral text.
    """

    metric: str
    protocol: str
    before: float | None
    after: float
    n_prompts: int


def measure_fact(model: Any, asked: Asked, *, batch_size: int | None = None) -> FactScores:
    """Score both answers on all prompts with the model as it is now.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        asked: The fact.
        batch_size: Answers per batch; by default as many as memory allows.

    Raises:
        BadInput: A prompt or an answer has no tokens, or the logits of one are not finite.
    """
    targets = [asked.new] if asked.true is None else [asked.new, asked.true]
    prompts = asked.prompts()
    answers = [
        Answer(prompt, target) for target in targets for kind in prompts.values() for prompt in kind
    ]
    scores = _split(score_answers(model, answers, batch_size=batch_size), prompts)
    new = {kind: next(scores) for kind in prompts}
    true = None if asked.true is None else {kind: next(scores) for kind in prompts}
    return FactScores(new, true)


def effects(before: FactScores | None, after: FactScores) -> tuple[Effect, ...]:
    """Return what an edit did to a fact, by metric and protocol.

    Each value is a mean over prompts. For each kind of prompts (``rewrite``, ``paraphrase``,
    ``neighborhood``) there are the likelihood and the probability of each answer, and from both
    answers success and difference. These are reversed for neighbours, where the true answer should
    stay above the new one. Then there are argmax accuracies: of the new answer, for neighbours of
    the true one. What needs a true answer is absent without one.

    Args:
        before: Scores before the edit; None if they are unknown.
        after: Scores after the edit.

    Raises:
        BadInput: The two are not of the same prompts.
    """
    now = _figures(after)
    then = None if before is None else _figures(before)
    if then is not None and _counts(then) != _counts(now):
        raise BadInput(
            f"scores before the edit are of {_told(before)}, but those after it of {_told(after)};"
            " measure the same fact twice"
        )
    return tuple(
        Effect(*key, None if then is None else then[key][0], value, n)
        for key, (value, n) in now.items()
    )


def neutral_effects(before: Neutral, after: Neutral) -> tuple[Effect, ...]:
    """Return what an edit did to neutral text: the divergence, and the ratio of perplexities.

    Both compare the edited model with the one before it, so they have no value before. If each
    window has only one token, there is no perplexity.

    Raises:
        BadInput: The two are not of the same windows and vocabulary.
    """
    n_windows = len(before.windows)
    moved = divergence(before, after)
    found = [Effect("neutral_kl_divergence", NEUTRAL, None, moved, n_windows)]
    if before.n_tokens > n_windows:
        ratio = perplexity_ratio(before, after)
        found.append(Effect("neutral_perplexity_ratio", NEUTRAL, None, ratio, n_windows))
    return tuple(found)


def _split(
    scores: AnswerScores, prompts: Mapping[str, tuple[tuple[int, ...], ...]]
) -> Iterator[AnswerScores]:
    """Yield the scores of each kind of prompts, first those of the new answer."""
    first = 0
    while first < len(scores.nll):
        for kind in prompts.values():
            rows = slice(first, first + len(kind))
            yield AnswerScores(scores.nll[rows], scores.n_tokens[rows], scores.n_matched[rows])
            first += len(kind)


def _figures(scores: FactScores) -> _Figures:
    found: _Figures = {}
    for kind, new in scores.new.items():
        true = None if scores.true is None else scores.true[kind]
        found |= _by_likelihood(kind, new, true)
        found |= _by_argmax(kind, new, true)
    return found


def _by_likelihood(kind: str, new: AnswerScores, true: AnswerScores | None) -> _Figures:
    """Return likelihoods and probabilities of answers, and their comparison."""
    found: _Figures = {}
    for answer, scores in (("target_new", new), ("target_true", true)):
        if scores is not None:
            found[f"{kind}_{answer}_nll", LIKELIHOOD] = _mean(scores.nll)
            found[f"{kind}_{answer}_probability", PROBABILITY] = _mean(scores.probability)
    if true is not None:
        better, worse = (true, new) if kind == _NEIGHBOUR else (new, true)
        found[f"{kind}_success", COMPARED] = _mean(better.nll < worse.nll)
        found[f"{kind}_diff", COMPARED] = _mean(better.probability - worse.probability)
    return found


def _by_argmax(kind: str, new: AnswerScores, true: AnswerScores | None) -> _Figures:
    """Return the shares of tokens, and of whole answers, that the model says."""
    if kind == _NEIGHBOUR:
        if true is None:
            return {}
        return {(f"{kind}_acc", TOKEN_ARGMAX): _mean(true.token_accuracy)}
    name = _NAMED_BY_EASYEDIT[kind]
    return {
        (f"{name}_acc", TOKEN_ARGMAX): _mean(new.token_accuracy),
        (f"{name}_sequence_match", SEQUENCE_ARGMAX): _mean(new.is_sequence_match),
    }


def _mean(values: Tensor) -> tuple[float, int]:
    """Return the mean over prompts ``[prompt]``, and their number."""
    found: list[float] = values.double().tolist()
    return math.fsum(found) / len(found), len(found)


def _counts(figures: _Figures) -> dict[tuple[str, str], int]:
    return {key: n for key, (_, n) in figures.items()}


def _told(scores: FactScores | None) -> str:
    """Return the numbers of prompts in words."""
    if scores is None:
        return "nothing"
    counts: Iterable[str] = (f"{len(one.nll)} {kind}" for kind, one in scores.new.items())
    answers = "one answer" if scores.true is None else "two answers"
    return f"{answers} to {', '.join(counts)} prompts"
