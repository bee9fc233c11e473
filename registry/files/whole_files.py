"""Files that are written completely or not at all."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that is renamed to ``path`` when it is complete.

    It replaces a file or link of that name. After an error, an existing file stays as it was.

    Raises:
        OSError: It cannot be written there.
    """
    # Unique, because another thread may write a file of the same name; and short, because file
    # systems allow only 255 bytes.
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    file = temporary.open("xb")
    try:
        with file:
            yield file
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
