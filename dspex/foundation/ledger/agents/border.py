"""What hosts and creators send, checked before anything is decided.

Knows: shapes. Must not know: agents that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dspex.errors import AgentExistsError, InvalidRequestError

__all__ = ["check_turn", "checked_agents", "checked_failure", "refuse_taken"]


def checked_agents(made: Iterable[Any]) -> list[tuple[str, bytes]]:
    """The keys and the arguments of the agents of a creation.

    Raises
    ------
    InvalidRequestError
    """
    agents = [_checked_agent(each) for each in made]
    if len({key for key, _ in agents}) < len(agents):
        raise InvalidRequestError("an id is given once in a creation; got one twice")
    return agents


def refuse_taken(there: Mapping[str, str], name: str, *, is_welcome: bool) -> None:
    """Refuse ids that name agents already.

    Parameters
    ----------
    there : mapping of key to str
        Agents that are there, and the names of their classes.
    name : str
        Of the class that is to be created.
    is_welcome : bool
        Whether one of the same class will do.

    Raises
    ------
    AgentExistsError
    """
    if there and not is_welcome:
        raise AgentExistsError(
            f"an id names one agent; {next(iter(there)).partition(':')[2]!r} is there already"
            + (f", and {len(there) - 1} more" if len(there) > 1 else "")
            + '; use another id, or on_conflict="existing"'
        )
    for key, other in there.items():
        if other != name:
            raise AgentExistsError(
                f"an existing agent is taken if it is of the same class; {key!r} is a {other}, "
                f"not a {name}; use another id"
            )


def _checked_agent(made: Any) -> tuple[str, bytes]:
    if isinstance(made, list | tuple) and len(made) == 2:
        key, args = made
        is_key = isinstance(key, str) and 2 <= len(key) <= 512 and key.isprintable() and ":" in key
        if is_key and isinstance(args, bytes):
            return key, args
    raise InvalidRequestError(
        f"an agent is a key of at most 512 printable characters and its arguments; got {made!r:.80}"
    )


def check_turn(turn: Any) -> None:
    """Refuse what is no turn.

    Raises
    ------
    InvalidRequestError
    """
    if not (
        isinstance(turn, dict)
        and turn.keys() <= _TURN.keys()
        and turn.keys() >= {"a", "i"}
        and all(_TURN[name](value) for name, value in turn.items())
    ):
        raise InvalidRequestError(f"a turn is a map of what it changed; got {turn!r:.120}")


def checked_failure(failure: Any) -> tuple[str, tuple[int, int], Any, str]:
    """What a host says of an agent that it could not make.

    Raises
    ------
    InvalidRequestError
    """
    if isinstance(failure, list | tuple) and len(failure) == 4:
        key, token, error, words = failure
        is_whole = _is_token(token) and _is_error(error) and isinstance(words, str)
        if isinstance(key, str) and is_whole:
            return key, (token[0], token[1]), error, words
    raise InvalidRequestError(
        f"a failure is a key, an incarnation, an error and words; got {failure!r:.120}"
    )


def _is_token(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(each, int) for each in value)
    )


def _is_error(value: Any) -> bool:
    """Whether it is what `error_payload` gives."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and isinstance(value[0], str)
        and isinstance(value[1], str)
        and isinstance(value[2], dict)
        and all(
            isinstance(name, str) and isinstance(each, str | int | float | bool | type(None))
            for name, each in value[2].items()
        )
    )


def _is_changes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(data, bytes) for name, data in value.items()
    )


def _is_list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list | tuple) and all(isinstance(each, kind) for each in value)
    )


def _is_sent(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, list | tuple)
        and len(each) == 5
        and isinstance(each[0], int)
        and isinstance(each[1], str)
        and isinstance(each[2], str)
        and isinstance(each[3], bytes)
        for each in value
    )


def _is_answer(answer: Any) -> bool:
    return (
        isinstance(answer, list | tuple)
        and len(answer) == 6
        and isinstance(answer[0], str)
        and isinstance(answer[1], int)
        and isinstance(answer[2], int)
        and isinstance(answer[3], bool)
        and (answer[4] is None or isinstance(answer[4], bytes))
        and isinstance(answer[5], int)
    )


_TURN: Mapping[str, Callable[[Any], bool]] = {
    "a": lambda value: isinstance(value, str),
    "i": _is_token,
    "s": _is_changes,
    "d": _is_list_of(str),
    "r": _is_answer,
    "o": _is_sent,
    "k": _is_list_of(int),
    "n": lambda value: isinstance(value, int),
    "t": lambda value: value == 1,
    "m": lambda value: value is None or isinstance(value, bytes),
    "e": lambda value: value == 1,
}
"""{field of a turn, see `Agent.take`: whether a value is one}; ``m``: let go, with its parcel;
``e``: stopped."""
