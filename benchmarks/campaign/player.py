"""The program of a campaign's processes: ``python -m campaign.player FOLDER PART NUMBER LIFE``.

It does its part until it is killed, or until its parent process ends. It logs errors that kills of
other processes can cause, and continues. Any other error is logged as a fault, and ends it.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import traceback
from pathlib import Path

from campaign.journal import Journal
from campaign.parts import PLAYED
from campaign.stage import Stage, player_name
from registry import Registry
from registry.errors import GraphError, LedgerError

__all__ = ["FAULT_NOTED"]

FAULT_NOTED = 3
"""Exit code of a process whose journal gives the reason."""
_EXPECTED = (GraphError, LedgerError)
_MOST_STEPS_A_REGISTRY = 40


def play(part: str, stage: Stage) -> None:
    """Do a part forever, and sometimes reopen the registry."""
    player = PLAYED[part](stage)
    while True:
        try:
            with Registry.open() as registry:
                for _ in range(stage.draw.randint(1, _MOST_STEPS_A_REGISTRY)):
                    stage.beat()
                    player.step(registry)
                    stage.end_step()
        except _EXPECTED as error:
            stage.journal.note("error", kind=type(error).__name__, text=str(error))
            stage.beat()
            # Long enough for a server to restart without many connection attempts.
            stage.pause(0.2, 2.0)


def _end_with_the_director() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Do the part that the command line names."""
    folder, part, number, life = sys.argv[1:]
    threading.Thread(target=_end_with_the_director, daemon=True).start()
    name = player_name(part, int(number), int(life))
    seed = f"{os.environ['CAMPAIGN_SEED']} {name}"
    stage = Stage(Path(folder), name, random.Random(seed), Journal(Path(folder), name))
    try:
        play(part, stage)
    except Exception:  # noqa: BLE001 - whatever it is, it is what the campaign looks for
        stage.journal.note("fault", text=traceback.format_exc())
        sys.exit(FAULT_NOTED)


if __name__ == "__main__":
    main()
