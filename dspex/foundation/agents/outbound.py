"""What a process sends to agents: in order, to wherever each is now, until it is answered.

Knows: messages, the places of agents as they were heard of, links to hosts, flights.
Must not know: sockets, loops, what an answer says.

Most messages go straight to the link of the host where their agent was last. An agent that is not
there, or whose mailbox is full, is *held*: its messages wait here, until all that went before them
are answered, as the host may send those elsewhere, too; then it is located, and they go on in the
order in which they were sent, the first one marked, so that the host knows that none is missing.

A flight of which no answer came says nothing about its messages. Those that may take effect more
than once, or whose repetition is known again, are sent again; the others fail. The link begins
another generation, and what still arrives of the former one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, final

from dspex.foundation.agents.links import MID, Held, OutboundLink
from dspex.foundation.agents.messages import (
    AT_MOST_ONCE,
    DELIVERY,
    ELSEWHERE,
    FULL,
    RESUMED,
    Message,
    MessageLike,
    fields_of,
)

__all__ = ["MAX_FLIGHTS", "Outbound", "Posted"]

MAX_FLIGHTS = 8
"""On their way from one process to one host."""

RENEW_AFTER = 60.0
"""Seconds without a flight after which a link begins another generation: half of what it takes a
host to forget a link, and to refuse what goes on with it."""

_AGAIN = frozenset({ELSEWHERE, FULL})

AT_ONCE = 2_500
BYTES_AT_ONCE = 2**20

BACKOFF = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Seconds before an agent is looked for again; the last one goes on."""


class Posted(NamedTuple):
    """A flight that may leave."""

    address: str
    generation: int
    place: int
    is_answered: bool
    messages: Sequence[MessageLike]


M = TypeVar("M", bound=MessageLike)


