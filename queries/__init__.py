"""Named questions, comparison statistics and reports."""
