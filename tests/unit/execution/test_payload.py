"""A payload arrives as it was packed, and says who is to blame when it cannot be packed."""

from __future__ import annotations

import functools
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dspex.engine.ports import Job
from dspex.errors import NotPicklableError
from dspex.execution.payload import Payload
from dspex.space import Float, Space


class Holder:
    """A program that keeps what it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)
        self.data: Any = None

    def space(self) -> Space | None:
        return None

    def prepare(self, data: Any) -> None:
        self.data = data

    def evaluate(self, params: Any, trial: Any) -> Any:
        return 0.0

    def finish(self, params: Any) -> Any:
        return None


def job(data: object = None, program: Holder | None = None, **options: Any) -> Job:
    return Job(
        program=program or Holder(),
        space=Space({"x": Float(0.0, 1.0)}),
        data=data,
        seed=7,
        **options,
    )


def arrived(payload: Payload) -> Any:
    program: Any = payload.load().program
    return program.data


def through_a_file(payload: Payload) -> Payload:
    with tempfile.TemporaryFile() as file:
        payload.write(file)
        return Payload.map(file.fileno())


def through_pickle(payload: Payload) -> Payload:
    copy = pickle.loads(pickle.dumps(payload, protocol=5))
    assert isinstance(copy, Payload)
    return copy


def through_old_pickle(payload: Payload) -> Payload:
    copy = pickle.loads(pickle.dumps(payload, protocol=4))
    assert isinstance(copy, Payload)
    return copy


@pytest.fixture(params=[through_a_file, through_pickle, through_old_pickle])
def travel(request: pytest.FixtureRequest) -> Callable[[Payload], Payload]:
    way: Callable[[Payload], Payload] = request.param
    return way


@pytest.mark.parametrize(
    "data",
    [
        None,
        [1, "two", {3.0}],
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(12.0)[::3],
        np.empty((0, 3)),
        np.array(5.0),
        np.array(["a", None], dtype=object),
        (np.arange(3), [np.arange(4), np.arange(5, dtype=np.uint8)]),
    ],
    ids=str,
)
def test_data_arrives(data: Any, travel: Callable[[Payload], Payload]) -> None:
    got = arrived(travel(Payload.of(job(data))))
    np.testing.assert_equal(got, data)
    assert type(got) is type(data)


def test_frames_and_sparse_matrices_arrive(travel: Callable[[Payload], Payload]) -> None:
    import pandas as pd
    import scipy.sparse

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"], "c": pd.Categorical(["u", "v"])})
    sparse = scipy.sparse.csr_matrix(np.eye(3))
    got_frame, got_sparse = arrived(travel(Payload.of(job((frame, sparse)))))
    pd.testing.assert_frame_equal(got_frame, frame)
    assert (got_sparse != sparse).nnz == 0


def test_all_fields_arrive(travel: Callable[[Payload], Payload]) -> None:
    payload = Payload.of(job(np.zeros(10), retry_on=(OSError,), memory_limit=5, threads=3))
    copy = travel(payload)
    assert (copy.token, copy.memory_limit, copy.nbytes) == (payload.token, 5, payload.nbytes)
    assert copy.threads == 3
    loaded = copy.load()
    assert (loaded.seed, loaded.retry_on) == (7, (OSError,))
    assert loaded.space.names == ("x",)


def test_each_payload_has_a_token_of_its_own() -> None:
    assert Payload.of(job()).token != Payload.of(job()).token


def test_arrays_come_read_only_aligned_and_without_a_copy() -> None:
    data = [np.arange(n, dtype=np.float64) for n in (1, 7, 1000)]
    payload = through_a_file(Payload.of(job(data)))
    for array in arrived(payload):
        assert not array.flags.writeable
        assert array.ctypes.data % 64 == 0
        assert not array.flags.owndata
    first, second = arrived(payload), arrived(payload)
    assert np.shares_memory(first[2], second[2])


def test_the_original_is_not_copied_and_stays_writeable() -> None:
    data = np.zeros(1000)
    view = arrived(Payload.of(job(data)))
    assert np.shares_memory(view, data)
    assert not view.flags.writeable
    assert data.flags.writeable


def test_buffers_travel_out_of_band() -> None:
    payload = Payload.of(job(np.zeros(100_000)))
    buffers: list[pickle.PickleBuffer] = []
    envelope = pickle.dumps(payload, protocol=5, buffer_callback=buffers.append)
    assert len(envelope) < 1000
    assert sum(len(buffer.raw()) for buffer in buffers) == payload.nbytes
    assert sys.getsizeof(payload) >= payload.nbytes >= 800_000


def test_functions_of_a_session_travel() -> None:
    factor = 3

    def local(x: float) -> float:
        return factor * x

    program: Any = Payload.of(job(program=Holder(function=local))).load().program
    assert program.function(2.0) == 6.0
    assert "Payload" in repr(Payload.of(job()))


LOCK = threading.Lock()


def test_the_culprit_is_named() -> None:
    lock = threading.Lock()

    def uses_a_closure(x: float) -> float:
        with lock:
            return x

    cases: list[tuple[Holder, str]] = [
        (Holder(lock=lock), "program.lock"),
        (Holder(nested={"deep": [1, Holder(it=lock)]}), "program.nested['deep'][1].it"),
        (Holder(function=uses_a_closure), "program.function -> variable 'lock'"),
        (
            Holder(function=functools.partial(uses_a_closure, x=1.0)),
            "program.function.func -> variable 'lock'",
        ),
        (Holder(call=Holder(lock=lock).prepare), "program.call.__self__.lock"),
    ]
    for program, path in cases:
        with pytest.raises(NotPicklableError, match="must be picklable") as caught:
            Payload.of(job(program=program))
        assert caught.value.path == path  # type: ignore[attr-defined]
        assert path in str(caught.value)
        assert "distributed=False" in str(caught.value)


def test_data_that_cannot_travel_is_named() -> None:
    with pytest.raises(NotPicklableError, match=r"the data must be picklable.*data\['lock'\]"):
        Payload.of(job({"lock": LOCK}))
    with pytest.raises(NotPicklableError, match=r"data is .*generator"):
        Payload.of(job(x for x in range(3)))
