"""Messages to agents that move, over a lossy way that doubles and reorders: each counts as it says.

One process sends to agents at two hosts. Flights arrive late, twice or never; links break while
some are in the air; mailboxes fill; agents move, and lose what was not committed.
"""

from __future__ import annotations

import sys
from collections import Counter
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dspex.foundation.agents.cells import LEAVING, LOADING, READY, Cell
from dspex.foundation.agents.dedup import Dedup
from dspex.foundation.agents.messages import (
    AT_LEAST_ONCE,
    AT_MOST_ONCE,
    CANCEL,
    CAST,
    DELIVERY,
    DONE,
    EXACTLY_ONCE,
    REFUSED,
    Message,
)
from dspex.foundation.agents.outbound import Outbound
from dspex.testing.agents_ways import LEFT_OUT, Agent, Exchange, Host

HOSTS = ("a", "b")
KEYS = (":x", ":y")


class Messages(RuleBasedStateMachine):
    """All that may happen; where `is_rough` is False no link breaks, and nothing is lost."""

    is_rough = True

    def __init__(self) -> None:
        super().__init__()
        self.outbound: Outbound[Message] = Outbound()
        self.hosts = {address: Host() for address in HOSTS}
        self.agents = {key: Agent(key, "a") for key in KEYS}
        self.air: list[tuple[Exchange, bool]] = []  # (flight, whether it is a copy)
        self.exchanges: list[Exchange] = []  # of which the sender has not heard
        self.mids = count(1)
        self.tokens = count(2)
        self.sent: dict[int, Message] = {}
        self.finals: dict[int, int] = {}
        self.failed: set[int] = set()
        self.withdrawn: set[int] = set()
        self.now = 0.0
        self.limit = 2

    @initialize(limit=st.integers(1, 4))
    def begin(self, limit: int) -> None:
        self.limit = limit
        for agent in self.agents.values():
            self.place(agent, agent.host)
            self.make(agent.key)

    # --- the sender --------------------------------------------------------------------------

    def unanswered(self, key: str) -> list[Message]:
        return [
            each
            for mid, each in self.sent.items()
            if each.key == key and mid not in self.finals and mid not in self.failed
        ]

    @rule(
        key=st.sampled_from([*KEYS, KEYS[0], KEYS[0]]),
        delivery=st.sampled_from([*[EXACTLY_ONCE] * 4, AT_LEAST_ONCE, AT_MOST_ONCE]),
        is_cast=st.booleans(),
        is_change=st.sampled_from([True, True, False]),
    )
    def send(self, key: str, delivery: int, is_cast: bool, is_change: bool) -> None:
        mid = next(self.mids)
        below = min((each.mid for each in self.unanswered(key)), default=mid)
        is_once = delivery == EXACTLY_ONCE
        sender, number = ("me", mid) if is_once else ("", 0)
        message = Message(
            mid,
            key,
            delivery | (CAST if is_cast else 0),
            sender,
            number,
            below if is_once else 0,
            None,
            "change" if is_change else "read",
            b"%d" % mid,
        )
        self.sent[mid] = message
        self.outbound.send(message)

    def may_post(self) -> list[str]:
        links = self.outbound._links
        return [each for each in HOSTS if each in links and links[each].queue]

    @rule(data=st.data())
    @precondition(lambda self: self.may_post())
    def post_some(self, data: st.DataObject) -> None:
        self.post(data.draw(st.sampled_from(self.may_post())))

    def post(self, address: str) -> None:
        posted = self.outbound.post(address, self.now)
        if posted is not None:
            self.depart(
                Exchange(posted, address, posted.generation, posted.place, posted.is_answered)
            )

    def may_poll(self) -> list[str]:
        return [each for each in HOSTS if self.outbound.is_waiting(each) is not None]

    @rule(data=st.data())
    @precondition(lambda self: self.may_poll())
    def poll_one(self, data: st.DataObject) -> None:
        self.poll(data.draw(st.sampled_from(self.may_poll())))

    def poll(self, address: str) -> None:
        generation = self.outbound.is_waiting(address)
        polls = [each for each in self.exchanges if each.place is None and not each.is_over]
        if generation is not None and not any(each.address == address for each in polls):
            self.depart(Exchange(None, address, generation, None, True))

    @rule(data=st.data())
    @precondition(lambda self: self.may_post())
    def fly_there_and_back(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(self.may_post()))
        before = len(self.exchanges)
        self.post(address)
        for exchange in self.exchanges[before:]:
            self.air.remove((exchange, False))
            self.arrive(exchange, is_copy=False)
            if exchange.waits_at is not None:
                self.hosts[address].reply(exchange)
            if exchange.answer is not None:
                self.hear(exchange)

    def depart(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.air.append((exchange, False))

    @rule(data=st.data())
    @precondition(lambda self: self.is_rough and any(map(self.unanswered, KEYS)))
    def withdraw(self, data: st.DataObject) -> None:
        choices = [
            each for key in KEYS for each in self.unanswered(key) if each.mid not in self.withdrawn
        ]
        if not choices:
            return
        message = data.draw(st.sampled_from(choices))
        self.withdrawn.add(message.mid)
        if self.outbound.withdraw(message):
            self.failed.add(message.mid)
        elif message.key in self.outbound.places:
            mid = next(self.mids)
            self.outbound.send(
                Message(mid, message.key, CANCEL | CAST, "", message.mid, 0, None, "", b"")
            )

    @rule()
    @precondition(lambda self: self.outbound.next_due() is not None)
    def wait_and_look(self) -> None:
        self.now = max(self.now, self.outbound.next_due() or 0.0)
        self.look()

    def look(self) -> None:
        for key in self.outbound.to_locate(self.now):
            self.outbound.located(key, self.agents[key].host or None, self.now)

    # --- the way -----------------------------------------------------------------------------

    @rule(data=st.data(), is_doubled=st.booleans())
    @precondition(lambda self: self.air)
    def deliver(self, data: st.DataObject, is_doubled: bool) -> None:
        at = data.draw(st.integers(0, len(self.air) - 1))
        exchange, is_copy = self.air.pop(at)
        if self.is_rough and is_doubled and not is_copy and exchange.place is not None:
            self.air.append((exchange, True))
        self.arrive(exchange, is_copy=is_copy)

    def arrive(self, exchange: Exchange, *, is_copy: bool) -> None:
        exchange.was_there = True
        if is_copy:
            # Of what its copy is answered the sender may hear instead.
            copy = Exchange(
                exchange.posted,
                exchange.address,
                exchange.generation,
                exchange.place,
                exchange.is_answered,
            )
            self.exchanges.append(copy)
            exchange = copy
        self.hosts[exchange.address].arrive(exchange)

    @rule(data=st.data())
    @precondition(lambda self: any(host.open for host in self.hosts.values()))
    def reply(self, data: st.DataObject) -> None:
        choices = [(host, each) for host in self.hosts.values() for each in host.open]
        host, exchange = choices[data.draw(st.integers(0, len(choices) - 1))]
        host.reply(exchange)

    @rule(data=st.data())
    @precondition(lambda self: any(each.answer is not None for each in self.exchanges))
    def come_back(self, data: st.DataObject) -> None:
        choices = [each for each in self.exchanges if each.answer is not None]
        self.hear(choices[data.draw(st.integers(0, len(choices) - 1))])

    def hear(self, exchange: Exchange) -> None:
        self.exchanges.remove(exchange)
        if exchange.is_over:
            return
        exchange.is_over = True
        if exchange.answer == LEFT_OUT and isinstance(exchange.answer, bytes):
            self.lose(exchange)
            return
        finals = self.outbound.answered(
            exchange.address,
            exchange.generation,
            exchange.place,
            exchange.answer,
            self.now,
        )
        for message, status, _ in finals:
            if not message.flags & CANCEL:
                assert message.mid not in self.finals
                assert message.mid not in self.failed
                self.finals[message.mid] = status

    @rule(data=st.data())
    @precondition(lambda self: self.is_rough and any(not each.is_over for each in self.exchanges))
    def break_off(self, data: st.DataObject) -> None:
        choices = [each for each in self.exchanges if not each.is_over]
        exchange = choices[data.draw(st.integers(0, len(choices) - 1))]
        exchange.is_over = True
        self.lose(exchange)

    def lose(self, exchange: Exchange) -> None:
        lost = self.outbound.lost(
            exchange.address, exchange.generation, self.now, range(sys.maxsize)
        )
        for message in lost:
            assert message.flags & DELIVERY == AT_MOST_ONCE
            if not message.flags & CANCEL:
                assert message.mid not in self.finals
                self.failed.add(message.mid)

    # --- the hosts ---------------------------------------------------------------------------

    def may_run(self) -> list[str]:
        cells = [self.cell(key) for key in KEYS]
        return [each.key for each in cells if each.mailbox and each.phase == READY]

    def cell(self, key: str) -> Cell:
        return self.hosts[self.agents[key].host].inbox.cells[key]

    @rule(data=st.data(), is_finished=st.booleans())
    @precondition(lambda self: self.may_run())
    def run_one(self, data: st.DataObject, is_finished: bool) -> None:
        key = data.draw(st.sampled_from(self.may_run()))
        self.run_some(key)
        if is_finished:
            self.finish(self.agents[key].host, key)

    def run_some(self, key: str) -> None:
        self.hosts[self.agents[key].host].run(key, self.now)

    def may_finish(self) -> list[tuple[str, str]]:
        return [(address, key) for address, host in self.hosts.items() for key in host.rows]

    @rule(data=st.data())
    @precondition(lambda self: self.may_finish())
    def finish_one(self, data: st.DataObject) -> None:
        self.finish(*data.draw(st.sampled_from(self.may_finish())))

    def finish(self, address: str, key: str) -> None:
        self.hosts[address].finish(self.agents[key])

    @rule(data=st.data())
    @precondition(lambda self: self.is_rough and self.may_finish())
    def fail_to_commit(self, data: st.DataObject) -> None:
        address, key = data.draw(st.sampled_from(self.may_finish()))
        agent, host = self.agents[key], self.hosts[address]
        is_here = host.inbox.cells.get(key) is host.rows[key][0]
        host.undo(agent)
        if is_here:
            self.place(agent, address)

    def place(self, agent: Agent, address: str) -> None:
        agent.host, agent.token = address, next(self.tokens)
        self.hosts[address].inbox.add(agent.key, (1, agent.token), self.limit)

    @rule()
    @precondition(lambda self: any(self.cell(key).phase == LOADING for key in KEYS))
    def make_all(self) -> None:
        for key in KEYS:
            self.make(key)

    def make(self, key: str) -> None:
        agent = self.agents[key]
        host = self.hosts[agent.host]
        cell = host.inbox.cells[key]
        if cell.phase == LOADING:
            host.inbox.ready(cell, Dedup.from_rows(agent.rows) if agent.rows else None)

    @rule(key=st.sampled_from(KEYS))
    def begin_to_move(self, key: str) -> None:
        host = self.hosts[self.agents[key].host]
        cell = host.inbox.cells[key]
        if cell.phase == READY:
            host.inbox.leave(cell)

    @rule(address=st.sampled_from(HOSTS))
    @precondition(lambda self: any(self.cell(key).phase == LEAVING for key in KEYS))
    def move_all(self, address: str) -> None:
        for key in KEYS:
            self.move(key, address)

    def move(self, key: str, address: str) -> None:
        agent = self.agents[key]
        host = self.hosts[agent.host]
        cell = host.inbox.cells[key]
        if cell.phase == LEAVING and not cell.is_busy:
            host.inbox.drop(key)
            self.place(agent, address)

    @rule(key=st.sampled_from(KEYS), address=st.sampled_from(HOSTS))
    def move_at_once(self, key: str, address: str) -> None:
        self.begin_to_move(key)
        self.move(key, address)
        self.make(key)

    @rule(key=st.sampled_from(KEYS), address=st.sampled_from(HOSTS))
    @precondition(lambda self: self.is_rough)
    def fail_over(self, key: str, address: str) -> None:
        """Another incarnation lives on from what was committed, and nothing else counts."""
        agent = self.agents[key]
        self.hosts[agent.host].inbox.drop(key)
        self.place(agent, address)

    @rule(address=st.sampled_from(HOSTS))
    @precondition(lambda self: self.is_rough)
    def lose_host(self, address: str) -> None:
        other = HOSTS[1 - HOSTS.index(address)]
        self.hosts[address].forget()
        # No network doubles what was answered by a process that is no more.
        self.air = [
            (each, is_copy)
            for each, is_copy in self.air
            if each.address != address or not each.was_there
        ]
        for agent in self.agents.values():
            if agent.host == address:
                self.place(agent, other)

    # --- what holds --------------------------------------------------------------------------

    @invariant()
    def effects_are_as_often_as_promised(self) -> None:
        for agent in self.agents.values():
            once = [each.mid for each in agent.effects if each.flags & DELIVERY == EXACTLY_ONCE]
            assert once == sorted(set(once)), "once each, in the order in which they were sent"
            again = [each.mid for each in agent.effects if each.flags & DELIVERY != AT_MOST_ONCE]
            first = list(dict.fromkeys(again))
            assert first == sorted(first), "of those that may come again the first counts"
            most = [each.mid for each in agent.effects if each.flags & DELIVERY == AT_MOST_ONCE]
            assert len(most) == len(set(most))

    @invariant()
    def who_got_an_answer_had_an_effect(self) -> None:
        effects = {each.mid for agent in self.agents.values() for each in agent.effects}
        for mid, status in self.finals.items():
            if (
                status == DONE
                and mid not in self.withdrawn
                and self.sent[mid].method == "change"
                and mid not in effects
            ):
                raise AssertionError(f"message {mid} was answered, and had no effect")

    @invariant()
    def who_is_counted_is_unanswered(self) -> None:
        for link in self.outbound._links.values():
            if link.counts is not None:
                assert link.counts == Counter(each.key for each in link.outstanding.values())

    def teardown(self) -> None:
        # From now on all arrives.
        for _ in range(200):
            if self.is_quiet():
                break
            self.go_on()
        assert self.is_quiet()
        effects = {each.mid for agent in self.agents.values() for each in agent.effects}
        for mid, message in self.sent.items():
            if message.flags & DELIVERY == AT_MOST_ONCE or mid in self.withdrawn:
                continue
            if self.finals.get(mid) == REFUSED:
                continue
            assert self.finals.get(mid) == DONE
            assert mid in effects or message.method == "read"
        self.effects_are_as_often_as_promised()
        assert not self.outbound._abandoned
        for link in self.outbound._links.values():
            assert not link.outstanding
            assert not link.resumed
        for host in self.hosts.values():
            assert not host.link or not host.link.outstanding
            for cell in host.inbox.cells.values():
                assert not cell.mailbox
                assert not cell.joined

    def is_quiet(self) -> bool:
        return not (
            self.air
            or self.exchanges
            or any(self.outbound.everything())
            or self.outbound._held
            or any(
                host.rows or host.open or host.parked or any(host.inbox.loads())
                for host in self.hosts.values()
            )
        )

    def go_on(self) -> None:
        self.now += 1.0
        for key in KEYS:
            self.make(key)
            self.move(key, self.agents[key].host)
            self.make(key)
            self.run_some(key)
            for address in HOSTS:
                self.finish(address, key)
        air, self.air = self.air, []
        for exchange, is_copy in air:
            self.arrive(exchange, is_copy=is_copy)
        for host in self.hosts.values():
            for exchange in list(host.open):
                host.reply(exchange)
            parked, host.parked = host.parked, {}
            for waiting in parked.values():
                for each in waiting:
                    host.leave_out(each)
        for exchange in list(self.exchanges):
            if exchange.answer is not None:
                self.hear(exchange)
        lost = [each for each in self.exchanges if each.answer is None and each.was_there]
        assert not lost or any(host.open or host.parked for host in self.hosts.values())
        self.look()
        for address in HOSTS:
            self.post(address)
            self.poll(address)


class CalmMessages(Messages):
    is_rough = False


TestMessages = Messages.TestCase
TestMessages.settings = settings(max_examples=120, stateful_step_count=50)

TestCalmMessages = CalmMessages.TestCase
TestCalmMessages.settings = settings(max_examples=120, stateful_step_count=40)
