"""The circuit registry: keep, query and compare circuits found in language models.

>>> from registry import Registry                                         # doctest: +SKIP
>>> with Registry.open() as registry:                                     # doctest: +SKIP
...     registry.query("shared-components", tasks=["ioi", "agreement"]).to_frame()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Registry", "__version__"]


def __getattr__(name: str) -> Any:
    """Import on first use: a help text or the graph's process must not wait for stores."""
    if name == "Registry":
        from registry.registry import Registry

        return Registry
    if name == "__version__":
        from importlib.metadata import version

        return version("circuit-registry")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
