"""Progress for people: a bar where somebody looks on, plain lines where a file does.

Knows: the events of a study, and how wide the screen is. Must not know: clocks (how long it took
and what is left are in `Progress`), how a study runs.

Three cases for ``progress=``: True is a bar, False is nothing, "auto" is a bar where stderr is a
terminal or the code runs in a notebook, and otherwise one plain line every ten seconds, because
carriage returns make a log file unreadable.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import warnings
from dataclasses import replace
from typing import Any, Literal, TextIO, final

from dspex.engine.ports import (
    Notice,
    Observer,
    Progress,
    Progressed,
    StudyEnded,
    StudyEvent,
    StudyStarted,
)
from dspex.errors import InvalidArgumentError
from dspex.monitoring.wording import (
    count,
    duration,
    metric_name,
    number,
    share,
    stop_sentence,
    strategy_reason,
)
from dspex.study.goal import Goal

__all__ = ["PlainLines", "ProgressBar", "make_progress"]

_NARROW = 100  # columns; below it the words are fewer
_BUSY = 0.95  # above it nobody asks why slots are idle
# Columns that the frame and the least bar keep before a part of the text is given up.
_FRAME, _BRIEF_FRAME = len(": 100%|| / ") + 14, len(" || / ") + 5


def make_progress(progress: bool | Literal["auto"]) -> Observer | None:
    """The observer that ``optimize(progress=...)`` asks for.

    Raises
    ------
    InvalidArgumentError
        Where it is neither a bool nor "auto".

    Examples
    --------
    >>> make_progress(False) is None
    True
    """
    if progress is False:
        return None
    if progress is True:
        return ProgressBar()
    if progress == "auto":
        return ProgressBar() if _is_watched(sys.stderr) else PlainLines()
    raise InvalidArgumentError(f'progress is True, False or "auto"; got {progress!r}')


def _is_watched(stream: TextIO) -> bool:
    return _in_notebook() or bool(getattr(stream, "isatty", lambda: False)())


def _in_notebook() -> bool:
    # IPython is loaded wherever a notebook runs; it is never loaded to find out.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def _greeting(event: StudyStarted) -> str:
    name = f"Study {event.study!r}" if event.study else "Study"
    text = f"{name}: strategy {strategy_reason(event.strategy, event.reason)}"
    if event.resumed:
        total = "" if event.trials is None else f" of {event.trials:,}"
        text += f"; continues after {event.resumed:,}{total} trials"
    return text


def _farewell(event: StudyEnded, goal: Goal | None, resumed: int) -> str:
    progress = event.progress
    parts = [count(progress.done, "trial") + (f" ({resumed:,} from before)" if resumed else "")]
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    best = _best(progress, goal)
    parts.append(best or "no score yet")
    parts.append(f"{duration(progress.elapsed)}, slots {share(progress.busy)} busy")
    return f"Stopped: {stop_sentence(event.reason)}. " + " · ".join(parts)


def _best(progress: Progress, goal: Goal | None, *, brief: bool = False) -> str:
    if progress.best is None:
        return ""
    name = f" {metric_name(goal)}" if goal and not brief else ""
    broken = " (breaks a constraint)" if progress.best.violation > 0 else ""
    return f"best{name} {number(progress.best.score)}{broken}"


def _parts(progress: Progress, goal: Goal | None, resumed: int, *, brief: bool) -> list[str]:
    """What there is to say, the most important first."""
    workers = f"{count(progress.workers, 'worker')} {share(progress.busy)}"
    new = progress.done - resumed
    rate = new / progress.elapsed if new > 0 and progress.elapsed > 0 else 0.0
    parts = [
        _best(progress, goal, brief=brief),
        "" if progress.time_left is None else f"{duration(progress.time_left)} left",
        f"{progress.failed:,} failed" if progress.failed else "",
        (workers if brief else f"{workers} busy") if progress.slots else _without_slots(progress),
        _cause(progress, brief=brief),
        f"{progress.running:,} running",
        f"{rate:.0f} trials/s" if rate >= 10 else f"{duration(1 / rate)} per trial" if rate else "",
    ]
    return [part for part in parts if part]


def _without_slots(progress: Progress) -> str:
    return "no slots" if progress.workers else "no workers"


def _cause(progress: Progress, *, brief: bool) -> str:
    """Why slots are idle, where they are."""
    if not progress.waiting_for or progress.busy > _BUSY:
        return ""
    if brief:
        return f"waits: {progress.waiting_for.partition(' (')[0]}"
    return f"waiting for {progress.waiting_for}"


@final
class PlainLines:
    """One line of text every few seconds, for log files; an `Observer`.

    Parameters
    ----------
    stream : file, optional
        By default what `sys.stderr` is when the study starts.
    every : float
        Seconds of the study between two lines.

    Examples
    --------
    >>> lines = PlainLines(stream=sys.stdout)
    >>> lines(Notice(message="a worker joined"))
    a worker joined
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = 10.0) -> None:
        self._stream = stream
        self._every = every
        self._next = every
        self._goal: Goal | None = None
        self._resumed = 0

    def __call__(self, event: StudyEvent) -> None:
        """Print a line where this event is worth one."""
        match event:
            case StudyStarted():
                self._goal, self._resumed, self._next = event.goal, event.resumed, self._every
                self._print(_greeting(event))
            case Progressed() if event.progress.elapsed >= self._next:
                self._next = event.progress.elapsed + self._every
                self._print(self._line(event.progress))
            case Notice():
                self._print(event.message)
            case StudyEnded():
                self._print(_farewell(event, self._goal, self._resumed))

    def _line(self, progress: Progress) -> str:
        total = "" if progress.trials is None else f"/{progress.trials:,}"
        parts = [f"{progress.done:,}{total} trials", duration(progress.elapsed)]
        parts += _parts(progress, self._goal, self._resumed, brief=False)
        return " · ".join(parts)

    def _print(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)


