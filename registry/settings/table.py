"""The one table of settings: name, environment variable, option, default, help.

It is separate from :mod:`registry.settings.local` because ``circuits --help`` prints it and must
not wait for pydantic.
"""

from __future__ import annotations

from typing import NamedTuple

from registry.credentials import has_password, redacted

__all__ = ["CONFIG", "PASSWORD", "SETTINGS", "Setting", "has_password", "redacted"]


class Setting(NamedTuple):
    """One setting. ``default`` is text for people; HOME in it is the home folder."""

    name: str
    metavar: str
    default: str
    help: str

    @property
    def variable(self) -> str:
        """Environment variable that gives it."""
        return "CIRCUITS_" + self.name.upper()

    @property
    def option(self) -> str:
        """Command line option that gives it, before the command."""
        return "--" + self.name.replace("_", "-")


SETTINGS = (
    Setting("home", "FOLDER", ".circuits, here or in the nearest folder above", "The registry."),
    Setting("ledger", "URL", "sqlite:///HOME/ledger.sqlite", "Database of the record."),
    Setting(
        "graph",
        "URL",
        "kglite:///HOME/graph.kgl",
        "Graph: kglite:///PATH (absolute with a fourth slash), bolt://, neo4j:// or neo4j+s://.",
    ),
    Setting("graph_user", "NAME", "neo4j", "User of a Neo4j graph."),
    Setting("graph_database", "NAME", "the server's default", "Database of a Neo4j graph."),
    Setting(
        "graph_password_file",
        "FILE",
        "HOME/graph-password",
        "File of mode 600 with the password of a Neo4j graph.",
    ),
    Setting("artifacts", "URL", "HOME/artifacts", "Folder or fsspec URL of the artifacts."),
)
"""The value comes from the option, else the environment variable, else ``circuits.toml`` in the
home folder (all but ``home``), else the default."""

PASSWORD = Setting(
    "graph_password",
    "PASSWORD",
    "content of graph_password_file",
    "Password of a Neo4j graph; only in the environment, never an option or in circuits.toml.",
)

CONFIG = Setting(
    "config",
    "FOLDER",
    "circuit-registry in the user's configuration folder",
    "Folder of the list of registries that 'circuits trust' accepted; only in the environment.",
)
