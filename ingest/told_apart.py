"""Edits of one request that did not have one outcome: they are two edits.

An edit's id is the hash of what is known of it: model, editor, hyperparameters, request. Result
files hardly ever say the hyperparameters, so that files of two learning rates hold the same edits
as far as they tell. Where the figures of a file contradict those of an edit that is known, its edit
is another one, and its note names the file by its hash. So the same file gives the same edits
however often and from whichever folder it comes, and edits that nothing contradicts keep the id of
their content alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ingest.formats.base import Imported
from registry.ledger.base import Ledger
from registry.records import Edit, Outcome

__all__ = ["KnownOutcomes", "other_edits", "tell_apart"]

_OF_THE_RUN = frozenset({"wall-clock"})
"""Protocols of figures that differ from run to run of one and the same edit."""
_DIGITS = 12


class KnownOutcomes:
    """What was measured after the edits that are recorded, or about to be.

    Args:
        ledger: Asked for many edits at once.
        edits: Ids that will be asked for.
    """

    def __init__(self, ledger: Ledger, edits: Iterable[str]) -> None:
        asked = list(dict.fromkeys(edits))
        self._outcomes: dict[str, tuple[Outcome, ...]] = {
            edit.id: () for edit in ledger.edits(asked)
        } | dict(ledger.outcomes_of(asked))

    def __contains__(self, edit: str) -> bool:
        return edit in self._outcomes

    def contradict(self, edit: str, outcomes: Sequence[Outcome]) -> bool:
        """Whether a figure that is known of an edit is another in ``outcomes``."""
        known: dict[_Measured, list[Outcome]] = {}
        for one in self._outcomes.get(edit, ()):
            known.setdefault(_measured(one), []).append(one)
        # An edit that was given both figures before this was looked at keeps both.
        return any(
            all(_differ(before, one) for before in known[_measured(one)])
            for one in outcomes
            if _measured(one) in known
        )

    def add(self, edits: Iterable[Edit], outcomes: Iterable[Outcome]) -> None:
        """Note what is about to be recorded."""
        for edit in edits:
            self._outcomes.setdefault(edit.id, ())
        for one in outcomes:
            self._outcomes[one.edit] = (*self._outcomes.get(one.edit, ()), one)


def other_edits(edits: Iterable[Edit], digest: str) -> dict[str, Edit]:
    """By each edit's id the edit that it is where a file contradicts what is known of it.

    Args:
        edits: What the file holds.
        digest: The file's SHA-256.
    """
    told = f"other figures than another file's edit of this request (file {digest[:_DIGITS]})"
    return {
        edit.id: edit.model_copy(update={"note": "; ".join(filter(None, (edit.note, told)))})
        for edit in edits
    }


def tell_apart(found: Imported, others: Mapping[str, Edit], known: KnownOutcomes) -> Imported:
    """What a file holds, with edits of their own where its figures contradict known ones.

    Args:
        found: As its format read it.
        others: Its edits by :func:`other_edits`.
        known: Of both kinds of edits; told of what the file holds.
    """
    measured: dict[str, list[Outcome]] = {}
    for one in found.outcomes:
        measured.setdefault(one.edit, []).append(one)
    apart = {
        key: other
        for key, other in others.items()
        if other.id in known or known.contradict(key, measured.get(key, ()))
    }
    if apart:
        found = _with_others(found, apart)
    known.add(found.edits, found.outcomes)
    return found


def _with_others(found: Imported, apart: Mapping[str, Edit]) -> Imported:
    names = {key: other.id for key, other in apart.items()}
    note = (
        f"{len(apart)} of {len(found.edits)} edits have other figures than those recorded for the"
        " same request: kept as edits of their own"
    )
    return replace(
        found,
        edits=[apart.get(edit.id, edit) for edit in found.edits],
        outcomes=[
            one.model_copy(update={"edit": names[one.edit]}) if one.edit in names else one
            for one in found.outcomes
        ],
        notes=[*found.notes, note],
    )


_Measured = tuple[str, str, str | None]


def _measured(outcome: Outcome) -> _Measured:
    return outcome.metric, outcome.protocol, outcome.task


def _differ(known: Outcome, given: Outcome) -> bool:
    if given.protocol in _OF_THE_RUN:
        return False
    sides = ((known.before, given.before), (known.after, given.after))
    return any(None not in side and side[0] != side[1] for side in sides)
