"""Agents that tests call on real clusters: what they do well, badly, slowly, and to one another.

Knows: agents, files as gates. Must not know: who calls them, what is judged.

They lie in the package so that every worker can import them.
"""

from __future__ import annotations

import os
import pathlib
import threading
import time
from typing import Any

from distributed import get_client, get_worker

import dspex
from dspex.agents.agent import Agent
from dspex.agents.creating import create_agent
from dspex.agents.handle import AgentHandle
from dspex.testing.models import CONFLICT

__all__ = [
    "Appender",
    "Breaking",
    "Cell",
    "Counter",
    "Grown",
    "Meddler",
    "Plain",
    "Ticking",
    "Worker",
    "entered",
    "release",
]

_HANG_SECONDS = 300.0
_EVERY = 0.002


def entered(folder: pathlib.Path, name: str) -> bool:
    """Whether somebody stands at a gate (`Counter.hang`)."""
    return (folder / f"{name}.entered").exists()


def release(folder: pathlib.Path, name: str) -> None:
    """Open a gate."""
    (folder / f"{name}.released").touch()


class Counter(Agent):
    """Counts."""

    capabilities = ("count",)

    def __init__(self, first: int = 0) -> None:
        self._first = first

    def on_start(self) -> None:
        """Begin."""
        self.state["n"] = self._first
        self.state["log"] = []

    def on_restore(self) -> None:
        """Live on elsewhere."""
        self.state["restored"] = self.state.get("restored", 0) + 1

    def add(self, by: int = 1) -> int:
        """Count on."""
        self.state["n"] += by
        count: int = self.state["n"]
        return count

    async def add_async(self, by: int = 1) -> int:
        """Count on, on the loop."""
        return self.add(by)

    def read(self) -> int:
        """Tell the count, and change nothing."""
        count: int = self.state["n"]
        return count

    def note(self, what: Any) -> int:
        """Write down, in place."""
        self.state["log"].append(what)
        return len(self.state["log"])

    def notes(self) -> list[Any]:
        """Tell what was written down."""
        return list(self.state["log"])

    def restored(self) -> int:
        """Tell how often it was made again."""
        return int(self.state.get("restored", 0))

    def pid(self) -> int:
        """Tell the process."""
        return os.getpid()

    def thread(self) -> str:
        """Tell the thread."""
        return threading.current_thread().name

    def name(self) -> str:
        """Tell its own id."""
        return self.id

    def fail(self, by: int = 1) -> None:
        """Count on, and raise."""
        self.state["n"] += by
        self.state["left behind"] = True
        raise ValueError(f"on purpose, after {by}")

    def keep(self, value: Any) -> None:
        """Put a value into the state."""
        self.state["kept"] = value

    def keep_a_lock(self) -> None:
        """Put into the state what cannot be kept."""
        self.state["n"] += 1
        self.state["kept"] = threading.Lock()

    def answer_with_a_lock(self) -> Any:
        """Answer what cannot travel."""
        self.state["n"] += 1
        return threading.Lock()

    def echo(self, value: Any) -> Any:
        """Give it back."""
        return value

    def hang(self, folder: str, name: str) -> str:
        """Count on, say so by a file, and block until another file is there."""
        self.state["n"] += 1
        gates = pathlib.Path(folder)
        (gates / f"{name}.entered").touch()
        ends = time.monotonic() + _HANG_SECONDS
        while not (gates / f"{name}.released").exists():
            if time.monotonic() > ends:
                raise TimeoutError(f"nobody opened {name}")
            time.sleep(_EVERY)
        return name

    def count_in(self, path: str) -> int:
        """Count on, here and in a file outside of all that is kept."""
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
        return self.add()


class Meddler(Agent):
    """Calls other agents, and makes some."""

    def on_start(self) -> None:
        """Begin."""
        self.state["made"] = 0

    def ask(self, other: AgentHandle, by: int) -> int:
        """Call another, and block until it has answered."""
        answer: int = other.add(by).result(timeout=60)
        self.state["made"] += 1
        return answer

    async def ask_async(self, other: AgentHandle, by: int) -> int:
        """Call another, and await it."""
        answer: int = await other.add(by)
        self.state["made"] += 1
        return answer

    def send(self, other: AgentHandle, *numbers: int) -> None:
        """Have it counted on, later."""
        for number in numbers:
            other.cast("note", (number,))
        self.state["made"] += 1

    def send_and_fail(self, other: AgentHandle, number: int) -> None:
        """Have it counted on, and think better of it."""
        other.cast("note", (number,))
        raise ValueError("second thoughts")

    def make(self, id: str, **options: Any) -> AgentHandle:
        """Create another agent."""
        return create_agent(Counter, args=(7,), id=id, **options)

    async def make_async(self, id: str, **options: Any) -> AgentHandle:
        """Create another agent, on the loop."""
        making: Any = create_agent(Counter, args=(7,), id=id, **options)
        made: AgentHandle = await making
        return made

    def made(self) -> int:
        """Tell how often it did something."""
        count: int = self.state["made"]
        return count


