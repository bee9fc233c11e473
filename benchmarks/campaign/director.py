"""Run a campaign: rounds, each with a new registry, kills, and checks at the end."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from back_ends import BackEnd, Server

from campaign.checks import Found
from campaign.company import Company, child_environment
from campaign.journal import read_journals
from campaign.plan import Plan
from campaign.stage import set_quiet
from campaign.tally import Tally

__all__ = ["direct"]

_TICK_SECONDS = 0.05
_MINUTE_SECONDS = 60.0
_LONGEST_DOWN_SECONDS = 3.0
_LONGEST_CHECK_SECONDS = 600.0
_BACKUPS_RESTORED = 2
_SETUP = """
from campaign.stage import LASTING, PASSING
from registry import Registry
from registry.records import Task
from synthetic import MODEL
with Registry.init() as registry:
    registry.record(MODEL, *(Task(slug=slug, family="synthetic") for slug in (LASTING, PASSING)))
"""
Say = Callable[[str], None]


def direct(plan: Plan, back_end: BackEnd, say: Say) -> Tally:
    """Run rounds until the time is up, and return the tally.

    Args:
        plan: The plan.
        back_end: The back end; its servers run.
        say: Receives one line every minute.
    """
    total, draw, clock = Tally(), random.Random(plan.seed), _Clock()
    number = 0
    while (
        number == 0
        or plan.seconds - clock.seconds > plan.round_seconds / 2
        or not _has_enough(total, plan, back_end.servers)
    ):
        number += 1
        left = plan.seconds - clock.seconds
        seconds = min(plan.round_seconds, left if left > 0 else plan.seconds)
        with (
            tempfile.TemporaryDirectory(prefix="circuits-faults-") as folder,
            back_end.new_registry(Path(folder) / "registry") as variables,
        ):
            environment = child_environment(variables, plan.seed * 1000 + number)
            round_ = _Round(Path(folder), environment, plan, draw, back_end.servers)
            with contextlib.closing(round_.play((1 - plan.share_of_checks) * seconds)) as playing:
                for _ in playing:
                    if clock.has_struck():
                        say(f"after {clock.seconds:.0f} s: {(total + round_.so_far()).line()}")
            round_.check()
        total += round_.tally
        say(f"round {number} ended after {clock.seconds:.0f} s: {total.line()}")
    return total


def _has_enough(total: Tally, plan: Plan, servers: Mapping[str, Server]) -> bool:
    was_killed = not servers or any(total.kills[name] for name in servers)
    return total.acknowledged.total() >= plan.at_least and (was_killed or not plan.at_least)


class _Clock:
    """A clock that signals once per minute."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._strikes_at = _MINUTE_SECONDS

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def has_struck(self) -> bool:
        """Whether a minute has passed since the last signal."""
        if self.seconds < self._strikes_at:
            return False
        self._strikes_at += _MINUTE_SECONDS
        return True


class _Round:
    """One registry from its first record to its checks."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        plan: Plan,
        draw: random.Random,
        servers: Mapping[str, Server],
    ) -> None:
        self.tally = Tally()
        self._folder = folder
        self._environment = environment
        self._plan = plan
        self._draw = draw
        self._servers = servers

    def play(self, seconds: float) -> Generator[None, None, None]:
        """Run the company with kills for this many seconds, and yield repeatedly.

        Afterwards all processes have ended, and all servers run.
        """
        self._run("-c", _SETUP)
        ends_at = time.monotonic() + seconds
        company = Company(self._folder, self._environment, self.tally, self._draw)
        try:
            with _Killings(self._servers, self._plan, self._draw, self.tally) as killings:
                while (now := time.monotonic()) < ends_at:
                    set_quiet(self._folder, int(now / self._plan.quiet_seconds) % 2 == 1)
                    killings.go_on(company)
                    company.look_after()
                    yield
                    time.sleep(_TICK_SECONDS)
        finally:
            company.end()

    def so_far(self) -> Tally:
        """The tally before the checks."""
        noted = Tally()
        noted.add_journals(read_journals(self._folder))
        return self.tally + noted

    def check(self) -> None:
        """Count the journals, and check the registry."""
        entries = [*read_journals(self._folder)]
        self.tally.add_journals(entries)
        self._take(self._run("-m", "campaign.checks", str(self._folder)), "")
        backups = [entry for entry in entries if entry["what"] == "backup"]
        chosen = self._draw.sample(backups, min(_BACKUPS_RESTORED, len(backups)))
        for entry in chosen:
            named = entry["path"], str(entry["began_at"])
            printed = self._run("-m", "campaign.checks", str(self._folder), *named, beside=True)
            self._take(printed, " of restored backups")
            self.tally.checked["backups restored"] += 1

    def _run(self, *arguments: str, beside: bool = False) -> str:
        """Run one of our programs and return its last line; a failure is a fault."""
        environment = dict(self._environment)
        if beside:  # with separate stores, for any back end of the round
            environment = {k: v for k, v in environment.items() if not k.startswith("CIRCUITS_")}
        try:
            done = subprocess.run(
                [sys.executable, *arguments],
                env=environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LONGEST_CHECK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.tally.faults.append(f"{arguments[:2]} did not end")
            return ""
        if done.returncode:
            self.tally.faults.append(f"{arguments[:2]} failed: {done.stderr[-4_000:]}")
            return ""
        return done.stdout

    def _take(self, printed: str, whose: str) -> None:
        if printed:
            found = Found(**json.loads(printed.splitlines()[-1]))
            self.tally.losses += found.losses
            self.tally.faults += found.faults
            self.tally.checked.update({f"{k}{whose}": n for k, n in found.looked_at.items()})


class _Killings:
    """Random kills of the company and of servers; servers restart while the others work."""

    def __init__(
        self, servers: Mapping[str, Server], plan: Plan, draw: random.Random, tally: Tally
    ) -> None:
        self._servers = servers
        self._plan = plan
        self._draw = draw
        self._tally = tally
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(servers)))
        self._restarting: dict[str, Future[None]] = {}
        self._next = self._soon(plan.kill_seconds)
        self._next_server = self._soon(plan.server_kill_seconds)

    def __enter__(self) -> _Killings:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._settle()

    def go_on(self, company: Company) -> None:
        """Kill the processes and servers whose time has come."""
        self._settle()
        if time.monotonic() >= self._next:
            company.kill_one()
            self._next = self._soon(self._plan.kill_seconds)
        if self._servers and time.monotonic() >= self._next_server:
            self._kill_server()
            self._next_server = self._soon(self._plan.server_kill_seconds)

    def _soon(self, mean_seconds: float) -> float:
        return time.monotonic() + self._draw.expovariate(1 / mean_seconds)

    def _kill_server(self) -> None:
        running = sorted(self._servers.keys() - self._restarting.keys())
        if running:
            name = self._draw.choice(running)
            down_seconds = self._draw.uniform(0.0, _LONGEST_DOWN_SECONDS)
            self._tally.kills[name] += 1
            server = self._servers[name]
            self._restarting[name] = self._pool.submit(_kill_and_start, server, down_seconds)

    def _settle(self) -> None:
        for name, future in [*self._restarting.items()]:
            if future.done():
                future.result()  # a server that does not restart ends the campaign
                del self._restarting[name]


def _kill_and_start(server: Server, down_seconds: float) -> None:
    server.kill()
    time.sleep(down_seconds)
    server.start()
