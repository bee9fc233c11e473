"""Discovery jobs: one per module."""

from ingest.jobs.base import Configuration, Finding, Job, Outcome, find_job, run_job

__all__ = ["Configuration", "Finding", "Job", "Outcome", "find_job", "run_job"]
