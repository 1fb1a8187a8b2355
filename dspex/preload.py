"""For ``dask scheduler --preload dspex.preload``: the foundation, before anything is served.

Knows: options of the command line and of Dask's configuration. Must not know: what they do.

====================  =========================  ===============================================
option                configuration              meaning
====================  =========================  ===============================================
--dspex-journal URL   dspex.journal              memory, sqlite:///path or etcd://host:port
--dspex-lease SECS    dspex.lease                how long a silent worker is believed in
--dspex-repair        dspex.repair               open a damaged journal with what is left of it
                      dspex.quotas               {tenant: {cpu_cores, memory_gb, max_concurrent}}
====================  =========================  ===============================================
"""

from __future__ import annotations

import logging

import click
from dask import config
from distributed import Scheduler

from dspex.cluster.foundation.plugin import FoundationPlugin
from dspex.cluster.units import parse_seconds

__all__ = ["dask_setup"]


@click.command()
@click.option("--dspex-journal", default=None, help="memory, sqlite:///path or etcd://host:port")
@click.option("--dspex-lease", default=None, help='seconds, or "500ms"')
@click.option("--dspex-repair", is_flag=True, help="open a damaged journal with what is left")
def dask_setup(
    scheduler: Scheduler,
    dspex_journal: str | None,
    dspex_lease: str | None,
    dspex_repair: bool,
) -> None:
    """Add the plugin; Dask starts it before it serves anything."""
    _log_as_dask_does()
    scheduler.add_plugin(
        FoundationPlugin(
            dspex_journal or config.get("dspex.journal", "memory"),
            lease=parse_seconds("lease", dspex_lease or config.get("dspex.lease", 3.0)) or 3.0,
            quotas=config.get("dspex.quotas", {}),
            repair=dspex_repair or config.get("dspex.repair", False),
        )
    )


def _log_as_dask_does() -> None:
    """An operator reads one log; whoever has set ours up is left alone."""
    ours, dasks = logging.getLogger("dspex"), logging.getLogger("distributed")
    if not ours.handlers:
        ours.handlers = list(dasks.handlers)
        ours.setLevel(dasks.getEffectiveLevel())
        ours.propagate = dasks.propagate
