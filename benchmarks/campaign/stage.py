"""What the processes of a round share: a folder with files that act as signals."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from campaign.journal import Journal

__all__ = [
    "LASTING",
    "PASSING",
    "Stage",
    "is_quiet",
    "planted_content",
    "player_name",
    "set_quiet",
]

LASTING, PASSING = "synthetic/lasting", "synthetic/passing"
"""Tasks: circuits of the first are never retracted, those of the second may be."""


@dataclass(frozen=True)
class Stage:
    """One process's view of a round.

    Attributes:
        folder: The folder of the round.
        name: Name of the process.
        draw: Random generator of the process.
        journal: Journal of the process.
    """

    folder: Path
    name: str
    draw: random.Random
    journal: Journal

    def beat(self) -> None:
        """Signal that this process is working."""
        (self.folder / self.name).touch()

    def end_step(self) -> None:
        """Signal that it has finished its step."""
        with (self.folder / self.name).open("ab") as sign:
            sign.write(b".")

    def wait_while_quiet(self) -> None:
        """Return once writing is allowed."""
        while is_quiet(self.folder):
            self.beat()
            time.sleep(0.1)

    def pause(self, shortest: float, longest: float) -> None:
        """Wait a random time, in seconds."""
        time.sleep(self.draw.uniform(shortest, longest))

    @property
    def n_planted(self) -> int:
        """Number of artifacts made for ``gc`` to delete; see :func:`planted_content`."""
        try:
            return int((self.folder / "planted").read_text())
        except FileNotFoundError:
            return 0

    def has_planted(self, n: int) -> None:
        """Set this number to ``n``."""
        unfinished = self.folder / f"planted-{os.getpid()}"
        unfinished.write_text(str(n))
        unfinished.replace(self.folder / "planted")


def player_name(part: str, number: int, life: int) -> str:
    """Name of a process: the ``life``-th process of its place."""
    return f"{part}-{number}.{life}"


def planted_content(number: int) -> bytes:
    """An artifact without references, until a writer stores the same bytes."""
    return f"planted {number}\n".encode() * 50


def set_quiet(folder: Path, quiet: bool) -> None:
    """Pause all writers of a round, or let them continue."""
    if quiet:
        (folder / "quiet").touch()
    else:
        (folder / "quiet").unlink(missing_ok=True)


def is_quiet(folder: Path) -> bool:
    """Whether writers must wait."""
    return (folder / "quiet").exists()
