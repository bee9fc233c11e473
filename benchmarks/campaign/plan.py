"""Duration of a campaign, its processes, and the rate of kills."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "Part", "Plan"]


@dataclass(frozen=True, slots=True)
class Part:
    """The work of some of the processes.

    Attributes:
        name: Name in ``campaign.parts``.
        count: Number of processes that do it at once.
        kill_weight: Relative rate of kills.
        writes: Whether it pauses while the round is quiet.
    """

    name: str
    count: int
    kill_weight: float
    writes: bool = False


PARTS = (
    Part("write", 4, 1.0, writes=True),
    Part("read", 2, 0.0),  # never killed: it compares answers with its last ones
    Part("sync", 1, 1.0),
    Part("rebuild", 1, 2.0),
    Part("backup", 1, 1.0),
    Part("gc", 1, 1.0),
    Part("import", 1, 1.0, writes=True),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign.

    Attributes:
        back_end: ``local`` or ``servers``.
        seconds: Maximum total time, including the checks between rounds.
        at_least: More rounds are run after this time until so many records are acknowledged, and
            a server was killed if there are servers. On a busy machine writers may be killed before
            they write.
        seed: Seed of the kills. The state of the processes at a kill also depends on the machine.
        kill_seconds: Mean time between kills of our processes.
        server_kill_seconds: Mean time between kills of servers.
        round_seconds: After this time a registry is checked and replaced by a new one, so that it
            stays small enough for a rebuild to end in time.
        share_of_checks: Share of a round reserved for its checks, 0 to 1.
        quiet_seconds: Every second period of this length has no writes. With pending changes at all
            times, readers would always be warned, and wrong answers would not be detected.
    """

    back_end: str
    seconds: float
    seed: int
    kill_seconds: float
    server_kill_seconds: float
    at_least: int = 0
    round_seconds: float = 300.0
    share_of_checks: float = 0.25
    quiet_seconds: float = 15.0