@final
class Outbound(Generic[M]):
    """Messages of one process that are not answered yet.

    Attributes
    ----------
    places : dict of key to address
        Where agents were last.
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self._links: dict[str, OutboundLink[M]] = {}
        self._held: dict[str, Held[M]] = {}
        self._attempts: dict[str, int] = {}
        self._abandoned: set[int] = set()
        self._generations = 0

    # --- sending -----------------------------------------------------------------------------

    def send(self, message: M) -> str | None:
        """Take a message; gives the host whose link has something to send now."""
        key = message.key
        held = self._held.get(key)
        if held is not None:
            held.waiting.append(message)
            return None
        address = self.places.get(key)
        if address is None:
            self._hold(key, ELSEWHERE).waiting.append(message)
            return None
        link = self._links.get(address) or self._link(address)
        link.queue.append(message)
        link.put += 1
        return address

    def _link(self, address: str) -> OutboundLink[M]:
        link = self._links.get(address)
        if link is None:
            self._generations += 1
            link = self._links[address] = OutboundLink(self._generations)
        return link

    def _hold(self, key: str, status: int) -> Held[M]:
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = Held(status)
            held.attempts = self._attempts.get(key, 0)
            held.due = -1.0
        held.status = status
        if status == ELSEWHERE:
            self.places.pop(key, None)
        return held

    def post(self, address: str, now: float) -> Posted | None:
        """The next flight to a host; None where there is nothing to send, or too many fly."""
        link = self._links.get(address)
        if link is None or not link.queue or len(link.flights) >= MAX_FLIGHTS:
            return None
        messages = self._taken(link)
        if not messages:
            return None
        if now - link.used > RENEW_AFTER and not link.flights and not link.outstanding:
            self._renew(address, link)
        link.used = now
        place = link.depart(messages)
        sent = self._marked(link, messages) if link.resumed else messages
        return Posted(address, link.generation, place, link.is_answered, sent)

    @staticmethod
    def _marked(link: OutboundLink[M], messages: Iterable[M]) -> list[MessageLike]:
        """The messages of a flight, with the mark on those that come first again."""
        sent: list[MessageLike] = []
        for message in messages:
            if message.mid in link.resumed:
                link.resumed.discard(message.mid)
                copy = Message(*fields_of(message))
                sent.append(copy._replace(flags=copy.flags | RESUMED))
            else:
                sent.append(message)
        return sent

    def _taken(self, link: OutboundLink[M]) -> list[M]:
        """Messages for one flight."""
        messages: list[M] = []
        size = 0
        queue, all_held, abandoned = link.queue, self._held, self._abandoned
        while queue and len(messages) < AT_ONCE and size < BYTES_AT_ONCE:
            message = queue.popleft()
            link.taken += 1
            if abandoned and self._is_abandoned(message):
                link.resumed.discard(message.mid)
                continue
            if all_held and (held := all_held.get(message.key)) is not None:
                link.resumed.discard(message.mid)
                held.waiting.append(message)
                continue
            messages.append(message)
            size += len(message.args)
        return messages

    def _renew(self, address: str, link: OutboundLink[M]) -> None:
        """Begin another generation of a link on which nothing is on its way."""
        self._generations += 1
        link.generation = self._generations
        link.next_place = 0
        link.is_answered = False
        for held in self._held.values():
            if held.address == address:
                held.upto = -1

    def is_waiting(self, address: str) -> int | None:
        """The generation of a link of which answers are to be asked for; None where none is."""
        link = self._links.get(address)
        if link is None or link.flights or not link.outstanding:
            return None
        return link.generation

    # --- what came back ----------------------------------------------------------------------

    def answered(
        self,
        address: str,
        generation: int,
        place: int | None,
        answers: Iterable[Sequence[Any]],
        now: float,
    ) -> Iterator[tuple[M, int, Any]]:
        """Take the answers that a flight brought back; gives those that are final, and waited for.

        They are taken as they are asked for: go through all of them at once. A list of them would
        keep the garbage collector busy.
        """
        link = self._links.get(address)
        if link is None or link.generation != generation:
            return
        link.is_answered = True
        if place is not None:
            link.flights.pop(place, None)
        outstanding = link.outstanding
        abandoned, attempts = self._abandoned, self._attempts
        for mid, status, payload in answers:
            message = outstanding.pop(mid, None)
            if message is None:
                continue
            if link.counts is not None:
                link.uncount(message.key)
            is_again = status in _AGAIN
            if attempts and not is_again:
                attempts.pop(message.key, None)
            if abandoned and self._is_abandoned(message):
                continue
            if is_again:
                held = self._hold(message.key, status)
                if held.due < 0.0:
                    self._back_off(message.key, held, now)
                held.address = address
                held.upto = link.next_place - 1
                held.queued = link.put
                held.waiting.append(message)
            else:
                yield message, status, payload

    def _back_off(self, key: str, held: Held[M], now: float) -> None:
        held.due = now + BACKOFF[min(held.attempts, len(BACKOFF) - 1)]
        held.attempts += 1
        self._attempts[key] = held.attempts

    def is_current(self, address: str, generation: int) -> bool:
        """Whether a link is of a generation, and was not given up."""
        link = self._links.get(address)
        return link is not None and link.generation == generation

    def lost(
        self, address: str, generation: int, now: float, left: Container[int | None]
    ) -> list[M]:
        """Give a link up of which a flight was not answered; gives the messages that fail.

        Parameters
        ----------
        address : str
        generation : int
        now : float
        left : container of int
            Places of flights that may have left; of those that are on their way, all others did
            not, and never will.
        """
        link = self._links.get(address)
        if link is None or link.generation != generation:
            return []
        del self._links[address]
        failed: list[M] = []
        here = {
            message.mid
            for place, messages in link.flights.items()
            if place not in left
            for message in messages
        }
        for message in (*link.outstanding.values(), *link.queue):
            if self._is_abandoned(message):
                continue
            is_sent = message.mid in link.outstanding and message.mid not in here
            if is_sent and message.flags & DELIVERY == AT_MOST_ONCE:
                failed.append(message)
                continue
            held = self._hold(message.key, ELSEWHERE)
            if held.due < 0.0:
                self._back_off(message.key, held, now)
            held.waiting.append(message)
        for held in self._held.values():
            if held.address == address:
                held.upto = -1
                held.queued = 0
        for key in [key for key, place in self.places.items() if place == address]:
            del self.places[key]
        return failed

    # --- agents that are held ----------------------------------------------------------------

    def held(self, key: str) -> Sequence[M]:
        """Messages that wait until their agent is located."""
        held = self._held.get(key)
        return () if held is None else held.waiting

    def to_locate(self, now: float) -> list[str]:
        """Keys of agents whose place is to be asked for now; each is given once."""
        found = []
        for key, held in self._held.items():
            if held.is_asked or held.due > now or self._may_bring_more(key, held):
                continue
            held.is_asked = True
            found.append(key)
        return found

    def _may_bring_more(self, key: str, held: Held[M]) -> bool:
        link = self._links.get(held.address)
        if link is None:
            return False
        return (
            link.is_missing(key)
            or link.taken < held.queued
            or any(place <= held.upto for place in link.flights)
        )

    def next_due(self) -> float | None:
        """When an agent that is held is due, the first of them."""
        return min(
            (
                held.due
                for key, held in self._held.items()
                if not held.is_asked and not self._may_bring_more(key, held)
            ),
            default=None,
        )

    def located(self, key: str, address: str | None, now: float) -> str | None:
        """Take where an agent is; gives the host whose link has something to send now.

        Parameters
        ----------
        key : str
        address : str or None
            None: it is nowhere now, and looked for again.
        now : float
        """
        held = self._held.get(key)
        if held is None:
            return None
        held.is_asked = False
        if address is None:
            self._back_off(key, held, now)
            return None
        del self._held[key]
        self.places[key] = address
        if not held.waiting:
            return None
        held.waiting.sort(key=MID)
        link = self._link(address)
        link.resumed.add(held.waiting[0].mid)
        link.queue.extend(held.waiting)
        link.put += len(held.waiting)
        return address

    def give_up(
        self, key: str, now: float, spares: Callable[[M], bool] = lambda message: False
    ) -> list[M]:
        """Give up on an agent that cannot be reached; gives the messages that are not spared."""
        held = self._held.get(key)
        if held is None:
            self._attempts.pop(key, None)
            return []
        given_up = sorted((each for each in held.waiting if not spares(each)), key=MID)
        held.waiting = [each for each in held.waiting if spares(each)]
        if held.waiting:
            held.is_asked = False
            self._back_off(key, held, now)
        else:
            del self._held[key]
            self._attempts.pop(key, None)
        return given_up

    def withdraw(self, message: MessageLike) -> bool:
        """Send a message no more; False where it may have left already."""
        held = self._held.get(message.key)
        for waiting in () if held is None else held.waiting:
            if waiting.mid == message.mid:
                held.waiting.remove(waiting)  # type: ignore[union-attr]
                return True
        self._abandoned.add(message.mid)
        return False

    def _is_abandoned(self, message: MessageLike) -> bool:
        if message.mid not in self._abandoned:
            return False
        self._abandoned.discard(message.mid)
        return True

    def everything(self) -> Iterator[M]:
        """All messages that are not answered."""
        for link in self._links.values():
            yield from link.outstanding.values()
            yield from link.queue
        for held in self._held.values():
            yield from held.waiting

    def addresses(self) -> list[str]:
        """Hosts to which there are links."""
        return list(self._links)
