"""The journals that are shipped keep the promises of the port."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.storage.journals.memory import MemoryJournal
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.journals import DurableJournalConformance, JournalConformance, JournalOpener


class TestMemoryJournal(JournalConformance):
    @pytest.fixture
    def opener(self) -> JournalOpener:
        return lambda takeover=False: MemoryJournal()


class TestSqliteJournal(DurableJournalConformance):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> JournalOpener:
        path = tmp_path / "journal.db"
        return lambda takeover=False: SqliteJournal(path, patience=0.0, takeover=takeover)
