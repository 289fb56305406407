"""The report of whatever has results: its story, tables, tests and figures in one page.

``build_content`` reads a folder and does the statistics; ``write_report`` draws what stands in there.
"""

from .content import build_content
from .page import write_report

__all__ = ["build_content", "write_report"]
