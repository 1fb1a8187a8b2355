"""Atomic objects as models: which results they can give, one operation after the other.

Knows: states and operations. Must not know: processes, time, histories.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, NamedTuple, Protocol, final

from dspex.testing.histories import UNKNOWN

__all__ = ["CONFLICT", "REFUSED", "Model", "Register"]

CONFLICT: Final = "conflict"
"""The result of a `Register`'s "compare_and_set" that found another version."""


@final
class _Refused:
    """The class of `REFUSED`."""

    def __repr__(self) -> str:
        return "REFUSED"


REFUSED: Final = _Refused()
"""What `Model.step` gives where an operation cannot have this result in this state."""


class Model(Protocol):
    """An object without concurrency, as a pure function of its states."""

    @property
    def initial(self) -> Hashable:
        """The state before anything has happened."""

    def step(self, state: Any, op: str, args: tuple[Any, ...], result: Any) -> Hashable:
        """Give the state after an operation, `REFUSED` where it cannot give this result.

        The result may be `UNKNOWN`: then any would be right. A result that the object is free
        to choose (a version) is learned from here.
        """

    def changes(self, op: str, args: tuple[Any, ...], result: Any) -> bool:
        """Whether an operation with this result changes the object in any state.

        True is always right; False where it is right makes searches short.
        """


class _Cell(NamedTuple):
    """The state of a register.

    Attributes
    ----------
    is_there : bool
    value : Hashable
    version : int or None
        None where it is not known, because the write's answer was lost; more than `floor`.
    floor : int
        The largest version that is known to have been.
    """

    is_there: bool
    value: Any
    version: int | None
    floor: int

    def __str__(self) -> str:
        if not self.is_there:
            return f"absent (versions up to {self.floor} are gone)"
        version = f"> {self.floor}" if self.version is None else self.version
        return f"{self.value!r} of version {version}"


_WITHOUT_EFFECT = {("delete", False), ("compare_and_set", CONFLICT)}


@final
class Register:
    """One value with a version, which may be absent; versions grow, over deletions too.

    ================  =================  ==================================================
    op                args               result
    ================  =================  ==================================================
    get                                  (value, version), None where it is absent
    put               value              version
    delete                               whether it was there
    compare_and_set   version, value     version, `CONFLICT`; version 0 means that it is absent
    ================  =================  ==================================================

    A version of None in a result, and None as that of delete, was not recorded.

    Examples
    --------
    >>> register = Register()
    >>> state = register.step(register.initial, "put", ("a",), 3)
    >>> register.step(state, "get", (), ("a", 3)) == state
    True
    >>> register.step(state, "get", (), None), register.step(state, "put", ("b",), 2)
    (REFUSED, REFUSED)
    """

    initial: Hashable = _Cell(False, None, 0, 0)

    def step(self, state: _Cell, op: str, args: tuple[Any, ...], result: Any) -> Hashable:
        """Give the state after an operation, `REFUSED` where it cannot give this result."""
        match op, args:
            case "get", ():
                return self._get(state, result)
            case "put", (value,):
                return self._put(state, value, result)
            case "delete", ():
                if result not in (UNKNOWN, None, state.is_there):
                    return REFUSED
                return _Cell(False, None, 0, state.floor)
            case "compare_and_set", (int(expected), value):
                return self._compare_and_set(state, expected, value, result)
        raise ValueError(f"a register knows get, put, delete, compare_and_set; got {op!r} {args}")

    def changes(self, op: str, args: tuple[Any, ...], result: Any) -> bool:
        """Whether an operation with this result changes the register in any state."""
        # A get may teach which version it is, but then the register had it before.
        return op != "get" and (op, result) not in _WITHOUT_EFFECT

    def _get(self, state: _Cell, result: Any) -> Hashable:
        if result is UNKNOWN:
            return state
        if result is None or not state.is_there:
            return REFUSED if state.is_there or result is not None else state
        value, version = result
        if value != state.value:
            return REFUSED
        return state if version is None else _known(state, version)

    def _put(self, state: _Cell, value: Any, result: Any) -> Hashable:
        if result is UNKNOWN or result is None:
            return _Cell(True, value, None, state.floor)
        return _Cell(True, value, result, result) if result > state.floor else REFUSED

    def _compare_and_set(self, state: _Cell, expected: int, value: Any, result: Any) -> Hashable:
        # 1. It was refused: the state is as it was, and of another version.
        if result == CONFLICT:
            return REFUSED if state.version == expected else state
        # 2. It succeeded, so the version was the expected one, even where nobody knew it.
        before = _known(state, expected)
        if isinstance(before, _Cell):
            return self._put(before, value, result)
        # 3. Nobody knows, and it cannot have succeeded.
        return state if result is UNKNOWN else REFUSED


def _known(state: _Cell, version: int) -> _Cell | _Refused:
    """Learn the version of a state."""
    if state.version is None and version > state.floor:
        return state._replace(version=version, floor=version)
    return state if state.version == version else REFUSED
