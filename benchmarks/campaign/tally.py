"""What a campaign has seen so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from campaign.journal import Entry

__all__ = ["Tally"]

_TOLD = {
    "half": "answers with half circuits, told of a rebuild",
    "fall": "answers with fewer circuits, told so",
}


@dataclass
class Tally:
    """Counts, and the texts of what should not be.

    Attributes:
        kills: By what was killed.
        acknowledged: Records that writers were promised, by kind.
        done: What others ended, by name: rebuilds, backups, collections, reads.
        errors: Expected ones, by class.
        examples: What the first error of each class said.
        checked: What the checks looked at, by kind.
        losses: What was acknowledged and is gone.
        halves: Answers with a circuit that was not whole, where nobody was told of a rebuild.
        falls: Answers with fewer circuits than before or than recorded, and no word of it.
        faults: Whatever else should not be.
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
        """Whether nothing was seen that should not be."""
        return not (self.losses or self.halves or self.falls or self.faults)

    def add_journals(self, entries: Iterable[Entry]) -> None:
        """Count what the processes of a round noted."""
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
                case "half" | "fall" if entry["told"]:
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
        """It in one line."""
        return (
            f"{self.kills.total()} kills, {self.acknowledged.total()} acknowledged,"
            f" {self.done['rebuilds']} rebuilds, {self.done['reads']} reads,"
            f" {len(self.losses)} losses, {len(self.halves)} half circuits,"
            f" {len(self.falls)} untold falls, {self.errors.total()} errors,"
            f" {len(self.faults)} faults"
        )
