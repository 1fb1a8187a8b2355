"""The dispatcher: oldest first, chunks by duration, losses charged to one evaluation."""

from __future__ import annotations

from dspex.cluster.dispatch import MOST_PER_CHUNK, Chunk, Dispatcher
from dspex.engine.ports import Evaluation


def some(*trials: int) -> list[Evaluation]:
    return [Evaluation(trial, 0, 0, {}) for trial in trials]


def trials(chunk: Chunk) -> list[int]:
    return [each.trial for each in chunk.evaluations]


def warmed(seconds: float, slots: int = 1) -> Dispatcher:
    dispatcher = Dispatcher()
    dispatcher.set_workers({"a": slots})
    dispatcher.add(some(0))
    (chunk,) = dispatcher.assign({"a"})
    dispatcher.finished(chunk.number, 1, [], seconds)
    return dispatcher


def test_the_first_evaluations_travel_alone_and_oldest_first() -> None:
    dispatcher = Dispatcher()
    dispatcher.set_workers({"a": 2, "b": 2})
    dispatcher.add(some(9, 3, 1, 7, 5))
    chunks = dispatcher.assign({"a", "b"})
    assert [(chunk.worker, trials(chunk)) for chunk in chunks] == [
        ("a", [1]), ("b", [3]), ("a", [5]), ("b", [7]),
    ]  # fmt: skip
    assert dispatcher.waiting == 1


def test_short_evaluations_share_a_chunk_and_long_ones_do_not() -> None:
    for seconds, size, in_hand in ((1e-6, MOST_PER_CHUNK, 2), (0.01, 5, 2), (1.0, 1, 1)):
        dispatcher = warmed(seconds)
        dispatcher.add(some(*range(1, 2001)))
        chunks = dispatcher.assign({"a"})
        assert [len(chunk.evaluations) for chunk in chunks] == [size] * in_hand


def test_few_evaluations_spread_over_idle_slots() -> None:
    dispatcher = warmed(1e-6, slots=4)
    dispatcher.add(some(*range(1, 7)))
    assert [trials(chunk) for chunk in dispatcher.assign({"a"})] == [[n] for n in range(1, 7)]


def test_only_the_first_of_a_lost_chunk_is_charged_and_the_others_travel_alone() -> None:
    dispatcher = warmed(0.01)
    dispatcher.add(some(*range(1, 20)))
    first, second = dispatcher.assign({"a"})
    charged = dispatcher.lost(first.number, "gone")
    assert charged is not None
    assert (charged.trial, charged.worker, charged.reason) == (trials(first)[0], "a", "gone")
    dispatcher.returned(second.number)
    again = dispatcher.assign({"a"})
    assert [trials(chunk) for chunk in again] == [[2], [3]]


def test_cancelled_trials_do_not_come_back() -> None:
    dispatcher = warmed(0.01)
    dispatcher.add(some(*range(1, 20)))
    first, _second = dispatcher.assign({"a"})
    ended, partly = dispatcher.cancel({1, 2, *range(6, 20)})
    assert [trials(chunk)[0] for chunk in ended] == [6]
    assert partly == [first]
    for chunk in (*ended, *partly):
        dispatcher.returned(chunk.number)
    left = [trials(chunk) for chunk in dispatcher.assign({"a"})]
    assert {trial for chunk in left for trial in chunk} <= {3, 4, 5}
    assert left


def test_workers_to_be_avoided_come_last_and_do_not_count_as_idle() -> None:
    dispatcher = Dispatcher()
    dispatcher.set_workers({"a": 1, "b": 1})
    assert dispatcher.has_idle()
    dispatcher.add(some(0, 1))
    assert not dispatcher.has_idle(), "there is work for it"
    made = dispatcher.assign({"a", "b"}, avoided={"a"})
    assert [chunk.worker for chunk in made] == ["b", "a"]
    dispatcher.finished(made[1].number, 1, [], 1.0)
    assert dispatcher.has_idle()
    assert not dispatcher.has_idle({"a"})


def test_a_worker_with_fewer_slots_than_threads_never_has_more_in_hand() -> None:
    dispatcher = warmed(1e-3, slots=4)
    dispatcher.set_workers({"a": 1}, {"a": 4})
    dispatcher.add(some(*range(1, 2001)))
    assert len(dispatcher.assign({"a"})) == 1
    dispatcher.set_workers({"a": 4}, {"a": 4})
    assert len(dispatcher.assign({"a"})) == 7, "one more per slot hides the way"


def test_what_runs_beyond_the_leases_is_the_newest() -> None:
    dispatcher = Dispatcher()
    dispatcher.set_workers({"a": 2, "b": 1}, {"a": 2, "b": 1})
    dispatcher.add(some(0, 1, 2))
    dispatcher.assign({"a", "b"})
    assert dispatcher.beyond({"a": 2, "b": 1}) == []
    assert [trials(chunk) for chunk in dispatcher.beyond({"a": 1})] == [[2], [1]]
    assert dispatcher.in_hand == {"a": 2, "b": 1}
