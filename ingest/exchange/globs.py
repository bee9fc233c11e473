"""The files that a glob of a ``circuits-import.yaml`` matches.

``*``, ``?`` and ``[...]`` match within one name: ``mib/*.json`` matches such files in ``mib``, but
not in its subfolders. ``**`` as a whole part of a path matches any number of folders, including
none. A glob without ``/`` matches names in any folder below, as in a ``.gitignore``; a leading
``./`` restricts it to this folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

__all__ = ["matches"]

_FOLDERS = "**"


def matches(glob: str, path: PurePath) -> bool:
    """Return whether a glob matches a file.

    Args:
        glob: As above; ``/`` between parts on every system.
        path: The file's path, relative to the same folder as the glob.
    """
    parts = [part for part in glob.split("/") if part not in {"", "."}]
    if "/" not in glob:
        parts.insert(0, _FOLDERS)
    elif glob.endswith("/"):
        parts.append(_FOLDERS)
    return _match(parts, path.parts)


def _match(globs: Sequence[str], names: Sequence[str]) -> bool:
    """Match part by part; ``reached[n]`` is whether the first ``n`` names are matched so far."""
    reached = [True, *(False for _ in names)]
    for glob in globs:
        if glob == _FOLDERS:
            first = reached.index(True) if True in reached else len(reached)
            reached = [at >= first for at in range(len(reached))]
        else:
            after = [
                was and fnmatchcase(name, glob) for was, name in zip(reached, names, strict=False)
            ]
            reached = [False, *after]
    return reached[-1]
