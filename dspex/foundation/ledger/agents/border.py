"""What hosts and creators send, checked before anything is decided.

Knows: shapes. Must not know: agents that there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspex.errors import AgentExistsError, InvalidRequestError

__all__ = ["check_turn", "checked_agents", "refuse_taken"]


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
        and isinstance(turn.get("a"), str)
        and isinstance(turn.get("i"), list | tuple)
        and isinstance(turn.get("s", {}), dict)
        and isinstance(turn.get("d", ()), list | tuple)
        and isinstance(turn.get("k", ()), list | tuple)
        and isinstance(turn.get("n", 0), int)
        and _is_answer(turn.get("r"))
        and all(
            isinstance(each, list | tuple) and len(each) == 5 and isinstance(each[0], int)
            for each in turn.get("o", ())
        )
    ):
        raise InvalidRequestError(f"a turn is a map of what it changed; got {turn!r:.120}")


def _is_answer(answer: Any) -> bool:
    return answer is None or (
        isinstance(answer, list | tuple)
        and len(answer) == 6
        and isinstance(answer[0], str)
        and isinstance(answer[1], int)
        and isinstance(answer[2], int)
        and (answer[4] is None or isinstance(answer[4], bytes))
    )
