"""How work reports its progress: a function that is called with two numbers."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["OnProgress"]

OnProgress = Callable[[int, int], None]
"""``on_progress(done, total)``: called as work advances, with the finished and total amount."""
