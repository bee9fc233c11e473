"""A server that speaks Bolt and answers as it was told: what a foreign one might send.

Bolt 5.4: after a handshake, messages in chunks of up to 65,535 bytes, each a structure in
PackStream. To a request, everything is answered with success but a statement, to which a test's
own function gives the bytes. Loopback only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["FakeServer", "answer", "chunked", "fake_server", "message", "packed"]

_SUCCESS, _RECORD, _IGNORED, _FAILURE = 0x70, 0x71, 0x7E, 0x7F
_HELLO, _GOODBYE, _RUN, _DISCARD, _PULL = 0x01, 0x02, 0x10, 0x2F, 0x3F
_HANDSHAKE_BYTES = 20
_VERSION = bytes([0, 0, 4, 5])

Script = Callable[[str], Iterable[bytes] | None]
"""From a statement to the bytes of its whole answer; None for that of ``RETURN 1``."""


@dataclass(frozen=True)
class FakeServer:
    """How to reach it, and what it was asked."""

    url: str
    asked: list[str]


@contextlib.contextmanager
def fake_server(
    script: Script = lambda _: None, handshake: Iterable[bytes] = (_VERSION,)
) -> Iterator[FakeServer]:
    """Serve on a free port until the end of the block."""
    asked: list[str] = []
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    client, _ = listening.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        def serve(client: socket.socket) -> None:
            # Whoever asked may leave at any moment.
            with client, contextlib.suppress(OSError, EOFError):
                _read(client, _HANDSHAKE_BYTES)
                for part in handshake:
                    client.sendall(part)
                for tag, text in _requests(client):
                    if tag == _GOODBYE:
                        return
                    for part in _reply(tag, text):
                        if ended.is_set():
                            return
                        client.sendall(part)

        def _reply(tag: int, text: str) -> Iterable[bytes]:
            if tag in (_PULL, _DISCARD):
                return ()  # its answer came with that of the statement
            if tag != _RUN:
                hello = {"server": "Neo4j/5.26.0", "connection_id": "fake"} if tag == _HELLO else {}
                return (message(_SUCCESS, hello),)
            asked.append(text)
            scripted = None if text == "RETURN 1" else script(text)
            return answer(["1"], [[1]]) if scripted is None else scripted

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield FakeServer(f"bolt://127.0.0.1:{listening.getsockname()[1]}", asked)
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def answer(columns: list[Any], rows: Iterable[list[Any]]) -> Iterator[bytes]:
    """The bytes of a whole answer: its columns, its rows, its end."""
    yield message(_SUCCESS, {"fields": columns})
    for row in rows:
        yield message(_RECORD, row)
    yield message(_SUCCESS, {"type": "r"})


def failure(code: Any, text: Any) -> bytes:
    """The bytes of a refusal, with which the rows that were asked for at once are passed over."""
    return message(_FAILURE, {"code": code, "message": text}) + message(_IGNORED)


def message(tag: int, *fields: Any) -> bytes:
    """A message with its fields."""
    return chunked(bytes([0xB0 + len(fields), tag]) + b"".join(map(packed, fields)))


def chunked(body: bytes) -> bytes:
    """A message's bytes in chunks, with the end mark."""
    parts = [body[start : start + 0xFFFF] for start in range(0, len(body), 0xFFFF)]
    return b"".join(struct.pack(">H", len(part)) + part for part in parts) + b"\0\0"


def packed(value: Any) -> bytes:
    """A value in PackStream."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return b"\xcb" + struct.pack(">q", value)
        case float():
            return b"\xc1" + struct.pack(">d", value)
        case bytes():
            return value  # packed already
        case str():
            return b"\xd2" + struct.pack(">I", len(value.encode())) + value.encode()
        case list():
            return b"\xd6" + struct.pack(">I", len(value)) + b"".join(map(packed, value))
        case dict():
            pairs = (packed(key) + packed(item) for key, item in value.items())
            return b"\xda" + struct.pack(">I", len(value)) + b"".join(pairs)
        case _:
            raise TypeError(type(value))


def _requests(client: socket.socket) -> Iterator[tuple[int, str]]:
    while True:
        body = b""
        while size := struct.unpack(">H", _read(client, 2))[0]:
            body += _read(client, size)
        if body:
            yield body[1], _statement(body) if body[1] == _RUN else ""


def _statement(body: bytes) -> str:
    marker, rest = body[2], body[3:]
    width = {0xD0: 1, 0xD1: 2, 0xD2: 4}.get(marker, 0)
    size = int.from_bytes(rest[:width], "big") if width else marker & 0x0F
    return rest[width : width + size].decode()


def _read(client: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = client.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts
