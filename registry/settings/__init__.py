"""Settings: the places of the stores, the trusted homes, and the syntax of URLs and files.

:mod:`registry.settings.table` has the settings themselves and imports no slow modules;
:mod:`registry.settings.local` has the functions for callers and is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.lazy_names import lazy_names

if TYPE_CHECKING:
    from registry.settings.local import (
        FILE_NAME,
        HOME_NAME,
        LocalSettings,
        Outside,
        Settings,
        create_home,
        discard_home,
        find_home,
        home_path,
        keep_settings,
        load_settings,
        local_settings,
        not_kept,
        trust,
        untrust,
    )

__all__ = [
    "FILE_NAME",
    "HOME_NAME",
    "LocalSettings",
    "Outside",
    "Settings",
    "create_home",
    "discard_home",
    "find_home",
    "home_path",
    "keep_settings",
    "load_settings",
    "local_settings",
    "not_kept",
    "trust",
    "untrust",
]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "local"))
