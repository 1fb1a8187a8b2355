"""The logs that are shipped keep the promises of the port."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspex.storage import MemoryLog, filesystem, open_log
from dspex.testing.logs import DurableLogConformance, LogConformance, Opener


class TestMemoryLog(LogConformance):
    @pytest.fixture
    def opener(self) -> Opener:
        return MemoryLog


class TestSqliteLog(DurableLogConformance):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda study="study": open_log(tmp_path / "studies.db", study)


class TestSqliteLogOnANetworkFileSystem(DurableLogConformance):
    @pytest.fixture
    def opener(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
        monkeypatch.setattr(filesystem, "mounts", lambda: [("/", "nfs4")])
        return lambda study="study": open_log(tmp_path / "studies.db", study)
