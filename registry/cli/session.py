"""The root options, which determine the registry that commands open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from registry.registry import Registry
    from registry.settings.local import LocalSettings, Settings

__all__ = ["Session", "open_registry", "session"]


@dataclass(frozen=True, slots=True)
class Session:
    """The root options of one invocation.

    Attributes:
        home: Value of ``--home``.
        overrides: The other settings given as options, by name.
    """

    home: str | None = None
    overrides: Mapping[str, str | None] = field(default_factory=dict)

    def settings(self) -> Settings:
        """Settings of the registry that these options name.

        Raises:
            RegistryNotFound: There is none.
            HomeNotTrusted: Its stores are in places that nobody accepted.
        """
        from registry.settings.local import load_settings

        return load_settings(self.home, **self.overrides)

    def local_settings(self) -> LocalSettings:
        """Like :meth:`settings`, without the stores that nobody accepted.

        Raises:
            RegistryNotFound: There is none.
        """
        from registry.settings.local import local_settings

        return local_settings(self.home, **self.overrides)


def session(context: typer.Context) -> Session:
    """The root options of the running command."""
    found = context.find_root().obj
    return found if isinstance(found, Session) else Session()


@contextmanager
def open_registry(context: typer.Context) -> Iterator[Registry]:
    """Open the registry that the root options name, for the duration of a command."""
    # Importing the stores behind the facade takes time; help texts do not need them.
    from registry.registry import Registry

    with Registry.open(settings=session(context).settings()) as registry:
        yield registry
