"""A study's leases among workers that come, drain and go, granted and refused in any order."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dspex.cluster.admission import Admission, Ask, GiveBack, LeaseRequest, Withdraw
from dspex.foundation.ledger.events import Token

CORES = 2
WORKERS = st.sampled_from("abcd")


class Worker:
    def __init__(self, threads: int, cores: int, *, is_usable: bool) -> None:
        self.threads = threads
        self.cores = cores
        self.is_usable = is_usable
        self.is_draining = False

    @property
    def limit(self) -> int:
        holds = self.cores // CORES
        return 0 if self.is_draining or not self.is_usable else min(self.threads, holds)


class Study(RuleBasedStateMachine):
    """The ledger's side, and that of whoever runs evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 5
        self.admission = Admission(LeaseRequest(cpu_cores=CORES), most=self.most)
        self.workers: dict[str, Worker] = {}
        self.leases: dict[Token, str] = {}
        self.asks: dict[int, str | None] = {}
        self.withdrawn: list[int] = []
        self.in_hand: Counter[str] = Counter()
        self.gone: set[Token] = set()
        self.tokens = 0

    # --- the cluster -----------------------------------------------------------------------

    @rule(name=WORKERS, threads=st.integers(1, 4), cores=st.integers(0, 8), is_usable=st.booleans())
    def joins(self, name: str, threads: int, cores: int, is_usable: bool) -> None:
        if name not in self.workers:
            self.workers[name] = Worker(threads, cores, is_usable=is_usable)
            self.tell(name)

    @rule(name=WORKERS)
    def drains(self, name: str) -> None:
        if name in self.workers:
            self.workers[name].is_draining = True
            self.tell(name)

    @rule(name=WORKERS)
    def goes(self, name: str) -> None:
        if self.workers.pop(name, None) is not None:
            gone = [token for token, worker in self.leases.items() if worker == name]
            for token in gone:
                del self.leases[token]
            self.gone.update(gone)
            self.in_hand.pop(name, None)
            self.admission.member(name, "lost", {})
            self.admission.lost(gone)
            self.see()

    def tell(self, name: str) -> None:
        worker = self.workers[name]
        state = "draining" if worker.is_draining else "up"
        self.admission.member(name, state, {"cpu_cores": float(worker.cores)})
        self.see()

    def see(self) -> None:
        usable = {name: each.threads for name, each in self.workers.items() if each.is_usable}
        others = self.workers.keys() - usable.keys()
        self.admission.workers(usable, others=others, in_hand=dict(self.in_hand))

    # --- the ledger ------------------------------------------------------------------------

    @rule()
    def decides(self) -> None:
        for command in self.admission.decide():
            match command:
                case Ask(number, worker):
                    self.asks[number] = worker
                case Withdraw(number):
                    del self.asks[number]
                    self.withdrawn.append(number)
                case GiveBack(token):
                    if token in self.gone:
                        continue  # it went with its worker; giving it back changes nothing
                    worker = self.leases.pop(token)
                    there = list(self.leases.values()).count(worker)
                    assert there >= self.in_hand[worker], "what runs keeps its lease"
        assert not self.admission.decide(), "nothing is left to do until something happens"

    @precondition(lambda self: self.asks)
    @rule(data=st.data())
    def grants(self, data: st.DataObject) -> None:
        open_to = [(number, at) for number in self.asks for at in self.places(self.asks[number])]
        if open_to:
            number, worker = data.draw(st.sampled_from(open_to))
            del self.asks[number]
            self.grant(number, worker)

    @rule(data=st.data())
    def grants_what_was_withdrawn(self, data: st.DataObject) -> None:
        places = self.places(None)
        if self.withdrawn and places:
            self.grant(self.withdrawn.pop(), data.draw(st.sampled_from(places)))

    @precondition(lambda self: self.asks)
    @rule(data=st.data())
    def refuses(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.asks)))
        del self.asks[number]
        self.admission.refused(number)

    @precondition(lambda self: len(self.leases) > 2)
    @rule()
    def forgets_the_session(self) -> None:
        self.leases.clear()
        self.admission.lost_all()

    def places(self, at: str | None) -> list[str]:
        """Where the ledger may grant: it knows cores, and nothing of threads."""
        taken = Counter(self.leases.values())
        return [
            name
            for name, each in self.workers.items()
            if at in (None, name)
            and not each.is_draining
            and (taken[name] + 1) * CORES <= each.cores
        ]

    def grant(self, number: int, worker: str) -> None:
        self.tokens += 1
        token = (1, self.tokens)
        self.leases[token] = worker
        self.admission.granted(number, token, worker)

    # --- the evaluations -------------------------------------------------------------------

    @rule()
    def runs(self) -> None:
        """Fill all slots, as a study does."""
        for name, count in self.admission.slots.items():
            self.in_hand[name] = max(self.in_hand[name], count)
        self.see()

    @rule(name=WORKERS)
    def ends(self, name: str) -> None:
        if self.in_hand[name]:
            self.in_hand[name] -= 1
            self.see()

    # --- what holds ------------------------------------------------------------------------

    @invariant()
    def every_slot_has_a_lease_and_fits(self) -> None:
        slots = self.admission.slots
        held = Counter(self.leases.values())
        assert sum(slots.values()) <= self.most
        for name, count in slots.items():
            assert count <= held[name]
            assert count <= self.workers[name].limit

    def teardown(self) -> None:
        self.in_hand.clear()
        self.see()
        for _ in range(20):
            self.decides()
            for number, at in list(self.asks.items()):
                places = self.places(at)
                if places:
                    del self.asks[number]
                    self.grant(number, places[0])
        self.decides()
        limits = {name: each.limit for name, each in self.workers.items()}
        slots = self.admission.slots
        assert sum(slots.values()) == min(self.most, sum(limits.values()))
        assert sum(slots.values()) == len(self.leases), "the rest was given back"
        assert not self.asks


TestStudy = Study.TestCase
TestStudy.settings = settings(max_examples=150, stateful_step_count=40)
