"""What a user's agent class may inherit: a state that is kept, hooks, timers.

Knows: the turn that is under way. Must not know: hosts, the network.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from dspex.agents.coordinating import RESERVED_KEYS, Driver, perform
from dspex.cluster.agents.resident import dumps
from dspex.cluster.agents.turns import Timer, TurnContext, current_turn
from dspex.cluster.units import parse_seconds
from dspex.errors import InvalidArgumentError
from dspex.foundation.agents.tracked import TrackedState, refuse_unwritable

__all__ = ["Agent"]


class Agent:
    """Base of agents whose state is kept key by key; plain classes work too, as a whole.

    What is in `state` survives, whatever else is set on the object does not: after a failover the
    constructor runs again with the arguments of the creation, `state` becomes what was committed
    last, and `on_restore` is called.

    One call at a time runs; its changes of `state` are committed when it returns, and undone when
    it raises. Only keys that changed travel.

    Attributes
    ----------
    state : mutable mapping of str to picklable values
    version : int
        Of what the state looks like; `migrate_state` is called where the kept state has another.

    Notes
    -----
    Hooks, each of which may be a coroutine function: ``on_start()`` when it is created,
    ``on_restore()`` when it lives on elsewhere, ``on_stop()`` before it ends. ``on_error(error)``
    is called after a call that raised, and may not be one; what it changes is kept.
    ``on_message(message, sender)`` takes what `coordinate_agents` sends, ``on_task(task)`` and
    ``bid(task)`` what `distribute_task` hands out.

    Examples
    --------
    >>> class Counter(Agent):
    ...     def on_start(self):
    ...         self.state["n"] = 0
    ...
    ...     def increment(self, by=1):
    ...         self.state["n"] += by
    ...         return self.state["n"]
    """

    __dspex_agent__ = True
    version: int = 0
    _state: TrackedState
    _coordinated: dict[str, Driver] | None = None  # tasks that it coordinates, by their names

    def __new__(cls, *args: Any, **kwargs: Any) -> Agent:
        """Make one whose state is there before its constructor runs."""
        made = super().__new__(cls)
        made._state = TrackedState()
        return made

    @property
    def _drivers(self) -> dict[str, Driver]:
        if self._coordinated is None:
            self._coordinated = {}
        return self._coordinated

    @property
    def state(self) -> MutableMapping[str, Any]:
        """What is kept; keys that begin with "dspex:" are of tasks that it coordinates."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        for key in [key for key in self._state if not key.startswith(RESERVED_KEYS)]:
            del self._state[key]
        self._state.update(values)

    @property
    def id(self) -> str:
        """The id of this agent.

        Raises
        ------
        InvalidArgumentError
            Outside of a call.
        """
        return _turn().key.partition(":")[2]

    # --- tasks that it coordinates -----------------------------------------------------------

    def coordinate_task(self, step: str, *args: Any) -> Any:
        """Own a task; `distribute_task` calls it, with this agent as the coordinator.

        What is kept of a task lies in `state`, under keys that begin with "dspex:task:", from its
        beginning until its caller has the result, or an hour after its end.

        Raises
        ------
        InvalidArgumentError
            To anybody else.
        """
        return perform(self, step, args)

    @property
    def incarnation(self) -> tuple[int, int]:
        """(term, n): larger each time that this agent is placed on a worker.

        A fencing token: what is outside of dspex and remembers the largest one that it has seen can
        refuse a worker that was cut off and does not know it yet.

        Raises
        ------
        InvalidArgumentError
            Outside of a call.
        """
        return _turn().incarnation

    # --- timers ------------------------------------------------------------------------------

    def every(self, seconds: float | str, method: str, *args: Any, name: str = "") -> None:
        """Call a method of this agent again and again, from `seconds` after this call on.

        A timer is kept with the state, as part of the call that sets it; after a failover its
        seconds begin anew.

        Parameters
        ----------
        seconds : float or str
        method : str
        *args
            Picklable.
        name : str
            Another timer of the same name ends; the method's name where it is empty.
        """
        self._set_timer(seconds, method, args, name, repeats=True)

    def after(self, seconds: float | str, method: str, *args: Any, name: str = "") -> None:
        """Call a method of this agent once, `seconds` after this call; as `every`."""
        self._set_timer(seconds, method, args, name, repeats=False)

    def cancel_timer(self, name: str) -> None:
        """End a timer."""
        _turn().set_timer(name, None)

    def _set_timer(
        self, seconds: float | str, method: str, args: Any, name: str, *, repeats: bool
    ) -> None:
        if not callable(getattr(self, method, None)):
            raise InvalidArgumentError(
                f"a timer calls a method of its agent; {type(self).__name__} has no {method!r}"
            )
        refuse_unwritable("the name of a timer", name)
        parsed = parse_seconds("seconds", seconds)
        assert parsed is not None
        timer = Timer(parsed, method, dumps((args, {})), repeats)
        _turn().set_timer(name or method, timer)


def _turn() -> TurnContext:
    turn = current_turn()
    if turn is None:
        raise InvalidArgumentError(
            "this is known while the agent is called by its host; create it by create_agent"
        )
    return turn
