"""How a program and its data travel: packed once by the client, mapped read-only by children.

Knows: pickling (protocol 5, buffers out of band) and the layout of the data file.
Must not know: who carries a payload (Dask does, opaque) and which process loads it.

Two parts travel apart: the *program* (with its space, seed and ``retry_on``) by cloudpickle, so
that functions of ``__main__`` work, and the *data*, whose arrays stay out of the pickle: they are
sent without a copy, written to one file per worker, and mapped read-only into each child, where
the page cache holds them once.

Source: PEP 574, "Pickle protocol 5 with out-of-band data".
"""

from __future__ import annotations

import functools
import inspect
import mmap
import pickle
import secrets
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeAlias, final

import cloudpickle

from dspex.engine.ports import Job
from dspex.errors import NotPicklableError
from dspex.programs.base import Program
from dspex.space import Space

__all__ = ["LoadedJob", "Payload"]

Bytes: TypeAlias = bytes | bytearray | memoryview

# What numpy aligns its own arrays to, and what vector instructions like.
_ALIGNMENT = 64
_HEADER = 8


@final
@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A payload unpacked, its program told its data: ready for `evaluate`."""

    program: Program
    space: Space
    seed: int
    retry_on: tuple[type[BaseException], ...]


@final
class Payload:
    """A program and its data, packed.

    Made by `Payload.of`; pickles cheaply (its buffers go out of band, so Dask copies nothing).

    Attributes
    ----------
    token : str
        Names this payload among all others: made anew by each `Payload.of`, kept by copies.
    memory_limit : int or None
        Bytes that one evaluation may use.
    threads : int
        How many threads BLAS and OpenMP may use.
    nbytes : int
        What travels.

    Examples
    --------
    >>> import numpy as np
    >>> from dspex.space import Float, Space
    >>> class Sum:
    ...     def prepare(self, data):
    ...         self.data = data
    >>> job = Job(program=Sum(), space=Space({"x": Float(0, 1)}), data=np.arange(3), seed=1)
    >>> loaded = Payload.of(job).load()
    >>> loaded.program.data, loaded.program.data.flags.writeable
    (array([0, 1, 2]), False)
    """

    __slots__ = ("_buffers", "_program", "_stream", "memory_limit", "threads", "token")

    def __init__(
        self,
        token: str,
        program: Bytes,
        stream: Bytes,
        buffers: tuple[Bytes, ...],
        memory_limit: int | None,
        threads: int,
    ) -> None:
        self.token = token
        self.memory_limit = memory_limit
        self.threads = threads
        self._program = program
        self._stream = stream
        self._buffers = buffers

    @classmethod
    def of(cls, job: Job) -> Payload:
        """Pack a job.

        Raises
        ------
        NotPicklableError
            Where something cannot travel; names the attribute or variable.
        """
        program = _dumps("program", (job.program, job.space, job.seed, job.retry_on), job)
        buffers: list[Bytes] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            try:
                buffers.append(buffer.raw())
            except BufferError:  # not contiguous: it stays in the stream
                return True
            return False

        stream = _dumps("data", job.data, job, keep)
        token = secrets.token_hex(8)
        return cls(token, program, stream, tuple(buffers), job.memory_limit, job.threads)

    @property
    def nbytes(self) -> int:
        """What travels, in bytes."""
        return sum(len(memoryview(part).cast("B")) for part in self._parts())

    def load(self) -> LoadedJob:
        """Unpack the program and tell it its data, whose arrays are read-only views of this.

        Raises
        ------
        Exception
            Whatever the program's own unpickling or ``prepare`` raises.
        """
        program, space, seed, retry_on = pickle.loads(self._program)
        views = [memoryview(buffer).toreadonly() for buffer in self._buffers]
        program.prepare(pickle.loads(self._stream, buffers=views))
        return LoadedJob(program, space, seed, retry_on)

    def write(self, file: IO[bytes]) -> None:
        """Write it in the form that `map` reads."""
        lengths = [len(memoryview(part).cast("B")) for part in self._parts()]
        index = pickle.dumps((self.token, self.memory_limit, self.threads, lengths))
        position = file.write(len(index).to_bytes(_HEADER, "little"))
        position += file.write(index)
        for part in self._parts():
            position += file.write(bytes(-position % _ALIGNMENT))
            position += file.write(part)
        file.flush()

    @classmethod
    def map(cls, descriptor: int) -> Payload:
        """Read it back from an open file, without a copy: its parts are views of mapped memory."""
        view = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        position = _HEADER + int.from_bytes(view[:_HEADER], "little")
        token, memory_limit, threads, lengths = pickle.loads(view[_HEADER:position])
        parts: list[memoryview] = []
        for length in lengths:
            position += -position % _ALIGNMENT
            parts.append(view[position : position + length])
            position += length
        program, stream, *buffers = parts
        return cls(token, program, stream, tuple(buffers), memory_limit, threads)

    def _parts(self) -> Iterator[Bytes]:
        yield self._program
        yield self._stream
        yield from self._buffers

    def __repr__(self) -> str:
        return f"<Payload {self.token} of {self.nbytes} bytes>"

    # Dask asks this how much memory a worker spends on keeping it.
    def __sizeof__(self) -> int:
        return self.nbytes

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        wrap = pickle.PickleBuffer if protocol >= 5 else bytes
        parts = [wrap(part) for part in self._parts()]
        return _rebuild, (self.token, self.memory_limit, self.threads, *parts)


def _rebuild(
    token: str, limit: int | None, threads: int, program: Bytes, stream: Bytes, *rest: Bytes
) -> Payload:
    return Payload(token, program, stream, rest, limit, threads)


def _dumps(what: str, value: object, job: Job, buffer_callback: Any = None) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=buffer_callback)
    except Exception as error:
        if what == "data":
            path, culprit = _culprit("data", job.data)
        else:
            named = {"program": job.program, "space": job.space, "retry_on": job.retry_on}
            name = next((n for n, part in named.items() if not _travels(part)), "program")
            path, culprit = _culprit(name, named[name])
        raise NotPicklableError(
            f"the {what} must be picklable to travel to the processes that evaluate it; "
            f"{path} is {_short(culprit)}, which is not ({error}); make it inside the program, "
            "leave it out by __getstate__, or pass distributed=False to stay in this process",
            path=path,
        ) from error
    return packed


# --- who is to blame -----------------------------------------------------------------------


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = "an object without a repr"
    shown = text if len(text) <= 100 else f"{text[:97]}..."
    return f"{shown} of type {type(value).__name__}"


def _travels(value: object) -> bool:
    try:
        cloudpickle.dumps(value, protocol=5)
    except Exception:
        return False
    return True


def _culprit(path: str, value: object, depth: int = 12) -> tuple[str, object]:
    """Find the innermost named thing in ``value`` that cannot be pickled."""
    if depth:
        for name, part in _named_parts(value):
            if part is not value and not _travels(part):
                return _culprit(f"{path}{name}", part, depth - 1)
    return path, value


def _named_parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, types.FunctionType):
        variables = inspect.getclosurevars(value)
        for name, part in {**variables.nonlocals, **variables.globals}.items():
            yield f" -> variable {name!r}", part
        for number, part in enumerate(value.__defaults__ or ()):
            yield f" -> default {number}", part
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield from ((f".args[{n}]", part) for n, part in enumerate(value.args))
        yield from ((f".keywords[{n!r}]", part) for n, part in value.keywords.items())
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{n}]", part) for n, part in enumerate(value))
    elif isinstance(value, type):
        yield from ((f".{name}", part) for name, part in vars(value).items())
    else:
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
        yield "'s class", type(value)
