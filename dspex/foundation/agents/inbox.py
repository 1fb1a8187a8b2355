"""What a host has been sent: mailboxes, who may run, which messages were there before.

Knows: cells (an agent each), letters (a message each, and the link that brought it). Must not
know: instances, loops, threads, what a turn does.

One message of an agent at a time is under way; those behind it wait in the order in which they
came, which is the order in which each sender sent them. A message that is refused (the agent is not
here, its mailbox is full) makes all later ones of its link to the same agent be refused too, until
the sender has heard of it and goes on with the refused one: so none overtakes. The same holds
behind one whose turn will not count: its sender may not hear of that, and send it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

from dspex.errors import DeadlineError, DspexError, InvalidRequestError, MailboxFullError
from dspex.foundation.agents.cells import LEAVING, LOADING, READY, Cell, Letter, Verdict
from dspex.foundation.agents.dedup import BY_KEY, LOST, NEW, Answered, Dedup, Fields
from dspex.foundation.agents.messages import (
    AT_MOST_ONCE,
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
    MessageLike,
    fingerprint_of,
)
from dspex.foundation.ledger.wire import error_payload

__all__ = ["Inbox"]

AT_ONCE = 64
"""Messages of one agent that run in a row before others get their turn."""


@final
class Inbox:
    """The cells of a host.

    Parameters
    ----------
    answer : callable of (letter, status, payload)
        Where answers go.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> link = SimpleNamespace(stuck={})
    >>> inbox = Inbox(lambda letter, status, payload: print(status))
    >>> cell = inbox.add(":a", (1, 1), limit=1)
    >>> letter = Letter(1, ":a", 0, "", 0, 0, None, "add", b"", link, None)
    >>> inbox.accept(letter) is cell
    True
    >>> inbox.accept(letter._replace(mid=2))
    4
    """

    def __init__(self, answer: Callable[[Letter, int, Any], None]) -> None:
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

    def accept(self, letter: Letter) -> Cell | None:
        """Take a message; gives its cell where it may be run."""
        key, flags, stuck = letter.key, letter.flags, letter.link.stuck
        if stuck and key in stuck:
            if not flags & RESUMED:
                self._answer(letter, stuck[key], None)
                return None
            del stuck[key]
        cell = self.cells.get(key)
        if cell is None or cell.phase == LEAVING:
            self._send_away(letter)
            return None
        is_once = flags & DELIVERY == EXACTLY_ONCE
        if is_once and cell.phase == READY and self._is_known(cell, letter):
            return None
        mailbox = cell.mailbox
        if mailbox is not None and len(mailbox) >= cell.limit:
            self._overflow(cell, letter)
            return None
        if is_once and cell.phase == READY:
            self._join(cell, letter)
        if mailbox is None:
            cell.mailbox = [letter]
        else:
            mailbox.append(letter)
        return cell

    def _overflow(self, cell: Cell, letter: Letter) -> None:
        if cell.refuses:
            self._answer(letter, REFUSED, error_payload(_full(cell)))
        else:
            letter.link.stuck[cell.key] = FULL
            self._answer(letter, FULL, None)

    def _is_known(self, cell: Cell, letter: Letter) -> bool:
        """Answer a message that was there before, or have it answered with the one under way."""
        if cell.joined is not None:
            of_one = (letter.sender, letter.number)
            others = cell.joined.get(of_one)
            if others is not None:
                cell.joined[of_one] = [*_listed(others), letter]
                return True
            if self._was_refused(cell, letter):
                # Not now: what its sender sent after it is under way.
                self._answer(letter, REFUSED, error_payload(_too_late(letter)))
                return True
        if cell.dedup is None:
            return False
        found = cell.dedup.look_up(letter.sender, letter.number)
        if found is NEW:
            return False
        if found is LOST and not letter.flags & CAST:
            if letter.left is None:
                return False
            # It may be that it was too late already, and did not run before those behind it.
            self._answer(letter, REFUSED, error_payload(_too_late(letter)))
        elif found.payload is not None and found.fingerprint != fingerprint_of(letter):
            self._answer(letter, REFUSED, error_payload(_another(letter)))
        else:
            self._answer(letter, *_stored(found))
        return True

    @staticmethod
    def _was_refused(cell: Cell, letter: Letter) -> bool:
        """Whether it came before one that is under way, and it was too late for it then."""
        if letter.left is None or letter.flags & CAST or cell.accepted is None:
            return False
        return letter.number < cell.accepted.get(letter.sender, 0)

    @staticmethod
    def _join(cell: Cell, letter: Letter) -> None:
        if cell.joined is None:
            cell.joined = {}
        if cell.accepted is None:
            cell.accepted = {}
        sender, number = letter.sender, letter.number
        if number > cell.accepted.get(sender, 0):
            cell.accepted[sender] = number
        cell.joined[sender, number] = letter

    def ready(self, cell: Cell, dedup: Dedup | None) -> None:
        """Let an agent run that was made; what came meanwhile is looked up first."""
        cell.phase = READY
        cell.dedup = dedup
        mailbox, cell.mailbox = cell.mailbox, None
        for letter in mailbox or ():
            if letter.flags & DELIVERY == EXACTLY_ONCE:
                if self._is_known(cell, letter):
                    continue
                self._join(cell, letter)
            if cell.mailbox is None:
                cell.mailbox = []
            cell.mailbox.append(letter)

    def take(
        self, cell: Cell, now: float, runs_alone: Callable[[Cell, Letter], bool]
    ) -> list[Letter]:
        """Messages to run in a row; none where it is busy, or not to run now.

        Parameters
        ----------
        cell : Cell
        now : float
        runs_alone : callable of (cell, letter)
            Whether it is given alone; the same for all of a method, but for `CONTROL`.
        """
        mailbox = cell.mailbox
        if not mailbox or cell.is_busy or cell.phase != READY:
            return []
        if len(mailbox) == 1 and mailbox[0].deadline is None:  # of most there is nothing to decide
            cell.mailbox = None
            cell.is_busy = True
            cell.taken = 1
            return mailbox
        taken: list[Letter] = []
        method, is_control, is_alone = "", -1, False
        looked_at = 0
        for letter in mailbox:
            if letter.deadline is not None and letter.deadline < now:
                looked_at += 1
                self.refuse_late(cell, letter)
                continue
            if letter.method != method or letter.flags & CONTROL != is_control:
                method, is_control = letter.method, letter.flags & CONTROL
                is_alone = runs_alone(cell, letter)
            if is_alone and taken:
                break
            looked_at += 1
            taken.append(letter)
            if is_alone or len(taken) == AT_ONCE:
                break
        if looked_at == len(mailbox):
            cell.mailbox = None
        else:
            del mailbox[:looked_at]
        cell.is_busy = bool(taken)
        cell.taken = len(taken)
        return taken

    def withdraw(self, cell: Cell, is_it: Callable[[Letter], bool]) -> bool:
        """Drop a message, if it has not begun and nobody else has sent it, too."""
        kept: list[Letter] = []
        is_found = False
        for letter in cell.mailbox or ():
            copies = self._copies(cell, letter)
            mine = [copy for copy in copies if is_it(copy)]
            others = [copy for copy in copies if not is_it(copy)]
            for copy in mine:
                # Nobody waits for it, but its sender asks for answers as long as one is missing.
                self._answer(copy, DONE, None)
                is_found = True
            if others or not mine:
                kept.append(letter)
                self._put_copies(cell, letter, others)
        cell.mailbox = kept or None
        return is_found

    @staticmethod
    def _put_copies(cell: Cell, letter: Letter, copies: list[Letter]) -> None:
        if letter.flags & DELIVERY == EXACTLY_ONCE and cell.phase != LOADING and copies:
            if cell.joined is None:
                cell.joined = {}
            cell.joined[letter.sender, letter.number] = copies

    def refuse_late(self, cell: Cell, letter: Letter) -> None:
        """Answer a message whose deadline came before its turn; it had no effect."""
        self.answer(cell, letter, REFUSED, error_payload(_too_late(letter)))

    def answer(self, cell: Cell, letter: Letter, status: int, payload: Any) -> None:
        """Answer a message, and all its repetitions; its effect is committed."""
        if letter.flags & DELIVERY != EXACTLY_ONCE:
            self._answer(letter, status, payload)
            return
        for copy in self._copies(cell, letter):
            self._answer(copy, status, payload)

    def undone(self, cell: Cell, letter: Letter, payload: Any) -> None:
        """Answer a message, and all its repetitions, that its turn will not count.

        It comes again where its sender does not hear of that; so those behind it wait until then.
        """
        for copy in self._copies(cell, letter):
            if copy.flags & DELIVERY != AT_MOST_ONCE:
                copy.link.stuck[copy.key] = ELSEWHERE
            self._answer(copy, REFUSED, payload)

    @staticmethod
    def _copies(cell: Cell, letter: Letter) -> Sequence[Letter]:
        """All that is to be heard of with a message; none where all were sent elsewhere before."""
        if letter.flags & DELIVERY != EXACTLY_ONCE or cell.phase == LOADING:
            return (letter,)
        joined = cell.joined
        if joined is None:
            return ()
        found = joined.pop((letter.sender, letter.number), None)
        if not joined:
            cell.joined = cell.accepted = None
        return () if found is None else _listed(found)

    def record(self, cell: Cell, message: MessageLike, answered: Fields) -> None:
        """Keep for repetitions what was committed."""
        if cell.dedup is None:
            cell.dedup = Dedup()
        cell.dedup.acknowledge(message.sender, message.below)
        cell.dedup.record(message.sender, message.number, answered)

    def leave(self, cell: Cell) -> None:
        """Let no more messages of an agent run: those that wait are sent elsewhere."""
        mailbox, cell.mailbox = cell.mailbox, None
        for letter in mailbox or ():
            for copy in self._copies(cell, letter):
                self._send_away(copy)
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
            for letter in _listed(found):
                self._send_away(letter)

    def _send_away(self, letter: Letter) -> None:
        letter.link.stuck[letter.key] = ELSEWHERE
        self._answer(letter, ELSEWHERE, None)

    def loads(self) -> Iterator[tuple[str, int]]:
        """(key, messages that wait) of agents before which there are some."""
        return (
            (key, cell.waiting)
            for key, cell in self.cells.items()
            if cell.mailbox is not None or cell.taken > 1
        )


def _listed(found: Any) -> Sequence[Letter]:
    """Letters of one message: one is kept as it is, as it mostly is the only one."""
    return found if isinstance(found, list) else (found,)


def _stored(found: Answered) -> Verdict:
    return (DONE if found.is_ok else RAISED), found.payload


def _full(cell: Cell) -> DspexError:
    return MailboxFullError(
        f"a mailbox holds so many messages; that of {cell.key.partition(':')[2]!r} holds "
        f'{cell.limit:,}, and its agent was created with overflow="refuse"; call again later'
    )


def _another(message: Letter) -> DspexError:
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


def _too_late(message: Letter) -> DspexError:
    return DeadlineError(
        f"a call begins before its deadline; {message.method} of {message.key} waited in the "
        "mailbox for longer; it had no effect; allow more time, or let fewer calls wait"
    )
