"""Objects that are closed at the end of a ``with`` statement."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing(abc.ABC):
    """An object that holds connections or processes until it is closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release its resources; safe to repeat."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
