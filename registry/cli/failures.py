"""Every way a command can fail, as one line on standard error and an exit code.

Exit codes: 2 where the command line or what it names is malformed (:class:`BadInput`), 1 for other
failures, 130 after Ctrl-C, 141 when whoever read the output left.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from dataclasses import dataclass

from registry.cli.printable import one_line
from registry.credentials import redacted, scrubbed
from registry.errors import BadInput, CircuitsError

__all__ = ["Failure", "describe", "first_problem", "report"]

log = logging.getLogger(__name__)

_READER_LEFT = 128 + 13
_INTERRUPTED = 128 + 2


@dataclass(frozen=True, slots=True)
class Failure:
    """What is printed and returned for an exception; an empty line prints nothing."""

    line: str
    exit_code: int


def report(error: BaseException) -> int:
    """Print an exception as one line and return the exit code it stands for.

    The traceback goes to the log, which shows it with ``--log-level debug``.
    """
    failure = describe(error)
    log.debug("traceback of the failure", exc_info=error)
    _settle_standard_output()
    if failure.line:
        sys.stderr.write(failure.line + "\n")
    return failure.exit_code


def describe(error: BaseException) -> Failure:
    """Say what an exception means to a user."""
    if isinstance(error, SystemExit):
        return Failure("", error.code if isinstance(error.code, int) else 1)
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", _INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return Failure("", _READER_LEFT)
    if isinstance(error, CircuitsError):
        return _failure(str(error), 2 if isinstance(error, BadInput) else 1)
    if _is_validation_error(error):
        return _failure(first_problem(error), 2)
    if hasattr(error, "format_message"):  # what typer raises for the command line itself
        text = error.format_message().replace("Value error, ", "")
        return _failure(text, getattr(error, "exit_code", 2))
    if isinstance(error, OSError):
        return _failure(_system_text(error), 1)
    return _unexpected(error)


def _failure(text: str, exit_code: int) -> Failure:
    line = one_line(" ".join(redacted(text).split()))
    return Failure(f"error: {line}", exit_code)


def _unexpected(error: BaseException) -> Failure:
    text = scrubbed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    hint = "a fault of this program; 'circuits --log-level debug ...' shows where"
    return _failure(f"{text} ({hint})", 1)


def _system_text(error: OSError) -> str:
    name = error.filename if isinstance(error.filename, str) else None
    where = f": {name}" if name else ""
    if error.errno == errno.ENOSPC:
        return f"no space left on the device{where}; free some and run the command again"
    return f"{scrubbed(str(error.strerror or error))}{where}"


def _is_validation_error(error: BaseException) -> bool:
    # Not imported: where pydantic was never loaded, nothing of its can have been raised.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(error, pydantic.ValidationError)


def first_problem(error: BaseException) -> str:
    """Field and fault of the first problem of a pydantic error, and how many more there are."""
    problems = error.errors(include_url=False)  # type: ignore[attr-defined]
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"])
    text = str(first["msg"]).removeprefix("Value error, ")
    given = "" if first["type"] in ("value_error", "missing") else f", got {first['input']!r:.80}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return (f"{field}: " if field else "") + text + given + more


def _settle_standard_output() -> None:
    """Let go of output that cannot be written: Python would try once more on its way out."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
