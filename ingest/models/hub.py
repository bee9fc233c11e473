"""Models on the hub: the files to download, and the meaning of its refusals.

A model is downloaded to the hub client's own cache and read from there as a folder, so the network
is not used again later.
"""

from __future__ import annotations

import errno
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from queue import Empty, Queue

import huggingface_hub
from huggingface_hub import errors

from ingest.models.names import Place, what_works
from registry.errors import BadInput, CircuitsError, NotFound, StorageError

__all__ = ["download"]

_SECONDS = 5.0
_SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
_WEIGHTS = (  # the first that exists; the same weights often exist in a second format
    "model*.safetensors",
    "*.safetensors",
    "pytorch_model*.bin",
)


def download(place: Place, check: Callable[[Path], None]) -> Path:
    """Download a model from the hub, unless it is downloaded already, and return its folder.

    The folder's name is the commit. It contains configuration, weights and tokenizer; if the hub
    cannot be reached, those of them that were downloaded before.

    Args:
        place: The model.
        check: Receives the folder when it has a configuration and before weights are downloaded;
            raises to refuse the model.

    Raises:
        NotFound: It is not on the hub, has no such revision, or the hub cannot be reached.
        BadInput: Access must be requested, or it is not a model of transformers.
        StorageError: The hub client's cache cannot be written.
    """
    hub = huggingface_hub.HfApi()
    reachable = _answers()
    try:
        config = hub.hf_hub_download(
            place.source, "config.json", revision=place.revision, local_files_only=not reachable
        )
        folder = Path(config).parent
        check(folder)
        if reachable:
            for name in _needed(hub.list_repo_files(place.source, revision=folder.name)):
                hub.hf_hub_download(place.source, name, revision=folder.name)
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, OSError) as error:
        raise _plain(place, error, reachable) from error
    return folder


def _answers() -> bool:
    """Return whether the hub can be reached; its client would try for half a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    answer: Queue[bool] = Queue()
    # In a thread, because the time limit applies separately to each address of a host.
    threading.Thread(target=lambda: answer.put(_ask()), daemon=True).start()
    try:
        return answer.get(timeout=_SECONDS)
    except Empty:
        return False


def _ask() -> bool:
    request = urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # The hub's own client may trust other certificates than Python does.
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False


def _needed(names: list[str]) -> Iterator[str]:
    """Select a repository's files: the small files, and the weights in one format."""
    top = [name for name in names if "/" not in name]
    yield from (name for name in top if any(fnmatch(name, pattern) for pattern in _SMALL))
    weights = ([name for name in top if fnmatch(name, pattern)] for pattern in _WEIGHTS)
    yield from next(filter(None, weights), [])


def _plain(place: Place, error: Exception, reachable: bool) -> CircuitsError:
    """Return the error that explains a refusal and what to do."""
    if isinstance(error, errors.GatedRepoError):
        return BadInput(f"request access to {place} on the hub; then run 'hf auth login'")
    if isinstance(error, errors.RevisionNotFoundError):
        revision = place.revision or "main"
        return NotFound("revision", revision, f"{place.source!r} on the hub has other revisions")
    if isinstance(error, errors.RepositoryNotFoundError):
        why = "it is not on the hub, or is private (then run 'hf auth login')"
        return NotFound("model", str(place), f"{why}; {what_works(place.source)}")
    if not reachable:
        why = "the hub cannot be reached and it was not downloaded before"
        return NotFound("model", str(place), f"{why}; {what_works(place.source)}")
    if isinstance(error, errors.EntryNotFoundError):
        return BadInput(
            f"{place} on the hub has no config.json, so transformers cannot read it; "
            "a .gguf file of it can be downloaded and given by its path"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES):
        return StorageError(
            f"{place} cannot be written to {huggingface_hub.constants.HF_HUB_CACHE!r}: {error}; "
            "free some space there or set HF_HUB_CACHE to another folder"
        )
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BadInput(f"{place} cannot be downloaded from the hub: {first}")
