"""Messages from one agent to another, or from a user to one.

Knows: handles, the turn that is under way. Must not know: what is in a message, how it travels.
"""

from __future__ import annotations

from typing import Any

from dspex.agents.answer import AgentFuture
from dspex.agents.handle import AgentHandle
from dspex.agents.settling import chained
from dspex.cluster.agents.runtime import Runtime, current_runtime
from dspex.cluster.agents.turns import current_turn
from dspex.errors import InvalidArgumentError

__all__ = ["coordinate_agents", "handle_of", "runtime_for"]


def coordinate_agents(
    sender: Any,
    receiver: Any,
    message: Any,
    *,
    delivery: str = "auto",
    timeout: float | str | None = None,
    reply: bool = False,
) -> AgentFuture:
    """Send a message from one agent to another: ``on_message(message, sender)`` is called there.

    Parameters
    ----------
    sender : AgentHandle, id or None
        Who it is from; the receiver gets it as a handle. None or "client": from outside of agents,
        and the receiver gets None. An agent that is named where none of its methods runs (by a
        user, in a task) sends nothing itself: the message goes out on its behalf, numbered by the
        session of whoever calls this.
    receiver : AgentHandle or id
    message : Any
        Picklable.
    delivery : "auto", "at_most_once", "at_least_once" or "exactly_once"
        auto: exactly once where the receiver keeps its state, else at most once.
    timeout : float or str, optional
        Seconds in which it is to take effect.
    reply : bool
        Whether the future gives what `on_message` returned; else it gives None.

    Returns
    -------
    AgentFuture
        Done when the message has taken effect, or with the error of that. In a method of an agent,
        with ``reply=False`` and delivery "auto" or "exactly_once", the message is part of the call
        that is under way: it leaves when that is committed, and never where that raises; the future
        is done at once.

    Raises
    ------
    InvalidArgumentError

    Examples
    --------
    >>> from dspex.agents import Agent, create_agent
    >>> class Clerk(Agent):
    ...     def on_message(self, message, sender):
    ...         return f"{message}, from {sender and sender.id}"
    >>> clerk = create_agent(Clerk, id="doc-bridge", distribution="local")
    >>> coordinate_agents(None, clerk, "a letter", reply=True).result()
    'a letter, from None'
    >>> coordinate_agents("boss", clerk, "a letter", reply=True).result()
    'a letter, from boss'
    """
    runtime = runtime_for(receiver, sender)
    to = handle_of(receiver, runtime)
    by = None if sender is None or sender == "client" else handle_of(sender, runtime)
    args = (message, by)
    if not reply and current_turn() is not None and delivery in ("auto", "exactly_once"):
        if timeout is not None:
            raise InvalidArgumentError(
                "in an agent a message leaves with the call that sends it, and is sent until it "
                f"arrives; got timeout={timeout!r}; leave it out, or use reply=True"
            )
        to.cast("on_message", args, delivery=delivery)
        sent = AgentFuture(describe=f"{to.id}.on_message")
        sent.set_result(None)
        return sent
    called = to.call("on_message", args, timeout=timeout, delivery=delivery)

    def answer_of(called: AgentFuture) -> Any:
        try:
            answer = called.result()
        except AttributeError as error:
            if "has no attribute 'on_message'" not in str(error):
                raise
            raise InvalidArgumentError(
                "coordinate_agents calls on_message(message, sender) of the receiver; the class of "
                f"{to.id!r} has no such method; add it, or call another by the handle"
            ) from error
        return answer if reply else None

    return chained(called, answer_of)


def runtime_for(*agents: Any) -> Runtime:
    """The way to some agents: of the first handle, else the current one."""
    for agent in agents:
        if isinstance(agent, AgentHandle):
            return agent._reached()
    return current_runtime()


def handle_of(agent: Any, runtime: Runtime) -> AgentHandle:
    """The handle of an agent that is given as one, or by its id.

    An id is one of the namespace of the agent in whose call it is used, else of the foundation's.

    Raises
    ------
    InvalidArgumentError
    """
    if isinstance(agent, AgentHandle):
        return agent
    if not isinstance(agent, str) or not agent:
        raise InvalidArgumentError(f"an agent is given by its handle or its id; got {agent!r:.80}")
    turn = current_turn()
    space = runtime.namespace if turn is None else turn.key.partition(":")[0]
    return AgentHandle(f"{space}:{agent}", "Agent", runtime)
