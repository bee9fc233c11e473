"""Results of a campaign so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from campaign.journal import Entry

__all__ = ["Tally"]

_TOLD = {
    "half": "answers with incomplete circuits, with a warning of a rebuild",
    "fall": "answers with fewer circuits, with a warning",
}


@dataclass
class Tally:
    """Counts, and texts of faults.

    Attributes:
        kills: Number of kills, by what was killed.
        acknowledged: Number of acknowledged records, by kind.
        done: Number of finished steps of others, by name: rebuilds, backups, collections, reads.
        errors: Number of expected errors, by class.
        examples: Text of the first error of each class.
        checked: Number of checked things, by kind.
        losses: Records that were acknowledged and are missing.
        halves: Answers with an incomplete circuit, without a warning of a rebuild.
        falls: Answers with fewer circuits than before or than recorded, without a warning.
        faults: All other faults.
    """

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    checked: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    falls: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether there were no losses and no faults."""
        return not (self.losses or self.halves or self.falls or self.faults)

    def add_journals(self, entries: Iterable[Entry]) -> None:
        """Count the entries of a round's journals."""
        for entry in entries:
            match entry["what"]:
                case "acknowledged":
                    self.acknowledged[entry["record"]] += 1
                case "error":
                    self.errors[entry["kind"]] += 1
                    self.examples.setdefault(entry["kind"], entry["text"])
                case "reads":
                    self.done["reads"] += entry["n"]
                case "rebuilt":
                    self.done["rebuilds"] += 1
                case "backup":
                    self.done["backups"] += 1
                case "collected":
                    self.done["artifacts deleted by gc"] += entry["n"]
                case "half" | "fall" if entry["warned"]:
                    self.done[_TOLD[entry["what"]]] += 1
                case "half":
                    self.halves.append(str(entry))
                case "fall":
                    self.falls.append(str(entry))
                case "fault":
                    self.faults.append(entry["text"])

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.kills + other.kills,
            self.acknowledged + other.acknowledged,
            self.done + other.done,
            self.errors + other.errors,
            {**other.examples, **self.examples},
            self.checked + other.checked,
            self.losses + other.losses,
            self.halves + other.halves,
            self.falls + other.falls,
            self.faults + other.faults,
        )

    def line(self) -> str:
        """The tally as one line."""
        return (
            f"{self.kills.total()} kills, {self.acknowledged.total()} acknowledged,"
            f" {self.done['rebuilds']} rebuilds, {self.done['reads']} reads,"
            f" {len(self.losses)} losses, {len(self.halves)} incomplete circuits,"
            f" {len(self.falls)} unreported decreases, {self.errors.total()} errors,"
            f" {len(self.faults)} faults"
        )
