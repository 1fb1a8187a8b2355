"""What operators set and see: TLS, the preload's options, metrics, health, the audit log."""

from __future__ import annotations

import json
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client, Security

import dspex
from dspex.errors import QuotaExceededError
from dspex.storage.journals.sqlite import SqliteJournal
from dspex.testing.clusters import local_cluster
from dspex.testing.processes import SchedulerProcess


def page(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def dashboard(scheduler: SchedulerProcess) -> str:
    found = re.search(r"dashboard at:\s+(http://127\.0\.0\.1:\d+)", scheduler.log)
    assert found, scheduler.log
    return found[1]


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Any]:
    temporary: Any = Security.temporary
    with local_cluster(1, security=temporary(), protocol="tls://") as cluster:
        yield cluster


@pytest.mark.parametrize("kind", ["client", "cluster"])
def test_all_of_it_works_over_tls(encrypted: Any, kind: str) -> None:
    make: Any = Client
    with make(encrypted, set_as_default=False) as client:
        given = client if kind == "client" else encrypted
        assert client.scheduler.address.startswith("tls://")
        with dspex.connect(given, namespace=kind) as foundation:
            (member,) = foundation.members()
            assert member.address.startswith("tls://")
            foundation.registry.register("k", 1, capabilities=["c"])
            assert foundation.registry.lookup("k", consistency="eventual").value == 1
            foundation.state_store.put("large", b"x" * 3_000_000)
            assert len(foundation.state_store.get("large")) == 3_000_000
            with (
                foundation.lock("l") as lock,
                foundation.resources.acquire("fit", cpu_cores=1) as lease,
            ):
                assert lock.is_held
                assert lease.worker == member.address


def test_the_preload_takes_its_settings_from_dasks_configuration(tmp_path: pathlib.Path) -> None:
    variables = {
        "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "['dspex.preload']",
        "DASK_DSPEX__JOURNAL": f"sqlite:///{tmp_path}/journal.db",
        "DASK_DSPEX__QUOTAS": "{'team': {'cpu_cores': 2, 'max_concurrent': 3}}",
    }
    with SchedulerProcess(None, variables=variables) as scheduler:
        with dspex.connect(scheduler.address) as foundation:
            assert foundation.journal["url"] == variables["DASK_DSPEX__JOURNAL"]
            assert foundation.journal["durable"]
            with pytest.raises(QuotaExceededError, match="team"):
                foundation.resources.acquire("fit", cpu_cores=3, tenant="team")
        assert "foundation: term 1" in scheduler.log
        scheduler.restart()
        with dspex.connect(scheduler.address) as foundation:
            assert foundation.status()["term"] == 2


def test_a_scheduler_refuses_to_start_over_a_damaged_journal_unless_told(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "journal.db"
    with SchedulerProcess(f"sqlite:///{path}") as scheduler:
        with dspex.connect(scheduler.address) as foundation:
            for number in range(50):
                foundation.state_store.put(f"k{number:02}", "a value of some length" * 50)
        scheduler.kill()
        for part in tmp_path.glob("journal.db*"):
            if part.is_file() and part.stat().st_size > 60_000:
                data = bytearray(part.read_bytes())
                data[50_000:50_040] = b"?" * 40
                part.write_bytes(data)
        scheduler.start()
        assert scheduler.wait() != 0
        assert "damaged" in scheduler.log
        repairing = SchedulerProcess(f"sqlite:///{path}", arguments=["--dspex-repair"])
        with repairing, dspex.connect(repairing.address) as foundation:
            there = foundation.state_store.keys()
            assert there == [f"k{number:02}" for number in range(len(there))]
            assert 0 < len(there) < 50
            assert "dropped" in repairing.log


def test_metrics_and_health_are_served_beside_dasks_own(tmp_path: pathlib.Path) -> None:
    with (
        SchedulerProcess(f"sqlite:///{tmp_path}/journal.db") as scheduler,
        dspex.connect(scheduler.address) as foundation,
    ):
        foundation.registry.register("k", 1)
        address = dashboard(scheduler)
        code, text = page(f"{address}/metrics")
        assert code == 200
        metrics = dict(
            line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("dspex_")
        )
        assert float(metrics["dspex_entries"]) == 1.0
        assert float(metrics["dspex_journal_ok"]) == 1.0
        assert float(metrics['dspex_calls_total{kind="records.commit"}']) == 1.0
        assert float(metrics["dspex_journal_batches_total"]) >= 1.0
        code, text = page(f"{address}/dspex/health")
        assert (code, json.loads(text)["status"]) == (200, "ok")
        # Another owner: what this scheduler says is worth nothing any more.
        usurper = SqliteJournal(tmp_path / "journal.db", takeover=True)
        usurper.open()
        usurper.close()
        with pytest.raises(ConnectionError):
            foundation.registry.register("k2", 2)
        code, text = page(f"{address}/dspex/health")
        assert code == 503
        assert "was taken over" in json.loads(text)["trouble"]


def test_the_audit_log_says_who_did_what() -> None:
    with dspex.connect("local", namespace="n") as foundation:
        with foundation.resources.acquire("fit", cpu_cores=1, tenant="team"):
            pass
        with foundation.lock("l"):
            pass
        foundation.registry.register("k", 1)
        foundation.registry.unregister("k")
        lines = [(done, what) for _, _, done, what in foundation.audit()]
        session = foundation.session
    expected = [
        ("lease", rf"\(\d+, \d+\) of 1 cpu_cores on local for fit, tenant team, to {session}"),
        ("lease ended", r"\(\d+, \d+\): released"),
        ("lock", rf"lock n/l \(\d+, \d+\) to {session}"),
        ("unlock", r"n/l \(\d+, \d+\): released"),
        ("put", rf"r:n/k version \d+ by {session}"),
        ("drop", "r:n/k: dropped"),
    ]
    found = [line for line in lines if line[0] not in ("session", "member")]
    assert len(found) == len(expected)
    for (done, what), (wanted, pattern) in zip(found, expected, strict=True):
        assert done == wanted
        assert re.fullmatch(pattern, what), what
