"""A report on what circuits of several tasks have in common, with all numbers and sources."""

from queries.report.gathering import Report, gather_report
from queries.report.writing import write_report

__all__ = ["Report", "gather_report", "write_report"]
