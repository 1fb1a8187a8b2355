"""Hosts of agents as flights find them, without loops: a model of `Arrivals` before a real inbox.

Knows: the rules by which flights are read, which turns count. Must not know: what becomes of a
flight on its way.

Flights of one generation are read by their places. An older generation, a place that was read, a
link that another host has answered: they are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from dspex.foundation.agents.cells import Cell, Letter, letter_of
from dspex.foundation.agents.dedup import Answered
from dspex.foundation.agents.inbox import Inbox
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    CANCEL,
    CAST,
    DELIVERY,
    DONE,
    ELSEWHERE,
    EXACTLY_ONCE,
    REFUSED,
    fields_of,
    fingerprint_of,
)
from dspex.foundation.agents.outbound import Posted

__all__ = ["LEFT_OUT", "Agent", "Exchange", "Host", "Link"]

LEFT_OUT = b""
"""The answer of a host that has nothing to say to this link any more."""


@final
class Link:
    """One generation of the way to a host, as the host sees it."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.next_place = 0
        self.stuck: dict[str, int] = {}
        self.answers: list[tuple[int, int, Any]] = []
        self.outstanding: list[int] = []  # mids


@final
@dataclass(eq=False)
class Exchange:
    """A flight, or a question for answers, from when it leaves until the sender hears of it."""

    posted: Posted | None
    address: str
    generation: int
    place: int | None
    is_answered: bool
    answer: Any = None
    is_over: bool = False
    was_there: bool = False
    waits_at: Link | None = None


@final
@dataclass(eq=False)
class Agent:
    """What is committed of an agent, and where it is."""

    key: str
    host: str
    token: int = 1
    rows: Any = ()
    effects: list[Letter] = field(default_factory=list)


@final
class Host:
    """An inbox, and the rules by which flights arrive at it."""

    def __init__(self) -> None:
        self.inbox = Inbox(self.answer)
        self.link: Link | None = None
        self.parked: dict[int, list[Exchange]] = {}
        self.open: list[Exchange] = []  # that will be answered
        self.rows: dict[str, tuple[Cell, list[Letter]]] = {}  # that run now

    def answer(self, letter: Letter, status: int, payload: Any) -> None:
        assert letter.mid in letter.link.outstanding, "a letter is answered once"
        letter.link.outstanding.remove(letter.mid)
        letter.link.answers.append((letter.mid, status, payload))

    def arrive(self, exchange: Exchange) -> None:
        link = self.link
        if link is None or link.generation < exchange.generation:
            if exchange.is_answered:
                self.leave_out(exchange)
                return
            link = self.link = Link(exchange.generation)
            for waiting in self.parked.values():
                for each in waiting:
                    self.leave_out(each)
            self.parked = {}
        if link.generation != exchange.generation:
            self.leave_out(exchange)
        elif exchange.place is None:
            self.reply_later(exchange, link)
        elif exchange.place > link.next_place:
            self.parked.setdefault(exchange.place, []).append(exchange)
        elif exchange.place < link.next_place:
            self.leave_out(exchange)
        else:
            self.take(exchange, link)
            for each in self.parked.pop(link.next_place, ()):
                self.arrive(each)

    def leave_out(self, exchange: Exchange) -> None:
        exchange.answer = LEFT_OUT

    def reply_later(self, exchange: Exchange, link: Link) -> None:
        exchange.waits_at = link
        self.open.append(exchange)

    def take(self, exchange: Exchange, link: Link) -> None:
        assert exchange.posted is not None
        link.next_place += 1
        link.outstanding += [sent.mid for sent in exchange.posted.messages]
        for sent in exchange.posted.messages:
            letter = letter_of((*fields_of(sent), link, None))
            if not letter.flags & CANCEL:
                self.inbox.accept(letter)
                continue
            cell = self.inbox.cells.get(letter.key)
            number = letter.number
            if cell is not None:
                self.inbox.withdraw(cell, lambda each: each.mid == number)  # noqa: B023
            self.answer(letter, DONE, b"")
        self.reply_later(exchange, link)

    def reply(self, exchange: Exchange) -> None:
        self.open.remove(exchange)
        link = exchange.waits_at
        assert link is not None
        exchange.answer, link.answers = link.answers, []

    def forget(self) -> None:
        for key in list(self.inbox.cells):
            self.inbox.drop(key)
        self.link = None
        for waiting in self.parked.values():
            for each in waiting:
                self.leave_out(each)
        self.parked = {}

    def run(self, key: str, now: float) -> None:
        """Begin to run what waits before an agent."""
        if key not in self.rows:
            cell = self.inbox.cells[key]
            letters = self.inbox.take(cell, now, lambda cell, letter: False)
            if letters:
                self.rows[key] = cell, letters

    def finish(self, agent: Agent) -> None:
        """Commit what ran, and answer it; of one that is elsewhere by now nothing counts."""
        key = agent.key
        if key not in self.rows:
            return
        cell, letters = self.rows.pop(key)
        cell.is_busy = False
        cell.taken = 0
        if self.inbox.cells.get(key) is not cell:
            for letter in letters:
                self.disown(letter)
            return
        for letter in letters:
            if letter.method == "change":
                agent.effects.append(letter)
                if letter.flags & DELIVERY == EXACTLY_ONCE:
                    payload = None if letter.flags & CAST else b"r"
                    answered = Answered(True, payload, fingerprint_of(letter))
                    self.inbox.record(cell, letter, answered)
            self.inbox.answer(cell, letter, DONE, b"r")
        agent.rows = [] if cell.dedup is None else cell.dedup.rows()

    def undo(self, agent: Agent) -> None:
        """Have what ran not be committed, nor ever be: its senders hear of that."""
        cell, letters = self.rows.pop(agent.key)
        if self.inbox.cells.get(agent.key) is not cell:
            for letter in letters:
                self.disown(letter)
            return
        for letter in letters:
            self.inbox.undone(cell, letter, b"undone")

    def disown(self, letter: Letter) -> None:
        """Answer for a turn that was refused: who may sends it again; the others were told."""
        delivery = letter.flags & DELIVERY
        if delivery == AT_LEAST_ONCE:
            letter.link.stuck[letter.key] = ELSEWHERE
            self.answer(letter, ELSEWHERE, None)
        elif delivery == AT_MOST_ONCE:
            self.answer(letter, REFUSED, b"")
