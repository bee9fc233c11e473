"""Every way a command can fail, as one line on standard error and an exit code.

Exit codes: 2 if the command line or something it names is malformed (:class:`BadInput`), 1 for
other failures, 130 after Ctrl-C, 141 if the reader of the output has closed it.
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
from registry.texts.problems import first_problem, in_plain_words

__all__ = ["Failure", "describe", "report"]

log = logging.getLogger(__name__)

_READER_LEFT = 128 + 13
_INTERRUPTED = 128 + 2
_OTHER_NAMES = {"--top": "--edges", "--edges": "--top", "--output": "--out", "--limit": "--top"}
"""Options that other commands have for the same purpose."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The line and the exit code for an exception; an empty line prints nothing."""

    line: str
    exit_code: int


def report(error: BaseException) -> int:
    """Print an exception as one line and return its exit code.

    The traceback goes to the log, which shows it with ``--log-level debug``.
    """
    failure = describe(error)
    log.debug("traceback of the failure", exc_info=error)
    _settle_standard_output()
    if failure.line:
        sys.stderr.write(failure.line + "\n")
    return failure.exit_code


def describe(error: BaseException) -> Failure:
    """Describe an exception for a user."""
    if isinstance(error, SystemExit):
        return Failure("", error.code if isinstance(error.code, int) else 1)
    if _was_interrupted(error):
        return Failure("interrupted", _INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return Failure("", _READER_LEFT)
    if isinstance(error, CircuitsError):
        return _failure(str(error), 2 if isinstance(error, BadInput) else 1)
    if _is_validation_error(error):
        return _failure(first_problem(error), 2)
    if hasattr(error, "format_message"):  # raised by typer for the command line itself
        text = _other_option(error) or in_plain_words(error.format_message())
        return _failure(text, getattr(error, "exit_code", 2))
    if isinstance(error, OSError):
        return _failure(_system_text(error), 1)
    return _unexpected(error)


def _other_option(error: BaseException) -> str | None:
    """What to say of an unknown option that the command has under another name."""
    given = getattr(error, "option_name", None)
    other = _OTHER_NAMES.get(str(given))
    command = getattr(getattr(error, "ctx", None), "command", None)
    known = {name for one in getattr(command, "params", ()) for name in one.opts}
    return f"No such option: {given}; here it is {other}" if other in known else None


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused it: Python 3.11 wraps one that comes while a class is being made."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _failure(text: str, exit_code: int) -> Failure:
    line = one_line(" ".join(redacted(text).split()))
    return Failure(f"error: {line}", exit_code)


def _unexpected(error: BaseException) -> Failure:
    text = scrubbed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    hint = "an error in this program; 'circuits --log-level debug ...' shows where"
    return _failure(f"{text} ({hint})", 1)


def _system_text(error: OSError) -> str:
    name = error.filename if isinstance(error.filename, str) else None
    where = f": {name}" if name else ""
    if error.errno == errno.ENOSPC:
        return f"no space left on the device{where}; free some and run the command again"
    return f"{scrubbed(str(error.strerror or error))}{where}"


def _is_validation_error(error: BaseException) -> bool:
    # Not imported: if pydantic was never loaded, it cannot have raised the error.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(error, pydantic.ValidationError)


def _settle_standard_output() -> None:
    """Discard output that cannot be written: Python would try to write it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
