"""What circuits of several tasks have in common, with all numbers and where they come from."""

from queries.report.gathering import Report, gather_report
from queries.report.writing import write_report

__all__ = ["Report", "gather_report", "write_report"]
