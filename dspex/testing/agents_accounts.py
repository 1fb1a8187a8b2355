"""Agents that make every error of delivery visible: accounts with a log of their operations.

Knows: agents. Must not know: who calls them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from dspex.agents.agent import Agent
from dspex.agents.handle import AgentHandle

__all__ = ["Account", "account"]


def account(name: str) -> AgentHandle:
    """The handle of an account, wherever this is called."""
    return AgentHandle(f":{name}", "dspex.testing.agents_accounts.Account")


class Account(Agent):
    """Has a balance, and knows by which operations it came about."""

    def __init__(self, balance: int) -> None:
        self._first = balance

    def on_start(self) -> None:
        """Begin."""
        self.state["balance"] = self._first
        self.state["log"] = []

    def _do(self, op: str, amount: int) -> None:
        self.state["log"].append((op, amount))
        self.state["balance"] += amount

    def deposit(self, op: str, amount: int) -> str:
        """Take money."""
        self._do(op, amount)
        return op

    async def deposit_slowly(self, op: str, amount: int, seconds: float) -> str:
        """Take money on the loop, and take long."""
        self._do(op, amount)
        await asyncio.sleep(seconds)
        return op

    def transfer(self, op: str, amount: int, *targets: str) -> str:
        """Give money away, as much to each."""
        for target in targets:
            self._do(f"{op}>{target}", -amount)
            account(target).cast("deposit", (f"{op}>{target}", amount))
        return op

    async def ask(self, op: str, amount: int, target: str) -> str:
        """Give money away, and wait until it has arrived."""
        self._do(f"{op}>{target}", -amount)
        answer = await account(target).deposit(f"{op}>{target}", amount)
        assert answer == f"{op}>{target}", f"{op} was answered {answer!r}"
        return op

    def fail(self, op: str, amount: int, target: str) -> None:
        """Give money away, and have second thoughts."""
        self._do(f"{op}!", -amount)
        account(target).cast("deposit", (f"{op}!", amount))
        raise ValueError(op)

    def read(self, op: str) -> tuple[str, int, list[Any]]:
        """Tell all."""
        return op, self.state["balance"], list(self.state["log"])