class Worker:
    """Uses the Dask around it."""

    def address(self) -> str:
        """Where it runs."""
        return str(get_worker().address)

    async def address_async(self) -> str:
        """Where it runs, on the loop."""
        return str(get_worker().address)

    def total(self, numbers: Any) -> int:
        """Have a task of Dask's add some numbers, which may be a future of Dask's."""
        total: int = get_client().submit(sum, numbers, pure=False).result(timeout=60)
        return total

    async def total_async(self, numbers: Any) -> int:
        """The same, on the loop."""
        task: Any = get_client().submit(sum, numbers, pure=False)
        total: int = await task
        return total

    def least(self) -> float:
        """Optimize something; without a word about where, it is done here."""
        result = dspex.optimize(
            lambda params: (params["x"] - 1.0) ** 2,
            space={"x": dspex.Float(0.0, 2.0)},
            direction="minimize",
            trials=8,
            seed=0,
        )
        return float(result.best_score)


class Ticking(Counter):
    """Calls itself."""

    def begin(self, seconds: float, *args: Any, name: str = "", repeats: bool = True) -> None:
        """Set a timer."""
        (self.every if repeats else self.after)(seconds, "note", *args, name=name)

    def begin_and_fail(self, seconds: float) -> None:
        """Set a timer that is undone."""
        self.every(seconds, "note", "never")
        raise ValueError("second thoughts")

    def finish(self, name: str = "note") -> None:
        """End a timer."""
        self.cancel_timer(name)


class Breaking(Counter):
    """Raises where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        self._raise("constructor")

    def _raise(self, where: str) -> None:
        if self._where == where:
            raise LookupError(f"in its {where}")

    def on_start(self) -> None:
        """Begin, or not."""
        super().on_start()
        self._raise("on_start")

    def on_restore(self) -> None:
        """Live on, or not."""
        self._raise("on_restore")

    def on_stop(self) -> None:
        """End, or not."""
        self._raise("on_stop")


class Grown(Counter):
    """Knows how its state looked before."""

    version = 2

    def migrate_state(self, from_version: int) -> None:
        """Take the former state."""
        self.state["grown from"] = from_version


class Plain:
    """No `Agent`: all of it is kept."""

    def __init__(self, first: int = 0) -> None:
        self.n = first
        self.log: list[Any] = []

    def add(self, by: int = 1) -> int:
        """Count on."""
        self.n += by
        return self.n

    def read(self) -> int:
        """Tell the count."""
        return self.n

    def note(self, what: Any) -> int:
        """Write down."""
        self.log.append(what)
        return len(self.log)

    def notes(self) -> list[Any]:
        """Tell what was written down."""
        return list(self.log)

    def fail(self, by: int = 1) -> None:
        """Count on, and raise."""
        self.n += by
        self.log.append("left behind")
        raise ValueError(f"on purpose, after {by}")

    def pid(self) -> int:
        """Tell the process."""
        return os.getpid()


class Appender(Agent):
    """Keeps what each caller said, in the order in which it came."""

    def take(self, caller: str, number: int) -> int:
        """Write down; gives how many there are of this caller."""
        log = self.state.setdefault(caller, [])
        log.append(number)
        return len(log)

    def all(self) -> dict[str, list[int]]:
        """Tell all."""
        return {caller: list(log) for caller, log in self.state.items()}

    def pid(self) -> int:
        """Tell the process."""
        return os.getpid()


class Cell(Agent):
    """A register with versions: what `dspex.testing.models.Register` models."""

    def on_start(self) -> None:
        """Begin with nothing."""
        self.state["value"] = None
        self.state["version"] = 0

    def get(self) -> list[Any] | None:
        """Read."""
        return [self.state["value"], self.state["version"]] if self.state["version"] else None

    def put(self, value: Any) -> int:
        """Write."""
        self.state["value"] = value
        self.state["version"] += 1
        version: int = self.state["version"]
        return version

    def compare_and_set(self, expected: int, value: Any) -> int | str:
        """Write if nobody has meanwhile."""
        return self.put(value) if self.state["version"] == expected else CONFLICT

    def pid(self) -> int:
        """Tell the process."""
        return os.getpid()
