"""The checks of ``circuits doctor --model`` on one model, without a registry.

First by its config.json, then by loading it: whether it stays the same model when it is wrapped,
and whether its structure meets the assumptions of edge attribution, exact patching and
faithfulness.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.models.families import family_of, read_config, require_edges
from ingest.models.names import Place, PlaceKind, locate
from ingest.tokens.openings import opening_of
from ingest.tokens.token_ids import require_known
from registry.cli.doctor import Check, State
from registry.errors import CircuitsError, UnsupportedModel

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

__all__ = ["check_model"]

_PAGE = "docs/models.md lists the families that are known to work"


def check_model(name: str) -> Iterator[Check]:
    """Check a model step by step; a failed check ends this, except for the tokenizer's check.

    Args:
        name: A built-in model, a folder, a ``.gguf`` file, or a name on the hub.
    """
    try:
        place = locate(name)
    except CircuitsError as error:
        yield Check("model", State.FAIL, str(error))
    else:
        yield from _located(name, place)


def _located(name: str, place: Place) -> Iterator[Check]:
    about = [Check("model", State.OK, f"{place} ({place.kind}), stored as {place.slug}")]
    about += [family for family in (_family(place),) if family is not None]
    if about[-1].state is State.FAIL:
        yield from about
        return
    try:
        bridge = _loaded(name)
    except UnsupportedModel as error:
        yield from about
        yield Check("wrapping", State.FAIL, str(error), "" if _is_damaged(error) else _PAGE)
    except CircuitsError as error:
        # A path that is missing or unreadable is no model, for any name.
        yield Check("model", State.FAIL, str(error))
    else:
        yield from about
        yield from _name(bridge)
        own = type(bridge.original_model).__name__
        yield Check("wrapping", State.OK, f"its logits equal those of {own} in transformers")
        yield from _code(bridge)
        yield from _unused(bridge)
        yield _edges(bridge)
        yield _tokenizer(bridge)
        yield from _unknown_tokens(bridge)


def _is_damaged(error: UnsupportedModel) -> bool:
    """Whether the model's numbers are the reason, which no other family would change."""
    from ingest.models.proof import NotFinite

    return isinstance(error, NotFinite)


def _family(place: Place) -> Check | None:
    """Check by the config.json in its folder; for the hub it is read before the weights."""
    config = read_config(Path(place.source)) if place.kind is PlaceKind.FOLDER else None
    return None if config is None else _verdict(config)


def _verdict(config: Any) -> Check:
    family = family_of(config)
    if family is None:
        kind = config.get("model_type", "of an unnamed family")
        return Check(
            "family",
            State.WARN,
            f"{kind} was not tested before",
            "the next checks prove this model",
        )
    if family.edges:
        return Check("family", State.OK, f"{family.which} can be split into edges ({family.note})")
    return Check(
        "family", State.FAIL, f"{family.which} cannot be split into edges: {family.note}", _PAGE
    )


def _loaded(name: str) -> TransformerBridge:
    from ingest import models

    return models.load(name, check=lambda folder: require_edges(folder, name))


def _edges(bridge: TransformerBridge) -> Check:
    from ingest.discovery.edges.proof import prove_model

    try:
        n_edges = prove_model(bridge)
    except UnsupportedModel as error:
        return Check("edges", State.FAIL, str(error), _PAGE)
    except CircuitsError as error:
        return Check("edges", State.FAIL, str(error))
    finding = f"{n_edges:,} edges; sums, gradients and partial circuits agree"
    return Check("edges", State.OK, finding)


def _name(bridge: TransformerBridge) -> Iterator[Check]:
    """Report a name under which circuits of the model cannot be recorded."""
    from ingest import models

    try:
        models.describe(bridge)
    except CircuitsError as error:
        yield Check("name", State.FAIL, str(error))


def _code(bridge: TransformerBridge) -> Iterator[Check]:
    """Report code of the model's authors that is not run, where its config.json names some."""
    from ingest import models

    if code := models.authors_code(bridge):
        own = type(bridge.original_model).__name__
        yield Check(
            "code", State.WARN,
            f"its config.json names code of its authors ({code}), which is not run",
            f"make sure that {own} of transformers computes the same",
        )  # fmt: skip


def _tokenizer(bridge: TransformerBridge) -> Check:
    if bridge.tokenizer is None:
        return Check(
            "tokenizer", State.FAIL, "there is none, so 'circuits discover' cannot read prompts",
            "put the tokenizer's files, such as tokenizer.json, next to the weights",
        )  # fmt: skip
    return Check("tokenizer", State.OK, "there is a tokenizer, which reads prompts")


def _unused(bridge: TransformerBridge) -> Iterator[Check]:
    """Report weights that the model does not use, if there are any."""
    from ingest import models

    if weights := models.unused_weights(bridge):
        yield Check(
            "weights", State.WARN,
            f"{len(weights)} of the weights in its files belong to parts that it lacks, such "
            f"as {weights[0]!r}",
            "they do not change its computations on a text",
        )  # fmt: skip


def _unknown_tokens(bridge: TransformerBridge) -> Iterator[Check]:
    """Report a tokenizer with ids beyond the vocabulary, if there are any."""
    if bridge.tokenizer is None:
        return
    n_words, largest = (
        int(bridge.cfg.d_vocab),
        max(bridge.tokenizer.get_vocab().values(), default=0),
    )
    try:
        require_known(bridge, opening_of(bridge.tokenizer), "the beginning of every text")
    except CircuitsError as error:
        yield Check("vocabulary", State.FAIL, str(error), "no prompt of texts can be read")
        return
    if largest >= n_words:
        yield Check(
            "vocabulary", State.WARN,
            f"its tokenizer's ids go to {largest}, but the model knows only 0 to {n_words - 1}",
            "prompts with such a token are refused; is it the model's own tokenizer?",
        )  # fmt: skip
