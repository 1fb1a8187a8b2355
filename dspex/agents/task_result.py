"""What became of a task, in the words of whoever gave it.

Knows: plans, ways. Must not know: how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from dspex.agents.working import Plan, Way
from dspex.cluster.agents.resident import loads
from dspex.errors import DeadlineError, TaskFailedError

__all__ = ["TaskResult", "result_of"]


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class TaskResult:
    """What became of a task.

    Attributes
    ----------
    results : list, or dict of str to result
        In the order of the parts, with None for those that failed. Of a broadcast {id: result}.
    failed : dict of int to Exception
        {index of a part: why it was not done}. Of a broadcast the keys are ids, here and below.
    assigned : dict of int to str
        {index: id of the worker that did it, or was the last one to try}
    attempts : dict of int to int
        {index: how many workers have done it or failed}

    Examples
    --------
    >>> TaskResult(results=[1, 4], assigned={0: "a", 1: "b"}, attempts={0: 1, 1: 2})
    <TaskResult: 2 of 2 parts done by 2 workers in 3 attempts>
    >>> TaskResult(results=[None], failed={0: ValueError("no")}, assigned={0: "a"}, attempts={0: 1})
    <TaskResult: 0 of 1 parts done by 0 workers in 1 attempts; failed: 0 (ValueError: no)>
    """

    results: Any
    failed: Mapping[Any, BaseException] = field(default_factory=dict)
    assigned: Mapping[Any, str] = field(default_factory=dict)
    attempts: Mapping[Any, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        count = len(self.results)
        workers = {self.assigned[name] for name in self.assigned if name not in self.failed}
        words = (
            f"<TaskResult: {count - len(self.failed)} of {count} parts done by {len(workers)} "
            f"workers in {sum(self.attempts.values())} attempts"
        )
        if self.failed:
            some = [
                f"{name} ({type(error).__name__}: {error!s:.60})"
                for name, error in list(self.failed.items())[:3]
            ]
            more = f" and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
            words += f"; failed: {', '.join(some)}{more}"
        return words + ">"


def result_of(plan: Plan, ways: Mapping[int, Way], late: str | None = None) -> TaskResult:
    """The result of a plan whose parts have come so far.

    Parameters
    ----------
    plan : Plan
    ways : mapping of int to Way
    late : str, optional
        Why parts that are not over never will be.

    Raises
    ------
    TaskFailedError, DeadlineError
        Where parts were not done, unless those are to be skipped.
    """
    results: dict[Any, Any] = {}
    failed: dict[Any, BaseException] = {}
    assigned: dict[Any, str] = {}
    attempts: dict[Any, int] = {}
    first: dict[str, BaseException] | None = None
    for index in range(plan.size):
        way = ways.get(index, Way())
        name: Any = _id(plan.workers[index][0]) if plan.is_broadcast else index
        results[name] = None
        if way.answer is not None:
            attempts[name] = len(way.failures) + 1
            assigned[name] = _id(way.worker)
            try:
                results[name] = loads(way.answer)
            except Exception as error:  # its class is not known here, perhaps
                failed[name] = error
                first = {assigned[name]: error} if first is None else first
            continue
        attempts[name] = len(way.failures)
        causes = {_id(worker): _opened(error) for worker, error in way.failures}
        if causes:
            assigned[name] = list(causes)[-1]
        if way.is_over:
            failed[name] = _failure(name, causes)
            first = causes if first is None else first
        elif late is not None:
            failed[name] = DeadlineError(late)
    result = TaskResult(
        results=results if plan.is_broadcast else list(results.values()),
        failed=failed,
        assigned=assigned,
        attempts=attempts,
    )
    if plan.on_failure == "skip":
        return result
    if late is not None:
        raise DeadlineError(late, result=result)
    if failed:
        name, why = next(iter(failed.items()))
        raise TaskFailedError(
            f"each part of a task is to be done; {len(failed)} of {plan.size} could not be, the "
            f'first of them {name!r}: {why}; mend that, or use on_failure="skip" to go without',
            causes=first or {},
            result=result,
        ) from why
    return result


def _id(key: str) -> str:
    return key.partition(":")[2]


def _opened(packed: bytes) -> BaseException:
    try:
        error, told = loads(packed)
    except Exception as unreadable:
        return unreadable
    error.add_note(f"in the agent:\n{told}")
    assert isinstance(error, BaseException)
    return error


def _failure(name: Any, causes: Mapping[str, BaseException]) -> BaseException:
    """Why a part was not done: the only cause itself, else all of them in one."""
    if len(causes) == 1:
        return next(iter(causes.values()))
    if not causes:
        return TaskFailedError(f"a part goes to a worker that bids for it; none did for {name!r}")
    told = "; ".join(f"{worker}: {type(each).__name__}: {each}" for worker, each in causes.items())
    return TaskFailedError(
        f"no worker is left that has not tried the part {name!r} ({told})", causes=dict(causes)
    )
