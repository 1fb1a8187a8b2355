"""Fixtures for more than one kind of test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from distributed import Client

# How long an example takes says nothing on a machine that does other work, too.
settings.register_profile("dspex", deadline=None)
settings.load_profile("dspex")

# A shell starts what it puts into the background with Ctrl-C ignored, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cluster_of() -> Iterator[Callable[[int], Client]]:
    """Make clusters of so many worker processes, which a test may harm as it likes."""
    from distributed import Client

    from dspex.testing.clusters import local_cluster

    with ExitStack() as stack:

        def make(workers: int) -> Client:
            cluster = stack.enter_context(local_cluster(workers))
            client: Client = stack.enter_context(Client(cluster, set_as_default=False))
            return client

        yield make
