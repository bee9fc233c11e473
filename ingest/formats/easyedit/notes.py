"""Notes on an editor's results: what is missing, omitted or computed.

Used by :mod:`ingest.formats.easyedit.results`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ingest.formats.base import Said
from ingest.formats.easyedit.figures import Figure, LeftOut
from ingest.formats.easyedit.likelihoods import LIKELIHOODS
from registry.measures import LIKELIHOOD
from registry.texts.words import listed

__all__ = ["COMPUTED", "ReadingNotes", "n_together"]

COMPUTED = "computed-token-match"
"""Protocol of computed measures: share of equal outputs before and after the edit."""


def n_together(record: Mapping[str, Any]) -> int | None:
    """Return the number of edits made together, if several: this differs from a single edit."""
    count = record.get("num_edits")
    return count if type(count) is int and count > 1 else None


class ReadingNotes:
    """Counts over the records of a file, reported once."""

    def __init__(self, name: str, n_records: int) -> None:
        self._name = name
        self._n_records = n_records
        self._missing = dict.fromkeys(("requested_rewrite", "pre", "post"), 0)
        self._described = False
        self._computed: set[str] = set()
        self._unmatched: set[str] = set()
        self._n_together = 0
        self._likelihoods = False
        self.left_out = LeftOut()

    def look_at(self, record: Mapping[str, Any]) -> None:
        """Count what is missing in a record."""
        for name in self._missing:
            self._missing[name] += not record.get(name)
        sides = [record, *(record.get(side) or {} for side in ("pre", "post"))]
        self._described = self._described or any(side.get("metric_meta") for side in sides)
        self._likelihoods = self._likelihoods or any(LIKELIHOODS.keys() & side for side in sides)
        self._n_together += bool(n_together(record) and record.get("time") is not None)

    def matched(self, found: Mapping[str, Figure | None]) -> None:
        """Note which outputs could be matched, and which could not."""
        for name, figure in found.items():
            (self._unmatched if figure is None else self._computed).add(name)

    def summary(self, said: Said) -> list[str]:
        """Return the notes."""
        notes = [
            f"{count} of {self._n_records} records have no {name}"
            for name, count in self._missing.items()
            if count
        ]
        if self._computed:
            names = listed(sorted(self._computed))
            are = "is" if len(self._computed) == 1 else "are"
            notes.append(f"{names} {are} computed from outputs before and after ({COMPUTED})")
        if self._unmatched:
            names = listed(sorted(self._unmatched))
            are = "is" if len(self._unmatched) == 1 else "are"
            notes.append(f"{names} {are} not scored: outputs before and after do not correspond")
        notes += self._what_is_no_figure()
        if not self._described:
            if said.protocol is None:
                notes.append("the file does not name its protocol; give it with --protocol")
            if re.search(r"sequential[=_]?true", self._name, re.IGNORECASE):
                notes.append(
                    "sequential edits: EasyEdit before June 2026 scored all of them on the last"
                    " state of the model"
                )
        return notes

    def _what_is_no_figure(self) -> list[str]:
        notes = []
        if self._likelihoods:
            notes.append(
                "likelihoods (prompts_probs) read as ROME and MEMIT write them: mean negative"
                f" log-likelihoods of the answers' tokens ({LIKELIHOOD})"
            )
        if self._n_together:
            notes.append(
                f"time omitted for {self._n_together} records: it covers several edits together"
            )
        if self.left_out.bookkeeping:
            names = listed(sorted(self.left_out.bookkeeping))
            notes.append(f"omitted, because these are settings and not results: {names}")
        if self.left_out.texts:
            names = listed(sorted(self.left_out.texts))
            notes.append(f"omitted, because they contain no number: {names}")
        if self.left_out.objects:
            names = listed(sorted(self.left_out.objects))
            notes.append(f"omitted, because they are lists of unknown objects: {names}")
        return [*notes, *self.left_out.odd.notes()]
