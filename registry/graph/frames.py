"""Messages between a graph store and the process that holds its engine or driver.

Requests and replies are frames: four bytes (length, big-endian) and JSON of that length. A reply
with ``error`` reports a failure: its kind, which the store turns into one of our errors, and text.

The processes import only this module of ours, so they start quickly.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

__all__ = ["HEADER", "MOST_REPLY_BYTES", "Failure", "Reply", "serve"]

HEADER = struct.Struct(">I")
MOST_REPLY_BYTES = 256_000_000
"""The caller holds the whole answer in memory, several times as large as in the frame."""
Reply = dict[str, Any]


class Failure(Exception):
    """An expected failure, with its kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


def serve(
    answer: Callable[[Reply], Reply],
    explain: Callable[[BaseException], Failure],
    plain: Callable[[Any], Any],
) -> None:
    """Answer requests from standard input on standard output until the input ends.

    Args:
        answer: Carries out a request.
        explain: Turns an exception into a failure.
        plain: Turns a value that JSON lacks into one that it has.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Other output to standard output must not break a frame.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while (request := _receive(sys.stdin.buffer)) is not None:
        try:
            body = _encoded(answer(request), plain)
        # A panic of native code is not an Exception; any failure is an answer.
        except BaseException as error:  # noqa: BLE001
            failure = error if isinstance(error, Failure) else explain(error)
            body = _encoded({"error": failure.kind, "text": failure.text}, str)
        replies.write(HEADER.pack(len(body)))
        replies.write(body)
        replies.flush()


def _encoded(reply: Reply, plain: Callable[[Any], Any]) -> bytes:
    try:
        body = json.dumps(reply, default=plain).encode()
    except RecursionError:
        raise Failure("large", "the answer is nested too deeply; return less of it") from None
    if len(body) > MOST_REPLY_BYTES:
        raise Failure(
            "large",
            f"the answer has {len(body) / 1e6:,.0f} MB and {MOST_REPLY_BYTES / 1e6:,.0f} MB are"
            f" allowed; request less, or use LIMIT",
        )
    return body


def _receive(stream: BinaryIO) -> Reply | None:
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    body = stream.read(length)
    if len(body) < length:
        return None
    request: Reply = json.loads(body)
    return request
