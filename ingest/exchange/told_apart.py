"""Edits of one request with different outcomes, which are treated as different edits.

An edit's id is the hash of what is known about it: model, editor, hyperparameters, request. Result
files rarely give the hyperparameters, so files of two learning rates seem to contain the same
edits. If the results of a file contradict those of a known edit, its edit is treated as another
edit, and its note names the file by its hash. Thus the same file always gives the same edits, from
any folder, and edits that nothing contradicts keep the id of their content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ingest.formats.base import Imported
from registry.ledger.base import Ledger, OutcomeRow
from registry.records import Edit, Outcome

__all__ = ["KnownOutcomes", "other_edits", "tell_apart"]

_OF_THE_RUN = frozenset({"wall-clock"})
"""Protocols of results that differ between runs of the same edit."""
_DIGITS = 12


class KnownOutcomes:
    """Outcomes of the edits that are recorded, or will be recorded.

    Args:
        ledger: Is queried for many edits at once.
        edits: Ids that will be needed.
    """

    def __init__(self, ledger: Ledger, edits: Iterable[str]) -> None:
        asked = list(dict.fromkeys(edits))
        self._outcomes: dict[str, list[Outcome | OutcomeRow]] = {
            edit.id: [] for edit in ledger.edits(asked)
        }
        for row in ledger.outcome_rows(asked):
            self._outcomes.setdefault(row.edit, []).append(row)

    def __contains__(self, edit: str) -> bool:
        return edit in self._outcomes

    def contradict(self, edit: str, outcomes: Sequence[Outcome]) -> bool:
        """Return whether a known result of an edit has another value in ``outcomes``."""
        known: dict[_Measured, list[Outcome | OutcomeRow]] = {}
        for one in self._outcomes.get(edit, ()):
            known.setdefault(_measured(one), []).append(one)
        # An edit that received both results in an older version keeps both.
        return any(
            all(_differ(before, one) for before in known[_measured(one)])
            for one in outcomes
            if _measured(one) in known
        )

    def add(self, edits: Iterable[Edit], outcomes: Iterable[Outcome]) -> None:
        """Add records that will be recorded."""
        for edit in edits:
            self._outcomes.setdefault(edit.id, [])
        for one in outcomes:
            self._outcomes.setdefault(one.edit, []).append(one)


def other_edits(edits: Iterable[Edit], digest: str) -> dict[str, Edit]:
    """Map each edit's id to the edit that replaces it if the file contradicts known results.

    Args:
        edits: The edits in the file.
        digest: The file's SHA-256.
    """
    note = f"other figures than another file's edit of this request (file {digest[:_DIGITS]})"
    return {
        edit.id: edit.model_copy(update={"note": "; ".join(filter(None, (edit.note, note)))})
        for edit in edits
    }


def tell_apart(found: Imported, others: Mapping[str, Edit], known: KnownOutcomes) -> Imported:
    """Return a file's content, with separate edits if its results contradict known ones.

    Args:
        found: The content that its format read.
        others: Its edits by :func:`other_edits`.
        known: Known outcomes of both kinds of edits; the outcomes of the file are added.
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
        f"{len(apart)} of {len(found.edits)} edits have other results than those recorded for the"
        " same request: kept as separate edits"
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


def _measured(outcome: Outcome | OutcomeRow) -> _Measured:
    return outcome.metric, outcome.protocol, outcome.task


def _differ(known: Outcome | OutcomeRow, given: Outcome) -> bool:
    if given.protocol in _OF_THE_RUN:
        return False
    sides = ((known.before, given.before), (known.after, given.after))
    return any(None not in side and side[0] != side[1] for side in sides)
