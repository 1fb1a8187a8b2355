"""What the engine needs from the outside, as protocols: Executor, Log, Observer.

Knows: the shape of each port and its rules. Must not know: Dask, SQLite, terminals.
Each protocol has its doubles and its conformance suite in `dspex.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, final

from dspex.programs.base import Program
from dspex.space import Space
from dspex.study.goal import Goal
from dspex.study.records import Failed, Measured, Record
from dspex.study.trial import Trial, TrialState

__all__ = [
    "CapacityChanged",
    "Evaluation",
    "Executor",
    "Job",
    "Log",
    "Lost",
    "Notice",
    "Observer",
    "Outcome",
    "Progress",
    "Progressed",
    "StudyEnded",
    "StudyEvent",
    "StudyStarted",
    "TrialEnded",
]


# --- executor ------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Evaluation:
    """One piece of work: one fold of one trial, in one attempt.

    Attributes
    ----------
    trial, fold, attempt : int
        From 0.
    params : mapping
        Labels and plain numbers, as in the log; ``space.resolve(params)`` is what programs get.
    seconds_left : float or None
        What ``trial_timeout`` leaves for it.
    """

    trial: int
    fold: int
    attempt: int
    params: Mapping[str, Any]
    seconds_left: float | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What an executor must know of a study before its first evaluation.

    Attributes
    ----------
    program : Program
    space : Space
    data : object
        What ``program.prepare`` takes.
    seed : int
        The root seed of the evaluations.
    isolation : "process" or "thread"
        In an evaluator child, or in the worker itself.
    memory_limit : int or None
        Bytes that one evaluation may use.
    retry_on : tuple of exception classes
        Errors to be reported with ``may_retry``.
    threads : int
        How many threads BLAS and OpenMP may use in an evaluator child.
    """

    program: Program
    space: Space
    data: Any
    seed: int
    isolation: Literal["process", "thread"] = "process"
    memory_limit: int | None = None
    retry_on: tuple[type[BaseException], ...] = ()
    threads: int = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """An evaluation vanished with its worker: nobody's fault, so it runs again elsewhere."""

    trial: int
    fold: int
    attempt: int
    worker: str
    reason: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityChanged:
    """Workers joined or left: how many there are now, and how many evaluations they run at once."""

    workers: int
    slots: int


Outcome: TypeAlias = Measured | Failed | Lost


class Executor(Protocol):
    """Where evaluations run.

    Used from one thread. Every evaluation submitted and not cancelled comes back from `poll` as
    exactly one `Outcome`; a cancelled one may still come back, once. Work starts in the order of
    (trial, fold), whatever the order of submission.
    """

    @property
    def runs_here(self) -> bool:
        """Whether evaluations run in the thread that polls, so that Ctrl-C has to reach them."""

    def open(self, job: Job) -> CapacityChanged:
        """Place the program and the data; answers what there is to work with.

        Raises
        ------
        NotPicklableError
            Where the program or the data cannot travel.
        ClusterError
            Where there is no cluster to work on, or its versions do not fit.
        """

    def submit(self, evaluations: Sequence[Evaluation]) -> None:
        """Queue evaluations."""

    def cancel(self, trials: Collection[int]) -> None:
        """Forget the evaluations of these trials; running ones are ended."""

    def poll(self, timeout: float) -> list[Outcome | CapacityChanged | Notice]:
        """Wait up to ``timeout`` seconds for something to happen, and say what happened.

        Raises
        ------
        ProgramLoadError
            Where the program or its data cannot be loaded on the workers.
        ClusterLostError, NoWorkersError
            After the stated patience.
        """

    def close(self) -> None:
        """End all work of this study and nothing else; may be called twice."""


# --- log -----------------------------------------------------------------------------------


class Log(Protocol):
    """The records of one study, in order, owned by one process.

    `append` may be called from one thread only and returns before the records are safe; `sync`
    waits until they are. A batch is kept whole or not at all. After an error nothing more is
    accepted: the error is raised again by every later call.
    """

    def load(self) -> Iterable[Record]:
        """All records, from the first, appended ones included; a file is read as they are taken."""

    def append(self, records: Sequence[Record]) -> None:
        """Add records behind the last.

        Raises
        ------
        StudyInUseError
            Where another process has taken the study over.
        StorageError
            Where the store cannot be written.
        """

    def sync(self) -> None:
        """Wait until all that was appended survives the death of this process and machine."""

    def close(self) -> None:
        """Sync, and give the study up; may be called twice."""


# --- observers -----------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A snapshot for people.

    Attributes
    ----------
    trials : int or None
        The study's total, resumed ones included.
    done, running, failed : int
        Trials ended (failed ones among them), suggested and not ended, and failed or timed out.
    best : Trial or None
        The best so far; with several objectives a member of the front.
    elapsed : float
        Seconds of this session.
    time_left : float or None
        An estimate in seconds; None while nothing is known.
    workers, slots : int
    busy : float
        The share of the slots' time that was spent in evaluations, 0 to 1.
    waiting_for : str
        Why slots are idle, in words; empty while they are not.
    """

    trials: int | None
    done: int
    running: int
    failed: int
    best: Trial | None
    elapsed: float
    time_left: float | None
    workers: int
    slots: int
    busy: float
    waiting_for: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStarted:
    """A session begins; ``resumed`` trials had ended before it."""

    study: str | None
    storage: str | None
    goal: Goal
    space: Space
    strategy: str
    reason: str
    trials: int | None
    resumed: int
    head: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial reached a final state.

    Attributes
    ----------
    number : int
    state : TrialState
    look : callable of a number
        Makes the snapshot; most observers of many short trials do not want each.
    """

    number: int
    state: TrialState
    look: Callable[[int], Trial] = field(repr=False, compare=False)

    @property
    def trial(self) -> Trial:
        """The trial as it ended."""
        return self.look(self.number)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """Time for a new look; sent a few times a second."""

    progress: Progress


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that a person should know now, in one line."""

    message: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEnded:
    """The session is over."""

    reason: str
    progress: Progress


StudyEvent: TypeAlias = StudyStarted | TrialEnded | Progressed | Notice | StudyEnded


class Observer(Protocol):
    """Whoever wants to see a study proceed: any callable that takes an event.

    Runs in the client, in the study's thread. What it raises is logged, and never harms the study.
    """

    def __call__(self, event: StudyEvent) -> None:
        """Look at one event."""
