"""An agent that lives here: the user's object, its state, one turn of it.

Knows: classes, hooks, pickles. Must not know: mailboxes, the ledger, the network.

What a turn changed is found by pickling: of an `Agent` the touched keys of its state, of any other
object its whole state, compared with what was committed. A turn that raises is undone.

Keys of the kept state that begin with a zero byte are ours: the version of the class, timers, and
the one pickle of an object that is not an `Agent`.
"""

from __future__ import annotations

import inspect
import pickle
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, final

import cloudpickle

from dspex.cluster.agents.turns import Timer, TurnContext
from dspex.cluster.agents.wholes import made_again, shown, taken
from dspex.errors import AgentFailedError, AgentRaisedError, StateIncompatibleError
from dspex.foundation.agents.tracked import TrackedState

__all__ = [
    "NO_CHANGES",
    "Changes",
    "Outcome",
    "Resident",
    "dumps",
    "error_bytes",
    "load_class",
    "loads",
]

WHOLE = "\0whole"
VERSION = "\0version"
TIMER = "\0timer:"

NO_ARGS = pickle.dumps(((), {}), protocol=5)
NOTHING = pickle.dumps(None, protocol=5)

loads = pickle.loads


def dumps(value: Any) -> bytes:
    """Pickle, with cloudpickle where plain pickle cannot."""
    if value is None:
        return NOTHING
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:
        packed: bytes = cloudpickle.dumps(value)
        return packed


def error_bytes(error: BaseException) -> bytes:
    """Pickle an error with its traceback as text; one that cannot be pickled is told in words."""
    told = "".join(traceback.format_exception(error)).rstrip()
    try:
        if not isinstance(error, Exception):
            raise TypeError("sys.exit() of an agent is not to end whoever called it")
        packed = dumps((error, told))
        loads(packed)
    except Exception:
        words = AgentRaisedError(
            f"an agent's method raised {type(error).__name__}: {error}, which cannot be given on "
            "as it is; its traceback is a note of this error"
        )
        return dumps((words, told))
    return packed


class Changes(NamedTuple):
    """What a turn changed, of what is kept."""

    changed: Mapping[str, bytes]
    deleted: Sequence[str]


NO_CHANGES = Changes({}, ())


class Outcome(NamedTuple):
    """What came of a turn.

    Attributes
    ----------
    is_ok : bool
    payload : bytes
        The pickled result, or error.
    changes : Changes
    context : TurnContext
        What it sent, and which timers it set.
    """

    is_ok: bool
    payload: bytes
    changes: Changes
    context: TurnContext


_outcome: Callable[[tuple[bool, bytes, Changes, TurnContext]], Outcome] = partial(
    tuple.__new__, Outcome
)
"""What `Outcome._make` does, without a call in between."""


