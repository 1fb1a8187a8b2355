"""The journal in etcd keeps the promises of the port, in a real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from dspex.storage.journals.etcd import EtcdJournal
from dspex.testing.etcd import EtcdServers, needs_etcd
from dspex.testing.journals import DurableJournalConformance, JournalOpener

pytestmark = needs_etcd
_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServers]:
    with EtcdServers() as servers:
        yield servers


class TestEtcdJournal(DurableJournalConformance):
    @pytest.fixture
    def opener(self, etcd: EtcdServers) -> JournalOpener:
        url = etcd.url(f"journal-{next(_prefixes)}")
        return lambda takeover=False: EtcdJournal(url, patience=0.0, takeover=takeover, lease=3.0)
