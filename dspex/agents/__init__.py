"""Agents: objects on the cluster that keep their state, and are called by name."""

from dspex.agents.agent import Agent
from dspex.agents.answer import AgentFuture
from dspex.agents.bridge import coordinate_agents
from dspex.agents.creating import create_agent, create_agents
from dspex.agents.futures import as_completed, gather, wait
from dspex.agents.handle import AgentHandle
from dspex.agents.letters import DeadLetter, dead_letters
from dspex.agents.listing import find_agents_by_capability, get_agent, list_agents
from dspex.agents.options import Placement, RestartPolicy
from dspex.agents.retrying import RetryPolicy
from dspex.agents.task_result import TaskResult
from dspex.agents.tasks import distribute_task

__all__ = [
    "Agent",
    "AgentFuture",
    "AgentHandle",
    "DeadLetter",
    "Placement",
    "RestartPolicy",
    "RetryPolicy",
    "TaskResult",
    "as_completed",
    "coordinate_agents",
    "create_agent",
    "create_agents",
    "dead_letters",
    "distribute_task",
    "find_agents_by_capability",
    "gather",
    "get_agent",
    "list_agents",
    "wait",
]
