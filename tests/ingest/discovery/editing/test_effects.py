"""Effects of edits, on probabilities worked out by hand and against imported results."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ingest.discovery.editing.effects import (
    NEUTRAL,
    PROBABILITY,
    SEQUENCE_ARGMAX,
    TOKEN_ARGMAX,
    Asked,
    Effect,
    FactScores,
    effects,
    measure_fact,
    neutral_effects,
)
from ingest.discovery.editing.neutral import neutral_logits
from ingest.formats.easyedit import likelihoods as imported
from ingest.formats.reading import OddScores
from ingest.models import wrap
from registry.errors import BadInput
from registry.known_measures import find_measure
from registry.measures import COMPARED, LIKELIHOOD
from tests.ingest import tiny_models
from tests.ingest.discovery.editing.table_model import A, B, C, D, Table

BEFORE = Table(
    (0.1, 0.4, 0.3, 0.2),  # after A: B is most likely
    (0.1, 0.1, 0.2, 0.6),  # after B: D
    (0.7, 0.1, 0.1, 0.1),  # after C: A
    (0.25, 0.25, 0.25, 0.25),
)
AFTER = Table(
    (0.1, 0.3, 0.5, 0.1),  # after A: now C
    (0.1, 0.1, 0.2, 0.6),
    (0.6, 0.1, 0.1, 0.2),
    (0.25, 0.25, 0.25, 0.25),
)
LONG = Asked((D, A), new=(C, A), true=(C, D), paraphrases=((A,), (B,)))
"""Two tokens; the first one is that of the true answer too."""
SHORT = Asked((A,), new=(C,), true=(D,), neighbours=((B,), (A,), (C,)))


def found(asked: Asked) -> dict[tuple[str, str], Effect]:
    both = effects(measure_fact(BEFORE, asked), measure_fact(AFTER, asked))
    by_key = {(one.metric, one.protocol): one for one in both}
    assert len(by_key) == len(both)
    return by_key


def values(asked: Asked, metric: str, protocol: str) -> tuple[float | None, float]:
    one = found(asked)[metric, protocol]
    return one.before, one.after


def root(*probabilities: float) -> float:
    """Geometric mean."""
    return math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities))


def near(*wanted: float) -> object:
    return pytest.approx(wanted, abs=1e-12)


# -- by hand ---------------------------------------------------------------------------------------


def test_likelihoods_are_means_over_tokens_and_then_over_prompts() -> None:
    assert values(LONG, "rewrite_target_new_nll", LIKELIHOOD) == near(
        -math.log(0.3 * 0.7) / 2, -math.log(0.5 * 0.6) / 2
    )
    assert values(LONG, "rewrite_target_true_nll", LIKELIHOOD) == near(
        -math.log(0.3 * 0.1) / 2, -math.log(0.5 * 0.2) / 2
    )
    assert values(LONG, "paraphrase_target_new_nll", LIKELIHOOD) == near(
        -math.log(0.3 * 0.7 * 0.2 * 0.7) / 4, -math.log(0.5 * 0.6 * 0.2 * 0.6) / 4
    )
    assert found(LONG)["paraphrase_target_new_nll", LIKELIHOOD].n_prompts == 2


def test_probabilities_are_averaged_after_the_exponential() -> None:
    assert values(LONG, "paraphrase_target_new_probability", PROBABILITY) == near(
        (root(0.3, 0.7) + root(0.2, 0.7)) / 2, (root(0.5, 0.6) + root(0.2, 0.6)) / 2
    )
    assert values(LONG, "paraphrase_diff", COMPARED) == near(
        (root(0.3, 0.7) + root(0.2, 0.7) - root(0.3, 0.1) - root(0.2, 0.1)) / 2,
        (root(0.5, 0.6) + root(0.2, 0.6) - root(0.5, 0.2) - root(0.2, 0.2)) / 2,
    )


def test_token_accuracy_is_not_a_match_of_the_sequence() -> None:
    """After B, both models say D first, not C; the second token is right."""
    assert values(LONG, "rephrase_acc", TOKEN_ARGMAX) == near(0.5, 0.75)
    assert values(LONG, "rephrase_sequence_match", SEQUENCE_ARGMAX) == near(0, 0.5)


def test_the_new_answer_can_win_by_likelihood_and_not_be_what_the_model_says() -> None:
    assert values(LONG, "rewrite_success", COMPARED) == near(1, 1)
    assert values(LONG, "rewrite_sequence_match", SEQUENCE_ARGMAX) == near(0, 1)
    assert values(LONG, "rewrite_acc", TOKEN_ARGMAX) == near(0.5, 1)


def test_answers_that_share_a_token_are_told_apart_by_the_next_one() -> None:
    assert values(LONG, "rewrite_diff", COMPARED) == near(
        root(0.3, 0.7) - root(0.3, 0.1), root(0.5, 0.6) - root(0.5, 0.2)
    )


def test_neighbours_are_compared_the_other_way_round() -> None:
    """True over new: .6 .2 / .2 .3 / .1 .1 before; .6 .2 / .1 .5 / .2 .1 after. A tie fails."""
    assert values(SHORT, "neighborhood_success", COMPARED) == near(1 / 3, 2 / 3)
    assert values(SHORT, "neighborhood_diff", COMPARED) == near(
        (0.4 - 0.1) / 3, (0.4 - 0.4 + 0.1) / 3
    )
    assert values(SHORT, "rewrite_diff", COMPARED) == near(0.1, 0.4)
    assert values(SHORT, "neighborhood_target_new_probability", PROBABILITY) == near(0.2, 0.8 / 3)


def test_a_neighbour_can_keep_the_order_of_answers_and_say_neither() -> None:
    """Only after B is the true answer the most likely token."""
    assert values(SHORT, "neighborhood_acc", TOKEN_ARGMAX) == near(1 / 3, 1 / 3)


# -- names -----------------------------------------------------------------------------------------


def test_every_metric_is_registered_for_edits() -> None:
    neutral = neutral_logits(BEFORE, [(A, B)])
    everything = replace(SHORT, paraphrases=((D,),))
    for one in (*found(everything).values(), *neutral_effects(neutral, neutral)):
        measure = find_measure(one.metric)
        assert measure is not None, one.metric
        assert measure.of == "edit"
        assert measure.holds(one.after)


def test_values_and_names_are_those_of_imported_likelihoods() -> None:
    model = wrap(tiny_models.gpt2().double())
    asked = Asked(
        (3, 4, 5), (6, 7), (6, 9, 2), paraphrases=((8, 3, 4, 5), (4, 5)),
        neighbours=((10, 4, 5), (11, 12), (13, 4, 5)),
    )  # fmt: skip
    after = measure_fact(model, asked)
    wanted = imported.likelihoods(_as_rome_writes(after), "record 0", OddScores())
    got = {(one.metric, one.protocol): (one.after, one.n_prompts) for one in effects(None, after)}
    assert len(wanted) == 12
    for key, (value, n_prompts) in wanted.items():
        assert got[key][0] == pytest.approx(value, abs=1e-15)
        assert got[key][1] == n_prompts
    assert {key for key in got if key[1] in (LIKELIHOOD, COMPARED)} == set(wanted)


def _as_rome_writes(scores: FactScores) -> dict[str, list[dict[str, float]]]:
    assert scores.true is not None
    return {
        f"{kind}_prompts_probs": [
            {"target_new": new, "target_true": true}
            for new, true in zip(
                scores.new[kind].nll.tolist(), scores.true[kind].nll.tolist(), strict=True
            )
        ]
        for kind in scores.new
    }


# -- what is absent --------------------------------------------------------------------------------


def test_without_a_true_answer_there_are_only_measures_of_the_new_one() -> None:
    names = {one.metric for one in found(replace(SHORT, true=None)).values()}
    assert names == {
        "rewrite_target_new_nll", "rewrite_target_new_probability", "rewrite_acc",
        "rewrite_sequence_match", "neighborhood_target_new_nll",
        "neighborhood_target_new_probability",
    }  # fmt: skip


def test_without_scores_before_an_edit_there_is_no_value_before() -> None:
    after = measure_fact(AFTER, SHORT)
    assert {one.before for one in effects(None, after)} == {None}
    assert [one.after for one in effects(None, after)] == [
        one.after for one in effects(measure_fact(BEFORE, SHORT), after)
    ]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(SHORT, neighbours=((B,),)), "two answers to 1 rewrite, 1 neighborhood prompts"),
        (replace(SHORT, true=None), "are of one answer to 1 rewrite, 3 neighborhood prompts"),
    ],
)
def test_scores_of_other_prompts_are_refused(other: Asked, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        effects(measure_fact(BEFORE, other), measure_fact(AFTER, SHORT))


def test_an_answer_without_tokens_is_refused() -> None:
    with pytest.raises(BadInput, match="has no tokens"):
        measure_fact(AFTER, replace(SHORT, true=()))


# -- neutral text ----------------------------------------------------------------------------------


def test_neutral_effects_have_no_value_before() -> None:
    both = (neutral_logits(model, [(A, B), (D,)]) for model in (BEFORE, AFTER))
    moved, ratio = neutral_effects(*both)
    assert (moved.metric, moved.protocol, moved.before) == ("neutral_kl_divergence", NEUTRAL, None)
    assert (ratio.metric, ratio.before, ratio.n_prompts) == ("neutral_perplexity_ratio", None, 2)
    assert ratio.after == pytest.approx(4 / 3, abs=1e-6)


def test_single_tokens_have_no_perplexity() -> None:
    neutral = neutral_logits(BEFORE, [(A,)])
    assert [one.metric for one in neutral_effects(neutral, neutral)] == ["neutral_kl_divergence"]
