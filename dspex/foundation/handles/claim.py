"""One object's hold on one name that the cluster gives to one at a time.

Knows: how a name is taken, given back and looked at. Must not know: what people call it.
"""

from __future__ import annotations

from typing import final

from dspex.errors import DspexError, LockTimeoutError, UnavailableError
from dspex.foundation.handles.holding import Holding, not_held, token_of
from dspex.foundation.ledger.events import Token
from dspex.foundation.ports import Caller

__all__ = ["Claim"]


@final
class Claim:
    """What one object holds of one name.

    Parameters
    ----------
    caller : Caller
    namespace, name : str
    kind : "lock" or "leader"
    what : str
        The name with words around it, for errors.
    """

    def __init__(self, caller: Caller, namespace: str, name: str, kind: str, what: str) -> None:
        self.caller = caller
        self.namespace = namespace
        self.name = name
        self.kind = kind
        self.what = what
        self.holding: Holding | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is held, as far as this process can know by itself."""
        return self.holding is not None and self.holding.is_held

    async def take(self, timeout: float | None) -> Token:
        """Wait for the name.

        Raises
        ------
        LockTimeoutError
        """
        try:
            granted = await self.caller.write(
                "locks.acquire",
                timeout=timeout,
                namespace=self.namespace,
                name=self.name,
                kind=self.kind,
            )
        except DspexError:
            raise
        except TimeoutError:
            raise LockTimeoutError(
                f"{self.what} did not become free within {timeout:g} s; wait longer"
            ) from None
        self.holding = Holding(self.caller, token_of(granted["token"]), self.what)
        return self.holding.token

    async def give(self) -> bool:
        """Give it back; False where it was lost before, or never taken."""
        # Before the call: whoever waits in another thread of this process sets it anew at once.
        holding, self.holding = self.holding, None
        if holding is None or self.caller.session != holding.session:
            return False
        try:
            return bool(
                await self.caller.write(
                    "locks.release",
                    namespace=self.namespace,
                    name=self.name,
                    token=list(holding.token),
                )
            )
        except UnavailableError:
            if not self.is_held:
                self.holding = holding  # nobody heard it; it may be said again
            raise

    async def check(self) -> None:
        """Ask the ledger; LeaseExpiredError where it is not held."""
        holding = self.holding
        if holding is None:
            raise not_held(self.what)
        await holding.check()

    async def holder(self) -> tuple[str, Token] | None:
        """Who holds the name: session and token."""
        held = await self.caller.read("locks.holder", namespace=self.namespace, name=self.name)
        return None if held is None else (held["session"], token_of(held["token"]))
