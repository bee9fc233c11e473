"""Limits of time for what must not take long, as wide as slow and busy machines need.

A limit tells what ends from what does not, or work in proportion to its input from work that grows
faster. How long something takes to the second belongs in ``benchmarks``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

__all__ = ["SLACK_SECONDS", "answers_within", "soon"]

SLACK_SECONDS = 30.0
"""What a busy machine may add to a limit by the clock."""
_LOOPS = 1_000_000
_QUICK_SECONDS = 0.02
"""What so many loops take on a machine on which the limits were set."""


@contextlib.contextmanager
def soon(seconds: float = 30.0, what: object = "it") -> Iterator[None]:
    """Fail if this thread computes for longer; on a slow machine, for longer in proportion.

    Time in which other threads and processes compute does not count. The limit is far above what is
    measured on a quick machine, so give input on which the fault takes minutes.
    """
    began = time.thread_time()
    yield
    took = time.thread_time() - began
    if took >= seconds:
        limit = seconds * _slowness()
        assert took < limit, f"{what} computed for {took:.1f} s; at most {limit:.1f} s"


@contextlib.contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Fail if it takes longer by the clock, with :data:`SLACK_SECONDS` for a busy machine."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    limit = seconds + SLACK_SECONDS
    assert took < limit, f"answered after {took:.1f} s; at most {limit:.1f} s"


def _slowness() -> float:
    """How many times longer than on a quick machine this thread computes now; at least once."""
    began = time.thread_time()
    for _ in range(_LOOPS):
        pass
    return max(1.0, (time.thread_time() - began) / _QUICK_SECONDS)
