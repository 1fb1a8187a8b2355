"""Finding agents: by id, by capability, all of them.

Knows: the ledger's rows. Must not know: hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dspex.agents.handle import AgentHandle
from dspex.cluster.agents.runtime import Runtime, current_runtime, runtime_of
from dspex.errors import InvalidArgumentError

__all__ = ["find_agents_by_capability", "get_agent", "list_agents"]


def _runtime(foundation: Any) -> Runtime:
    return current_runtime() if foundation is None else runtime_of(foundation)


def get_agent(id: str, *, namespace: str | None = None, foundation: Any = None) -> AgentHandle:
    """The handle of an agent that is there; in async code, await it.

    Raises
    ------
    AgentNotFoundError

    Examples
    --------
    >>> import dspex
    >>> from dspex.agents import create_agent
    >>> with dspex.connect("local") as foundation:
    ...     made = create_agent(list, id="doc-get", foundation=foundation)
    ...     get_agent("doc-get", foundation=foundation) == made
    True
    """
    runtime = _runtime(foundation)
    space = runtime.space(namespace)
    return runtime.run(_get(runtime, f"{space}:{id}"))


async def _get(runtime: Runtime, key: str) -> AgentHandle:
    row = await runtime.caller.read("agents.row", key=key)
    return AgentHandle(key, row["name"], runtime)


def list_agents(
    foundation: Any = None, *, namespace: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """All agents, with status, host and load, the least loaded first; in async code, await it.

    Parameters
    ----------
    foundation : Foundation, optional
    namespace : str, optional
        None: that of the foundation.
    limit : int, optional

    Returns
    -------
    list of dict
        id, name (of the class), status, reason, host, incarnation, persistence, failover,
        capabilities, load (messages that wait), restarts.

    Examples
    --------
    >>> import dspex
    >>> from dspex.agents import create_agent
    >>> with dspex.connect("local") as foundation:
    ...     made = create_agent(list, id="doc-list", foundation=foundation)
    ...     [(each["id"], each["status"]) for each in list_agents(foundation)]
    [('doc-list', 'running')]
    """
    runtime = _runtime(foundation)
    return runtime.run(_list(runtime, namespace, (), "any", limit))


async def _list(
    runtime: Runtime,
    namespace: str | None,
    capabilities: Sequence[str],
    match: str,
    limit: int | None,
) -> list[dict[str, Any]]:
    space = runtime.space(namespace)
    rows = await runtime.caller.read(
        "agents.list",
        prefix=f"{space}:",
        capabilities=list(capabilities),
        match=match,
        limit=limit,
    )
    return [{"id": row.pop("key").partition(":")[2], **row} for row in rows]


def find_agents_by_capability(
    name: str | Sequence[str],
    *,
    match: str = "any",
    where: Callable[[dict[str, Any]], bool] | None = None,
    order_by: str = "load",
    limit: int | None = None,
    namespace: str | None = None,
    foundation: Any = None,
) -> list[AgentHandle]:
    """Agents that have a capability; in async code, await it.

    Parameters
    ----------
    name : str or list of str
    match : "any" or "all"
        Of several.
    where : callable, optional
        Row (as of `list_agents`) to bool.
    order_by : "load" or a field of the rows
        load: fewest waiting messages first, then the least loaded worker.
    limit : int, optional

    Returns
    -------
    list of AgentHandle

    Examples
    --------
    >>> import dspex
    >>> from dspex.agents import create_agent
    >>> with dspex.connect("local") as foundation:
    ...     options = {"capabilities": ["review"], "foundation": foundation}
    ...     made = create_agent(list, id="doc-find", **options)
    ...     find_agents_by_capability("review", foundation=foundation) == [made]
    True
    """
    runtime = _runtime(foundation)
    names = [name] if isinstance(name, str) else list(name)
    if match not in ("any", "all"):
        raise InvalidArgumentError(f'match is "any" or "all"; got {match!r}')
    return runtime.run(_find(runtime, names, match, where, order_by, limit, namespace))


async def _find(
    runtime: Runtime,
    names: Sequence[str],
    match: str,
    where: Callable[[dict[str, Any]], bool] | None,
    order_by: str,
    limit: int | None,
    namespace: str | None,
) -> list[AgentHandle]:
    space = runtime.space(namespace)
    rows = await _list(runtime, namespace, names, match, None)
    if where is not None:
        rows = [row for row in rows if where(row)]
    if order_by != "load":
        if rows and order_by not in rows[0]:
            raise InvalidArgumentError(
                f"order_by is a field of {sorted(rows[0])}; got {order_by!r}"
            )
        rows.sort(key=lambda row: row[order_by])
    return [AgentHandle(f"{space}:{row['id']}", row["name"], runtime) for row in rows[:limit]]