@final
class ProgressBar:
    """A live bar in a terminal or a notebook; an `Observer`.

    Trials done before this session move the bar's start and are in no rate. The time left is the
    engine's estimate; with an unknown total there is a count and no bar.

    Parameters
    ----------
    stream : file, optional
        By default what `sys.stderr` is when the study starts.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._bar: Any = None
        self._name = ""
        self._goal: Goal | None = None
        self._resumed = 0

    def __repr__(self) -> str:
        return f"<ProgressBar {'idle' if self._bar is None else self._bar.n}>"

    def __call__(self, event: StudyEvent) -> None:
        """Draw one event."""
        match event:
            case StudyStarted():
                self._start(event)
            case Progressed():
                self._draw(event.progress)
            case Notice():
                self._say(event.message)
            case StudyEnded():
                self._draw(replace(event.progress, time_left=None, waiting_for=""))
                self.close()
                self._say(_farewell(event, self._goal, self._resumed))

    def close(self) -> None:
        """Leave the bar as it stands; may be called twice."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start(self, event: StudyStarted) -> None:
        self.close()
        self._goal, self._resumed = event.goal, event.resumed
        self._name = event.study or "trials"
        self._say(_greeting(event))
        self._bar = _tqdm()(
            total=event.trials,
            initial=event.resumed,
            desc=self._name,
            file=self._stream or sys.stderr,
            dynamic_ncols=True,
            bar_format=_frame(event.trials, brief=True),
            # The engine sends a few events a second; every one of them is drawn.
            mininterval=0,
            miniters=0,
        )

    def _draw(self, progress: Progress) -> None:
        bar = self._bar
        if bar is None:
            return
        bar.total = progress.trials
        bar.n = progress.done
        bar.bar_format = self._layout(progress)
        bar.refresh()

    def _layout(self, progress: Progress) -> str:
        """Tqdm's format of the line, with as many parts as fit, in order of importance."""
        columns = _columns()
        self._bar.desc = _clipped(self._name, columns // 5)
        brief = columns < _NARROW
        frame = _frame(progress.trials, brief=brief)
        total = progress.trials or progress.done
        room = columns - len(self._bar.desc) - 2 * len(str(total))
        room -= _BRIEF_FRAME if brief else _FRAME
        text = ""
        for part in _parts(progress, self._goal, self._resumed, brief=brief):
            longer = f"{text} · {part}"
            if len(longer) <= room:
                text = longer
        # Braces in a metric's name are text, not fields of tqdm's format.
        return frame + text.replace("{", "{{").replace("}", "}}")

    def _say(self, line: str) -> None:
        stream = self._stream or sys.stderr
        line = "\n".join(
            textwrap.wrap(line, _columns(), subsequent_indent="  ", break_long_words=False)
        )
        if self._bar is None:
            print(line, file=stream, flush=True)
        else:
            self._bar.write(line, file=stream)


def _columns() -> int:
    """How wide the screen is; a notebook's page has no columns."""
    return 1000 if _in_notebook() else max(20, shutil.get_terminal_size().columns)


def _clipped(name: str, width: int) -> str:
    """A name that leaves room for what changes.

    Examples
    --------
    >>> _clipped("digits", 16), _clipped("a-study-with-a-long-name", 16)
    ('digits', 'a-study-with-a-…')
    """
    return name if len(name) <= width else name[: max(1, width - 1)] + "…"


def _frame(total: int | None, *, brief: bool) -> str:
    if total is None:
        return "{desc}: {n_fmt} done"
    if brief:
        return "{desc} |{bar}| {n_fmt}/{total_fmt}"
    return "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"


def _tqdm() -> Any:
    """The bar for here: a widget in a notebook that has widgets, else text."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        # A notebook without ipywidgets gets the bar in text, which is what the warning says.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread of tqdm's own: the engine's events come often enough

    return Bar
