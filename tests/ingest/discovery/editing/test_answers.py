"""Scores of answers, on logits worked out by hand and against one token at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ingest.discovery.editing.answers import Answer, score_answers
from ingest.models import wrap
from registry.errors import BadInput
from tests.ingest import tiny_models
from tests.ingest.discovery.editing.table_model import A, B, C, D, Table

TABLE = Table(
    (0.1, 0.4, 0.3, 0.2),  # after A: B is most likely
    (0.1, 0.1, 0.2, 0.6),  # after B: D
    (0.7, 0.1, 0.1, 0.1),  # after C: A
    (0.25, 0.25, 0.25, 0.25),
)


def scored(*answers: tuple[int, ...]) -> Any:
    return score_answers(TABLE, [Answer((D, A), one) for one in answers])


def test_an_answer_of_several_tokens_has_the_geometric_mean_of_their_probabilities() -> None:
    found = scored((B,), (B, D), (C, A, B))
    assert found.nll.tolist() == pytest.approx(
        [-math.log(0.4), -math.log(0.4 * 0.6) / 2, -math.log(0.3 * 0.7 * 0.4) / 3], abs=1e-12
    )
    assert found.probability.tolist() == pytest.approx(
        [0.4, math.sqrt(0.24), (0.3 * 0.7 * 0.4) ** (1 / 3)]
    )


def test_the_share_of_tokens_is_not_a_match_of_the_sequence() -> None:
    found = scored((B, D), (C, A, B), (C, D))
    assert found.token_accuracy.tolist() == pytest.approx([1, 2 / 3, 0])
    assert found.is_sequence_match.tolist() == [True, False, False]


def test_the_more_likely_of_two_answers_need_not_be_the_most_likely() -> None:
    """By likelihood (C) beats (D), and neither is what the model says."""
    found = scored((C,), (D,))
    assert found.nll[0] < found.nll[1]
    assert found.token_accuracy.tolist() == [0, 0]


def test_answers_with_one_first_token_differ_by_the_tokens_after_it() -> None:
    found = scored((B, D), (B, C))
    shared = -math.log(0.4)
    assert found.nll.tolist() == pytest.approx(
        [(shared - math.log(0.6)) / 2, (shared - math.log(0.2)) / 2], abs=1e-12
    )
    assert found.n_matched.tolist() == [2, 1]


@pytest.mark.parametrize("family", sorted(tiny_models.ALL))
@pytest.mark.parametrize("batch_size", [None, 1])
def test_scores_are_those_of_one_token_at_a_time(family: str, batch_size: int | None) -> None:
    model = wrap(tiny_models.ALL[family]().double())
    answers = [
        Answer((3, 4, 5), (6,)), Answer((3, 4), (5, 6, 7)), Answer((8, 3, 4, 5), (9, 2)),
        Answer((3, 4, 5), (7, 1)),
    ]  # fmt: skip
    found = score_answers(model, answers, batch_size=batch_size)
    for at, one in enumerate(answers):
        given, total, matched = list(one.prompt), 0.0, 0
        for token in one.tokens:
            with torch.no_grad():
                logits = model(torch.tensor([given]))[0, -1]
            total -= float(logits.log_softmax(-1)[token])
            matched += int(logits.argmax()) == token
            given.append(token)
        assert float(found.nll[at]) == pytest.approx(total / len(one.tokens), abs=1e-12)
        assert int(found.n_matched[at]) == matched


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([], "there are no answers"),
        ([Answer((1,), (2,)), Answer((), (2,))], r"prompt 1 \(counted from 0\) has no tokens"),
        ([Answer((1,), ())], r"answer 0 \(counted from 0\) has no tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused(answers: list[Answer], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        score_answers(TABLE, answers)


def test_logits_that_are_not_finite_are_refused() -> None:
    broken = Table(*[(math.nan,) * 4] * 4)
    with pytest.raises(BadInput, match=r"the logits of answer 0 .* are not finite"):
        score_answers(broken, [Answer((A,), (B,))])
