"""The report of an experiment: figures, intervals, pictures, Markdown, HTML and JSON."""

from __future__ import annotations

from export.reporting.report import write_report

__all__ = ["write_report"]
