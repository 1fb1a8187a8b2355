"""What becomes of agents whose host is gone: at once, later, on request, or never.

Knows: policies, fences, all agents. Must not know: where one is placed.

A host whose process has ended for certain, or whose session ran out, believes in nothing any more.
Of one whose connection merely closed nobody knows: until its lease has run out by any clock its
agents are fenced, so that no two incarnations answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

from dspex.errors import InvalidRequestError
from dspex.foundation.ledger.agents.population import Population
from dspex.foundation.ledger.agents.reading import Reading
from dspex.foundation.ledger.agents.record import NOWHERE, OUTCOMES
from dspex.foundation.ledger.events import Emit, Token

__all__ = ["Losses", "Place"]


class Place(Protocol):
    """Gives agents places."""

    def __call__(self, keys: Sequence[str], token: Callable[[], Token], emit: Emit) -> None:
        """Give them places; those for which there is none wait."""


@final
class Losses:
    """Decides about agents whose host is gone.

    Parameters
    ----------
    known : Population
    reading : Reading
    place : Place
    never_made : callable of (keys, words, emit)
        Tells those who wait for agents that they will not be made.
    """

    def __init__(
        self,
        known: Population,
        reading: Reading,
        place: Place,
        never_made: Callable[[Sequence[str], str, Emit], None],
    ) -> None:
        self._known = known
        self._reading = reading
        self._place = place
        self._never_made = never_made

    def pass_time(self, now: float, token: Callable[[], Token], emit: Emit) -> None:
        """Place those whose former host can believe in its lease no more."""
        for address, (due, _) in list(self._known.fences.items()):
            if due <= now:
                self._lift(address, token, emit)

    def known_dead(self, address: str, token: Callable[[], Token], emit: Emit) -> None:
        """Take note that the process of a host has ended."""
        if address in self._known.fences:
            self._lift(address, token, emit)

    def _lift(self, address: str, token: Callable[[], Token], emit: Emit) -> None:
        del self._known.fences[address]
        keys = [key for key, host in self._known.fenced.items() if host == address]
        manual = [key for key in keys if self._known.agents[key].spec.failover == "manual"]
        if manual:
            emit(("held", address, manual))
        self._place([key for key in keys if key not in self._known.held], token, emit)

    def host_gone(
        self, address: str, fence: float, now: float, token: Callable[[], Token], emit: Emit
    ) -> None:
        """Take the agents of a host that is gone elsewhere, each by its policy.

        Parameters
        ----------
        address : str
        fence : float
            Seconds for which it may still believe in its lease; 0.0 where it cannot.
        now : float
        """
        self._reading.loads.pop(address, None)
        keys = list(self._known.at.get(address, ()))
        if not keys:
            return
        lost, failed, manual, others = [], [], [], []
        for key in keys:
            agent = self._known.agents[key]
            limit = agent.spec.fields["max_restarts"]
            if agent.spec.failover == "none" and agent.started:
                lost.append(key)
            elif limit is not None and agent.restarts_within(now) >= limit:
                failed.append(key)
            elif agent.spec.failover == "manual" and agent.started and not fence:
                manual.append(key)
            else:
                others.append(key)
        if lost:
            reason = f'its worker {address} was lost, and its failover is "none"'
            emit(("placed", "", "lost", reason, NOWHERE, lost))
        if failed:
            reason = f"it was restarted as often as its policy allows; last, {address} was lost"
            emit(("placed", "", "failed", reason, NOWHERE, failed))
            self._never_made(failed, reason, emit)
        if manual:
            emit(("held", address, manual))
        if others:
            emit(("restarted", others))
            if fence:
                emit(("fenced", address, fence, others))
            else:
                self._place(others, token, emit)

    def recover(
        self,
        address: str,
        keys: Sequence[str] | None,
        token: Callable[[], Token],
        emit: Emit,
    ) -> tuple[Sequence[str], bool]:
        """Place agents that wait for a request; gives their keys, and whether they are placed.

        Where the lost host may still believe in its lease they are not yet: ask again.

        Raises
        ------
        AgentNotFoundError
        InvalidRequestError
            Where one does not wait for it.
        """
        held = self._known.held
        fenced = {
            key
            for key, host in self._known.fenced.items()
            if host == address and self._known.agents[key].spec.failover == "manual"
        }
        waiting = sorted(fenced if keys is None else fenced.intersection(keys))
        if waiting:
            return waiting, False
        if keys is None:
            keys = [key for key, lost in held.items() if lost == address]
        keys = list(dict.fromkeys(keys))
        for key in keys:
            agent = self._reading.get(key)
            if held.get(key) != address:
                raise InvalidRequestError(
                    f"what is recovered waits for it since {address} was lost; the agent {key!r} "
                    f"is {agent.status}{': ' * bool(agent.reason)}{agent.reason}"
                )
        self._place(keys, token, emit)
        return keys, True

    def lose_what_was_in_memory(self, emit: Emit) -> None:
        """After a restart of the scheduler: what only the former one had is lost, and not fresh."""
        lost = [
            key
            for key, agent in self._known.agents.items()
            if agent.spec.persistence == "cluster_replicated"
            and agent.started
            and agent.status not in OUTCOMES
        ]
        if lost:
            reason = "its state was in the memory of a scheduler that is no more"
            emit(("placed", "", "lost", reason, NOWHERE, lost))
