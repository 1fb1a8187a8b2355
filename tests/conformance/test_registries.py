"""The registry's backends keep the promises of the port, and the handle its own on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from dspex.cluster.foundation.bridge import LoopBridge
from dspex.cluster.foundation.calls import LedgerCaller
from dspex.cluster.foundation.local import open_local
from dspex.foundation.handles.backend import LedgerBackend
from dspex.testing.backends import MemoryBackend
from dspex.testing.registries import BackendConformance
from dspex.testing.registry_handles import RegistryConformance


class TestMemoryBackend(BackendConformance):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return MemoryBackend()


class TestRegistryInMemory(RegistryConformance):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return MemoryBackend()


@pytest.fixture
def local_caller(bridge: LoopBridge) -> Iterator[LedgerCaller]:
    """One session of a ledger in this process."""
    stack = AsyncExitStack()

    async def opened() -> LedgerCaller:
        caller, _ = await stack.enter_async_context(open_local())
        opened_until = caller.lease_ends()
        while caller.lease_ends() == opened_until:
            await asyncio.sleep(0)  # its first renewal is on its way
        return caller

    yield bridge.run(opened())
    bridge.run(stack.aclose())


class TestLocalBackend(BackendConformance):
    @pytest.fixture
    def backend(self, local_caller: LedgerCaller) -> LedgerBackend:
        return LedgerBackend(local_caller, shared=False)


class TestRegistryOnALocalLedger(RegistryConformance):
    @pytest.fixture
    def caller(self, local_caller: LedgerCaller) -> LedgerCaller:
        return local_caller

    @pytest.fixture
    def backend(self, local_caller: LedgerCaller) -> LedgerBackend:
        return LedgerBackend(local_caller, shared=False)
