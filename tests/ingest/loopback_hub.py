"""The part of a model hub's interface that downloading needs, served over loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder of repositories, ``owner/name/file``, and give the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Hub(SimpleHTTPRequestHandler):
    """Answers for files and for lists of files; of one commit, whatever the revision."""

    def send_head(self) -> Any:
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision = rest.partition("/")[0]
        if repository.startswith("api/models/"):
            return self._list(repository.removeprefix("api/models/").partition("/tree/")[0])
        if not rest:
            return super().send_head()
        if not (Path(self.directory) / repository).is_dir():
            return self._refuse("RepoNotFound")
        if revision not in REVISIONS:
            return self._refuse("RevisionNotFound")
        if not Path(self.translate_path(self.path)).is_file():
            return self._refuse("EntryNotFound")
        return super().send_head()

    def translate_path(self, path: str) -> str:
        repository, _, rest = path.lstrip("/").partition("/resolve/")
        return str(Path(self.directory) / repository / rest.partition("/")[2])

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _list(self, repository: str) -> BytesIO:
        files = (Path(self.directory) / repository).iterdir()
        entries = [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": COMMIT}
            for file in files
        ]
        body = json.dumps(entries).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return BytesIO(body)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
