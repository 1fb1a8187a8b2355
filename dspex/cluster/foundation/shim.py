"""What the scheduler sends to every worker: a plugin that also a worker without dspex can load.

Knows: how such a pickle is made. Must not know: what a member does (`member`).

A worker that cannot unpickle a plugin exits, and so would every worker that joins later. So the
plugin is source text, evaluated by Python's own `eval`, which needs Dask and the standard library
alone; dspex is imported inside, where its absence is only logged.
"""

from __future__ import annotations

import pickle
from typing import Any

from dspex.cluster.source import Source

__all__ = ["NAME", "worker_plugin"]

NAME = "dspex-member"

_SOURCE = """
def make(options):
    import logging
    from distributed import WorkerPlugin

    logger = logging.getLogger("distributed.worker")

    class DspexMember(WorkerPlugin):
        name = NAME
        member = None

        async def setup(self, worker):
            try:
                from dspex.cluster.foundation.member import join
            except ImportError as error:
                logger.warning(
                    "this worker cannot load dspex (%s), so it works for Dask and is no member of "
                    "the foundation; install the client's version of dspex here", error
                )
                return
            self.member = await join(worker, **options)

        async def teardown(self, worker):
            if self.member is not None:
                await self.member.leave()

    return DspexMember()
"""


def worker_plugin(**options: Any) -> bytes:
    """Make the plugin's pickle; the options are those of `member.join`.

    Examples
    --------
    >>> b"dspex.cluster.foundation.member" in worker_plugin(lease=3.0)
    True
    >>> type(pickle.loads(worker_plugin(lease=3.0))).__name__
    'DspexMember'
    """
    code = f"(lambda space: (exec({_SOURCE!r}, space), space['make']({options!r}))[1])"
    return pickle.dumps(Source(f"{code}({{'NAME': {NAME!r}}})"))
