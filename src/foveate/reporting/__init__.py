"""Reporting: tables for the terminal and pictures as files."""

from typing import TYPE_CHECKING

from foveate.package import door

if TYPE_CHECKING:
    from foveate.reporting import comparison, panels, passes, previews, tables
    from foveate.reporting.previews import PredictionResult, save_preview
    from foveate.reporting.report import ReportOptions, write_report
    from foveate.reporting.report.comparison_report import write_comparison_report

__all__ = [
    "PredictionResult",
    "ReportOptions",
    "comparison",
    "panels",
    "passes",
    "previews",
    "save_preview",
    "tables",
    "write_comparison_report",
    "write_report",
]

__getattr__, __dir__ = door(__name__, __file__)
