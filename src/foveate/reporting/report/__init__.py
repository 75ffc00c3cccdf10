"""Reports: everything there is to see about a run, or a comparison of runs, on one page that needs nothing else."""

from foveate.reporting.report.page import Report
from foveate.reporting.report.run_report import ReportOptions, write_report

__all__ = ["Report", "ReportOptions", "write_report"]
