"""Discovery jobs: their common parts, and a folder or module per family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.lazy_names import lazy_names

if TYPE_CHECKING:
    from ingest.jobs.base import Configuration, Finding, FinishedRun, Job, find_job, run_job

__all__ = ["Configuration", "Finding", "FinishedRun", "Job", "find_job", "run_job"]

_MODULES = dict.fromkeys(__all__, "base")
__getattr__ = lazy_names(__name__, _MODULES)
