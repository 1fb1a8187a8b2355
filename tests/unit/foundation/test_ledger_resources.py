"""Leases: what is refused, who waits, who is next, what ends them."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from dspex.errors import (
    InvalidRequestError,
    QuotaExceededError,
    ResourceExhaustedError,
    UnsatisfiableRequestError,
    VersionConflictError,
)
from dspex.foundation.ledger import waiting
from dspex.foundation.ledger.amounts import Amounts, amounts_from
from dspex.foundation.ledger.events import Event, Token
from dspex.foundation.ledger.fleet import Worker
from dspex.foundation.ledger.placement import PLACEMENTS, rendezvous
from dspex.foundation.ledger.resources import Resources


class Cluster:
    """The part, with what the ledger does around it."""

    def __init__(self, **workers: dict[str, Any]) -> None:
        self.resources = Resources()
        self.events: list[Event] = []
        self.n = 0
        self.calls = 0
        for address, capacity in workers.items():
            self.member(address, **capacity)

    def token(self) -> Token:
        self.n += 1
        return (1, self.n)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.resources.apply(event, 0.0)

    def member(
        self, address: str, state: str = "up", incarnation: int = 1, host: str = "", **capacity: Any
    ) -> None:
        name = address.upper()
        self.emit(("member", address, (1, incarnation), "w", name, host, state, capacity))
        self.settle()

    def settle(self) -> list[Any]:
        """What the calls that waited are told."""
        count = len(self.events)
        self.resources.settle(0.0, self.token, self.emit)
        self.resources.validate()
        return [event[2:] for event in self.events[count:] if event[0] == "reply"]

    def acquire(self, session: str = "s", cpu: float = 1, **request: Any) -> Any:
        self.calls += 1
        request = {"kind": "k", "amounts": {"cpu_cores": cpu}, **request}
        return self.resources.acquire(
            session, self.calls, request, now=float(self.calls), token=self.token, emit=self.emit
        )

    def release(self, lease: Any, session: str = "s") -> list[Any]:
        assert self.resources.release(session, lease["token"], self.emit)
        return self.settle()


CORES: dict[str, Any] = {"cpu_cores": 4, "memory_gb": 8}


def test_a_lease_tells_where_how_much_and_its_token() -> None:
    cluster = Cluster(a=CORES)
    lease = cluster.acquire(cpu=1.5, labels=[], tenant="me", priority=2)
    amounts = {"cpu_cores": 1.5, "memory_gb": 0.0, "gpus": 0.0}
    assert lease == {"token": (1, 1), "worker": "a", "kind": "k", "amounts": amounts}
    assert cluster.events[-1] == ("grant", (1, 1), "s", "k", "a", amounts, (), "me", 2)


def test_sums_are_exact_however_often_a_tenth_is_taken() -> None:
    cluster = Cluster(a={"cpu_cores": 1})
    for _ in range(50):
        leases = [cluster.acquire(cpu=0.1) for _ in range(10)]
        assert cluster.acquire(cpu=0.001) is None
        assert cluster.resources.cancel("s", cluster.calls)
        for lease in leases:
            cluster.release(lease)
    assert cluster.resources.snapshot()[0]["free"]["cpu_cores"] == 1.0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"cpu": 5}, "if it were idle; the most there is on one is 4 cpu_cores, 8 memory_gb"),
        ({"cpu": 0, "amounts": {"gpus": 1}}, "could give 1 gpus"),
        ({"labels": ["ssd", "tpu"]}, "no worker has the labels ssd, tpu; there are fast"),
        ({"worker": "z"}, "'z' is not; see members()"),
        ({"worker": "a", "cpu": 4}, "a could not give 4 cpu_cores .* it has 2 cpu_cores"),
        ({"labels": ["fast"], "cpu": 4}, "with fast .* on one is 2 cpu_cores"),
        (
            {"amounts": {"cpu_cores": 4, "memory_gb": 8}},
            "4 cpu_cores, 8 memory_gb, though not in one worker",
        ),
    ],
)
def test_what_no_worker_could_give_is_refused_with_the_reason(
    request_: dict[str, Any], message: str
) -> None:
    cluster = Cluster(
        a={"cpu_cores": 2, "memory_gb": 8, "labels": ["fast"]}, b={"cpu_cores": 4, "memory_gb": 1}
    )
    count = len(cluster.events)
    with pytest.raises(UnsatisfiableRequestError, match=message):
        cluster.acquire(**request_)
    assert len(cluster.events) == count
    assert not cluster.resources.waiting()


def test_labels_that_no_worker_has_together_are_told_apart_from_unknown_ones() -> None:
    cluster = Cluster(a={"cpu_cores": 2, "labels": ["x"]}, b={"cpu_cores": 4, "labels": ["y"]})
    with pytest.raises(UnsatisfiableRequestError, match="all of the labels x, y together"):
        cluster.acquire(labels=["x", "y"])


def test_without_any_worker_nothing_is_known_to_be_impossible() -> None:
    cluster = Cluster()
    assert cluster.acquire(cpu=100) is None
    assert cluster.acquire(cpu=1) is None
    cluster.member("a", **CORES)
    # The first could not be served by the new worker, so it does not keep it.
    (reply,) = cluster.events[-1:]
    assert reply[:4] == ("reply", "s", 2, True)


@pytest.mark.parametrize(
    "request_",
    [
        {"amounts": {"cpu_cores": -1}},
        {"amounts": {"cpu_cores": float("nan")}},
        {"amounts": {"cpu_cores": True}},
        {"amounts": {"memory_gb": "4"}},
        {"amounts": {"cores": 1}},
        {"placement": "best"},
        {"priority": float("inf")},
    ],
)
def test_malformed_requests_are_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        Cluster(a=CORES).acquire(**request_)


@pytest.mark.parametrize("state", ["joining", "suspected", "draining"])
def test_only_a_worker_that_is_up_gives_and_what_it_gave_stays(state: str) -> None:
    cluster = Cluster(a=CORES)
    lease = cluster.acquire()
    cluster.member("a", state=state, **CORES)
    assert cluster.resources.verify(lease["token"])
    assert cluster.acquire() is None
    assert cluster.resources.snapshot() == []
    cluster.member("a", **CORES)
    assert cluster.events[-1][:4] == ("reply", "s", 2, True)
    assert len(cluster.resources.leases()) == 2


@pytest.mark.parametrize("state", ["lost", "left"])
def test_leases_end_with_their_worker(state: str) -> None:
    cluster = Cluster(a=CORES, b=CORES)
    first, second = cluster.acquire(tenant="t"), cluster.acquire(tenant="t")
    assert (first["worker"], second["worker"]) == ("a", "b")
    cluster.emit(("member", "a", (1, 1), "w", "A", "", state, CORES))
    cluster.resources.worker_gone("a", cluster.emit)
    assert cluster.events[-1] == ("free", first["token"], "worker left")
    cluster.settle()
    assert not cluster.resources.verify(first["token"])
    assert cluster.resources.usage("tenant")["t"]["leases"] == 1
    assert not cluster.resources.release("s", first["token"], cluster.emit), "it is over already"


def test_a_new_incarnation_has_none_of_the_old_ones_leases() -> None:
    cluster = Cluster(a=CORES)
    lease = cluster.acquire(cpu=4)
    cluster.member("a", incarnation=2, **CORES)
    assert ("free", lease["token"], "worker left") in cluster.events
    assert cluster.acquire(cpu=4)["worker"] == "a"
    cluster.member("a", state="lost", incarnation=1, **CORES)
    assert len(cluster.resources.leases()) == 1, "old news of the old one"


def test_a_worker_that_shrinks_takes_nothing_back_and_gives_nothing_new() -> None:
    cluster = Cluster(a=CORES)
    leases = [cluster.acquire(cpu=2), cluster.acquire(cpu=2)]
    cluster.member("a", cpu_cores=3)
    assert cluster.acquire(cpu=1) is None
    again = Resources()
    again.apply(("member", "a", (1, 1), "w", "A", "", "up", {"cpu_cores": 3}), 0.0)
    for event in cluster.resources.dump():
        again.apply(event, 0.0)
    again.validate()
    assert [reply[:2] for reply in cluster.release(leases[0])] == [(3, True)]


def test_a_session_that_ends_frees_what_it_holds_and_waits_for() -> None:
    cluster = Cluster(a={"cpu_cores": 2})
    leases = [cluster.acquire("s"), cluster.acquire("s")]
    assert cluster.acquire("s") is None
    assert cluster.acquire("other") is None
    cluster.resources.session_gone("s", cluster.emit)
    assert cluster.events[-2:] == [("free", each["token"], "session gone") for each in leases]
    assert [reply[:2] for reply in cluster.settle()] == [(4, True)]
    assert not cluster.resources.waiting()


def test_only_its_session_gives_a_lease_back() -> None:
    cluster = Cluster(a=CORES)
    lease = cluster.acquire("mine")
    with pytest.raises(InvalidRequestError, match="held by mine, asked by yours"):
        cluster.resources.release("yours", lease["token"], cluster.emit)
    assert not cluster.resources.release("yours", (0, 99), cluster.emit)


# --- who is next ---------------------------------------------------------------------------


def test_priority_first_then_arrival() -> None:
    cluster = Cluster(a={"cpu_cores": 1})
    lease = cluster.acquire()
    assert [cluster.acquire(priority=each) for each in (0, 1, 0, 1.5)] == [None] * 4
    assert [each["number"] for each in cluster.resources.waiting()] == [5, 3, 2, 4]
    order = []
    for _ in range(4):
        ((number, is_ok, lease),) = cluster.release(lease)
        assert is_ok
        order.append(number)
    assert order == [5, 3, 2, 4]


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    cluster = Cluster(a={"cpu_cores": 4})
    held = [cluster.acquire() for _ in range(4)]
    assert cluster.acquire(cpu=4) is None
    assert cluster.acquire(cpu=1) is None
    for lease in held[:3]:
        assert cluster.release(lease) == [], "what becomes free is kept for the first"
    ((number, _, large),) = cluster.release(held[3])
    assert number == 5
    assert [reply[0] for reply in cluster.release(large)] == [6]


def test_who_waits_keeps_nothing_that_it_could_not_use() -> None:
    cluster = Cluster(a={"cpu_cores": 1}, b={"cpu_cores": 1, "labels": ["ssd"]})
    assert cluster.acquire(labels=["ssd"])["worker"] == "b"
    assert cluster.acquire(labels=["ssd"]) is None
    assert cluster.acquire()["worker"] == "a"


def test_who_waits_for_its_quota_holds_up_its_own_tenant_alone() -> None:
    cluster = Cluster(a={"cpu_cores": 8})
    cluster.resources.set_quota("t", {"cpu_cores": 3}, cluster.emit)
    lease = cluster.acquire(cpu=2, tenant="t")
    assert cluster.acquire(cpu=2, tenant="t") is None
    assert cluster.acquire(cpu=1, tenant="t") is None, "no overtaking in the tenant's own line"
    assert cluster.acquire(cpu=2, tenant="u") is not None
    assert cluster.acquire(cpu=2) is not None
    assert [reply[0] for reply in cluster.release(lease)] == [2, 3]


def test_a_slot_takes_nothing_and_is_held_up_by_its_quota_alone() -> None:
    cluster = Cluster(a={"cpu_cores": 1})
    cluster.acquire()
    assert cluster.acquire() is None
    cluster.resources.set_quota("t", {"max_concurrent": 2}, cluster.emit)
    first = cluster.acquire(cpu=0, tenant="t")
    assert cluster.acquire(cpu=0, tenant="t") is not None
    assert cluster.acquire(cpu=0, tenant="t") is None
    assert [reply[0] for reply in cluster.release(first)] == [5]


def test_one_that_is_pinned_to_a_worker_which_gives_nothing_now_keeps_nothing() -> None:
    cluster = Cluster(a={"cpu_cores": 2}, b={"cpu_cores": 2})
    cluster.member("b", state="draining", cpu_cores=2)
    assert cluster.acquire(worker="b") is None
    assert cluster.acquire(cpu=2)["worker"] == "a"


def test_one_that_is_pinned_to_a_worker_which_leaves_is_told_so() -> None:
    cluster = Cluster(a={"cpu_cores": 1}, b={"cpu_cores": 1})
    cluster.acquire(worker="a")
    assert cluster.acquire(worker="a") is None
    version = cluster.resources.snapshot()[-1]["version"]
    assert cluster.acquire(worker="a", version=version) is None
    cluster.member("a", state="lost")
    replies = [event for event in cluster.events if event[0] == "reply"]
    assert [(event[2], event[3], event[4][0]) for event in replies] == [
        (2, False, "UnsatisfiableRequestError"),
        (3, False, "VersionConflictError"),
    ]
    assert not cluster.resources.waiting()


def test_too_many_may_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING", 3)
    cluster = Cluster()
    for _ in range(3):
        assert cluster.acquire() is None
    with pytest.raises(ResourceExhaustedError, match="at most 3 requests wait"):
        cluster.acquire()


def test_a_repeated_call_waits_once() -> None:
    cluster = Cluster()
    for _ in range(2):
        cluster.calls = 6
        assert cluster.acquire() is None
    assert len(cluster.resources.waiting()) == 1


# --- quotas --------------------------------------------------------------------------------


def test_more_than_the_quota_itself_is_refused() -> None:
    cluster = Cluster(a={"cpu_cores": 8, "memory_gb": 8})
    cluster.resources.set_quota("t", {"cpu_cores": 2, "memory_gb": 1}, cluster.emit)
    with pytest.raises(QuotaExceededError, match="at most cpu_cores=2, memory_gb=1 at once; one"):
        cluster.acquire(cpu=3, tenant="t")
    cluster.resources.set_quota("t", {"max_concurrent": 0}, cluster.emit)
    with pytest.raises(QuotaExceededError, match="max_concurrent=0"):
        cluster.acquire(cpu=0, tenant="t")
    cluster.resources.set_quota("t", None, cluster.emit)
    assert cluster.acquire(cpu=3, tenant="t")


def test_a_lower_quota_takes_nothing_away_and_refuses_who_waits_in_vain() -> None:
    cluster = Cluster(a={"cpu_cores": 4})
    lease = cluster.acquire(cpu=4, tenant="t")
    assert cluster.acquire(cpu=3, tenant="t") is None
    assert cluster.acquire(cpu=1, tenant="t") is None
    cluster.resources.set_quota("t", {"cpu_cores": 2}, cluster.emit)
    ((number, is_ok, payload),) = cluster.settle()
    assert (number, is_ok, payload[0]) == (2, False, "QuotaExceededError")
    assert cluster.resources.verify(lease["token"])
    assert [reply[:2] for reply in cluster.release(lease)] == [(3, True)]


@pytest.mark.parametrize(
    "limits",
    [{"cpu": 1}, {"cpu_cores": -1}, {"max_concurrent": 1.5}, {"max_concurrent": True}],
)
def test_malformed_quotas_are_refused(limits: dict[str, Any]) -> None:
    cluster = Cluster()
    with pytest.raises(InvalidRequestError):
        cluster.resources.set_quota("t", limits, cluster.emit)
    assert not cluster.events


# --- what is asked -------------------------------------------------------------------------


def test_usage_by_worker_tenant_and_kind() -> None:
    cluster = Cluster(a={"cpu_cores": 4}, b={"cpu_cores": 2})
    cluster.resources.set_quota("t", {"cpu_cores": 3}, cluster.emit)
    cluster.acquire(cpu=1.5, tenant="t", kind="fit")
    cluster.acquire(cpu=0.5, kind="score", worker="a")
    usage = cluster.resources.usage
    assert {each: row["cpu_cores"] for each, row in usage("worker").items()} == {"a": 2.0, "b": 0}
    assert usage("worker")["a"]["capacity"]["cpu_cores"] == 4.0
    assert {each: row["leases"] for each, row in usage("kind").items()} == {"fit": 1, "score": 1}
    assert usage("tenant")["t"]["cpu_cores"] == 1.5
    assert usage("tenant")["t"]["limits"]["cpu_cores"] == 3.0
    with pytest.raises(InvalidRequestError, match='"worker", "tenant" or "kind"; got'):
        usage("host")


def test_a_choice_counts_only_for_the_worker_as_it_was_seen() -> None:
    cluster = Cluster(a=CORES, b=CORES)
    version = {view["address"]: view["version"] for view in cluster.resources.snapshot()}
    cluster.acquire(worker="a")
    with pytest.raises(VersionConflictError, match=f"a was chosen at version {version['a']} and"):
        cluster.acquire(worker="a", version=version["a"])
    assert cluster.acquire(worker="b", version=version["b"])["worker"] == "b"
    cluster.member("b", state="suspected", **CORES)
    version = {view["address"]: view["version"] for view in cluster.resources.snapshot()}
    assert "b" not in version
    with pytest.raises(VersionConflictError, match="is gone"):
        cluster.acquire(worker="c", version=1)


# --- placements ----------------------------------------------------------------------------


def _many(placement: str, count: int, cluster: Cluster, **request: Any) -> list[str]:
    return [cluster.acquire(placement=placement, **request)["worker"] for _ in range(count)]


def test_least_loaded_and_its_other_name() -> None:
    cluster = Cluster(a={"cpu_cores": 4}, b={"cpu_cores": 8})
    assert _many("least_loaded", 3, cluster) == ["a", "b", "b"]
    assert _many("least_loaded_node", 1, cluster) == ["a"]
    assert _many("least_loaded", 2, Cluster(a=CORES, b=CORES), cpu=0) == ["a", "b"]


def test_pack_fills_one_worker_after_the_other() -> None:
    cluster = Cluster(a={"cpu_cores": 3}, b={"cpu_cores": 3})
    assert _many("pack", 6, cluster) == ["b"] * 3 + ["a"] * 3


def test_spread_goes_over_hosts_then_workers_for_each_kind() -> None:
    cluster = Cluster()
    for address, host in (("a", "h1"), ("b", "h1"), ("c", "h2")):
        cluster.member(address, host=host, cpu_cores=9)
    assert _many("spread", 4, cluster) == ["a", "c", "b", "c"]
    assert _many("spread", 2, cluster, kind="other") == ["a", "c"]


def test_round_robin_goes_around_and_past_the_full() -> None:
    cluster = Cluster(a={"cpu_cores": 2}, b={"cpu_cores": 1}, c={"cpu_cores": 2})
    assert _many("round_robin", 5, cluster) == ["a", "b", "c", "a", "c"]


def test_random_is_seeded_and_fair() -> None:
    workers = {each: {"cpu_cores": 1000} for each in "abcd"}
    one, other = (_many("random", 400, Cluster(**workers)) for _ in range(2))
    assert one == other
    assert all(70 < count < 130 for count in Counter(one).values())


def test_random_finds_the_only_one_that_fits() -> None:
    workers: dict[str, Any] = {f"w{i}": {"cpu_cores": 1} for i in range(50)}
    cluster = Cluster(**workers, z={"cpu_cores": 2})
    assert _many("random", 1, cluster, cpu=2) == ["z"]
    assert cluster.acquire(cpu=2, placement="random") is None


def test_any_node_gives_a_key_its_worker_and_moves_only_the_keys_of_one_that_left() -> None:
    workers = [Worker(f"tcp://10.0.0.{i}:4000", (1, 1)) for i in range(10)]
    keys = [f"agent-{i}" for i in range(2000)]
    before = {key: rendezvous(key, workers) for key in keys}
    gone = workers.pop(3)
    after = {key: rendezvous(key, reversed(workers)) for key in keys}
    assert {key for key in keys if before[key] is not after[key]} == {
        key for key in keys if before[key] is gone
    }
    assert all(130 < count < 270 for count in Counter(before.values()).values())
    cluster = Cluster(a=CORES, b=CORES, c=CORES)
    assert len({*_many("any_node", 3, cluster, key="x", cpu=0.1)}) == 1


@pytest.mark.parametrize(("placement", "classed"), [("compute_nodes", "b"), ("memory_nodes", "c")])
def test_classes_are_soft(placement: str, classed: str) -> None:
    cluster = Cluster(
        a={"cpu_cores": 2, "memory_gb": 4},
        b={"cpu_cores": 4, "memory_gb": 4},
        c={"cpu_cores": 2, "memory_gb": 16},
        d={"cpu_cores": 2, "memory_gb": 2},
    )
    amounts = {"cpu_cores": 2, "memory_gb": 1}
    first = _many(placement, 1, cluster, amounts=amounts)
    every = first + _many(placement, 4, cluster, amounts=amounts)
    assert classed in every[:4]
    assert Counter(every) == {"a": 1, "b": 2, "c": 1, "d": 1}, "nobody is stranded"


def test_compute_nodes_prefers_the_ones_with_more_cores() -> None:
    cluster = Cluster(a={"cpu_cores": 2}, b={"cpu_cores": 8}, c={"cpu_cores": 8})
    assert _many("compute_nodes", 4, cluster) == ["b", "c", "b", "c"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_passes_the_full_and_the_unlabelled(placement: str) -> None:
    cluster = Cluster(
        a={"cpu_cores": 1}, b={"cpu_cores": 1, "labels": ["x"]}, c={"cpu_cores": 1, "labels": ["x"]}
    )
    assert {*_many(placement, 2, cluster, labels=["x"])} == {"b", "c"}
    assert cluster.acquire(placement=placement, labels=["x"]) is None


# --- amounts -------------------------------------------------------------------------------


def test_amounts_survive_being_written_as_people_do() -> None:
    for cpu in range(1, 3000, 7):
        amounts = Amounts(cpu, cpu * 1_234_567, cpu)
        assert amounts_from(amounts.public()) == amounts
    assert amounts_from({"cpu_cores": 1e-9}).cpu == 1, "never nothing for something"
    assert re.fullmatch(r"2\.5 cpu_cores, 1 gpus", str(Amounts(2500, 0, 1000)))
    assert str(Amounts()) == "nothing"
