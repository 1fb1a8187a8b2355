"""What clients of accounts were told, and whether it is true.

Knows: operations, answers, logs of accounts. Must not know: how an operation travelled.

An operation is named ``client.number`` in the order in which its client made them; what an account
passes on is named after the operation that made it do so. So a log says of itself whether something
is there twice, or in the wrong order, and a balance whether something is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

__all__ = ["FIRST", "Claims", "Operation"]

FIRST = 1000
"""What is in an account at first."""

Log = Sequence[tuple[str, int]]

_GIVEN_UP = ("CancelledError", "DeadlineError")
"""Errors of a call for which its caller did not wait to the end."""


class Operation(NamedTuple):
    """What a client asked for.

    Attributes
    ----------
    name : str
    account : str
    method : str
    delivery : str
    targets : tuple of str
        Accounts to which money is passed on.
    """

    name: str
    account: str
    method: str
    delivery: str
    targets: tuple[str, ...]

    @property
    def effects(self) -> tuple[str, ...]:
        """What it leaves in the log of its account."""
        if self.method in ("transfer", "ask"):
            return tuple(f"{self.name}>{target}" for target in self.targets)
        return (self.name,)


@final
class Claims:
    """Collects answers, and judges them.

    Attributes
    ----------
    operations : dict of str to Operation
    acknowledged : set of str
        Names of operations that were answered with success.
    """

    def __init__(self, accounts: Sequence[str]) -> None:
        self.accounts = list(accounts)
        self.operations: dict[str, Operation] = {}
        self.acknowledged: dict[str, None] = {}
        self.failed: dict[str, str] = {}
        self._effects: dict[str, dict[str, None]] = {name: {} for name in accounts}
        self._seen: dict[str, list[tuple[str, int]]] = {name: [] for name in accounts}
        self.reads = 0

    def called(self, operation: Operation) -> None:
        """Take note of a call."""
        self.operations[operation.name] = operation

    def answered(self, operation: Operation, answer: Any) -> None:
        """Take note of its success."""
        assert answer == operation.name, f"{operation} was answered {answer!r}"
        self.acknowledged[operation.name] = None
        self._effects[operation.account].update(dict.fromkeys(operation.effects))

    def refused(self, operation: Operation, error: BaseException) -> None:
        """Take note of a call of which nobody knows now."""
        self.failed[operation.name] = type(error).__name__

    def expected(self, account: str) -> tuple[list[str], list[tuple[str, int]]]:
        """What somebody must see who reads an account from now on."""
        return list(self._effects[account]), self._seen[account]

    def read(
        self,
        account: str,
        expected: tuple[list[str], list[tuple[str, int]]],
        answer: tuple[int, Sequence[Any]],
    ) -> None:
        """Judge what was read."""
        balance, rows = answer
        log = [(op, amount) for op, amount in rows]
        effects, seen = expected
        self.reads += 1
        there = {op for op, _ in log}
        missing = [op for op in effects if op not in there]
        assert not missing, f"{account} was read without {missing}, which were acknowledged before"
        assert log[: len(seen)] == seen, (
            f"{account} was read with another past than before: {_difference(seen, log)}"
        )
        assert balance == FIRST + sum(amount for _, amount in log), (
            f"{account} has {balance}, which is not what its log says: {log}"
        )
        if len(log) > len(self._seen[account]):
            self._seen[account] = log

    # --- at the end ------------------------------------------------------------------------------

    def judge(self, logs: Mapping[str, Log]) -> None:
        """Judge what has become of all accounts."""
        for account, log in logs.items():
            self._judge_counts(account, [op for op, _ in log])
            self._judge_order(account, [op for op, _ in log])
        self._judge_transfers(logs)

    def _judge_counts(self, account: str, ops: Sequence[str]) -> None:
        for op in ops:
            name = op.partition(">")[0]
            assert not op.endswith("!"), f"{op} of {account} was undone, and is there"
            assert name in self.operations, f"nobody asked for {op} of {account}"
            delivery = self.operations[name].delivery
            many = ops.count(op)
            assert many == 1 or (delivery == "at_least_once" and op == name), (
                f"{self.operations[name]} is {many} times in {account}"
            )

    def _judge_order(self, account: str, ops: Sequence[str]) -> None:
        of_all: dict[str, tuple[int, str]] = {}
        of_once: dict[str, tuple[int, str]] = {}
        for op in dict.fromkeys(ops):
            name, _, _ = op.partition(">")
            if self._is_passed_on(account, op):
                continue  # the order of those is judged with what was given
            operation = self.operations[name]
            if name in self.failed and operation.delivery == "at_least_once":
                continue  # it may come again, late
            is_once = operation.delivery in ("auto", "exactly_once")
            client, _, number = name.partition(".")
            # An account knows what it was sent exactly once by its number. A call that was given
            # up, and comes again late, is not behind those; it may be behind others.
            is_late = is_once and self.failed.get(name) in _GIVEN_UP
            for last in ([] if is_late else [of_all]) + ([of_once] if is_once else []):
                former = last.get(client, (0, ""))
                assert former[0] <= int(number), (
                    f"{op} is after {former[1]} in {account}: {operation}"
                )
            for last in (of_all, of_once) if is_once else (of_all,):
                last[client] = max(last.get(client, (0, "")), (int(number), op))

    def _is_passed_on(self, account: str, op: str) -> bool:
        name, _, target = op.partition(">")
        return target == account and self.operations[name].account != account

    def _judge_transfers(self, logs: Mapping[str, Log]) -> None:
        given: dict[tuple[str, str], list[tuple[str, int]]] = {}
        taken: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for account, log in logs.items():
            for op, amount in log:
                name, _, target = op.partition(">")
                if not target:
                    continue
                source = self.operations[name].account
                if account == source:
                    given.setdefault((source, target), []).append((op, -amount))
                else:
                    taken.setdefault((source, account), []).append((op, amount))
        for pair in given.keys() | taken.keys():
            one, other = given.get(pair, []), taken.get(pair, [])
            assert one == other, (
                f"from {pair[0]} to {pair[1]} was given and taken differently: "
                f"{_difference(one, other)}"
            )


def _difference(one: Sequence[Any], other: Sequence[Any]) -> str:
    at = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return f"at {at} {list(one[at : at + 3])} and {list(other[at : at + 3])}"
