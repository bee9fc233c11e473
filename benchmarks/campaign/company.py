"""The processes of a round: start, kill, and restart."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from back_ends import ROOT

from campaign.plan import PARTS, Part
from campaign.player import FAULT_NOTED
from campaign.stage import is_quiet, player_name
from campaign.tally import Tally

__all__ = ["Company", "child_environment"]

_ENGINES = {"registry.graph.worker", "registry.graph.neo4j_worker"}
_ENGINE_WEIGHT = 1.0
_SHARE_SPARED = 0.5
_LONGEST_STEP_SECONDS = 240.0
"""All waits in the registry end after half a minute; a rebuild under load takes one."""


@dataclass
class _Place:
    """A place in the company, and its current process."""

    part: Part
    number: int
    life: int
    process: subprocess.Popen[bytes]
    started_at: float
    is_spared: bool
    """It is not killed before its first step ends; else slow steps would never end."""

    @property
    def name(self) -> str:
        return player_name(self.part.name, self.number, self.life)


class Company:
    """All processes of one round.

    Args:
        folder: Their common folder; see ``campaign.stage``.
        environment: Their environment.
        tally: Counts kills and processes that ended without a kill.
        draw: Random choice of the process to kill.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], tally: Tally, draw: random.Random
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._tally = tally
        self._draw = draw
        self._places = [
            self._started(part, number, life=0) for part in PARTS for number in range(part.count)
        ]

    def kill_one(self) -> None:
        """Kill one of the working processes, or one of their engines, and restart it."""
        quiet = is_quiet(self._folder)
        chances = [
            (place, place.part.kill_weight)
            for place in self._places
            if self._is_at_work(place) and not (quiet and place.part.writes)
        ]
        engines = [*self._engines()]
        weights = [weight for _, weight in chances]
        if engines and self._draw.uniform(0.0, sum(weights) + _ENGINE_WEIGHT) < _ENGINE_WEIGHT:
            self._kill_engine(self._draw.choice(engines))
        elif sum(weights):
            ((place, _),) = self._draw.choices(chances, weights)
            self._end(place)
            self._tally.kills[place.part.name] += 1
            self._restart(place)

    def look_after(self) -> None:
        """Record processes that ended without a kill or are stuck, and restart them."""
        for place in self._places:
            code = place.process.poll()
            if code is not None:
                if code != FAULT_NOTED:
                    self._tally.faults.append(
                        f"{place.name} ended with {code}: {self._said(place)}"
                    )
                self._restart(place)
            elif time.time() - self._last_beat(place) > _LONGEST_STEP_SECONDS:
                self._tally.faults.append(
                    f"{place.name} did nothing for {_LONGEST_STEP_SECONDS:g} s"
                )
                self._end(place)
                self._restart(place)

    def end(self) -> None:
        """Kill all; safe to repeat."""
        for place in self._places:
            self._end(place)

    def _started(self, part: Part, number: int, life: int) -> _Place:
        with self._log(player_name(part.name, number, life)).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "campaign.player", self._folder, part.name, str(number),
                 str(life)],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.PIPE,  # it ends when this process ends, for any reason
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        is_spared = self._draw.random() < _SHARE_SPARED
        return _Place(part, number, life, process, time.time(), is_spared)

    def _restart(self, place: _Place) -> None:
        new = self._started(place.part, place.number, place.life + 1)
        self._places[self._places.index(place)] = new

    def _end(self, place: _Place) -> None:
        place.process.kill()
        place.process.communicate()

    def _kill_engine(self, engine: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # its owner has ended it
            engine.kill()
            self._tally.kills["engine's process"] += 1

    def _engines(self) -> Iterator[psutil.Process]:
        for place in self._places:
            try:
                for child in psutil.Process(place.process.pid).children():
                    if _ENGINES.intersection(child.cmdline()):
                        yield child
            except psutil.Error:  # it has ended
                continue

    def _is_at_work(self, place: _Place) -> bool:
        """Whether it has begun its first step; before that a kill has no effect."""
        try:
            n_steps = (self._folder / place.name).stat().st_size
        except FileNotFoundError:
            return False
        return n_steps > 0 or not place.is_spared

    def _last_beat(self, place: _Place) -> float:
        try:
            return (self._folder / place.name).stat().st_mtime
        except FileNotFoundError:
            return place.started_at

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _said(self, place: _Place) -> str:
        return self._log(place.name).read_text(errors="replace")[-4_000:]


def child_environment(variables: Mapping[str, str], seed: int) -> dict[str, str]:
    """Environment of a process of a campaign: one registry, our package, and its seed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CIRCUITS_")}
    ours = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    return {
        **kept,
        **variables,
        "PYTHONPATH": ours,
        "CAMPAIGN_SEED": str(seed),
        "OMP_NUM_THREADS": "1",
    }
