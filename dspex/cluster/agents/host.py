"""The host of a worker's agents: what is placed here is made, runs, and is let go again.

Knows: what the ledger places, agents in the making, moves. Must not know: Dask, how a turn runs
(`running`), what an agent is for.

When the session of its member has ended, the host forgets everything: its agents live elsewhere by
then, or will be given to it anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, final

from dspex.cluster.agents.committing import Pending
from dspex.cluster.agents.making import Classes, Made, failure_of, make
from dspex.cluster.agents.pool import Pool
from dspex.cluster.agents.resident import Resident, dumps, error_bytes
from dspex.cluster.agents.running import Running
from dspex.cluster.agents.turns import TurnContext
from dspex.errors import AgentNotFoundError, DspexError, SessionExpiredError, UnavailableError
from dspex.foundation.agents.cells import LOADING, READY, Cell, Letter
from dspex.foundation.agents.messages import DONE, RAISED, REFUSED
from dspex.foundation.ledger.agents.turns import pack_turn
from dspex.foundation.ports import Caller

__all__ = ["Host"]

logger = logging.getLogger("dspex.agents")

LOADS_AT_ONCE = 1_000
MOVES_AT_ONCE = 500

REPORT_EVERY = 0.5

_AGAIN_AFTER = 0.2
"""Seconds after which the ledger is told again what it must hear."""

_HOLD = 20.0
"""Seconds for which the ledger may keep a host's question what is new: nothing is, mostly."""


