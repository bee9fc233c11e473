"""Likelihoods of the new and the true answer, as ROME and MEMIT write them for each prompt.

``{"rewrite_prompts_probs": [{"target_new": 3.2, "target_true": 5.1}, ...]}``, and the same for
``paraphrase``, ``neighborhood`` and ``attribute`` prompts. Despite the name the values are not
probabilities. They are the mean negative log-likelihood of an answer's tokens, teacher-forced:
smaller is more likely. The results that their authors report are computed from them (Meng et al.
2022, arXiv 2202.05262): the share of prompts whose new answer is more likely than the true one, and
the difference, where ``e ** -nll`` is used as the probability. On neighbourhood prompts the true
answer should stay more likely, so both measures are negated there. Attribute prompts have no such
measure.

Used by :mod:`ingest.formats.easyedit.results`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ingest.formats.easyedit.figures import Figure
from ingest.formats.reading import OddScores, as_number
from registry.errors import BadInput
from registry.measures import COMPARED, LIKELIHOOD

__all__ = ["LIKELIHOODS", "likelihoods"]

LIKELIHOODS: Mapping[str, int] = {
    "rewrite_prompts_probs": 1,
    "paraphrase_prompts_probs": 1,
    "neighborhood_prompts_probs": -1,
    "attribute_prompts_probs": 0,
}
"""Keys of lists of likelihoods; 1 if the new answer should be more likely, -1 if the true one."""
_ANSWERS = ("target_new", "target_true")


def likelihoods(
    side: Mapping[str, Any], place: str, odd: OddScores
) -> dict[tuple[str, str], Figure]:
    """Return likelihoods before or after an edit, by metric and protocol.

    Args:
        side: ``pre`` or ``post`` of a record.
        place: The record and its file, for errors.
        odd: Receives likelihoods that are not finite; their prompts are omitted.

    Raises:
        BadInput: A list of likelihoods has other content, or a negative value; or their sum is
            larger than a float can be.
    """
    found: dict[tuple[str, str], Figure] = {}
    for key, wanted in LIKELIHOODS.items():
        if side.get(key) is None:
            continue
        prompts = key.removesuffix("_prompts_probs")
        pairs = _pairs(side[key], f"{place}: {key}", odd)
        for at, answer in enumerate(_ANSWERS):
            if pairs:
                likelihood = _mean([pair[at] for pair in pairs], f"{place}: {key}")
                found[f"{prompts}_{answer}_nll", LIKELIHOOD] = likelihood
        if pairs and wanted:
            likelier = [float(wanted * new < wanted * true) for new, true in pairs]
            by = [wanted * (math.exp(-new) - math.exp(-true)) for new, true in pairs]
            found[f"{prompts}_success", COMPARED] = _mean(likelier, f"{place}: {key}")
            found[f"{prompts}_diff", COMPARED] = _mean(by, f"{place}: {key}")
    return found


def _pairs(value: Any, place: str, odd: OddScores) -> list[tuple[float, float]]:
    """Return the likelihoods of both answers to each prompt, if neither is missing."""
    if not isinstance(value, list):
        raise BadInput(f"{place} is {type(value).__name__}, no list of likelihoods")
    found = []
    for at, one in enumerate(value):
        where = f"{place}[{at}]"
        if not isinstance(one, dict) or not one.keys() >= set(_ANSWERS):
            raise BadInput(f"{where} is no object with target_new and target_true")
        if _are_plain(one):
            found.append((one["target_new"], one["target_true"]))
            continue
        new, true = (
            odd.taken(as_number(one[answer], f"{where}: {answer}"), f"{where}: {answer}")
            for answer in _ANSWERS
        )
        if new is None or true is None:
            continue
        if min(new, true) < 0:
            raise BadInput(
                f"{where} is {min(new, true)}: a negative log-likelihood cannot be below 0"
            )
        found.append((new, true))
    return found


def _are_plain(pair: Mapping[str, Any]) -> bool:
    """Whether both are finite, and not negative: nothing else is to be looked at."""
    new, true = pair["target_new"], pair["target_true"]
    return type(new) is type(true) is float and 0 <= new < math.inf and 0 <= true < math.inf


def _mean(values: list[float], place: str) -> Figure:
    try:
        return math.fsum(values) / len(values), len(values)
    except OverflowError:
        raise BadInput(f"{place} are larger together than a number can be") from None
