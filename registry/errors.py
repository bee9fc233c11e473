"""Every error a user can meet, as one tree under :class:`CircuitsError`.

Errors of libraries below (SQLAlchemy, the Neo4j driver, kglite, fsspec) stop at the store that
uses them, which raises one of these instead. Each message states what was given, what would be
right and what to do; ``registry.cli.failures`` turns the class into an exit code. Values are kept
as ``args`` so that an error survives pickling between processes.
"""

from __future__ import annotations

__all__ = [
    "ArtifactCorrupt",
    "ArtifactNotFound",
    "BadIdentifier",
    "BadInput",
    "CircuitsError",
    "GraphBusy",
    "GraphError",
    "GraphOutdated",
    "GraphRefused",
    "GraphUnavailable",
    "HomeNotTrusted",
    "IncompatibleModel",
    "LedgerError",
    "LedgerOutdated",
    "MeasureOutOfRange",
    "MissingExtra",
    "NonFiniteScores",
    "NotFound",
    "PluginBroken",
    "QueryFailed",
    "QueryTimeout",
    "QueryTooLarge",
    "RegistryNotFound",
    "SettingNeeded",
    "StorageError",
    "StoreRefused",
    "TooFewPrompts",
    "UnsupportedModel",
]


class CircuitsError(Exception):
    """Root of all errors this project raises on purpose."""


class BadInput(CircuitsError, ValueError):
    """An input of the user is wrong; the message states what would be right. Exit code 2."""


class BadIdentifier(BadInput):
    """A component, connection, model or circuit id does not follow the grammar."""

    def __init__(self, given: str, expected: str) -> None:
        super().__init__(given, expected)

    def __str__(self) -> str:
        return "{!r} is not {}".format(*self.args)


class SettingNeeded(CircuitsError, TypeError):
    """A function of discovery was given something else than a prepared setting."""

    def __init__(self, function: str, given: str) -> None:
        super().__init__(function, given)

    def __str__(self) -> str:
        return (
            "{0} takes a prepared setting first, not {1}: {0}(prepare_setting(model, clean, "
            "corrupt, metric), ...)".format(*self.args)
        )


class NotFound(CircuitsError, LookupError):
    """Nothing stored has that name."""

    def __init__(self, kind: str, given: str, hint: str = "") -> None:
        super().__init__(kind, given, hint)

    def __str__(self) -> str:
        kind, given, hint = self.args
        return f"no {kind} {given!r}" + (f"; {hint}" if hint else "")


class RegistryNotFound(CircuitsError, LookupError):
    """No registry in this folder or above it."""


class HomeNotTrusted(CircuitsError, PermissionError):
    """A registry that this user neither made nor accepted leads to places outside its folder."""


class IncompatibleModel(BadInput):
    """A model's name is already used for another shape or other weights."""


class UnsupportedModel(CircuitsError, ValueError):
    """An algorithm does not support the model's arithmetic."""


class TooFewPrompts(CircuitsError, ValueError):
    """The model answers too few prompts of a task correctly to study how it does so."""


class NonFiniteScores(CircuitsError, ArithmeticError):
    """A prompt's activations, gradients or metric are NaN or infinite."""

    def __init__(self, prompt: int) -> None:
        super().__init__(prompt)

    def __str__(self) -> str:
        return (
            f"prompt {self.args[0]} (counted from 0) gives numbers that are not finite: look at "
            "its metric, omit it, or run the model in float32"
        )


class MeasureOutOfRange(CircuitsError, ValueError):
    """A job computed a value that its measure or metric cannot have."""

    def __init__(self, name: str, value: float, legal: str) -> None:
        super().__init__(name, value, legal)

    def __str__(self) -> str:
        name, value, legal = self.args
        return (
            f"{name} was computed as {value!r}, but its range is {legal}; nothing was recorded: "
            "either the job is wrong, or the measure is registered with too narrow a range "
            "('circuits measures' shows it)"
        )


class MissingExtra(CircuitsError, ImportError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)

    def __str__(self) -> str:
        feature, extra = self.args
        return f"{feature} needs the extra {extra!r}: pip install 'circuit-registry[{extra}]'"


class PluginBroken(CircuitsError, ImportError):
    """An addition of another package cannot be used; the message names it and the reason."""

    def __init__(self, kind: str, name: str, package: str, reason: str) -> None:
        super().__init__(kind, name, package, reason)

    def __str__(self) -> str:
        kind, name, package, reason = self.args
        return (
            f"the {kind} {name!r} of the package {package!r} cannot be used: {reason}; repair or"
            " uninstall that package"
        )


class StorageError(CircuitsError, OSError):
    """An artifact could not be written or read: full disk, no permission, no connection."""


class StoreRefused(StorageError):
    """The artifacts belong to another registry, or their registry is unknown."""


class ArtifactNotFound(StorageError):
    """The artifact store holds no file of that hash."""


class ArtifactCorrupt(StorageError):
    """A file's content does not have the hash that names it."""


class LedgerError(CircuitsError):
    """The ledger's database cannot be used: unreachable, locked, foreign."""


class LedgerOutdated(LedgerError):
    """The ledger's schema is older or newer than this program: run ``circuits migrate``."""


class GraphError(CircuitsError):
    """The graph cannot be used. Never stops recording, only commands that read the graph."""


class GraphUnavailable(GraphError):
    """The graph's server or engine does not answer."""


class GraphBusy(GraphError):
    """Another process is writing to the embedded graph."""


class GraphRefused(GraphError):
    """The graph refuses us, or we refuse it: wrong password, or another registry's data."""


class GraphOutdated(GraphError):
    """The graph was written by another version of the schema or of the engine's file format.

    Nothing is lost: the embedded graph is rebuilt from the ledger automatically, Neo4j by
    ``circuits rebuild``.
    """


class QueryFailed(GraphError, ValueError):
    """The engine does not accept a Cypher statement: syntax, types, or an attempt to write."""


class QueryTimeout(GraphError, TimeoutError):
    """A statement ran longer than its time limit and was stopped."""


class QueryTooLarge(GraphError, MemoryError):
    """A statement exceeded a memory limit, or its answer is larger than allowed."""
