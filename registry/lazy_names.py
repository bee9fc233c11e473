"""Public names of a package, each imported on first use.

A package lists all public names. Importing the package must not load modules that are not used:
torch, pandas and the stores take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__``.

    Args:
        package: Name of the package.
        modules: For each public name, the module below the package that defines it.

    Returns:
        A function that returns the value of a name.

    Raises:
        AttributeError: The name is not public.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return find