@final
class Host:
    """Hosts agents for one member; made on the loop that it uses.

    Parameters
    ----------
    caller : Caller
        The member's session.
    address : str
    pool : Pool
        For turns that may block.
    context : contextvars.Context, optional
        In which turns run that do not block; None: that of whoever starts the host.
    """

    def __init__(
        self, caller: Caller, address: str, *, pool: Pool, context: Context | None = None
    ) -> None:
        self._caller = caller
        self.address = address
        self._pool = pool
        self.running = Running(
            caller, pool, control=self._control, retake=self._retake, context=context
        )
        self.inbox = self.running.inbox
        self.arrivals = self.running.arrivals
        self._classes = Classes(caller)
        self._loop = asyncio.get_running_loop()
        self._is_following = False
        self._made: deque[tuple[Cell, Mapping[str, Any], Made | Exception]] = deque()
        self._is_told = False  # that some are made
        self._outdated: dict[str, tuple[int, int]] = {}  # incarnations that begin here no more

    # --- life --------------------------------------------------------------------------------

    def start(self, runtime: Any) -> None:
        """Begin to follow what the ledger places here.

        Parameters
        ----------
        runtime : Runtime
            Through which turns reach others.
        """
        self.running.runtime = runtime
        self._is_following = True
        self.running.spawn(self._follow())
        self.running.spawn(self._report())

    async def close(self) -> None:
        """Run nothing any more; what is placed here is made elsewhere."""
        await self.running.close()

    def joined(self) -> None:
        """Begin anew as another incarnation of the member."""
        self.running.session_began()
        # The feed tells nothing of what was placed between the join and its first answer.
        if self._is_following:
            self.running.spawn(self._look_later(0.0))

    # --- what is placed here -----------------------------------------------------------------

    async def _follow(self) -> None:
        async for event in self._caller.follow_events({f"host {self.address}"}, hold=_HOLD):
            try:
                await self._heard(event)
            except DspexError as error:
                logger.warning("host %s: %s", self.address, error)
                self.running.spawn(self._look_later(0.2))

    async def _look_later(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._look()
                return
            except SessionExpiredError:
                return  # with the next session it looks again
            except DspexError:
                seconds = _AGAIN_AFTER

    async def _heard(self, event: tuple[Any, ...]) -> None:
        if event[0] == "reset":
            await self._look()
        elif event[0] == "placed":
            _, _, status, _, (term, n), keys = event
            token = (term, n)  # one for all of them: there may be very many
            if status == "starting":
                await self._take([(key, token) for key in keys])
        elif event[0] == "moving":
            self.running.spawn(self._let_go(event[3]))
        elif event[0] == "ended":
            for key in event[3]:
                self._end_when_settled(key)

    def _end_when_settled(self, key: str) -> None:
        """Forget an agent that was stopped, but answer first what was committed with its end."""
        cell = self.inbox.cells.get(key)
        if cell is None or not cell.uncommitted:
            self.running.end(key)
            return

        async def later() -> None:
            while cell.uncommitted:
                await asyncio.sleep(0.001)
            if self.inbox.cells.get(key) is cell:
                self.running.end(key)

        self.running.spawn(later())

    async def _look(self) -> None:
        """Compare what is here with what should be."""
        before = dict(self.inbox.cells)  # what comes after the question is not in its answer
        placed = {
            key: ((term, n), status)
            for key, (term, n), status in await self._caller.read("agents.at_host")
        }
        for key, cell in before.items():
            is_here = self.inbox.cells.get(key) is cell
            if is_here and (key not in placed or placed[key][0] > cell.token):
                self.running.end(key)
        await self._take([(key, token) for key, (token, _) in placed.items()])
        await self._let_go([key for key, (_, status) in placed.items() if status == "moving"])

    async def _take(self, placed: Sequence[tuple[str, tuple[int, int]]]) -> None:
        """Make agents that are not here yet, as these incarnations."""
        if not self.running.is_current:
            return  # what is here is forgotten in a moment, and then all is looked at
        new: list[Cell] = []
        for key, token in placed:
            cell = self.inbox.cells.get(key)
            if key in self._outdated and token <= self._outdated[key]:
                continue
            if cell is None or cell.token < token:
                self._outdated.pop(key, None)
                self.running.timers.cancel(key)
                new.append(self.inbox.add(key, token, limit=10_000))
        for at in range(0, len(new), LOADS_AT_ONCE):
            some = new[at : at + LOADS_AT_ONCE]
            try:
                await self._load(some)
            except DspexError:
                for cell in some:  # to be found missing, and taken again
                    self._end_if_here(cell)
                raise

    def _is_here(self, cell: Cell) -> bool:
        """Whether it is the one that lives here; another of its incarnation may have come since."""
        return self.inbox.cells.get(cell.key) is cell

    def _end_if_here(self, cell: Cell) -> None:
        if self._is_here(cell):
            self.running.end(cell.key)

    async def _load(self, cells: Sequence[Cell]) -> None:
        loaded = await self._caller.read("agents.load", keys=[cell.key for cell in cells])
        failures: list[Any] = []
        for cell, parcel in zip(cells, loaded["parcels"], strict=True):
            if parcel is None:
                self._end_if_here(cell)
            if parcel is None or not self._is_here(cell) or tuple(parcel["token"]) != cell.token:
                continue
            parcel["spec"] = loaded["specs"][parcel["spec"]]
            try:
                cls = await self._classes.get(parcel["spec"]["class"])
            except (UnavailableError, SessionExpiredError):
                raise  # nothing is wrong with the agent
            except Exception as error:
                failures.append(failure_of(cell, error))
            else:
                cell.limit = parcel["spec"]["mailbox"]
                cell.is_durable = parcel["spec"]["persistence"] == "durable"
                cell.refuses = parcel["spec"]["overflow"] == "refuse"
                self._pool.submit(partial(self._make_in_thread, cell, cls, parcel))
        self.running.watch_pool()
        if failures:
            await self._fail(failures)

    def _make_in_thread(self, cell: Cell, cls: type, parcel: Mapping[str, Any]) -> None:
        try:
            made: Made | Exception = make(cls, parcel, cell.key, self.running.runtime)
        except Exception as error:
            made = error
        self._made.append((cell, parcel, made))
        if not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._take_made)

    def _take_made(self) -> None:
        self._is_told = False
        while self._made:
            self._was_made(*self._made.popleft())

    async def _begin_later(self, cell: Cell, parcel: Mapping[str, Any], made: Made) -> None:
        try:
            finished = await made.finished()
        except Exception as error:
            with suppress(DspexError):
                await self._fail([failure_of(cell, error)])
        else:
            self.running.begin(cell, parcel, finished)

    def _was_made(self, cell: Cell, parcel: Mapping[str, Any], made: Made | Exception) -> None:
        if self.inbox.cells.get(cell.key) is not cell:
            return
        if isinstance(made, Exception):
            self.running.spawn(self._fail([failure_of(cell, made)]))
        elif made.hook is not None:
            self.running.spawn(self._begin_later(cell, parcel, made))
        else:
            self.running.begin(cell, parcel, made)

    async def _fail(self, failures: Sequence[Any]) -> None:
        for key, _, payload, _ in failures:
            cell = self.inbox.cells.get(key)
            for letter in tuple(cell.mailbox or ()) if cell is not None else ():
                self.arrivals.answer(letter, REFUSED, payload)
            if cell is not None:
                cell.mailbox = None
            self.running.end(key)
        await self._caller.write("agents.fail", failures=failures)

    # --- moves ---------------------------------------------------------------------------------

    async def _let_go(self, keys: Sequence[str]) -> None:
        """Let agents go, some at a time: the others serve on meanwhile."""
        for at in range(0, len(keys), MOVES_AT_ONCE):
            here = [self.inbox.cells.get(key) for key in keys[at : at + MOVES_AT_ONCE]]
            cells = [cell for cell in here if cell is not None and cell.phase == READY]
            for cell in here:
                if cell is not None and cell.phase == LOADING:
                    self.running.spawn(self._let_go_when_made(cell))
            for cell in cells:
                self.running.timers.cancel(cell.key)
                self.inbox.leave(cell)
            await asyncio.gather(*[self._hand_over(cell) for cell in cells])

    async def _let_go_when_made(self, cell: Cell) -> None:
        while cell.phase == LOADING and self.inbox.cells.get(cell.key) is cell:
            await asyncio.sleep(0.01)
        if self.inbox.cells.get(cell.key) is cell:
            await self._let_go([cell.key])

    async def emptied(self) -> None:
        """Wait until no agent lives here any more, and whoever sent to one knows."""
        while self.inbox.cells:
            await asyncio.sleep(0.005)
        await self.arrivals.quiet()

    async def _hand_over(self, cell: Cell) -> None:
        while cell.is_busy:
            await asyncio.sleep(0.001)
        resident: Resident = cell.resident
        parcel = None
        if not resident.is_kept:
            try:
                parcel = dumps(resident.parcel())
            except Exception as error:
                logger.warning(
                    "the agent %s has no persistence and cannot be pickled (%r); it begins afresh "
                    "on its next worker",
                    cell.key,
                    error,
                )
        entry = pack_turn({"a": cell.key, "i": cell.token, "m": parcel})
        await self.running.commit_and_wait(Pending(cell, entry))
        if self.inbox.cells.get(cell.key) is cell:  # it may have come back already
            self.running.end(cell.key)

    # --- what handles ask for ------------------------------------------------------------------

    async def _control(self, cell: Cell, letter: Letter) -> None:
        """Do what a handle asks of the host, in the agent's turn."""
        resident: Resident = cell.resident
        method = letter.method
        try:
            if method == "state":
                self._reply(cell, letter, resident.snapshot())
            elif method == "status":
                self._reply(cell, letter, {"waiting": cell.waiting, "incarnation": cell.token})
            elif method == "checkpoint":
                self._reply(cell, letter, cell.token)
            elif method == "stop":
                await self._stop(cell, letter)
            else:
                raise AgentNotFoundError(f"agents know no {method!r}")
        except Exception as error:
            self.inbox.answer(cell, letter, RAISED, error_bytes(error))

    def _reply(self, cell: Cell, letter: Letter, value: Any) -> None:
        if cell.uncommitted:
            self.running.commit(Pending(cell, None, letter, (DONE, dumps(value))))
        else:
            self.inbox.answer(cell, letter, DONE, dumps(value))

    async def _stop(self, cell: Cell, letter: Letter) -> None:
        resident: Resident = cell.resident
        context = TurnContext(cell.key, self.running.runtime, resident.sent, None)
        hook = getattr(resident.object, "on_stop", None)
        if hook is not None:
            result = context.call(hook)
            if asyncio.iscoroutine(result):

                async def wait() -> None:
                    await result

                await context.call_async(wait)
        entry = pack_turn({"a": cell.key, "i": cell.token, "e": 1})

        def then() -> None:
            if self.inbox.cells.get(cell.key) is cell:
                self.running.end(cell.key)

        self.running.commit(Pending(cell, entry, letter, (DONE, dumps(True)), context, then=then))

    async def _retake(self, keys: Sequence[str]) -> None:
        for key in keys:
            cell = self.inbox.cells.get(key)
            if cell is not None:
                # What it sent last may reach the ledger yet: it must not begin from before that.
                self._outdated[key] = cell.token
                self.running.end(key)
        while True:
            try:
                await self._caller.write("agents.retake", keys=list(keys))
                return
            except SessionExpiredError:
                return  # with the next session all is placed anew
            except DspexError:
                await asyncio.sleep(_AGAIN_AFTER)

    # --- for people ------------------------------------------------------------------------------

    async def _report(self) -> None:
        told: dict[str, int] = {}
        while True:
            await asyncio.sleep(REPORT_EVERY)
            loads_now = dict(self.inbox.loads())
            if loads_now != told:
                with suppress(DspexError):
                    await self._caller.read("agents.report", loads=loads_now)
                    told = loads_now

    def status(self) -> dict[str, Any]:
        """Numbers for people."""
        return {
            "address": self.address,
            "agents": len(self.inbox.cells),
            "waiting": sum(count for _, count in self.inbox.loads()),
            "turns": self.running.turns,
        }
