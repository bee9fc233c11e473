"""How long a campaign takes, who takes part, and how often somebody is killed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "Part", "Plan"]


@dataclass(frozen=True, slots=True)
class Part:
    """What some of the processes do.

    Attributes:
        name: As in ``campaign.parts``.
        count: Processes that play it at once.
        kill_weight: How often one of them is killed, beside the others.
        writes: Whether it waits while the round is quiet.
    """

    name: str
    count: int
    kill_weight: float
    writes: bool = False


PARTS = (
    Part("write", 4, 1.0, writes=True),
    Part("read", 2, 0.0),  # it keeps what it saw last, which is what later answers are held to
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
        seconds: How long all of it may take, the checks between included.
        seed: Of who is killed when. What the processes are doing then depends on the machine too.
        kill_seconds: Mean time between the kills of our processes.
        server_kill_seconds: Mean time between the kills of servers.
        round_seconds: A registry is checked and given up for a new one after that, so that it
            stays small enough for a rebuild to end now and then.
        share_of_checks: How much of a round is kept for its checks, 0 to 1.
        quiet_seconds: Every other period of that length nobody writes: a reader who is told at
            every moment that changes are pending could not be deceived.
    """

    back_end: str
    seconds: float
    seed: int
    kill_seconds: float
    server_kill_seconds: float
    round_seconds: float = 300.0
    share_of_checks: float = 0.25
    quiet_seconds: float = 15.0
