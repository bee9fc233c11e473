"""The place of the package's own data files, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["migrations_folder"]


def migrations_folder(kind: Literal["graph", "ledger"]) -> Path:
    """The folder of numbered migrations of that store.

    A wheel contains ``migrations`` inside this package; in a checkout (also an editable install)
    the folder is next to it.

    Raises:
        FileNotFoundError: The installation lacks its data files.
    """
    package = Path(__file__).resolve().parent
    for root in (package, package.parent):
        folder = root / "migrations" / kind
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"this installation of circuit-registry lacks migrations/{kind}; install it again"
    )
