"""A network and a disk for processes in virtual time, and what may befall them.

Knows: processes, addresses, bytes. Must not know: what the bytes say.

A request may be late, lost, or arrive twice, and so may its answer, of which the first one counts.
Of what is lost its sender hears by an OSError, soon or late, or not at all; a request may have
arrived although its sender heard one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias, final

from dspex.errors import JournalError, JournalFencedError
from dspex.foundation.ports import Loaded
from dspex.testing.virtual_time import Process, VirtualLoop

__all__ = ["Disk", "DiskJournal", "Network"]

Handle = Callable[[bytes], Awaitable[bytes]]
_Answered: TypeAlias = "asyncio.Future[bytes]"


@final
class Network:
    """Carries requests and answers.

    Parameters
    ----------
    loop : VirtualLoop
    dice : random.Random
    loss, double : float
        Probabilities of a message.

    Attributes
    ----------
    is_calm : bool
        Whether all that is sent arrives, in time, once.
    sent, lost : int
    """

    def __init__(
        self, loop: VirtualLoop, dice: random.Random, *, loss: float, double: float
    ) -> None:
        self._loop = loop
        self._dice = dice
        self._loss = loss
        self._double = double
        self._parties: dict[str, tuple[Process, Handle]] = {}
        self._cuts: dict[frozenset[str], float] = {}
        self._open: dict[str, dict[_Answered, None]] = {}
        self.is_calm = False
        self.sent = self.lost = 0

    def listen(self, address: str, process: Process, handle: Handle) -> None:
        """Let a process be reached."""
        self._parties[address] = (process, handle)

    def is_there(self, address: str) -> bool:
        """Whether a process lives at an address."""
        found = self._parties.get(address)
        return found is not None and not found[0].is_dead

    def cut(self, one: str, other: str, seconds: float) -> None:
        """Let nothing through between two."""
        pair = frozenset((one, other))
        self._cuts[pair] = max(self._cuts.get(pair, 0.0), self._loop.time() + seconds)

    def heal(self) -> None:
        """Let everything through from now on."""
        self.is_calm = True
        self._cuts.clear()

    def _is_cut(self, one: str, other: str) -> bool:
        return self._cuts.get(frozenset((one, other)), 0.0) > self._loop.time()

    def _is_lost(self, one: str, other: str) -> bool:
        lost = self._is_cut(one, other) or (not self.is_calm and self._dice.random() < self._loss)
        self.lost += lost
        return lost

    def _delay(self) -> float:
        if self.is_calm:
            return 0.001
        late = self._dice.expovariate(1.0) if self._dice.random() < 0.08 else 0.0
        return self._dice.uniform(0.0005, 0.02) + late

    async def send(self, sender: str, address: str, blob: bytes, *, may_double: bool) -> bytes:
        """Send a request, and give the answer.

        Raises
        ------
        OSError
            Where nobody knows whether it arrived.
        """
        self.sent += 1
        answered: _Answered = self._loop.create_future()
        is_double = may_double and not self.is_calm and self._dice.random() < self._double
        for _ in range(1 + is_double):
            if self._is_lost(sender, address):
                self._fail(answered, "lost on its way")
            else:
                self._later(self._delay(), self._arrive, sender, address, blob, answered)
        return bytes(await answered)

    async def connect(self, sender: str, address: str) -> bool:
        """Try to connect; tells, sooner or later, whether that succeeded."""
        await asyncio.sleep(self._delay())
        return self.is_there(address) and not self._is_lost(sender, address)

    def _later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        """Call a function that belongs to no process."""
        self._loop.call_later(seconds, function, *args, context=self._loop.nobody.copy())

    def _fail(self, answered: _Answered, why: str) -> None:
        """Have the sender hear of it, sometime, or never."""
        fate = self._dice.random()
        if self.is_calm or fate < 0.6:
            seconds = self._dice.uniform(0.001, 0.1)
        elif fate < 0.95:
            seconds = self._dice.expovariate(0.5)
        else:
            return
        self._later(seconds, _refuse, answered, why)

    def _arrive(self, sender: str, address: str, blob: bytes, answered: _Answered) -> None:
        if not self.is_there(address):
            self._fail(answered, f"nobody is at {address}")
            return
        process, handle = self._parties[address]

        async def respond() -> None:
            try:
                answer = await handle(blob)
            except Exception as error:
                self._later(self._delay(), _refuse, answered, f"it raised {error!r}")
                raise
            if self._is_lost(address, sender):
                self._fail(answered, "the answer was lost")
            else:
                self._later(self._delay(), _answer, answered, answer)

        self._open.setdefault(address, {})[answered] = None
        answered.add_done_callback(lambda _: self._open[address].pop(answered, None))
        process.spawn(respond())

    def died(self, address: str) -> None:
        """Break the connections to a process that is no more."""
        for answered in list(self._open.get(address, ())):
            self._fail(answered, f"{address} died")


def _answer(answered: _Answered, answer: bytes) -> None:
    if not answered.done():
        answered.set_result(answer)


def _refuse(answered: _Answered, why: str) -> None:
    if not answered.done():
        answered.set_exception(ConnectionError(why))


@final
class Disk:
    """What a scheduler's journal leaves behind.

    Attributes
    ----------
    is_broken : bool
        Whether nothing can be written now.
    """

    def __init__(self) -> None:
        self.term = 0
        self.is_broken = False
        self.entries: dict[int, bytes] = {}
        self.snapshot: tuple[int, list[bytes]] = (0, [])
        self.snapshots = 0
        self.blobs: dict[str, bytes] = {}


@final
class DiskJournal:
    """The journal of one scheduler on a disk; one that is opened after it fences it off.

    Examples
    --------
    >>> disk = Disk()
    >>> first, second = DiskJournal(disk), DiskJournal(disk)
    >>> first.open(), second.open()
    (1, 2)
    >>> first.owns(), second.owns()
    (False, True)
    """

    url = "disk, simulated"
    durable = True
    copies = 1
    identity = "simulated"

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._term = 0

    def open(self) -> int:
        """Begin the next term."""
        self._disk.term += 1
        self._term = self._disk.term
        return self._term

    def load(self) -> Loaded:
        """Give everything back."""
        upto, chunks = self._disk.snapshot
        return Loaded(upto, iter(chunks), iter(sorted(self._disk.entries.items())))

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Keep entries."""
        if not self.owns():
            raise JournalFencedError(f"term {self._disk.term} has begun")
        if self._disk.is_broken:
            raise JournalError("the disk is full")
        self._disk.entries.update(enumerate(entries, first))

    def compact(self, upto: int, snapshot: Iterable[bytes]) -> None:
        """Keep a snapshot in place of entries."""
        chunks = list(snapshot)
        if not self.owns():
            raise JournalFencedError(f"term {self._disk.term} has begun")
        self._disk.snapshot = (upto, chunks)
        self._disk.snapshots += 1
        for number in [each for each in self._disk.entries if each <= upto]:
            del self._disk.entries[number]

    def owns(self) -> bool:
        """Whether nobody has opened it since."""
        return self._term == self._disk.term

    def put_blob(self, digest: str, data: bytes) -> None:
        """Keep a large value."""
        self._disk.blobs[digest] = data

    def get_blob(self, digest: str) -> bytes:
        """Read a large value."""
        return self._disk.blobs[digest]

    def keep_blobs(self, digests: Collection[str]) -> int:
        """Drop all but these."""
        dropped = self._disk.blobs.keys() - set(digests)
        for digest in dropped:
            del self._disk.blobs[digest]
        return len(dropped)

    def close(self) -> None:
        """Let go."""
