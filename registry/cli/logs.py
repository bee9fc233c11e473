"""Logging of one command: short lines on standard error, a full log to a file on request."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

from registry.cli.printable import escaped, one_line
from registry.credentials import redacted, scrubbed
from registry.errors import BadInput

__all__ = ["LogLevel", "start_logging"]

_OURS = ("registry", "ingest", "queries")


class LogLevel(StrEnum):
    """The level from which messages are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class _WithoutSecrets(logging.Formatter):
    """Removes passwords; from texts of other packages, everything that could be a password."""

    def formatException(self, ei: Any) -> str:
        return scrubbed(super().formatException(ei))

    def cleaned(self, record: logging.LogRecord, text: str) -> str:
        return redacted(text) if _is_ours(record) else scrubbed(text)


class _Line(_WithoutSecrets):
    """``warning: text`` on one line without passwords; tracebacks only when debugging."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if self._tracebacks:
            text = escaped(super().format(record), keep="\n\t")
        else:
            text = one_line(record.getMessage())
        return self.cleaned(record, f"{record.levelname.lower()}: {text}")


class _Full(_WithoutSecrets):
    """Time, level, logger, message and traceback, without passwords."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # People read logs on terminals, too.
        return self.cleaned(record, escaped(super().format(record), keep="\n\t"))


class _Once:
    """Lets each warning through once: a command with thirty queries would repeat it for each."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_new = record.levelno != logging.WARNING or text not in self._seen
        self._seen.add(text)
        return is_new


def start_logging(level: LogLevel, file: Path | None = None) -> None:
    """Send our log to standard error from ``level`` on, and all of it to ``file``.

    Messages of other packages appear when debugging; the file has their warnings and errors.
    A second call replaces the handlers of the first.

    Raises:
        BadInput: The file cannot be written.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    short = logging.StreamHandler(sys.stderr)
    short.setFormatter(_Line(tracebacks=level is LogLevel.DEBUG))
    short.setLevel(number)
    if level is not LogLevel.DEBUG:
        short.addFilter(_is_ours)
        short.addFilter(_Once())
    handlers: list[logging.Handler] = [short]
    if file is not None:
        handlers.append(_file_handler(file))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.captureWarnings(True)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if file else number)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS


def _file_handler(file: Path) -> logging.Handler:
    try:
        handler = logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--log-file {file}: {error.strerror}; name a writable file") from error
    handler.setFormatter(_Full())
    return handler
