"""What the processes of a round share: a folder with signs in it that all of them see."""

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
"""Tasks: circuits of the one are never retracted, those of the other may be."""


@dataclass(frozen=True)
class Stage:
    """One process's view of a round.

    Attributes:
        folder: The round's.
        name: The process's own.
        draw: Its own source of chance.
        journal: Its own.
    """

    folder: Path
    name: str
    draw: random.Random
    journal: Journal

    def beat(self) -> None:
        """Show that this process is at work."""
        (self.folder / self.name).touch()

    def end_step(self) -> None:
        """Show that it has done what it was at."""
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
        """How many artifacts were planted for ``gc`` to delete; see :func:`planted_content`."""
        try:
            return int((self.folder / "planted").read_text())
        except FileNotFoundError:
            return 0

    def has_planted(self, n: int) -> None:
        """Tell that there are ``n`` of them now."""
        unfinished = self.folder / f"planted-{os.getpid()}"
        unfinished.write_text(str(n))
        unfinished.replace(self.folder / "planted")


def player_name(part: str, number: int, life: int) -> str:
    """Name of a process: the ``life``-th one in that place."""
    return f"{part}-{number}.{life}"


def planted_content(number: int) -> bytes:
    """An artifact that nothing refers to, until a writer happens to store the same bytes."""
    return f"planted {number}\n".encode() * 50


def set_quiet(folder: Path, quiet: bool) -> None:
    """Ask all writers of a round to wait, or to go on."""
    if quiet:
        (folder / "quiet").touch()
    else:
        (folder / "quiet").unlink(missing_ok=True)


def is_quiet(folder: Path) -> bool:
    """Whether writers are to wait."""
    return (folder / "quiet").exists()
