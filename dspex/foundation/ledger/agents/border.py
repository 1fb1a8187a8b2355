"""What hosts and creators send, checked before anything is decided.

Knows: shapes. Must not know: agents that there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspex.errors import AgentExistsError, InvalidRequestError
from dspex.foundation.ledger.agents.turns import is_token

__all__ = ["checked_agents", "checked_failure", "refuse_taken"]


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


def checked_failure(failure: Any) -> tuple[str, tuple[int, int], Any, str]:
    """What a host says of an agent that it could not make.

    Raises
    ------
    InvalidRequestError
    """
    if isinstance(failure, list | tuple) and len(failure) == 4:
        key, token, error, words = failure
        is_whole = is_token(token) and _is_error(error) and isinstance(words, str)
        if isinstance(key, str) and is_whole:
            return key, (token[0], token[1]), error, words
    raise InvalidRequestError(
        f"a failure is a key, an incarnation, an error and words; got {failure!r:.120}"
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
