"""What root options say, for commands: which registry to open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from registry.registry import Registry
    from registry.settings import LocalSettings, Settings

__all__ = ["Session", "open_registry", "session"]


@dataclass(frozen=True, slots=True)
class Session:
    """The root options of one invocation.

    Attributes:
        home: What ``--home`` says.
        overrides: The other settings given as options, by name.
    """

    home: str | None = None
    overrides: Mapping[str, str | None] = field(default_factory=dict)

    def settings(self) -> Settings:
        """Settings of the registry these options name.

        Raises:
            RegistryNotFound: There is none.
            HomeNotTrusted: It leads where nobody accepted that it does.
        """
        from registry.settings import load_settings

        return load_settings(self.home, **self.overrides)

    def local_settings(self) -> LocalSettings:
        """The same, without the stores that nobody accepted.

        Raises:
            RegistryNotFound: There is none.
        """
        from registry.settings import local_settings

        return local_settings(self.home, **self.overrides)


def session(context: typer.Context) -> Session:
    """The root options of the running command."""
    found = context.find_root().obj
    return found if isinstance(found, Session) else Session()


@contextmanager
def open_registry(context: typer.Context) -> Iterator[Registry]:
    """Open the registry that the root options name, for the length of a command."""
    # The stores behind the facade take their time to import; a help text need not wait for them.
    from registry.registry import Registry

    with Registry.open(settings=session(context).settings()) as registry:
        yield registry
