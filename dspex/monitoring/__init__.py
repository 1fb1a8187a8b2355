"""What people see: progress, log lines, plots, tables, reports.

Knows: a study's events and trials. Must not know: how a study proceeds, or where it runs.
Bokeh and pandas are imported where they are used, so this room is light until then.
"""

from dspex.monitoring.logs import LogObserver
from dspex.monitoring.progress import PlainLines, ProgressBar, make_progress

__all__ = ["LogObserver", "PlainLines", "ProgressBar", "make_progress"]
