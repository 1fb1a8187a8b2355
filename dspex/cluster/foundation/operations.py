"""What operators look at: metrics for Prometheus, and a health route, beside Dask's own.

Knows: the server's status, Dask's HTTP server. Must not know: what the numbers lead to.

``/metrics`` of the scheduler carries names that begin with ``dspex_`` where ``prometheus_client``
is installed. ``/dspex/health`` answers 200 while the foundation takes changes, else 503, with
the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, final

from tornado import web

from dspex.cluster.foundation.server import LedgerServer

__all__ = ["add_health_route", "add_metrics", "health"]

# name: (kind, help, how to take it from the status)
_METRICS: dict[str, tuple[str, str, Callable[[dict[str, Any]], float]]] = {
    "term": ("gauge", "How often a scheduler has started on this journal", lambda s: s["term"]),
    "revision": ("gauge", "Number of the last entry of the ledger", lambda s: s["revision"]),
    "uncommitted": (
        "gauge",
        "Entries that are not in the journal yet",
        lambda s: s["journal"]["waiting"],
    ),
    "journal_ok": (
        "gauge",
        "1 while the journal can be written",
        lambda s: float(not s["journal"]["trouble"]),
    ),
    "journal_batches": ("counter", "Group commits", lambda s: s["journal"]["batches"]),
    "journal_seconds": ("counter", "Seconds in group commits", lambda s: s["journal"]["seconds"]),
    "loop_seconds": ("counter", "Seconds of the scheduler's loop", lambda s: s["loop_seconds"]),
    "recovery_seconds": ("gauge", "How long the last start took", lambda s: s["recovery_seconds"]),
    "sessions": ("gauge", "Clients and workers with a live session", lambda s: s["sessions"]),
    "entries": ("gauge", "Entries of registries and state stores", lambda s: s["entries"]),
    "leases": ("gauge", "Leases of resources", lambda s: s["leases"]),
    "locks": ("gauge", "Locks and leaders", lambda s: s["locks"]),
    "waiting": ("gauge", "Calls that wait for a lease or a lock", lambda s: s["waiting"]),
}


def health(server: LedgerServer) -> tuple[int, dict[str, Any]]:
    """Say whether the foundation takes changes: an HTTP status, and why."""
    status = server.status()
    trouble = status["journal"]["trouble"]
    answer = {
        "status": "trouble" if trouble else "ok",
        "trouble": trouble,
        "term": status["term"],
        "revision": status["revision"],
        "committed": status["committed"],
        "members": sum(member["state"] == "up" for member in status["members"]),
    }
    return (503 if trouble else 200), answer


@final
class _HealthHandler(web.RequestHandler):
    def initialize(self, server: LedgerServer) -> None:
        self._server = server

    def get(self) -> None:
        code, answer = health(self._server)
        self.set_status(code)
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps(answer))


def add_health_route(scheduler: Any, server: LedgerServer) -> None:
    """Add the route where the scheduler has an HTTP server."""
    application = getattr(scheduler, "http_application", None)
    if application is not None:
        application.add_handlers(".*$", [("/dspex/health", _HealthHandler, {"server": server})])


def add_metrics(server: LedgerServer) -> Callable[[], None]:
    """Add the metrics where Prometheus is at hand; gives what takes them away."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return lambda: None
    collector = _Collector(server)
    REGISTRY.register(collector)
    return lambda: REGISTRY.unregister(collector)


@final
class _Collector:
    def __init__(self, server: LedgerServer) -> None:
        self._server = server

    def describe(self) -> list[Any]:
        # An empty description lets several schedulers of one process (in tests) register.
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = self._server.status()
        for name, (kind, words, take) in _METRICS.items():
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            yield family(f"dspex_{name}", words, value=take(status))
        members = GaugeMetricFamily("dspex_members", "Members by state", labels=["state"])
        states = [member["state"] for member in status["members"]]
        for state in sorted({"up", *states}):
            members.add_metric([state], states.count(state))
        yield members
        for name, words, key in (
            ("calls", "Calls by op", "calls"),
            ("refused", "Calls refused, by error", "refused"),
        ):
            counter = CounterMetricFamily(f"dspex_{name}", words, labels=["kind"])
            for kind, count in status[key].items():
                counter.add_metric([kind], count)
            yield counter
