"""What a host has been sent: mailboxes, who may run, which messages were there before.

Knows: cells (an agent each), messages, tickets (where an answer goes). Must not know: instances,
loops, threads, what a turn does.

One message of an agent at a time is under way; those behind it wait in the order in which they
came, which is the order in which each sender sent them. A message that is refused (the agent is not
here, its mailbox is full) makes all later ones of its link to the same agent be refused too, until
the sender has heard of it and goes on with the refused one: so none overtakes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, final

from dspex.errors import DeadlineError, DspexError, InvalidRequestError, MailboxFullError
from dspex.foundation.agents.dedup import BY_KEY, LOST, NEW, Answered, Dedup, Fields
from dspex.foundation.agents.messages import (
    CAST,
    CONTROL,
    DELIVERY,
    DONE,
    ELSEWHERE,
    EXACTLY_ONCE,
    FULL,
    RAISED,
    REFUSED,
    RESUMED,
    Message,
    fingerprint_of,
)
from dspex.foundation.ledger.wire import error_payload

__all__ = ["LEAVING", "LOADING", "READY", "Cell", "Inbox", "Letter", "Ticket", "Verdict"]

LOADING, READY, LEAVING = 0, 1, 2

AT_ONCE = 64
"""Messages of one agent that run in a row before others get their turn."""

Verdict = tuple[int, Any]
"""(status, payload)"""


class Ticket(Protocol):
    """Where an answer goes.

    Attributes
    ----------
    stuck : dict of key to status
        Of the link that brought the message: agents whose messages are refused until one is
        resumed.
    """

    stuck: dict[str, int]


class Letter(NamedTuple):
    """A message that was accepted.

    Attributes
    ----------
    deadline : float or None
        Instant of the host's clock.
    """

    message: Message
    ticket: Any
    deadline: float | None


_letter: Callable[[tuple[Message, Any, float | None]], Letter] = partial(tuple.__new__, Letter)
"""What `Letter._make` does, without a call in between."""


@final
class Cell:
    """One agent at a host.

    Attributes
    ----------
    key : str
    token : tuple of (term, n)
        Its incarnation.
    limit : int
        Messages that may wait.
    refuses : bool
        Whether one more is refused for good.
    phase : int
        `LOADING` until it is made, `LEAVING` once it is to go elsewhere.
    is_busy : bool
    is_durable : bool
        Whether its turns wait for the journal.
    taken : int
        Messages that were taken to run in a row, and have not run yet.
    uncommitted : int
        Turns whose commit is under way.
    joined : dict or None
        {(sender, number): the ticket, or a list of tickets} of messages exactly once that wait,
        run, or are to be committed.
    accepted : dict or None
        {sender: the largest number} of those.
    resident : Any
        What the host has made of it.
    """

    __slots__ = (
        "accepted",
        "dedup",
        "is_busy",
        "is_durable",
        "joined",
        "key",
        "limit",
        "mailbox",
        "phase",
        "refuses",
        "resident",
        "taken",
        "token",
        "uncommitted",
    )

    def __init__(self, key: str, token: tuple[int, int], limit: int) -> None:
        self.key = key
        self.token = token
        self.limit = limit
        self.phase = LOADING
        self.refuses = False
        self.is_busy = False
        self.is_durable = False
        self.taken = 0
        self.uncommitted = 0
        self.mailbox: deque[Letter] | None = None
        self.dedup: Dedup | None = None
        self.joined: dict[tuple[str, int], Any] | None = None
        self.accepted: dict[str, int] | None = None
        self.resident: Any = None

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return len(self.mailbox or ()) + max(0, self.taken - 1)


@final
class Inbox:
    """The cells of a host.

    Parameters
    ----------
    answer : callable of (ticket, status, payload)
        Where answers go.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ticket = SimpleNamespace(stuck={})
    >>> inbox = Inbox(lambda ticket, status, payload: print(status))
    >>> cell = inbox.add(":a", (1, 1), limit=1)
    >>> message = Message(1, ":a", 0, "", 0, 0, None, "add", b"")
    >>> inbox.accept(message, ticket, now=0.0) is cell
    True
    >>> inbox.accept(message._replace(mid=2), ticket, now=0.0)
    4
    """

    def __init__(self, answer: Callable[[Any, int, Any], None]) -> None:
        self._answer = answer
        self.cells: dict[str, Cell] = {}

    def add(self, key: str, token: tuple[int, int], limit: int) -> Cell:
        """Begin with an agent that is being made; one of an older incarnation is gone."""
        former = self.cells.get(key)
        cell = Cell(key, token, limit)
        if former is not None:
            # What it was sent came to an incarnation that is no more, and is sent again.
            self._dismiss(former)
        self.cells[key] = cell
        return cell

    def accept(self, message: Message, ticket: Ticket, now: float) -> Cell | None:
        """Take a message; gives its cell where it may be run."""
        key, flags, stuck = message.key, message.flags, ticket.stuck
        if stuck and key in stuck:
            if not flags & RESUMED:
                self._answer(ticket, stuck[key], None)
                return None
            del stuck[key]
        cell = self.cells.get(key)
        if cell is None or cell.phase == LEAVING:
            stuck[key] = ELSEWHERE
            self._answer(ticket, ELSEWHERE, None)
            return None
        is_once = flags & DELIVERY == EXACTLY_ONCE
        if is_once and cell.phase == READY and self._is_known(cell, message, ticket):
            return None
        mailbox = cell.mailbox
        if mailbox is None:
            mailbox = cell.mailbox = deque()
        elif len(mailbox) >= cell.limit:
            self._overflow(cell, ticket)
            return None
        if is_once and cell.phase == READY:
            self._join(cell, message, ticket)
        deadline = None if message.left is None else now + message.left
        mailbox.append(_letter((message, ticket, deadline)))
        return cell

    def _overflow(self, cell: Cell, ticket: Ticket) -> None:
        if cell.refuses:
            self._answer(ticket, REFUSED, error_payload(_full(cell)))
        else:
            ticket.stuck[cell.key] = FULL
            self._answer(ticket, FULL, None)

    def _is_known(self, cell: Cell, message: Message, ticket: Ticket) -> bool:
        """Answer a message that was there before, or have it answered with the one under way."""
        if cell.joined is not None:
            of_one = (message.sender, message.number)
            others = cell.joined.get(of_one)
            if others is not None:
                cell.joined[of_one] = [*_listed(others), ticket]
                return True
            if self._was_refused(cell, message):
                # Not now: what its sender sent after it is under way.
                self._answer(ticket, REFUSED, error_payload(_too_late(message)))
                return True
        if cell.dedup is None:
            return False
        found = cell.dedup.look_up(message.sender, message.number)
        if found is NEW:
            return False
        if found is LOST and not message.flags & CAST:
            if message.left is None:
                return False
            # It may be that it was too late already, and did not run before those behind it.
            self._answer(ticket, REFUSED, error_payload(_too_late(message)))
        elif found.payload is not None and found.fingerprint != fingerprint_of(message):
            self._answer(ticket, REFUSED, error_payload(_another(message)))
        else:
            self._answer(ticket, *_stored(found))
        return True

    @staticmethod
    def _was_refused(cell: Cell, message: Message) -> bool:
        """Whether it came before one that is under way, and it was too late for it then."""
        if message.left is None or message.flags & CAST or cell.accepted is None:
            return False
        return message.number < cell.accepted.get(message.sender, 0)

    @staticmethod
    def _join(cell: Cell, message: Message, ticket: Ticket) -> None:
        if cell.joined is None:
            cell.joined = {}
        if cell.accepted is None:
            cell.accepted = {}
        cell.accepted[message.sender] = max(message.number, cell.accepted.get(message.sender, 0))
        cell.joined[message.sender, message.number] = ticket

    def ready(self, cell: Cell, dedup: Dedup | None) -> None:
        """Let an agent run that was made; what came meanwhile is looked up first."""
        cell.phase = READY
        cell.dedup = dedup
        mailbox, cell.mailbox = cell.mailbox, None
        for letter in mailbox or ():
            message = letter.message
            if message.flags & DELIVERY == EXACTLY_ONCE:
                if self._is_known(cell, message, letter.ticket):
                    continue
                self._join(cell, message, letter.ticket)
            if cell.mailbox is None:
                cell.mailbox = deque()
            cell.mailbox.append(letter)

    def take(self, cell: Cell, now: float, runs_alone: Callable[[Message], bool]) -> list[Letter]:
        """Messages to run in a row; none where it is busy, or not to run now.

        Parameters
        ----------
        cell : Cell
        now : float
        runs_alone : callable of message
            Whether it is given alone; the same for all of a method, but for `CONTROL`.
        """
        mailbox = cell.mailbox
        if not mailbox or cell.is_busy or cell.phase != READY:
            return []
        taken: list[Letter] = []
        method, is_control, is_alone = "", -1, False
        while mailbox and len(taken) < AT_ONCE:
            letter = mailbox.popleft()
            if letter.deadline is not None and letter.deadline < now:
                self.refuse_late(cell, letter)
                continue
            message = letter.message
            if message.method != method or message.flags & CONTROL != is_control:
                method, is_control = message.method, message.flags & CONTROL
                is_alone = runs_alone(message)
            if is_alone:
                if taken:
                    mailbox.appendleft(letter)
                else:
                    taken.append(letter)
                break
            taken.append(letter)
        if not mailbox:
            cell.mailbox = None
        cell.is_busy = bool(taken)
        cell.taken = len(taken)
        return taken

    def withdraw(self, cell: Cell, is_it: Callable[[Any], bool]) -> bool:
        """Drop the message of a ticket, if it has not begun and nobody else has sent it, too."""
        kept: deque[Letter] = deque()
        is_found = False
        for letter in cell.mailbox or ():
            tickets = self._tickets(cell, letter)
            mine = [ticket for ticket in tickets if is_it(ticket)]
            others = [ticket for ticket in tickets if not is_it(ticket)]
            for ticket in mine:
                # Nobody waits for it, but its sender asks for answers as long as one is missing.
                self._answer(ticket, DONE, None)
                is_found = True
            if others or not mine:
                kept.append(letter)
                self._put_tickets(cell, letter, others)
        cell.mailbox = kept or None
        return is_found

    @staticmethod
    def _put_tickets(cell: Cell, letter: Letter, tickets: list[Any]) -> None:
        message = letter.message
        if message.flags & DELIVERY == EXACTLY_ONCE and cell.phase != LOADING and tickets:
            if cell.joined is None:
                cell.joined = {}
            cell.joined[message.sender, message.number] = tickets

    def refuse_late(self, cell: Cell, letter: Letter) -> None:
        """Answer a message whose deadline came before its turn; it had no effect."""
        self._refuse(cell, letter, _too_late(letter.message))

    def _refuse(self, cell: Cell, letter: Letter, error: DspexError) -> None:
        self.answer(cell, letter, REFUSED, error_payload(error))

    def answer(self, cell: Cell, letter: Letter, status: int, payload: Any) -> None:
        """Answer a message, and all its repetitions; its effect is committed."""
        if letter.message.flags & DELIVERY != EXACTLY_ONCE:
            self._answer(letter.ticket, status, payload)
            return
        for ticket in self._tickets(cell, letter):
            self._answer(ticket, status, payload)

    @staticmethod
    def _tickets(cell: Cell, letter: Letter) -> Sequence[Any]:
        """Who is to hear of a message; none where all were sent elsewhere before."""
        message = letter.message
        if message.flags & DELIVERY != EXACTLY_ONCE or cell.phase == LOADING:
            return (letter.ticket,)
        joined = cell.joined
        if joined is None:
            return ()
        found = joined.pop((message.sender, message.number), None)
        if not joined:
            cell.joined = cell.accepted = None
        return () if found is None else _listed(found)

    def record(self, cell: Cell, message: Message, answered: Fields) -> None:
        """Keep for repetitions what was committed."""
        if cell.dedup is None:
            cell.dedup = Dedup()
        cell.dedup.acknowledge(message.sender, message.below)
        cell.dedup.record(message.sender, message.number, answered)

    def leave(self, cell: Cell) -> None:
        """Let no more messages of an agent run: those that wait are sent elsewhere."""
        mailbox, cell.mailbox = cell.mailbox, None
        for letter in mailbox or ():
            for ticket in self._tickets(cell, letter):
                self._send_away(cell.key, ticket)
        cell.phase = LEAVING

    def drop(self, key: str) -> Cell | None:
        """Forget an agent; who waits for its answers is sent elsewhere."""
        cell = self.cells.pop(key, None)
        if cell is not None:
            self._dismiss(cell)
        return cell

    def _dismiss(self, cell: Cell) -> None:
        self.leave(cell)
        joined, cell.joined, cell.accepted = cell.joined, None, None
        for found in (joined or {}).values():
            for ticket in _listed(found):
                self._send_away(cell.key, ticket)

    def _send_away(self, key: str, ticket: Ticket) -> None:
        ticket.stuck[key] = ELSEWHERE
        self._answer(ticket, ELSEWHERE, None)

    def loads(self) -> Iterator[tuple[str, int]]:
        """(key, messages that wait) of agents before which there are some."""
        return (
            (key, cell.waiting)
            for key, cell in self.cells.items()
            if cell.mailbox is not None or cell.taken > 1
        )


def _listed(found: Any) -> Sequence[Any]:
    """Tickets of one message: one is kept as it is, as it mostly is the only one."""
    return found if isinstance(found, list) else (found,)


def _stored(found: Answered) -> Verdict:
    return (DONE if found.is_ok else RAISED), found.payload


def _full(cell: Cell) -> DspexError:
    return MailboxFullError(
        f"a mailbox holds so many messages; that of {cell.key.partition(':')[2]!r} holds "
        f'{cell.limit:,}, and its agent was created with overflow="refuse"; call again later'
    )


def _another(message: Message) -> DspexError:
    if message.sender.startswith(BY_KEY):
        return InvalidRequestError(
            f"calls of one idempotency_key are the same call; {message.sender[len(BY_KEY) :]!r} "
            "came before with other arguments; use another key"
        )
    return InvalidRequestError(
        f"a message that comes again says the same; {message.method} came as number "
        f"{message.number} of {message.sender}, which was another call before; a turn that was cut "
        "off and is run again must call the same methods with the same arguments"
    )


def _too_late(message: Message) -> DspexError:
    return DeadlineError(
        f"a call begins before its deadline; {message.method} of {message.key} waited in the "
        "mailbox for longer; it had no effect; allow more time, or let fewer calls wait"
    )
