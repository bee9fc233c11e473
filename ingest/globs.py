"""Which files a glob of a ``circuits-import.yaml`` means.

``*``, ``?`` and ``[...]`` stay within one name: ``mib/*.json`` is every such file in ``mib`` and
none further down. ``**`` as a whole part of a path is any number of folders, none included. A glob
without ``/`` means names in any folder below, as in a ``.gitignore``; ``./`` in front means this
folder alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

__all__ = ["matches"]

_FOLDERS = "**"


def matches(glob: str, path: PurePath) -> bool:
    """Whether a glob means a file.

    Args:
        glob: As above; ``/`` between parts on every system.
        path: The file's, relative to the folder that the glob is relative to.
    """
    parts = [part for part in glob.split("/") if part not in {"", "."}]
    if "/" not in glob:
        parts.insert(0, _FOLDERS)
    elif glob.endswith("/"):
        parts.append(_FOLDERS)
    return _match(parts, path.parts)


def _match(globs: Sequence[str], names: Sequence[str]) -> bool:
    """Match part by part; ``reached[n]`` says whether the first ``n`` names are matched so far."""
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
