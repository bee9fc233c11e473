"""Likelihoods of the new and the true answer, as ROME and MEMIT write them for each prompt.

``{"rewrite_prompts_probs": [{"target_new": 3.2, "target_true": 5.1}, ...]}``, and the same for
``paraphrase``, ``neighborhood`` and ``attribute`` prompts. In spite of the name they are no
probabilities but the mean negative log-likelihood of an answer's tokens, teacher-forced: the
smaller, the likelier. What their authors report is computed of them (Meng et al. 2022, arXiv
2202.05262): the share of prompts whose new answer is the likelier one, and by how much, where
``e ** -nll`` is taken for the probability. On neighbourhood prompts the true answer is to stay the
likelier one, so that both are turned there; for attribute prompts they have no such figure.

Used by :mod:`ingest.formats.easyedit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ingest.formats.easyedit_figures import Figure
from ingest.formats.reading import as_number
from registry.errors import BadInput

__all__ = ["COMPARED", "LIKELIHOOD", "LIKELIHOODS", "likelihoods"]

LIKELIHOOD = "teacher-forced-mean-token-nll"
"""Protocol of the likelihoods themselves: nats for each token of an answer, mean over prompts."""
COMPARED = "computed-from-nll"
"""Protocol of what is computed of them."""
LIKELIHOODS: Mapping[str, int] = {
    "rewrite_prompts_probs": 1,
    "paraphrase_prompts_probs": 1,
    "neighborhood_prompts_probs": -1,
    "attribute_prompts_probs": 0,
}
"""Keys of lists of likelihoods; 1 where the new answer is to be the likelier, -1 the true one."""
_ANSWERS = ("target_new", "target_true")


def likelihoods(side: Mapping[str, Any], place: str) -> dict[tuple[str, str], Figure]:
    """By metric and protocol what likelihoods say, before or after an edit.

    Args:
        side: ``pre`` or ``post`` of a record.
        place: Which record of which file, for errors.

    Raises:
        BadInput: A list of likelihoods holds something else, or one is below 0.
    """
    found: dict[tuple[str, str], Figure] = {}
    for key, wanted in LIKELIHOODS.items():
        if side.get(key) is None:
            continue
        prompts = key.removesuffix("_prompts_probs")
        pairs = _pairs(side[key], f"{place}: {key}")
        for at, answer in enumerate(_ANSWERS):
            if pairs:
                found[f"{prompts}_{answer}_nll", LIKELIHOOD] = _mean([pair[at] for pair in pairs])
        if pairs and wanted:
            likelier = [float(wanted * new < wanted * true) for new, true in pairs]
            by = [wanted * (math.exp(-new) - math.exp(-true)) for new, true in pairs]
            found[f"{prompts}_success", COMPARED] = _mean(likelier)
            found[f"{prompts}_diff", COMPARED] = _mean(by)
    return found


def _pairs(value: Any, place: str) -> list[tuple[float, float]]:
    """The likelihoods of both answers to each prompt, where neither is missing."""
    if not isinstance(value, list):
        raise BadInput(f"{place} is {type(value).__name__}, no list of likelihoods")
    found = []
    for at, one in enumerate(value):
        where = f"{place}[{at}]"
        if not isinstance(one, dict) or not one.keys() >= set(_ANSWERS):
            raise BadInput(f"{where} is no object with target_new and target_true")
        new, true = (as_number(one[answer], f"{where}: {answer}") for answer in _ANSWERS)
        if new is None or true is None:
            continue
        if min(new, true) < 0:
            raise BadInput(f"{where} is {min(new, true)}: no negative log-likelihood is below 0")
        found.append((new, true))
    return found


def _mean(values: list[float]) -> Figure:
    return math.fsum(values) / len(values), len(values)