@final
class Resident:
    """The object of an agent.

    Parameters
    ----------
    cls : type
    is_kept : bool
        Whether its state is persistent.
    """

    __slots__ = ("_cls", "committed", "is_kept", "object", "sent", "state", "timers")

    def __init__(self, cls: type, *, is_kept: bool) -> None:
        self._cls = cls
        self.is_kept = is_kept
        self.object: Any = None
        self.state: TrackedState | None = None
        self.committed: dict[str, bytes] = {}
        self.sent = 0
        self.timers: dict[str, Timer] | None = None

    # --- life --------------------------------------------------------------------------------

    def make(self, args: bytes, context: TurnContext) -> Any:
        """Make it for the first time; gives an awaitable where its hook is one."""
        positional, named = loads(args or NO_ARGS)
        self.object = self._cls(*positional, **named)
        self._adopt()
        return self._hook("on_start", context)

    def restore(
        self, args: bytes, kept: Mapping[str, bytes], context: TurnContext, version: int
    ) -> Any:
        """Make it again from what was kept; gives an awaitable where its hook is one.

        Raises
        ------
        StateIncompatibleError
        """
        self.committed = dict(kept)
        try:
            if issubclass(self._cls, _Stateful):
                positional, named = loads(args or NO_ARGS)
                self.object = self._cls(*positional, **named)
                values = {key: loads(data) for key, data in kept.items() if key[:1] != "\0"}
                self._adopt()
                assert self.state is not None
                self.state.__init__(values)
            else:
                self.object = self._again(kept)
            if not self.is_kept:
                self.committed = {}
            self.timers = {
                key[len(TIMER) :]: loads(data)
                for key, data in kept.items()
                if key.startswith(TIMER)
            } or None
        except Exception as error:
            raise StateIncompatibleError(
                f"the kept state of an agent of {self._cls.__qualname__} cannot be read here "
                f"({type(error).__name__}: {error}); use the code that wrote it"
            ) from error
        before = loads(kept[VERSION]) if VERSION in kept else 0
        if before != version:
            migrate = getattr(self.object, "migrate_state", None)
            if migrate is None:
                raise StateIncompatibleError(
                    f"the state is of version {before} and {self._cls.__qualname__} of version "
                    f"{version}; give the class migrate_state(from_version), or use the code that "
                    "wrote it"
                )
            context.call(migrate, before)
        return self._hook("on_restore", context)

    def _again(self, kept: Mapping[str, bytes]) -> Any:
        return made_again(self._cls, loads(kept[WHOLE]))

    def _adopt(self) -> None:
        if isinstance(self.object, _Stateful):
            found = self.object.state
            if isinstance(found, TrackedState):
                self.state = found

    def _hook(self, name: str, context: TurnContext) -> Any:
        hook = getattr(self.object, name, None)
        return None if hook is None else context.call(hook)

    def first_changes(self, context: TurnContext, version: int) -> Changes:
        """What is to be kept after it was made or restored."""
        changes = self.capture(context)
        if self.is_kept and version and self.committed.get(VERSION) != dumps(version):
            changes = Changes({**changes.changed, VERSION: dumps(version)}, changes.deleted)
        self.accept(changes, context)
        return changes

    # --- turns -------------------------------------------------------------------------------

    def method(self, name: str) -> Callable[..., Any]:
        """A method by its name.

        Raises
        ------
        AttributeError
        """
        if name.startswith("_"):
            raise AttributeError(
                f"methods of agents that begin with an underscore are not called; got {name!r}"
            )
        found = getattr(self.object, name)
        if not callable(found):
            raise AttributeError(
                f"{type(self.object).__name__}.{name} is no method; add a method that returns it"
            )
        return found  # type: ignore[no-any-return]

    def is_async(self, name: str) -> bool:
        """Whether a method, or what a timer calls, is a coroutine function."""
        if name.startswith(TIMER):
            timer = (self.timers or {}).get(name[len(TIMER) :])
            return timer is not None and _is_coroutine(self._cls, timer.method)
        return _is_coroutine(self._cls, name)

    def run(self, name: str, args: bytes, context: TurnContext) -> Outcome:
        """Run a turn in this thread."""
        try:
            if name[:1] == "\0":
                name, args = self._called(name, args, context)
                if not name:
                    return Outcome(True, NOTHING, NO_CHANGES, context)
            method = self.method(name)
            if args == NO_ARGS or not args:
                result = context.call(method)
            else:
                positional, named = loads(args)
                result = context.call(method, *positional, **named)
            return self._succeeded(result, context)
        except BaseException as error:  # sys.exit() ends the turn, and not the worker's thread
            return self._failed(error, context)

    async def run_async(self, name: str, args: bytes, context: TurnContext) -> Outcome:
        """Run a turn on this loop."""
        try:
            name, args = self._called(name, args, context)
            if not name:
                return Outcome(True, NOTHING, NO_CHANGES, context)
            positional, named = loads(args or NO_ARGS)
            result = await context.call_async(self.method(name), *positional, **named)
            return self._succeeded(result, context)
        except (Exception, SystemExit) as error:
            return self._failed(error, context)

    def _called(self, name: str, args: bytes, context: TurnContext) -> tuple[str, bytes]:
        """What to call: of a timer what it says; one that rings once ends with this turn."""
        if not name.startswith(TIMER):
            return name, args
        timer = (self.timers or {}).get(name[len(TIMER) :])
        if timer is None:
            return "", b""  # it ended after it rang
        if not timer.repeats:
            context.set_timer(name[len(TIMER) :], None)
        return timer.method, timer.args

    def _succeeded(self, result: Any, context: TurnContext) -> Outcome:
        payload = dumps(result)
        changes = self.capture(context)
        self.accept(changes, context)
        return _outcome((True, payload, changes, context))

    def _failed(self, error: BaseException, context: TurnContext) -> Outcome:
        context.undo()
        self.undo()
        on_error = getattr(self.object, "on_error", None)
        if on_error is not None:
            try:
                context.call(on_error, error)
                changes = self.capture(context)
                self.accept(changes, context)
                return Outcome(False, error_bytes(error), changes, context)
            except (Exception, SystemExit) as second:
                context.undo()
                self.undo()
                error.add_note(f"on_error raised, too: {second!r}")
        return Outcome(False, error_bytes(error), NO_CHANGES, context)

    def capture(self, context: TurnContext) -> Changes:
        """What is different from what was committed."""
        if not self.is_kept:
            return NO_CHANGES
        changed: dict[str, bytes] = {}
        deleted: list[str] = []
        if self.state is not None:
            changed, deleted = self.state.changes(self.committed, dumps)
        elif not isinstance(self.object, _Stateful):
            data = dumps(taken(self.object))
            if data != self.committed.get(WHOLE):
                changed[WHOLE] = data
        for name, timer in context.timers.items():
            key = TIMER + name
            if timer is None:
                if key in self.committed:
                    deleted.append(key)
            else:
                changed[key] = dumps(timer)
        return Changes(changed, deleted) if changed or deleted else NO_CHANGES

    def accept(self, changes: Changes, context: TurnContext) -> None:
        """Take what a turn changed for committed: the next one begins with it."""
        if context.timers:
            self._accept_timers(context)
        if self.state is not None:
            self.state.accept()
        if changes is not NO_CHANGES:
            self.committed.update(changes.changed)
            for key in changes.deleted:
                self.committed.pop(key, None)

    def _accept_timers(self, context: TurnContext) -> None:
        if self.timers is None:
            self.timers = {}
        for name, timer in context.timers.items():
            if timer is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = timer

    def undo(self) -> None:
        """Take back what a turn that raised has changed."""
        if self.state is not None:
            if self.is_kept:
                self.state.undo(self.committed, loads)
            else:
                self.state.undo_bindings()
        elif self.is_kept and WHOLE in self.committed:
            self.object = self._again(self.committed)

    def snapshot(self) -> Any:
        """The state for people: a dict of an `Agent`'s, else what the object says of itself."""
        if self.state is not None:
            return dict(self.state.values_as_they_are())
        return shown(self.object)

    def parcel(self) -> dict[str, bytes]:
        """Everything, for a move of an agent whose state is not kept."""
        parcel = {TIMER + name: dumps(timer) for name, timer in (self.timers or {}).items()}
        parcel[VERSION] = dumps(int(getattr(self._cls, "version", 0) or 0))
        if self.state is None:
            return {WHOLE: dumps(taken(self.object)), **parcel}
        values = self.state.values_as_they_are()
        return {**{key: dumps(value) for key, value in values.items()}, **parcel}


@lru_cache(maxsize=4_096)
def _is_coroutine(cls: type, name: str) -> bool:
    return inspect.iscoroutinefunction(getattr(cls, name, None))


class _StatefulMeta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(getattr(instance, "state", None), TrackedState)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return bool(getattr(subclass, "__dspex_agent__", False))


class _Stateful(metaclass=_StatefulMeta):
    """What has a tracked state: `dspex.agents.Agent`, which this room does not know."""

    state: TrackedState


def load_class(code: bytes) -> type:
    """Make a class again.

    Raises
    ------
    AgentFailedError
    """
    try:
        cls = loads(code)
    except Exception as error:
        raise AgentFailedError(
            f"an agent's class must be importable where it lives; its unpickling raised "
            f"{type(error).__name__}: {error}; install its module on the workers"
        ) from error
    if not isinstance(cls, type):
        raise AgentFailedError(f"an agent is made of a class; got {cls!r:.80}")
    return cls
